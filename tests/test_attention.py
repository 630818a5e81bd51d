"""Lesson 27: attention, ASRID in both readings, what is kept, what is planted, and maps against the truth."""
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn
from typer.testing import CliRunner

from deepfake_course import _bench, _bench_attention, _fit
from deepfake_course import attention as at
from deepfake_course._cli import app
from deepfake_course.core import HEADLINES, sample, to_batch
from deepfake_course.intra_database import find_faces
from deepfake_course.metrics import accuracy, auc, log_loss
from deepfake_course.samples import load_samples
from deepfake_course.training import Examples, FitSettings, predict, study
from deepfake_course.widgets import figure_png

torch.set_num_threads(1)
WEIGHTS = "weights/asrid.safetensors"
SHORT = FitSettings(2, 4, rate=2e-3, balanced=True, threads=1, channels_last=False, seed=0)


@pytest.fixture(scope="module")
def rows():
    df = load_samples("A")
    held = df[df["target"].isin(["10003", "10005"])].reset_index(drop=True)
    held.attrs = df.attrs
    return find_faces(held, k=8)


@pytest.fixture(scope="module")
def head():
    made = at.AsridDetector()
    made.told = made.load(sample(WEIGHTS))
    return made


@pytest.fixture(scope="module")
def clips(rows):
    return at.clip_faces(rows)[0]


@pytest.fixture(scope="module")
def seen(clips, head):
    return Examples(at.clip_features(clips.x, head.backbone), clips.y, clips.clip)


def noise(n=12, t=4, r=9, c=16, seed=0):
    "Features whose mean tells the class."
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, t, r, c)) + y[:, None, None, None] * np.linspace(-1, 1, c)
    return Examples(x.astype(np.float32), y, np.array([f"clip{k}" for k in range(n)]))


# Attention


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_is_pytorch_s(heads):
    own, q, k = at.Attention(16, heads), torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    theirs = nn.MultiheadAttention(16, heads, batch_first=True)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            parts = [getattr(part, kind) for part in (own.query, own.key, own.value)]
            getattr(theirs, f"in_proj_{kind}").copy_(torch.cat(parts))
    theirs.out_proj.load_state_dict(own.out.state_dict())
    out, weights = theirs(q, k, k, average_attn_weights=False)
    torch.testing.assert_close(own(q, k, k)[0], out, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own(q, k, k)[1], weights, atol=1e-6, rtol=1e-4)


def test_positions_are_the_paper_s():
    got = at.positions(5, 8).numpy()
    for t in range(5):
        for i in range(4):
            angle = t / 10000 ** (2 * i / 8)
            np.testing.assert_allclose(got[t, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-6)
    for bad in ((0, 8), (3, 7), (3, 0)):
        with pytest.raises(ValueError, match="even dim"):
            at.positions(*bad)


# The backbone


@pytest.mark.parametrize("name, channels, answers", [("course", 272, 32), ("mobilenet", 616, 1000)])
@pytest.mark.parametrize("grid", [3, 7])
def test_a_backbone_says_what_it_promises(name, channels, answers, grid):
    net = at.RegionBackbone(name, "none", grid)
    x = torch.rand(2, 3, 112, 112)
    assert net(x).shape == (2, grid**2, channels) == (2, grid**2, net.channels)
    assert net.logits(x).shape == (2, 1, answers) == (2, 1, net.answers)
    assert not any(w.requires_grad for w in net.parameters()) and not net.train().training
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net(x)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_mobilenet_is_torchvision_s():
    torch.manual_seed(0)
    net = at.RegionBackbone("mobilenet", "none")
    x = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    maps = net.net.features((x - mean) / std)
    deep = torch.nn.functional.adaptive_avg_pool2d(maps, 7).flatten(2).transpose(1, 2)
    torch.testing.assert_close(net(x)[..., :576], deep)
    torch.testing.assert_close(net.logits(x)[:, 0], net.net((x - mean) / std))


def test_absent_and_damaged_weights_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for weights in ("auto", "imagenet"):
        with pytest.raises(ValueError, match="weights absent.*IMAGENET1K_V1"):
            at.RegionBackbone("mobilenet", weights)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / at._MOBILENET).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="damaged: delete it"):
        at.RegionBackbone("mobilenet")
    for bad in (dict(name="vgg"), dict(grid=0), dict(weights="imagenet"), dict(name="mobilenet", weights="course")):
        with pytest.raises(ValueError, match="course"):
            at.RegionBackbone(**bad)


