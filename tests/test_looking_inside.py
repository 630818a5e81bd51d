"""Lesson 24: climbs for all filters at once, heat maps, and what they are worth against the true mask."""
import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from deepfake_course import _bench, _bench_looking
from deepfake_course import looking_inside as li
from deepfake_course.core import HEADLINES, sample, to_batch
from deepfake_course.intra_database import find_faces
from deepfake_course.mesonet import Meso4, MesoDetector
from deepfake_course.metrics import wilson
from deepfake_course.samples import load_samples, load_truth
from deepfake_course.training import face_examples
from deepfake_course.widgets import figure_png

torch.set_num_threads(1)
LAYERS = ["block1", "block2", "block3.conv", "block4.relu"]


@pytest.fixture(scope="module")
def net():
    detector = MesoDetector()
    detector.load(sample("weights/mesonet.safetensors"))
    return detector.model_.to(memory_format=torch.contiguous_format)


@pytest.fixture(scope="module")
def fakes():
    df = load_samples("A")
    few = df[df["label"] == 1].iloc[::4].reset_index(drop=True)
    few.attrs = df.attrs
    rows = find_faces(few, k=2)
    return rows[rows["face"]].reset_index(drop=True)


def small(seed=0):
    "A MesoNet of 64 px with norms that have seen something, and no unit that is shut."
    torch.manual_seed(seed)
    net = Meso4(64).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return net


def figure():
    made = Figure(figsize=(6, 2.7), dpi=60)
    FigureCanvasAgg(made)
    return made


# Kernels


