"""Each lesson again, with its exported cells replaced by the module they make.

A name that only a plain cell defines is at hand in the notebook and missing in the library: the
lesson runs, `nbdev_test` says Success, and whoever imports the module gets a `NameError`. Here the
first exported cell brings in everything that the real module holds, the other exported cells are
empty, and the rest runs as it is. A function finds its names in its own module, so a leak shows.
"""

import json
import re

import pytest
from fixtures import tiny
from lesson_checks import PACKAGE, from_dict, lesson_files
from lesson_runner import copy_project, link, run_lesson, start_all, tail

ROOT = tiny.ROOT
LESSONS = [p.name for p in lesson_files(ROOT / "nbs")]
BRING_IN = """import {package}.{module} as _module
globals().update({{k: v for k, v in vars(_module).items() if not k.startswith("__")}})
del _module"""


def with_module(nb, module):
    "Notebook JSON whose exported cells are replaced by the module."
    new, first = json.loads(json.dumps(nb)), True
    for raw, cell in zip(new["cells"], from_dict(nb, f"00_{module}.ipynb").cells):
        if cell.exported:
            raw["source"] = BRING_IN.format(package=PACKAGE, module=module) if first else ""
            first = False
    return new


def run_with_module(project, notebook, target):
    "Run one lesson of a project against the project's modules as they are, in a temporary copy."
    place = copy_project(project, target, package="whole", data=link)
    path = place / "nbs" / notebook
    nb = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(with_module(nb, path.stem.partition("_")[2])), encoding="utf-8")
    return run_lesson(place, notebook)


def problem(outcome):
    "One sentence on a lesson that fails with its module, or an empty string."
    if outcome.ok:
        return ""
    name, module = outcome.lesson, outcome.lesson.partition("_")[2].removesuffix(".ipynb")
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.error)
    missing = re.search(r"NameError: name '(\w+)' is not defined", text)
    if missing:
        why = (
            f"{missing[1]} is missing in {PACKAGE}/{module}.py: define or import it in an exported "
            "cell, a plain cell does not reach the library"
        )
    else:
        why = (
            f"{PACKAGE}/{module}.py does not do what the cells do: run nbdev_export, then look for "
            "a plain cell that changes an exported name"
        )
    return f"{name} fails with its exported cells replaced by the module: {why}\n{tail(text)}"


# The course itself


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    copy = copy_project(
        ROOT, folder / "all", package="whole"
    )  # lessons get links to this copy, never to the originals
    return start_all(
        lambda name: run_with_module(copy, name, folder / name.removesuffix(".ipynb")), LESSONS
    )


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_runs_on_its_module(name, runs, lesson_times):
    outcome = runs[name].result()
    lesson_times.append(("modules", name, outcome.seconds))
    assert outcome.ok, problem(outcome)


# It fails when it should, on a tiny course of two lessons


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


def bend_stale_module(root):
    tiny.swap(root / PACKAGE / "first.py", "r**2", "r**3")


BENDS = [  # bend, words in the problem of 00_first, words in the problem of 01_second
    (None, (), ()),
    (
        bend_leaked_import,
        ["00_first.ipynb", "math is missing in deepfake_course/first.py", "exported cell"],
        ["01_second.ipynb"],
    ),
    (
        bend_leaked_constant,
        (),
        ["01_second.ipynb", "DISCS is missing in deepfake_course/second.py"],
    ),
    (bend_leaked_in_a_branch, ["00_first.ipynb", "MESSAGE"], ()),
    (bend_stale_module, ["00_first.ipynb", "run nbdev_export"], ()),
]


@pytest.mark.parametrize(
    "bend,first,second", BENDS, ids=[b[0].__name__ if b[0] else "good" for b in BENDS]
)
def test_the_module_test_catches(bend, first, second, tiny_course, tmp_path):
    root = tiny_course()
    if bend:
        bend(root)
    if bend not in (None, bend_stale_module):
        tiny.export(root)
    names = [p.name for p in lesson_files(root / "nbs")]
    runs = start_all(
        lambda name: run_with_module(root, name, tmp_path / name.removesuffix(".ipynb")), names
    )
    for name, words in zip(names, (first, second)):
        outcome = runs[name].result()
        assert outcome.ok == (not words), outcome.error
        assert all(word in problem(outcome) for word in words), problem(outcome)


def test_leaks_pass_the_notebook(tiny_course, tmp_path):
    "The control: nbdev's own test of the notebook sees nothing."
    root = tiny_course()
    bend_leaked_import(root)
    tiny.export(root)
    place = copy_project(root, tmp_path / "place")
    assert run_lesson(place, "00_first.ipynb").ok


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
