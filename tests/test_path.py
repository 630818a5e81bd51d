"""Each lesson stands on the lower numbers, and the library is what the lessons export.

`nbdev_test` runs every notebook as it is. Here each runs once more, in a process and a temporary
project of its own, and two things are different. The package holds the modules of the lesson's
number and below, exported anew, and nothing else. And the exported cells are replaced by the
module they make: a name that only a plain cell defines is at hand in the notebook and missing in
the library, so `nbdev_test` says Success and whoever imports the module gets a `NameError`. The
first exported cell brings in everything that the module holds, the others are empty, the rest runs
as it is; a function finds its names in its own module, so a leak shows. (That a lesson imports its
own module is seen without running, by the `upward` rule of `lesson_checks.py`.)

The hand-written modules (`__init__.py`, `_guard.py`, `_cli.py` and the other names with an
underscore) are machinery, not lessons: they are copied in at the start. In the end the temporary
package must equal the committed one byte by byte, `_modidx.py` and `__init__.py` included.
"""

import json
import re
import shutil

import pytest
from fixtures import tiny
from lesson_checks import PACKAGE, from_dict, lesson_files
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
BRING_IN = """import {package}.{module} as _module
globals().update({{k: v for k, v in vars(_module).items() if not k.startswith("__")}})
del _module"""


def fresh_export(root, target):
    "A temporary project with every module exported anew from the notebooks."
    fresh = copy_project(root, target)
    error = export_all(fresh)
    assert not error, f"nbdev_export fails:\n{tail(error)}"
    return fresh


def with_module(nb, module):
    "Notebook JSON whose exported cells are replaced by the module."
    new, first = json.loads(json.dumps(nb)), True
    for raw, cell in zip(new["cells"], from_dict(nb, f"00_{module}.ipynb").cells):
        if cell.exported:
            raw["source"] = BRING_IN.format(package=PACKAGE, module=module) if first else ""
            first = False
    return new


def run_alone(fresh, notebook, target):
    "Run one lesson against its module, where only the modules of its number and below exist."
    place = copy_project(fresh, target, data=link)
    for lesson in lesson_files(fresh / "nbs"):
        if lesson.name <= notebook:
            module = fresh / PACKAGE / f"{lesson.stem.partition('_')[2]}.py"
            if module.is_file():
                shutil.copy2(module, place / PACKAGE)
    path = place / "nbs" / notebook
    nb = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(with_module(nb, path.stem.partition("_")[2])), encoding="utf-8")
    return run_lesson(place, notebook)


def run_problem(outcome):
    "One sentence on a lesson that failed, or an empty string."
    name, own = outcome.lesson, outcome.lesson.partition("_")[2].removesuffix(".ipynb")
    if outcome.ok and outcome.left:
        left = ", ".join(outcome.left)
        return f"{name} leaves {left} behind: write to a temporary folder or to cache_dir()"
    if outcome.ok:
        return ""
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.error)
    missing = re.search(rf"No module named '{PACKAGE}\.(\w+)'", text)
    missing = missing or re.search(rf"cannot import name '(\w+)' from '{PACKAGE}'", text)
    leaked = re.search(r"NameError: name '(\w+)' is not defined", text)
    if missing:
        why = (
            f"it imports {PACKAGE}.{missing[1]}, which no lower number makes: "
            "move the code down, or renumber the lessons"
        )
    elif leaked:
        why = (
            f"{leaked[1]} is missing in {PACKAGE}/{own}.py: define or import it in an exported "
            "cell, a plain cell does not reach the library"
        )
    else:
        why = (
            "run it alone, top to bottom, in a new kernel. If it passes there, look for what "
            "another lesson sets, or for a plain cell that changes an exported name"
        )
    return f"{name} fails alone, on its module and the lessons below it: {why}\n{tail(text)}"


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
def runs(fresh, request):
    "Futures of the lessons that this session asks for (`-k` narrows them), two at a time."
    here = [item for item in request.session.items if item.path == request.path]
    asked = {item.callspec.params["name"] for item in here if "runs" in item.fixturenames}
    return start_all(
        lambda name: run_alone(fresh, name, fresh.parent / name.removesuffix(".ipynb")),
        [name for name in LESSONS if name in asked],
    )