@pytest.mark.parametrize("k", [3, 5])
def test_a_kernel_reads_as_the_derivative_that_it_takes(k):
    "On every polynomial x^a y^b: a kernel with the share 1 in [i, j] gives 0 unless b >= i and a >= j."
    basis = np.linalg.qr(np.vander(np.arange(k) - k // 2, increasing=True).astype(float))[0]
    y, x = np.mgrid[:k, :k] - k // 2
    for i in range(k):
        for j in range(k):
            kernel = np.outer(basis[:, i], basis[:, j])
            share = li.derivative_shares(kernel)
            assert np.isclose(share[i, j], 1) and np.isclose(share.sum(), 1)
            for a in range(j):
                assert abs((kernel * x**a * y**i).sum()) < 1e-9
            assert abs((kernel * x**j * y**i).sum()) > 1e-3


def test_shares_do_not_mind_size_or_sign():
    kernels = np.random.default_rng(0).normal(size=(4, 2, 3, 3))
    np.testing.assert_allclose(li.derivative_shares(kernels), li.derivative_shares(-7 * kernels))
    assert not li.derivative_shares(np.zeros((3, 3))).any()
    for bad in (np.ones((3, 5)), np.ones(3), np.ones((2, 2)), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="k odd"):
            li.derivative_shares(bad)


# Layers, and what a unit sees


def test_the_cut_saves_what_comes_after_and_changes_nothing(net):
    x, ran = torch.rand(2, 3, 256, 256), []
    hook = net.block4.conv.register_forward_hook(lambda *a: ran.append(1))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    cut = li.layer_output(net, x, "block2")
    hook.remove()
    assert not ran and not net.block2._forward_hooks
    torch.testing.assert_close(cut, net.eval().block2(net.block1(x)).detach())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_network_in_training_stays_in_training():
    net = small().train()
    li.layer_output(net, torch.rand(2, 3, 64, 64), "block3")
    li.grad_cam(net, torch.rand(2, 3, 64, 64))
    li.maximise_activation(net, "block2", steps=1)
    assert net.training and net.block1.norm.num_batches_tracked == 0


@pytest.mark.parametrize("bad, text", [
    (torch.rand(1, 3, 128, 128), "faces of 256 px"),
    (torch.rand(1, 3, 256, 256) * 255, "divide bytes by 255"),
    ((torch.rand(1, 3, 256, 256) * 255).byte(), "float in \\[0, 1\\]"),
    (torch.rand(3, 256, 256), "\\(b, 3, h, w\\)"),
    (torch.full((1, 3, 256, 256), np.nan), "finite"),
    (torch.rand(1, 3, 256, 256) - 0.5, "takes no mean off"),
])  # fmt: skip
@pytest.mark.parametrize("way", [li.grad_cam, li.gradient, li.occlusion, lambda net, x: li.layer_output(net, x, "block1")])
def test_wrong_pictures_are_refused(net, way, bad, text):
    with pytest.raises(ValueError, match=text):
        way(net, bad)


def test_an_unknown_layer_is_refused_by_name(net):
    x = torch.rand(1, 3, 256, 256)
    for way in (lambda n: li.layer_output(net, x, n), lambda n: li.grad_cam(net, x, n),
                lambda n: li.maximise_activation(net, n), lambda n: li.receptive_field(net, n)):  # fmt: skip
        for name in ("block7", "", "conv"):
            with pytest.raises(ValueError, match="layers are: block1, block1.branch1"):
                way(name)
    with pytest.raises(ValueError, match="set net.side"):
        li.receptive_field(nn.Conv2d(3, 1, 1), "0")


@pytest.mark.parametrize("layer", LAYERS)
def test_the_unit_sees_its_field_and_nothing_else(layer):
    net = small()
    top, side, at = li.receptive_field(net, layer)
    x = torch.rand(1, 3, 64, 64)
    middle = li.layer_output(net, x, layer).shape[-1] // 2
    own = li.layer_output(net, x, layer)[0, :, middle, middle]
    other = torch.rand(1, 3, 64, 64)
    other[:, :, top : top + side, top : top + side] = x[:, :, top : top + side, top : top + side]
    torch.testing.assert_close(li.layer_output(net, other, layer)[0, :, middle, middle], own)
    net.side = side  # the cut-out alone gives the same number
    part = x[:, :, top : top + side, top : top + side].contiguous()
    torch.testing.assert_close(li._run(net, part, layer)[0, :, at, at], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make, side", [(nn.Conv2d(3, 2, 3, padding=1), 3), (nn.Conv2d(3, 2, 5, padding=2), 5),
                                        (nn.Conv2d(3, 2, 3, padding=3, dilation=3), 7)])  # fmt: skip
def test_the_field_of_one_convolution_is_its_kernel(make, side):
    net = nn.Sequential(make)
    net.side = 32
    assert li.receptive_field(net, "0") == (16 - side // 2, side, side // 2)


# Climbing


def test_a_batch_is_as_good_as_one_by_one():
    net = small()
    all_ = li.maximise_activation(net, "block2.conv", steps=10, blur=0.5, jitter=2)
    for k in (0, 3, 7):
        one = li.maximise_activation(net, "block2.conv", [k], steps=10, blur=0.5, jitter=2)
        torch.testing.assert_close(one.x[0], all_.x[k], atol=1e-4, rtol=0)
        np.testing.assert_allclose(one.activation[:, 0], all_.activation[:, k], rtol=1e-3, atol=1e-4)


def test_climbs_go_up_and_stay_pictures():
    net = small()
    for layer in ("block1.conv", "block3.conv", "hidden", "head"):
        climb = li.maximise_activation(net, layer, steps=12, weight=0)
        assert (climb.activation[-1] > climb.activation[0]).all(), layer
        assert 0 <= climb.x.min() and climb.x.max() <= 1
        np.testing.assert_allclose(climb.height, climb.activation)


def test_the_answer_that_is_told_is_the_network_s_own():
    net = small()
    climb = li.maximise_activation(net, "hidden", [2, 5], steps=4, weight=3.0)
    own = li.layer_output(net, climb.x, "hidden")
    np.testing.assert_allclose(climb.activation[-1], [own[0, 2], own[1, 5]], rtol=1e-4)
    norm = ((climb.x - 0.5).abs() ** 6).flatten(1).sum(1) ** (1 / 6)
    np.testing.assert_allclose(climb.norm[-1], norm, rtol=1e-4)
    np.testing.assert_allclose(climb.height, climb.activation - 3 * climb.norm, rtol=1e-5)


def test_the_same_seed_gives_the_same_pictures_and_another_does_not():
    net = small()
    one, two, other = (li.maximise_activation(net, "block1", steps=3, seed=s, jitter=1) for s in (0, 0, 1))
    assert torch.equal(one.x, two.x) and not torch.equal(one.x, other.x)


def test_frames_are_kept_and_progress_is_told():
    told = []
    climb = li.maximise_activation(small(), "block1", steps=7, keep=3, report=told.append)
    assert climb.steps.tolist() == [0, 3, 6, 7] and told == list(range(8))
    assert climb.frames.shape[:2] == (4, 8) and climb.frames.dtype == np.uint8
    last = (climb.x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(climb.frames[-1], last)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"rate": 0}, {"weight": -1}, {"p": 0.5}, {"jitter": -1}, {"blur": -1}])
