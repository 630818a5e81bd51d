"""Lesson 30: attacks held to two independent libraries, bad input, the protocol and the command."""
import json
from copy import deepcopy
from functools import partial

import foolbox
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn
from typer.testing import CliRunner

from deepfake_course import _bench, _bench_adversaries, attacks
from deepfake_course._bench_adversaries import TwoLogits
from deepfake_course._cli import app
from deepfake_course.attacks import (
    AttackExplorer, Robustness, attack_curve, deepfool, draw_attack, fgsm, log_odds, madry_loss, masking_checks, pgd,
    save_as, transfer_matrix,
)  # fmt: skip
from deepfake_course.core import HEADLINES
from deepfake_course.mesonet import Meso4
from deepfake_course.training import Examples, FitSettings, NetDetector, TinyNet, fit

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def net():
    "A MesoNet of 64 px in double precision, where equal is equal, with norms that have seen something."
    torch.manual_seed(0)
    net = Meso4(64).double().eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
    with torch.no_grad():
        net.head.bias -= net(pictures()).quantile(0.5)  # so that it says both
    return net


def pictures(n=6, side=64, seed=1):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def case(net):
    "Pictures and the labels that the network is right about."
    x = pictures()
    with torch.no_grad():
        return x, (net(x) > 0).long()


def torchattacks():
    return pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks==3.5.1")


# independent libraries


def test_fgsm_is_that_of_foolbox(net, case):
    x, y = case
    model = foolbox.PyTorchModel(TwoLogits(net), bounds=(0, 1))
    theirs = foolbox.attacks.LinfFastGradientAttack(random_start=False)(model, x, y, epsilons=2 / 255)[1]
    assert (fgsm(net, x, y, 2 / 255) - theirs).abs().max() <= 1e-6


def test_fgsm_is_that_of_torchattacks(net, case):
    x, y = case
    theirs = torchattacks().FGSM(TwoLogits(net), eps=2 / 255)(x, y)
    assert (fgsm(net, x, y, 2 / 255) - theirs).abs().max() <= 1e-6


def test_pgd_is_that_of_torchattacks_from_the_same_start(net, case):
    (x, y), two, ta = case, TwoLogits(net), torchattacks()
    theirs = ta.PGD(two, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)(x, y)
    assert (pgd(net, x, y, start=None) - theirs).abs().max() <= 1e-6
    theirs = ta.PGDL2(two, eps=1.0, alpha=0.25, steps=10, random_start=False)(x, y)
    assert (pgd(net, x, y, 1.0, norm="2", start=None) - theirs).abs().max() <= 1e-6


def test_pgd_is_that_of_foolbox_from_the_same_start(net, case):
    x, y = case
    model = foolbox.PyTorchModel(TwoLogits(net), bounds=(0, 1))
    for norm, eps, kind in (("inf", 4 / 255, foolbox.attacks.LinfPGD), ("2", 1.0, foolbox.attacks.L2PGD)):
        theirs = kind(abs_stepsize=eps / 4, steps=8, random_start=False)(model, x, y, epsilons=eps)[1]
        assert (pgd(net, x, y, eps, eps / 4, 8, norm, None) - theirs).abs().max() <= 1e-6


def by_foolbox(two, x, y):
    attack = foolbox.attacks.L2DeepFoolAttack(steps=50, overshoot=0.02, loss="logits")
    return attack(foolbox.PyTorchModel(two, bounds=(0, 1)), x, y, epsilons=None)[1]


def by_torchattacks(two, x, y):
    return torchattacks().DeepFool(two)(x, y)


@pytest.mark.parametrize("library, own", [(by_torchattacks, 0), (by_foolbox, 3e-4)])  # foolbox adds 1e-4 to each step
def test_deepfool_flips_the_same_with_the_same_lengths(net, case, library, own):
    (x, y), two = case, TwoLogits(net)
    y = y.clone()
    y[3] = 1 - y[3]  # one that is wrong already stays as it is
    ours, theirs = deepfool(net, x, y), library(two, x, y)
    assert torch.equal(ours[3], x[3])
    length, other = ((made - x).flatten(1).norm(dim=1) for made in (ours, theirs))
    moved = length > 0
    with torch.no_grad():
        assert torch.equal(net(ours) > 0, net(theirs) > 0)
    assert ((other - length).abs() <= 0.01 * length + own)[moved].all() and (other[~moved] == 0).all()


