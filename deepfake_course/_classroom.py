"""A class folder: assignments go out, submissions come in, marks and feedback go back. Thin over nbgrader.

Written by hand; the commands `deepfake-course assignments ...` call these functions. In the folder:

    nbgrader_config.py, gradebook.db     nbgrader's
    source/ release/ submitted/ autograded/ feedback/    nbgrader's, one folder an assignment
    collected/NAME.json                  every file that came in, and what became of it
    grades.csv                           one row a file that came in
"""
import csv
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

from . import _grader
from ._grader import is_test, meta, printable, text
from ._homework import PLACEHOLDER, check_data, student_id
from ._sandbox import Refused, why_not
from .core import atomic_write

SOURCES = Path(__file__).resolve().parent.parent / "nbs" / "assignments"
NAMES = ("intra_database", "inter_database", "transfer_learning", "metric_learning", "attacks")
LARGEST, UNFOLDED = 20_000_000, 4_000_000_000  # bytes of a notebook, and of all that a zip unfolds to
SKIPPED = ("__MACOSX", ".ipynb_checkpoints", ".git", ".DS_Store", "Thumbs.db", "desktop.ini")
COLUMNS = ("assignment", "student", "file", "status", "points", "max", "code", "words", "to_mark", "submitted", "late",
           "seconds_late", "problem", "notes")


def source(name: str) -> Path:
    """The source notebook of an assignment."""
    path = SOURCES / "source" / name / f"{name}.ipynb"
    if name not in NAMES:
        raise ValueError(f"there is no assignment {name!r}; there are: {', '.join(NAMES)}")
    if not path.is_file():
        raise ValueError(f"{path} is missing: assignments are handed out from a clone of the course, not from a package")
    return path


def wrong(name: str) -> Path:
    """The typical wrong answers to an assignment."""
    return SOURCES / "wrong" / f"{name}.py"


def _nbgrader():
    try:
        from . import _nbgrader as found
    except ImportError as error:
        raise ValueError(f"nbgrader is not installed ({error}): python -m pip install 'deepfake_course[grading]', or in "
                         "a clone python -m pip install -e '.[grading]'") from None
    return found


def _class_folder(folder, name=None):
    folder = Path(folder).resolve()
    if not (folder / "nbgrader_config.py").is_file():
        raise ValueError(f"{folder} is no class folder yet: `deepfake-course assignments release --class DIR` makes it")
    if name and not (folder / "source" / name / f"{name}.ipynb").is_file():
        raise ValueError(f"{name} was not released from {folder}: run `deepfake-course assignments release {name}` first")
    return folder


def _read(path):
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def _failed(answer):
    """nbgrader's complaint as one line; empty if it succeeded."""
    if answer["success"]:
        return ""
    lines = [line for line in answer.get("log", "").splitlines() if "ERROR" in line] or answer["error"].splitlines()
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", lines[-1]).split())[:300]


# Hand out


def release(folder: Path, names: list, due: datetime | None = None) -> list[dict]:
    """Write the students' copies of assignments into a class folder, and their cells into its gradebook."""
    nbgrader, folder = _nbgrader(), Path(folder).resolve()
    sources, rows = {name: source(name) for name in names}, []
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "nbgrader_config.py").is_file():
        with atomic_write(folder / "nbgrader_config.py") as file:
            file.write(nbgrader.CONFIG)
    api = nbgrader.api(folder)
    for name, path in sources.items():
        place = folder / "source" / name / path.name
        if place.is_file() and place.read_bytes() != path.read_bytes() and (folder / "submitted").is_dir() and any(
                (folder / "submitted").glob(f"*/{name}")):
            raise ValueError(f"{name} has changed since it was handed out here, and there are submissions: take a new "
                             "class folder for the new edition")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        if told := _failed(api.generate_assignment(name, force=True, create=True)):
            raise ValueError(f"nbgrader could not release {name}: {told}")
        if due:
            with api.gradebook as book:
                book.update_or_create_assignment(name, duedate=_naive(due))
        rows.append({"assignment": name, "file": str(folder / "release" / name / path.name), "due": due and due.isoformat()})
    return rows