def test_settings_of_a_climb(bad):
    with pytest.raises(ValueError, match="steps is 1 or more"):
        li.maximise_activation(small(), "block1", **bad)


def test_a_blur_wider_than_what_a_unit_sees():
    side = li.receptive_field(small(), "block1")[1]
    li.maximise_activation(small(), "block1", steps=4, blur=(side - 1) / 3)
    with pytest.raises(ValueError, match=f"block1 sees {side} px in all"):
        li.maximise_activation(small(), "block1", steps=4, blur=side / 3)


@pytest.mark.parametrize("bad", [[8], [-1], [], ["0"], [0.5], [0, 99]])
def test_unknown_filters(bad):
    with pytest.raises(ValueError, match="block1 has the filters 0 to 7"):
        li.maximise_activation(small(), "block1", bad, steps=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5, 20.0])
@pytest.mark.parametrize("p", [2.0, 6.0])
def test_the_summit_of_a_linear_filter(seed, weight, p):
    "Against SciPy, which knows nothing of Hoelder."
    from scipy.optimize import minimize

    w = np.random.default_rng(seed).normal(size=12)

    def depth(x):
        return -(w @ x) + weight * (np.abs(x) ** p).sum() ** (1 / p)

    tries = [minimize(depth, x, bounds=[(-0.5, 0.5)] * 12, method="L-BFGS-B").fun
             for x in (0.5 * np.sign(w), 0.1 * w, 0.5 * np.random.default_rng(9).uniform(-1, 1, 12))]  # fmt: skip
    assert np.isclose(depth(li.linear_maximiser(w, weight, p)), min(0, *tries), atol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_linear_network_climbs_to_its_summit(weight):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    net.side = 8
    climb = li.maximise_activation(net, "1", steps=1200, rate=0.02, weight=weight)
    for k, (w, b) in enumerate(zip(net[1].weight.detach().numpy(), net[1].bias.detach().numpy())):
        top = li.linear_maximiser(w, weight)
        best = w @ (top + 0.5) + b - weight * (np.abs(top) ** 6).sum() ** (1 / 6)
        assert best - 0.01 <= climb.height[-1, k] <= best + 1e-4


def test_votes_are_in_order_and_need_one_output(net):
    votes = li.hidden_signs(net)
    assert votes["weight"].is_monotonic_increasing and sorted(votes.index) == list(range(16))
    assert ((votes["weight"] > 0) == (votes["votes"] == "fake")).all()
    for bad in (nn.Linear(3, 1), nn.Sequential()):
        with pytest.raises(ValueError, match="one output"):
            li.hidden_signs(bad)


# Masks


def test_a_mask_lies_on_the_face_as_the_forgery_does(fakes):
    "The corners of the true mask, taken to the crop by hand."
    masks = li.crop_masks(fakes, 224)
    for row, mask in zip(fakes.itertuples(), masks):
        true = load_truth(fakes, row.path)["mask"][row.frame] > 0.5
        y, x = (4 * (v.mean() + 0.5) for v in np.nonzero(true))  # px of the frame, 256 = 4 x 64
        want = np.array([(x - row.left) * row.scale, (y - row.top) * row.scale])
        have = np.array([v.mean() + 0.5 for v in np.nonzero(mask > 0.5)[::-1]])
        assert np.abs(want - have).max() < 3
        assert np.isclose((mask > 0.5).sum(), true.sum() * (4 * row.scale) ** 2, rtol=0.08)


def test_masks_of_real_faces_are_empty_and_wrong_rows_refused(fakes):
    df = load_samples("A")
    reals = find_faces(df[df["label"] == 0].iloc[:1].reset_index(drop=True), k=1)
    assert not li.crop_masks(reals, 64).any()
    lost = fakes.copy()
    lost.attrs = {}
    for bad in (fakes.drop(columns="crop"), fakes.iloc[:0], fakes.assign(face=False), lost):
        with pytest.raises(ValueError, match="rows of find_faces"):
            li.crop_masks(bad)
    with pytest.raises(ValueError, match="forged faces"):
        li.half_forgeries(reals, 64)


def test_halves_are_halves(fakes):
    masks, halves = li.crop_masks(fakes, 128), li.half_forgeries(fakes, 128)
    for one, two in (("left", "right"), ("top", "bottom")):
        np.testing.assert_allclose(halves[one][1] + halves[two][1], masks, atol=0.05)
    for mixed, left in halves.values():
        assert mixed.dtype == np.uint8 and 0.35 < (left >= 0.5).sum() / (masks >= 0.5).sum() < 0.65


# Marks


def test_a_map_of_the_mask_wins_and_its_opposite_loses():
    masks = np.zeros((3, 20, 20))
    masks[0, 2:6, 3:9], masks[1, 10:, 10:], masks[2, :, :4] = 1, 1, 1
    assert li.pointing_game(masks, masks).tolist() == [1, 1, 1] and np.allclose(li.map_iou(masks, masks), 1)
    assert not li.pointing_game(1 - masks, masks).any() and not li.map_iou(1 - masks, masks).any()


def test_random_maps_get_what_chance_is_said_to_be():
    rng = np.random.default_rng(0)
    masks = np.zeros((600, 24, 24))
    masks[:, 6:18, 4:16] = 1
    table = li.score_maps({"noise": rng.random(masks.shape), "flat": np.ones_like(masks)}, masks, np.arange(600))
    row = table.loc["noise"]
    assert np.isclose(row["chance"], 0.25) and abs(row["hits"] - 0.25) < 0.06
    assert abs(row["IoU"] - row["IoU by chance"]) < 0.01
    assert np.isclose(table.loc["flat", "hits"], 0.25) and table.loc["centre", "hits"] == 1


def test_intervals_are_over_clips_and_not_over_frames():
    masks = np.zeros((40, 8, 8))
    masks[:, :4] = 1
    maps = np.zeros_like(masks)
    clip = np.arange(40) // 10
    maps[clip < 2, 0, 0] = 1
    maps[clip >= 2, 7, 7] = 1
    row = li.score_maps({"half": maps}, masks, clip).loc["half"]
    low, high = wilson(2, 4)
    assert (row["hits"], row["clips"]) == (0.5, 4) and np.allclose([row["low"], row["high"]], [low, high])
    sure = li.score_maps({"all": masks}, masks, clip).loc["all"]
    assert sure["hits"] == 1 and sure["low"] < 0.55  # four clips prove little


@pytest.mark.parametrize("way", [li.pointing_game, li.map_iou])
def test_maps_that_cannot_be_marked(way):
    maps, masks = np.ones((2, 4, 4)), np.ones((2, 4, 4))
    for a, b, text in ((maps, masks[:1], "alike"), (maps[0], masks[0], "alike"), (maps * np.nan, masks, "finite"),
                       (maps, 255 * masks, "divide bytes"), (maps, 0 * masks, "mask 0 is empty")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            way(a, b)


# Heat maps


@pytest.mark.parametrize("layer", ["block2", "block4.norm", "block4"])
def test_grad_cam_is_captum_s(net, fakes, layer):
    from captum.attr import LayerAttribution, LayerGradCam

    x = to_batch(face_examples(fakes, 256).x)
    theirs = LayerGradCam(net.eval(), net.get_submodule(layer)).attribute(x, relu_attributions=True)
    theirs = LayerAttribution.interpolate(theirs, (256, 256), "bilinear").detach()[:, 0].numpy()
    np.testing.assert_allclose(li.grad_cam(net, x, layer), theirs, rtol=1e-3, atol=1e-5)


def test_methods_find_the_only_pixel_that_counts():
    class Spot(nn.Module):
        side = 32

        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(3, 1, 1)

        def forward(self, x):
            return self.maps(x)[:, 0, 20, 9] * 4

    torch.manual_seed(0)
    net, x = Spot(), torch.full((2, 3, 32, 32), 0.9)
    nn.init.ones_(net.maps.weight)
    for heat in (li.gradient(net, x, sigma=2), li.occlusion(net, x, 0.0, 5, 1)):
        assert [np.unravel_index(one.argmax(), one.shape) for one in heat] == [(20, 9)] * 2
    assert np.isclose(li.occlusion(net, x, 0.9, 5, 1), 0, atol=1e-5).all()  # covered with what is there
    for bad in ({"fill": 2}, {"patch": 99}, {"patch": 3, "step": 4}, {"step": 0}):
        with pytest.raises(ValueError, match="fill is in"):
            li.occlusion(net, x, **{"patch": 5, "step": 1} | bad)


def test_grad_cam_needs_maps(net):
    with pytest.raises(ValueError, match="no maps"):
        li.grad_cam(net, torch.rand(1, 3, 256, 256), "hidden")


def test_forgetting_leaves_the_network_and_the_dice_alone():
    net, x = small(), torch.rand(2, 3, 64, 64)
    masks = np.zeros((2, 64, 64))
    masks[:, 20:40, 20:40] = 1
    before, dice = net(x).detach(), torch.random.get_rng_state()
    table = li.sanity_check(net, x, masks, li.gradient, (0, 1))
    assert torch.equal(net(x), before) and torch.equal(torch.random.get_rng_state(), dice)
    assert table.index.tolist() == list(range(7)) and np.isclose(table["similarity"][0], 1)
    assert table["similarity"].iloc[1:].max() < 0.99
    last = li._forget(net, 1, 0).state_dict()
    changed = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, last[key])}
    assert changed == {"head"}


