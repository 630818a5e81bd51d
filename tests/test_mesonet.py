"""Lesson 23: two small networks in two frameworks, their weights, heads and files for small machines."""
import shutil
import subprocess
import sys

import deepfake_course  # noqa: F401  (before Keras)

import cv2
import h5py
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

from deepfake_course import _bench, mesonet
from deepfake_course._cli import app
from deepfake_course.core import sample, to_batch
from deepfake_course.intra_database import Detector, find_faces, score_rows
from deepfake_course.mesonet import (
    ConvTraces, Folded, HeadDetector, LargeNet, Meso4, MesoDetector, MesoInception4, OnnxDetector, PopularPort,
    diff_models, edge_table, export_onnx, from_keras, head_table, layer_table, load_keras, quantise, to_keras,
)  # fmt: skip
from deepfake_course.metrics import auc, balanced_accuracy
from deepfake_course.samples import load_samples
from deepfake_course.training import Examples, FitSettings, NetDetector, face_examples

NETS = [Meso4, MesoInception4]
WEIGHTS = "weights/mesonet.safetensors"


def stirred(make, side=64, seed=0, negative=False):
    "An untrained network with norms that have seen something."
    torch.manual_seed(seed)
    net = make(side).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            if negative:
                part.weight.data[::2].neg_()
    return net


