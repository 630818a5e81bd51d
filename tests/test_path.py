"""Each lesson stands on the lower numbers alone, and the library is what the lessons export.

Every notebook runs in a process of its own, in a temporary project whose package holds the modules
of the lower numbers and nothing else; not even the lesson's own module is there. Since an export
reads a notebook without running it, the modules can be made first and the lessons run two at a
time. The hand-written modules (`__init__.py`, `_guard.py`, `_cli.py` and the other names with an
underscore) are machinery, not lessons: they are copied in at the start. In the end the temporary
package must equal the committed one byte by byte, `_modidx.py` and `__init__.py` included.
"""

import re
import shutil

import pytest
from fixtures import tiny
from lesson_checks import PACKAGE, lesson_files
from lesson_runner import (
    copy_project,
    export_all,
    link,
    machinery,
    package_files,
    run_lesson,
    start_all,
    tail,
)

ROOT = tiny.ROOT
LESSONS = [p.name for p in lesson_files(ROOT / "nbs")]


def fresh_export(root, target):
    "A temporary project with every module exported anew from the notebooks."
    fresh = copy_project(root, target)
    error = export_all(fresh)
    assert not error, f"nbdev_export fails:\n{tail(error)}"
    return fresh


def run_on_lower(fresh, notebook, target):
    "Run one lesson where only the modules of the lower numbers exist."
    place = copy_project(fresh, target, data=link)
    for lower in lesson_files(fresh / "nbs"):
        if lower.name < notebook:
            module = fresh / PACKAGE / f"{lower.stem.partition('_')[2]}.py"
            if module.is_file():
                shutil.copy2(module, place / PACKAGE)
    return run_lesson(place, notebook)


def run_problem(outcome):
    "One sentence on a lesson that failed, or an empty string."
    name, own = outcome.lesson, outcome.lesson.partition("_")[2].removesuffix(".ipynb")
    if outcome.ok and outcome.left:
        left = ", ".join(outcome.left)
        return f"{name} leaves {left} behind: write to a temporary folder or to cache_dir()"
    if outcome.ok:
        return ""
    missing = re.search(rf"No module named '{PACKAGE}\.(\w+)'", outcome.error)
    missing = missing or re.search(rf"cannot import name '(\w+)' from '{PACKAGE}'", outcome.error)
    if missing and missing[1] == own:
        why = f"it imports its own module {PACKAGE}.{own}: use the names defined in its cells"
    elif missing:
        why = (
            f"it imports {PACKAGE}.{missing[1]}, which no lower number makes: "
            "move the code down, or renumber the lessons"
        )
    else:
        why = "run it alone, top to bottom, in a new kernel: does it need what another lesson set?"
    return f"{name} fails with only the lessons below it: {why}\n{tail(outcome.error)}"


def package_problems(root, fresh):
    "Where the committed package differs from a fresh export, in sentences."
    there = {name: p.read_bytes() for name, p in package_files(root / PACKAGE).items()}
    made = {name: p.read_bytes() for name, p in package_files(fresh / PACKAGE).items()}
    source = {p.stem.partition("_")[2] + ".py": p.name for p in lesson_files(root / "nbs")}
    found = [
        f"{PACKAGE}/{n} is an orphan, no notebook makes it: delete it and run nbdev_export"
        for n in sorted(set(there) - set(made))
    ]
    for name in sorted(made):
        notebook = source.get(name, "the notebooks")
        if name not in there:
            found.append(
                f"{PACKAGE}/{name} is missing: run nbdev_export (it comes from {notebook})"
            )
        elif there[name] != made[name]:
            pairs = zip(there[name].split(b"\n") + [b""], made[name].split(b"\n") + [b""])
            line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), 0)
            found.append(
                f"{PACKAGE}/{name} is not what {notebook} exports, first in line {line}: run "
                "nbdev_export if the notebook is right, or carry an edit of the .py back with "
                f"'nbdev_update {PACKAGE}/{name}'"
            )
    return found


# The course itself


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return fresh_export(ROOT, tmp_path_factory.mktemp("path") / "all")


@pytest.fixture(scope="module")
def runs(fresh):
    folder = fresh.parent
    return start_all(
        lambda name: run_on_lower(fresh, name, folder / name.removesuffix(".ipynb")), LESSONS
    )


def test_package_is_a_fresh_export(fresh):
    found = package_problems(ROOT, fresh)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_stands_on_lower_numbers(name, runs, lesson_times):
    outcome = runs[name].result()
    lesson_times.append(("path", name, outcome.seconds))
    assert not run_problem(outcome), run_problem(outcome)


# It fails when it should, on a tiny course of two lessons


def run_tiny(root, tmp_path):
    made = fresh_export(root, tmp_path / "fresh")
    names = [p.name for p in lesson_files(root / "nbs")]
    runs = start_all(
        lambda name: run_on_lower(made, name, tmp_path / name.removesuffix(".ipynb")), names
    )
    return [run_problem(runs[name].result()) for name in names]


def bend_upward(root):
    tiny.edit(
        root, "00_first", "assert abs", f"from {PACKAGE}.second import twice_area\nassert abs"
    )


def bend_upward_exported(root):
    tiny.edit(root, "00_first", "import math", f"import math\nfrom {PACKAGE} import second")


def bend_own_module(root):
    tiny.edit(
        root,
        "01_second",
        "assert twice_area(2)",
        f"from {PACKAGE}.second import twice_area\nassert twice_area(2)",
    )