# Clips


def test_clips_are_in_order_and_of_one_length(rows, clips):
    assert clips.x.shape == (8, 8, 224, 224, 3) and clips.x.dtype == np.uint8
    mixed = rows.iloc[::-1].sort_values("frame", kind="stable").reset_index(drop=True)  # clips interleaved
    mixed.attrs = rows.attrs
    again = at.clip_faces(mixed)[0]
    place = {name: n for n, name in enumerate(again.clip)}
    for n, name in enumerate(clips.clip):
        assert np.array_equal(again.x[place[name]], clips.x[n])


def test_short_mixed_and_faceless_clips(rows):
    some = rows.copy()
    some.loc[some.index[:3], "face"] = False
    with pytest.raises(ValueError, match="1 of 8 clips have fewer than 8 faces, .*mp4 has 5: take fewer frames"):
        at.clip_faces(some)
    kept, who = at.clip_faces(some, short="drop")
    assert len(kept) == len(who) == 7 and rows["path"][0] not in set(who["path"])
    assert len(at.clip_faces(some, frames=5)[0]) == 8
    with pytest.raises(ValueError, match="no clip has 9 faces"):
        at.clip_faces(rows, 9, short="drop")
    for bad in (dict(frames=0), dict(short="pad")):
        with pytest.raises(ValueError, match='"error" or "drop"'):
            at.clip_faces(rows, **bad)
    net = at.RegionBackbone(weights="none")
    for clips in ([np.zeros((3, 64, 64, 3), np.uint8), np.zeros((4, 64, 64, 3), np.uint8)], np.zeros((2, 3, 64, 64, 3))):
        with pytest.raises(ValueError, match="all of one length"):
            at.clip_features(clips, net)
    with pytest.raises(ValueError, match="reading is"):
        at.clip_features(np.zeros((1, 3, 64, 64, 3), np.uint8), net, "poster")


def test_features_are_kept_by_content(tmp_path, monkeypatch):
    net = at.RegionBackbone(weights="none", grid=2)
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    first = at.clip_features(clips, net, folder=tmp_path)
    assert np.array_equal(first, at.clip_features(clips, net)) and first.dtype == np.float16
    asked = []
    monkeypatch.setattr(at.RegionBackbone, "forward", lambda self, x: asked.append(1))
    assert np.array_equal(at.clip_features(clips, net, folder=tmp_path), first) and not asked
    monkeypatch.undo()
    clips[1, 2, 5, 5, 0] ^= 1
    at.clip_features(clips, net, folder=tmp_path)
    at.clip_features(clips, at.RegionBackbone(weights="none", grid=3), folder=tmp_path)
    assert at.clip_features(clips, net, "code", tmp_path).shape == (2, 3, 1, 32)
    assert len(list(tmp_path.iterdir())) == 4


# ASRID


@pytest.mark.parametrize("reading", ["paper", "code"])
@pytest.mark.parametrize("name", list(at.VARIANTS))
def test_every_variant_in_both_readings_gives_log_odds_and_learns(reading, name):
    options = {key: value for key, value in at.VARIANTS[name].items() if key != "pictures"}
    torch.manual_seed(0)
    net, x = at.ASRID(32, reading, **options), torch.randn(4, 6, 1 if reading == "code" else 9, 32)
    assert net.eval()(x).shape == (4,) and torch.isfinite(net(x)).all()
    at.asrid_loss(net.train(), {"x": x, "y": torch.tensor([0.0, 1, 0, 1])}).backward()
    assert all(w.grad is not None for w in net.parameters())


def test_the_static_part_does_not_know_order_and_the_dynamic_does():
    torch.manual_seed(0)
    net, x = at.ASRID(16).eval(), torch.randn(3, 6, 9, 16)
    (static, dynamic), (static2, dynamic2) = net(x, apart=True), net(x.flip(1), apart=True)
    torch.testing.assert_close(static.flip(1), static2)
    assert (dynamic - dynamic2).abs().max() > 1e-3
    blind = at.ASRID(16, order=False).eval()
    torch.testing.assert_close(blind(x, apart=True)[1], blind(x.flip(1), apart=True)[1])
    shuffled = x[:, :, torch.randperm(9)]  # nor does either know where a region is
    torch.testing.assert_close(net(x), net(shuffled), atol=1e-4, rtol=1e-4)


