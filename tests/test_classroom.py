"""A class, from the hand-out to the grades: three students in five assignments, and everything that goes wrong."""

import csv
import io
import json
import os
import re
import shutil
import time
import unicodedata
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepfake_course import _classroom, _grader, _homework, _sandbox
from deepfake_course._cli import app, assignments_app
from deepfake_course._grader import is_test, meta, text
from deepfake_course._homework import student_id

pytest.importorskip("nbgrader", reason="nbgrader is not installed: python -m pip install -e '.[grading]'")
WHY_NOT = _sandbox.why_not()
UNSAFE = bool(WHY_NOT)  # the marks are tested everywhere; containment is in test_sandbox.py, which skips and says why
NAME = "intra_database"


def solved(nb, name, wrong=0, words=True):
    "A released notebook with the solutions in it, the first `wrong` exercises answered wrongly."
    master = json.loads(_classroom.source(name).read_text())
    answers = {meta(cell)["grade_id"]: _grader.solution(cell) for cell in master["cells"] if meta(cell).get("solution")}
    mutants = {gap: code for gap, _, code in _grader.read_mutants(_classroom.wrong(name))}
    answers |= {gap: mutants[gap] for gap in list(_grader.exercises(master))[:wrong]}
    nb = json.loads(json.dumps(nb))
    for cell in nb["cells"]:
        if meta(cell).get("solution") and (words or cell["cell_type"] == "code"):
            cell["source"] = answers[meta(cell)["grade_id"]]
    return nb


def released(folder, name=NAME):
    return json.loads((folder / "release" / name / f"{name}.ipynb").read_text())


def put(place, name, nb):
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nb if isinstance(nb, str) else json.dumps(nb), encoding="utf-8")
    return path


def run(*args):
    done = CliRunner().invoke(app, ["assignments", *map(str, args)])
    return done.exit_code, done.output


