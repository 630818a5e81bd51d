"""Marks for a notebook, by two processes: one runs the student's code, the other holds the hidden tests.

Written by hand. The first is the worker in the sandbox (`_sandbox.py`), which gets the notebook without hidden tests.
The second is this one: it asks the worker for answers and compares them with the truth, which it works out itself from
the student's id. So nothing that student code does to its own process (a patched assert, a changed library) makes an
answer right, and there is nothing in the first process to be read. An exercise is a solution cell and the test cell
after it; its points are given whole or not at all.
"""
import ast
import copy
import json
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from . import _homework
from ._sandbox import Stopped, Worker
from ._wire import WireError
from ._worker import KEPT, PATIENCE, PICTURE

BEGIN, END = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
CELL_SECONDS, ASK_SECONDS = 30, 20  # of the processor: a busy machine must not cost a student points
ALL_SECONDS = 300  # on the clock, for a whole notebook and all questions to it
MOST_OUTPUTS = 60  # of a cell, and parts of one output
STUB = 'raise NotImplementedError("write the missing lines of this exercise here")'


@dataclass
class Verdict:
    """What became of one exercise."""

    exercise: str  # grade_id of the test cell
    points: float  # what can be had
    score: float = 0.0
    message: str = ""  # why not, for the student


@dataclass
class Report:
    """What became of a notebook."""

    assignment: str
    student: str
    verdicts: list = field(default_factory=list)
    outputs: list = field(default_factory=list)  # of each code cell
    problem: str = ""  # what went wrong with all of it

    @property
    def score(self):
        return sum(verdict.score for verdict in self.verdicts)

    def rows(self):
        return [asdict(verdict) for verdict in self.verdicts]


# A notebook as the grader sees it