def test_the_first_frame_bug_and_the_quarter():
    torch.manual_seed(0)
    net, x = at.ASRID(32, "code", "fc", attend=False, dynamic=False).eval(), torch.randn(2, 30, 1, 32)
    z = torch.nn.functional.normalize(x[:, :, 0], dim=2)
    logits = net.static(z).relu()
    torch.testing.assert_close(1 - net(x).sigmoid(), logits.softmax(1)[:, 0, 0])
    assert (1 - net(x[:, :1]).sigmoid() > 0.999).all()  # a film of one frame is real, whatever it shows
    same = at.ASRID(32, "code", dynamic=False).eval()
    nn.init.zeros_(same.static[-1].weight)
    nn.init.zeros_(same.static[-1].bias)
    torch.testing.assert_close(same(x).sigmoid(), torch.full((2,), 0.75))


@pytest.mark.parametrize("w", [0.0, 0.2, 0.8, 0.95, 1.0])
def test_scores_and_losses_are_weighted(w):
    torch.manual_seed(0)
    net, x, y = at.ASRID(16, w=w).eval(), torch.randn(4, 3, 9, 16), torch.tensor([0.0, 1, 1, 0])
    static, dynamic = net(x, apart=True)
    torch.testing.assert_close(net(x).sigmoid(), w * static.mean(1) + (1 - w) * dynamic)
    ask = nn.functional.binary_cross_entropy
    want = w * ask(static, y[:, None].expand(4, 3)) + (1 - w) * ask(dynamic, y)
    torch.testing.assert_close(at.asrid_loss(net, {"x": x, "y": y}), want)
    net.fuse = "scores"
    torch.testing.assert_close(at.asrid_loss(net, {"x": x, "y": y}), ask(w * static.mean(1) + (1 - w) * dynamic, y))


@pytest.mark.parametrize("bad", [dict(reading="poster"), dict(head="old"), dict(w=1.5), dict(fuse="both")])
def test_unknown_settings(bad):
    with pytest.raises(ValueError, match="not"):
        at.ASRID(16, **bad)


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 9, 8), torch.zeros(2, 3, 16), torch.zeros(2, 3, 9, 16, dtype=torch.long)])
def test_wrong_features(x):
    with pytest.raises(ValueError, match="clip_features makes them"):
        at.ASRID(16)(x)


def test_it_learns_and_one_class_is_refused():
    data = noise(24)
    model, history = at.fit(lambda: at.ASRID(16, width=16), data, FitSettings(
        8, 8, rate=5e-3, threads=1, channels_last=False, seed=0), loss=at.asrid_loss)  # fmt: skip
    new = noise(24, seed=1)
    assert auc(new.y, predict(model, new.x)) > 0.95 and history["loss"].iloc[-1] < history["loss"].iloc[0]
    with pytest.raises(ValueError, match="takes real and fake"):
        at.fit(lambda: at.ASRID(16), data.take(data.y == 0), SHORT, loss=at.asrid_loss)


def test_a_killed_run_goes_on_bit_by_bit(tmp_path):
    data = noise()

    class Stop(Exception):
        pass

    count = {}

    def loss(model, batch):
        count["left"] -= 1
        if count["left"] == 0:
            raise Stop
        return at.asrid_loss(model, batch)

    def run(folder, stop=100):
        count["left"] = stop
        return at.fit(lambda: at.ASRID(16, width=16), data, SHORT, loss=loss, folder=folder, every=1)

    with pytest.raises(Stop):
        run(tmp_path / "a", 4)
    one, two = run(tmp_path / "a")[0], run(tmp_path / "b")[0]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_checkpointing_changes_no_gradient():
    def slopes(part, learn=True):
        torch.manual_seed(0)
        net = at.ClipNet(at.RegionBackbone(weights="none", grid=3), at.ASRID(272), learn, part).double()
        net.head.eval()
        x = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
        net(x).sum().backward()
        return {name: w.grad for name, w in net.named_parameters() if w.grad is not None}

    plain, again, frozen = slopes(0), slopes(2), slopes(2, learn=False)
    assert set(plain) == set(again) > set(frozen) and not any("backbone" in name for name in frozen)
    for name, slope in plain.items():
        torch.testing.assert_close(again[name], slope, rtol=1e-9, atol=1e-12)
    for name, slope in frozen.items():
        torch.testing.assert_close(slope, plain[name], rtol=1e-9, atol=1e-12)
    for bad in (dict(part=-1), dict(head=at.ASRID(32, "code"))):
        with pytest.raises(ValueError, match="paper's reading"):
            at.ClipNet(**{"backbone": at.RegionBackbone(weights="none"), "head": at.ASRID(272)} | bad)


