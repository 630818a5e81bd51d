"""Lesson 31: batches of repairs held to a plain loop, the search to libraries, controls, attackers, bad input, bench."""
import json
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from torch import nn
from typer.testing import CliRunner

from deepfake_course import _bench, _bench_adversaries
from deepfake_course import post_training as pt
from deepfake_course._attack import load_detector
from deepfake_course._cli import app
from deepfake_course.attacks import Robustness, deepfool, fgsm, log_odds, pgd
from deepfake_course.core import HEADLINES, to_batch
from deepfake_course.intra_database import find_faces
from deepfake_course.mesonet import LargeNet, Meso4, MesoInception4
from deepfake_course.post_training import (
    CONTROLS, BoundaryExplorer, PlaneNet, PostSettings, PostTrained, SplitNet, Support, XceptionNet, _base, _fold,
    boundary_story, cosine, draw_boundary, draw_pipeline, draw_support, nearest, neighbourhood, post_train,
    post_train_one, remember, self_attack, unknown_pictures, verdict,
)  # fmt: skip
from deepfake_course.samples import load_samples
from deepfake_course.training import Examples, TinyNet, face_examples, predict

torch.set_num_threads(1)
SIDE, FAST = 32, 0.02  # a rate at which something happens


class TwoLogits(nn.Module):
    "A detector with two outputs, its embedding behind a ReLU."

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 5, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(6 * 49, 2)

    def forward(self, x):
        return self.head(self.body(x))


def pictures(n, seed=0, dtype=torch.float64):
    "Noise of many colours, in double precision, where equal is equal."
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, 3, SIDE, SIDE, generator=rng, dtype=torch.float64)
    return (noise * torch.rand(n, 3, 1, 1, generator=rng, dtype=torch.float64)).to(dtype)


def detector(make):
    "Random weights, norms that have seen something, answers of both kinds."
    torch.manual_seed(0)
    net = make()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    net = SplitNet(net.double())
    with torch.no_grad():
        net.net.head.weight *= 20  # so that it is sure of itself
        net.net.head.bias[-1] -= log_odds(net, pictures(6, 1)).median()
    support = remember(net, pictures(24), torch.arange(24) % 2)
    return net, support


@pytest.fixture(scope="module")
def tiny():
    return detector(partial(TinyNet, 4))


@pytest.fixture(scope="module")
def two():
    return detector(TwoLogits)


SETTINGS = [
    PostSettings(tau=0.5, rate=FAST), PostSettings(1, tau=0.5, rate=FAST), PostSettings(1, rule="both", tau=None, nesterov=True, rate=FAST),
    PostSettings(support="fresh", tau=None, rate=FAST), PostSettings(support="first", balanced=True, tau=0.5, rate=FAST),
    PostSettings(support="all", tau=0.5, rate=FAST), PostSettings(1, support="all", tau=None, momentum=0.0, rate=FAST),
    PostSettings(tau=None, norms="moving", rate=FAST),
]  # fmt: skip


# the batch against the loop


