"""Lesson 26: triplets against a library, what happens without any, files that are absent or damaged, the widget."""
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from pytorch_metric_learning.reducers import MeanReducer
from typer.testing import CliRunner

from deepfake_course import _bench
from deepfake_course import metric_learning as ml
from deepfake_course._cli import app
from deepfake_course.core import HEADLINES, sample
from deepfake_course.intra_database import Detector, find_faces, score_rows
from deepfake_course.metrics import auc, wilson
from deepfake_course.samples import load_samples
from deepfake_course.training import Examples

torch.set_num_threads(1)
QUICK = replace(ml.TRIPLETS, epochs=2, steps=4)
WEIGHTS = "weights/triplet.safetensors"
THEIRS = {"semi-hard": "semihard", "hard": "hard", "all": "all", "easy": "easy"}


def batch(n=40, d=16, classes=2, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=rng)
    emb = F.normalize(torch.randn(n, d, generator=rng, dtype=torch.float64) + y[:, None] / 8)
    return emb.to(dtype), y


def people(n=48, d=128, seed=0):
    "Embeddings of clips of four people, of which forged ones are moved a little."
    rng = np.random.default_rng(seed)
    y, who = np.arange(n) % 2, np.arange(n) // 2 % 4
    x = rng.normal(size=(4, d))[who] + np.outer(y, rng.normal(size=d)) + 0.3 * rng.normal(size=(n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    path = np.array([f"{p}_{label}.mp4" for p, label in zip(who, y)])
    rows = pd.DataFrame({"path": path, "label": y, "target": who.astype(str), "base": [f"{p}_0.mp4" for p in who],
                         "donor": np.where(y == 1, "d" + pd.Series(who % 2).astype(str), ""), "database": "made",
                         "group": "", "frame": np.arange(n) // 8, "face": True})  # fmt: skip
    return rows, x


# triplets


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("margin", [0.05, 0.5, 2.0])
def test_the_miner_finds_what_the_library_finds(kind, classes, margin):
    emb, y = batch(classes=classes)
    far = LpDistance(normalize_embeddings=False, p=2, power=2)
    theirs = TripletMarginMiner(margin, THEIRS[kind], distance=far)(emb, y)
    ours = ml.mine_triplets(emb, y, kind, margin)
    assert set(map(tuple, ours.T.tolist())) == set(zip(*(rows.tolist() for rows in theirs)))
    assert ours.shape[1] == len(theirs[0])  # none twice
    loss = TripletMarginLoss(margin, distance=far, reducer=MeanReducer())(emb, y, theirs)
    torch.testing.assert_close(ml.triplet_loss(emb, ours, margin), loss)


def test_equal_distances_are_hard_and_the_margin_is_still_semi_hard():
    emb, y = torch.tensor([[0.0], [1.0], [-1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    first = {kind: [n for a, p, n in ml.mine_triplets(emb, y, kind, 3).T.tolist() if (a, p) == (0, 1)]
             for kind in ("hard", "semi-hard", "easy")}  # fmt: skip
    assert first == {"hard": [2], "semi-hard": [3], "easy": []}


def test_nearest_is_one_a_pair_as_in_the_base_code():
    emb, y = batch(30)
    far, found = torch.cdist(emb, emb).square(), {}
    for a, p, n in ml.mine_triplets(emb, y, "nearest").T.tolist():
        assert (a, p) not in found
        found[a, p] = n
    for a in range(30):
        others = [n for n in range(30) if y[n] != y[a]]
        for p in range(30):
            if p == a or y[p] != y[a]:
                assert (a, p) not in found
                continue
            beyond = [n for n in others if far[a, n] > far[a, p]]
            want = min(beyond, key=lambda n: far[a, n]) if beyond else max(others, key=lambda n: far[a, n])
            assert found[a, p] == want


def test_kinds_add_up():
    emb, y = batch(50, classes=3)
    count = {kind: ml.mine_triplets(emb, y, kind).shape[1] for kind in ml.KINDS}
    assert count["hard"] + count["semi-hard"] == count["all"] and count["all"] + count["easy"] == count["every"]
    told = ml.triplet_report(emb, y)
    for kind in ("easy", "semi-hard", "hard"):
        assert told[kind] == pytest.approx(count[kind] / count["every"])


def test_a_batch_without_triplets_says_so_and_is_never_nan():
    emb, y = batch(8)
    for labels in (torch.ones(8), torch.arange(8), torch.zeros(8)):
        with pytest.raises(ValueError, match="no triplet in a batch with 8 rows"):
            ml.mine_triplets(emb, labels)
    with pytest.raises(ValueError, match="no triplet in a batch"):
        ml.triplet_report(emb, torch.ones(8))
    apart = torch.tensor([[0.0], [0.1], [9.0], [9.1]], requires_grad=True)
    none = ml.mine_triplets(apart, torch.tensor([0, 0, 1, 1]))
    loss = ml.triplet_loss(apart, none)
    loss.backward()
    assert none.shape == (3, 0) and loss == 0 and (apart.grad == 0).all()
    assert ml.triplet_report(apart.detach(), torch.tensor([0, 0, 1, 1]))["verdict"] == "no triplet costs"


def test_embeddings_of_mixed_length_and_odd_numbers_are_refused():
    emb, y = batch(8)
    with pytest.raises(ValueError, match="with one d.*same weights"):
        ml.squared_l2(emb, emb[:, :4])
    with pytest.raises(ValueError, match="with one d"):
        ml.squared_l2(emb[0])
    with pytest.raises(ValueError, match="as many labels"):
        ml.mine_triplets(emb, y[:5])
    with pytest.raises(ValueError, match="NaN or infinity"):
        ml.mine_triplets(emb * torch.nan, y)
    with pytest.raises(ValueError, match="margin of 0 or more"):
        ml.mine_triplets(emb, y, margin=-1)
    with pytest.raises(ValueError, match="kind is semi-hard"):
        ml.mine_triplets(emb, y, "soft")
    with pytest.raises(ValueError, match=r"takes embeddings \(b, 512\), not \(8, 16\)"):
        ml.TripletNet()(emb.float())


def test_the_loss_has_the_slope_of_its_formula():
    emb, y = batch(12)
    emb.requires_grad_(True)
    triplets = ml.mine_triplets(emb, y, "all", 0.5)
    assert torch.autograd.gradcheck(lambda e: ml.triplet_loss(e, triplets, 0.5), emb)


def test_mining_is_quick_at_256():
    emb, y = batch(256, 64, dtype=torch.float32)
    far = LpDistance(normalize_embeddings=False, p=2, power=2)
    theirs = TripletMarginMiner(0.2, "semihard", distance=far)
    times = {}
    for name, way in {"ours": lambda: ml.mine_triplets(emb, y), "theirs": lambda: theirs(emb, y)}.items():
        way()
        start = time.perf_counter()
        for _ in range(3):
            way()
        times[name] = time.perf_counter() - start
    assert times["ours"] < times["theirs"]


# weights that are absent or damaged


def test_absent_weights_are_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for make in (ml.facenet, ml.xception):
        with pytest.raises(ValueError, match="weights absent.*TORCH_HOME"):
            make()
    with pytest.raises(ValueError, match="weights absent"):
        ml.TripletDetector(weights="vggface2")
    for make, names in ((ml.facenet, "vggface2"), (ml.xception, "imagenet")):
        with pytest.raises(ValueError, match=f'weights is "{names}" or "none"'):
            make("mine")
    bad = {tmp_path / "checkpoints/20180402-114759-vggface2.pt": ml.facenet,
           tmp_path / "hub/checkpoints/xception-43020ad28.pth": ml.xception}  # fmt: skip
    for path, make in bad.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of it")
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            make()


def test_facenet_weights_are_read_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(1)
    net = ml.facenet("none")
    (tmp_path / "checkpoints").mkdir()
    torch.save(net.state_dict(), tmp_path / "checkpoints/20180402-114759-vggface2.pt")
    x = torch.rand(2, 3, 160, 160) * 2 - 1
    one, two = (ml.embed_batches(each, x) for each in (net, ml.facenet()))
    np.testing.assert_allclose(one, two, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="a face or more"):
        ml.embed_batches(net, x[:0])
    with pytest.raises(ValueError, match="precision"):
        ml.embed_batches(net, x, precision="int8")


def test_separable_is_an_ordinary_convolution_of_low_rank():
    conv, x = ml.SeparableConv(6, 10, 5, 2), torch.randn(2, 6, 15, 15)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.kernel(), stride=2, padding=2), atol=1e-5, rtol=0)
    for channel in range(6):
        assert torch.linalg.matrix_rank(conv.kernel()[:, channel].reshape(10, -1)) == 1


# detector


def test_a_detector_learns_keeps_the_contract_and_is_repeatable():
    rows, x = people()
    y = rows["label"].to_numpy()
    one, two = (ml.TripletDetector("KNN", "course", QUICK).fit(x, y) for _ in range(2))
    np.testing.assert_array_equal(one.score(x), two.score(x))
    assert isinstance(one, Detector) and auc(y, one.score(x)) > 0.9
    gone = x.copy()
    gone[3] = np.nan
    p = one.score(gone)
    assert p[3] == 0.5 and np.array_equal(np.delete(p, 3), np.delete(one.score(x), 3))
    with pytest.raises(ValueError, match="call fit first"):
        ml.TripletDetector("KNN", "course").score(x)
    with pytest.raises(ValueError, match="head is KNN"):
        ml.TripletDetector("SVM", "course")
    with pytest.raises(ValueError, match="takes real and fake"):
        ml.TripletDetector("KNN", "course", QUICK).fit(x[y == 1], y[y == 1])
    with pytest.raises(ValueError, match="balanced=True"):
        ml.TripletDetector("KNN", "course", replace(QUICK, balanced=False)).fit(x, y)


@pytest.mark.parametrize("head", ml.frame_classifiers())
@pytest.mark.parametrize("triplets", [True, False])
def test_every_classifier_gives_probabilities(head, triplets):
    rows, x = people()
    y = rows["label"].to_numpy()
    p = ml.TripletDetector(head, "course", QUICK, triplets).fit(x, y).score(x)
    assert ((p >= 0) & (p <= 1)).all() and auc(y, p) > 0.9


def test_a_file_of_a_detector_answers_alike_and_knows_its_embedding(tmp_path):
    rows, x = people()
    y, path = rows["label"].to_numpy(), tmp_path / "a.safetensors"
    one = ml.TripletDetector("logistic", "course", QUICK).fit(x, y)
    one.save(path)
    two = ml.TripletDetector("logistic", "course")
    two.load(path)
    np.testing.assert_allclose(two.score(x), one.score(x), atol=1e-6)
    np.testing.assert_allclose(two.embed(x), one.embed(x), atol=1e-6)
    with pytest.raises(ValueError, match="belongs to the embedding 'course', not to 'dlib'"):
        ml.TripletDetector("logistic", "dlib").load(path)
    for bad in (dict(head="KNN"), dict(head="logistic", triplets=False)):
        with pytest.raises(ValueError, match="become weights in a file"):
            ml.TripletDetector(weights="course", settings=QUICK, **bad).fit(x, y).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        two.load(path)


def test_folds_keep_together_what_they_say():
    rows, x = people()
    make = partial(ml.TripletDetector, "KNN", "course", QUICK)
    found = {how: ml.hold_out_folds(make, rows, x, how) for how in ("frame", "clip")}
    assert found["frame"].groupby("path")["fold"].nunique().max() > 1
    assert found["clip"].groupby("base")["fold"].nunique().max() == 1
    assert np.isfinite(found["clip"][["score", "silhouette"]]).all(axis=None)
    donor = rows.assign(fold=ml._split(rows, "donor", 0))
    fakes = donor[donor["label"] == 1]
    assert fakes.groupby("donor")["fold"].nunique().max() == 1 and donor["fold"].nunique() == 2
    with pytest.raises(ValueError, match="as many embeddings"):
        ml.hold_out_folds(make, rows, x[:5])
    with pytest.raises(ValueError, match="how is frame"):
        ml.hold_out_folds(make, rows, x, "people")


def scored(score, fold=0):
    return pd.DataFrame({"path": [f"{k}.mp4" for k in range(len(score))], "label": np.arange(len(score)) % 2,
                         "score": score, "fold": fold})  # fmt: skip


def test_auc_of_clips_and_its_changes():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=24)
    one, two = scored(np.arange(24) % 2 + noise), scored(noise)
    value, low, high = ml.clip_auc([one])
    assert value == pytest.approx(auc(one["label"], one["score"])) and low <= value <= high
    gain, low, high = ml.clip_auc([one], [two])
    assert gain == pytest.approx(value - auc(two["label"], two["score"])) and low <= gain <= high
    assert ml.clip_auc([one], [one]) == (0, 0, 0)
    perfect = scored(np.arange(24) % 2.0)
    assert ml.clip_auc([perfect]) == (1, wilson(12, 12)[0], 1)
    shifted = scored(np.arange(24) % 2 + noise, np.repeat([0, 1], 12)).assign(
        score=lambda t: t["score"] + 100 * t["fold"])
    inside = np.mean([auc(part["label"], part["score"]) for _, part in shifted.groupby("fold")])
    assert ml.clip_auc([shifted])[0] == pytest.approx(inside)  # folds share no scale


def test_few_frames_and_short_clips():
    rows, _ = people(80)
    frames = rows.assign(fold=0, score=rows["label"] + np.random.default_rng(0).normal(size=80))
    curve = ml.frames_curve(frames, (1, 10))
    clips = frames.groupby("path", sort=False)[["label", "score"]].mean()
    assert curve.loc[10, "AUC"] == pytest.approx(auc(clips["label"], clips["score"]))
    for bad in ((11,), (0,), ()):
        with pytest.raises(ValueError, match="the shortest clip has 10 frames"):
            ml.frames_curve(frames, bad)


def test_sequences_keep_clips_and_order():
    clip, y = np.repeat(["b", "a"], 4), np.repeat([1, 0], 4)
    data = ml.FrameLSTM.sequences(np.arange(8.0)[:, None], y, clip, 3)
    assert data.clip.tolist() == ["b", "a"] and data.y.tolist() == [1, 0]
    assert data.x[:, :, 0].tolist() == [[0, 1, 2], [4, 5, 6]]
    with pytest.raises(ValueError, match="2 clips have fewer than 5 frames"):
        ml.FrameLSTM.sequences(np.arange(8.0)[:, None], y, clip, 5)


def test_without_a_hinge_distances_blow_up():
    rows, x = people()
    data = Examples(x, rows["label"])
    settings = replace(ml.TRIPLETS, epochs=2)
    more = dict(normalise=False, margin=1.0, kind="every")
    far = [ml.triplet_report(torch.from_numpy(ml._ask(ml.train_triplets(data, settings, hinge=hinge, **more)[0], x)),
                             data.y, 1.0)["to negative"] for hinge in (True, False)]  # fmt: skip
    assert far[1] > 100 * far[0]


# widget


@pytest.fixture(scope="module")
def story():
    rows, x = people(48)
    data = Examples(x, rows["label"], rows["path"].to_numpy())
    imgs = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)
    return ml.triplet_story(data.take(slice(16, None)), data.take(slice(16)), imgs, replace(QUICK, epochs=4))


def test_the_story_begins_before_training_and_has_one_map(story):
    assert story.emb.shape == (5, 16, 64) and story.xy.shape == (5, 16, 2)
    np.testing.assert_allclose(np.linalg.norm(story.emb, axis=2), 1, atol=1e-5)
    assert story.silhouette[-1] > story.silhouette[0]
    centre = story.emb[-1].mean(0)
    axes = np.linalg.lstsq(story.emb[-1] - centre, story.xy[-1], rcond=None)[0]
    for emb, xy in zip(story.emb, story.xy):
        assert np.abs((emb - centre) @ axes - xy).max() < 0.6  # the same map, up to what the last epoch does not span


def test_the_explorer_says_what_it_draws(story):
    explorer = ml.TripletExplorer(story)
    pictures = {explorer.png}
    for epoch, anchor in ((0, 1), (4, 1), (4, 2)):
        explorer.controls["epoch"].value, explorer.controls["anchor"].value = epoch, anchor
        pictures.add(explorer.png)
        far = ((story.emb[epoch] - story.emb[epoch, anchor]) ** 2).sum(1)
        same = story.y == story.y[anchor]
        assert f"Epoch {epoch}: anchor {anchor} " in explorer.status
        assert f"positive at {far[same].max():.3f}" in explorer.status
    assert len(pictures) == 4
    for bad in (dict(epoch=5, anchor=0), dict(epoch=0, anchor=16), dict(epoch=-1, anchor=0)):
        with pytest.raises(ValueError, match="epochs are 0 to 4, anchors 0 to 15"):
            ml.draw_triplet(explorer.figure, story, **bad)
    start = time.perf_counter()
    for epoch in range(5):
        explorer.controls["epoch"].value = epoch
    assert (time.perf_counter() - start) / 5 < 0.6  # .15 are the aim on a quiet machine
    with pytest.raises(ValueError, match="as many, and two or more"):
        ml.triplet_story(Examples(np.eye(4), [0, 1, 0, 1]), Examples(np.eye(4), [0, 1, 0, 1]), np.zeros((3, 4, 4, 3)))


# what is committed, and the commands


def test_the_committed_head_is_what_its_card_says():
    detector = ml.TripletDetector("logistic", "course")
    told = detector.load(sample(WEIGHTS))
    card = sample("weights/triplet.md").read_text(encoding="utf-8")
    assert sample(WEIGHTS).stat().st_size < 1_000_000 and "Command" in card
    assert all(who in card for who in told["people held out"])
    df = load_samples("A")
    few = df[df["target"].isin(sorted(set(df["target"]) - set(told["people held out"]))[:2])].reset_index(drop=True)
    few.attrs = df.attrs
    rows = find_faces(few, k=3)
    score = score_rows(detector, rows)
    assert auc(rows["label"], score) > 0.9  # these it knows; of others the card tells


def test_the_command_trains_a_head(tmp_path):
    out = tmp_path / "a.safetensors"
    given = ["fit", "A", "--net", "triplet", "--frames", "2", "--epochs", "1", "--folds", "3", "--optimiser", "adam"]
    ran = CliRunner().invoke(app, [*given, "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    told = ml.TripletDetector("logistic", "course").load(out)
    assert len(told["people held out"]) == 2 and told["embedding"] == "course"
    wrong = CliRunner().invoke(app, [*given, "--augment", "mesonet"])
    assert wrong.exit_code == 1 and "no --augment" in wrong.output


def test_every_recorded_row_names_its_data():
    rows = {name: f for (module, name), f in HEADLINES.items() if module == "metric_learning"}
    assert len(rows) >= 15 and all(len(f.data) >= 24 for f in rows.values())
    assert all(f.weights == ["weights/coursenet.safetensors"] for name, f in rows.items()
               if "table" not in name and "dlib" not in name)  # fmt: skip


def test_the_bench_has_the_rows_of_the_issue():
    rows = {row.name: row.target for row in _bench.rows_of("metric")}
    assert rows["mining"] >= 20 and rows["embedding"] >= 1.5
