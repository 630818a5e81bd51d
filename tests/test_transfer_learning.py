"""Lesson 25: the ladder of Task 3. Architectures are tested untrained; weights on files made here."""
import hashlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import deepfake_course  # noqa: F401  (before Keras)

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepfake_course import transfer_learning as tl
from deepfake_course.core import to_batch
from deepfake_course.intra_database import find_faces, score_rows
from deepfake_course.pretraining import CourseNet
from deepfake_course.samples import load_samples
from deepfake_course.training import face_examples

BIG = [name for name in tl.BACKBONES if name != "course"]
SIDE = 96


@pytest.fixture(scope="module")
def rows():
    df = load_samples("A")
    return find_faces(df.groupby(["label", "target"]).head(1).reset_index(drop=True), k=2)


@pytest.fixture(scope="module")
def faces(rows):
    return face_examples(rows, 48)


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    "A machine without downloads: Keras' and PyTorch's caches are empty."
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


# layer tables and parameter counts


def test_the_network_from_scratch_has_the_layers_of_the_report():
    net = tl.scratch_cnn()
    assert net.count_params() == 2_962_529
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds == ["Dropout", "Conv2D", "Dropout", "MaxPooling2D", "Conv2D", "Dropout", "MaxPooling2D", "Flatten",
                     "Dense", "Dropout", "Dense"]  # fmt: skip
    assert [layer.rate for layer in net.layers if hasattr(layer, "rate")] == [0.2, 0.25, 0.25, 0.5]
    assert net.output_shape == (None, 1)


def test_the_head_is_512_256_1():
    head = tl._add_head()
    head.build((None, 5, 5, 512))
    dense = [layer for layer in head.layers if type(layer).__name__ == "Dense"]
    assert [layer.units for layer in dense] == [512, 256, 1]
    assert head.count_params() == 512 * 512 + 512 + 512 * 256 + 256 + 256 + 1


