"""What the course owes and who delivers it: `nbs/curriculum.csv`. Written by hand.

A row names its deliverer in one of three ways: `module:object` (a name of this package), a heading
`notebook.ipynb#Heading` of a lesson, or a test `tests/file.py::test`. The name is empty while
nobody delivers the row. A name that leads nowhere is a problem, never a delivery.
"""

import ast
import csv
import importlib
import io
import json
import re
from functools import lru_cache
from pathlib import Path

COLUMNS = ["number", "capability", "seeds", "owed", "lesson", "name"]
OWED = {"M": "must", "S": "should", "N": "optional"}


def find_root():
    """The clone that this package lies in."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "nbs" / "curriculum.csv").is_file():
        raise FileNotFoundError(
            "the curriculum is kept in a clone of the course: there is no nbs/curriculum.csv here"
        )
    return root


def load(root=None):
    """The rows as dictionaries of text, `number` as int; a damaged table raises ValueError."""
    path = Path(root or find_root()) / "nbs" / "curriculum.csv"
    try:
        lines = io.StringIO(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text: {error}") from error
    reader = csv.DictReader(lines, strict=True)
    try:
        if reader.fieldnames != COLUMNS:
            raise ValueError(
                f"{path.name} must have the columns {','.join(COLUMNS)}, not {reader.fieldnames}"
            )
        rows = [_checked(row, f"{path.name} line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path.name} line {reader.line_num}: {error}") from error
    numbers = [row["number"] for row in rows]
    if numbers != list(range(1, len(rows) + 1)):
        raise ValueError(f"{path.name}: the numbers must be 1, 2, 3 ... without gap or repeat")
    return rows


def _checked(row, where):
    if None in row or None in row.values():
        raise ValueError(f"{where}: not {len(COLUMNS)} cells; quote commas")
    if not row["number"].isdecimal() or row["owed"] not in OWED:
        raise ValueError(f"{where}: number or owed (M, S, N) is wrong")
    return row | {"number": int(row["number"])}


def resolve(name, root=None):
    """True if the name leads to something; LookupError says why it does not."""
    root = Path(root or find_root())
    if ".ipynb#" in name:
        return _heading(root, *name.split("#", 1))
    if "::" in name:
        return _test(root, *name.split("::", 1))
    if re.fullmatch(r"[A-Za-z_]\w*:[A-Za-z_][\w.]*", name):
        return _object(*name.split(":"))
    raise LookupError(
        f"{name!r} is no module:object, notebook.ipynb#Heading or tests/file.py::test"
    )


def _object(module, path):
    try:
        found = importlib.import_module(f"deepfake_course.{module}")
    except Exception as error:
        raise LookupError(f"deepfake_course.{module} cannot be imported: {error}") from error
    first = path.split(".")[0]
    if first not in getattr(found, "__all__", vars(found)):
        raise LookupError(f"deepfake_course.{module} exports no {first}")
    for part in path.split("."):
        if not hasattr(found, part):
            raise LookupError(f"deepfake_course.{module} has no {path}")
        found = getattr(found, part)
    return True


@lru_cache
def _headings(path, changed):
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "markdown")
    return {head.strip() for head in re.findall(r"^#{1,6} (.+)$", text, re.M)}


def _heading(root, notebook, heading):
    path = root / "nbs" / notebook
    if not path.is_file():
        raise LookupError(f"nbs/{notebook} does not exist")
    try:
        headings = _headings(str(path), path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise LookupError(f"nbs/{notebook} is no readable notebook: {why}") from error
    if heading not in headings:
        raise LookupError(f"nbs/{notebook} has no heading {heading!r}")
    return True


def _test(root, file, test):
    path = root / file
    if not file.startswith("tests/") or not path.is_file():
        raise LookupError(f"{file} is no file of tests/")
    try:
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or a NUL byte
        raise LookupError(f"{file} does not parse: {error}") from error
    for part in test.split("::"):
        found = [
            n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == part
        ]
        if not found:
            raise LookupError(f"{file} has no test {test}")
        nodes = found[0].body
    if not part.startswith("test"):
        raise LookupError(f"{file}::{test} is not collected: tests are called test_...")
    return True


def problem(row, root=None):
    """What is wrong with one row, or an empty string."""
    root, where = Path(root or find_root()), f"row {row['number']}"
    lesson, name = row["lesson"], row["name"]
    if lesson and not name:
        return f"{where} names lesson {lesson} but nothing that delivers it"
    if lesson and not (root / "nbs" / f"{lesson}.ipynb").is_file():
        return f"{where}: there is no lesson nbs/{lesson}.ipynb"
    if not name:
        return ""
    try:
        resolve(name, root)
    except LookupError as error:
        return f"{where}: {error}"
    maker = (
        name.split("#")[0].removesuffix(".ipynb") if ".ipynb#" in name else name.partition(":")[0]
    )
    if (
        "::" not in name
        and not maker.startswith("_")
        and maker not in (lesson, lesson.partition("_")[2])
    ):
        return f"{where}: {name} is not of lesson {lesson or '(empty)'}"
    return ""


def coverage(rows, broken=()):
    """Rows and delivered rows for each degree of obligation; `broken` numbers do not count."""
    table = {}
    for key, label in [*OWED.items(), ("", "all")]:
        part = [row for row in rows if row["owed"] == key or not key]
        done = sum(bool(row["name"]) and row["number"] not in broken for row in part)
        table[label] = {"rows": len(part), "delivered": done}
    return table


def report(json=False, root=None):
    """The coverage as text, or as a dictionary with rows, coverage and problems."""
    root = Path(root or find_root())
    rows = load(root)
    found = {row["number"]: problem(row, root) for row in rows}
    problems = {number: text for number, text in found.items() if text}
    table = coverage(rows, problems)
    if json:
        flagged = [
            row | {"delivered": bool(row["name"]) and row["number"] not in problems} for row in rows
        ]
        return {"coverage": table, "problems": list(problems.values()), "rows": flagged}
    lines = [
        f"{label:>8}  {n['delivered']:3d} of {n['rows']:3d} delivered" for label, n in table.items()
    ]
    lessons = sorted({row["lesson"] for row in rows if row["lesson"]})
    for lesson in lessons:
        numbers = [
            row["number"]
            for row in rows
            if row["lesson"] == lesson and row["number"] not in problems
        ]
        lines.append(f"{lesson:>18}  {_ranges(numbers)}")
    lines += [f"problem: {text}" for text in problems.values()] or ["every name resolves"]
    return "\n".join(lines)


def _ranges(numbers):
    """1, 42-45, 66"""
    parts = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