# properties


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_the_ball_and_the_box_hold(net, case, norm):
    x, y = case
    x, eps = x.clone(), torch.linspace(0, 0.3, len(x), dtype=x.dtype)
    x[0], x[1] = 0, 1
    made = pgd(net, x, y, eps, norm=norm, steps=4, restarts=2, best=True)
    apart = (made - x).flatten(1)
    size = apart.abs().amax(1) if norm == "inf" else apart.norm(dim=1)
    assert (size <= eps + 1e-9).all() and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made[0], x[0])  # its epsilon is 0


def test_nothing_allowed_is_nothing_done(net, case):
    x, y = case
    for made in (fgsm(net, x, y, 0), pgd(net, x, y, 0.0), pgd(net, x, y, 0, norm="2", restarts=2)):
        assert torch.equal(made, x) and made is not x
    assert torch.equal(deepfool(net, x, 1 - y), x) and not len(deepfool(net, x[:0]))


def test_more_is_never_weaker_where_the_best_is_kept(net, case):
    x, y = case
    height = lambda **more: ((1 - 2 * y) * log_odds(net, pgd(net, x, y, 4 / 255, 1 / 255, best=True, **more))).detach()  # noqa: E731
    few, many, again = height(steps=2), height(steps=8), height(steps=2, restarts=3)
    assert (many >= few - 1e-12).all() and (again >= few - 1e-12).all()


def test_targeted_to_the_other_class_is_untargeted(net, case):
    x, y = case
    for attack in (fgsm, pgd, deepfool):
        assert torch.equal(attack(net, x, y), attack(net, x, 1 - y, targeted=True))