def test_multi_attention_pools_texture_under_its_maps():
    torch.manual_seed(0)
    multi = at.MultiAttention(6, heads=3)
    shallow, deep = torch.randn(2, 4, 16, 16), torch.randn(2, 6, 8, 8)
    pooled, maps = multi(shallow, deep)
    assert pooled.shape == (2, 3, 4) and maps.shape == (2, 3, 8, 8)
    assert not multi(torch.ones(2, 4, 16, 16), deep)[0].any()  # no texture, nothing to pool
    assert torch.isclose(multi.overlap(torch.ones(2, 3, 8, 8)), torch.tensor(1.0))
    apart = torch.zeros(1, 2, 4, 4)
    apart[0, 0, :2], apart[0, 1, 2:] = 1, 1
    assert multi.overlap(apart) == 0


# What is planted


def film(t=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (t, 64, 64, 3), dtype=np.uint8)


def spreads(clip):
    return clip[:, 20:46, 24:40].std((1, 2, 3))


def test_twins_differ_in_order_or_in_sameness_only():
    still = np.repeat(film(1), 8, 0)
    made = {kind: spreads(at.plant_artefact(still, kind, 5)) for kind in ("flicker", "steady", "calm", "shuffled", "still")}
    np.testing.assert_allclose(np.sort(made["calm"]), np.sort(made["shuffled"]), atol=0.02)
    assert not np.allclose(made["calm"], made["shuffled"], atol=0.5)
    assert np.ptp(made["steady"]) == np.ptp(made["still"]) == 0 and np.ptp(made["flicker"]) > 1


def test_each_frame_alone_is_as_likely_in_both():
    "Amounts of flicker and steady, over many seeds, by Kolmogorov and Smirnov."
    from scipy.stats import ks_2samp

    still = np.repeat(film(1)[:, ::2, ::2], 4, 0)
    first = {kind: [at.plant_artefact(still, kind, seed)[0, 10:23, 12:20].std() for seed in range(400)]
             for kind in ("flicker", "steady")}  # fmt: skip
    assert ks_2samp(first["flicker"], first["steady"]).pvalue > 0.01


def test_planting_is_pure_and_refuses_what_is_no_clip():
    clip = film()
    before = clip.copy()
    assert np.array_equal(at.plant_artefact(clip, "flicker", 1), at.plant_artefact(clip, "flicker", 1))
    assert not np.array_equal(at.plant_artefact(clip, "flicker", 1), at.plant_artefact(clip, "flicker", 2))
    assert np.array_equal(clip, before)
    for bad, more in ((clip[:3], {}), (clip[0], {}), (clip.astype(float), {}), (clip, dict(sigma=0))):
        with pytest.raises(ValueError, match="4 frames or more"):
            at.plant_artefact(bad, "flicker", **more)
    with pytest.raises(ValueError, match="kind is flicker, steady"):
        at.plant_artefact(clip, "loud")


# Ablation


def test_ablation_holds_people_out_and_agrees_with_study():
    data, person = noise(18), np.repeat(np.arange(6), 3)
    s = FitSettings(2, 6, rate=2e-3, threads=1, channels_last=False, precision="64-true")
    runs, curves = at.ablate(data, person, {"x": dict(width=16, fuse="scores")}, seeds=(0, 1), settings=s)
    assert runs.groupby("seed").size().tolist() == [18, 18] and len(curves) == 2 * 3 * 2
    same = study(data, person, {"x": s}, seeds=(0, 1), make=lambda: at.ASRID(16, width=16, fuse="scores"))
    merged = runs.merge(same, on=["clip", "seed"])
    np.testing.assert_allclose(merged["score_x"], merged["score_y"], atol=1e-6)
    once, _ = at.ablate(data, person, {"x": dict(width=16)}, settings=s, once=True)
    assert len(once) == 18 and once.groupby("seed")["turn"].unique().str[0].tolist() == [0, 1, 2]


def test_pictures_are_sampled_one_by_one():
    data, settings, make = at._variant(noise(5, 4), SHORT, dict(pictures=True, head="fc"))
    assert data.x.shape == (20, 1, 9, 16) and settings.batch == 16 and len(set(data.clip)) == 20
    assert isinstance(make().static, nn.Linear)