def test_package_is_a_fresh_export(fresh):
    found = package_problems(ROOT, fresh)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_stands_on_its_module_and_the_lower_numbers(name, runs, lesson_times):
    outcome = runs[name].result()
    lesson_times.append((name, outcome.seconds))
    assert not run_problem(outcome), run_problem(outcome)


# It fails when it should, on a tiny course of two lessons


def run_tiny(root, tmp_path):
    made = fresh_export(root, tmp_path / "fresh")
    names = [p.name for p in lesson_files(root / "nbs")]
    runs = start_all(
        lambda name: run_alone(made, name, tmp_path / name.removesuffix(".ipynb")), names
    )
    return [run_problem(runs[name].result()) for name in names]


def bend_upward(root):
    tiny.edit(
        root, "00_first", "assert abs", f"from {PACKAGE}.second import twice_area\nassert abs"
    )


def bend_upward_exported(root):
    tiny.edit(root, "00_first", "import math", f"import math\nfrom {PACKAGE} import second")


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


def bend_leaked_import(root):
    "`math` is imported in the plain cell only; the notebook does not mind."
    tiny.edit(root, "00_first", "#| export\nimport math", "import math")


def bend_leaked_constant(root):
    tiny.edit(root, "01_second", "import math", "import math\nDISCS = 2")
    tiny.edit(root, "01_second", "return 2*area(r)", "return DISCS*area(r)")


def bend_leaked_in_a_branch(root):
    "The lesson's refusal test reaches the branch."
    tiny.edit(
        root, "00_first", "return math.pi", "if r<0: raise ValueError(MESSAGE)\n    return math.pi"
    )
    tiny.edit(
        root,
        "00_first",
        "assert abs",
        "from fastcore.test import expect_fail\nMESSAGE = 'r < 0'\n"
        "with expect_fail(ValueError, 'r < 0'): area(-1)\nassert abs",
    )


def bend_plain_change(root):
    "A plain cell changes an exported name: the notebook's function sees it, the module's does not."
    tiny.edit(root, "01_second", "import math", "import math\nfrom fastcore.test import test_eq")
    tiny.edit(
        root,
        "01_second",
        "assert twice_area(2)",
        "kept, area = area, lambda r: 1\ntest_eq(twice_area(3), 2)\narea = kept\nassert twice_area(2)",
    )


RUNS = [  # bend, words in the problem of 00_first, words in the problem of 01_second
    (None, (), ()),
    (bend_upward, ["00_first.ipynb", f"{PACKAGE}.second", "no lower number makes", "renumber"], ()),
    (
        bend_upward_exported,
        ["00_first.ipynb", f"{PACKAGE}.second", "no lower number makes"],
        (),
    ),
    (bend_state, (), ["01_second.ipynb", "TINY_UNIT", "new kernel"]),
    (bend_litter, (), ["01_second.ipynb", "nbs/notes.txt", "temporary folder"]),
    (
        bend_leaked_import,
        ["00_first.ipynb", "math is missing in deepfake_course/first.py", "exported cell"],
        ["01_second.ipynb"],
    ),
    (bend_leaked_constant, (), ["01_second.ipynb", "DISCS is missing in deepfake_course/second.py"]),
    (bend_leaked_in_a_branch, ["00_first.ipynb", "MESSAGE"], ()),
    (bend_plain_change, (), ["01_second.ipynb", "a plain cell that changes an exported name"]),
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


@pytest.mark.parametrize(
    "bend,lesson", [(bend_leaked_import, "00_first.ipynb"), (bend_plain_change, "01_second.ipynb")]
)
def test_a_leak_passes_the_notebook(bend, lesson, tiny_course, tmp_path):
    "The control: nbdev's own test of the notebook sees nothing."
    root = tiny_course()
    bend(root)
    tiny.export(root)
    place = copy_project(root, tmp_path / "place", package="whole")
    assert run_lesson(place, lesson).ok


def test_only_exported_cells_are_replaced():
    nb = tiny.notebook(tiny.FIRST)
    new = with_module(nb, "first")
    changed = [
        i
        for i, (a, b) in enumerate(zip(nb["cells"], new["cells"]))
        if "".join(a["source"]) != b["source"] and a != b
    ]
    assert changed == [2, 3]
    assert (
        f"import {PACKAGE}.first" in new["cells"][2]["source"] and new["cells"][3]["source"] == ""
    )