def grades(folder):
    with open(folder / "grades.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def handed_out(tmp_path_factory):
    "A class folder with all five assignments released."
    folder = tmp_path_factory.mktemp("class") / "my class"
    code, told = run("release", "--class", folder)
    assert code == 0, told
    return folder


@pytest.fixture
def folder(handed_out, tmp_path):
    return Path(shutil.copytree(handed_out, tmp_path / "my class"))


def entry(nb, bend):
    nb = json.loads(json.dumps(nb))
    bend(nb)
    return nb


def script(nb):
    "An answer in words with more in it than words, and an output that is a page."
    for cell in nb["cells"]:
        if meta(cell).get("solution") and cell["cell_type"] == "markdown":
            cell["source"] += "\n\n<script>alert(17)</script><img src=x onerror=alert(18)>"
    page = "from IPython.display import HTML, display\ndisplay(HTML('<script>alert(19)</script>'))"
    nb["cells"].append({"cell_type": "code", "id": "page", "source": page, "metadata": {}, "outputs": [], "execution_count": None})


# The whole way


@pytest.fixture(scope="session")
def marked(handed_out, tmp_path_factory):
    "Three students in five assignments: all right, one exercise wrong, untouched; graded, fed back, exported."
    folder = Path(shutil.copytree(handed_out, tmp_path_factory.mktemp("marked") / "class"))
    for name in _classroom.NAMES:
        place = tmp_path_factory.mktemp(name)
        put(place, f"Müller_Ana (2)/{name}.ipynb", entry(solved(released(folder, name), name), script))
        put(place, f"bo/{name}.ipynb", solved(released(folder, name), name, wrong=1, words=False))
        put(place, f"cem/{name}.ipynb", released(folder, name))
        code, told = run("collect", name, place, "--class", folder)
        assert code == 0, told
    code, told = run("grade", "--class", folder, *["--unsafe"] * UNSAFE)
    assert code == 0, told
    for step in ("feedback", "export"):
        code, told = run(step, "--class", folder)
        assert code == 0, told
    return folder


def test_three_students_by_five(marked):
    rows = grades(marked)
    found = {(row["assignment"], row["student"]): row for row in rows}
    assert len(rows) == len(found) == 15
    for name in _classroom.NAMES:
        ana, bo, cem = (found[name, who] for who in ("Müller_Ana_2", "bo", "cem"))
        told = json.loads((marked / "collected" / f"{name}.grading.json").read_text(encoding="utf-8"))
        why = {row["student"]: row["messages"] for row in told}
        assert [row["points"] for row in (ana, bo, cem)] == ["9", "6", "0"], (name, why)
        assert [row["max"] for row in (ana, bo, cem)] == ["12"] * 3
        assert [row["status"] for row in (ana, bo, cem)] == ["to mark", "graded", "graded"]
        assert [row["to_mark"] for row in (ana, bo, cem)] == ["1", "0", "0"]


def mark_words(folder):
    "2.5 of 3 points, as the formgrader stores them."
    from deepfake_course import _nbgrader

    with _nbgrader.api(folder).gradebook as book:
        grade = book.find_grade("words", NAME, NAME, "Müller_Ana_2")
        grade.manual_score, grade.needs_manual_grade = 2.5, False
        book.db.commit()


def test_a_manual_mark_is_in_the_grades(marked, tmp_path):
    "As the formgrader stores it; the browser test enters one by hand."
    folder = Path(shutil.copytree(marked, tmp_path / "class"))
    mark_words(folder)
    run("export", "--class", folder)
    (row,) = [row for row in grades(folder) if row["student"] == "Müller_Ana_2" and row["assignment"] == NAME]
    assert (row["points"], row["code"], row["words"], row["status"]) == ("11.5", "9", "2.5", "graded")


def test_feedback_teaches_and_keeps_the_secret(marked):
    pages = sorted(marked.glob("feedback/*/*/*.html"))
    assert len(pages) == 15
    page = (marked / "feedback" / "bo" / NAME / f"{NAME}.html").read_text(encoding="utf-8")
    assert "take mean and spread from the training frames only" in page or "they were in training" in page
    words = (marked / "feedback" / "Müller_Ana_2" / NAME / f"{NAME}.html").read_text(encoding="utf-8")
    assert "Still untested" in words
    assert not re.search(r"<script>\s*alert|<img[^>]*onerror", words), "a student's script is in the page"
    assert "HIDDEN" not in page and "LeaveOneGroupOut" not in page and "def truth" not in page
    for path in marked.glob("autograded/*/*/*.ipynb"):
        assert "def truth" not in path.read_text(encoding="utf-8")


def test_release_is_nbgraders_and_ours(handed_out):
    for name in _classroom.NAMES:
        ours = _grader.release(json.loads(_classroom.source(name).read_text()))
        theirs = released(handed_out, name)
        assert [text(cell) for cell in theirs["cells"]] == [text(cell) for cell in ours["cells"]]
        everything = json.dumps(theirs)
        assert "SOLUTION" not in everything and "HIDDEN" not in everything and "def truth" not in everything


# What comes in


def strip(nb):
    for cell in nb["cells"]:
        cell["metadata"] = {}


def other_edition(nb):
    for cell in nb["cells"]:
        if is_test(cell):
            cell["metadata"]["nbgrader"]["checksum"] = "0" * 32


def drop(name):
    return lambda nb: nb["cells"].remove(next(cell for cell in nb["cells"] if meta(cell).get("grade_id") == name))


def double(name):
    return lambda nb: nb["cells"].append(next(cell for cell in nb["cells"] if meta(cell).get("grade_id") == name))


def kernel(nb):
    nb["metadata"] = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}


def tampered(nb):
    next(cell for cell in nb["cells"] if is_test(cell))["source"] = "pass"


BAD = [
    ("cells gone", drop("test-strangers"), "cells were deleted: test-strangers"),
    ("gap gone", drop("low-alarm"), "cells were deleted: low-alarm"),
    ("cells twice", double("jackknife"), "cells are there twice: jackknife"),
    ("stripped", strip, "notes of the cells are stripped"),
    ("wrong kernel", kernel, "its kernel is R"),
    ("last year", other_edition, "another edition"),
]