def test_the_table_is_arithmetic():
    runs = pd.DataFrame({"variant": "v", "seed": [0, 0, 1, 1], "clip": ["a", "b"] * 2, "label": [0, 1] * 2,
                         "score": [0.2, 0.8, 0.4, 0.6], "loss": [0.1, 0.2, 0.3, 0.6]})  # fmt: skip
    curves = pd.DataFrame({"variant": "v", "epoch": [1, 2, 1, 2], "loss": [1.0, 0.5, 2.0, 0.5]})
    row = at.ablation_table(runs, curves, window=2).loc["v"]
    assert row["train"] == 0.5 and row["running"] == 1.0 and row["shakes by"] == 0.5 and row["AUC"] == 1
    assert np.isclose(row["held out"], 0.3) and np.isclose(row["seeds differ by"], 0.3)


# The audit


@pytest.mark.parametrize("fakes, reals", [(3179, 454), (443, 76), (5, 5)])
def test_constants_get_the_loss_that_they_answer_for(fakes, reals):
    y = np.repeat([1, 0], [fakes, reals])
    for p in at.constant_answers(fakes, reals, 0.75):
        assert np.isclose(log_loss(y, np.full(len(y), p)), 0.75)
    with pytest.raises(ValueError, match="has looked at the clips"):
        at.constant_answers(fakes, reals, 0.1)
    with pytest.raises(ValueError, match="both classes"):
        at.constant_answers(fakes, 0, 0.4)


def test_three_quarters_fit_table_4():
    for (fakes, reals), loss, right in (((3179, 454), 0.425, 0.875), ((889, 149), 0.446, 0.857), ((443, 76), 0.449, 0.854)):
        y = np.repeat([1, 0], [fakes, reals])
        assert abs(log_loss(y, np.full(len(y), 0.75)) - loss) < 1e-3
        assert abs(accuracy(y, np.full(len(y), 0.75), 0.5) - right) < 1e-3


# Maps and the viewer


def test_a_map_is_what_regions_listen_to(head, seen):
    maps = at.attention_maps(head.model_, seen.x[:2], 70)
    assert maps.shape == (2, 8, 70, 70)
    each = at.attention_maps(head.model_, seen.x[:2], 7, heads=True)
    assert each.shape == (2, 8, 4, 7, 7)
    np.testing.assert_allclose(each.mean((3, 4)), 1, atol=1e-4)  # shares, relative to chance
    with torch.no_grad():
        weights = head.model_.mixed(torch.tensor(seen.x[:2], dtype=torch.float))[1]
    received = weights.mean((1, 2)).view(2, 8, 7, 7).numpy() * 49
    np.testing.assert_allclose(each.mean(2), received, rtol=1e-4)
    for bad in (at.ASRID(32, "code"), at.ASRID(272, attend=False)):
        with pytest.raises(ValueError, match="looks at regions"):
            at.attention_maps(bad, seen.x[:1])


def test_the_viewer_moves_and_refuses(head, clips):
    masks = np.zeros(clips.x.shape[:4], np.float32)
    masks[4, :, 60:120, 60:150] = 1
    explorer = at.AttentionExplorer(head, clips, masks)
    pictures = {explorer.png}
    for name, value in (("clip", 4), ("frame", 3), ("head", 2)):
        explorer.controls[name].value = value
        pictures.add(explorer.png)
    assert len(pictures) == 4 and re.search(r"Clip 4, .*frame 3, head 2.*on the forged 11%", explorer.status)
    explorer.controls["clip"].value = 0
    assert "Nothing was forged" in explorer.status
    with pytest.raises(ValueError, match="masks are"):
        at.AttentionExplorer(head, clips, masks[:, :2])
    with pytest.raises(ValueError, match="clips are 0 to 7"):
        at.AttentionExplorer(head, clips, clip=8)
    with pytest.raises(ValueError, match="learned nothing yet"):
        at.AttentionExplorer(at.AsridDetector(), clips)


