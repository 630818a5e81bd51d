"""Recorded headline results: recompute, list, verify. Written by hand; the lessons mark what to run.

`nbs/results.json` is a list of rows. Each is a `Result` plus `hashes` of data, weights, config and
code; a row whose hashes no longer fit the working tree is *stale*.
"""
import ast
import hashlib
import importlib
import inspect
import io
import json
import math
import sys
import textwrap
import time
import tokenize
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path

from tqdm.auto import tqdm

from .core import HEADLINES, Result, atomic_write, hash_config, hash_file, sample, sample_dir

BUDGET = 30 * 60  # seconds that one `results run LESSON` may take
KEYS = [f.name for f in fields(Result)]
HASHES = {"function": str, "data": dict, "weights": dict, "config": str, "code": str}


def results_path() -> Path:
    """The committed file of recorded rows; it exists in a clone only."""
    folder = sample_dir().parent / "nbs"
    if not folder.is_dir():
        raise ValueError("results are recorded in a clone of the course: there is no nbs/ folder here")
    return folder / "results.json"


def load() -> list[dict]:
    """All recorded rows with their hashes; a damaged file raises ValueError."""
    path = results_path()
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        problem = "" if isinstance(rows, list) else "it is no list of rows"
        problem = problem or next(filter(None, (_damage(row, i) for i, row in enumerate(rows, 1))), "")
    except ValueError as error:  # no JSON, or no UTF-8
        problem = str(error)
    if problem:
        raise ValueError(
            f"{path} is damaged: {problem}; get it back with `git checkout -- nbs/results.json`, "
            "or delete it and run `deepfake-course results run LESSON` again"
        )
    return rows


def _damage(row, number) -> str:
    """What is wrong with one row of the file, or an empty string."""
    if not isinstance(row, dict) or {*KEYS, "hashes"} - set(row):
        return f"row {number} lacks one of {', '.join(KEYS)}, hashes"
    marks = row["hashes"]
    if not isinstance(marks, dict) or not all(isinstance(marks.get(key), kind) for key, kind in HASHES.items()):
        return f"the hashes of row {number} are not complete"
    numbers = [row["value"], row["n"], *(row[key] for key in ("low", "high", "baseline") if row[key] is not None)]
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
        return f"row {number} has a value that is no finite number"
    if not all(isinstance(row[key], str) for key in ("lesson", "name")) or not isinstance(row["config"], dict):
        return f"lesson, name or config of row {number} is of the wrong kind"
    return "" if (row["low"] is None) == (row["high"] is None) else f"row {number} has half an interval"


def save(rows: list[dict]):
    """Write all rows at once, ordered by lesson and name; a number that is not finite raises ValueError."""
    rows = sorted(rows, key=lambda row: (row["lesson"], row["name"]))
    text = json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(results_path()) as f:
        f.write(text + "\n")


def lessons() -> list[str]:
    """Module names of all lessons, in lesson order."""
    return [path.stem.split("_", 1)[1] for path in sorted(results_path().parent.glob("[0-9][0-9]_*.ipynb"))]


def headlines(lesson: str) -> dict:
    """Functions of a lesson that make a headline row, by function name."""
    if lesson not in lessons():
        raise ValueError(f"there is no lesson {lesson!r}; lessons are: {', '.join(lessons())}")
    importlib.import_module(f"deepfake_course.{lesson}")
    return {name: function for (module, name), function in HEADLINES.items() if module == lesson}


def hashes(function, config: dict) -> dict:
    """What a row depends on: the sample files, the trained weights, the settings, the code."""
    return {
        "function": function.__name__,
        "data": {name: hash_file(sample(name)) for name in function.data},
        "weights": {name: hash_file(sample(name)) for name in function.weights},
        "config": hash_config(config),
        "code": code_hash(function),
    }


def stale_rows() -> list[str]:
    """One sentence for each recorded row that does not fit the working tree, and each that is missing."""
    rows, problems = load(), []
    for lesson in lessons():
        known = headlines(lesson)
        for name in known:
            if not any(row["lesson"] == lesson and row["hashes"]["function"] == name for row in rows):
                problems.append(f"{lesson}: {name} was never recorded, run `deepfake-course results run {lesson}`")
        for row in (row for row in rows if row["lesson"] == lesson):
            problem = _stale(row, known)
            if problem:
                problems.append(f"{lesson}: {row['name']}: {problem}, run `deepfake-course results run {lesson}`")
    unknown = {row["lesson"] for row in rows} - set(lessons())
    return problems + [f"results.json has rows of {lesson!r}, which is no lesson" for lesson in sorted(unknown)]


