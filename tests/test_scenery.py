"""What the lesson on scenery cannot show: every place many times, odd sizes, odd input, and that nothing leaks in."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepfake_course.rendering import stream
from deepfake_course.scenery import (
    MATERIALS, OVERLAYS, PLACES, Stage, depth_of_field, furnish, kelvin, linear, overlay, scenery, surface, view,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", PLACES)
def test_every_place_is_light_of_sensible_strength(kind):
    for seed in range(6):
        light = scenery(stream(seed, kind), 48, 64, kind)
        assert light.shape == (48, 64, 3) and light.dtype == np.float32
        assert np.isfinite(light).all() and light.min() >= 0 and .004 < light.mean() < 1.2


@pytest.mark.parametrize("size", [(32, 32), (200, 40), (40, 200), (33, 57)])
def test_any_shape_of_picture(size):
    assert scenery(stream(3), *size).shape == (*size, 3)


def test_places_differ_from_each_other_and_are_the_same_in_another_process():
    small = [scenery(stream(seed), 32, 32) for seed in range(20)]
    assert all(np.abs(a-b).mean() > 1e-3 for k, a in enumerate(small) for b in small[:k])
    code = ("from deepfake_course.scenery import scenery; from deepfake_course.rendering import stream;"
            "print(repr(float(scenery(stream(5), 32, 32).astype(float).sum())))")
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(said.stdout) == float(small[5].astype(float).sum())


def test_a_size_does_not_change_the_place():
    large, small = (scenery(stream(8), n, n, "living") for n in (128, 64))
    half = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.corrcoef(half.ravel(), small.ravel())[0, 1] > .9


@pytest.mark.parametrize("material", MATERIALS)
def test_surfaces_are_finite_shares(material):
    rng = np.random.default_rng(0)
    n, noise = 500, rng.standard_normal((64, 64, 4)).astype(np.float32)
    for colour in (0., .01, .95):
        albedo, own = surface(material, np.full((n, 3), colour), rng.random(n), rng.uniform(-9, 9, (4, n)),
                              rng.random(n), noise)
        assert albedo.shape == own.shape == (n, 3) and np.isfinite(own).all() and own.min() >= 0
        assert 0 <= albedo.min() and albedo.max() <= .9501


def test_one_pixel_of_a_material_is_enough():
    noise = np.zeros((8, 8, 4), np.float32)
    for material in MATERIALS:
        surface(material, np.ones((1, 3)), np.ones(1), np.full((4, 1), .5), np.ones(1), noise)


def test_the_nearer_board_hides_the_farther_whatever_the_order():
    for order in ((2, 1), (1, 2)):
        stage = Stage(stream(1))
        for z in order:
            stage.rect(-9, -9, 9, 9, z, (z/4,)*3)
        pixels = view(stage, 20, 30)
        assert np.allclose(pixels.depth, 1) and np.allclose(pixels.colour, .25)
        assert np.allclose(pixels.normal, [0, 0, -1])


def test_a_board_is_where_the_pinhole_says():
    stage = Stage(stream(1), fov=2*np.arctan(.5))
    stage.rect(-9, -9, 9, 9, 8, (0, 0, 0), layer=0)
    stage.rect(-.5, -.25, .5, .25, 2, (1, 1, 1))
    white = view(stage, 101, 101).colour[..., 0] > .5
    rows, cols = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert abs(len(cols)-.5*101) <= 2 and abs(len(rows)-.25*101) <= 2
    assert abs(cols.mean()-50) <= .5 and abs(rows.mean()-50) <= .5


def test_a_turned_stage_is_a_turned_picture():
    stage = Stage(stream(1))
    stage.rect(-9, -9, 9, 9, 5, (.5, .5, .5))
    turn = np.array([[np.cos(.3), 0, np.sin(.3)], [0, 1, 0], [-np.sin(.3), 0, np.cos(.3)]])
    pixels = view(stage, 21, 21, turn)
    assert abs(pixels.depth[10, 10]*np.cos(.3)-5) < 1e-4
    assert np.allclose(pixels.normal[10, 10], turn @ [0, 0, -1], atol=1e-6)


def test_blur_keeps_light_and_lets_the_focus_be():
    rng = np.random.default_rng(0)
    light, depth = rng.random((60, 60, 3)).astype(np.float32), np.full((60, 60), 2.)
    sharp = depth_of_field(light, depth, 400, 2., .03)
    soft = depth_of_field(light, depth, 400, .8, .03)
    assert np.corrcoef(sharp.ravel(), light.ravel())[0, 1] > .8 > .3 > soft.std()/light.std()
    assert abs(soft.mean()/light.mean()-1) < .02


def test_a_near_sharp_thing_does_not_bleed_into_a_soft_wall():
    light, depth = np.full((80, 80, 3), .1, np.float32), np.full((80, 80), 4.)
    light[:, :40], depth[:, :40] = .9, 1.
    out = depth_of_field(light, depth, 600, 1., .02)
    assert out[40, 44:, 0].max() < .15 and out[40, :36, 0].min() > .85


@pytest.mark.parametrize("wrong", [lambda: linear("red"), lambda: kelvin(0), lambda: furnish(Stage(stream(1)), ""),
                                   lambda: overlay(np.zeros((4, 4), np.uint8), stream(1)),
                                   lambda: scenery(stream(1), 32, 32, "nowhere")])
def test_odd_input_is_refused(wrong):
    with pytest.raises(ValueError, match="digits|lamps|there are|uint8"):
        wrong()


def test_overlays_move_with_time_and_leave_their_input_alone():
    img = np.full((64, 80, 3), 90, np.uint8)
    moved = set()
    for seed in range(60):
        a, b, c = (overlay(img, np.random.default_rng(seed), t) for t in (0., 0., 2.))
        assert (a == b).all() and a.shape == img.shape and (img == 90).all()
        if (a != c).any():
            moved.add(OVERLAYS[np.random.default_rng(seed).integers(len(OVERLAYS))])
    assert moved == {"band", "flakes", "star", "smile"}