def test_bad_input_is_named_and_the_class_goes_on(folder, tmp_path):
    nb, place = released(folder), tmp_path / "in"
    for who, bend, _ in BAD:
        put(place, f"{who}/{NAME}.ipynb", entry(nb, bend))
    put(place, f"not json/{NAME}.ipynb", "{")
    put(place, f"not a notebook/{NAME}.ipynb", '{"cells": [1]}')
    put(place, f"deep/{NAME}.ipynb", "[" * 200_000)
    put(place, f"other/{NAME}.ipynb", released(folder, "attacks"))
    put(place, "pdf/answers.pdf", "%PDF")
    put(place, "loose.docx", "PK")
    put(place, f"two/a/{NAME}.ipynb", nb)
    put(place, f"two/b/{NAME} (1).ipynb", nb)
    put(place, f"{NAME}.ipynb", nb)
    (place / "empty").mkdir()
    put(place, f"good/{NAME}.ipynb", solved(nb, NAME))
    put(place, f"tampered/{NAME}.ipynb", entry(nb, tampered))
    code, told = run("collect", NAME, place, "--class", folder, "--json")
    assert code == 1
    rows = {row["student"]: row for row in json.loads(told[told.index("["): told.rindex("]") + 1])}
    wanted = {student_id(who): words for who, _, words in BAD} | {
        "not_json": "not a notebook", "not_a_notebook": "not a notebook", "deep": "not a notebook",
        "other": "another assignment", "pdf": "no notebook in", "loose": "is no notebook", "two": "2 notebooks of",
        "": "does not say whose it is", "empty": "no notebook in"}  # fmt: skip
    assert len(rows) == len(wanted) + 2 == len(list(place.iterdir()))
    for who, words in wanted.items():
        assert rows[who]["status"] == "error" and words in rows[who]["problem"], rows[who]
    assert rows["good"]["status"] == rows["tampered"]["status"] == "in"
    assert "locked cell test-strangers was changed" in rows["tampered"]["notes"][0]
    told = _classroom.grade(folder, NAME, unsafe=UNSAFE)
    assert {row["student"]: row["code"] for row in told} == {"good": 9, "tampered": 0}
    exported = {row["student"]: row for row in map(dict, _classroom.export(folder))}
    assert len(exported) == len(rows) and exported["empty"]["status"] == "error"
    assert exported["good"]["points"] == 9 and exported["stripped"]["points"] is None


def test_names_never_merge(folder, tmp_path):
    nb, place = released(folder), tmp_path / "in"
    names = ["Müller_Ana", "Müller_Ana (2)", "o'brien", "Ng, An", "李雷", "a b", "a.b@uni.example"]
    for who in names:
        put(place, f"{who}/{NAME}.ipynb", nb)
    rows = _classroom.collect(folder, NAME, [place])
    assert len({row["student"] for row in rows}) == len(names) and all(row["status"] == "in" for row in rows)
    (second,) = [row for row in rows if row["student"] == "Müller_Ana_2"]
    assert second["notes"] == ["may be a second file of Müller_Ana: look at both"]
    clash = tmp_path / "clash"
    for who in ("eva!", "eva?", "EVA", unicodedata.normalize("NFD", "Zoë"), "Zoë", "fine"):
        put(clash, f"{who}/{NAME}.ipynb", nb)
    rows = {row["file"]: row for row in _classroom.collect(folder, NAME, [clash]) if row["file"] not in {r["file"] for r in rows}}
    errors = [row for row in rows.values() if row["status"] == "error"]
    assert len(rows) == len(list(clash.iterdir())) and len(errors) == len(rows) - 1
    assert all("come down to the id" in row["problem"] for row in errors)


def test_later_files_do_not_replace_and_do_not_vanish(folder, tmp_path):
    nb = released(folder)
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, f"ana/{NAME}.ipynb", nb)
    put(second, f"ana/{NAME}.ipynb", solved(nb, NAME))
    assert [row["status"] for row in _classroom.collect(folder, NAME, [first])] == ["in"]
    assert [row["status"] for row in _classroom.collect(folder, NAME, [first])] == ["in"], "the same file again"
    rows = _classroom.collect(folder, NAME, [second])
    assert [row["status"] for row in rows] == ["in", "error"] and "--replace" in rows[1]["problem"]
    rows = _classroom.collect(folder, NAME, [second], replace=True)
    assert [row["status"] for row in rows] == ["replaced", "replaced", "in"], rows
    assert len(_classroom.export(folder)) == 3