def noise(n=3, side=64, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def rows():
    return find_faces(load_samples("A"), k=3)


@pytest.fixture(scope="module")
def faces(rows):
    return face_examples(rows, 64)


@pytest.fixture(scope="module")
def trained():
    detector = MesoDetector()
    detector.told = detector.load(sample(WEIGHTS))
    return detector


# architectures

MESO4 = [
    ("block1.conv", (8, 256, 256), 224, 0), ("block1.norm", (8, 256, 256), 16, 16),
    ("block2.conv", (8, 128, 128), 1608, 0), ("block2.norm", (8, 128, 128), 16, 16),
    ("block3.conv", (16, 64, 64), 3216, 0), ("block3.norm", (16, 64, 64), 32, 32),
    ("block4.conv", (16, 32, 32), 6416, 0), ("block4.norm", (16, 32, 32), 32, 32),
    ("hidden", (16,), 16400, 0), ("head", (1,), 17, 0),
]  # fmt: skip
INCEPTION = [
    ("block1.branch1.0", (1, 256, 256), 4, 0), ("block1.branch2.0", (4, 256, 256), 16, 0),
    ("block1.branch2.2", (4, 256, 256), 148, 0), ("block1.branch3.0", (4, 256, 256), 16, 0),
    ("block1.branch3.2", (4, 256, 256), 148, 0), ("block1.branch4.0", (2, 256, 256), 8, 0),
    ("block1.branch4.2", (2, 256, 256), 38, 0), ("block1.norm", (11, 256, 256), 22, 22),
    ("block2.branch1.0", (2, 128, 128), 24, 0), ("block2.branch2.0", (4, 128, 128), 48, 0),
    ("block2.branch2.2", (4, 128, 128), 148, 0), ("block2.branch3.0", (4, 128, 128), 48, 0),
    ("block2.branch3.2", (4, 128, 128), 148, 0), ("block2.branch4.0", (2, 128, 128), 24, 0),
    ("block2.branch4.2", (2, 128, 128), 38, 0), ("block2.norm", (12, 128, 128), 24, 24),
    ("block3.conv", (16, 64, 64), 4816, 0), ("block3.norm", (16, 64, 64), 32, 32),
    ("block4.conv", (16, 32, 32), 6416, 0), ("block4.norm", (16, 32, 32), 32, 32),
    ("hidden", (16,), 16400, 0), ("head", (1,), 17, 0),
]  # fmt: skip


@pytest.mark.parametrize("make,table,total", [(Meso4, MESO4, (27_977, 96)), (MesoInception4, INCEPTION, (28_615, 110))])
def test_the_layers_are_the_papers(make, table, total):
    found = layer_table(make())
    assert list(found.drop(columns="kind").itertuples(name=None)) == table
    assert (found["trainable"].sum(), found["statistics"].sum()) == total
    assert sum(w.numel() for w in make().parameters()) == total[0]


def test_dilations_and_poolings_are_the_papers():
    net = MesoInception4()
    for block in (net.block1, net.block2):
        assert [branch[-2].dilation[0] for branch in block.branches()] == [1, 1, 2, 3]
        assert [branch[-2].kernel_size[0] for branch in block.branches()] == [1, 3, 3, 3]
    sizes = [net.block1.pool, net.block2.pool, net.block3.pool, net.block4.pool]
    assert [pool.kernel_size for pool in sizes] == [2, 2, 2, 4]
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {part.eps for part in norms} == {1e-3} and {part.momentum for part in norms} == {0.01}
    assert net.leak.negative_slope == 0.1 and net.drop.p == 0.5


def test_a_map_is_worth_its_receptive_field():
    "A change of one pixel moves the 16 units; with dilation 3 the first block looks 7 px wide."
    net, x = stirred(MesoInception4), noise(1)
    x.requires_grad_(True)
    net.block1(x)[0, :, 16, 16].sum().backward()
    hit = x.grad[0].abs().sum(0) > 0
    across = hit.any(0).nonzero().flatten()
    assert 7 <= across.max() - across.min() + 1 <= 8


@pytest.mark.parametrize("make", NETS)
def test_wrong_faces_are_refused_in_words(make):
    net, x = make().eval(), noise(2, 256)
    for bad, text in ((x * 255, "divide bytes by 255"), (x * 2 - 1, "takes no mean off"), (x[..., :224, :224], "faces of 256 px"),
                      (x[:, :1], "to_batch of lesson 00"), (x[0], "to_batch of lesson 00"), (x.byte(), "uint8"),
                      (x.permute(0, 2, 3, 1), "to_batch of lesson 00")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            net(bad)
    assert net(x).shape == (2,) and net(x[:0]).shape == (0,)
    for side in (0, 100, 16):
        with pytest.raises(ValueError, match="multiple of it"):
            make(side)


# Keras


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("side", [64, 256])
def test_weights_move_both_ways(make, side):
    net, x = stirred(make, side), noise(3, side)
    twin = to_keras(net)
    with torch.inference_mode():
        ours = net(x)
    theirs = np.asarray(twin(x.permute(0, 2, 3, 1).numpy()))[:, 0]
    np.testing.assert_allclose(theirs, ours.sigmoid().numpy(), atol=1e-5)
    assert twin.name == make.__name__ and len(np.unique(theirs.round(6))) == 3
    for says, sign in (("fake", 1), ("real", -1)):
        with torch.inference_mode():
            torch.testing.assert_close(from_keras(twin, says)(x), sign * ours, atol=1e-5, rtol=0)


def test_faces_get_the_same_scores_in_both(trained, rows):
    x = to_batch(face_examples(rows.groupby("label").head(4), 256).x)
    with torch.inference_mode():
        ours = trained.model_(x).sigmoid().numpy()
    theirs = np.asarray(to_keras(trained.model_)(x.permute(0, 2, 3, 1).numpy()))[:, 0]
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_twin_trains_as_keras_does():
    "Drop-out, norms of momentum .99 and eps .001, sigmoid: what Keras has by default."
    twin = to_keras(MesoInception4(64))
    kinds = [type(layer).__name__ for layer in twin.layers]
    assert kinds.count("Dropout") == 2 and kinds.count("Conv2D") == 16 and kinds.count("BatchNormalization") == 4
    norm = twin.get_layer("block2_norm")
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    assert twin.get_layer("head").activation.__name__ == "sigmoid"
    assert twin.get_layer("block1_branch4_2").dilation_rate == (3, 3)


PUBLISHED = {
    "Meso4_DF": (Meso4, [0.048, 0.025, 0.990, 0.997]), "MesoInception_DF": (MesoInception4, [0.019, 0.001, 1.0, 1.0]),
    "Meso4_F2F": (Meso4, None), "MesoInception_F2F": (MesoInception4, None),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_authors_weights_give_the_authors_answers(real, name):
    make, known = PUBLISHED[name]
    imgs = [cv2.imread(str(real / "mesonet_images" / path))[..., ::-1] for path in (
        "fake/df00204.jpg", "fake/df01254.jpg", "real/real00240.jpg", "real/real00772.jpg")]  # fmt: skip
    x = to_batch(np.stack([cv2.resize(img, (256, 256)) for img in imgs]))
    twin = load_keras(real / "weights" / f"{name}.h5", make.__name__)
    theirs = np.asarray(twin(x.permute(0, 2, 3, 1).numpy()))[:, 0]
    with torch.inference_mode():
        ours = 1 - from_keras(twin, "real")(x).sigmoid().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    if known:
        np.testing.assert_allclose(theirs, known, atol=6e-4)
    else:
        assert (theirs > 0.5).all()  # the files for Face2Face call all four real
    with pytest.raises(ValueError, match="another architecture"):
        load_keras(real / "weights" / f"{name}.h5", (set(n.__name__ for n in NETS) - {make.__name__}).pop())


def test_weight_files_are_looked_at_before_they_are_believed(tmp_path):
    twin, path = to_keras(stirred(Meso4, 256)), tmp_path / "a.weights.h5"
    twin.save_weights(path)
    again = load_keras(path, "Meso4")
    for one, two in zip(twin.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="another architecture than MesoInception4"):
        load_keras(path)
    with pytest.raises(ValueError, match="Meso4 or MesoInception4"):
        load_keras(path, "Xception")
    twin.save(tmp_path / "whole.h5")
    for given, name in ((path, "a.h5"), (path, "a"), (tmp_path / "whole.h5", "whole.weights.h5")):
        again = load_keras(shutil.copy(given, tmp_path / name), "Meso4")
        assert all(np.array_equal(one, two) for one, two in zip(twin.get_weights(), again.get_weights(), strict=True))
    with h5py.File(path, "a") as file:
        file.attrs["backend"] = np.bytes_(b"theano")
    with pytest.raises(ValueError, match="Keras on theano.*mirrored"):
        load_keras(path, "Meso4")
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"nothing"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="a.weights.h5"):
            load_keras(path, "Meso4")
    with pytest.raises(ValueError, match="no file"):
        load_keras(tmp_path / "none.h5")


def test_networks_without_a_twin_are_refused():
    import keras

    for net in (PopularPort(), nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="have a twin"):
            to_keras(net)
    with pytest.raises(ValueError, match="another architecture"):
        from_keras(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match='"fake" or "real"'):
        from_keras(to_keras(Meso4(64)), "deepfake")


def test_keras_on_another_backend_is_an_error_that_says_so():
    code = "import deepfake_course.mesonet as m\nm.to_keras(m.Meso4(64))"
    env = {"KERAS_BACKEND": "torch"}
    import os

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env)
    assert ran.returncode == 1 and "ValueError: Keras runs on torch here" in ran.stderr


def test_the_lesson_without_keras_does_not_load_tensorflow():
    code = "import sys, deepfake_course.mesonet as m\nm.Meso4(64)\nassert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# the port


def test_the_port_has_as_many_weights_as_the_one_that_is_copied():
    assert sum(w.numel() for w in PopularPort().parameters()) == 28_525
    assert sum(w.numel() for w in PopularPort((), 1).parameters()) == 28_615
    with pytest.raises(ValueError, match="relu, norm, bias"):
        PopularPort(("dropout",))


def test_without_defects_a_port_is_the_network():
    net, port, x = stirred(MesoInception4), PopularPort((), 1, 64), noise()
    port.load_state_dict(net.state_dict())
    table = diff_models(net, port, x)
    assert list(table.index) == ["block1", "block2", "block3", "block4", "hidden", "head"]
    assert (table["apart"] == 0).all() and (table["weights"] == table["weights there"]).all()


@pytest.mark.parametrize("defect,stages", [("relu", {"block1", "block2"}), ("norm", {"block4"}),
                                           ("bias", {"block1", "block2", "block3", "block4"})])  # fmt: skip
def test_each_defect_shows_where_it_is(defect, stages):
    net, port = stirred(MesoInception4), PopularPort((defect,), 1, 64)
    state = net.state_dict()
    if defect == "norm":
        state |= {f"block4.norm.{name}": value for name, value in net.block3.norm.state_dict().items()}
    port.load_state_dict(state, strict=False)
    table = diff_models(net, port, noise())
    assert set(table.index[table["apart"] > 1e-4]) == stages


def test_another_number_of_outputs_is_no_number():
    table = diff_models(stirred(MesoInception4), PopularPort((), 2, 64), noise())
    assert np.isnan(table.loc["head", "apart"])
    with pytest.raises(ValueError, match="no stage called block1"):
        diff_models(stirred(Meso4), LargeNet("none"), noise())


# training and heads


def test_the_settings_are_the_papers_by_default():
    s = MesoDetector().settings
    rates = s.curve(s.steps)
    np.testing.assert_allclose(rates[[0, 999, 1000, 1999, 2000, 3000, 3999]], [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6])
    assert (len(rates), s.batch, s.optimiser, s.weight_decay) == (4000, 32, "adam", 0)
    assert MesoDetector().options["loss"] == "mse" and MesoDetector().size == 256


def test_hinge_is_keras_hinge_with_its_l2():
    import keras

    torch.manual_seed(0)
    net, x, y = stirred(Meso4), noise(6), torch.tensor([0, 1, 1, 0, 1, 0.0])
    loss = mesonet._hinge_l2(net, {"x": x, "y": y})
    said = net(x).detach().numpy()
    theirs = keras.losses.Hinge()(y.numpy() * 2 - 1, said) + keras.regularizers.L2(0.01)(net.head.weight.detach().numpy())
    assert float(loss) == pytest.approx(float(theirs), abs=1e-5)


def test_a_detector_learns_saves_and_is_loaded(tmp_path, faces):
    made = [MesoDetector("Meso4", 8, 8, 8, 64).fit(faces) for _ in range(2)]
    one, two = (detector.score(faces.x) for detector in made)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(1 / (1 + np.exp(-made[0].outputs(faces.x))), one, atol=1e-5)
    assert isinstance(made[0], Detector) and len(made[0].history_) == 4
    made[0].save(tmp_path / "a.safetensors")
    again = MesoDetector("Meso4", side=64)
    again.load(tmp_path / "a.safetensors")
    np.testing.assert_allclose(again.score(faces.x), one, atol=1e-6)
    with pytest.raises(ValueError, match="another network"):
        MesoDetector(side=64).load(tmp_path / "a.safetensors")


def test_wrong_settings_are_refused():
    for bad in (dict(name="Meso5"), dict(steps=10), dict(every=0), dict(steps=0)):
        with pytest.raises(ValueError, match="steps a multiple of 4"):
            MesoDetector(**bad)


def test_changes_are_for_training_and_repeatable(faces):
    batch = {"x": faces.x[:6], "y": faces.y[:6]}
    one, two, three = (mesonet._changed("mesonet", batch, np.random.default_rng(seed))["x"] for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert one.min() >= 0 and one.max() <= 1 and one.shape == (6, 3, 64, 64)
    assert (batch["x"] == faces.x[:6]).all()


def test_heads_keep_the_contract(trained, rows):
    few = rows.groupby(["label", "target"]).head(2).reset_index(drop=True)
    gone = few.assign(face=[False] + [True] * (len(few) - 1))
    head = HeadDetector(trained.model_, "linear", k=2)
    x = head.prepare(gone)
    assert x.shape == (len(few), 16) and np.isnan(x[0]).all() and np.isfinite(x[1:]).all()
    with torch.inference_mode():
        own = trained.model_.embed(to_batch(face_examples(few, 256).x))
    np.testing.assert_allclose(x[1:], own[1:].numpy(), atol=1e-4)
    p = score_rows(head.fit(few), gone)
    assert p[0] == 0.5 and auc(few["label"][1:], p[1:]) > 0.9
    with pytest.raises(ValueError, match='"rbf", "linear" or a classifier'):
        HeadDetector(trained.model_, "poly")


def test_auc_of_calls_is_balanced_accuracy():
    rng = np.random.default_rng(0)
    y, clip = np.repeat([0, 1], 40), np.repeat(np.arange(16), 5)
    score = y + rng.normal(0, 1, 80)
    table = head_table(y, clip, {"a": (score, 0.3), "b": (score, 2.0)})
    for name, cut in (("a", 0.3), ("b", 2.0)):
        assert table.loc[name, "AUC of calls"] == pytest.approx(balanced_accuracy(y, score, cut))
        assert table.loc[name, "AUC"] == pytest.approx(auc(y, score))
    assert (table["low"] <= table["AUC"]).all() and (table["AUC"] <= table["high"]).all()


# cues


def test_traces_are_least_squares():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 20, 20))).float() / 255
    found = ConvTraces(side=20).kernels(x)[0].reshape(3, 24)
    for colour in range(3):
        img = x[0, colour].double().numpy()
        near = [img[i : i + 16 : 2, j : j + 16 : 2].ravel() for i in range(5) for j in range(5) if (i, j) != (2, 2)]
        theirs = np.linalg.lstsq(np.stack(near, 1), img[2:-2:2, 2:-2:2].ravel(), rcond=None)[0]
        np.testing.assert_allclose(found[colour], theirs, atol=0.01)