@pytest.mark.parametrize("side", [48, 96, 112, 160])
def test_the_trunk_in_keras_answers_as_in_pytorch(side):
    imgs = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), np.uint8)
    lower, upper, used = tl.backbone("course", side=side)
    ours = np.asarray(upper(lower(imgs / np.float32(255), training=False), training=False))
    with torch.inference_mode():
        theirs = CourseNet().features(to_batch(imgs)).permute(0, 2, 3, 1).numpy()
    assert used == "course" and ours.shape == (3, side // 16, side // 16, 160)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_an_untrained_trunk_is_another_one():
    one, two = tl.course_trunk(48, "none"), tl.course_trunk(48, "course")
    assert one.count_params() == two.count_params()
    assert np.abs(one.get_layer("block1_conv").get_weights()[0] - two.get_layer("block1_conv").get_weights()[0]).max() > 0.01


# the big architectures, untrained

FREED = {
    "vgg19": ("block5_conv1", "block4_conv4"),
    "xception": ("block14_sepconv2", "block13_sepconv2"),
    "resnet50": ("conv5_block1_0_conv", "conv4_block6_3_conv"),
    "inception_v3": ("mixed10", "mixed8"),
    "mobilenet_v3": ("expanded_conv_10_expand", "expanded_conv_9_project"),
}
MAPS = {"vgg19": (3, 512), "xception": (3, 2048), "resnet50": (3, 2048), "inception_v3": (1, 2048),
        "mobilenet_v3": (3, 576)}  # fmt: skip


@pytest.mark.parametrize("name", BIG)
def test_a_big_network_is_cut_before_its_last_block_and_takes_a_step(name):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    lower, upper, used = tl.backbone(name, "none", SIDE)
    assert used == "none" and upper.output_shape[1:] == (MAPS[name][0], MAPS[name][0], MAPS[name][1])
    freed, frozen = FREED[name]
    inner = [layer.name for layer in lower.layers[-1].layers]
    assert freed in [layer.name for layer in upper.layers] and freed not in inner
    assert frozen in inner and frozen not in [layer.name for layer in upper.layers]
    model = tl.two_phases(x, np.array([0, 1, 0, 1]), name=name, weights="none", epochs=(1, 1))
    after = model.get_layer(name)
    assert not after.trainable_weights and model.output_shape == (None, 1)
    top = model.layers[-1]
    assert top.get_layer("last_block").trainable_weights and top.get_layer("head").trainable_weights
    p = tl._ask(model, x)
    assert p.shape == (4, 1) and ((p >= 0) & (p <= 1)).all()


def test_phase_1_leaves_the_network_as_it_came_and_phase_2_moves_its_last_block_only(faces):
    lower, upper, _ = tl.backbone(side=48)
    one = tl.two_phases(faces.x, faces.y, epochs=(1, 0))
    two = tl.two_phases(faces.x, faces.y, epochs=(1, 1))
    for model, moved in ((one, False), (two, True)):
        for a, b in zip(model.get_layer("course").get_weights(), lower.get_weights()):
            np.testing.assert_array_equal(a, b)
        pairs = list(zip(model.layers[-1].get_layer("last_block").weights, upper.weights))
        kernels = [np.abs(a.numpy() - b.numpy()).max() for a, b in pairs if "kernel" in a.path]
        statistics = [np.abs(a.numpy() - b.numpy()).max() for a, b in pairs if "moving" in a.path]
        assert (max(kernels) > 0) == moved and max(statistics) == 0


def test_training_is_repeatable(faces):
    scores = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        scores.append(tl._ask(tl.two_phases(faces.x, faces.y, seed=3, epochs=(1, 1)), faces.x))
    np.testing.assert_array_equal(*scores)


def test_kept_features_and_features_computed_anew_train_the_same_network(faces):
    scores = []
    for augment in (None, ()):  # () changes nothing, but forbids to keep
        keras.utils.set_random_seed(0)
        scores.append(tl._ask(tl.two_phases(faces.x, faces.y, epochs=(2, 2), augment=augment), faces.x))
    assert abs(roc_auc_score(faces.y, scores[0]) - roc_auc_score(faces.y, scores[1])) <= 0.005
    np.testing.assert_allclose(*scores, atol=5e-3)


# weights


def test_absent_weights_are_an_error_with_the_remedy(no_weights):
    for name in BIG:
        with pytest.raises(ValueError, match="weights absent.*include_top=False"):
            tl.backbone(name)
    with pytest.raises(ValueError, match="weights absent.*pretrained='vggface2'"):
        tl.which_embedding("vggface2")
    assert tl.which_embedding("auto") == "dlib"


def test_weights_in_the_cache_are_found_checked_and_loaded(no_weights, monkeypatch):
    name, file = "mobilenet_v3", tl.weights_file("mobilenet_v3")
    assert file.parent == no_weights / "keras" / "models"
    keras.utils.set_random_seed(7)
    made = tl.BACKBONES[name].make(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    file.parent.mkdir(parents=True)
    whole = file.with_name("made.weights.h5")
    made.save_weights(whole)
    whole.rename(file)
    with pytest.raises(ValueError, match="damaged: delete it"):
        tl.backbone(name, side=SIDE)
    known = tl.BACKBONES[name]._replace(md5=hashlib.md5(file.read_bytes()).hexdigest(), file="made.weights.h5")
    monkeypatch.setitem(tl.BACKBONES, name, known)
    file.rename(whole)
    lower, upper, used = tl.backbone(name, side=SIDE)
    x = np.random.default_rng(0).random((2, SIDE, SIDE, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(upper(lower(x))), np.asarray(made(2 * x - 1, training=False)), atol=1e-5)
    assert used == "imagenet"


def test_facenet_loads_from_its_file_and_no_pickle_runs(no_weights, rows):
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    net = InceptionResnetV1(pretrained=None, classify=False, num_classes=8631).eval()
    file = tl._facenet_file()
    file.parent.mkdir(parents=True)
    torch.save(net.state_dict(), file)
    few = rows[rows["face"]].head(2)
    assert tl.which_embedding() == "vggface2"
    emb = tl.embed_faces(few)
    with torch.inference_mode():
        x = torch.from_numpy(face_examples(few, 160).x.copy()).permute(0, 3, 1, 2).float()
        theirs = net((x - 127.5) / 128).numpy()
    assert emb.shape == (2, 512)
    np.testing.assert_allclose(emb, theirs, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(emb, axis=1), 1, atol=1e-5)

    class Evil:
        def __reduce__(self):
            return os.system, ("false",)

    torch.save({"last_linear.weight": Evil()}, file)
    with pytest.raises(Exception, match="[Ww]eights"):
        tl.embed_faces(few)


@pytest.mark.parametrize("weights,size", [("dlib", 128), ("course", 128)])
def test_embeddings_know_who_it_is(rows, weights, size):
    few = rows[rows["face"] & (rows["label"] == 0)]
    emb = tl.embed_faces(few, weights)
    assert emb.shape == (len(few), size)
    apart = np.linalg.norm(emb[:, None] - emb[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    who = few["target"].to_numpy()
    assert (who[apart.argmin(1)] == who).mean() > 0.9


# frozen features


def test_kept_answers_are_known_by_what_they_are_of(faces, tmp_path):
    lower = tl.backbone(side=48)[0]
    first = tl.frozen_features(lower, faces.x, tmp_path)
    file = next(tmp_path.iterdir())
    stamp = file.stat().st_mtime_ns
    np.testing.assert_array_equal(first, tl.frozen_features(lower, faces.x, tmp_path))
    assert file.stat().st_mtime_ns == stamp
    changed = faces.x.copy()
    changed[0, 0, 0, 0] ^= 1
    tl.frozen_features(lower, changed, tmp_path)
    tl.frozen_features(lower, faces.x, tmp_path, "bfloat16")
    tl.frozen_features(tl.backbone(side=48, scale=1 / 255)[0], faces.x, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_bfloat16_is_near_and_not_equal(faces):
    lower = tl.backbone(side=48)[0]
    full, half = (tl.frozen_features(lower, faces.x, precision=p) for p in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1 * full.std() * 5
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.999


def test_the_double_preparation_is_multiplied_after_the_dress(faces):
    x = faces.x[:2] / np.float32(255)
    start = keras.Input((48, 48, 3))
    right = keras.Model(start, tl.dress(start, "caffe"))
    theirs = keras.applications.vgg19.preprocess_input(faces.x[:2].astype(np.float32).copy()) / 255
    lower = tl.backbone("vgg19", "none", 48, scale=1 / 255)[0]
    names = [layer.name for layer in lower.layers]
    assert names.index("trap") > names.index("dress")
    np.testing.assert_allclose(np.asarray(right(x)) / 255, theirs, atol=1e-5)


# self-blended


def test_blending_uses_real_faces_only_and_is_repeatable(rows):
    one, two = (tl.blended_pairs(rows, each=1, side=64, seed=s) for s in (0, 0))
    real = rows[(rows["label"] == 0) & rows["face"]]
    assert len(one) == 2 * len(real) and set(one["path"]) == set(real["path"])
    assert all(np.array_equal(a, b) for a, b in zip(one["img"], two["img"]))
    other = tl.blended_pairs(rows, each=1, side=64, seed=1)
    assert not all(np.array_equal(a, b) for a, b in zip(one["img"], other["img"]))
    assert all((a != b).any() for a, b in zip(one["img"][::2], one["img"][1::2]))


def test_the_blend_detector_never_looks_at_fakes(rows):
    real = rows[rows["label"] == 0].reset_index(drop=True)
    with_fakes, without = (tl.BlendDetector(each=1, side=64).fit(part) for part in (rows, real))
    np.testing.assert_array_equal(score_rows(with_fakes, rows), score_rows(without, rows))


# bad input


def test_bad_input_is_said_in_one_sentence(rows, faces):
    for bad, text in (
        (lambda: tl.KerasDetector(tl.two_phases, 48).fit(rows[rows["label"] == 1]), "real and fake"),
        (lambda: tl.KerasDetector(tl.two_phases, 48).fit(rows.assign(face=False)), "no face in these rows"),
        (lambda: tl.KerasDetector(tl.two_phases, 48).fit(faces.x, np.where(faces.y, "fake", "real")), "as text"),
        (lambda: tl.KerasDetector(tl.two_phases, 48).fit(faces.x, faces.y[:-1]), "as many rows"),
        (lambda: tl.KerasDetector(tl.two_phases, 48).score(faces.x), "call fit first"),
        (lambda: tl.blended_pairs(rows.assign(face=False)), "no real face"),
        (lambda: tl.course_trunk(100), "multiple of 16"),
        (lambda: tl.backbone("vgg"), "name is one of"),
        (lambda: tl.backbone("vgg19", "course"), 'weights="imagenet"'),
        (lambda: tl.mixtures({"A": load_samples("A")}, "A"), "is tested on"),
        (lambda: tl.which_embedding("imagenet"), "weights is"),
        (lambda: tl.frozen_features(tl.backbone(side=48)[0], faces.x, precision="half"), "precision is"),
        (lambda: tl.Batches(faces.x, faces.y, augment="seed009"), "preset"),
        *((partial(train, faces.x / np.float32(255), faces.y), "uint8, as face_examples gives them")
          for train in (tl.train_scratch, tl.two_phases, tl.whole_network)),
    ):
        with pytest.raises(ValueError, match=text):
            bad()


def test_another_backend_is_refused():
    code = ("import deepfake_course.transfer_learning as tl\n"
            "for make in (tl.scratch_cnn, tl.course_trunk, tl.backbone):\n"
            "    try: make()\n"
            "    except RuntimeError as error: print(error)\n")
    env = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Keras runs on torch here, and the course on TensorFlow") == 3


def test_mixtures_hold_no_clip_of_the_target():
    databases = {name: load_samples(name).groupby("label").head(2).reset_index(drop=True) for name in "ABD"}
    found = tl.mixtures(databases, "B", k=1)
    assert list(found) == ["A", "A + D"]
    assert len(found["A + D"]) == 8 and not found["A + D"]["path"].str.contains("B/").any()
    assert set(found["A + D"]["path"].str.split("/").str[0]) == {"A", "D"}


@pytest.mark.parametrize("bench", [0, 1])
def test_a_bench_row_agrees_only_if_both_ways_do(bench):
    from deepfake_course._bench_frozen import ROWS

    row, y = ROWS[bench], np.arange(96) % 2
    good = y + np.linspace(0, 0.5, 96)
    assert row.agree((None, None, y), good, good)[0]
    assert not row.agree((None, None, y), good, -good)[0]


def test_features_take_the_frozen_part_of_time_only_once(faces, monkeypatch):
    asked = []
    real = tl._ask
    monkeypatch.setattr(tl, "_ask", lambda model, x, batch=32: asked.append(len(x)) or real(model, x, batch))
    tl.two_phases(faces.x, faces.y, epochs=(3, 3))
    assert asked == [len(faces), len(faces)]  # the frozen part, and the last block for phase 1


def test_a_manifest_is_enough():
    df = load_samples("A").groupby("label").head(1).reset_index(drop=True)
    detector = tl.KerasDetector(lambda x, y, seed: tl.two_phases(x, y, seed, epochs=(1, 0)), 48, k=2).fit(df)
    rows = find_faces(df, k=2)
    p = score_rows(detector, pd.concat([rows, rows.head(1).assign(face=False)], ignore_index=True))
    assert len(p) == 5 and p[-1] == 0.5


# labels and pictures that are not what they seem


def test_labels_go_by_place_or_are_refused():
    y = np.arange(8) % 2
    x, order = np.repeat(y, 2 * 2 * 3).reshape(8, 2, 2, 3).astype(np.uint8) * 255, np.r_[7, 2, 0, 1, 3, 6, 5, 4]
    shuffled = pd.Series(y).iloc[order]
    for labels in (shuffled, list(y[order])):
        with pytest.raises(ValueError, match=f"not a {type(labels).__name__}, but to_numpy"):
            tl.Batches(x[order], labels)
    batch, given = tl.Batches(x[order], shuffled.to_numpy(), batch=8)[0]
    assert (batch[:, 0, 0, 0] == given).all()
    for wrong, text in (([-1, 1] * 4, "holds -1"), ([0, 2] * 4, "holds 2"), ([0.0, np.nan] * 4, "holds nan"), ([1] * 8, "all 8 labels are 1"),
                        ([0, 1], "each of 8 rows, not 2")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            tl.Batches(x, np.array(wrong))


def test_pictures_in_other_numbers_are_refused():
    x = np.zeros((4, 8, 8, 3), np.uint8)
    for wrong in (torch.from_numpy(x), x.astype(int)):
        with pytest.raises(ValueError, match="uint8 or floats"):
            tl.Batches(wrong)[0]


def test_faces_with_nan_get_no_score():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")])
    detector, x = tl.KerasDetector(lambda x, y, seed: model, side=8), np.zeros((4, 8, 8, 3), np.float32)
    detector.fit(x.astype(np.uint8), np.array([0, 1, 0, 1]))
    assert detector.score(x).shape == (4,)
    x[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 numbers in x are NaN"):
        detector.score(x)


def test_damaged_kept_features_are_named(faces, tmp_path):
    lower = tl.backbone(weights="none", side=48)[0]
    first = tl.frozen_features(lower, faces.x[:4], tmp_path)
    (file,) = tmp_path.iterdir()
    for damaged in (b"", file.read_bytes()[:-8], b"junk"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{file.name} are damaged: delete it"):
            tl.frozen_features(lower, faces.x[:4], tmp_path)
    file.unlink()
    np.testing.assert_array_equal(tl.frozen_features(lower, faces.x[:4], tmp_path), first)