def test_late_files_are_marked(folder, tmp_path):
    place = tmp_path / "in"
    due = datetime.now().astimezone() - timedelta(days=1)
    _classroom.release(folder, ["metric_learning"], due)
    nb = released(folder, "metric_learning")
    for who, days in (("early", 2), ("late", 0.5)):
        path = put(place, f"{who}/metric_learning.ipynb", nb)
        moment = time.time() - days * 86_400
        os.utime(path, (moment, moment))
    _classroom.collect(folder, "metric_learning", [place])
    _classroom.grade(folder, "metric_learning", unsafe=UNSAFE)
    rows = {row["student"]: row for row in _classroom.export(folder)}
    assert rows["early"]["late"] == "" and rows["late"]["late"] == "yes"
    assert abs(rows["late"]["seconds_late"] - 43_200) < 60


def lms(path, names, nb):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, nb)
    return path


def test_zips_of_learning_platforms(folder, tmp_path):
    nb = json.dumps(released(folder))
    moodle = lms(tmp_path / "moodle.zip", [f"Ana Müller_123_assignsubmission_file_/{NAME}.ipynb",
                                          f"Bo Ek_124_assignsubmission_file_/{NAME} (1).ipynb", "__MACOSX/x/._y.ipynb"], nb)
    canvas = lms(tmp_path / "canvas.zip", [f"doedan_77_88_{NAME}.ipynb", f"roeeva_LATE_79_90_{NAME}-1.ipynb"], nb)
    hub = tmp_path / "hub"
    put(hub, f"kim_{NAME}_attempt_2026-11-20-10-00-00_{NAME}.ipynb", nb)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(f"work/{NAME}.ipynb", nb)
        archive.writestr("work/attacks.ipynb", json.dumps(released(folder, "attacks")))
    (hub / "lee.zip").write_bytes(inner.getvalue())
    rows = _classroom.collect(folder, NAME, [moodle, canvas, hub])
    assert {row["student"] for row in rows} == {"Ana_Müller", "Bo_Ek", "doedan_77", "roeeva_79", "kim", "lee"}
    assert all(row["status"] == "in" for row in rows), rows