def _naive(moment):
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


# Take in


def inspect(data: bytes, master: dict) -> tuple[str, list, dict | None]:
    """What is wrong with a submitted file, what is to be noted, and the notebook."""
    try:
        nb = json.loads(data.decode("utf-8-sig"))
        cells = nb["cells"]
        sane = isinstance(cells, list) and all(
            isinstance(cell, dict) and cell.get("cell_type") in ("code", "markdown", "raw")
            and isinstance(text(cell), str) and isinstance(cell.get("metadata", {}), dict)
            and isinstance(meta(cell).get("grade_id", ""), str) for cell in cells)
    except (ValueError, KeyError, TypeError, RecursionError):
        sane = False
    if not sane:
        return "not a notebook (not JSON, or damaged): open it in JupyterLab, save it, and hand it in again", [], None
    return (*_compare(nb, master), nb)


def _language(nb):
    """What a notebook says that it is written in, or None."""
    told = nb.get("metadata") if isinstance(nb.get("metadata"), dict) else {}
    spec, info = (told.get(name) if isinstance(told.get(name), dict) else {} for name in ("kernelspec", "language_info"))
    return spec.get("language") or info.get("name")


def _compare(nb, master):
    if str((language := _language(nb)) or "python").lower() != "python":
        return f"its kernel is {language}, and the assignment is in Python: open it with a Python kernel and save it", []
    wanted = {meta(cell)["grade_id"]: cell for cell in master["cells"] if meta(cell)}
    tests = {name for name, cell in wanted.items() if is_test(cell)}
    had = [meta(cell).get("grade_id") for cell in nb["cells"] if meta(cell).get("grade_id")]
    if not had:
        return ("the notes of the cells are stripped (saved by another program?): copy the answers into a fresh copy of "
                "the assignment", [])
    if not tests & set(had):
        return "this is another assignment, or one of another year", []
    return (problem, []) if (problem := _cells_problem(nb, wanted)) else _editions(nb, wanted)


def _cells_problem(nb, wanted):
    """Whether the assignment's cells are there, once each and of their kind; empty if so."""
    kinds = [(meta(cell).get("grade_id"), cell.get("cell_type")) for cell in nb["cells"] if meta(cell).get("grade_id")]
    had = [name for name, _ in kinds]
    twice = sorted({name for name in had if had.count(name) > 1})
    if twice:
        return f"cells are there twice: {', '.join(twice)}; merge a cell that was split, delete a copy"
    gone = [name for name in wanted if name not in had]
    if gone:
        return f"cells were deleted: {', '.join(gone)}; copy the answers into a fresh copy of the assignment"
    other = [name for name, kind in kinds if name in wanted and kind != wanted[name]["cell_type"]]
    if other:
        return f"cells are of another kind than they were: {', '.join(other)}; make them code or Markdown again"
    return ""


def _editions(nb, wanted):
    notes, other = [], []
    for cell in nb["cells"]:
        name = meta(cell).get("grade_id")
        if name not in wanted or not (is_test(wanted[name]) or meta(wanted[name]).get("locked")):
            continue
        if meta(cell).get("checksum") not in (None, meta(wanted[name]).get("checksum")):
            other.append(name)
        elif text(cell).strip() != text(wanted[name]).strip():
            notes.append(f"the locked cell {name} was changed; the teacher's counts")
    if other:
        return f"this is another edition of the assignment (cells {', '.join(other)} are not this year's)", []
    return "", notes