def test_moved_faces_and_planted_marks():
    imgs = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    moved = li.move_faces(imgs, -5, 3)
    assert np.array_equal(moved[:, 3:, :-5], imgs[:, :-3, 5:])
    assert not li.move_faces(np.ones((1, 64, 64), np.float32), 10, 0)[:, :, :10].any()
    for bad in (imgs[0, 0], imgs[..., None]):
        with pytest.raises(ValueError, match="pictures are"):
            li.move_faces(bad, 1, 1)
    with pytest.raises(ValueError, match="less than half"):
        li.move_faces(imgs, 32, 0)
    marked = li.plant_mark(imgs, 20)
    changed = (marked != imgs).any((0, 3))
    assert changed[28:36, 28:36].all() and changed.sum() == 64
    for bad in (imgs.astype(float), imgs[0], imgs[:, :16]):
        with pytest.raises(ValueError, match="uint8 of 32 px"):
            li.plant_mark(bad)


# The widget


@pytest.fixture(scope="module")
def climb():
    return li.maximise_activation(small(), "block2", steps=6, keep=2)


def test_drawing_is_pure(climb):
    one, two = figure(), figure()
    told = li.draw_activation(one, climb, 1, 6)
    li.draw_activation(two, climb, 3, 0)
    assert figure_png(one) != figure_png(two)
    assert li.draw_activation(two, climb, 1, 6) == told and figure_png(one) == figure_png(two)
    assert "step 4 of 6" in li.draw_activation(one, climb, 1, 5)  # the last frame that was kept
    numbers = [float(v) for v in re.search(r"answer (-?[\d.]+).*E (-?[\d.]+)", told).groups()[0:1]]
    assert np.isclose(numbers[0], climb.activation[6, 1], atol=0.006)


