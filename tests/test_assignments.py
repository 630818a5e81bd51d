"""The five assignments: their sources are sound, and their graders are proven by wrong answers."""

import ast
import importlib
import json
import pkgutil
import re

import pytest
from lesson_checks import EMOJI, MACHINE_PATH, lesson_files

import deepfake_course
from deepfake_course import _classroom, _grader, _homework, _sandbox
from deepfake_course._grader import is_gap, is_test, meta, text

WHY_NOT = _sandbox.why_not()
NAMES = _classroom.NAMES


def notebook(name):
    return json.loads(_classroom.source(name).read_text(encoding="utf-8"))


def cells(name, wanted):
    return [cell for cell in notebook(name)["cells"] if wanted(cell)]


def test_all_five_are_there(root):
    folders = {path.name for path in (root / "nbs/assignments/source").iterdir()}
    assert folders == set(NAMES) == {path.stem for path in (root / "nbs/assignments/wrong").iterdir()}
    assert all(len(list(_classroom.source(name).parent.iterdir())) == 1 for name in NAMES), "other files are handed out"


@pytest.mark.parametrize("name", NAMES)
def test_notes_of_cells_are_whole(name):
    nb = notebook(name)
    ids = [meta(cell)["grade_id"] for cell in nb["cells"] if meta(cell)]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", one) for one in ids)
    for cell in nb["cells"]:
        if is_test(cell):
            visible, hidden = _grader.split(text(cell))
            assert "assert " in visible and len(hidden.splitlines()) > 5 and meta(cell)["locked"]
            assert "HIDDEN" not in visible and all(isinstance(ast.parse(part), ast.Module) for part in (visible, hidden))
        if meta(cell).get("solution"):
            assert text(cell).count("### BEGIN SOLUTION") == text(cell).count("### END SOLUTION") == 1
        assert not cell.get("outputs") and meta(cell).get("schema_version", 3) == 3


@pytest.mark.parametrize("name", NAMES)
def test_shape_of_an_assignment(name):
    nb = notebook(name)
    order = ["gap" if is_gap(cell) else "test" for cell in nb["cells"] if is_gap(cell) or is_test(cell)]
    assert re.fullmatch("((gap,){1,3}test,)+", ",".join(order) + ","), "at most three gaps before the next test"
    assert sum(meta(cell).get("points", 0) for cell in nb["cells"]) == 12
    everything = "\n".join(map(text, nb["cells"]))
    words = text(next(cell for cell in nb["cells"] if "Rubric" in text(cell)))
    assert re.search(r"Time: about [678]\d minutes", everything) and words.count("1 point:") == 3
    assert not EMOJI.search(everything) and not MACHINE_PATH.search(everything)
    assert f'STUDENT = "{_homework.PLACEHOLDER}"' in everything
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            assert max(map(len, text(cell).splitlines())) <= 120, text(cell)
    for gap in cells(name, is_gap):
        solution = text(gap).split("BEGIN SOLUTION")[1].splitlines()[1:-1]
        assert len(solution) <= 6, "only what proves understanding is stripped"


@pytest.mark.parametrize("name", NAMES)
def test_what_students_get_holds_no_answers(name):
    source, given = notebook(name), _grader.release(notebook(name))
    everything = "\n".join(map(text, given["cells"]))
    assert "SOLUTION" not in everything and "HIDDEN" not in everything
    for cell in source["cells"]:
        if meta(cell).get("solution"):
            lines = [line.strip() for line in text(cell).split("BEGIN SOLUTION")[1].splitlines()[1:-1]]
            assert not any(line in everything for line in lines if len(line) > 25)
    assert everything.count("NotImplementedError") == len(_grader.exercises(source)) == 3


def exported():
    "Name -> object, of everything that a lesson exports."
    for info in pkgutil.iter_modules(deepfake_course.__path__):
        if not info.name.startswith("_"):
            path = f"{deepfake_course.__path__[0]}/{info.name}.py"
            tree = ast.parse(open(path, encoding="utf-8").read())
            for node in tree.body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                    yield from ((name, info.name) for name in ast.literal_eval(node.value))


@pytest.mark.parametrize("name", NAMES)
def test_the_library_has_no_answer_by_its_name(name):
    made = set().union(*(_grader.defined(_grader.release({"cells": [gap]})["cells"][0]["source"])
                         for gap in cells(name, is_gap)))  # fmt: skip
    assert len(made) == 3 and not made & {one for one, _ in exported()}


