"""What the lesson cannot say about itself: many seeds, bad input, real-world detectors on a wider cast."""

import numpy as np
import pytest

from deepfake_course.actors import Actor, Performance, cast_table, film, meet_detectors, render


@pytest.mark.parametrize("seed", [-1, 1_000_000, 1.5, True, "7", None])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match="whole number from 0 to 999999"):
        Actor(seed)


def test_numpy_integers_are_the_same_person():
    assert Actor(np.int64(7)) == Actor(7)


@pytest.mark.parametrize("times", [[], [np.nan], [0, np.inf]])
def test_times_that_are_none(times):
    with pytest.raises(ValueError, match="at least one time"):
        film(Actor(1), Performance(1), times)


@pytest.mark.parametrize("wrong", [dict(light="moon"), dict(camera=dict(lens=3)), dict(size=8), dict(fill=(.9, .1)), dict(talk=-1)])
def test_performances_that_cannot_be(wrong):
    with pytest.raises(ValueError):
        Performance(1, **wrong)


@pytest.mark.parametrize("seed", [3, 44, 164, 999_999])
def test_frames_are_whole(seed):
    frame = render(Actor(seed), Performance(seed % 1000, size=96), .7)
    assert frame.img.shape == (96, 96, 3) and frame.img.dtype == np.uint8 and frame.img.std() > 5
    assert np.isfinite(frame.landmarks).all() and frame.landmarks.shape == (68, 2)
    assert 0 <= frame.mask.min() and .02 < frame.mask.mean() < .7 and frame.mask.max() <= 1
    inside = frame.landmarks[30].round().astype(int)  # the tip of the nose is skin, and near
    assert frame.mask[inside[1], inside[0]] > .5 and frame.depth[inside[1], inside[0]] > 0


def test_any_frame_alone_is_that_frame():
    actor, what, times = Actor(20), Performance(4, size=96), np.arange(4) / 15
    together = film(actor, what, times)
    alone = film(actor, what, times[2:3])
    assert np.array_equal(together.clip[2], alone.clip[0])
    assert np.allclose(together.landmarks[2], alone.landmarks[0])


def test_a_scene_stays_and_a_performance_changes():
    a, b = Performance(1, scene=9), Performance(2, scene=9)
    assert a.camera == b.camera and a.at(.5)["yaw"] != b.at(.5)["yaw"]


def test_people_behind_are_behind():
    actor, what = Actor(20), Performance(4, size=96)
    behind = Performance(5, scene=4, size=96, fill=(.2, .22), centre=(.15, .35))
    alone, both = film(actor, what, [0.0]), film(actor, what, [0.0], [(Actor(31), behind)])
    assert np.allclose(alone.landmarks, both.landmarks) and np.array_equal(alone.mask, both.mask)
    assert np.abs(alone.clip.astype(int) - both.clip)[0, :, :24].max() > 30


def test_every_cell_of_the_cast_is_filled_once():
    cast = cast_table([Actor(seed) for seed in range(96, 144)])
    assert cast.groupby(["tone", "presentation"]).size().eq(4).all()


def test_detectors_accept_a_wide_cast():
    met = meet_detectors(range(5000, 5012))
    assert met.prob.gt(0).mean() >= .9 and met.hog.mean() >= .8 and met.inner.median() < .05