def meta(cell) -> dict:
    """nbgrader's notes on a cell; empty if there are none."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def text(cell) -> str:
    """Source of a cell."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def solution(cell) -> str:
    """What stands in a solution cell of a source, without the markers."""
    return "\n".join(line for line in text(cell).split("\n") if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION"))


def is_test(cell) -> bool:
    """A locked test cell with points."""
    return cell.get("cell_type") == "code" and bool(meta(cell).get("grade")) and not meta(cell).get("solution")


def is_gap(cell) -> bool:
    """A code cell that the student fills in."""
    return cell.get("cell_type") == "code" and bool(meta(cell).get("solution"))


def split(source: str) -> tuple[str, str]:
    """The visible and the hidden part of a test cell."""
    visible, hidden, inside = [], [], False
    for line in source.split("\n"):
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
        else:
            (hidden if inside else visible).append(line)
    return "\n".join(visible).strip("\n"), "\n".join(hidden)


def visible(source: str) -> str:
    """What a student sees of a test cell."""
    return split(source)[0]


def release(nb: dict) -> dict:
    """The student's copy of a source notebook: no solutions, no hidden tests, no outputs."""
    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        source = text(cell)
        if meta(cell).get("solution"):
            stub = "*Your answer here.*" if cell["cell_type"] == "markdown" else STUB
            source = re.sub(r"^([ \t]*)#+ BEGIN SOLUTION\n.*?^[ \t]*#+ END SOLUTION$", lambda m: m[1] + stub, source,
                            flags=re.M | re.S)
            if cell["cell_type"] == "markdown":
                source = stub
        cell["source"] = visible(source) if is_test(cell) else source
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return nb


def exercises(nb: dict) -> dict:
    """grade_id of each gap -> grade_id of the test that follows it."""
    found, gap = {}, None
    for cell in nb["cells"]:
        gap = meta(cell)["grade_id"] if is_gap(cell) else gap
        if is_test(cell) and gap:
            found[gap] = meta(cell)["grade_id"]
            gap = None
    return found


def overlay(source: dict, submission: dict) -> dict:
    """The submission as it is graded: what is a test, what it is worth and all locked text are the teacher's.

    Notes of nbgrader in a submission are not believed. A cell that the source does not know by its name, or that is
    there a second time, is a plain cell: otherwise a student could bring a "hidden test", and it would run here.
    """
    wanted = {meta(cell)["grade_id"]: cell for cell in source["cells"] if meta(cell).get("grade_id")}
    nb = copy.deepcopy(submission)
    for cell in nb["cells"]:
        name, checksum = meta(cell).get("grade_id"), meta(cell).get("checksum")
        own = wanted.pop(name, None) if isinstance(name, str) else None
        notes = {"checksum": checksum} if own and isinstance(checksum, str) else {}  # of an untouched answer in words
        cell["metadata"] = {"nbgrader": notes | copy.deepcopy(meta(own))} if own else {}
        if own:
            cell["cell_type"] = own["cell_type"]
            if meta(own).get("locked") or is_test(own):
                cell["source"] = text(own)
        if cell["cell_type"] == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
        else:
            cell.pop("outputs", None), cell.pop("execution_count", None)
    return nb


# The second process


class StudentError(AssertionError):
    """The student's code raised something, or answered with what cannot be graded."""


class Asked:
    """Puts the questions of hidden tests to a worker."""

    def __init__(self, worker: Worker, student: str, until: float = float("inf")):
        self.worker, self.student, self.until, self.gone = worker, student, until, ""

    def _call(self, order):
        if self.gone:
            raise StudentError(self.gone)
        left = self.until - time.monotonic()
        if left <= 0:
            self.worker.stop()
            self.gone = "the time for the whole notebook is over: what came before took it"
            raise StudentError(self.gone)
        try:
            answer = self.worker.call(order, min(PATIENCE * order.get("seconds", ASK_SECONDS) + 5, left))
        except Stopped as why:
            self.gone = str(why)
            raise StudentError(self.gone) from None
        except WireError as why:
            raise StudentError(str(why)) from None
        if not isinstance(answer, dict):
            raise StudentError("the answer cannot be read")
        if "missing" in answer:
            raise StudentError(f"the notebook has no {order['name']}: the cell that makes it is missing or failed")
        if "error" in answer:
            raise StudentError(f"{order['name']} raises {_told(answer['error'])}")
        return answer.get("ok")

    def ask(self, name, *args, **options):
        args = [{"name": arg.name} if isinstance(arg, _homework.Name) else _sendable(arg) for arg in args]
        return self._call({"do": "ask", "name": name, "args": args, "options": options, "seconds": ASK_SECONDS})

    def value(self, name):
        return self._call({"do": "value", "name": name})


def _sendable(arg):
    return arg.tolist() if isinstance(arg, np.generic) else arg


def _told(error):
    try:
        name, said = str(error.get("ename"))[:80], " ".join(str(error.get("evalue")).split())[:300]
    except AttributeError:
        return "an error"
    return f"{name}: {said}" if said else name


def hidden_problem(hidden: str, assignment: str, asked: Asked) -> str:
    """Run hidden tests against a worker; empty if all hold, else what the student is told."""
    token = _homework.ANSWERS.set(asked)
    try:
        names = {"__name__": "hidden_tests", "me": _homework.Homework(assignment, asked.student)}
        exec(compile(hidden, f"<hidden tests of {assignment}>", "exec"), names)  # the teacher's own code
    except AssertionError as error:
        return str(error) or "a hidden test fails"
    except Exception as error:  # an answer of a form that the test did not reckon with
        return f"the answer has another form than asked for ({type(error).__name__}: {str(error)[:200]})"
    finally:
        _homework.ANSWERS.reset(token)
    return ""


def _failure(outputs):
    for one in outputs if isinstance(outputs, list) else []:
        if isinstance(one, dict) and one.get("output_type") == "error":
            said = " ".join(str(one.get("evalue", "")).split())[:500]
            return said if one.get("ename") == "AssertionError" and said else _told(one)
    return ""


def _because(failed, broken):
    """A test that misses a name says why it is missing, if a cell before it failed."""
    return f"the cell before fails: {broken}" if broken and failed.startswith("NameError") else failed


def _judge(nb, ran, assignment, asked):
    """Verdicts of all exercises, given what the cells wrote when they ran."""
    verdicts, codes, broken = [], [cell for cell in nb["cells"] if cell["cell_type"] == "code"], ""
    for cell, outputs in zip(codes, ran):
        if not is_test(cell):
            broken = broken or _failure(outputs)
            continue
        seen, hidden = split(text(cell))
        verdict = Verdict(meta(cell)["grade_id"], float(meta(cell)["points"]))
        failed, broken = _because(_failure(outputs), broken), ""
        verdict.message = printable(failed or hidden_problem(hidden, assignment, asked))
        verdict.score = 0.0 if verdict.message else verdict.points
        verdicts.append(verdict)
    return verdicts


def _checked(ran, count):
    """What the worker says that its cells wrote, if it has that form; it may not keep to the limits, so cut it here."""
    if not isinstance(ran, list) or len(ran) != count:
        raise StudentError("the notebook's outputs cannot be read")
    return [[_cut(plain(one)) for one in outputs[:MOST_OUTPUTS] if isinstance(one, dict)]
            if isinstance(outputs, list) else [] for outputs in ran]


def plain(thing):
    """As JSON has it: text and dicts, nothing else."""
    return json.loads(json.dumps(thing, default=str))


def _cut(thing, most=KEPT):
    if isinstance(thing, str):
        return thing if len(thing) <= most + 100 else thing[:most]
    if isinstance(thing, list):
        return [_cut(part, most) for part in thing[:MOST_OUTPUTS]]
    if isinstance(thing, dict):
        return {name[:100]: _cut(part, PICTURE if name == "image/png" else most)
                for name, part in list(thing.items())[:MOST_OUTPUTS]}
    return thing


def printable(said: str) -> str:
    """A stranger's text without what steers a terminal or cannot be encoded."""
    said = said.encode("utf-8", "replace").decode()
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in said)