def test_same_seed_same_start(net, case):
    x, y = case
    one, two, other = (pgd(net, x, y, seed=seed, steps=1, step=0.0) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("part", [1, 3, 100])
def test_deepfool_does_not_mind_how_many_are_asked_at_once(net, case, part):
    x, _ = case
    torch.testing.assert_close(deepfool(net, x, part=part), deepfool(net, x))


def test_the_network_stays_as_it_was(net, case):
    (x, y), net = case, deepcopy(net)
    net.zero_grad(set_to_none=True)  # torchattacks leaves some
    net.train()
    net.drop.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.no_grad():  # somebody who only wanted to ask
        made = [fgsm(net, x, y), pgd(net, x, y, steps=2), deepfool(net, x)]
    assert net.training and not net.drop.training and all(w.grad is None for w in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    net.eval()
    assert torch.equal(made[0], fgsm(net, x, y)) and not any(v.requires_grad for v in made)


def test_a_saturated_answer_is_attacked_all_the_same(net, case):
    "The slope of a loss underflows at log-odds of 1000; that of the log-odds does not."
    x, y = case
    x, times = x.float(), 1000 / float(net(x).detach().abs().min())
    hard = lambda v: (times * net(v.double())).float()  # noqa: E731
    v = x.clone().requires_grad_(True)
    nn.functional.binary_cross_entropy_with_logits(hard(v), y.float()).backward()
    assert (v.grad == 0).all()
    assert torch.equal(fgsm(hard, x, y), fgsm(lambda v: net(v.double()).float(), x, y))


# bad input


@pytest.mark.parametrize("attack", [fgsm, pgd, deepfool])
@pytest.mark.parametrize("bad", [2.0, -0.1, float("nan"), "int", "flat"])
def test_pixels_are_from_0_to_1(net, case, attack, bad):
    x, y = case[0].clone(), case[1]
    if isinstance(bad, float):
        x[0, 0, 0, 0] = bad
    x = (255 * x).byte() if bad == "int" else x.flatten(1) if bad == "flat" else x
    with pytest.raises(ValueError, match="0 to 1 is meant|float in"):
        attack(net, x, y)


@pytest.mark.parametrize("wrap", [
    lambda m: m.sigmoid(), lambda m: m.sigmoid()[:, None], lambda m: 1 - m.sigmoid(),
    lambda m: torch.stack([1 - m.sigmoid(), m.sigmoid()], 1), lambda m: torch.stack([-m, m], 1).softmax(1),
    lambda m: torch.stack([-m, m], 1).softmax(1).detach(),
])  # fmt: skip
@pytest.mark.parametrize("attack", [fgsm, pgd, deepfool])
def test_probabilities_are_refused(net, case, attack, wrap):
    with pytest.raises(ValueError, match="leave its last sigmoid or softmax out"):
        attack(lambda x: wrap(net(x)), *case)


def test_logarithms_of_probabilities_are_logits(net, case):
    x, _ = case
    two = lambda x: torch.stack([-net(x) / 2, net(x) / 2], 1).log_softmax(1)  # noqa: E731
    torch.testing.assert_close(log_odds(two, x), net(x))
    small = lambda x: 0.5 + 0 * net(x)  # one logit between 0 and 1 is no probability  # noqa: E731
    assert (log_odds(small, x) == 0.5).all()


@pytest.mark.parametrize("blind", [
    lambda net, x: net(x).detach(), lambda net, x: net((255 * x).round() / 255), lambda net, x: net(x.detach()),
    lambda net, x: torch.from_numpy(net(x).detach().numpy()),
])  # fmt: skip
@pytest.mark.parametrize("attack", [fgsm, pgd, deepfool])
def test_a_detector_without_slopes_says_so(net, case, attack, blind):
    with pytest.raises(ValueError, match="no slope leads"):
        attack(partial(blind, net), *case)


def test_other_mistakes_are_explained(net, case):
    x, y = case
    for call, words in [
        (lambda: fgsm(net, x, y[:3]), "1 for fake"), (lambda: fgsm(net, x, y + 1), "1 for fake"),
        (lambda: fgsm(net, x, y, -0.1), "0 or more"), (lambda: fgsm(net, x, y, torch.ones(3)), "one a picture"),
        (lambda: fgsm(net, x, y, float("nan")), "0 or more"), (lambda: pgd(net, x, y, norm="1"), "norm is"),
        (lambda: pgd(net, x, y, restarts=0), "1 or more"), (lambda: pgd(net, x, y, start="here"), "start is"),
        (lambda: pgd(net, x, y, start=x[:2]), "start is"), (lambda: deepfool(net, x, steps=0), "steps is"),
        (lambda: deepfool(net, x, overshoot=-1), "overshoot"), (lambda: deepfool(net, x, targeted=True), "needs y"),
        (lambda: fgsm(lambda x: torch.zeros(len(x), 3), x, y), "or with two"),
        (lambda: attack_curve(net, x, y, (0.1,), "cut"), "attack is"), (lambda: attack_curve(net, x, y, ()), "at least"),
        (lambda: transfer_matrix({"a": net}, x, y), "two or more"), (lambda: save_as(x.float(), 101), "qualities"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()


def test_deepfool_leaves_a_picture_where_there_is_no_way():
    flat = lambda x: torch.relu(x.flatten(1).sum(1) - 40) - 1  # flat where the picture is dark  # noqa: E731
    x = torch.stack([torch.full((3, 4, 4), v) for v in (0.1, 0.9)])
    made = deepfool(flat, x)
    assert torch.equal(made[0], x[0]) and (flat(made) > 0).tolist() == [False, False]


# curves, checks, training


def test_a_curve_counts_what_was_right(net, case):
    x, y = case[0], case[1].clone()
    y[0] = 1 - y[0]
    curve = attack_curve(net, x, y, (0, 1 / 255, 1.0), partial(pgd, steps=40, step=0.1, start=None, best=True))
    assert curve["accuracy"].iloc[0] == 5 / 6 and curve["success"].iloc[0] == 0 and curve["linf"].iloc[0] == 0
    assert np.allclose(curve["accuracy"], 5 / 6 * (1 - curve["success"]))
    assert np.allclose(np.mean(curve.attrs["right"], 1), curve["accuracy"])
    assert attack_curve(net, x, 1 - case[1], (0,))["success"].isna().all()  # nothing was right: tau selects nothing


def test_checks_find_a_hidden_slope(net, case):
    x, y = case
    sound = masking_checks(net, Meso4(64).double().eval(), x, y, 8 / 255, steps=4)
    assert sound["passed"].iloc[:3].all()
    hidden = lambda x: 2 * net(x).detach() - net(x)  # the same answers, and slopes that lead away  # noqa: E731
    found = masking_checks(hidden, net, x, y, 8 / 255, steps=4)["passed"]
    assert not found["its own attack is as strong as a borrowed one"] and not found["without a limit nothing is right"]


def test_training_on_attacks_attacks_the_network_in_training(monkeypatch):
    x = (255 * pictures(8, 64)).byte().permute(0, 2, 3, 1).numpy()
    data, asked = Examples(x, np.arange(8) % 2), []
    real = attacks.pgd
    monkeypatch.setattr(attacks, "pgd", lambda model, x, y, eps, **more: asked.append(eps) or real(model, x, y, eps, **more))
    settings = FitSettings(1, 4, 2, 1e-3, threads=1, seed=0)
    net, history = fit(TinyNet, data, settings, loss=partial(madry_loss, eps=0.5, steps=1))
    plain = fit(TinyNet, data, settings)[1]
    assert asked == [0.5, 0.5] and history["loss"].iloc[0] > plain["loss"].iloc[0]
    none = fit(TinyNet, data, settings, loss=partial(madry_loss, eps=0.0))[1]
    assert np.isclose(none["loss"], plain["loss"]).all()


# protocol and command


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    detector = NetDetector(size=64)
    detector.model_ = TinyNet().eval()
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    detector.save(path)
    return path


def run(*args):
    return CliRunner().invoke(app, ["attack", *map(str, args)])


def test_the_command_attacks_weights_and_a_users_own_file(weights, tmp_path):
    found = run("--detector", weights, "--data", "A", "--epsilons", "0,2", "--json")
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    assert [(row["attack"], row["epsilon_255"]) for row in rows] == [("fgsm", 0), ("fgsm", 2), ("pgd", 0), ("pgd", 2)]
    assert all(row["low"] <= row["accuracy"] <= row["high"] and row["clips"] == 24 for row in rows)
    own = tmp_path / "own.py"
    own.write_text("def score(x):\n    return x.mean((1, 2, 3)).numpy()\n", encoding="utf-8")
    refused = run("--detector", f"{own}:score", "--data", "A", "--side", "64")
    assert refused.exit_code == 1 and "surrogate" in refused.stderr and "Traceback" not in refused.stderr
    found = run("--detector", f"{own}:score", "--surrogate", weights, "--data", "A", "--epsilons", "1", "--json")
    assert found.exit_code == 0 and json.loads(found.stdout)[0]["through"] == str(weights)


def test_a_users_mistake_is_one_line(weights, tmp_path):
    for args, code, words in [
        (("--detector", "xception", "--data", "A"), 1, "a detector is"),
        (("--detector", tmp_path / "no.safetensors", "--data", "A"), 1, "there is no file"),
        (("--detector", f"{tmp_path / 'no.py'}:f", "--data", "A"), 1, "there is no file"),
        (("--detector", weights, "--data", "Z"), 2, "no sample database"),
        (("--detector", weights, "--data", "A", "--epsilons", "1,x"), 2, "commas"),
        (("--detector", weights, "--data", "A", "--epsilons", "999"), 2, "255"),
    ]:
        found = run(*args)
        assert found.exit_code == code and words in " ".join(found.stderr.split()), found.stderr
        assert "Traceback" not in found.stderr


def test_scores_that_are_no_probabilities_are_refused(net):
    data = Examples((255 * pictures(4)).byte().permute(0, 2, 3, 1).numpy(), np.arange(4) % 2, list("aabb"))
    with pytest.raises(ValueError, match="P\\(fake\\)"):
        Robustness(data, (0,)).run(lambda x: np.full(len(x), 7.0), net.float())
    net.double()


# widget, bench, records


def test_the_explorer_says_what_it_did(net, case):
    x, y = case
    explorer = AttackExplorer(net, x, y, 2, 0.0)
    assert "largest change 0.00 levels" in explorer.status and "the answer stays" in explorer.status
    first = explorer.png
    explorer.controls["eps"].value = 8.0
    assert "largest change 8.00 levels" in explorer.status and explorer.png != first
    figure = Figure()
    FigureCanvasAgg(figure)
    for attack, face in (("cut", 0), ("fgsm", 99)):
        with pytest.raises(ValueError, match="attack is"):
            draw_attack(figure, net, x, y, face, attack, 1.0, 2)


def test_the_bench_row_compares_equals(monkeypatch):
    torchattacks()
    assert [row.name for row in _bench.rows_of("adversaries")][:1] == ["deepfool"]
    net, x, y = _bench_adversaries.trained()
    net, x, y = deepcopy(net), x[[0, -1]], y[[0, -1]]
    net.eval()
    monkeypatch.setattr(_bench_adversaries, "trained", lambda: (net, x, y))
    row = _bench_adversaries.ROWS[0]
    one, two = row.obvious(x), row.ours(x)
    same, note = row.agree(x, one, two)
    assert same and "2 of 2 flip both ways" in note
    assert not row.agree(x, one, x)[0] and not row.agree(x, one, x + 1.1 * (two - x))[0]


def test_the_headlines_are_registered():
    names = {name for module, name in HEADLINES if module == "attacks"}
    assert {"_clean", "_one_step", "_ten_steps", "_plain", "_trained", "_moved", "_large_net"} <= names
