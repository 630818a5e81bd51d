"""What lesson 22 cannot say about itself: killed processes, several processes, damage, properties."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sk
from torch import nn
from torch.optim import lr_scheduler

from deepfake_course import _fit
from deepfake_course import training as tr
from deepfake_course.core import sample, to_batch
from deepfake_course.databases import write_miniature


def pictures(n=48, seed=0, side=24):
    "Noise that is smooth where it is called fake; four pictures a clip."
    rng = np.random.default_rng(seed)
    y = np.arange(n) // 4 % 2
    x = rng.integers(0, 256, (n, side, side, 3)).astype(float)
    smooth = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 3
    x = np.where(y[:, None, None, None] == 1, smooth, x)
    return tr.Examples(x.astype(np.uint8), y, np.arange(n) // 4)


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(scope="module")
def held_out():
    return pictures(24, seed=1)


torch.set_num_threads(1)  # on a busy machine two threads wait for each other, for seconds


def read(path):
    "What a checkpoint holds, whosever it is."
    return tr._load(path)[2]


def same(one, two):
    one, two = (net.state_dict() for net in (one, two))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


small = tr.FitSettings(epochs=2, batch=8, seed=0)

# Killed, and many: processes of their own

SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import torch
from functools import partial
import test_training as here
from deepfake_course import training as tr

PAUSE = {pause}

def roughen(batch, rng):
    print("step", flush=True)
    time.sleep(PAUSE)
    return batch | {{"x": (batch["x"] + rng.integers(0, 9, batch["x"].shape)).clip(0, 255).astype("uint8")}}

settings = tr.FitSettings(epochs=8, batch=8, rate=5e-3, schedule={schedule!r}, sampling="videos", per_clip=2,
                          balanced=True, accumulate=2, patience={patience})
net, history = tr.fit(partial(tr.TinyNet, 4, .3), here.pictures(), settings, here.pictures(24, 1),
                      augment=roughen, folder={folder!r}, every=3)
torch.save(net.state_dict(), {out!r})
history.to_csv({out!r} + ".csv", index=False, float_format="%.17g")
"""


def child(tmp_path, name, folder, pause, kind):
    out, (schedule, patience) = tmp_path / f"{name}.pt", kind
    places = dict(tests=str(Path(__file__).parent), folder=str(tmp_path / folder), out=str(out))
    text = SCRIPT.format(**places, pause=pause, schedule=schedule, patience=patience)
    script = tmp_path / f"{name}.py"
    script.write_text(text)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    return process, out