def test_traces_know_how_a_picture_was_enlarged():
    rng = np.random.default_rng(0)
    imgs = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(24)]
    big = [cv2.resize(img, (64, 64), interpolation=(cv2.INTER_LINEAR, cv2.INTER_CUBIC)[k % 2]) for k, img in enumerate(imgs)]
    traces, y = ConvTraces(side=64), np.arange(24) % 2
    x = traces.kernels(to_batch(np.stack(big)))
    traces.fit(x[:16], y[:16])
    assert auc(y[16:], traces.score(x[16:])) == 1


def test_the_large_network_is_large_and_begins_as_coursenet():
    net = LargeNet()
    assert sum(w.numel() for w in net.parameters()) > 10 * 28_615
    assert net(noise(2, 112)).shape == net(noise(2, 256)).shape == (2,)


# edge


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("negative", [False, True])
def test_folding_changes_nothing(make, negative):
    net, x = stirred(make, negative=negative), noise(4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    light = Folded(net)
    with torch.inference_mode():
        torch.testing.assert_close(light(x), net(x), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(light.embed(x), net.embed(x), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="divide bytes by 255"):
        light(x * 255)


def test_what_cannot_be_folded_is_refused():
    net = stirred(Meso4)
    net.block2.norm.weight.data[3] = 0
    with pytest.raises(ValueError, match="prune it"):
        Folded(net)
    for other in (PopularPort(), nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="is folded, not"):
            Folded(other)


@pytest.mark.parametrize("make", NETS)
def test_the_runtime_says_the_same_for_any_batch(make, tmp_path):
    net, x = stirred(make), noise(35)
    with torch.inference_mode():
        ours = net(x).sigmoid().numpy()
    for one in (net, Folded(net)):
        detector = OnnxDetector(export_onnx(one, tmp_path / "net.onnx"))
        for n in (1, 3, 35):
            np.testing.assert_allclose(detector.score(x[:n]), ours[:n], atol=1e-5)
    assert detector.side == 64 and isinstance(detector, Detector)
    imgs = (x[:2] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(detector.score(imgs), ours[:2], atol=0.05)
    for bad, text in ((x * 255, "divide bytes"), (noise(1, 96), "faces of 64 px")):
        with pytest.raises(ValueError, match=text):
            detector.score(bad)
    with pytest.raises(ValueError, match="for use only"):
        detector.fit(imgs, [0, 1])


def test_onnx_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="end in .onnx"):
        export_onnx(Meso4(64), tmp_path / "net.pt")
    path = tmp_path / "bad.onnx"
    for data in (b"", b"nothing"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="no ONNX file"):
            OnnxDetector(path)
    with pytest.raises(ValueError, match="no ONNX file"):
        OnnxDetector(tmp_path / "none.onnx")


@pytest.mark.parametrize("change", [lambda net: net, Folded], ids=["whole", "folded"])
def test_eight_bits_are_nearly_enough(trained, rows, tmp_path, change):
    x = face_examples(rows.groupby("label").head(12), 256)
    whole = export_onnx(change(trained.model_), tmp_path / "net.onnx")
    small = quantise(whole, tmp_path / "int8.onnx", x.x[::3])
    one, two = OnnxDetector(whole).score(x.x), OnnxDetector(small).score(x.x)
    assert 0 < np.abs(one - two).max() < 0.3 and abs(auc(x.y, one) - auc(x.y, two)) < 0.1
    assert small.stat().st_size < whole.stat().st_size


def test_two_products_of_eight_bits_fit_into_sixteen(trained, rows, tmp_path):
    "Processors without VNNI add two of them in 16 bits, and what does not fit is cut off without a word."
    whole = export_onnx(Folded(trained.model_), tmp_path / "net.onnx")
    small = quantise(whole, tmp_path / "int8.onnx", face_examples(rows.iloc[:4], 256).x)
    values = [onnx.numpy_helper.to_array(one) for one in onnx.load(small).graph.initializer]
    weights = [value for value in values if value.dtype == np.int8 and value.ndim > 1]
    assert len(weights) > 10 and max(2 * 255 * abs(int(w.min())) for w in weights) < 2**15
    assert max(2 * 255 * int(w.max()) for w in weights) < 2**15


def test_the_edge_table_knows_networks_and_files(trained, rows, tmp_path):
    data, net = face_examples(rows.groupby("label").head(4), 256), trained.model_
    plain, last = (Folded(net).to(memory_format=f) for f in (torch.contiguous_format, torch.channels_last))
    file = export_onnx(net, tmp_path / "net.onnx")
    table = edge_table({"net": net, "plain": plain, "last": last, "file": file}, data, 3, turns=1)
    assert list(table.index) == ["net", "plain", "last", "file"] and table.loc["file", "KiB"] == file.stat().st_size / 1024
    assert (table["changed by"] < 1e-3).all() and (table[["KiB", "one by one", "by 3"]] > 0).all(axis=None)
    assert table.loc["net", "AUC"] == auc(data.y, trained.score(data.x))


# what is committed


def test_the_committed_detector_is_worth_what_its_card_says(trained):
    with safe_open(sample(WEIGHTS), "pt") as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys() if "running" not in name
                   and "num_batches" not in name) == 28_615  # fmt: skip
    assert sample(WEIGHTS).stat().st_size < 1_000_000
    card = sample("weights/mesonet.md").read_text(encoding="utf-8")
    df = load_samples("A")
    held = df[df["target"].isin(trained.told["people held out"])].reset_index(drop=True)
    assert 0 < len(held) < len(df) / 2 and all(who in card for who in trained.told["people held out"])
    held.attrs = df.attrs
    seen = face_examples(find_faces(held, k=5), 256)
    assert auc(seen.y, trained.score(seen.x)) >= 0.95


def test_the_command_trains_a_mesonet(tmp_path):
    out = tmp_path / "a.safetensors"
    given = ["fit", "A", "--net", "meso4", "--side", "64", "--frames", "2", "--epochs", "1", "--folds", "3",
             "--loss", "hinge", "--augment", "mesonet", "--schedule", "tenth", "--every", "2", "--out", str(out)]  # fmt: skip
    ran = CliRunner().invoke(app, given)
    assert ran.exit_code == 0, ran.output
    told = NetDetector(lambda: Meso4(64, 0.1)).load(out)
    assert len(told["people held out"]) == 2 and told["loss"] == "hinge" and told["augment"] == "mesonet"
    assert told["settings"]["schedule_options"] == {"every": 2}
    wrong = CliRunner().invoke(app, ["fit", "A", "--every", "5"])
    assert wrong.exit_code == 2 and "tenth" in wrong.output


def test_a_network_in_training_is_judged_as_in_use_and_left_alone(faces):
    net = stirred(Meso4).train()
    state, data = {name: v.clone() for name, v in net.state_dict().items()}, Examples(faces.x[:8], np.arange(8) % 2)
    table = edge_table({"one": net, "again": net}, data, many=4, turns=1)
    assert table.loc["again", "changed by"] == 0 and table["AUC"].nunique() == 1
    layer_table(net)
    assert diff_models(net, net, noise())["apart"].max() == 0
    with pytest.raises(ValueError, match="faces of 64 px"):
        diff_models(net, net, noise(side=96))
    assert all(part.training and not part._forward_hooks for part in net.modules())
    assert all(torch.equal(v, state[name]) for name, v in net.state_dict().items())
    with pytest.raises(ValueError, match="no `side`"):
        layer_table(nn.Linear(2, 1))


def test_files_are_made_of_networks_and_faces_that_fit(tmp_path, faces):
    with pytest.raises(ValueError, match=r"says \(2, 2\).*one log-odds"):
        export_onnx(PopularPort(side=64), tmp_path / "two.onnx")
    path = export_onnx(stirred(Meso4), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="needs some faces"):
        quantise(path, tmp_path / "q.onnx", faces.x[:0])
    with pytest.raises(ValueError, match="faces of 64 px"):
        quantise(path, tmp_path / "q.onnx", faces.x[:4, :32, :32])
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_the_bench_has_the_rows_of_the_issue():
    rows = {row.name: row.target for row in _bench.rows_of("mesonet")}
    assert rows["inference-b1"] >= 1.4 and rows["inference-b32"] >= 2 and rows["train-step"] >= 2