def grade(nb: dict, assignment: str, student: str, unsafe: bool = False, all_seconds: float = ALL_SECONDS) -> Report:
    """Run a notebook, with the teacher's locked cells in it, and give marks."""
    report = Report(assignment, student)
    codes = [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
    sources = [visible(text(cell)) if is_test(cell) else text(cell) for cell in codes]
    with Worker(student, unsafe) as worker:
        asked = Asked(worker, student, time.monotonic() + all_seconds)
        try:
            answer = worker.call({"do": "run", "cells": sources, "seconds": CELL_SECONDS}, all_seconds)
            if not isinstance(answer, dict) or "ok" not in answer:
                raise StudentError("the notebook's outputs cannot be read")
            report.outputs = _checked(answer["ok"], len(codes))
            report.verdicts = _judge(nb, report.outputs, assignment, asked)
        except (Stopped, StudentError, WireError) as why:
            report.problem, report.outputs = str(why), [[] for _ in codes]
            report.verdicts = [Verdict(meta(cell)["grade_id"], float(meta(cell)["points"]), 0.0, report.problem)
                               for cell in codes if is_test(cell)]
    return report


def fill(nb: dict, report: Report) -> dict:
    """Write outputs and marks into a notebook for nbgrader: of hidden tests only what they say is left."""
    codes = [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
    verdicts = {verdict.exercise: verdict for verdict in report.verdicts}
    for cell in nb["cells"]:
        if cell["cell_type"] != "code":  # nbgrader's pages show HTML and follow links: a script would run in a teacher's
            words = printable(text(cell))  # browser, with the teacher's rights; a joiner of no width parts what makes them
            cell["source"] = re.sub(r"<(?=[A-Za-z/!?])|\](?=[(:\[])", lambda found: found[0] + "\u2060", words)
    for cell, outputs in zip(codes, report.outputs):
        cell["outputs"], cell["execution_count"] = [_well_formed(one) for one in outputs], None
        if is_test(cell):
            verdict = verdicts[meta(cell)["grade_id"]]
            cell["source"] = visible(text(cell))
            cell["outputs"] = [_mark(verdict)]
    return nb


def _mark(verdict):
    if not verdict.message:
        return {"output_type": "execute_result", "execution_count": None, "metadata": {},
                "data": {"text/plain": f"{verdict.score:g}"}}
    return {"output_type": "error", "ename": "Not yet", "evalue": verdict.message, "traceback": [verdict.message]}


def _well_formed(one):
    """An output by nbformat's rules, whatever the student's process made of it."""
    kind = one.get("output_type")
    if kind == "stream":
        return {"output_type": kind, "name": "stderr" if one.get("name") == "stderr" else "stdout",
                "text": str(one.get("text"))}
    if kind == "error":
        lines = one.get("traceback")
        return {"output_type": kind, "ename": str(one.get("ename")), "evalue": str(one.get("evalue")),
                "traceback": [str(line) for line in lines] if isinstance(lines, list) else []}
    data = one.get("data") if isinstance(one.get("data"), dict) else {}
    return {"output_type": "display_data", "metadata": {}, "data": {
        name: str(data[name]) for name in ("text/plain", "image/png") if name in data}}


def try_out(nb: dict, assignment: str, student: str) -> Report:
    """A student's own check on their own machine: their notebook as it is, visible tests only, in a new process."""
    report = Report(assignment, student)
    codes = [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
    with Worker(student, unsafe=True) as worker:
        try:
            answer = worker.call({"do": "run", "cells": [text(cell) for cell in codes], "seconds": CELL_SECONDS},
                                 ALL_SECONDS)
            report.outputs = _checked(answer["ok"], len(codes))
        except Stopped as why:
            report.problem, report.outputs = str(why), [[] for _ in codes]
    begun = next((_failure(outputs) for cell, outputs in zip(codes, report.outputs)
                  if meta(cell).get("locked") and not is_test(cell)), "")
    broken = ""
    for cell, outputs in zip(codes, report.outputs):
        if not is_test(cell):
            broken = broken or _failure(outputs)
        else:
            message = report.problem or begun or _because(_failure(outputs), broken)
            broken = ""
            report.verdicts.append(Verdict(meta(cell)["grade_id"], float(meta(cell)["points"]), 0.0, message))
    return report


# Proof by wrong answers


def read_mutants(path: Path) -> list[tuple[str, str, str]]:
    """(exercise, name, code) of each wrong answer in a file: `# %% exercise: name`, then the code."""
    parts = re.split(r"^# %% ([\w-]+): (.+)$", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    return [(parts[k], parts[k + 1].strip(), parts[k + 2].strip("\n")) for k in range(0, len(parts), 3)]


class Bench:
    """Runs many versions of one notebook quickly: what comes before an exercise runs once, the rest in copies."""

    def __init__(self, nb, assignment, student, unsafe):
        self.nb, self.assignment = nb, assignment
        self.codes = [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
        self.worker = Worker(student, unsafe, processes=200)
        self.asked = Asked(self.worker, student)

    def run(self, sources):
        answer = self.worker.call({"do": "run", "cells": sources, "seconds": CELL_SECONDS}, ALL_SECONDS)
        return _checked(answer["ok"], len(sources))

    def attempt(self, code, rest):
        """One exercise when its gap holds `code`; `rest`: the cells up to its test. Verdict, what hidden tests alone
        say, and the errors of the cells before the test, the gap's own first."""
        self.worker.call({"do": "fork"}, ASK_SECONDS)
        ran = self.run([code, *(visible(text(cell)) for cell in rest)])
        (verdict,) = _judge({"cells": rest[-1:]}, ran[-1:], self.assignment, self.asked)
        (unseen,) = _judge({"cells": rest[-1:]}, [[]], self.assignment, self.asked)
        self.worker.call({"do": "end"}, ASK_SECONDS)
        return verdict, unseen.message, [_failure(outputs) for outputs in ran[:-1]]


def prove(source: Path, wrong: Path, unsafe: bool = False, student: str = "proof") -> list[dict]:
    """For each exercise of an assignment: what the release, the solution and typical wrong answers score."""
    _homework.check_data()
    nb = json.loads(source.read_text(encoding="utf-8"))
    assignment, mutants, empty = source.stem, read_mutants(wrong), release(nb)
    bench, rows, before = Bench(nb, assignment, student, unsafe), [], []
    stubs = {meta(cell).get("grade_id"): text(cell) for cell in empty["cells"] if is_gap(cell)}
    pairs = exercises(nb)
    lost = sorted({name for name, _, _ in mutants} - set(pairs))
    if lost:
        raise ValueError(f"{wrong.name} has wrong answers to {', '.join(lost)}, which is no exercise of {source.name}")
    try:
        for k, cell in enumerate(bench.codes):
            name = meta(cell).get("grade_id")
            if name in pairs:
                test = next(n for n, one in enumerate(bench.codes) if meta(one).get("grade_id") == pairs[name])
                bench.run(before)
                before, rest = [], bench.codes[k + 1:test + 1]
                rows.append(_prove_one(bench, name, cell, rest, stubs[name],
                                       [(title, code) for gap, title, code in mutants if gap == name]))
            before.append(visible(text(cell)))
    finally:
        bench.worker.stop()
    return rows


def _prove_one(bench, name, gap, rest, stub, mutants):
    row = {"assignment": bench.assignment, "exercise": name, "release": bench.attempt(stub, rest)[0].score}
    verdict, _, failed = bench.attempt(text(gap), rest)
    row |= {"solution": verdict.score, "why": next(filter(None, failed), verdict.message), "full": verdict.points,
            "mutants": []}
    for title, code in mutants:
        verdict, unseen, failed = bench.attempt(code, rest)
        raised = failed[0] or next((said for said in (verdict.message, unseen) if " raises " in said), "")
        row["mutants"].append({"name": title, "score": verdict.score, "message": verdict.message, "hidden": unseen,
                               "raises": raised})
    return row


def unproven(row: dict) -> str:
    """What is wrong with a row of `prove`; empty if nothing."""
    found = []
    if row["release"]:
        found.append(f"the untouched release scores {row['release']:g}")
    if row["solution"] != row["full"]:
        found.append(f"the solution scores {row['solution']:g} of {row['full']:g} ({row['why']})")
    elif row["why"]:
        found.append(f"with the solution a cell fails ({row['why']})")
    for one in row["mutants"]:
        if one["score"]:
            found.append(f"the wrong answer {one['name']!r} scores {one['score']:g}")
        if not one["hidden"]:
            found.append(f"the wrong answer {one['name']!r} passes the hidden tests, and visible ones can be tampered with")
        if one["raises"]:
            found.append(f"the wrong answer {one['name']!r} does not run: {one['raises']}")
    if len(row["mutants"]) < 3:
        found.append(f"there are {len(row['mutants'])} wrong answers, three are needed")
    return "; ".join(found)


def defined(code: str) -> set:
    """Names that a piece of code makes at its top level."""
    found = set()
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.Assign):
            found |= {one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return found


# What nbgrader calls

_done, _guard = {}, threading.Lock()


def key(nb: dict, student: str) -> str:
    """Equal for notebooks that are graded alike."""
    return json.dumps([student, *([cell["cell_type"], text(cell)] for cell in nb["cells"] if cell["cell_type"] == "code")])


def remember(nb: dict, report: Report) -> None:
    """Keep a report that was made ahead, for nbgrader's turn."""
    with _guard:
        _done[key(nb, report.student)] = report


def recall(nb: dict, assignment: str, student: str, unsafe: bool) -> Report:
    """The report made ahead, or a new one."""
    found = _done.get(key(nb, student))
    return found or grade(nb, assignment, student, unsafe)