@pytest.mark.parametrize("kind", [("one_cycle", 8), ("plateau", 3)], ids=lambda v: v[0])
def test_a_run_killed_at_a_random_step_ends_bit_by_bit_as_if_it_had_not_been(tmp_path, kind):
    whole, expected = child(tmp_path, "whole", "other", 0, kind)
    parts = len(whole.stdout.read().splitlines())  # two parts of a batch for each step
    assert whole.wait() == 0 and 2 * 6 * 4 <= parts <= 2 * 6 * 8  # early stopping may end it

    draw = random.SystemRandom()
    stops = [draw.randrange(8, parts // 2), draw.randrange(4, parts // 3)]
    for stop in stops:
        victim, out = child(tmp_path, "victim", "runs", 0.01, kind)
        for _ in range(stop):
            assert victim.stdout.readline() == "step\n", stops
        victim.kill()
        victim.wait()
        assert victim.returncode == -signal.SIGKILL if os.name == "posix" else victim.returncode
        assert not out.exists()
    left = list((tmp_path / "runs").glob("*.pt"))
    assert len(left) == 1, stops

    final, out = child(tmp_path, "victim", "runs", 0, kind)
    done = len(final.stdout.read().splitlines())
    assert final.wait() == 0 and done < parts, stops  # it went on, it did not begin anew
    one, two = (torch.load(path, weights_only=True) for path in (expected, out))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one), stops
    tables = [Path(f"{path}.csv").read_text() for path in (expected, out)]
    assert tables[0] == tables[1], stops


MANY = """
import sys
sys.path.insert(0, {tests!r})
import torch, torch.distributed as dist
from functools import partial
import test_training as here
from deepfake_course import training as tr

net, history = tr.fit(partial(tr.TinyNet, batch_norm=False), here.pictures(), here.small, here.pictures(24, 1),
                      on="cpu", folder={folder!r})
assert dist.get_world_size() == 2 and dist.get_backend() == "gloo"
if dist.get_rank() == 0:
    torch.save((net.state_dict(), float(history.loss.iloc[-1]), float(history.val_loss.iloc[-1])), {out!r})
"""


def test_two_processes_learn_what_one_learns(tmp_path, data, held_out):
    out, script = tmp_path / "many.pt", tmp_path / "many.py"
    script.write_text(MANY.format(tests=str(Path(__file__).parent), out=str(out), folder=str(tmp_path / "runs")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    weights, loss, val_loss = torch.load(out, weights_only=True)
    net, history = tr.fit(partial(tr.TinyNet, batch_norm=False), data, small, held_out, on="cpu")
    for name, value in net.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
    assert loss == pytest.approx(history.loss.iloc[-1], rel=1e-3)
    assert val_loss == pytest.approx(history.val_loss.iloc[-1], rel=1e-3)
    assert len(list((tmp_path / "runs").glob("*.pt"))) == 1


def test_a_batch_that_two_processes_cannot_share_is_refused(monkeypatch, data):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="7 rows cannot be shared by 2 processes"):
        tr.fit(tr.TinyNet, data, replace(small, batch=7))


# Checkpoints


class Cut(Exception):
    pass


def run_until(step, folder, data, **options):
    "Train until `step`, then fail; the checkpoint of the step before is left."

    def cut(batch, rng):
        cut.left -= 1
        if cut.left == 0:
            raise Cut
        return batch

    cut.left = step
    options = {"settings": small, "augment": cut, "every": 1} | options
    with pytest.raises(Cut):
        tr.fit(tr.TinyNet, data, folder=folder, **options)
    (path,) = folder.glob("*.pt")
    cut.left = 10**9
    return path, lambda: tr.fit(tr.TinyNet, data, folder=folder, **options)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named_and_not_used(tmp_path, data, keep):
    path, again = run_until(3, tmp_path, data)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match=f"{path.name} is damaged.*delete it"):
        again()


def test_every_flipped_byte_of_the_numbers_is_noticed(tmp_path, data):
    path, again = run_until(3, tmp_path, data)
    whole, good, noticed = path.read_bytes(), read(path), 0
    for place in np.linspace(200, len(whole) - 200, 25).astype(int):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            state = read(path)
        except ValueError as error:
            assert "is damaged" in str(error)
            noticed += 1
        else:  # a byte of the padding between records: the numbers are the right ones
            assert all(torch.equal(state["model"][k], good["model"][k]) for k in good["model"])
    assert noticed >= 10
    path.write_bytes(whole)
    again()


def test_a_checkpoint_runs_no_foreign_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    torch.save({"kind": "x", "config": {}, "state": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt is damaged or no checkpoint"):
        read(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


def test_files_that_are_no_checkpoints(tmp_path):
    kept = tr.Checkpoint(tmp_path, {})
    for what, text in (({"kind": "weights", "config": {}, "state": {}}, "is a weights, not"), ([1, 2], "no checkpoint")):
        torch.save(what, kept.path)
        with pytest.raises(ValueError, match=text):
            kept.read()
    kept.path.write_text("hello")
    with pytest.raises(ValueError, match="no checkpoint"):
        kept.read()


def test_a_checkpoint_of_another_config_is_refused_even_under_the_right_name(tmp_path, data):
    one, _ = run_until(3, tmp_path / "a", data)
    two, again = run_until(3, tmp_path / "b", data, settings=replace(small, rate=1e-4))
    assert one.name != two.name
    two.write_bytes(one.read_bytes())
    with pytest.raises(ValueError, match=r"belongs to another run: settings.rate is 0.003 there and 0.0001 here"):
        again()


def test_other_data_and_other_networks_are_other_runs(tmp_path, data):
    nets = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        nets.append(tr.TinyNet())
    for k, (net, rows) in enumerate([(nets[0], data), (nets[1], data), (nets[0], data.take(slice(0, 40)))], 1):
        tr.fit(net, rows, replace(small, epochs=1), folder=tmp_path)
        assert len(list(tmp_path.glob("*.pt"))) == k
    x = data.x.copy()
    x[5, 3, 3, 0] ^= 1  # one bit of one picture
    others = [tr.Examples(x, data.y, data.clip), replace(data, extras={"weight": np.ones(len(data))})]
    for k, rows in enumerate(others, 4):
        tr.fit(nets[0], rows, replace(small, epochs=1), folder=tmp_path)
        assert len(list(tmp_path.glob("*.pt"))) == k


def test_another_precision_is_another_run(tmp_path, data):
    one, again = run_until(3, tmp_path, data)
    tr.fit(tr.TinyNet, data, replace(small, epochs=1, precision="bf16-mixed"), folder=tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 2
    (other,) = set(tmp_path.glob("*.pt")) - {one}
    one.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="belongs to another run: .*settings.precision is .bf16-mixed. there"):
        again()
    for precision in ("16-mixed", "half", 32):
        with pytest.raises(ValueError, match="precision is 32-true, 64-true, bf16-mixed"):
            replace(small, precision=precision)


def test_a_checkpoint_of_another_device_is_refused(tmp_path, data):
    path, again = run_until(3, tmp_path, data)
    saved = torch.load(path, weights_only=True)
    torch.save(saved | {"config": saved["config"] | {"device": "cuda"}}, path)
    with pytest.raises(ValueError, match="belongs to another run: device is 'cuda' there and 'cpu' here"):
        again()


def test_a_resumed_run_takes_as_many_threads_as_it_began_with(tmp_path, data):
    path, again = run_until(3, tmp_path, data)
    assert read(path)["threads"] == 1
    torch.set_num_threads(2)
    try:
        resumed, _ = again()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    whole, _ = tr.fit(tr.TinyNet, data, small)
    assert same(resumed, whole)


@pytest.mark.parametrize("other", [{"width": 4}, {"drop": 0.5}, {"normalise": "unit"}], ids=str)
def test_a_factory_that_makes_another_network_now_is_noticed(tmp_path, data, other):
    options = {}
    make = lambda: tr.TinyNet(**options)
    tr.fit(make, data, replace(small, epochs=1), folder=tmp_path)
    options |= other
    with pytest.raises(ValueError, match="of another network"):
        tr.fit(make, data, replace(small, epochs=1), folder=tmp_path)


class Darker:
    "An augmentation that is known by what it keeps."

    def __init__(self, by):
        self.by = by

    def __call__(self, batch, rng):
        return batch


def level(value):
    return lambda model, batch: value + (model(batch["x"]) ** 2).mean()


def stretched(by):
    def make():
        net = tr.TinyNet()
        with torch.no_grad():
            net.head.weight.mul_(by)
        return net

    return make


@pytest.mark.parametrize(
    "one, two, name",
    [
        (dict(loss=level(0)), dict(loss=level(1e6)), "loss"),
        (dict(loss=lambda model, batch: model(batch["x"]).mean()), dict(loss=lambda model, batch: model(batch["x"]).sum()), "loss"),
        (dict(loss=lambda model, batch, *, k=0: k + model(batch["x"]).mean()), dict(loss=lambda model, batch, *, k=1: k + model(batch["x"]).mean()), "loss"),
        (dict(loss=partial(level(0))), dict(loss=partial(level(1.0))), "loss"),
        (dict(augment=Darker(0.1)), dict(augment=Darker(0.9)), "augment"),
        (dict(augment=Darker(0.1).__call__), dict(augment=Darker(0.9).__call__), "augment"),
        (dict(model=stretched(1)), dict(model=stretched(2)), "model"),
    ],
    ids=["closure", "code", "keyword", "partial", "object", "method", "factory"],
)
def test_another_run_of_the_same_names_is_noticed(one, two, name, tmp_path, data):
    short = replace(small, epochs=1)
    first = tr.fit(**dict(model=tr.TinyNet, data=data, settings=short, folder=tmp_path) | one)
    again = tr.fit(**dict(model=tr.TinyNet, data=data, settings=short, folder=tmp_path) | one)
    assert same(first[0], again[0])
    with pytest.raises(ValueError, match=f"another run: {name} had other code"):
        tr.fit(**dict(model=tr.TinyNet, data=data, settings=short, folder=tmp_path) | two)


def test_what_a_function_does_is_told_alike_in_every_process():
    ask = ("from deepfake_course import training as tr; from functools import partial; import numpy as np\n"
           "def make(a):\n    def loss(model, batch, b=(1, 2.0)):\n        return a.sum() + (batch in {'red', 'green', 'blue', 'grey'})\n    return loss\n"
           "print(tr._parts((make(np.ones(3)), partial(make, a=object()), 'bce', None, np.random.default_rng(0))))")  # fmt: skip
    said = {subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout for _ in range(3)}
    assert len(said) == 1 and said != {""}


def test_bytes_as_a_tensor_and_too_many_answers_are_refused(data):
    net = tr.TinyNet()
    imgs = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="bytes are a NumPy array"):
        tr.predict(net, imgs)
    with pytest.raises(ValueError, match="bytes are a NumPy array"):
        tr.fit(tr.TinyNet, tr.Examples(imgs, np.array([0, 1])), replace(small, epochs=1))
    with pytest.raises(ValueError, match="6 answers to 2 rows"):
        tr.predict(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)), np.zeros((2, 12), np.float32))
    for clip in (["a", None], [1.0, np.nan]):
        with pytest.raises(ValueError, match="1 rows have no clip"):
            tr.Examples(np.zeros((2, 4)), [0, 1], clip)


def test_a_finished_run_is_not_run_again(tmp_path, data):
    one, first = tr.fit(tr.TinyNet, data, small, folder=tmp_path)

    def never(model, batch):
        raise AssertionError("a step was taken")

    never.__qualname__ = "bce"
    two, second = tr.fit(tr.TinyNet, data, small, folder=tmp_path)
    assert same(one, two) and first.equals(second)


# The loop


def test_what_a_run_leaves_alone(data, held_out):
    net = tr.TinyNet(drop=0.5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    one, _ = tr.fit(net, data, small, held_out)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    two, _ = tr.fit(net, data, small, held_out)
    assert same(one, two) and not one.training


def test_the_seed_comes_from_the_settings(data):
    free = replace(small, seed=None, epochs=1)
    one, two = (tr.fit(tr.TinyNet, data, free)[0] for _ in range(2))
    other = tr.fit(tr.TinyNet, data, replace(free, weight_decay=0.02))[0]
    assert same(one, two)
    assert not torch.allclose(one.body[0].weight, other.body[0].weight, atol=1e-2)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulating_changes_memory_and_not_the_result(data, parts):
    make = partial(tr.TinyNet, batch_norm=False)
    one, two = (tr.fit(make, data, replace(small, accumulate=k, optimiser="sgd"))[0] for k in (1, parts))
    for a, b in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_frozen_parts_stay_and_groups_have_their_rates(data):
    net = tr.TinyNet()
    settings = replace(small, rates={"body": 0, "head.bias": 0.1}, optimiser="sgd", momentum=0.0, weight_decay=0.0)
    made, _ = tr.fit(net, data, replace(settings, epochs=1, steps=1))
    for name, value in net.body.state_dict().items():  # the running statistics of batch norm, too
        assert torch.equal(value, made.body.state_dict()[name]), name
    assert all(weight.requires_grad for weight in made.parameters())
    full, _ = tr.fit(net, data, replace(settings, epochs=1, steps=1, rates={"body": 0}))
    moved = [(m.head.bias - net.head.bias).item() for m in (made, full)]
    assert moved[1] != 0 and moved[0] == pytest.approx(0.1 * moved[1], rel=1e-3)
    with pytest.raises(ValueError, match="no weight's name starts with neck"):
        tr.fit(net, data, replace(small, rates={"neck": 0}))
    with pytest.raises(ValueError, match="nothing to learn"):
        tr.fit(net, data, replace(small, rates={"": 0}))


def test_long_gradients_are_shortened(data):
    net = tr.TinyNet(batch_norm=False)
    settings = replace(small, epochs=1, steps=1, optimiser="sgd", momentum=0.0, weight_decay=0.0, rate=1.0)
    made, _ = tr.fit(net, data, replace(settings, max_norm=0.01))
    step = torch.cat([(a - b).flatten() for a, b in zip(made.parameters(), net.parameters())])
    assert step.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimiser", tr.OPTIMISERS)
def test_every_optimiser_learns(data, optimiser):
    rate = {"sgd": 0.1}.get(optimiser, 5e-3)
    _, history = tr.fit(tr.TinyNet, data, tr.FitSettings(6, 8, rate=rate, optimiser=optimiser, seed=1))
    assert history.loss.iloc[-1] < 0.8 * history.loss.iloc[0]


def test_the_best_weights_are_kept(data, held_out):
    settings = tr.FitSettings(30, 8, rate=0.02, patience=2, seed=2)
    net, history = tr.fit(tr.TinyNet, data, settings, held_out)
    assert len(history) == history.val_loss.argmin() + 3 < 30
    assert tr.measure(net, held_out)["loss"] == pytest.approx(history.val_loss.min(), abs=1e-9)


def test_weights_of_rows_count(data):
    net, ones = tr.TinyNet(batch_norm=False), np.ones(len(data))
    settings = replace(small, epochs=1, steps=1, batch=len(data), optimiser="sgd")
    half = np.where(data.y == 1, 2.0, 0.0)
    weighted = tr.Examples(data.x, data.y, data.clip, {"weight": half.astype(np.float32)})
    one, _ = tr.fit(net, weighted, settings)

    def only_fakes(model, batch):
        fake = batch["y"] == 1
        return F.binary_cross_entropy_with_logits(model(batch["x"][fake]), batch["y"][fake])

    two, _ = tr.fit(net, data, settings, loss=only_fakes)
    plain, _ = tr.fit(net, tr.Examples(data.x, data.y, data.clip, {"weight": ones.astype(np.float32)}), settings)
    torch.testing.assert_close(one.head.weight, two.head.weight, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(one.head.weight, plain.head.weight, atol=1e-5)


def test_held_out_rows_are_not_changed_and_not_learned(data, held_out):
    seen = []

    def spy(batch, rng):
        seen.extend(batch["row"].tolist())
        assert batch["x"].dtype == np.uint8  # as it is kept
        return batch | {"x": np.zeros_like(batch["x"])}

    asked = []

    def evaluate(model, examples):
        asked.append(examples.x[0].any())
        return {"auc": 0.5}

    _, history = tr.fit(tr.TinyNet, data, small, held_out, augment=spy, evaluate=evaluate)
    assert len(seen) == 2 * 48 and asked == [True, True]
    assert list(history) == ["epoch", "loss", "rate", "val_auc"]


def test_half_precision_comes_near(data):
    one, two = (
        tr.fit(tr.TinyNet, data, replace(small, epochs=6, precision=p))[1] for p in ("32-true", "bf16-mixed")
    )
    assert not one.equals(two)
    np.testing.assert_allclose(one.loss, two.loss, atol=0.05)


def test_a_rate_that_is_too_high_is_named_with_its_step(data, tmp_path):
    wild = tr.FitSettings(20, 8, rate=1e12, optimiser="sgd", seed=0)
    with pytest.raises(FloatingPointError, match=r"loss of step \d+ is (nan|inf).*smaller rate"):
        tr.fit(partial(tr.TinyNet, batch_norm=False), data, wild, folder=tmp_path, every=1)
    for path in tmp_path.glob("*.pt"):
        assert torch.isfinite(read(path)["losses"]).all()


# Bad input


def test_one_class_only(data, held_out):
    for label in (0, 1):
        with pytest.raises(ValueError, match=f"labels are {label}: learning takes real and fake"):
            tr.fit(tr.TinyNet, data.take(data.y == label), small)
    with pytest.raises(ValueError, match="labels are 0: held_out takes real and fake"):
        tr.fit(tr.TinyNet, data, small, held_out.take(held_out.y == 0))


def test_nothing_to_learn_from(data):
    with pytest.raises(ValueError, match="there is nothing to measure"):
        tr.Examples(np.empty((0, 8, 8, 3), np.uint8), [])
    with pytest.raises(ValueError, match="there is nothing to measure"):
        data.take(np.zeros(len(data), bool))
    rows = pd.DataFrame({"path": ["a.mp4"], "database": "x", "label": 1, "face": False, "crop": ""})
    with pytest.raises(ValueError, match="there is no face in these rows"):
        tr.NetDetector().fit(rows)


def test_watching_needs_something_to_watch(data, held_out):
    for settings in (replace(small, patience=2), replace(small, schedule="plateau")):
        with pytest.raises(ValueError, match="watch held-out rows: pass held_out"):
            tr.fit(tr.TinyNet, data, settings)
        with pytest.raises(ValueError, match="there is no val_loss to watch: evaluate gives"):
            tr.fit(tr.TinyNet, data, settings, held_out, evaluate=lambda *_: {"auc": 0.5})
    with pytest.raises(ValueError, match="is less val_f1 better, or more"):
        replace(small, patience=2, monitor="val_f1")
    scores = iter([0.5, 0.9, 0.6, 0.7, 0.8])
    settings = replace(small, epochs=5, patience=2, monitor="val_auc")
    _, history = tr.fit(tr.TinyNet, data, settings, held_out, evaluate=lambda *_: {"auc": next(scores)})
    assert len(history) == 4  # more is better here


def test_labels_as_text(data):
    table = pd.DataFrame({"label": np.where(data.y, "FAKE", "REAL")})
    with pytest.raises(ValueError, match="FAKE, REAL as text: recode it"):
        tr.NetDetector().fit(data.x, table["label"])


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_features_that_are_not_numbers(odd):
    x = np.zeros((4, 3))
    x[1, 2] = odd
    with pytest.raises(ValueError, match="1 numbers in x are NaN or infinite"):
        tr.Examples(x, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="1 numbers in x are NaN or infinite"):
        tr.Examples(torch.tensor(x), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="numbers in weight are NaN"):
        tr.Examples(np.zeros((4, 3)), [0, 1, 0, 1], extras={"weight": x[:, 2]})
    with pytest.raises(ValueError, match="a network takes numbers"):
        tr.Examples(np.array(["a", "b"]), [0, 1])


def test_no_model_no_device_no_loss(data):
    with pytest.raises(ValueError, match="model is a network or a function"):
        tr.fit("TinyNet", data, small)
    absent = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(ValueError, match=f"'{absent}' is not on this machine"):
        tr.fit(tr.TinyNet, data, small, on=absent)
    with pytest.raises(ValueError, match="one output a row"):
        tr.fit(lambda: nn.Sequential(nn.Flatten(), nn.Linear(24 * 24 * 3, 2)), data, small)


# Samplers


@pytest.mark.parametrize("seed", range(20))
def test_samplers_are_fair(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, 10)
    clip, y = np.repeat(np.arange(10), sizes), np.repeat(rng.permutation([0] * 3 + [1] * 7), sizes)
    rounds, per = 4, int(rng.integers(1, 4))
    rows = tr.Sampler(y, clip, seed=seed, per_clip=per).draw(rounds * len(y))
    for part in np.split(rows, rounds):
        assert sorted(part) == list(range(len(y)))  # each once before any comes again
    rows = tr.Sampler(y, clip, "videos", per_clip=per, seed=seed).draw(rounds * 10 * per)
    for part in np.split(rows, rounds):
        assert (np.bincount(clip[part], minlength=10) == per).all()
    for one in np.split(rows, rounds * 10):
        assert len(set(clip[one])) == 1 and (len(set(one)) == per or per > sizes[clip[one[0]]])
    for sampling in ("pictures", "videos"):
        rows = tr.Sampler(y, clip, sampling, balanced=True, seed=seed).draw(2 * rounds * 10)
        assert y[rows].mean() == 0.5
    odd = [tr.Sampler(y, clip, balanced=True, seed=seed).draw(3) for _ in range(2)]
    assert (odd[0] == odd[1]).all()


@pytest.mark.parametrize("sampling", ["pictures", "videos"])
def test_a_sampler_goes_on_from_a_file(tmp_path, sampling):
    y, clip = np.arange(30) % 2, np.arange(30) // 3
    one, two = (tr.Sampler(y, np.where(y, clip, -clip - 1), sampling, True, 2, seed=k) for k in (0, 1))
    one.draw(17)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    expected = one.draw(100)
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (two.draw(100) == expected).all()


# Schedules


def test_dynamic_is_what_the_report_s_code_computes():
    for rate, factor, floor, epochs, steps, times in (
        (1e-3, 0.1, 1e-6, 30, 50, 3), (1e-2, 0.5, 1e-4, 23, 7, 6), (1e-3, 0.1, 1e-3, 5, 9, 0), (1e-3, 0.1, 3e-6, 9, 4, 2)
    ):  # fmt: skip
        options = {"factor": factor, "floor": floor}
        settings = tr.FitSettings(epochs, rate=rate, schedule="dynamic", schedule_options=options)
        decay_steps = steps * (epochs // max(times, 1))
        expected = [max(rate * factor ** (step // decay_steps), floor) for step in range(epochs * steps)]
        np.testing.assert_allclose(settings.curve(steps), expected)
    with pytest.raises(ValueError, match="3 decays need 3 epochs or more, not 2"):
        tr.FitSettings(2, rate=1e-3, schedule="dynamic")


SEEN = [0.69, 0.5, 0.4, 0.35, *[0.34] * 6, 0.3, 0.25, *[0.24] * 18]


@pytest.mark.parametrize(
    "name, make, told",
    [
        ("tenth", partial(lr_scheduler.StepLR, step_size=1000), "step"),
        ("dynamic", partial(lr_scheduler.StepLR, step_size=1500), "step"),
        ("step", partial(lr_scheduler.StepLR, step_size=750, gamma=0.5), "step"),
        ("restarts", partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=1, T_mult=2), "part"),
        ("plateau", partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=2, threshold=0.05), "loss"),
        ("one_cycle", partial(lr_scheduler.OneCycleLR, max_lr=1e-3, total_steps=4500), "step"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_schedules_are_those_of_pytorch(name, make, told):
    sgd, rates = torch.optim.SGD([torch.zeros(1)], 1e-3), []
    scheduler = make(sgd)
    for step in range(1, 30 * 150 + 1):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if step % 150 == 0 or told != "loss":
            scheduler.step(*{"step": [], "part": [step / 150], "loss": [SEEN[(step - 1) // 150]]}[told])
    ours = tr.FitSettings(30, rate=1e-3, schedule=name).curve(150, SEEN)
    np.testing.assert_allclose(ours, np.maximum(rates, 1e-6 * (name == "tenth")), rtol=1e-6)


@pytest.mark.parametrize("name", tr.SCHEDULES)
def test_rates_are_positive_and_never_above_the_highest(name):
    rng = np.random.default_rng(0)
    for _ in range(30):
        epochs, steps, rate = int(rng.integers(4, 40)), int(rng.integers(1, 30)), 10 ** rng.uniform(-5, -1)
        seen = rng.random(epochs).tolist()
        if name == "dynamic" and epochs < math.log(rate / 1e-6, 10) + 1:
            continue
        rates = tr.FitSettings(epochs, rate=rate, schedule=name).curve(steps, seen)
        assert len(rates) == epochs * steps and np.isfinite(rates).all()
        assert (rates > 0).all() and rates.max() <= rate * (1 + 1e-12)


def test_plateau_waits_for_the_held_out_loss_of_the_run(data, held_out):
    options = {"factor": 0.1, "patience": 1, "threshold": 0.0}
    settings = tr.FitSettings(6, 8, schedule="plateau", schedule_options=options, seed=0)
    worse = iter([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    _, history = tr.fit(tr.TinyNet, data, settings, held_out, evaluate=lambda *_: {"loss": next(worse)})
    np.testing.assert_allclose(history.rate, [3e-3, 3e-3, 3e-3, 3e-4, 3e-4, 3e-5])


# Pictures, predictions, measures


def face_files(folder, data):
    "The pictures as files, and rows as `find_faces` gives them; one frame without a face."
    rows = []
    for k, img in enumerate(data.x):
        path = folder / f"{k}.png"
        cv2.imwrite(str(path), img[..., ::-1])
        rows.append({"path": f"{data.clip[k]}.mp4", "database": "mine", "label": data.y[k], "face": True, "crop": str(path)})
    rows.insert(3, rows[0] | {"face": False, "crop": ""})
    return pd.DataFrame(rows)


def test_lazy_pictures_train_the_same_network(tmp_path, data):
    rows = face_files(tmp_path, data)
    lazy, eager = (tr.face_examples(rows, 24, lazy=lazy) for lazy in (True, False))
    assert len(lazy) == len(data) == len(rows) - 1 and (lazy.y == data.y).all()
    assert (eager.x == data.x).all() and isinstance(lazy.x, tr.LazyPictures)
    order = [11, 0, 0, 7, 3]
    assert (lazy.x[order] == eager.x[order]).all() and lazy.x[np.array([], int)].shape == (0, 24, 24, 3)
    assert (lazy.take(lazy.y == 1).x[:] == eager.x[eager.y == 1]).all()
    settings = replace(small, epochs=1, batch=4)
    assert same(*(tr.fit(tr.TinyNet, examples, settings)[0] for examples in (lazy, eager)))
    marks = [tr.LazyPictures(lazy.x.paths, size).fingerprint() for size in (24, 24, 25)]
    assert marks[0] == marks[1] != marks[2]
    cv2.imwrite(str(tmp_path / "0.png"), data.x[1])
    assert lazy.x.fingerprint() != marks[0]
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="1.png is not a picture, or it is damaged"):
        lazy.x[[1]]
    (tmp_path / "2.png").unlink()
    with pytest.raises(ValueError, match="1 of 48 pictures are not there, such as 2.png"):
        tr.face_examples(rows, 24)


def test_a_detector_takes_rows_and_arrays_and_its_weights_come_back(tmp_path, data):
    rows, settings = face_files(tmp_path, data), replace(small, epochs=1)
    one = tr.NetDetector(settings=settings, size=24).fit(rows, held_out=rows)
    x = one.prepare(rows[rows["face"]])
    assert (x == data.x).all()
    with pytest.raises(ValueError, match="1 rows have no face"):
        one.prepare(rows)
    two = tr.NetDetector(settings=settings).fit(data.x, data.y, data.clip, held_out=data)
    assert (one.score(x) == two.score(data.x)).all()
    path = tmp_path / "net.safetensors"
    one.save(path, note="a test")
    three = tr.NetDetector()
    assert three.load(path)["note"] == "a test" and three.size == 24
    np.testing.assert_allclose(three.score(x), one.score(x), atol=1e-6)
    for keep in (0, 5, 100, path.stat().st_size - 4):
        part = tmp_path / "part.safetensors"
        part.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match="part.safetensors is damaged"):
            three.load(part)
    with pytest.raises(ValueError, match="holds 'CourseNet weights', not"):
        three.load(sample("weights/coursenet.safetensors"))


def test_predictions_do_not_depend_on_the_batch(data):
    net = tr.TinyNet(drop=0.5).train()
    one, two = tr.predict(net, data.x, 1), tr.predict(net, data.x, 48)
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert net.training


def test_two_outputs_and_whole_clips():
    two = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x = np.random.default_rng(0).random((5, 12)).astype(np.float32)
    np.testing.assert_allclose(tr.predict(two, x), torch.softmax(two(torch.tensor(x)), 1)[:, 1].detach(), rtol=1e-6)

    class MeanOfFrames(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tr.TinyNet()

        def forward(self, x):
            assert x.ndim == 5
            return self.net(x.flatten(0, 1)).view(x.shape[:2]).mean(1)

    clips = np.random.default_rng(1).integers(0, 256, (6, 3, 24, 24, 3), np.uint8)
    net, history = tr.fit(MeanOfFrames, tr.Examples(clips, [0, 1] * 3), replace(small, batch=2))
    expected = net.net(to_batch(clips[2])).mean().sigmoid()
    assert tr.predict(net, clips)[2] == pytest.approx(expected.item(), abs=1e-6)


def test_measures_agree_with_scikit_learn(held_out):
    told, p = tr.measure(net := tr.TinyNet(), held_out), tr.predict(net, held_out.x)
    assert told["auc"] == pytest.approx(sk.roc_auc_score(held_out.y, p))
    assert told["loss"] == pytest.approx(sk.log_loss(held_out.y, p))
    clips = pd.DataFrame({"y": held_out.y, "p": p}).groupby(held_out.clip).mean()
    assert told["clip_auc"] == pytest.approx(sk.roc_auc_score(clips.y, clips.p))
    assert told["clip_loss"] == pytest.approx(sk.log_loss(clips.y, clips.p))


# The command line

COMMAND = [sys.executable, "-m", "deepfake_course._cli", "fit", "A", "--side", "32", "--epochs", "40", "--seed", "1", "--json"]


def test_a_killed_command_goes_on_and_ends_with_the_same_weights(tmp_path):
    whole = subprocess.run([*COMMAND, "--out", tmp_path / "whole.safetensors"], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    again = [*COMMAND, "--folder", tmp_path / "runs", "--out", tmp_path / "pieces.safetensors"]
    victim = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "runs").glob("*.pt")):
        assert victim.poll() is None
        time.sleep(0.01)
    victim.kill()
    assert victim.wait() and not (tmp_path / "pieces.safetensors").exists()
    (path,) = (tmp_path / "runs").glob("*.pt")
    assert 0 < read(path)["step"] < 40 * 6
    pieces = subprocess.run(again, capture_output=True, text=True)
    assert pieces.returncode == 0, pieces.stderr
    assert pieces.stdout == whole.stdout
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "pieces.safetensors").read_bytes()
    rows = json.loads(whole.stdout)
    assert [row["measure"] for row in rows] == ["auc of clips", "log_loss of clips"]
    assert all(row["n"] == 8 and row["trained_on"] == 16 and row["low"] <= row["value"] <= row["high"] for row in rows)
    detector = tr.NetDetector()
    told = detector.load(tmp_path / "whole.safetensors")
    assert told["data"] == "sample A (excerpt)" and told["held out"][0]["n"] == 8 and detector.size == 32


def test_people_held_out_stay_out():
    people = [f"{k}" for k in range(8) for _ in range(6)]
    rows = pd.DataFrame({"path": [f"{k}.mp4" for k in range(48)], "label": np.arange(48) % 2, "face": True,
                         "database": "x", "target": people, "base": [f"{k}.mp4" for k in range(48)]})  # fmt: skip
    learn, watched, held_out = _fit.sides(rows, 4, True, 0)
    names = [set(part["target"]) for part in (learn, watched, held_out)]
    assert set.union(*names) == set(people) and sum(map(len, names)) == 8 and all(names)
    learn, watched, held_out = _fit.sides(rows, 4, False, 0)
    assert watched is None and not set(learn["target"]) & set(held_out["target"]) and len(learn) + len(held_out) == 48
    with pytest.raises(ValueError, match="no face was found in any of 48 frames"):
        _fit.sides(rows.assign(face=False), 4, False, 0)
    with pytest.raises(ValueError, match="9 folds by identity are not possible"):
        _fit.sides(rows, 9, False, 0)


def test_fit_on_a_database_of_your_own(tmp_path, borrowed):
    root = write_miniature("uadfv", tmp_path / "mine", 8, borrowed)
    (root / "real" / "0003.mp4").write_bytes(b"no video")
    command = [*COMMAND[:4], "--data", root, "--frames", 2, "--side", 32, "--epochs", 2, "--batch", 4, "--folds", 3]
    answer = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "1 of 16 clips cannot be read" in answer.stderr
    rows = json.loads(answer.stdout)
    assert [row["measure"] for row in rows] == ["auc of clips", "log_loss of clips"]
    assert all(row["data"] == "real mine" and row["epochs"] == 2 and row["trained_on"] + row["n"] == 15 for row in rows)
    assert all(0 <= row["low"] <= row["value"] <= row["high"] for row in rows)
    (root / "real" / "0006.mp4").write_bytes(b"no video")
    answer = subprocess.run([*map(str, command[:-1]), "6"], capture_output=True, text=True)
    assert answer.returncode == 1 and "take fewer --folds than 6" in answer.stderr
    assert "training" not in answer.stderr, "told before it trains"