def _stale(row: dict, known: dict) -> str:
    function = known.get(row["hashes"]["function"])
    if function is None:
        return f"{row['hashes']['function']} is gone"
    now = hashes(function, row["config"])
    changed = [what for what in ("data", "weights", "config", "code") if now[what] != row["hashes"][what]]
    return f"{' and '.join(changed)} changed" if changed else ""


def run(lesson: str, force: bool = False) -> list[dict]:
    """Recompute a lesson's rows and save after each; fresh rows are kept, so a killed run goes on."""
    known, start = headlines(lesson), time.monotonic()
    if not known:
        raise ValueError(f"lesson {lesson!r} has no headline results")
    rows = [row for row in load() if row["lesson"] != lesson or row["hashes"]["function"] in known]
    for name, function in tqdm(known.items(), desc=lesson, unit="row"):
        mine = [row for row in rows if row["lesson"] == lesson and row["hashes"]["function"] == name]
        if mine and not force and not _stale(mine[0], known):
            continue
        if time.monotonic() - start > BUDGET:
            again = f"run the same command again to go on at {name}"
            raise ValueError(f"{lesson} took more than {BUDGET // 60} min; {again}")
        result = function()
        if result.lesson != lesson:
            raise ValueError(f"{name} says its lesson is {result.lesson!r}, but it belongs to {lesson!r}")
        rows = [row for row in rows if row not in mine]
        rows.append({**asdict(result), "hashes": hashes(function, result.config)})
        save(rows)
    return [row for row in rows if row["lesson"] == lesson]


def verify(name: str) -> tuple[dict, Result, bool]:
    """Recompute one recorded row: the row, the fresh result, and whether they agree to six digits."""
    rows = [row for row in load() if name in (row["name"], row["hashes"]["function"])]
    if not rows:
        names = ", ".join(row["name"] for row in load())
        raise ValueError(f"no recorded result is called {name!r}; there are: {names}")
    row = rows[0]
    fresh = headlines(row["lesson"]).get(row["hashes"]["function"])
    if fresh is None:
        raise ValueError(f"{row['hashes']['function']} is no longer in lesson {row['lesson']}")
    fresh = fresh()
    same = all(_close(row[key], getattr(fresh, key)) for key in ("value", "low", "high", "baseline"))
    return row, fresh, same and row["n"] == fresh.n


def _close(a, b) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= 1e-6 * max(1, abs(a))


def code_hash(function) -> str:
    """SHA-256 of the code a function runs: its own and all of the package that it reaches by name.

    Hashing the file would make every record stale when a comment is mended; hashing the function
    alone would miss the ones it calls. So names are followed, and comments, docstrings, blank lines and
    what can only refuse (see `_refuses`) do not count. Attributes (`module.function`) are not followed.
    The hash is that of the source text, not of the syntax tree, which each version of Python writes in
    its own way.
    """
    function = inspect.unwrap(function)
    package, seen, todo, parts = function.__module__.split(".")[0], set(), [function], []
    while todo:
        item = inspect.unwrap(todo.pop())
        if item in seen:
            continue
        seen.add(item)
        if isinstance(item, type) and issubclass(item, tuple) and hasattr(item, "_fields"):
            parts.append(f"{item.__name__}{item._fields}")  # a namedtuple has no source of its own
            continue
        text, names = _read(item)
        parts.append(text)
        scope = vars(sys.modules[item.__module__])
        for name in names:
            value = None if name.startswith("__") else scope.get(name)  # __file__ differs between machines
            if isinstance(value, (bool, int, float, str)):
                parts.append(f"{name}={value!r}")
            elif hasattr(value, "__qualname__") and (value.__module__ or "").split(".")[0] == package:
                todo.append(value)
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


@lru_cache(maxsize=None)
def _read(item):
    """The bare source of a function or class and the names in it; most rows reach the same ones, so read once."""
    source = textwrap.dedent(inspect.getsource(item))
    tree = ast.parse(source)
    return _bare(source, tree), sorted({node.id for node in _counted(tree) if isinstance(node, ast.Name)})


def _counted(node):
    """A node and all below it, without statements that can only refuse."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _refuses(child):
            yield from _counted(child)


def _refuses(node) -> bool:
    """Whether a statement stops or changes nothing: `if ...: raise`, or a call of a check whose answer nobody takes.

    A number that came out was let through, so a clearer error makes no record stale.
    """
    if isinstance(node, ast.If):
        keeps = any(isinstance(part, ast.NamedExpr) for part in ast.walk(node.test))
        return not node.orelse and not keeps and all(isinstance(n, ast.Raise) or _refuses(n) for n in node.body)
    call = node.value if isinstance(node, ast.Expr) else None
    name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
    return name.lstrip("_").startswith("check")


def _bare(source, tree):
    """The source without comments, docstrings, blank lines and what can only refuse."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
        if _refuses(node):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())