def test_drawing_refuses_what_is_not_there(climb):
    for filter, step, text in ((8, 0, "filters 0 to 7"), (-1, 0, "filters 0 to 7"), (0, 7, "steps are 0 to 6"), (0, -1, "steps")):
        with pytest.raises(ValueError, match=text):
            li.draw_activation(figure(), climb, filter, step)


def test_a_filter_that_is_shut_is_called_so():
    net = small()
    with torch.no_grad():
        net.block1.conv.weight[2], net.block1.conv.bias[2] = 0, -1
    climb = li.maximise_activation(net, "block1", steps=2)
    moved = np.ptp(climb.activation, 0) > 1e-6
    assert not moved[2] and moved.any()
    for k in range(8):
        assert ("shut" in li.draw_activation(figure(), climb, k, 2)) == (not moved[k])


def test_a_layer_is_climbed_once_and_progress_is_shown(monkeypatch):
    calls, real = [], li.maximise_activation
    monkeypatch.setattr(li, "maximise_activation", lambda net, layer, **o: calls.append(layer) or real(net, layer, **o))
    explorer = li.ActivationExplorer(small(), ["block3.conv", "block1"], steps=4, keep=1)
    explorer.controls["filter"].value = 12
    explorer.controls["layer"].value = "block1"
    assert explorer.values == {"layer": "block1", "filter": 7, "step": 4} and "block1, filter 7, step 4" in explorer.status
    png = explorer.png
    explorer.controls["step"].value = 0
    assert explorer.png != png
    explorer.controls["layer"].value = "block3.conv"
    assert calls == ["block3.conv", "block1"] and explorer.progress.value == 4
    assert explorer.controls["filter"].max == 15
    explorer.controls["filter"].value = 15
    assert "block3.conv, filter 15" in explorer.status
    assert explorer.progress in explorer.widget.children and explorer.progress.layout.visibility == "hidden"