def bend_state(root):
    "The first lesson leaves a setting behind that the second one needs."
    tiny.edit(
        root, "00_first", "assert abs", "import os\nos.environ['TINY_UNIT'] = 'cm'\nassert abs"
    )
    tiny.edit(
        root,
        "01_second",
        "assert twice_area(2)",
        "import os\nos.environ['TINY_UNIT']\nassert twice_area(2)",
    )


def bend_litter(root):
    tiny.edit(
        root,
        "01_second",
        "assert twice_area(2)",
        "open('notes.txt', 'w').close()\nassert twice_area(2)",
    )


RUNS = [  # bend, words in the problem of 00_first, words in the problem of 01_second
    (None, (), ()),
    (bend_upward, ["00_first.ipynb", f"{PACKAGE}.second", "no lower number makes", "renumber"], ()),
    (
        bend_upward_exported,
        ["00_first.ipynb", f"{PACKAGE}.second", "no lower number makes"],
        ["01_second.ipynb"],
    ),
    (bend_own_module, (), ["01_second.ipynb", "its own module"]),
    (bend_state, (), ["01_second.ipynb", "TINY_UNIT", "new kernel"]),
    (bend_litter, (), ["01_second.ipynb", "nbs/notes.txt", "temporary folder"]),
]


@pytest.mark.parametrize(
    "bend,first,second", RUNS, ids=[r[0].__name__ if r[0] else "good" for r in RUNS]
)
def test_a_run_catches(bend, first, second, tiny_course, tmp_path):
    root = tiny_course()
    if bend:
        bend(root)
    for problem, words in zip(run_tiny(root, tmp_path), (first, second)):
        assert bool(problem) == bool(words), problem
        assert all(word in problem for word in words), problem


def bend_stale(root):
    tiny.edit(root, "01_second", "return 2*area(r)", "return area(r)+area(r)")


def bend_hand_edit(root):
    tiny.swap(root / PACKAGE / "first.py", "r**2", "r*r")


def bend_orphan(root):
    shutil.copy2(root / PACKAGE / "first.py", root / PACKAGE / "primary.py")


def bend_folder(root):
    (root / PACKAGE / "parts").mkdir()
    (root / PACKAGE / "parts" / "third.py").write_text("", encoding="utf-8")


def bend_renamed(root):
    "The notebook got a new name, the module kept the old one."
    (root / "nbs" / "01_second.ipynb").rename(root / "nbs" / "01_pair.ipynb")
    tiny.edit(root, "01_pair", "default_exp second", "default_exp pair")


def bend_missing(root):
    (root / PACKAGE / "first.py").unlink()


def bend_index(root):
    (root / PACKAGE / "_modidx.py").write_text("d = {}\n", encoding="utf-8")


def bend_version(root):
    tiny.swap(root / "settings.ini", "version = 0.1.0", "version = 0.2.0")


EXPORTS = [  # bend, for each problem the words in it
    (None, []),
    (bend_stale, [["second.py", "01_second.ipynb", "run nbdev_export"]]),
    (bend_hand_edit, [["first.py", "00_first.ipynb", "nbdev_update"]]),
    (bend_orphan, [["primary.py", "orphan", "delete it"]]),
    (bend_folder, [["parts/third.py", "orphan"]]),
    (
        bend_renamed,
        [["second.py", "orphan"], ["_modidx.py"], ["pair.py", "missing", "01_pair.ipynb"]],
    ),
    (bend_missing, [["first.py", "missing", "run nbdev_export"]]),
    (bend_index, [["_modidx.py", "run nbdev_export"]]),
    (bend_version, [["__init__.py", "run nbdev_export"]]),
]


@pytest.mark.parametrize(
    "bend,expected", EXPORTS, ids=[e[0].__name__ if e[0] else "good" for e in EXPORTS]
)
def test_the_comparison_catches(bend, expected, tiny_course, tmp_path):
    root = tiny_course()
    if bend:
        bend(root)
    found = package_problems(root, fresh_export(root, tmp_path / "fresh"))
    assert len(found) == len(expected), found
    for problem, words in zip(found, expected):
        assert all(word in problem for word in words), found


def test_an_endless_lesson_is_stopped(tiny_course, tmp_path, monkeypatch):
    root = tiny_course()
    tiny.edit(root, "00_first", "assert abs", "while True: pass\nassert abs")
    place = copy_project(root, tmp_path / "place")
    outcome = run_lesson(place, "00_first.ipynb", timeout=4)
    assert not outcome.ok and "stopped after 4 s" in run_problem(outcome)


def test_another_package_is_refused(tiny_course, tmp_path):
    "An installed package must not stand in for the one under test."
    root = tiny_course()
    place = copy_project(root, tmp_path / "place", package="")
    outcome = run_lesson(place, "01_second.ipynb")
    assert not outcome.ok and (
        "not the package in" in outcome.error or "No module named" in outcome.error
    )


def test_machinery_is_copied_and_nothing_else(tiny_course, tmp_path):
    root = tiny_course()
    (root / "nbs" / "_scratch.ipynb").write_text("{}", encoding="utf-8")
    copy = copy_project(root, tmp_path / "copy")
    names = {p.name for p in (copy / PACKAGE).iterdir()}
    assert names == set(machinery(root / PACKAGE)) == {"__init__.py", "_tools.py"}
    assert [p.name for p in (copy / "nbs").iterdir()] == ["00_first.ipynb", "01_second.ipynb"]