def _candidates(path, work, name):
    """(raw name of the student, notebook or None, what is wrong, file as shown, time) of all that came in."""
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        path = _unpack(path, Path(tempfile.mkdtemp(dir=work)))
    if path.is_file():
        return [_one_file(path, path.name, name, work)]
    if not path.is_dir():
        raise ValueError(f"{path} is neither a folder nor a file")
    inside = _children(path)
    while len(inside) == 1 and inside[0].is_dir() and not list(inside[0].glob("*.ipynb")) and any(
            one.is_dir() or one.suffix.lower() in (".zip", ".ipynb") for one in _children(inside[0])):
        inside = _children(inside[0])  # the one folder that many archives begin with
    if not inside:
        raise ValueError(f"{path.name} is empty: there is nothing to collect")
    return [_one(one, name, work) for one in inside]


def _one(path, name, work):
    """A folder or file that came in; whatever is wrong with it is its own matter, not the class's."""
    shown = printable(path.name)
    raw = _raw(re.sub(r"\.(ipynb|zip)$", "", shown), name)
    try:
        if path.is_symlink():
            return raw, None, f"{shown} is a link: hand in the file itself", shown, path.lstat().st_mtime
        return _one_folder(path, name) if path.is_dir() else _one_file(path, shown, name, work)
    except Exception as error:  # names, times, encodings: a stranger's disk has errors of its own
        return raw, None, f"{shown} cannot be read ({type(error).__name__}: {error})", shown, time.time()


def _children(folder):
    return sorted(one for one in folder.iterdir() if one.name not in SKIPPED and not one.name.startswith("._"))