@pytest.mark.parametrize("freeze, part", [(True, None), (False, None), (False, 3)])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.algorithm}-{s.support}-{s.rule}-{s.norms}")
@pytest.mark.parametrize("which", ["tiny", "two"])
def test_side_by_side_is_one_by_one(which, settings, freeze, part, request):
    net, support = request.getfixturevalue(which)
    x, settings = pictures(4, 1), replace(settings, freeze=freeze, steps=6)
    made = post_train(net, support, x, settings, part=part)
    assert made.trained.any() and made.moved[made.trained].min() > 0
    for k in range(len(x)):
        copy, steps = post_train_one(net, support, x[k : k + 1], settings, k)
        assert (steps > 0) == bool(made.trained[k])
        state = copy.state_dict()
        for name, value in made.state.items():
            torch.testing.assert_close(value[k], state[name], atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(made.after[k], log_odds(copy, x[k : k + 1])[0], atol=1e-4, rtol=1e-4)


def test_how_many_at_once_does_not_matter(tiny):
    net, support = tiny
    settings, x = PostSettings(freeze=False, rate=FAST, steps=3), pictures(5, 1)
    ways = [post_train(net, support, x, settings, part=part).after for part in (None, 1, 4)]
    for other in ways[1:]:
        torch.testing.assert_close(ways[0], other, atol=1e-5, rtol=1e-4)


def test_a_copy_a_processor_leaves_threads_as_they_were(tiny):
    import threading

    net, support = tiny
    settings, seen, was = PostSettings(freeze=False, tau=None, rate=FAST, steps=2), [], torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = post_train(net, support, pictures(5, 1), settings)
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [2] and torch.get_num_threads() == 2
        torch.set_num_threads(1)
        one = post_train(net, support, pictures(5, 1), settings)
    finally:
        torch.set_num_threads(was)
    assert two.trained.all() and torch.equal(one.after, two.after)


def test_a_failing_copy_fails_the_repair(tiny, monkeypatch):
    net, support = tiny
    was = torch.get_num_threads()
    monkeypatch.setattr(pt, "_losses", lambda out, y: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        post_train(net, support, pictures(2, 1), PostSettings(freeze=False, tau=None, steps=2))
    assert torch.get_num_threads() == was


def test_settings_that_contradict_each_other_are_refused():
    for wrong, text in ((dict(support="all", rule="both"), "no batch"), (dict(support="all", balanced=True), "no batch"),
                        (dict(tau=None, batch=4, top=8), "8 nearest of a batch of 4")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            PostSettings(**wrong)
    with pytest.raises(ValueError, match="has a bias"):
        net = TinyNet(4)
        net.head = nn.Linear(net.head.in_features, 1, bias=False)
        SplitNet(net)


def test_the_nearest_of_all_are_as_many_as_asked_for(tiny):
    net, support = tiny
    with torch.no_grad():
        here = net.embed(pictures(3, 1))
    for top in (2, 6):
        rows, counts = neighbourhood(support, [here], PostSettings(support="all", tau=None, top=top))
        assert rows.shape == (3, 1, top) and (counts == 1).all()


@pytest.mark.parametrize("freeze", [True, False])
def test_a_detector_that_repairs_itself_is_asked_like_any_other(tiny, freeze):
    net, support = deepcopy(tiny[0]).float(), Support(*(v.float() for v in tiny[1]))
    asked = PostTrained(net, support, PostSettings(tau=None, rate=FAST, steps=2, freeze=freeze))
    imgs = (pictures(3, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        said = asked(to_batch(imgs)).sigmoid().numpy()
    np.testing.assert_allclose(predict(asked, imgs), said, atol=1e-5)
    assert not any(part.training for part in asked.modules())
    with pytest.raises(ValueError, match="in training mode"):
        post_train(deepcopy(net).train(), support, pictures(1, 1))


@pytest.mark.parametrize("make, side", [(partial(Meso4, 64), 64), (partial(MesoInception4, 64), 64), (partial(LargeNet, "none"), 64)])
def test_detectors_of_the_course_can_be_cut(make, side):
    net = SplitNet(make())
    x = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(log_odds(net, x), log_odds(net.net, x))
        assert net.embed(x).shape == (2, net.net.head.in_features)
    support = remember(net, torch.rand(8, 3, side, side), torch.arange(8) % 2)
    s = PostSettings(support="all", tau=None, batch=4, steps=2, rate=FAST, freeze=False)
    rows, counts = torch.tensor([[[0, 1]], [[2, 3]]]), torch.ones(2, 1, 2)
    from deepfake_course.post_training import _answer, _train

    *_, state = _train(net, support, x, rows, counts, s, 2)
    with torch.no_grad():
        assert (_answer(net, state, x) - log_odds(net, x)).abs().max() > 0


def test_xception_is_repaired_too():
    "Untrained: ImageNet's weights are not here. 2048 numbers, 20.8 million weights, two logits."
    torch.manual_seed(0)
    net = SplitNet(XceptionNet("none"))
    assert sum(w.numel() for w in net.parameters()) == 20_806_952 + 2 * 2048 + 2
    x = torch.rand(3, 3, 96, 96)
    support = remember(net, x, torch.tensor([0, 1, 1]))
    assert support.emb.shape == (3, 2048)
    with torch.no_grad():
        assert log_odds(net, x[:1]).shape == (1,)


# the search


def test_cosines_and_neighbours_are_scikit_learns():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 7, generator=rng), torch.randn(200, 7, generator=rng)
    assert np.allclose(cosine(a, b), cosine_similarity(a, b), atol=1e-6)
    apart, places = NearestNeighbors(n_neighbors=9, metric="cosine").fit(b).kneighbors(a)
    for block in (1, 7, 64, 1000):
        rows, like = nearest(a, b, 9, block)
        assert (rows.numpy() == places).all() and np.allclose(1 - like, apart, atol=1e-6)
    assert nearest(a, b, 500)[0].shape == (5, 200)  # all there are


def test_a_million_rows_are_searched_in_pieces():
    rng = torch.Generator().manual_seed(0)
    emb = torch.randn(1_000_000, 4, generator=rng)
    rows, like = nearest(emb[[3, 999_999]], emb, 1)
    assert rows.flatten().tolist() == [3, 999_999] and torch.allclose(like, torch.ones(2, 1))


def test_who_is_near_by_hand():
    emb = torch.tensor([[1.0, 0], [0.95, 0.31], [0, 1.0], [-1.0, 0]])
    support = Support(torch.zeros(4, 3, 2, 2), torch.tensor([0.0, 1, 0, 1]), emb)
    right, up = torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]])
    s = PostSettings(1, support="first", batch=4)
    counts = lambda anchors, **more: neighbourhood(support, anchors, replace(s, **more))[1].flatten().tolist()  # noqa: E731
    assert counts([right, up]) == [1, 1, 1, 0]
    assert counts([right, -up]) == [1, 1, 0, 0]
    assert counts([right, -up], rule="both") == [0, 0, 0, 0]  # nobody is near the second
    assert counts([right, right], rule="both") == [2, 2, 0, 0]  # near both counts twice
    assert counts([right], tau=0.99) == [1, 0, 0, 0]
    assert counts([right, up], tau=None, top=2) == [1, 0, 1, 0]
    assert counts([right], tau=None, top=2) == [1, 1, 0, 0]


def test_random_batches_are_random_balanced_and_repeatable():
    y = torch.tensor([0.0] * 30 + [1.0] * 10)
    s = PostSettings(balanced=True, support="fresh", batch=8, steps=5)
    drawn = draw_support(y, s, 3)
    assert drawn.shape == (5, 8) and (y[drawn].sum(1) == 4).all() and len(set(map(tuple, drawn.tolist()))) == 5
    assert torch.equal(drawn, draw_support(y, s, 3)) and not torch.equal(drawn, draw_support(y, s, 4))
    assert all(len(set(row)) == 8 for row in drawn.tolist())
    first = replace(s, support="first", seed=9)
    assert torch.equal(draw_support(y, first, 0), draw_support(y, replace(first, seed=1), 5))


def test_the_self_attack_is_that_of_lesson_30(tiny):
    net, x = tiny[0], pictures(3, 1)
    twin, turned = self_attack(net, x, PostSettings(2))
    assert torch.equal(twin, deepfool(net, x)) and turned.all()
    twin, turned = self_attack(net, x, PostSettings(1))
    with torch.no_grad():
        told = log_odds(net, x), log_odds(net, twin)
    assert (twin - x).abs().max() <= 8 / 255 + 1e-6 and torch.equal(turned, (told[0] > 0) != (told[1] > 0))
    alone = torch.cat([self_attack(net, x[k : k + 1], PostSettings(1), k)[0] for k in range(3)])
    torch.testing.assert_close(alone, twin)


# gate, tau, controls


def test_the_gate_lets_only_the_unsure_in(tiny):
    net, support = tiny
    x = pictures(8, 2)
    with torch.no_grad():
        sure = torch.tanh(log_odds(net, x) / 2).abs()
    gate = float(sure.median())
    made = post_train(net, support, x, PostSettings(support="all", tau=None, gate=gate, rate=FAST))
    assert torch.equal(made.trained, (sure <= gate) & made.turned) and 0 < made.trained.sum() < 8
    assert torch.equal(made.after[~made.trained], made.before[~made.trained]) and (made.moved[~made.trained] == 0).all()


def test_nobody_near_is_told_and_changes_nothing(tiny):
    net, support = tiny
    for freeze, norms in ((True, "frozen"), (False, "frozen"), (True, "moving")):
        s = PostSettings(tau=0.9999999, freeze=freeze, norms=norms, rate=FAST)
        made = post_train(net, support, pictures(2, 1), s)
        assert not made.trained.any() and torch.equal(made.after, made.before)
    with pytest.raises(ValueError, match="nobody is near"):
        boundary_story(net, support, pictures(1, 1), s)


@pytest.mark.parametrize("freeze", [True, False])
def test_controls_do_what_they_say(tiny, freeze):
    net, support = tiny
    s, x = PostSettings(tau=None, freeze=freeze, rate=FAST, steps=3), pictures(3, 1)
    made = {name: post_train(net, support, x, s, name) for name in (None, *CONTROLS)}
    torch.testing.assert_close(made["noise"].moved, made[None].moved)
    was = dict(net.named_parameters())
    size = sum((v - was[name]).flatten(1).square().sum(1) for name, v in made["noise"].state.items()).sqrt()
    torch.testing.assert_close(size, made[None].moved, rtol=1e-3, atol=1e-6)
    assert not torch.equal(made["noise"].after, made[None].after)
    flipped = post_train(net, support._replace(y=1 - support.y), x, s)
    torch.testing.assert_close(made["flipped"].after, flipped.after)
    assert not torch.equal(made["random"].rows, made[None].rows) and made["random"].rows.max() < len(support.y)


def test_only_norms_changes_no_weight(tiny):
    net, support = tiny
    made = post_train(net, support, pictures(2, 1), PostSettings(tau=None, rate=0.0, norms="moving"))
    assert (made.moved == 0).all() and (made.after != made.before).all()
    frozen = post_train(net, support, pictures(2, 1), PostSettings(tau=None, rate=0.0))
    torch.testing.assert_close(frozen.after, frozen.before)


def test_the_detector_stays_as_it_is(tiny):
    net, support = tiny
    before = deepcopy(net.state_dict())
    for s in SETTINGS:
        for freeze in (True, False):
            post_train(net, support, pictures(2, 1), replace(s, freeze=freeze, steps=2))
    assert all(torch.equal(v, before[name]) for name, v in net.state_dict().items())
    assert not any(part.training for part in net.modules())


def test_no_extra_data_is_noticed():
    x = pictures(5)
    assert unknown_pictures(x[1:3], x) == 0 and unknown_pictures(torch.cat([x, pictures(2, 9)]), x) == 2


# attackers


@pytest.mark.parametrize("freeze", [True, False])
def test_the_slope_through_a_repair_is_the_slope_of_the_whole(tiny, freeze):
    "Two questions a little apart, neighbours the same: what the answer does is what the slope says."
    net, support = tiny
    asked = PostTrained(net, support, PostSettings(support="all", tau=None, rate=FAST, freeze=freeze))
    x = (0.98 * pictures(2, 1) + 0.01).requires_grad_()
    slope = torch.autograd.grad(asked(x).sum(), x)[0]
    way = slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        rise = (asked(x + 1e-3 * way) - asked(x - 1e-3 * way)) / 2e-3
    torch.testing.assert_close(rise, slope.flatten(1).norm(dim=1), rtol=0.03, atol=1e-3)


def test_an_attacker_who_knows_gets_at_least_as_far(tiny):
    net, support = tiny
    x = pictures(6, 1)
    asked = PostTrained(net, support, PostSettings(tau=None, rate=FAST))
    with torch.no_grad():
        y = (asked(x) > 0).long()
        said = lambda v: asked(v) * (2 * y - 1)  # noqa: E731
        start = said(x)
        through = said(pgd(asked, x, y, 4 / 255, steps=5, start=None, best=True))
    assert (through <= start + 1e-5).all() and through.mean() < start.mean()
    assert PostTrained(net, support, PostSettings(tau=None), draws=3)(x).shape == (6,)


def test_a_repaired_detector_enters_the_protocol(tiny):
    net = SplitNet(deepcopy(tiny[0].net).float())
    support = remember(net, pictures(24, dtype=torch.float32), torch.arange(24) % 2)
    data = Examples((255 * pictures(4, 1)).byte().permute(0, 2, 3, 1).numpy(), np.arange(4) % 2, list("abcd"))
    table = Robustness(data, (0, 4 / 255), {"fgsm": fgsm}).run(PostTrained(net, support, PostSettings(tau=None)))
    assert table["seen"].all() and (table["clips"] == 4).all()
    assert table["accuracy"].iloc[1] <= table["accuracy"].iloc[0]


def test_the_command_loads_a_repaired_detector(tmp_path):
    "`deepfake-course attack --detector own.py:repaired` asks it; what follows is lesson 30's."
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\n"
        "from deepfake_course.post_training import PostSettings, PostTrained, SplitNet, remember\n"
        "from deepfake_course.training import TinyNet\n"
        "net = SplitNet(TinyNet(4))\n"
        "repaired = PostTrained(net, remember(net, torch.rand(20, 3, 32, 32), torch.arange(20) % 2), PostSettings(tau=None))\n",
        encoding="utf-8",
    )
    repaired, side = load_detector(f"{own}:repaired")
    assert side is None and repaired(torch.rand(2, 3, 32, 32)).shape == (2,)