def test_equal_values_give_equal_pictures(clips):
    maps = np.random.default_rng(0).random((8, 8, 2, 224, 224), dtype=np.float32)
    figure = Figure(figsize=(6, 3), dpi=50)
    FigureCanvasAgg(figure)
    show = lambda **v: (at.draw_attention(figure, clips.x, maps, np.full(8, 0.5), clips.y, **v), figure_png(figure))
    first, other = show(clip=1, frame=2, head=1), show(clip=2, frame=0, head=0)
    assert show(clip=1, frame=2, head=1) == first != other
    for bad in (dict(clip=8), dict(frame=-1), dict(head=3)):
        with pytest.raises(ValueError, match="clips are 0 to 7, frames 0 to 7, heads 0 to 2"):
            show(**bad)


# What is committed, command line, bench


def test_the_committed_head_is_worth_what_its_card_says(head, seen):
    assert sample(WEIGHTS).stat().st_size < 2_000_000
    text = sample("weights/asrid.md").read_text(encoding="utf-8")
    assert head.told["people held out"] == ["10003", "10005"] and all(who in text for who in ("10003", "10005"))
    said = re.search(r"log_loss of clips, people held out \| ([\d.]+)", text)
    assert abs(log_loss(seen.y, head.score(seen.x)) - float(said[1])) < 5e-3


def test_the_command_trains_a_head(tmp_path):
    out = tmp_path / "a.safetensors"
    given = ["fit", "A", "--net", "asrid", "--side", "112", "--frames", "3", "--epochs", "1", "--batch", "6", "--folds", "3",
             "--folder", str(tmp_path / "runs"), "--out", str(out)]  # fmt: skip
    ran = CliRunner().invoke(app, given)
    assert ran.exit_code == 0, ran.output
    made = at.AsridDetector(k=3)
    told = made.load(out)
    assert made.size == 112 and len(told["people held out"]) == 2 and list((tmp_path / "runs").glob("*.npy"))
    wrong = CliRunner().invoke(app, ["fit", "A", "--net", "asrid", "--augment", "seed004"])
    assert wrong.exit_code == 1 and "takes no --loss" in wrong.output


def test_fit_still_makes_the_other_networks():
    made = _fit.detector("tiny", SHORT, 32, 2, "bce", "none", None, "cpu")
    assert type(made).__name__ == "NetDetector" and made.size == 32


def test_the_bench_has_the_rows_of_the_issue():
    rows = {row.name: row for row in _bench.rows_of("metric")}
    assert rows["asrid-step"].target >= 5 and rows["asrid-memory"].target >= 2
    assert (_bench_attention.CLIPS, _bench_attention.FRAMES, _bench_attention.SIDE) == (6, 30, 380)


def test_a_bench_row_may_compare_something_else_than_time():
    row = _bench.Bench("bytes", "x", 2.0, lambda: [0], lambda _: 30, lambda _: 10, lambda *a: (True, ""), cost=float)
    assert _bench.measure(row)["ratio"] == 3.0


@pytest.mark.skipif(sys.platform == "win32", reason="the peak of a process is read on Linux and macOS")
def test_peak_memory_is_that_of_a_process_with_a_real_step(tmp_path, monkeypatch):
    few = (1, 2, 64)  # clips, frames, side
    told = _bench_attention.measured(0, *few)
    assert told["peak"] >= told["before"] > 50_000_000
    _bench_attention.one_large_step(tmp_path / "here.npz", 1, *few)
    with np.load(tmp_path / "here.npz") as here:
        slope = here["gradients"]
    assert len(slope) > 1_000_000
    np.testing.assert_allclose(told["gradients"], slope, atol=1e-3 * np.abs(slope).max())
    monkeypatch.setattr(_bench_attention.sys, "executable", shutil.which("false"))
    with pytest.raises(ValueError, match="ended with 1: killed, most likely for want of memory"):
        _bench_attention.measured(0, *few)
    monkeypatch.setattr(_bench_attention.sys, "platform", "win32")
    with pytest.raises(ValueError, match="not from Windows"):
        _bench_attention.peak_bytes()


def test_every_headline_names_its_files():
    found = {name: f for (module, name), f in HEADLINES.items() if module == "attention"}
    assert len(found) >= 20
    for name, function in found.items():
        assert function.data and all(sample(path).is_file() for path in (*function.data, *function.weights)), name
        assert name == "_mobile" or "weights/coursenet.safetensors" in function.weights


def test_regions_of_pictures_do_not_depend_on_their_neighbours(clips, head):
    x = to_batch(clips.x[0, :3])
    torch.testing.assert_close(head.backbone(x)[1:2], head.backbone(x[1:2]), atol=1e-4, rtol=1e-4)