def _unpack(path, target):
    """A zip, unfolded without leaving its folder; times are kept."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if not part.is_dir()]
            if sum(part.file_size for part in parts) > UNFOLDED:
                raise ValueError(f"{path.name} unfolds to more than {UNFOLDED / 1e9:.0f} GB")
            for part in parts:
                place = (target / part.filename).resolve()
                if target.resolve() not in place.parents:
                    raise ValueError(f"{path.name} holds {part.filename!r}, which leads out of its folder")
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(part) as data, open(place, "wb") as file:
                    shutil.copyfileobj(data, file)
                moment = time.mktime((*part.date_time, 0, 0, -1))
                os.utime(place, (moment, moment))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, OSError,
            OverflowError) as error:
        raise ValueError(f"{path.name} is no zip that can be read ({error})") from None
    return target


def _raw(stem, name):
    """The student in a file's or folder's name: what an LMS adds around it is taken off."""
    stem = re.sub(rf"[_\- ]?{name}[_\- ]attempt[_\- ].*$", "", stem)  # a hub
    stem = re.sub(r"(_\d+)?_assignsubmission_file_?$", "", stem)  # Moodle: its number is another in each assignment
    # Canvas: so is its second number; the first is the student's own, and tells two of one name apart
    stem = re.sub(rf"(_LATE)?(_\d+)_\d+_{name}([-_ ]?\(?\d+\)?)?$", r"\2", stem)
    return re.sub(rf"[_\- ]?{name}(?=( \(\d+\))?$)", "", stem)


def _one_file(path, shown, name, work):
    when = path.stat().st_mtime
    raw = _raw(path.stem, name)
    if path.suffix.lower() == ".zip":
        try:
            return (*_one_folder(_unpack(path, Path(tempfile.mkdtemp(dir=work))), name, raw)[:3], shown, when)
        except ValueError as error:
            return raw, None, str(error), shown, when
    if path.suffix.lower() != ".ipynb":
        return raw, None, f"{shown} is no notebook (.ipynb)", shown, when
    problem = "" if student_id(raw) else f"{shown} does not say whose it is: put it into a folder with the student's id"
    return raw, path, problem, shown, when


def _one_folder(folder, name, raw=None):
    raw, found = _raw(raw or printable(folder.name), name), []
    for path in sorted(folder.rglob("*.ipynb")):
        if not set(SKIPPED) & set(path.parts) and not path.name.startswith("._") and not path.is_dir():
            found.append(path)
    mine = [path for path in found if _is_of(path, name)] if len(found) > 1 else found
    shown = printable(folder.name)
    when = max((path.lstat().st_mtime for path in mine), default=folder.stat().st_mtime)
    links = [path for path in found if folder.resolve() not in path.resolve().parents or path.is_symlink()]
    if links:
        return raw, None, f"{shown} holds links ({links[0].name}): hand in the files themselves", shown, when
    if not student_id(raw):
        return raw, None, f"{shown} does not say whose it is: name it after the student's id", shown, when
    if not found:
        return raw, None, f"there is no notebook in {shown}", shown, when
    if not mine:
        return raw, None, f"none of the {len(found)} notebooks in {shown} is {name}", shown, when
    if len(mine) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in mine)
        return raw, None, f"{shown} holds {len(mine)} notebooks of {name} ({names}): keep the one that counts", shown, when
    return raw, mine[0], "", f"{shown}/{mine[0].relative_to(folder)}", when


def _is_of(path, name):
    """Whether a notebook is of this assignment, by its cells, or if it has none, by its name."""
    try:
        ids = {meta(cell).get("grade_id") for cell in _read(path)["cells"]} - {None}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return name in path.stem
    tests = {meta(cell)["grade_id"] for cell in _read(source(name))["cells"] if is_test(cell)}
    return bool(ids & tests) if ids else name in path.stem


def collect(folder: Path, name: str, paths: list, replace: bool = False) -> list[dict]:
    """Take submissions into a class folder. Every file that comes in is a row: `in`, or `error` with the reason."""
    folder = _class_folder(folder, name)
    master = _with_checksums(folder, name)
    record = folder / "collected" / f"{name}.json"
    rows = _read(record) if record.is_file() else []
    with tempfile.TemporaryDirectory(prefix="collect-") as work:
        came = [one for path in paths for one in _candidates(path, work, name)]
        ids = [student_id(raw) for raw, *_ in came]
        for (raw, path, problem, shown, when), who in zip(came, ids):
            row = {"assignment": name, "student": who, "file": shown, "status": "error", "problem": problem, "notes": [],
                   "submitted": datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="seconds")}
            same = [other for other, *_ in came if student_id(other).casefold() == who.casefold()]
            if not problem and len(same) > 1:
                row["problem"] = (f"{len(same)} files come down to the id {who} ({', '.join(sorted(map(repr, same)))}): "
                                  "rename them, or keep the one that counts")
            size = path.stat().st_size if path and not row["problem"] else 0
            if size > LARGEST:
                row["problem"] = f"the file has {size / 1e6:.0f} MB: clear the outputs and hand it in again"
            data = path.read_bytes() if path and not row["problem"] else b""
            row["sha256"] = hashlib.sha256(data).hexdigest() if data else ""
            if _take_in(folder, name, row, data, master, rows, replace):
                rows.append(row)
        _note_likely_doubles(rows)
    record.parent.mkdir(exist_ok=True)
    with atomic_write(record) as file:
        json.dump(rows, file, indent=1)
    return rows


def _take_in(folder, name, row, data, master, rows, replace):
    """Judge one file and store it; False if exactly this file is there already."""
    before = [one for one in rows if one["student"].casefold() == row["student"].casefold() and one["status"] == "in"]
    same = [one for one in rows if all(one[key] == row[key] for key in ("student", "file", "sha256"))]
    if not row["problem"] and any(one["status"] == "in" for one in same):
        return False
    if not row["problem"]:
        row["problem"], row["notes"], nb = inspect(data, master)
    if not row["problem"]:
        row["notes"] += _whose(nb, row["student"])
    if not row["problem"] and before and not replace:
        row["problem"] = (f"{row['student']} has handed in {before[0]['file']} already, and that one counts; to take "
                          "this one instead: collect it again with --replace")
    if row["problem"]:
        return not any(one["status"] == "error" and one["problem"] == row["problem"] for one in same)
    for one in before:
        one["status"], one["problem"] = "replaced", f"{row['file']} was taken instead"
    for one in rows:  # the same file, refused before
        if one["student"].casefold() == row["student"].casefold() and one["sha256"] == row["sha256"] and one["status"] == "error":
            one["status"], one["problem"] = "replaced", "taken after all, with --replace"
    place = folder / "submitted" / row["student"] / name
    place.mkdir(parents=True, exist_ok=True)
    with atomic_write(place / f"{name}.ipynb") as file:
        json.dump(_tidy(_grader.overlay(master, nb)), file)
    with atomic_write(place / "timestamp.txt") as file:
        file.write(datetime.fromisoformat(row["submitted"]).strftime("%Y-%m-%d %H:%M:%S UTC"))
    row["status"] = "in"
    return True


def _whose(nb, student):
    """A note if the notebook was worked on under another id: then numbers in its words belong to other data."""
    for cell in nb["cells"]:
        if found := re.match(r"\s*STUDENT\s*=\s*([\"'])(.*?)\1", text(cell)):
            own = student_id(found[2])
            if own.casefold() not in (student.casefold(), student_id(PLACEHOLDER)):
                return [f"STUDENT is {own!r} in the notebook, graded as {student!r}: its code runs on {student!r}'s data, "
                        f"numbers in the answer in words are {own!r}'s"]
    return []


def _tidy(nb):
    """What nbformat 4.5 demands of a notebook, without outputs and without what nobody asked for."""
    cells = []
    for k, cell in enumerate(nb["cells"]):
        clean = {"cell_type": cell["cell_type"], "id": f"cell{k}", "source": text(cell),
                 "metadata": {"nbgrader": meta(cell)} if meta(cell) else {}}
        cells.append(clean | ({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}))
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}


def _with_checksums(folder, name):
    """The released notebook: what students got, with the checksums of locked cells."""
    path = folder / "release" / name / f"{name}.ipynb"
    if not path.is_file():
        raise ValueError(f"{path} is missing: release {name} first")
    return _read(path)


def _note_likely_doubles(rows):
    names = {row["student"].casefold() for row in rows}
    for row in rows:
        first = re.sub(r"_\d+$", "", row["student"])
        note = f"may be a second file of {first}: look at both"
        if first != row["student"] and first.casefold() in names and note not in row["notes"]:
            row["notes"].append(note)


# Mark


def grade(folder: Path, name: str, jobs: int = 2, unsafe: bool = False, progress=lambda done, all_: None,
          again: bool = False) -> list[dict]:
    """Grade what has been collected: student code in the sandbox, `jobs` at a time, then nbgrader's gradebook.

    Files that were graded already are left alone, so that marks given by hand are not asked for a second time.
    """
    if not unsafe and (why := why_not()):
        raise Refused(f"{why}. To run students' code without a sandbox, with your rights, add --unsafe")
    folder = _class_folder(folder, name)
    check_data()
    record = folder / "collected" / f"{name}.json"
    rows = [row for row in (_read(record) if record.is_file() else []) if row["status"] == "in"]
    if not rows:
        raise ValueError(f"no submission of {name} is in {folder}: collect some first")
    api, master = _nbgrader().api(folder), _read(folder / "source" / name / f"{name}.ipynb")

    report_file = folder / "collected" / f"{name}.grading.json"
    kept = {one["student"]: one for one in (_read(report_file) if report_file.is_file() else [])}
    before = {} if again else dict(kept)

    def keep(who, told=None):
        """Written at once: after a kill, what is kept is what is in the gradebook."""
        kept.pop(who, None)
        kept.update({who: told} if told else {})
        with atomic_write(report_file) as file:
            json.dump(list(kept.values()), file, indent=1)

    def known(row):
        told = before.get(row["student"], {})
        done = folder / "autograded" / row["student"] / name / f"{name}.ipynb"
        return told if told.get("sha256") == row["sha256"] and not told["failed"] and done.is_file() else None

    def one(row):
        if known(row):
            return None, 0
        started, who = time.monotonic(), row["student"]
        try:
            nb = _grader.overlay(master, _read(folder / "submitted" / who / name / f"{name}.ipynb"))
            report = _grader.grade(nb, name, who, unsafe)
            _grader.remember(nb, report)
        except Refused:
            raise
        except Exception as error:  # one student's file; the class goes on
            report = _grader.Report(name, who, problem=f"cannot be graded ({type(error).__name__}: {error}): collect it again")
        return report, time.monotonic() - started

    os.environ.pop("DEEPFAKE_COURSE_UNSAFE", None)
    os.environ |= {"DEEPFAKE_COURSE_UNSAFE": "1"} if unsafe else {}
    told = []
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for row, (report, seconds) in zip(rows, pool.map(one, rows)):
            if report is None:
                told.append(known(row))
                progress(len(told), len(rows))
                continue
            keep(row["student"])
            failed = _failed(api.autograde(name, row["student"], force=True, create=True)) if report.verdicts else report.problem
            verdicts = {verdict.exercise: verdict.score for verdict in report.verdicts}
            told.append({"assignment": name, "student": row["student"], "sha256": row["sha256"], "code": report.score,
                         "seconds": round(seconds, 1), "failed": failed, "problem": failed or report.problem, "exercises": verdicts,
                         "messages": {one.exercise: one.message for one in report.verdicts if one.message}})
            keep(row["student"], told[-1])
            progress(len(told), len(rows))
    return told


def feedback(folder: Path, name: str) -> list[dict]:
    """An HTML page for each student: their work, marks, comments; hidden tests are not in it."""
    folder, rows = _class_folder(folder, name), []
    api = _nbgrader().api(folder)
    students = sorted(path.parent.name for path in folder.glob(f"autograded/*/{name}"))
    if not students:
        raise ValueError(f"no graded submission of {name} is in {folder}: grade first")
    for who in students:
        problem = _failed(api.generate_feedback(name, who, force=True))
        path = folder / "feedback" / who / name / f"{name}.html"
        rows.append({"assignment": name, "student": who, "file": str(path) if path.is_file() else "", "problem": problem})
    return rows


def export(folder: Path, to: Path | None = None) -> list[dict]:
    """grades.csv: one row for every file that came in, with its points or the reason why it has none."""
    folder = _class_folder(folder)
    rows = []
    with _nbgrader().api(folder).gradebook as book:
        for record in sorted((folder / "collected").glob("*.json")):
            if not record.name.endswith(".grading.json"):
                rows += [_graded_row(book, row) for row in _read(record)]
    if not rows:
        raise ValueError(f"nothing has been collected in {folder} yet")
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: _cell(row.get(key)) for key in COLUMNS} for row in rows])
    with atomic_write(to or folder / "grades.csv", "wb") as file:
        file.write("\ufeff".encode() + out.getvalue().encode("utf-8", "replace"))  # the mark tells Excel that names are in UTF-8
    return rows


def _cell(value):
    """As a spreadsheet takes it: a text that looks like a formula is defused."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        value = "; ".join(value)
    return "'" + value if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _graded_row(book, row):
    from nbgrader.api import MissingEntry

    row = {key: row.get(key) for key in COLUMNS} | {"notes": row["notes"]}
    if row["status"] != "in":
        return row
    try:
        found = book.find_submission(row["assignment"], row["student"])
    except MissingEntry:
        return row | {"status": "not graded", "problem": "collected and not graded yet"}
    late = found.total_seconds_late
    return row | {"status": "to mark" if found.needs_manual_grade else "graded", "points": found.score,
                  "max": found.max_score, "code": found.code_score, "words": found.written_score,
                  "to_mark": sum(grade.needs_manual_grade for nb in found.notebooks for grade in nb.grades),
                  "late": "yes" if late > 0 else "", "seconds_late": int(late)}


