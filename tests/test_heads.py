"""What lesson 07 cannot say about itself: bad input, whole casts, and the same people elsewhere."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from deepfake_course.heads import (
    SHAPE,
    STYLES,
    HeadForm,
    casting_cell,
    draw_traits,
    express,
    grid_faces,
    head_mesh,
    landmark_places,
    neutral,
    place,
    sheet_height,
)
from deepfake_course.rendering import project

CAMERA = 900.0, (0.0, 0.0), 900.0


def digest(seed):
    traits = draw_traits(seed)
    text = json.dumps({k: np.asarray(v).tolist() for k, v in traits.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def mesh_points(form, expression):
    s, m, inner = head_mesh(form.lines)
    return express(form.lines, form.look_up(form.base, s, m), s, m, inner, expression)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "7", None, np.float64(3)])
def test_bad_seeds_are_refused(seed):
    for draw in (casting_cell, draw_traits):
        with pytest.raises(ValueError, match="a whole number in"):
            draw(seed)


@pytest.mark.parametrize("seed", [0, np.int64(0), np.uint8(255), 2**32 - 1])
def test_whole_numbers_of_any_type_are_seeds(seed):
    assert digest(seed) == digest(int(seed))
    assert type(draw_traits(seed)["seed"]) is int


def test_a_seed_is_the_same_person_in_another_process():
    code = "import sys; sys.path.insert(0, 'tests'); from test_heads import digest; print(digest(7))"
    env = {"PYTHONHASHSEED": "1", "PATH": ""}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.stdout.strip() == digest(7), run.stderr


@pytest.mark.parametrize("start", [0, 17, 2**31])
def test_any_48_neighbours_fill_every_cell_once(start):
    assert len({casting_cell(seed) for seed in range(start, start + 48)}) == 48


def test_traits_stay_within_their_limits():
    cast = [draw_traits(seed) for seed in range(600)]
    moved = {"ear", "nose_tip", "lid_up", "nose_width", "lip_up", "lip_low"}  # by age or skin
    for name, (_, _, _, least, most, _) in SHAPE.items():
        values = np.array([t[name] for t in cast])
        slack = 0.35 * (most - least) if name in moved else 0
        assert least - slack <= values.min() and values.max() <= most + slack, name
    assert {t["style"] for t in cast} == set(STYLES)
    assert min(t["age"] for t in cast) >= 18
    assert all(t["beard"] == "none" for t in cast if t["feminine"] >= 0.5)


def test_a_very_short_face_is_still_a_face():
    "The chin may come to lie above the widest part of the jaw; the profile's knots then meet."
    small = {"nose_y": 38.0, "mouth_drop": 18.5, "chin_drop": 37.0}
    assert np.isfinite(HeadForm(draw_traits(1) | small).base).all()


@pytest.mark.parametrize("end", [3, 4])
def test_the_most_extreme_person_still_has_a_finite_face(end):
    form = HeadForm(draw_traits(3) | {name: row[end] for name, row in SHAPE.items()})
    assert np.isfinite(form.base).all() and np.isfinite(form.relief).all()
    assert np.isfinite(mesh_points(form, neutral(jaw=1, smile=1, brow=1))).all()


@pytest.mark.parametrize("seed", range(0, 48, 6))
def test_no_triangle_of_a_face_turns_its_back(seed):
    "Between brows and chin, seen from the front; nose wings may hide a strip behind them."
    form = HeadForm(draw_traits(seed))
    s, m, _ = head_mesh(form.lines)
    faces = grid_faces(*s.shape)
    middle_s, middle_m = s.ravel()[faces].mean(1), m.ravel()[faces].mean(1)
    area = (np.abs(middle_s) < 45) & (np.abs(middle_m - 30) < 60)
    for mood in ({}, {"smile": 0.8}, {"jaw": 0.6}):
        corners = mesh_points(form, neutral(**mood)).reshape(-1, 3)[faces[area]]
        a, b, c = project(corners, *CAMERA).transpose(1, 0, 2)
        (bx, by), (cx, cy) = (b - a).T, (c - a).T
        turn = bx * cy - by * cx
        assert (turn < -1e-3).mean() < 0.02, mood


@pytest.mark.parametrize("seed", [0, 7, 41, 100])
def test_lids_and_lips_keep_their_order_in_every_expression(seed):
    form = HeadForm(draw_traits(seed))
    for mood in ({}, {"blink": 1}, {"jaw": 1}, {"smile": 1, "jaw": 0.3}, {"pucker": 0.8}):
        expression = neutral(**mood)
        points = place(form, *landmark_places(form.lines, expression).T, expression)
        y = points[:, 1]
        assert (y[[20, 21, 26, 27]] <= y[[24, 23, 30, 29]] + 0.5).all(), mood
        assert y[34] < y[45] <= y[49] + 1e-3 < y[40] + 1e-3, mood


def test_a_place_on_the_slit_belongs_to_the_upper_lip_whatever_the_rounding():
    form = HeadForm(draw_traits(5))
    s = np.linspace(-20, 20, 41)
    slit = form.lines.slit(s)
    for wobble in (0, 1e-9, -1e-9):
        shut, opened = (place(form, s, slit + wobble, 0 * s, neutral(jaw=jaw)) for jaw in (0, 1))
        assert np.abs(opened[:, 1] - shut[:, 1]).max() < 1
        assert np.allclose(sheet_height(form.lines, s, slit + wobble, 0 * s), slit, atol=1e-6)


def test_looking_up_works_for_any_shape():
    form = HeadForm(draw_traits(5))
    assert form.look_up(form.relief, 3.0, 20.0).shape == ()
    assert form.look_up(form.base, np.zeros(9000), 10.0).shape == (9000, 3)
    assert form.look_up(form.base, np.zeros((0,)), np.zeros((0,))).shape == (0, 3)
    far = form.look_up(form.relief, 999.0, 0.0)
    assert far == form.look_up(form.relief, 149.9, 0.0)


def test_neutral_hands_out_its_own_arrays():
    one, other = neutral(), neutral()
    one["shift"] += 5
    assert (other["shift"] == 0).all() and (neutral()["shift"] == 0).all()
