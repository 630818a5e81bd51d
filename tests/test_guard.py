"""PyTorch and TensorFlow in one process, in the orders that a student may type.

Loading Triton, which PyTorch's Linux builds bring, after TensorFlow aborts the process without a
traceback. `deepfake_course/_guard.py` prevents that; each order here runs in a process of its own,
two at a time, and the last one, without the guard, shows that there is something to prevent.
"""

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest
from fixtures import tiny
from lesson_runner import clean_env, start_all, tail

STEPS = {
    "adam": "torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])",
    "fit": "model = keras.Sequential([keras.layers.Dense(1)])\n"
    "model.compile(loss='mse')\n"
    "model.fit(numpy.ones((4, 2)), numpy.ones((4, 1)), verbose=0)",
}
ORDERS = {  # True: too late for Triton, which is switched off with a warning
    "torch tensorflow deepfake_course torchvision": True,
    "deepfake_course tensorflow torch torchvision adam": False,
    "tensorflow deepfake_course torch adam torchvision": True,
    "torch deepfake_course tensorflow keras numpy fit adam torchvision": False,
}
UNGUARDED = "tensorflow torch torchvision"
HAS_TRITON = importlib.util.find_spec("triton") is not None
NEEDED = [
    name
    for name in ("torch", "torchvision", "tensorflow")
    if importlib.util.find_spec(name) is None
]
WITHOUT_TRITON = (
    "no Triton here (macOS, Windows and CPU builds of PyTorch have none): nothing to guard"
)
heavy = pytest.mark.skipif(bool(NEEDED), reason=f"needs {', '.join(NEEDED)}")

TELL = """import json, os, sys, warnings
caught = []
def keep(message, kind, *more, **less): caught.append(f"{kind.__name__}: {message}")
warnings.showwarning = keep
warnings.simplefilter("always", RuntimeWarning)
"""
END = """
heavy = ("torch", "tensorflow", "keras", "triton", "numpy", "pandas", "matplotlib")
print(json.dumps({
    "warned": [text for text in caught if "Triton" in text],
    "blocked": "triton" in sys.modules and sys.modules["triton"] is None,
    "loaded": [name for name in heavy if sys.modules.get(name)],
    "backend": os.environ.get("KERAS_BACKEND"),
}))
"""


def run(order):
    "Exit code, what the process told at its end, and its stderr."
    lines = [STEPS.get(word, f"import {word}") for word in order.split()]
    code = TELL + "\n".join(lines) + END
    env = clean_env() | {"PYTHONPATH": str(tiny.ROOT)}
    for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        env.pop(name, None)  # the guard sets them
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        errors="replace",
    )
    told = json.loads(done.stdout.strip().split("\n")[-1]) if done.returncode == 0 else {}
    return done.returncode, told, done.stderr


@pytest.fixture(scope="module")
def runs():
    return start_all(run, [] if NEEDED else [*ORDERS, *([UNGUARDED] if HAS_TRITON else [])])


@heavy
@pytest.mark.parametrize("order,late", ORDERS.items(), ids=[o.replace(" ", ",") for o in ORDERS])
def test_the_process_lives(order, late, runs):
    code, told, error = runs[order].result()
    assert code == 0, f"'{order}' ends with {code}:\n{tail(error)}"
    assert told["backend"] == "tensorflow"
    if HAS_TRITON:
        assert bool(told["warned"]) == late == told["blocked"], told
        assert all("Import deepfake_course first" in text for text in told["warned"]), told


@heavy
@pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT_TRITON)
@pytest.mark.skipif(os.name != "posix", reason="the abort is known on Linux")
def test_without_the_guard_it_aborts(runs):
    "The control: if this stops failing, the guard may go."
    code, _, error = runs[UNGUARDED].result()
    assert code == -signal.SIGABRT, (
        f"'{UNGUARDED}' ends with {code}, not with SIGABRT:\n{tail(error)}"
    )
    assert "LLVM" in error, tail(error)


def test_importing_the_course_imports_nothing_heavy(capsys):
    "Reports the time and asserts what is loaded: a time depends on the machine."
    code, told, error = run("deepfake_course")
    assert code == 0 and told["loaded"] == [] and not told["warned"], (told, error)
    extra = seconds("import deepfake_course") - seconds("pass")
    with capsys.disabled():
        print(f"\nimport deepfake_course: {1000 * extra:.0f} ms above a bare start")


def seconds(code):
    "Median time of five fresh processes."
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=clean_env(), cwd=tiny.ROOT, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_the_guard_answers_no_import_itself():
    "It waits for TensorFlow and lets every other import pass."
    code = (
        "import sys, deepfake_course\n"
        "mine, = [f for f in sys.meta_path if type(f).__module__ == 'deepfake_course._guard']\n"
        "assert mine.find_spec('json') is None and mine in sys.meta_path\n"
        "assert mine.find_spec('tensorflow') is None and mine not in sys.meta_path\n"
    )
    subprocess.run([sys.executable, "-c", code], env=clean_env(), cwd=tiny.ROOT, check=True)