# For students


def validate(path: Path, student: str = "") -> list[dict]:
    """Run a notebook's own tests in a new process, as its student: a row for each exercise, with what to mend."""
    path = Path(path)
    nb = _open(path)
    tests = [cell for cell in nb["cells"] if is_test(cell)]
    if not tests:
        raise ValueError(f"{path.name} has no test cells: it is no assignment, or its cells' notes were stripped")
    report = _grader.try_out(nb, path.stem, student)
    rows = [{"exercise": one.exercise, "points": one.points, "ok": not one.message, "message": one.message}
            for one in report.verdicts]
    for cell in nb["cells"]:
        if cell.get("cell_type") == "markdown" and meta(cell).get("solution"):
            empty = text(cell).strip() in ("", "*Your answer here.*")
            rows.append({"exercise": meta(cell)["grade_id"], "points": meta(cell).get("points", 0), "ok": not empty,
                         "message": "nothing is written yet; your teacher marks it" * empty})
    own = next((name for name in NAMES if _is_of(path, name)), None) if SOURCES.is_dir() else None
    wanted = {meta(cell)["grade_id"]: cell for cell in _read(source(own))["cells"] if meta(cell)} if own else {}
    if problem := own and _cells_problem(nb, wanted):
        rows.append({"exercise": "the notebook", "points": 0, "ok": False, "message": f"it will not be accepted: {problem}"})
    return rows


