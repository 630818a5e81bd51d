"""Speed as a ratio: the obvious way against the course's way, in one run. Written by hand.

A row is an object with a name, what it is measured against, a target, and four functions. Both ways
run in turn (A B A B ...), so that a busy machine slows both; the ratio of each turn is one sample.
"""
import importlib
import os
import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Callable

from tqdm.auto import tqdm

GROUPS = {
    "ground": "deepfake_course._bench_ground",
    "tasks": "deepfake_course._bench_tasks",
    "mesonet": "deepfake_course._bench_mesonet",
    "metric": "deepfake_course._bench_metric",
    "adversaries": "deepfake_course._bench_adversaries",
}


@dataclass
class Bench:
    """One row of the table; larger ratios are better."""

    name: str
    against: str  # the obvious way, in words
    target: float  # smallest ratio that counts as met
    setup: Callable[[], list]  # makes the inputs, not timed; turns take them in rotation
    obvious: Callable[[Any], Any]
    ours: Callable[[Any], Any]
    agree: Callable[[Any, Any, Any], tuple[bool, str]]  # (inputs, obvious answer, our answer)
    repeats: int = 3
    inner: int = 1  # times that `ours` runs in one turn, for ways too short to time once
    cost: Callable[[Any], float] | None = None  # reads the cost off an answer, such as bytes; None: seconds are compared


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; where it is emulated it costs more than float32."""
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def rows_of(group: str) -> list[Bench]:
    """The rows of one group."""
    if group not in GROUPS:
        raise ValueError(f"there is no bench group {group!r}; groups are: {', '.join(GROUPS)}")
    return importlib.import_module(GROUPS[group]).ROWS


def measure(bench: Bench) -> dict:
    """Time both ways in turn and check that they agree."""
    inputs = bench.setup()
    bench.ours(inputs[0])  # warm-up: loads weights and libraries, which is not what is compared
    ratios, answers = [], {}
    for turn in range(max(bench.repeats, len(inputs))):
        given = inputs[turn % len(inputs)]
        start = time.perf_counter()
        obvious = bench.obvious(given)
        middle = time.perf_counter()
        for _ in range(bench.inner):
            ours = bench.ours(given)
        end = time.perf_counter()
        cost = (bench.cost(obvious), bench.cost(ours)) if bench.cost else (middle - start, (end - middle) / bench.inner)
        ratios.append(cost[0] / cost[1])
        answers[turn % len(inputs)] = bench.agree(given, obvious, ours)
    equal = all(same for same, _ in answers.values())
    note = " | ".join(text for _, text in answers.values())
    return {
        "name": bench.name,
        "ratio": round(statistics.median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
        "target": bench.target,
        "equal": bool(equal),
        "against": bench.against,
        "note": note,
    }


def run(group: str | None = None, only: list[str] | None = None) -> list[dict]:
    """Measure all rows of a group, or of all groups."""
    rows = [row for name in ([group] if group else GROUPS) for row in rows_of(name)]
    if only:
        unknown = set(only) - {row.name for row in rows}
        if unknown:
            raise ValueError(f"no bench row {', '.join(sorted(unknown))}; rows are: {', '.join(r.name for r in rows)}")
        rows = [row for row in rows if row.name in only]
    bar = tqdm(rows, unit="row")
    results = []
    for row in bar:
        bar.set_description(row.name)
        results.append(measure(row))
    return results


def machine() -> str:
    """The machine and the versions that a ratio belongs to, in one line."""
    names = ("torch", "numpy", "scikit-learn", "av", "opencv-python-headless", "facenet-pytorch", "dlib-bin")
    return ", ".join(
        [f"{os.cpu_count()} x {platform.machine()}", platform.system(), f"Python {platform.python_version()}"]
        + [f"{name} {version(name)}" for name in names]
    )
