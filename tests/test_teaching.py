"""The teacher's guide and the students' quick start say what is true."""

import json
import re

import pytest

from deepfake_course import _classroom, _cli, _grader, _sandbox
from deepfake_course._grader import is_test, meta, text


@pytest.fixture(scope="module")
def guide(root):
    return (root / "TEACHING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def quick(root):
    return (root / "QUICKSTART.md").read_text(encoding="utf-8")


def test_the_guide_names_what_is_there(root, guide):
    lessons = {path.name[:2] for path in (root / "nbs").glob("[0-9]*.ipynb")}
    plan = guide.split("| week |")[1].split("\n\n")[0]
    column = "\n".join(line.split("|")[2] for line in plan.splitlines() if line.count("|") > 3)
    named = set(re.findall(r"\b\d\d\b", column))
    for low, high in re.findall(r"(\d\d) to (\d\d)", column):
        named |= {one for one in lessons if low <= one <= high}
    assert named <= lessons, named - lessons
    assert not lessons - named, "lessons without a week"
    assert {*re.findall(r"`(\w+)` \|$", plan, re.M)} == set(_classroom.NAMES)
    minutes = re.findall(r"^\| \[\d\d\].*\| (\d+) \|$", (root / "README.md").read_text(encoding="utf-8"), re.M)
    assert f"sum to\n{sum(map(int, minutes)) // 60} hours" in guide
    assert all(word in guide.lower() for word in ("rubric", "consent", "hub", "licensed", "get wrong"))


def test_the_guide_counts_points_and_limits(guide):
    for name in _classroom.NAMES:
        nb = json.loads(_classroom.source(name).read_text())
        assert sum(meta(cell).get("points", 0) for cell in nb["cells"]) == 12
        assert f"| `{name}` | " in guide and "12 points each" in guide
    flat = " ".join(guide.split())
    assert f"{_grader.CELL_SECONDS} seconds of computing a cell, and {_grader.ALL_SECONDS} seconds on the clock" in flat
    assert "3 GB of memory, 64 processes" in flat and _sandbox.Worker.__init__.__defaults__[-2:] == (3 << 30, 64)


def test_commands_that_are_written_down_exist(guide, quick):
    known = {one.name for one in _cli.assignments_app.registered_commands}
    used = set(re.findall(r"deepfake-course assignments ([a-z]+)", guide + quick))
    assert used <= known and used >= {"release", "collect", "grade", "feedback", "export", "prove", "validate", "rehearse"}
    flags = set(re.findall(r"`(--[a-z]+)`", guide))
    assert flags <= {"--help", "--json", "--replace", "--due", "--unsafe", "--again"}


def test_the_quick_start_is_one_page_and_quotes_a_real_message(quick):
    assert len(quick.splitlines()) <= 60 and max(map(len, quick.splitlines())) <= 120
    shown = re.search(r"not yet  (\S+) \(3 points\)\n\s+(.+)", quick)
    nb = json.loads(_classroom.source("intra_database").read_text())
    cell = next(cell for cell in nb["cells"] if meta(cell).get("grade_id") == shown[1])
    assert is_test(cell) and shown[2].strip() in text(cell)
    flat = " ".join(quick.split())
    assert f"compute for {_grader.CELL_SECONDS} seconds and the notebook take {_grader.ALL_SECONDS}" in flat