def test_a_zip_that_leads_out_or_is_none(folder, tmp_path):
    bad = lms(tmp_path / "bad.zip", ["../../gotcha.ipynb"], "{}")
    with pytest.raises(ValueError, match="leads out of its folder"):
        _classroom.collect(folder, NAME, [bad])
    (tmp_path / "no.zip").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match="no zip that can be read"):
        _classroom.collect(folder, NAME, [tmp_path / "no.zip"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="is empty"):
        _classroom.collect(folder, NAME, [tmp_path / "nothing"])


def test_a_spreadsheet_runs_no_formula():
    assert _classroom._cell("=HYPERLINK(1)") == "'=HYPERLINK(1)" and _classroom._cell(2.0) == "2"


# What a stranger can send


def bonus(nb):
    "A hidden test of the student's own, which would run with the teacher's rights."
    payload = f"{_grader.BEGIN}\nopen({str(CANARY)!r}, 'w').write('here')\n{_grader.END}"
    for name in ("bonus", "test-strangers"):
        notes = {"grade": True, "solution": False, "locked": True, "grade_id": name, "points": 50, "schema_version": 3}
        nb["cells"].append({"cell_type": "code", "id": name, "source": payload, "metadata": {"nbgrader": notes}, "outputs": []})


def renote(name, **changes):
    def bend(nb):
        cell = next(cell for cell in nb["cells"] if meta(cell).get("grade_id") == name)
        cell["metadata"]["nbgrader"] |= changes

    return bend


def raw(nb):
    next(cell for cell in nb["cells"] if is_test(cell))["cell_type"] = "raw"


CANARY = Path(os.environ.get("TMPDIR", "/tmp")) / f"canary-{os.getpid()}"


def test_a_test_that_a_student_brings_is_no_test(folder, tmp_path):
    nb, place = solved(released(folder), NAME), tmp_path / "in"
    payload = f"{_grader.BEGIN}\nopen({str(CANARY)!r}, 'w').write('here')\n{_grader.END}"
    bad = {"bonus": lambda nb: (bonus(nb), nb["cells"].pop()), "gap": renote("strangers", grade=True, solution=False, points=9),
           "worth": renote("test-strangers", points=100), "word": renote("test-strangers", points="abc"),
           "open": renote("test-strangers", solution=True), "less": renote("test-strangers", grade=False)}  # fmt: skip
    for who, bend in bad.items():
        mine = entry(nb, bend)
        if who == "gap":
            next(cell for cell in mine["cells"] if meta(cell).get("grade_id") == "strangers")["source"] += "\n" + payload
        put(place, f"{who}/{NAME}.ipynb", mine)
    put(place, f"honest/{NAME}.ipynb", nb)
    put(place, f"raw/{NAME}.ipynb", entry(nb, raw))
    put(place, f"twice/{NAME}.ipynb", entry(nb, bonus))
    rows = {row["student"]: row for row in _classroom.collect(folder, NAME, [place])}
    assert "another kind" in rows["raw"]["problem"] and "there twice: test-strangers" in rows["twice"]["problem"]
    told = {row["student"]: row["code"] for row in _classroom.grade(folder, NAME, unsafe=UNSAFE)}
    assert not CANARY.exists(), "a submission ran in the grader"
    assert told == dict.fromkeys([*bad, "honest"], 9.0)
    points = {row["student"]: (row["points"], row["max"]) for row in _classroom.export(folder) if row["status"] != "error"}
    assert set(points.values()) == {(9.0, 12.0)}
    for path in folder.glob(f"submitted/*/{NAME}/{NAME}.ipynb"):  # put there without `collect`, as an exchange does
        path.write_text(json.dumps(entry(json.loads(path.read_text()), bonus)), encoding="utf-8")
    from deepfake_course import _nbgrader

    _grader._done.clear()
    os.environ |= {"DEEPFAKE_COURSE_UNSAFE": "1"} if UNSAFE else {}
    _nbgrader.api(folder).autograde(NAME, "honest", force=True, create=True)
    assert not CANARY.exists()


def odd(place, nb):
    "Files that no program of ours would have made; the class goes on."
    put(place, f"list/{NAME}.ipynb", entry(nb, renote("test-strangers", grade_id=["a"])))
    put(place, f"kernel/{NAME}.ipynb", json.dumps(json.loads(json.dumps(nb)) | {"metadata": {"kernelspec": "python"}}))
    (place / "folder" / "x.ipynb").mkdir(parents=True)
    put(place, f"deep/{NAME}.ipynb", "[" * 100_000)
    put(place, f"deep/{NAME}-2.ipynb", "[" * 100_000)
    lms(place / "both.zip", ["a", "a/b.ipynb"], "{}")
    lms(place / "long.zip", ["x" * 300 + ".ipynb"], "{}")
    whole = lms(place / "cut.zip", [f"{NAME}.ipynb"], json.dumps(nb))
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.ipynb", json.dumps(nb))
    data = bytearray(whole.read_bytes())
    data[200:400] = bytes(200)
    whole.write_bytes(data)
    for who, target in (("dangling", "nowhere"), ("loop", f"{NAME}.ipynb"), ("borrowed", f"../good/{NAME}.ipynb")):
        (place / who).mkdir()
        (place / who / f"{NAME}.ipynb").symlink_to(target)
    (place / "link.ipynb").symlink_to(place / "good" / f"{NAME}.ipynb")
    put(place, f"---/{NAME}.ipynb", nb)
    put(place, f"{NAME}/{NAME}.ipynb", nb)
    os.makedirs(os.fsencode(place) + b"/bytes-\xff")
    (place / "esc\x1b[31m").mkdir()


@pytest.mark.skipif(os.name == "nt", reason="names and links of POSIX")
def test_odd_files_are_rows_and_the_class_goes_on(folder, tmp_path):
    nb, place = released(folder), tmp_path / "in"
    put(place, f"good/{NAME}.ipynb", solved(nb, NAME))
    odd(place, nb)
    code, told = run("collect", NAME, place, "--class", folder)
    assert code == 1 and "\x1b" not in told and "Traceback" not in told
    rows = json.loads((folder / "collected" / f"{NAME}.json").read_text())
    assert len(rows) == len(os.listdir(place)) and all(row["problem"] for row in rows if row["status"] == "error")
    assert {row["student"] for row in rows if row["status"] == "in"} == {"good", "kernel"}
    by = {row["student"]: row["problem"] for row in rows}
    assert "links" in by["borrowed"] and "is a link" in by["link"] and "no zip that can be read" in by["cut"]
    assert "name it after the student's id" in by[""]
    assert {row["student"]: row["code"] for row in _classroom.grade(folder, NAME, unsafe=UNSAFE)}["good"] == 9


def test_another_id_in_the_notebook_is_noted(folder, tmp_path):
    nb, place = released(folder), tmp_path / "in"
    for who, own in (("ana", "ana"), ("bo", "your-id"), ("cem", "somebody")):
        mine = json.loads(json.dumps(nb))
        next(cell for cell in mine["cells"] if text(cell).startswith("STUDENT"))["source"] = f'STUDENT = "{own}"'
        put(place, f"{who}/{NAME}.ipynb", mine)
    notes = {row["student"]: row["notes"] for row in _classroom.collect(folder, NAME, [place])}
    assert not notes["ana"] and not notes["bo"]
    assert "STUDENT is 'somebody' in the notebook, graded as 'cem'" in notes["cem"][0]


def test_graded_files_are_left_alone(marked, tmp_path):
    "One late file does not ask for all marks anew."
    folder = Path(shutil.copytree(marked, tmp_path / "class"))
    mark_words(folder)
    put(tmp_path / "in", f"dee/{NAME}.ipynb", solved(released(folder), NAME))
    _classroom.collect(folder, NAME, [tmp_path / "in"])
    before = {path: path.stat().st_mtime_ns for path in folder.glob(f"autograded/*/{NAME}/{NAME}.ipynb")}
    told = {row["student"]: row["code"] for row in _classroom.grade(folder, NAME, unsafe=UNSAFE)}
    assert told == {"Müller_Ana_2": 9, "bo": 6, "cem": 0, "dee": 9} and len(before) == 3
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    rows = {row["student"]: row for row in _classroom.export(folder) if row["assignment"] == NAME}
    assert (rows["Müller_Ana_2"]["points"], rows["Müller_Ana_2"]["to_mark"]) == (11.5, 0) and rows["dee"]["to_mark"] == 1


def test_a_kill_between_two_marks_leaves_no_wrong_one(folder, tmp_path, monkeypatch):
    "Right, then wrong with --replace, killed while it is marked, then right again: the gradebook must say right."
    nb, one, two = released(folder), tmp_path / "one", tmp_path / "two"
    put(one, f"ana/{NAME}.ipynb", solved(nb, NAME))
    put(two, f"ana/{NAME}.ipynb", nb)
    _classroom.collect(folder, NAME, [one])
    _classroom.grade(folder, NAME, unsafe=UNSAFE)
    _classroom.collect(folder, NAME, [two], replace=True)

    def killed(answer, real=_classroom._failed):
        real(answer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_classroom, "_failed", killed)
        _classroom.grade(folder, NAME, unsafe=UNSAFE)
    assert {row["student"]: row["points"] for row in _classroom.export(folder) if row["status"] != "replaced"} == {"ana": 0}
    _classroom.collect(folder, NAME, [one], replace=True)
    _classroom.grade(folder, NAME, unsafe=UNSAFE)
    assert {row["student"]: row["points"] for row in _classroom.export(folder) if row["status"] != "replaced"} == {"ana": 9}


def test_a_damaged_file_in_the_class_folder_is_one_students_matter(folder, tmp_path):
    nb, place = released(folder), tmp_path / "in"
    for who in ("ana", "bo"):
        put(place, f"{who}/{NAME}.ipynb", solved(nb, NAME))
    put(place, f"cem/{NAME}.ipynb", "{")
    rows = _classroom.collect(folder, NAME, [place])
    assert len(_classroom.collect(folder, NAME, [place])) == len(rows) == 3, "the same files again are no new rows"
    (folder / "submitted" / "ana" / NAME / f"{NAME}.ipynb").write_text("{")
    told = {row["student"]: row for row in _classroom.grade(folder, NAME, unsafe=UNSAFE)}
    assert told["bo"]["code"] == 9 and told["ana"]["code"] == 0 and "cannot be graded" in told["ana"]["problem"]


# Commands


@pytest.mark.parametrize("command", [one.name for one in assignments_app.registered_commands if not one.hidden])
def test_every_command_has_help_with_an_example(command):
    code, told = run(command, "--help")
    assert code == 0 and f"Example: deepfake-course assignments {command} " in told


@pytest.mark.parametrize("args,words", [
    (("collect", NAME, ".", "--class", "nowhere"), "is no class folder yet"),
    (("grade", NAME, "--class", "nowhere"), "is no class folder yet"),
    (("feedback", "--class", "nowhere"), "nothing has been collected"),
    (("export", "--class", "nowhere"), "is no class folder yet"),
    (("release", NAME, "--class", "x", "--due", "soon"), "2027-01-15T18:00"),
    (("release", "homework"), "homework"),
    (("collect", NAME, "no such file"), "does not exist"),
    (("rehearse", "--class", "."), "is there already"),
])  # fmt: skip
def test_a_mistake_is_one_line(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["assignments", *args])
    assert done.exit_code in (1, 2) and words in " ".join(done.output.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_without_nbgrader_the_remedy_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "deepfake_course._nbgrader", None)
    monkeypatch.delattr("deepfake_course._nbgrader", raising=False)
    code, told = run("release", NAME, "--class", tmp_path / "class")
    assert code == 1 and "pip install" in told and "grading" in told


def test_damaged_course_data_cost_nobody_points(folder, tmp_path, monkeypatch):
    put(tmp_path / "in", f"ana/{NAME}.ipynb", solved(released(folder), NAME))
    _classroom.collect(folder, NAME, [tmp_path / "in"])

    def damaged():
        raise ValueError("sample classroom.npz was changed")

    monkeypatch.setattr(_homework, "_data", damaged)
    code, told = run("grade", NAME, "--class", folder, *["--unsafe"] * UNSAFE)
    assert code == 1 and "classroom.npz was changed" in told and not (folder / "autograded").exists()


def test_grading_is_refused_without_a_sandbox(folder, tmp_path, monkeypatch):
    put(tmp_path / "in", f"ana/{NAME}.ipynb", released(folder))
    _classroom.collect(folder, NAME, [tmp_path / "in"])
    monkeypatch.setattr(_classroom, "why_not", lambda: "bubblewrap is not installed")
    code, told = run("grade", NAME, "--class", folder)
    assert code == 1 and "--unsafe" in told and not (folder / "autograded").exists()


def test_a_changed_edition_wants_a_new_folder(folder, tmp_path):
    put(tmp_path / "in", f"ana/{NAME}.ipynb", released(folder))
    _classroom.collect(folder, NAME, [tmp_path / "in"])
    copy = folder / "source" / NAME / f"{NAME}.ipynb"
    copy.write_text(copy.read_text().replace("Time: about", "Time: more than"))
    with pytest.raises(ValueError, match="new class folder"):
        _classroom.release(folder, [NAME])


# A student's own check


def test_validate_teaches(folder, tmp_path):
    nb = solved(released(folder), NAME)
    mutants = {title: (gap, code) for gap, title, code in _grader.read_mutants(_classroom.wrong(NAME))}
    gap, code = mutants["hard labels"]
    for cell in nb["cells"]:
        if text(cell).startswith("STUDENT"):
            cell["source"] = 'STUDENT = "ana"'
        if meta(cell).get("grade_id") == gap:
            cell["source"] = code
    path = put(tmp_path, f"{NAME}.ipynb", nb)
    code, told = run("validate", path)
    assert code == 1 and "your AUC is computed from hard labels" in told and told.count("ok  ") == 3, told
    path = put(tmp_path, f"{NAME}.ipynb", released(folder))
    code, told = run("validate", path)
    assert code == 1 and "write your own id where STUDENT" in told
    gone = entry(nb, drop("test-jackknife"))
    code, told = run("validate", put(tmp_path, "gone.ipynb", gone))
    assert code == 1 and "it will not be accepted: cells were deleted: test-jackknife" in told
    broken = entry(nb, lambda nb: None)
    for cell in broken["cells"]:
        if meta(cell).get("grade_id") == "jackknife":
            cell["source"] = "def person_interval(:"
        if meta(cell).get("grade_id") == "words":
            cell["source"] = "*Your answer here.*"
    code, told = run("validate", put(tmp_path, "broken.ipynb", broken))
    assert "the cell before fails: SyntaxError" in told and "nothing is written yet" in told
    code, told = run("validate", put(tmp_path, "x.ipynb", "{"))
    assert code == 1 and "no notebook" in told
    code, told = run("validate", put(tmp_path, "y.ipynb", {"cells": [], "metadata": {}}))
    assert code == 1 and "no test cells" in told
