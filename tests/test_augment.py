"""What the lesson on augmentation cannot show: odd shapes, damage, statistics, other libraries."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy.ndimage import affine_transform
from scipy.stats import kstest
from skimage.transform import AffineTransform
from torchvision.transforms.v2 import functional as v2

from deepfake_course import _bench_augment, augment
from deepfake_course.augment import (
    MIRROR,
    PARTS,
    PERTURBATIONS,
    PRESETS,
    AugmentExplorer,
    Augmenter,
    Faces,
    RobustnessExplorer,
    Spectrum,
    Step,
    attend,
    blur,
    cross_fit,
    face_part,
    fit_square,
    perturb,
    recolour,
    robustness_curve,
    through_codec,
    warp,
)
from deepfake_course.metrics import auc
from deepfake_course.samples import load_samples

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def df():
    return load_samples("A")


@pytest.fixture(scope="module")
def faces(df):
    pairs = df[df.base.isin(df.base.unique()[:3])]  # three real clips, each with its fake
    some = df.loc[pairs.index]
    some.attrs = df.attrs
    return Faces.cut(some, k=3, size=128)


@pytest.fixture(scope="module")
def split(df):
    return pd.Series("train", df.index)


def clone(faces):
    return faces.take(torch.arange(len(faces)))


def same(a, b):
    return all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("x", "y", "landmarks", "mask")
    ) and np.array_equal(a.rows, b.rows)


def tiny(n, side=12, seed=0):
    x = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return Faces(x, rows=np.arange(n))


def matrices(n, seed=0):
    rng = np.random.default_rng(seed)
    m = np.eye(3) + rng.normal(0, 0.25, (n, 3, 3))
    m[:, :2, 2], m[:, 2] = rng.normal(0, 6, (n, 2)), [0, 0, 1]
    return torch.from_numpy(m.astype(np.float32))


# Single operations against other libraries


@pytest.mark.parametrize("shape", [(40, 64), (65, 33)])
def test_blur_is_opencvs_for_any_shape_with_a_kernel_for_each_picture(shape):
    x = torch.rand(7, 3, *shape)
    sides = torch.tensor([15, 1, 9, 31, 3, 5, 7])
    for ours, img, side in zip(blur(x, sides), x, sides.tolist()):
        sigma = 0.15 * side + 0.35  # OpenCV rounds kernels up to 7 unless it is told sigma
        theirs = cv2.GaussianBlur(img.permute(1, 2, 0).numpy(), (side, side), sigma)
        np.testing.assert_allclose(ours.permute(1, 2, 0), theirs, atol=2e-6)


@pytest.mark.parametrize("sides", [0, 2, -1, 3.5, 201])
def test_blur_refuses_kernels_that_are_none(sides):
    with pytest.raises(ValueError, match="odd side"):
        blur(torch.rand(2, 3, 32, 32), sides)


@pytest.mark.parametrize(
    ("calm", "most"),
    [(0, 2 / 64), (31, 2e-3)],  # places are rounded to 1/32 px: visible in white noise, not in a calm picture
)
def test_warp_is_scipys_for_any_matrix_and_a_shape_that_is_not_square(calm, most):
    x = torch.rand(6, 3, 36, 50)
    x = blur(x, calm) if calm else x
    moves = matrices(6)
    moves[4] = torch.eye(3)
    moves[5] = torch.diag(torch.tensor([-1.0, 1, 1]))
    out = warp(Faces(x), moves).x
    for ours, img, move in zip(out, x.numpy(), moves.double().numpy()):
        back = np.linalg.inv(move)[[1, 0, 2]][:, [1, 0, 2]]  # SciPy counts rows first
        centre = np.array([35, 49]) / 2
        offset = centre - back[:2, :2] @ centre + back[:2, 2]
        for channel, picture in zip(ours.numpy(), img):
            theirs = affine_transform(picture, back[:2, :2], offset, order=1, mode="nearest")
            np.testing.assert_allclose(channel, theirs, atol=most)
    torch.testing.assert_close(out[4:], torch.stack([x[4], x[5].flip(2)]), atol=1e-5, rtol=0)


def test_landmarks_go_where_the_pixels_go():
    "A white dot is drawn at one landmark of each picture; after the warp it is found there again."
    rng, n = np.random.default_rng(1), 12
    marks = torch.from_numpy(rng.integers(24, 40, (n, 68, 2)).astype(np.float32))
    x = torch.zeros(n, 3, 64, 64)
    for i in range(n):
        left, top = marks[i, i].int().tolist()
        x[i, :, top - 1 : top + 2, left - 1 : left + 2] = 1
    moves = matrices(n, 2)
    moves[::2, :, 0] *= -1  # mirrors, half of them
    moved = warp(Faces(x, landmarks=marks), moves)
    found = 0
    for i in range(n):
        light = moved.x[i, 0]
        if light[1:-1, 1:-1].sum() < 4 or light[[0, -1]].any() or light[:, [0, -1]].any():
            continue  # it left the picture
        place = torch.stack([(light.sum(k) * torch.arange(64)).sum() / light.sum() for k in (0, 1)])
        mirrored = torch.linalg.det(moves[i]) < 0
        number = int(np.flatnonzero(MIRROR == i)[0]) if mirrored else i
        assert torch.dist(place, moved.landmarks[i, number]) < 0.25
        found += 1
    assert found >= n // 2
    tool = AffineTransform(moves[1].double().numpy())
    theirs = tool(marks[1].double().numpy() - 31.5) + 31.5
    ours = warp(Faces(x, landmarks=marks), moves).landmarks[1]
    order = MIRROR if torch.linalg.det(moves[1]) < 0 else slice(None)
    np.testing.assert_allclose(ours, theirs[order], atol=1e-3)


def test_the_mirror_is_its_own_inverse_and_keeps_the_midline():
    assert np.array_equal(MIRROR[MIRROR], np.arange(68))
    assert set(np.flatnonzero(MIRROR == np.arange(68))) == {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}


def test_a_mirrored_face_still_has_its_landmarks_in_order(faces):
    "Each landmark of a mirrored face stays close to where that landmark is in the face itself."
    there = warp(faces, torch.diag(torch.tensor([-1.0, 1, 1])).expand(len(faces), 3, 3))
    a, b = (f.landmarks - f.landmarks.mean(1, keepdim=True) for f in (faces, there))
    wrong = a.clone()
    wrong[..., 0] *= -1  # as if numbers were not exchanged
    size = float(a.std())
    assert (a - b).abs().mean() < 0.25 * size < (a - wrong).abs().mean()


def test_hsv_is_matplotlibs_for_all_kinds_of_colours_and_turns_of_the_hue():
    colours = torch.rand(1, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    colours[..., :5] = colours[:, :1, :, :5]  # grey
    colours[..., 5:8] = torch.tensor([0.0, 0.5, 1.0])  # black, middle, white
    colours[:, 0, :, 8:12] = colours[:, 1, :, 8:12]  # two channels alike
    grey = np.ptp(colours[0].numpy(), axis=0) < 0.01  # no colour, so hardly a hue
    for seed in range(12):
        u = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed))
        size = torch.tensor([1.0 + seed % 3])
        ours = PERTURBATIONS["hsv"].change(Faces(colours), size, u, None)[0]
        hsv = rgb_to_hsv(colours[0].permute(1, 2, 0).double().numpy())
        hsv += float(size) * (2 * u[0].double().numpy() - 1) * [40 / 360, 30 / 255, 20 / 255]
        hsv = np.dstack([hsv[..., 0] % 1, hsv[..., 1:].clip(0, 1)])
        theirs = hsv_to_rgb(hsv)
        far = np.abs(ours.permute(1, 2, 0).numpy() - theirs).max(2)
        assert far[~grey].max() < 2e-5 and far.max() < 1e-3


def test_colours_along_principal_axes_have_the_spread_of_the_eigenvalues():
    "Offsets over many draws: covariance E diag(v lambda)^2 E', whatever the signs of the axes."
    mixing = torch.tensor([[0.3, 0, 0], [0.2, 0.1, 0], [0.1, 0.1, 0.05]])
    x = (0.5 + 0.3 * torch.einsum("ij,jhw->ihw", mixing, torch.randn(3, 32, 32))).clamp(0, 1)
    n = 6000
    u = torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    faces = Faces(x[None].expand(n, -1, -1, -1)[:, :, ::4, ::4])
    offsets = PERTURBATIONS["fancy pca"].change(faces, torch.full((n,), 2.0), u, None)[:, :, 3]
    pixels = faces.x[0].flatten(1).double().numpy()
    spread, axes = np.linalg.eigh(np.cov(pixels))
    want = axes @ np.diag((2 * spread) ** 2) @ axes.T
    np.testing.assert_allclose(np.cov(offsets.double().numpy().T), want, atol=0.06 * want.max())


def test_brightness_contrast_and_grey_are_torchvisions():
    faces = Faces(torch.rand(1, 3, 20, 30), rows=np.array([3]))
    u, _ = augment._numbers(faces, 0, 3, True)
    sign = 1 if u[0, 0] >= 0.5 else -1
    for name, theirs in {
        "brightness": v2.adjust_brightness(faces.x, 1 + sign * 0.3),
        "contrast": v2.adjust_contrast(faces.x, 1 + sign * 0.3),
    }.items():
        torch.testing.assert_close(perturb(faces, name, value=0.3).x, theirs, atol=1e-5, rtol=0)
    grey = v2.rgb_to_grayscale(faces.x, num_output_channels=3)
    torch.testing.assert_close(perturb(faces, "grey", 1).x, grey, atol=1e-5, rtol=0)


def test_noise_has_the_size_that_was_asked_for():
    faces = Faces(torch.full((4, 3, 64, 64), 0.5), rows=np.arange(4))
    colour, grey = (perturb(faces, name, value=10).x - 0.5 for name in ("noise", "grey noise"))
    assert abs(255 * colour.std() - 10) < 0.3 and abs(255 * grey.std() - 10) < 0.3
    assert torch.equal(grey[:, 0], grey[:, 2]) and not torch.equal(colour[:, 0], colour[:, 2])
    assert not torch.equal(colour[0], colour[1])


def test_noise_is_normal_and_no_pixel_knows_its_neighbour():
    faces = Faces(torch.full((2, 3, 256, 256), 0.5), rows=np.arange(2))
    grain = (perturb(faces, "noise", value=10).x - 0.5).numpy() * 25.5
    assert kstest(grain.ravel(), "norm").pvalue > 1e-3
    pairs = [grain[..., 1:] * grain[..., :-1], grain[:, 1:] * grain[:, :-1], grain[1:] * grain[:-1]]
    for product in pairs:
        assert abs(product.mean()) < 4.5 / product.size**0.5


def test_low_resolution_by_half_is_the_mean_of_four_and_then_bilinear():
    x = torch.rand(2, 3, 20, 36)
    small = torch.nn.functional.avg_pool2d(x, 2)
    theirs = torch.nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear")
    ours = perturb(Faces(x), "resolution", value=0.5).x
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_light_and_shift_take_both_their_numbers_from_a_square():
    "As albumentations' RandomBrightnessContrast, and Keras' shift ranges, draw them."
    n = 4000
    grey = Faces(torch.tensor([0.25, 0.5]).expand(n, 3, 1, 2).contiguous(), rows=np.arange(n))
    out = perturb(grey, "light", value=0.2).x[:, 0, 0]
    gain = (out[:, 1] - out[:, 0]) / 0.25
    offset = out[:, 0] - 0.25 * gain
    marks = Faces(torch.zeros(n, 3, 4, 8), None, np.arange(n), torch.zeros(n, 68, 2))
    right, below = perturb(marks, "shift", value=0.5).landmarks[:, 0].T
    for number, middle, reach in ((gain, 1, 0.2), (offset, 0, 0.2), (right, 0, 4), (below, 0, 2)):
        place = ((number - middle) / reach).numpy()
        assert kstest(place, "uniform", (-1, 2)).pvalue > 1e-3
    assert abs(np.corrcoef(gain, offset)[0, 1]) < 0.07 > abs(np.corrcoef(right, below)[0, 1])


@pytest.mark.parametrize("name", ["blur", "noise", "jpeg", "hsv", "rotate", "brightness"])
def test_pictures_that_lie_in_memory_as_their_file_did_are_changed_alike(name, faces):
    lying = faces.x.contiguous(memory_format=torch.channels_last)
    assert not lying.is_contiguous()
    there = perturb(replace(faces, x=lying), name, 0.5).x
    assert torch.equal(there, perturb(faces, name, 0.5).x)


def test_recolour_clips_and_refuses_a_wrong_number_of_matrices():
    x = torch.rand(2, 3, 8, 8)
    assert (recolour(x, torch.cat([torch.eye(3), torch.ones(3, 1)], 1).expand(2, 3, 4)) == 1).all()
    with pytest.raises(ValueError, match="need 2 matrices"):
        recolour(x, torch.eye(3, 4)[None])


# The dial


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_no_perturbation_touches_its_input_and_each_grows_with_the_dial(name, faces):
    before = clone(faces)
    change = [abs(perturb(faces, name, s).x - faces.x).mean() for s in (0, 0.25, 1)]
    assert same(before, faces)
    assert change[0] < 1e-5 and change[2] > 1e-3
    assert name == "flip" or change[1] < change[2]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_picture_is_changed_alike_in_any_batch_and_order(name, faces):
    order = np.argsort(faces.rows, kind="stable")[::-1].copy()
    whole = np.concatenate([np.flatnonzero(faces.rows == row) for row in faces.rows[order][::3]])
    mixed, alone = perturb(faces.take(whole), name, 0.7), perturb(faces, name, 0.7).take(whole)
    torch.testing.assert_close(mixed.x, alone.x, atol=1e-5, rtol=0)
    some = faces.take(faces.rows == faces.rows[3])
    torch.testing.assert_close(
        perturb(some, name, 0.7).x,
        perturb(faces, name, 0.7).take(faces.rows == faces.rows[3]).x,
        atol=1e-5,
        rtol=0,
    )


def test_a_clip_shares_direction_and_place_but_not_the_grain(faces):
    grey = replace(faces, x=torch.full_like(faces.x, 0.5))
    cut = perturb(grey, "cutout", 0.5).x
    assert torch.equal(cut[0], cut[1]) and not torch.equal(cut[0], cut[3])
    alone = perturb(grey, "cutout", 0.5, shared=False).x
    assert not torch.equal(alone[0], alone[1])
    noise = perturb(grey, "noise", 0.5).x
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda f: perturb(f, "blur", 1.1), "give a strength"),
        (lambda f: perturb(f, "blur"), "give a strength"),
        (lambda f: perturb(f, "blur", float("nan")), "give a strength"),
        (lambda f: perturb(replace(f, x=f.x * 2), "blur", 0.5), "layer inside the model"),
        (lambda f: perturb(replace(f, x=f.x * torch.nan), "blur", 0.5), "layer inside the model"),
        (lambda f: perturb(replace(f, landmarks=None), "eyes", 0.5), "needs landmarks"),
        (lambda f: Faces(f.x.byte()), "to_batch"),
        (lambda f: Faces(f.x, rows=f.rows[:-1]), "need rows"),
        (lambda f: Faces(f.x, mask=f.mask[:, :-1]), "need mask"),
        (lambda f: face_part(f.landmarks, "chin", (128, 128)), "face_part needs"),
        (lambda f: through_codec(f.x, crf=60), "crf in"),
        (lambda f: through_codec(f.x, fps=30), "fps at most"),
        (lambda f: attend(f, f.mask + 1, share=0), "a share in"),
        (lambda f: warp(f, torch.eye(3)), "need matrices"),
    ],
)
def test_damaged_input_is_refused_with_a_remedy(bad, message, faces):
    with pytest.raises(ValueError, match=message):
        bad(faces)


# A codec, a frame, parts, attention


def test_the_codec_takes_single_frames_odd_sizes_and_keeps_the_count():
    x = torch.rand(1, 3, 35, 51)
    assert through_codec(x, 30).shape == x.shape
    x = v2.resize(torch.rand(7, 3, 5, 5), [35, 51]).clamp(0, 1)
    for how in ({"crf": 0}, {"crf": 20, "scale": 0.3}, {"crf": 20, "fps": 4}):
        assert through_codec(x, **how).shape == x.shape
    errors = [abs(through_codec(x, crf) - x).mean() for crf in (5, 25, 45)]
    assert errors == sorted(errors)


def test_a_clip_is_encoded_as_a_clip_and_not_picture_by_picture(faces):
    clips = perturb(faces, "h264", value=35).x
    stills = perturb(replace(faces, rows=np.arange(len(faces))), "h264", value=35).x
    first = np.flatnonzero(faces.rows == faces.rows[0])
    torch.testing.assert_close(clips[first], through_codec(faces.x[first], 35))
    assert not torch.equal(clips[first[1:]], stills[first[1:]])


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)])
def test_fit_square_keeps_proportions(shape):
    h, w = shape
    x = torch.ones(2, 3, h, w)
    marks = torch.tensor([[-0.5, -0.5], [w - 0.5, h - 0.5]]).repeat(2, 34, 1)  # outer corners
    out = fit_square(Faces(x, landmarks=marks, mask=torch.ones(2, h, w)), 90)
    lit = out.x[0, 0] > 0.5
    size = (lit.any(1).sum().item(), lit.any(0).sum().item())
    assert size == (round(h * 90 / max(shape)), round(w * 90 / max(shape)))
    corners = (out.landmarks[0, 1] - out.landmarks[0, 0]).tolist()
    np.testing.assert_allclose(corners, size[::-1], atol=0.5)
    assert torch.equal(out.mask[0] > 0.5, lit)


def test_halves_make_the_whole_and_are_on_their_sides(faces):
    size = faces.x.shape[2:]
    left, right = (
        face_part(faces.landmarks, "half face", size, torch.full((len(faces),), side))
        for side in (False, True)
    )
    hull = face_part(faces.landmarks, "hull", size)
    assert torch.equal(left + right, hull)
    places = torch.arange(size[1]).float()
    middle = [(half.sum(1) * places).sum(1) / half.sum((1, 2)) for half in (left, right)]
    assert (middle[0] < middle[1]).all()


def test_attention_crops_the_box_that_numpy_finds():
    x = torch.rand(1, 3, 48, 64)
    attention = torch.zeros(1, 48, 64)
    attention[0, 12:24, 16:48] = 1
    crop = attend(Faces(x, mask=attention), attention, share=0.9)
    theirs = v2.resize(x[:, :, 12:24, 16:48], [48, 64])  # bilinear, edges repeated
    inner = np.s_[:, :, 4:-4, 2:-2]
    torch.testing.assert_close(crop.x[inner], theirs[inner], atol=1e-4, rtol=0)
    drop = attend(Faces(x), attention, "drop", 0.9)
    assert torch.equal(drop.x == 0, (attention[:, None] > 0).expand_as(x) | (x == 0))


# Training only


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shared", [True, False])
def test_every_preset_gives_pictures_and_moves_what_belongs_to_them(preset, shared, faces, split):
    before, augmenter = clone(faces), Augmenter(preset, split, 3, shared)
    out = augmenter(faces)
    assert same(before, faces) and out.x.shape == faces.x.shape
    assert torch.isfinite(out.x).all() and 0 <= out.x.min() and out.x.max() <= 1
    assert torch.equal(out.y, faces.y) and np.array_equal(out.rows, faces.rows)
    assert 0 <= out.mask.min() <= out.mask.max() <= 1
    assert same(out, Augmenter(preset, split, 3, shared)(faces))
    if preset != "seed000":
        assert not torch.equal(out.x, Augmenter(preset, split, 4, shared)(faces).x)
        assert not torch.equal(out.x, augmenter(faces, epoch=1).x)


def test_epochs_rows_and_seeds_are_told_apart(split):
    "Seed 1, epoch 11 is not seed 11, epoch 1; row 1 is not row 11."
    faces = Faces(torch.rand(2, 3, 8, 8), rows=np.array([1, 11]))
    draws = [augment._numbers(faces, key, 4, True)[0] for key in ("1/11", "11/1", "1/1")]
    flat = np.concatenate(draws).flatten().tolist()
    assert len(set(flat)) == len(flat)


def test_a_clip_of_a_batch_is_changed_as_in_any_other_batch(faces, split):
    some = faces.rows == faces.rows[-1]
    augmenter = Augmenter("dfdc_winner", split, 5)
    torch.testing.assert_close(augmenter(faces.take(some)).x, augmenter(faces).take(some).x)


def test_exactly_one_of_blur_and_noise_each_half_of_the_time():
    n = 2000
    steps = (Step(1, {"flip": [1], "grey": [1]}),)
    faces = tiny(n)
    out = Augmenter(steps, pd.Series("train", range(n)))(faces)
    flipped = (out.x == faces.x.flip(3)).flatten(1).all(1)
    grey = (out.x[:, 0] - out.x[:, 2]).abs().flatten(1).amax(1) < 1e-6
    assert torch.equal(flipped, ~grey)
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / n**0.5


def test_pictures_that_no_step_chose_and_mirrored_ones_are_exact_beside_warped_ones():
    n = 60
    faces = tiny(n, 16)
    steps = (Step(0.5, {"flip": [1]}), Step(0.3, {"rotate": [20]}))
    out = Augmenter(steps, pd.Series("train", range(n)))(faces).x
    still = (out == faces.x).flatten(1).all(1)
    flipped = (out == faces.x.flip(3)).flatten(1).all(1)
    assert still.sum() > 8 and flipped.sum() > 8 and (~still & ~flipped).sum() > 5


def test_a_step_happens_as_often_as_it_says_and_its_values_fill_the_range():
    n = 3000
    faces = replace(tiny(n, 2), x=torch.full((n, 3, 2, 2), 0.5))
    steps = (Step(0.3, {"offset": (0, 60)}), Step(0.5, {"offset": [90, 100]}))
    split = pd.Series("train", range(n))
    first = 255 * (Augmenter(steps[:1], split)(faces).x[:, 0, 0, 0] - 0.5)
    on = first.abs() > 0
    assert abs(on.float().mean() - 0.3) < 4 * (0.21 / n) ** 0.5
    assert abs(first[on].abs().mean() - 30) < 2.5 and abs((first[on] > 0).float().mean() - 0.5) < 0.07
    second = 255 * (Augmenter(steps[1:], split)(faces).x[:, 0, 0, 0] - 0.5)
    assert {round(float(v)) for v in second.abs()} == {0, 90, 100}


def test_together_means_all_of_them_and_one_resampling():
    faces = Faces(v2.resize(torch.rand(40, 3, 6, 6), [40, 40]).clamp(0, 1), rows=np.arange(40))
    split = pd.Series("train", range(40))
    both = Step(1, {"rotate": [10], "scale": [0.2]}, True)
    out = Augmenter((both,), split, 7)(faces)
    u, _ = augment._numbers(faces, "7/0", 10, True)
    sign = torch.where(torch.from_numpy(u[:, [3, 7]]) < 0.5, -1.0, 1.0)
    turn = augment._affine(40, 10 * sign[:, 0])
    size = augment._affine(40, across=1 + 0.2 * sign[:, 1], down=1 + 0.2 * sign[:, 1])
    torch.testing.assert_close(out.x, warp(faces, size @ turn).x)


@pytest.mark.parametrize("side", ["test", "val", "", None, 1])
def test_nothing_but_training_rows_is_augmented_by_any_way(side, faces, df, split):
    other = split.astype(object).copy()
    other[faces.rows[4]] = side
    augmenter = Augmenter("seed002", other)
    for use in (
        augmenter,
        lambda f: augmenter.mix(f, df.base),
        augmenter.blend_reals,
    ):
        with pytest.raises(ValueError, match="only training pictures"):
            use(faces)
        with pytest.raises(ValueError, match="which rows"):
            use(replace(faces, rows=None))
    augmenter(faces.take(faces.rows != faces.rows[4]))


def test_rows_of_another_manifest_are_refused(faces, split):
    with pytest.raises(ValueError, match="on the side 'unknown'"):
        Augmenter("seed002", split)(replace(faces, rows=faces.rows + 1000))
    for bad in (split.replace("train", "test"), pd.concat([split, split])):
        with pytest.raises(ValueError, match="some of them 'train'"):
            Augmenter("seed002", bad)
    for steps in ((Step(1, {"sparkle": [1]}),), Step(1, {"blur": [3]}), "sparkle", [3]):
        with pytest.raises(ValueError, match=r"steps are a preset .*if it is one"):
            Augmenter(steps, split)


# Labels


def test_cutmix_labels_are_the_areas_that_were_pasted(faces, df, split):
    "Real pictures black, fakes white: the mean is the share that came from a fake."
    flat = replace(faces, x=faces.y[:, None, None, None].expand_as(faces.x).clone())
    for how in ("cut", "blend"):
        out = Augmenter("seed002", split, 2).mix(flat, df.base, how)
        torch.testing.assert_close(out.x.mean((1, 2, 3)), out.y)
        assert out.y.unique().numel() > 3 and torch.equal(flat.y, faces.y)
    assert set(Augmenter("seed002", split, 2).mix(flat, df.base, "cut").x.unique().tolist()) == {
        0.0,
        1.0,
    }


def test_partners_have_the_same_base_the_other_class_and_the_same_frame(faces, df):
    found = augment._partners(faces, df.base, [0.3] * len(faces))
    base = df.base.loc[faces.rows].to_numpy()
    nth = pd.Series(faces.rows).groupby(faces.rows).cumcount().to_numpy()
    assert (base[found] == base).all() and (nth[found] == nth).all()
    assert torch.equal(faces.y[found], 1 - faces.y)


def test_self_blending_changes_chosen_reals_inside_the_mask_only(faces, split):
    augmenter = Augmenter("seed002", split, 1)
    for share in (0, 1):
        out = augmenter.blend_reals(faces, share)
        fake = faces.y == 1
        assert torch.equal(out.x[fake], faces.x[fake])
        assert torch.equal(out.mask[fake], faces.mask[fake])
        assert (out.y[~fake] == share).all()
    changed = (out.x - faces.x).abs().amax(1) > 1 / 255 + 1e-6
    host = changed[~fake] & (out.mask[~fake] == 0)
    clips = (host.flatten(1).float().mean(1) > 0.5).reshape(-1, 3)  # the host is restyled, or the face
    assert (clips.all(1) | (~clips).all(1)).all()
    assert out.mask[~fake].flatten(1).amax(1).min() > 0.2


# Robustness


def test_a_detector_that_reads_one_pixel_property_gets_the_curve_that_theory_gives(split):
    "Score = mean. Fakes are lighter: mirrors change nothing, brightness of two signs blurs it."
    n = 60
    y = torch.arange(n) % 2
    x = (0.4 + 0.1 * y + 0.02 * torch.randn(n, generator=torch.Generator().manual_seed(0)))
    faces = Faces(x.clamp(0, 1)[:, None, None, None].expand(n, 3, 16, 16).clone(), y.float(),
                  np.arange(n))  # fmt: skip
    seen = []

    def score(x):
        seen.append((tuple(x.shape), float(x.min()), float(x.max())))
        return x.mean((1, 2, 3)).numpy()

    table = robustness_curve(score, faces, ["flip", "brightness"], (0, 0.5, 1), threshold=0.45)
    flip, bright = (table[table.perturbation == name] for name in ("flip", "brightness"))
    assert flip.auc.nunique() == 1 and flip.auc.iloc[0] == auc(y.numpy(), score(faces.x))
    assert bright.auc.is_monotonic_decreasing and bright.auc.iloc[-1] < 0.75
    assert ((table.low <= table.auc) & (table.auc <= table.high)).all()
    assert (table.clips == n).all() and all(s[0] == (n, 3, 16, 16) for s in seen)
    expected = (score(faces.x)[y == 0] >= 0.45).mean()
    assert table.accused.iloc[0] == expected


def test_a_detector_that_looks_at_nothing_stays_at_one_half(faces):
    table = robustness_curve(lambda x: np.full(len(x), 0.7), faces, "jpeg", (0, 1))
    assert table[["auc", "low", "high"]].eq(0.5).all(axis=None)
    assert table[["accused", "caught"]].eq(1).all(axis=None)


def test_a_curve_needs_labels_rows_and_finite_scores(faces):
    for bad in (replace(faces, y=None), replace(faces, rows=None)):
        with pytest.raises(ValueError, match="needs y and rows"):
            robustness_curve(lambda x: x.mean((1, 2, 3)).numpy(), bad, "blur")
    with pytest.raises(ValueError, match="NaN"):
        robustness_curve(lambda x: np.full(len(x), np.nan), faces, "blur", (1,))
    both = replace(faces, rows=np.repeat(0, len(faces.x)))
    with pytest.raises(ValueError, match="both labels"):
        robustness_curve(lambda x: x.mean((1, 2, 3)).numpy(), both, "blur", (1,))
    half = replace(faces, y=faces.y * 0.5)
    with pytest.raises(ValueError, match="1 for fake"):
        robustness_curve(lambda x: x.mean((1, 2, 3)).numpy(), half, "blur", (1,))


class Memory:
    "Remembers its training pictures; a known one scores -1."

    def fit(self, x, y):
        self.known = {picture.numpy().tobytes() for picture in x}
        self.count = len(x)
        return self

    def score(self, x):
        return np.array([-1.0 if p.numpy().tobytes() in self.known else 1.0 for p in x])


def test_cross_fitting_never_asks_about_a_picture_that_was_trained_on(faces, df):
    fold = pd.Series(np.arange(len(df)) % 3, df.index)
    made = []

    def make():
        made.append(Memory())
        return made[-1]

    for steps, copies in ((None, 0), ("seed002", 2)):
        made.clear()
        score = cross_fit(make, faces, fold, steps, copies)
        assert (score(faces.x) == 1).all()
        place = fold.loc[faces.rows].to_numpy()
        assert [m.count for m in made] == [
            (place != k).sum() * (1 + copies) for k in np.unique(place)
        ]


def test_the_spectrum_finds_a_pattern_that_is_only_in_the_fakes():
    "Waves of one length, 8 px, in any direction, hidden in noise; and not where there are none."
    rng, n, side = np.random.default_rng(0), 80, 64
    y = np.arange(n) % 2
    turn, phase = rng.uniform(0, np.pi, n), rng.uniform(0, 2 * np.pi, n)
    down, across = np.mgrid[:side, :side]
    waves = np.stack([
        np.sin((across * np.cos(t) + down * np.sin(t)) * np.pi / 4 + p) for t, p in zip(turn, phase)
    ])  # fmt: skip
    noise = rng.normal(0, 0.1, (n, side, side))
    for size, least, most in ((0.05, 0.95, 1.0), (0.0, 0.2, 0.8)):
        grey = 0.5 + noise + size * waves * y[:, None, None]
        x = torch.from_numpy(grey.clip(0, 1)).float()[:, None].expand(n, 3, side, side)
        model = Spectrum().fit(x[:40], torch.from_numpy(y[:40]).float())
        assert least <= auc(y[40:], model.score(x[40:])) <= most
    rings = Spectrum().features(x + 0.05 * torch.from_numpy(waves).float()[:, None])
    assert rings.shape == (n, 32) and rings.mean(0).argmax() in (7, 8)  # 1/8 a px is 8 waves a side


# Speed: the bench compares answers, and would notice a wrong one


@pytest.fixture(scope="module")
def given():
    return _bench_augment.faces_setup()[0]


@pytest.mark.parametrize("who, most", [("Pillow", 1), ("OpenCV float", 0.3), ("OpenCV uint8", 1)])
def test_each_library_does_the_same_as_ours(who, most, given):
    apart = _bench_augment._apart(given, who)
    assert set(apart) == set(_bench_augment.VALUES) and max(apart.values()) <= most


def test_the_bench_notices_other_values(given, monkeypatch):
    chains = _bench_augment.chain_bytes(given), _bench_augment.chain_ours(given)
    assert chains[0].shape == chains[1].shape == (24, 3, 160, 160)
    agree = _bench_augment._agree("OpenCV float", 0.3)
    assert agree(given, *chains)[0] is True
    assert agree(given, chains[0], chains[1] + 1)[0] is False
    ways = _bench_augment.our_ways
    monkeypatch.setattr(
        _bench_augment, "our_ways", lambda n: ways(n) | {"rotate": ways(n)["scale"]}
    )
    same, said = agree(given | {"said": {}}, *chains)
    assert same is False and "(rotate)" in said


# Widgets


def test_the_augment_explorer_shows_every_change_and_preset(faces):
    clip = faces.take(faces.rows == faces.rows[0])
    explorer = AugmentExplorer(clip)
    pictures = set()
    for name in ("blur", "flip", "hull", "h264", "seed001", "dfdc_winner"):
        explorer.controls["name"].value = name
        assert name in explorer.status
        pictures.add(explorer.png)
    assert len(pictures) == 6
    explorer.controls["draw"].value = 7
    assert "draw 7" in explorer.status
    explorer.close()
    single = AugmentExplorer(faces.take([0]))
    assert "flicker from frame to frame 0.0" in single.status
    single.close()


def test_the_robustness_explorer_says_what_the_table_says(faces):
    table = robustness_curve(lambda x: x.mean((1, 2, 3)).numpy(), faces, ["blur", "noise"], (0, 1))
    explorer = RobustnessExplorer(table, faces)
    explorer.controls["perturbation"].value = "noise"
    explorer.controls["strength"].value = 0.8
    row = table[(table.perturbation == "noise") & (table.strength == 1)].iloc[0]
    assert f"detector AUC {row.auc:.2f}" in explorer.status and "Measured at 1.00" in explorer.status
    with pytest.raises(ValueError, match="was not measured"):
        explorer.draw(explorer.figure, perturbation="shear", strength=0.5)
    explorer.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_gpu_gives_the_same_changes(preset, faces, split):
    there = replace(
        faces, **{n: getattr(faces, n).cuda() for n in ("x", "y", "landmarks", "mask")}
    )
    here, gpu = (Augmenter(preset, split, 3)(f) for f in (faces, there))
    assert gpu.x.is_cuda
    far = (gpu.x.cpu() - here.x).abs().flatten(1).mean(1)
    assert far.max() < 2e-3


def test_parts_are_the_known_groups_of_landmarks():
    assert [len(g) for g in PARTS["eyes"]] == [6, 6] and len(PARTS["mouth"][0]) == 20


@pytest.mark.parametrize("scale", [1, 0.5, 0.344, 0.33, 0.206])
def test_a_codec_moves_nothing_where_it_pads_odd_sides(scale):
    x = torch.zeros(3, 3, 160, 160)
    x[:, :, 60:, 120:] = 1
    seen = through_codec(x, 5, scale).mean((0, 1))
    assert 160 - seen[110].sum() == pytest.approx(120, abs=1) and 160 - seen[:, 140].sum() == pytest.approx(60, abs=1)