def _open(path):
    try:
        nb = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(nb["cells"], list) and all(isinstance(cell, dict) and "cell_type" in cell for cell in nb["cells"]):
            return nb
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path.name} is no notebook, or it is damaged")


# A class that does not exist


def rehearse(folder: Path, names: list, students: int = 30, jobs: int = 2, unsafe: bool = False, out=print) -> list[dict]:
    """Time the whole way with synthetic students: a third right, a third with a wrong answer, a third untouched."""
    folder, rows = Path(folder).resolve(), []
    release(folder, names)
    for name in names:
        clock = {"assignment": name, "students": students}
        with tempfile.TemporaryDirectory(prefix="class-") as place:
            expected = make_submissions(folder, name, Path(place), students)
            for step, work in (("collect", lambda: collect(folder, name, [place])),
                               ("grade", lambda: grade(folder, name, jobs, unsafe)),
                               ("feedback", lambda: feedback(folder, name))):
                started = time.monotonic()
                done = work()
                clock[step] = round(time.monotonic() - started, 1)
                if step == "grade":
                    told = {row["student"]: row["code"] for row in done}
                    clock["right marks"] = sum(told.get(who) == points for who, points in expected.items())
        clock["seconds"] = round(clock["collect"] + clock["grade"] + clock["feedback"], 1)
        rows.append(clock)
        out(clock)
    export(folder)
    return rows


