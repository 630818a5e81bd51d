"""What a lesson cannot show about looks: every style, extreme people, patches that leave no trace,
and that looks and shapes agree about where things are."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from deepfake_course.heads import (
    BEARDS, SHAPE, SHEET_LEFT, SHEET_TOP, STYLES, TEXEL, draw_traits, landmark_places, neutral,
)
from deepfake_course.looks import (
    CUTS, Head, eye_patch, grow_hair, mouth_patch, paint_sheet, skin_base,
)
from deepfake_course.rendering import stream

LAMP = np.array([.48, -.48, .73])


def problems(sheet, hair):
    "Sentences about maps that no lamp could light."
    shape = sheet.albedo.shape[:2]
    found = []
    for name in ("s", "m", "skin", "area", "height"):
        a = getattr(sheet, name)
        if a.shape != shape or not np.isfinite(a).all():
            found.append(f"{name} is not a finite map of the sheet")
    for name in ("albedo", "normals", "soft"):
        a = getattr(sheet, name)
        if a.shape != (*shape, 4) or a.dtype != np.float32 or not np.isfinite(a).all():
            found.append(f"{name} is not four finite channels")
    if not 0 < sheet.albedo[..., :3].min() <= sheet.albedo[..., :3].max() < 1:
        found.append("an albedo outside (0, 1)")
    if not 0 <= sheet.albedo[..., 3].min() <= sheet.albedo[..., 3].max() <= 1:
        found.append("a share of the sky outside [0, 1]")
    if sheet.normals[..., 3].min() < 0:
        found.append("negative gloss")
    for name, a in (("skin", sheet.skin), ("cover", sheet.soft[..., 3])):
        if not 0 <= a.min() <= a.max() <= 1:
            found.append(f"{name} outside [0, 1]")
    if not np.isfinite(hair[0]).all() or len(hair[0]) != len(hair[1]) or (hair[1] < 0).any():
        found.append("hair that is not finite, or strands without brightness")
    return found


def build(traits):
    sheet = paint_sheet(traits)
    return sheet, grow_hair(sheet, stream(traits["seed"], "hair"))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_with_every_kind_of_beard(style):
    beard = BEARDS[STYLES.index(style) % len(BEARDS)]
    traits = draw_traits(0) | {"style": style, "beard": beard, "feminine": .2}
    sheet, hair = build(traits)
    assert problems(sheet, hair) == []
    assert (len(hair[0]) > 0) == (style in CUTS)


@pytest.mark.parametrize("end", (3, 4))
def test_people_at_the_ends_of_every_trait(end):
    age, melanin = ((18, 0.0), (80, 1.0))[end - 3]
    shape = {name: row[end] for name, row in SHAPE.items()}
    traits = draw_traits(1) | shape | {
        "age": age, "melanin": melanin, "haemo": end - 3.0, "warm": (end - 3.5) * 8,
        "freckles": 1.0, "moles": 4, "makeup": 1.0, "grey": 1.0,
        "recede": .9 * (end - 3), "length": end - 3.0, "fold": 1.3 * (end - 3),
        "blotch": 1.1, "oil": 1.25,
    }
    sheet, hair = build(traits)
    assert problems(sheet, hair) == []
    for side in (-1, 1):
        for blink in (-.1, .5, 1):
            at, albedo, normals, glints = eye_patch(sheet, side, blink, (6, -4), LAMP)
            assert np.isfinite(albedo).all() and np.isfinite(normals).all() and glints.max() < 2
            assert albedo.shape == sheet.albedo[at].shape and 0 <= albedo.min() <= albedo.max() <= 1
    for jaw in (0, .5, 1):
        at, albedo = mouth_patch(sheet, jaw, 1)
        assert albedo.shape == sheet.albedo[at].shape and 0 <= albedo.min() <= albedo.max() <= 1


@pytest.fixture(scope="module")
def sheet():
    return paint_sheet(draw_traits(303))


def test_patches_leave_the_sheet_as_it_was(sheet):
    before = sheet.albedo.copy(), sheet.normals.copy()
    for side in (-1, 1):
        _, albedo, normals, _ = eye_patch(sheet, side, .4, (1, 1), LAMP)
        albedo[:], normals[:] = 0, 0
    mouth_patch(sheet, .5, .5)[1][:] = 0
    assert np.array_equal(sheet.albedo, before[0]) and np.array_equal(sheet.normals, before[1])


@pytest.mark.parametrize("blink", (0, .35, .7))
def test_landmarks_of_the_lids_lie_on_the_painted_lids(sheet, blink):
    "Lesson 07 says where the lid points are; here they must lie where the eyeball begins."
    points = landmark_places(sheet.form.lines, neutral(blink=blink))[19:31]
    for side, eye in ((-1, points[:6]), (1, points[6:])):
        matt = replace(sheet, normals=np.zeros_like(sheet.normals))
        at, _, normals, _ = eye_patch(matt, side, blink, (0, 0), LAMP)
        inside = normals[..., 3] / .25  # where the ball shows: its gloss is .25
        s, m = sheet.s[at][0], sheet.m[at][:, 0]
        for x, y, _ in eye[[1, 2, 4, 5]]:
            column = inside[:, np.argmin(abs(s - x))]
            edge = np.flatnonzero(np.diff(column > .5))
            assert abs(m[edge] + .25 - y).min() < .5


def test_height_map_lies_on_the_sheet_not_on_the_form(sheet):
    "The sheet is shorter than the form and has the lips apart; shadows need the right rows."
    assert sheet.height.shape == sheet.albedo.shape[:2] != sheet.form.s.shape
    lines = sheet.form.lines
    for m in (-40, 0, lines.traits["nose_y"] - 8, lines.mouth + 12, lines.chin - 8):
        row = np.argmin(abs(sheet.m[:, sheet.m.shape[1] // 2] - m))
        column = sheet.m.shape[1] // 2
        want = sheet.form.look_up(sheet.form.base, 0, m)[2]
        assert abs(sheet.height[row, column] - want) < 1


def test_teeth_lie_in_the_mouth_and_eyes_by_the_pupils(sheet):
    traits, lines = sheet.traits, sheet.form.lines
    rows, cols = mouth_patch(sheet, 1, 0)[0]
    hole = np.argwhere(np.isfinite(sheet.inner))
    assert rows.start <= hole[:, 0].min() and hole[:, 0].max() < rows.stop
    assert cols.start <= hole[:, 1].min() and hole[:, 1].max() < cols.stop
    assert abs(lines.mouth - sheet.m[hole[:, 0], hole[:, 1]]).max() < 4
    for side in (-1, 1):
        rows, cols = eye_patch(sheet, side, 0, (0, 0), LAMP)[0]
        middle = SHEET_LEFT + (cols.start + cols.stop) / 2 / TEXEL
        assert abs(middle - side * traits["pupils"]) < 1
        assert abs(SHEET_TOP + (rows.start + rows.stop) / 2 / TEXEL) < 1


def test_the_same_seed_is_the_same_person_in_another_process():
    code = (
        "import hashlib; from deepfake_course.looks import Head; h = Head(26); "
        "s = hashlib.sha256(h.sheet.albedo.tobytes() + h.hair.tobytes()); print(s.hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) > 60


def test_neighbouring_seeds_are_different_people():
    a, b = Head(7), Head(8)
    assert np.abs(skin_base(a.traits) - skin_base(b.traits)).max() > .01
    assert np.abs(a.form.base - b.form.base).max() > 2


@pytest.mark.parametrize("melanin", (-.01, 1.01, float("nan"), 40))
def test_a_share_that_cannot_be(melanin):
    with pytest.raises(ValueError, match="melanin is a share"):
        skin_base(draw_traits(0) | {"melanin": melanin})


@pytest.mark.parametrize(
    "call",
    (
        lambda sheet: eye_patch(sheet, 0, 0, (0, 0), LAMP),
        lambda sheet: eye_patch(sheet, 1, 1.01, (0, 0), LAMP),
        lambda sheet: eye_patch(sheet, 1, float("nan"), (0, 0), LAMP),
        lambda sheet: mouth_patch(sheet, -.1, 0),
        lambda sheet: mouth_patch(sheet, float("nan"), 0),
        lambda sheet: Head(2**32),
        lambda sheet: Head(1.5),
        lambda sheet: Head("anna"),
    ),
)
def test_moments_and_people_that_cannot_be(sheet, call):
    with pytest.raises(ValueError):
        call(sheet)