def test_ready_climbs_are_not_climbed_again(climb, monkeypatch):
    monkeypatch.setattr(li, "maximise_activation", lambda *a, **o: pytest.fail("climbed again"))
    explorer = li.ActivationExplorer(small(), ["block2"], [climb], keep=2)
    assert explorer.controls["step"].max == 6
    assert set(explorer._repr_mimebundle_()) >= {"image/png", "text/plain"}


def test_a_closed_explorer_and_unknown_layers(climb):
    explorer = li.ActivationExplorer(small(), ["block2"], [climb])
    explorer.close()
    explorer.close()
    shown = explorer.status
    explorer.controls["filter"].value = 3
    assert explorer.status == shown
    with pytest.raises(RuntimeError, match="closed"):
        explorer.refresh()
    with pytest.raises(RuntimeError, match="closed"):
        explorer.ascent("block1")
    for layers, text in ((["block2", "conv9"], "no layer conv9"), ([], "at least one layer")):
        with pytest.raises(ValueError, match=text):
            li.ActivationExplorer(small(), layers)


# Bench and records


def test_the_bench_row_compares_equal_pictures(monkeypatch):
    monkeypatch.setattr(_bench_looking, "STEPS", 2)
    row = next(row for row in _bench.rows_of("mesonet") if row.name == "activation")
    given = row.setup()[0]
    same, note = row.agree(given, row.obvious(given), row.ours(given))
    assert same, note
    assert not row.agree(given, row.obvious(given), 1 - row.ours(given))[0]


def test_headlines_name_their_data_and_weights():
    own = [function for (lesson, _), function in HEADLINES.items() if lesson == "looking_inside"]
    assert len(own) == 7
    for function in own:
        assert function.weights == ["weights/mesonet.safetensors"] and len(function.data) == 24


def test_a_record_holds_chance_centre_and_unseen_people():
    masks, rows = np.zeros((4, 10, 10)), pd.DataFrame({"path": list("aabb"), "target": ["1", "1", "10003", "10003"]})
    masks[:, :5] = 1
    maps = np.zeros_like(masks)
    maps[:2, 0, 0] = 1
    maps[2:, 9, 9] = 1
    row = li._marked("demo", maps, masks, rows)
    assert (row.value, row.n, row.baseline) == (0.5, 2, 0.5) and row.config["unseen"] == 0


def test_hiding_the_progress_bar_hides_nothing_else():
    explorer = li.ActivationExplorer(small(), ["block1"], steps=2, keep=1)
    assert explorer.progress.layout.visibility == "hidden"
    assert all(control.layout.visibility != "hidden" for control in explorer.controls.values())


@pytest.mark.parametrize("explain", [li.grad_cam, li.gradient, li.occlusion])
def test_two_logits_are_not_explained_as_one(explain):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()
            self.block4 = self.net.block4

        def forward(self, x):
            said = self.net(x)
            return torch.stack([-said, said], 1)

    with pytest.raises(ValueError, match=r"says \(1, 2\): explain one log-odds"):
        explain(Two(), torch.rand(2, 3, 64, 64))