class Direct:
    "Answers hidden tests with functions of this process."

    student = "ana"

    def __init__(self, answer):
        self.answer = answer

    def ask(self, name, *args, **options):
        try:
            return self.answer(*args, **options)
        except Exception as error:
            raise AssertionError(f"{name} raises {error}") from None

    def value(self, name):
        raise AssertionError("no notebook")


PURE = ("metrics", "splits")  # of the modules that assignments import, those with functions of a few arrays


@pytest.mark.parametrize("name", NAMES)
def test_the_library_has_no_answer_by_another_name(name):
    "Every exported function of the light modules stands in for each exercise; none may pass the hidden tests."
    found = [getattr(importlib.import_module(f"deepfake_course.{module}"), one) for one, module in exported() if module in PURE]
    functions = [one for one in found if callable(one) and not isinstance(one, type)]
    assert len(functions) > 30
    for test in cells(name, is_test):
        hidden = re.sub(r"^close\(value\(.*?\n(?=\S|\Z)", "", _grader.split(text(test))[1] + "\n", flags=re.M | re.S)
        for one in functions:
            if one.__name__.startswith(("show_", "leak_")):
                continue
            assert _grader.hidden_problem(hidden, name, Direct(one)), f"{one.__name__} answers {meta(test)['grade_id']}"


@pytest.mark.parametrize("name,student", [*((name, "ana") for name in NAMES), ("metric_learning", "bo")])
def test_proven_by_wrong_answers(name, student):
    rows = _grader.prove(_classroom.source(name), _classroom.wrong(name), unsafe=bool(WHY_NOT), student=student)
    assert len(rows) == 3
    for row in rows:
        assert not _grader.unproven(row), _grader.unproven(row)
        assert row["release"] == 0 and row["solution"] == row["full"] == 3 and len(row["mutants"]) >= 3


def test_proof_fails_when_it_should(tmp_path):
    "A grader that lets a wrong answer through, and a solution that is wrong, are found."
    nb = notebook("metric_learning")
    wrong = tmp_path / "wrong.py"
    solution = text(next(cell for cell in nb["cells"] if meta(cell).get("grade_id") == "easy"))
    wrong.write_text(f"# %% easy: the solution itself\n{solution}\n\n# %% easy: does not run\n1/0\n")
    for cell in nb["cells"]:
        if meta(cell).get("grade_id") == "pairs":
            cell["source"] = text(cell).replace("margin - far", "margin + far")
    source = tmp_path / "metric_learning.ipynb"
    source.write_text(json.dumps(nb))
    rows = {row["exercise"]: _grader.unproven(row) for row in _grader.prove(source, wrong, unsafe=True)}
    assert "the solution scores 0 of 3" in rows["pairs"] and "three are needed" in rows["recall"]
    assert "'the solution itself' scores 3" in rows["easy"] and "'does not run' does not run" in rows["easy"]
    wrong.write_text("# %% nothing: x\npass\n")
    with pytest.raises(ValueError, match="no exercise of"):
        _grader.prove(source, wrong, unsafe=True)


def test_data_and_constants_are_a_students_own():
    one, two, again = (_homework.Homework("attacks", who) for who in ("ana", "bo", "Ana"))
    options = list(range(1000))
    assert one.choose("eps", options) == again.choose("eps", options) != two.choose("eps", options)
    assert one.rng.random() != two.rng.random()
    data = [_homework.Homework("intra_database", f"s{k}").faces("A") for k in range(8)]
    assert len({tuple(sorted(set(each.person))) for each in data}) > 2
    assert all(len(each.y) == len(each.grey) == len(each.emb) and set(each.y) == {0, 1} for each in data)
    with pytest.raises(ValueError, match="no database 'Z'"):
        one.faces("Z")


@pytest.mark.parametrize("given", ["", " ", _homework.PLACEHOLDER, "../"])
def test_an_id_is_asked_for(given, monkeypatch):
    monkeypatch.delenv("DEEPFAKE_COURSE_STUDENT", raising=False)
    with pytest.raises(ValueError, match="write your own id"):
        _homework.begin("attacks", given)


def test_pictures_and_net():
    import torch

    me = _homework.Homework("attacks", "ana")
    faces, net = me.pictures(12), me.net()
    assert faces.x.shape == (12, 3, 64, 64) and 0 <= faces.x.min() <= faces.x.max() <= 1 and faces.y.sum() == 6
    with torch.no_grad():
        assert ((net(torch.from_numpy(faces.x)) > 0).numpy() == faces.y).all()


def test_lessons_do_not_see_the_assignments(root):
    assert "recursive = False" in (root / "settings.ini").read_text(), "nbdev would walk into nbs/assignments"
    assert not [path for path in lesson_files(root / "nbs") if "assignments" in path.parts]