# bad input


def test_mistakes_are_explained(tiny):
    net, support = tiny
    x = pictures(2, 1)
    for call, words in [
        (lambda: SplitNet(nn.Linear(3, 1)), "called head"), (lambda: remember(net, x, torch.zeros(2)), "real and fake"),
        (lambda: remember(net, x, torch.tensor([0, 1, 1])), "real and fake"),
        (lambda: remember(net, x * 2, torch.tensor([0, 1])), "from 0 to 1"),
        (lambda: remember(net, x * float("nan"), torch.tensor([0, 1])), "from 0 to 1"),
        (lambda: XceptionNet("vgg"), "weights is"), (lambda: cosine(x, x), "embeddings are"),
        (lambda: cosine(torch.ones(2, 3), torch.ones(2, 4)), "embeddings are"),
        (lambda: nearest(torch.ones(1, 2), torch.ones(0, 2)), "one row or more"),
        (lambda: PostSettings(3), "algorithm is 1 or 2"), (lambda: PostSettings(rule="xor"), "rule is or or both"),
        (lambda: PostSettings(norms="off"), "norms is"), (lambda: PostSettings(steps=0), "1 or more"),
        (lambda: PostSettings(rate=float("nan")), "rate 0"), (lambda: PostSettings(tau=1.2), "cosine below 1"),
        (lambda: draw_support(torch.tensor([0.0, 1]), PostSettings()), "needs 16"),
        (lambda: post_train(net, support, x, control="none"), "control is"),
        (lambda: post_train(net, support, x[:0]), "one picture or more"),
        (lambda: post_train(net, support, x * 255), "one picture or more"),
        (lambda: post_train(net, support, x.byte()), "one picture or more"),
        (lambda: verdict({"a": np.ones(3)}, np.arange(3), "b"), "against is a"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()


def test_verdict_pairs_the_clips():
    one, other = np.array([1, 1, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    table = verdict({"one": one, "other": other}, np.repeat(list("abcd"), 2), "other")
    assert table.loc["one", "accuracy"] == 0.75 and table.loc["one", "gain"] == 0.25
    assert table.loc["other", ["gain low", "gain high"]].tolist() == [0, 0]
    assert 0 <= table.loc["one", "gain low"] <= 0.25 < table.loc["one", "gain high"]


# pictures, widget, bench, records


@pytest.fixture(scope="module")
def stories(tiny):
    net, support = tiny
    torch.manual_seed(0)
    plane = SplitNet(PlaneNet(4))
    x = torch.rand(20, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plane.net.head.bias -= log_odds(plane, x).median()  # so that the boundary passes among them
    people = remember(plane, x, torch.arange(20) % 2)
    s = PostSettings(tau=None, rate=0.1, steps=5, freeze=False)
    axes = (torch.zeros(2, 1, 1), *torch.eye(2).view(2, 2, 1, 1))
    return {"plane": boundary_story(plane, people, x[:1], s, axes, 9),
            "faces": boundary_story(net, support, pictures(1, 1), s, None, 5)}  # fmt: skip


def test_a_story_tells_what_the_repair_does(tiny, stories):
    net, support = tiny
    story = stories["faces"]
    made = post_train(net, support, pictures(1, 1), PostSettings(tau=None, rate=0.1, steps=5, freeze=False))
    assert np.isclose(story.said[-1], made.after[0], atol=1e-4) and np.isclose(story.said[0], made.before[0], atol=1e-4)
    assert story.heights.shape == (6, 5, 5) and np.allclose(story.places[0], 0, atol=1e-5)
    assert np.isclose(story.places[1][1], 0, atol=1e-4)  # the twin lies on the first direction
    assert stories["plane"].heights.shape == (6, 9, 9)


def test_the_explorer_steps_through(stories):
    explorer = BoundaryExplorer(stories)
    assert "step 0 of 5" in explorer.status and "0.0% of the plane" in explorer.status
    first = explorer.png
    explorer.controls["step"].value = 5
    assert "step 5 of 5" in explorer.status and explorer.png != first
    figure = Figure()
    FigureCanvasAgg(figure)
    for name, step in (("space", 0), ("plane", 6), ("plane", -1)):
        with pytest.raises(ValueError, match="story is plane, faces"):
            draw_boundary(figure, stories, name, step)


def test_the_pipeline_names_this_detectors_numbers(tiny):
    net, support = tiny
    s = PostSettings(tau=None)
    figure = draw_pipeline(Figure(), net, support, post_train(net, support, pictures(1, 1), s), s)
    told = " ".join(" ".join(text.get_text().split()) for text in figure.axes[0].texts)
    assert "16 numbers" in told and "17 weights" in told and "8 of 16" in told


def test_the_bench_rows_compare_equals(tiny, monkeypatch):
    rows = {row.name: row for row in _bench.rows_of("adversaries")}
    assert {"post-training-freeze", "post-training-full", "neighbour-search"} <= set(rows)
    net, support = tiny
    s = PostSettings(tau=None, rate=FAST)
    monkeypatch.setattr(_bench_adversaries, "PICTURES", 8)
    monkeypatch.setattr(_bench_adversaries, "repairable", lambda: (net, support, pictures(8, 1), s, replace(s, freeze=False)))
    for name in ("post-training-freeze", "post-training-full"):
        row = rows[name]
        (given,) = row.setup()
        one, two = row.obvious(given), row.ours(given)
        same, note = row.agree(given, one, two)
        assert same and "copies" in note
        assert not row.agree(given, one, {name: v + 1e-3 for name, v in two.items()})[0]
    row, rng = rows["neighbour-search"], torch.Generator().manual_seed(0)
    given = torch.randn(2, 5, generator=rng), torch.randn(60, 5, generator=rng)
    one, two = row.obvious(given), row.ours(given)
    assert row.agree(given, one, two)[0] and not row.agree(given, one, (two[0], two[1].roll(1, 1)))[0]


def test_the_folds_hold_people_out():
    "Slow parts are recorded; here only that nobody is asked about whom the detector has seen."
    assert _base and _fold  # the recorded rows rest on them
    names = {name for module, name in HEADLINES if module == "post_training"}
    assert {"_normal", "_robust", "_normal_1_freeze", "_robust_2_all", "_pgd_through", "_wrong_labels"} <= names


# the command

OWN = """
import numpy as np
import torch

from deepfake_course.core import to_batch
from deepfake_course.intra_database import find_faces
from deepfake_course.post_training import PostSettings, PostTrained, SplitNet, remember
from deepfake_course.samples import load_samples
from deepfake_course.training import TinyNet, face_examples

torch.manual_seed(0)
rows = find_faces(load_samples("C"), k=1)
known = face_examples(rows[rows["face"]], 32)
net = SplitNet(TinyNet().eval())
support = remember(net, to_batch(known.x), torch.tensor(known.y))
settings = PostSettings(1, tau=None, top=16, support="first", rate=.5, steps=2)  # all are near: no ties
repaired = PostTrained(net, support, settings)
"""


def test_the_command_attacks_a_detector_that_repairs_itself(tmp_path):
    "Exercise 5 of the lesson; without an attack it says what the detector itself says."
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    args = ["attack", "--detector", f"{path}:repaired", "--data", "A", "--side", "32", "--epsilons", "0,4", "--json"]
    found = CliRunner().invoke(app, args)
    assert found.exit_code == 0, found.output
    rows = {(row["attack"], row["epsilon_255"]): row for row in json.loads(found.stdout)}
    names = {}
    exec(OWN, names)
    faces = find_faces(load_samples("A"), k=1)
    asked = face_examples(faces[faces["face"]], 32)
    with torch.no_grad():
        said = names["repaired"](to_batch(asked.x)), log_odds(names["net"], to_batch(asked.x))
    right = [((one > 0).numpy() == (asked.y == 1)).mean() for one in said]
    assert not torch.allclose(*said), "nothing was repaired"
    assert rows["fgsm", 0]["accuracy"] == rows["pgd", 0]["accuracy"] == round(right[0], 4)
    assert rows["pgd", 4]["accuracy"] <= rows["fgsm", 4]["accuracy"] <= rows["fgsm", 0]["accuracy"]


@pytest.mark.parametrize("control", [None, "noise"])
def test_slopes_through_a_repair_are_those_of_a_loop_however_weights_lie_in_memory(control):
    "PyTorch's vmap has a wrong slope for batch norms behind weights in channels_last, which `fit` makes."
    net, _ = detector(lambda: Meso4(SIDE, 0.1))
    net.to(memory_format=torch.channels_last)
    support = remember(net, pictures(24), torch.arange(24) % 2)
    settings = PostSettings(tau=None, rate=FAST, steps=2, freeze=False, norms="frozen")
    x = pictures(3, 5).requires_grad_(True)
    (ours,) = torch.autograd.grad(PostTrained(net, support, settings, control=control)(x).sum(), x)
    made = post_train(net, support, x.detach(), settings, control)
    for k in range(len(x)):
        own = deepcopy(net)
        own.load_state_dict({name: value[k] for name, value in made.state.items()}, strict=False)
        one = x.detach()[k : k + 1].requires_grad_(True)
        (theirs,) = torch.autograd.grad(log_odds(own, one).sum(), one)
        torch.testing.assert_close(ours[k], theirs[0], rtol=1e-6, atol=1e-9)