def make_submissions(folder: Path, name: str, place: Path, students: int) -> dict:
    """Write synthetic submissions; id -> the points for code that each deserves."""
    nb, expected = _read(folder / "release" / name / f"{name}.ipynb"), {}
    master = _read(source(name))
    solutions = {meta(cell)["grade_id"]: _grader.solution(cell) for cell in master["cells"] if meta(cell).get("solution")}
    pairs = _grader.exercises(master)
    points = {meta(cell)["grade_id"]: float(meta(cell)["points"]) for cell in master["cells"] if is_test(cell)}
    mutants = _grader.read_mutants(wrong(name))
    for k in range(students):
        who, answers, lost = f"student_{k:02d}", dict(solutions), 0.0
        if k % 3 == 1:
            gap, _, answer = mutants[(k // 3) % len(mutants)]
            answers[gap], lost = answer, points[pairs[gap]]
        if k % 3 == 2:
            answers, lost = {}, sum(points.values())
        expected[who] = sum(points.values()) - lost
        copy = json.loads(json.dumps(nb))
        for cell in copy["cells"]:
            if (gap := meta(cell).get("grade_id")) in answers and meta(cell).get("solution"):
                cell["source"] = answers[gap]
        target = place / who / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(copy), encoding="utf-8")
    return expected
