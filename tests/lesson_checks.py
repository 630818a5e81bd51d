"""What the house style says about a lesson, as checks that read a notebook without running it.

Each `@check` takes a `Lesson` and returns its problems as sentences that name notebook and cell.
`tests/test_lessons.py` applies all of them to all lessons, and to bad lessons made on purpose.

    python tests/lesson_checks.py nbs/01_metrics.ipynb ...     print the problems of these lessons
"""

import ast
import builtins
import csv
import dis
import hashlib
import io
import json
import re
import sys
import tokenize
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path

PACKAGE = "deepfake_course"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
EXPORTS = ("export", "exports", "exporti")
FLAGS = ("net", "gpu", "slow")
FIRST = "Look first"
TAIL = (  # the sections after the ideas, in this order; True = every lesson has it
    ("Check against an independent answer", False),
    ("What the paper said", False),
    ("Where it breaks", True),
    ("Play", False),
    ("Recap", True),
    ("Exercises", True),
    ("References", True),
)
LEAD = ("*You have*", "*You will build*", "*Why it matters*", "*Runs in*")
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt|private|var/folders)/|(?<![A-Za-z])[A-Z]:\\+\w"
)
EMOJI = re.compile(r"[\U0001F000-\U0001FAFF\u2600-\u26FF\u2705\u274C\u2728\u2764\u2B50\uFE0F]")
CONFLICT = re.compile(r"^`?(?:<{7}(?: .*)?|={7}|>{7}(?: .*)?)`?$", re.M)
BANNER = re.compile(r"^\s*#(?!\|)\s*[-=*#~_]{3,}", re.M)
MAGIC = re.compile(r"^(\s*)(?:[%!].*|[\w.]+\?\??\s*)$")

MAX_LEAD, MAX_CELL, MAX_FUNCTION, MAX_COLUMNS = 90, 20, 30, 100
CELLS, WORDS, IDEAS, EXERCISES = (30, 70), (600, 1500), (2, 5), (3, 5)
MAX_OUTPUT, MAX_SAMPLES, MAX_WEIGHTS, MAX_FLAGGED = 300_000, 20_000_000, 15_000_000, 2


# A notebook as the checks see it


@dataclass
class Cell:
    kind: str
    source: str
    id: str = ""
    outputs: list = field(default_factory=list)
    raw: dict = field(default_factory=dict)
    section: str = ""  # the `## ` heading it stands under

    @cached_property
    def directives(self):
        lines = re.findall(r"^#\|\s*(.+?)\s*$", self.source, re.M) if self.kind == "code" else []
        return {line.split()[0].rstrip(":"): line for line in lines}

    @property
    def headings(self):
        return [text.strip() for text in re.findall(r"^## (.+)$", _no_fences(self.source), re.M)]

    @property
    def exported(self):
        return any(word in self.directives for word in EXPORTS)

    @property
    def plain(self):
        return self.kind == "code" and not self.exported and "default_exp" not in self.directives

    @cached_property
    def code(self):
        "The source with magics replaced, so that Python can read it."
        lines = self.source.split("\n") if self.kind == "code" else []
        return "\n".join(MAGIC.sub(r"\1pass", line) for line in lines)

    @cached_property
    def tree(self):
        try:
            return ast.parse(self.code)
        except SyntaxError:
            return ast.Module(body=[], type_ignores=[])  # check_parse tells

    @property
    def definitions(self):
        return [node for node in self.tree.body if isinstance(node, DEFINITIONS)]

    @property
    def imports(self):
        "Import statements that run with the cell, not those inside a function."
        kinds = (ast.Import, ast.ImportFrom)
        return [node for node in _outside_functions(self.tree) if isinstance(node, kinds)]


@dataclass
class Lesson:
    path: Path
    cells: list
    metadata: dict = field(default_factory=dict)

    @property
    def name(self):
        return self.path.stem

    @property
    def module(self):
        return self.name.partition("_")[2]

    @property
    def code(self):
        return [c for c in self.cells if c.kind == "code"]

    @property
    def exported(self):
        return [c for c in self.cells if c.exported]

    @property
    def plain(self):
        return [c for c in self.cells if c.plain]

    @property
    def headings(self):
        "(cell, text) of each `## ` heading."
        return [(c, text) for c in self.cells if c.kind == "markdown" for text in c.headings]

    def section(self, title):
        "Markdown of one section without its heading; None where there is no such section."
        text = "\n\n".join(c.source for c in self.cells if c.kind == "markdown")
        parts = re.split(r"^## (.+)$", text, flags=re.M)
        found = [body for head, body in zip(parts[1::2], parts[2::2]) if head.strip() == title]
        return "\n\n".join(found).strip() if found else None

    def say(self, cell, text):
        where = f" cell {cell.id or cell.raw.get('index')}" if cell else ""
        return f"{self.path.name}{where}: {text}"


def from_dict(nb, path):
    "A `Lesson` from notebook JSON."
    cells, section = [], ""
    for i, raw in enumerate(nb["cells"]):
        source = "".join(raw["source"])
        raw = raw | {"index": i}
        cell = Cell(raw["cell_type"], source, raw.get("id", ""), raw.get("outputs", []), raw)
        if cell.kind == "markdown" and cell.headings:
            section = cell.headings[-1]
        cell.section = section
        cells.append(cell)
    return Lesson(Path(path), cells, nb.get("metadata", {}))


def read(path):
    "A `Lesson` from a notebook file."
    return from_dict(json.loads(Path(path).read_text(encoding="utf-8")), path)


def lesson_files(nbs):
    "Notebooks in a folder, in number order; those that start with `_` or `.` are scratch."
    return sorted(p for p in Path(nbs).glob("*.ipynb") if p.name[0] not in "_.")


def _no_fences(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def _outside_functions(tree):
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _outside_functions(node)


def _functions(cell):
    "Every exported function and method with its qualified name."
    for node in cell.definitions:
        if not isinstance(node, ast.ClassDef):
            yield node.name, node
            continue
        for sub in ast.walk(node):
            if isinstance(sub, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{node.name}.{sub.name}", sub


def _patched(node):
    return any("patch" in ast.unparse(d) for d in getattr(node, "decorator_list", []))


def _texts(value):
    "All text of an output: streams, representations, tracebacks; not pictures in base64."
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield "".join(value) if all(isinstance(v, str) for v in value) else ""
        for v in value:
            if not isinstance(v, str):
                yield from _texts(v)
    elif isinstance(value, dict):
        for key, v in value.items():
            if key not in ("image/png", "image/jpeg", "image/gif", "video/mp4"):
                yield from _texts(v)


CHECKS = []


def check(rule):
    "Turn a generator of (cell or None, text) into a check that returns a list of sentences."

    @wraps(rule)
    def run(lesson):
        return [lesson.say(cell, text) for cell, text in rule(lesson)]

    CHECKS.append(run)
    return run


# The shape of a lesson


@check
def file_name(lesson):
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9]*(?:_[a-z0-9]+)*\.ipynb", lesson.path.name):
        yield None, "name it NN_words.ipynb: two digits, underscore, lower-case words"


@check
def title(lesson):
    first = lesson.cells[0] if lesson.cells else Cell("markdown", "")
    lines = [line for line in first.source.split("\n") if line.strip()]
    shape = len(lines) == 2 and lines[0].startswith("# ") and lines[1].startswith("> ")
    if first.kind != "markdown" or not shape:
        yield first, "the first cell is '# Title' and one '> line', nothing else"
    for cell in lesson.cells[1:]:
        if cell.kind == "markdown" and re.search(r"^# ", _no_fences(cell.source), re.M):
            yield cell, "a second '# ' title; sections start with '## '"


@check
def default_exp(lesson):
    want = f"#| default_exp {lesson.module}"
    second = lesson.cells[1] if len(lesson.cells) > 1 else Cell("code", "")
    if second.source.strip() != want:
        yield second, f"the second cell is '{want}', alone"
    for cell in lesson.cells[2:]:
        if "default_exp" in cell.directives:
            yield cell, "a second default_exp: one notebook makes one module"
        if any(len(cell.directives.get(word, "").split()) > 1 for word in EXPORTS):
            yield cell, "exports to another module: one notebook makes one module"


@check
def lead(lesson):
    cell = lesson.cells[2] if len(lesson.cells) > 2 else Cell("code", "")
    if cell.kind != "markdown" or re.search(r"^#", cell.source, re.M):
        yield cell, f"the third cell is the lead: {', '.join(LEAD)}, without a heading"
        return
    places = [cell.source.find(part) for part in LEAD]
    missing = [part for part, at in zip(LEAD, places) if at < 0]
    if missing:
        yield cell, f"the lead has no {', '.join(missing)}"
    elif places != sorted(places):
        yield cell, f"the order of the lead is {', '.join(LEAD)}"
    elif not re.search(r"\d", cell.source[places[-1] :]):
        yield cell, "the lead says no number of seconds after *Runs in*"
    words = len(cell.source.split())
    if words > MAX_LEAD:
        yield cell, f"the lead has {words} words; at most {MAX_LEAD}"


@check
def sections(lesson):
    "Obligatory sections, the order of all of them, none twice."
    titles = [text for _, text in lesson.headings]
    for text, needed in ((FIRST, True), *TAIL):
        if needed and text not in titles:
            yield None, f"the section '## {text}' is missing"
        if titles.count(text) > 1:
            yield None, f"the section '## {text}' comes {titles.count(text)} times"
    rank = {FIRST: 0} | {text: i + 2 for i, (text, _) in enumerate(TAIL)}
    ranks = [rank.get(text, 1) for text in titles]
    order = ", ".join([FIRST, "the ideas", *(text for text, _ in TAIL)])
    for (cell, text), here, before in zip(lesson.headings[1:], ranks[1:], ranks):
        if here < before:
            yield cell, f"'## {text}' stands too late; the order is {order}"


@check
def ideas(lesson):
    fixed = {FIRST, *(text for text, _ in TAIL)}
    count = sum(text not in fixed for _, text in lesson.headings)
    if not IDEAS[0] <= count <= IDEAS[1]:
        least, most = IDEAS
        yield (
            None,
            f"{count} idea sections ('## ...'); {least} to {most}, finer steps are '### ...'",
        )


@check
def look_first(lesson):
    "Its first code cell shows a sample, before any function exists."
    cells = [c for c in lesson.cells if c.section == FIRST]
    first = next((c for c in cells if c.kind == "code"), None)
    if cells and first is None:
        yield cells[0], f"'## {FIRST}' shows a sample: it needs a code cell"
    elif cells and (first.exported or first.definitions):
        yield first, f"'## {FIRST}' shows a sample before any function exists"


@check
def recap(lesson):
    lines = [line for line in (lesson.section("Recap") or "").split("\n") if line.strip()]
    if lesson.section("Recap") is None:
        return  # sections tells
    bullets = sum(bool(re.match(r"[-*] ", line)) for line in lines)
    if bullets != 3:
        yield None, f"the recap has {bullets} bullets ('- ...'), not three"
    if not lines or not re.match(r"[*_]*Next:", lines[-1]):
        yield None, "the last line of the recap is 'Next: ...'"


@check
def exercises(lesson):
    text = lesson.section("Exercises")
    count = len(re.findall(r"^\d+\. ", text or "", re.M))
    if text is not None and not EXERCISES[0] <= count <= EXERCISES[1]:
        yield None, f"{count} numbered exercises; {EXERCISES[0]} to {EXERCISES[1]}, easiest first"


@check
def references(lesson):
    if lesson.section("References") == "":
        yield None, "'## References' is empty"


@check
def cell_count(lesson):
    count = len(lesson.cells)
    if not CELLS[0] <= count <= CELLS[1]:
        yield None, f"{count} cells; {CELLS[0]} to {CELLS[1]}"


@check
def words(lesson):
    count = sum(len(c.source.split()) for c in lesson.cells if c.kind == "markdown")
    if not WORDS[0] <= count <= WORDS[1]:
        yield None, f"{count} words of prose; {WORDS[0]} to {WORDS[1]}"


@check
def ids(lesson):
    seen = set()
    for cell in lesson.cells:
        if not cell.id:
            yield cell, "a cell without an id: run nbdev_clean"
        elif cell.id in seen:
            yield cell, "an earlier cell has the same id"
        seen.add(cell.id)


@check
def kernel(lesson):
    name = lesson.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield None, f"its kernel is {name!r}: choose python3, which every reader has"


# Imports


@check
def imports(lesson):
    "One exported and one plain import cell after the lead, pure; no imports further down."
    seen, heads = set(), []
    for cell in lesson.cells[3:]:
        if not cell.imports:
            break
        heads.append(cell)
        kind = "exported" if cell.exported else "plain"
        if kind in seen:
            yield cell, f"a second {kind} import cell"
        seen.add(kind)
        if not all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in cell.tree.body):
            yield cell, "an import cell holds imports and nothing else"
    for cell in lesson.code:
        if cell not in heads and cell.imports:
            yield cell, "imports belong in the two import cells under the lead"


@check
def import_names(lesson):
    "No star import, no relative import: a reader sees where each name comes from."
    for cell in lesson.code:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.ImportFrom):
                if any(a.name == "*" for a in node.names):
                    yield cell, f"star import from {node.module}: name what you need"
                if node.level:
                    yield cell, f"relative import: write 'from {PACKAGE}.NAME import ...'"


def imported_modules(tree):
    "Modules of the course that a piece of code imports, functions included."
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE and not node.level:
            names = [f"{PACKAGE}.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith(f"{PACKAGE}.")}
    return {name for name in found if not name.startswith("_")}


@check
def upward(lesson):
    "Numbers are the dependency order, in exported and in demo cells."
    numbers = {}
    for path in lesson_files(lesson.path.parent):
        number, _, module = path.stem.partition("_")
        numbers[module] = number
    here = lesson.name.partition("_")[0]
    for cell in lesson.code:
        for module in sorted(imported_modules(cell.tree)):
            what = f"imports {PACKAGE}.{module}"
            if module == lesson.module:
                yield cell, f"{what}, its own module: use the names of the cells above"
            elif module not in numbers:
                yield cell, f"{what}, which no notebook makes"
            elif numbers[module] >= here:
                yield cell, f"{what} of lesson {numbers[module]}: import from lower numbers only"


# Code


def _broken(cell):
    try:
        ast.parse(cell.code)
    except SyntaxError as error:
        return error
    return None


@check
def parse(lesson):
    for cell in lesson.code:
        error = _broken(cell)
        if error:
            kind = "exported" if cell.exported else "code"
            yield cell, f"{kind} cell does not parse: {error.msg}, line {error.lineno}"


@check
def magics(lesson):
    for cell in lesson.exported:
        for line in cell.source.split("\n"):
            if MAGIC.match(line):
                yield cell, f"'{line.strip()}' in an exported cell: a module holds no magic"


@check
def undefined(lesson):
    """Names that exported code uses and no exported cell defines: they leak in from plain cells.
    `tests/test_path.py` sees this by running; here branches that never run are read too."""
    if any(_broken(cell) for cell in lesson.exported):
        return
    defined, used = set(dir(builtins)), {}
    for cell in lesson.exported:
        for name in _globals_read(compile(cell.code, "cell", "exec"), defined):
            used.setdefault(name, cell)
    for name, cell in used.items():
        if name not in defined and not name.startswith("__"):
            yield cell, f"uses {name}, which no exported cell defines or imports"


def _globals_read(code, defined):
    "Global names that compiled code reads; those it binds are added to `defined`."
    own = set()
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_NAME", "STORE_GLOBAL"):
            outside = code.co_name == "<module>" or step.opname == "STORE_GLOBAL"
            (defined if outside else own).add(step.argval)
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"):
            if step.argval not in own:
                yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, type(code)):
            yield from _globals_read(inner, defined)


@check
def function_length(lesson):
    for cell in lesson.exported:
        for name, node in _functions(cell):
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION:
                yield cell, f"{name} has {lines} lines; at most {MAX_FUNCTION}: make it two"


def _comments(cell):
    "Line number -> comment, and the numbers of lines that hold nothing else."
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(cell.code + "\n").readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    return comments, alone


def _arguments(node):
    a = node.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs]
    named += [extra for extra in (a.vararg, a.kwarg) if extra]
    return [arg for arg in named if arg.arg not in ("self", "cls")]


def _gives_value(node):
    for sub in _outside_functions(node):
        if isinstance(sub, (ast.Yield, ast.YieldFrom)):
            return True
        if isinstance(sub, ast.Return) and sub.value is not None:
            if getattr(sub.value, "value", "something") is not None:  # not `return None`
                return True
    return False


def _public(name):
    return not any(part.startswith("_") for part in name.split("."))


@check
def docstrings(lesson):
    "Public functions, classes and methods: one line, and a second one that names the source."
    for cell in lesson.exported:
        classes = [(n.name, n) for n in cell.definitions if isinstance(n, ast.ClassDef)]
        for name, node in classes + list(_functions(cell)):
            lines = [x for x in (ast.get_docstring(node) or "").split("\n") if x.strip()]
            if _public(name) and not lines:
                yield cell, f"{name} has no docstring"
            elif _public(name) and len(lines) > 2:
                yield cell, f"{name}: a docstring is one line, and a second for the source"


@check
def docments(lesson):
    "Public functions: a comment for each parameter and for the result."
    for cell in lesson.exported:
        comments, alone = ({}, set()) if _broken(cell) else _comments(cell)
        for name, node in _functions(cell):
            if "." in name or not _public(name):
                continue
            last = [node.returns.end_lineno] if node.returns else []
            rows = [((arg.annotation or arg).end_lineno, arg.arg) for arg in _arguments(node)]
            lines = [row for row, _ in rows] + last
            for row, arg in rows:
                if not (row in comments and lines.count(row) == 1) and row - 1 not in alone:
                    yield cell, f"{name}: parameter {arg} has no comment of its own on its line"
            if _gives_value(node) and not node.returns:
                yield cell, f"{name}: annotate the result, '->Type: # meaning'"
            elif _gives_value(node) and not comments.get(last[0]):
                yield cell, f"{name}: the result has no comment"


@check
def one_definition(lesson):
    for cell in lesson.exported:
        names = [n.name for n in cell.definitions if _public(n.name) and not _patched(n)]
        if len(names) > 1:
            yield cell, f"defines {', '.join(names)}: one public definition in a cell"


@check
def definition_followed(lesson):
    for cell, after in zip(lesson.cells, lesson.cells[1:]):
        if cell.exported and after.exported and cell.definitions and after.definitions:
            here, there = cell.definitions[-1].name, after.definitions[0].name
            yield after, f"{there} is defined right after {here}: run or explain {here} first"


def public_names(lesson):
    "Public names of the module: name -> (cell, node that defines it)."
    names = {}
    for cell in lesson.exported:
        for node in cell.tree.body:
            if isinstance(node, DEFINITIONS):
                found = [] if _patched(node) else [node.name]
            elif isinstance(node, ast.Assign):
                found = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found = [node.target.id]
            else:
                found = []
            for name in filter(_public, found):
                names.setdefault(name, (cell, node))
    return names


def _loads(tree, skip=None):
    "Names that code reads, one definition left out."
    for node in ast.iter_child_nodes(tree):
        if node is skip:
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        if isinstance(node, ast.Attribute):
            yield node.attr
        yield from _loads(node, skip)


@check
def public_used(lesson):
    "A function runs in a plain cell or as a decorator; a class or constant has some other user."
    shown = {name for cell in lesson.plain for name in _loads(cell.tree)}
    for cell in lesson.exported:
        decorators = [d for node in cell.definitions for d in node.decorator_list]
        shown |= set(_loads(ast.List(decorators)))
    for name, (cell, node) in public_names(lesson).items():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            used = name in shown
        else:
            used = any(name in _loads(other.tree, node) for other in lesson.code)
        if not used:
            yield (
                cell,
                f"{name} is public but the lesson does not show it: use it, or call it _{name}",
            )


@check
def tests(lesson):
    "Assertions that can fail: no try, no mocks in the lesson's own cells."
    for cell in lesson.plain:
        if any(isinstance(n, ast.Try) for n in ast.walk(cell.tree)):
            yield cell, "try/except in a test hides a failure: use expect_fail"
        if any("mock" in ast.unparse(node) for node in cell.imports):
            yield cell, "no mocks: use a small real thing"


@check
def cell_length(lesson):
    for cell in lesson.plain:
        lines = len(cell.source.strip().split("\n"))
        if lines > MAX_CELL and len(cell.imports) < len(cell.tree.body):
            yield cell, f"{lines} lines; a cell has at most {MAX_CELL}"


@check
def columns(lesson):
    for cell in lesson.code:
        for i, line in enumerate(cell.source.split("\n"), 1):
            if len(line) > MAX_COLUMNS:
                yield cell, f"line {i} has {len(line)} columns; at most {MAX_COLUMNS}"


@check
def semicolons(lesson):
    for cell in lesson.code:
        if not _broken(cell):
            tokens = tokenize.generate_tokens(io.StringIO(cell.code + "\n").readline)
            if any(t.type == tokenize.OP and t.string == ";" for t in tokens):
                yield cell, "';' in code: one statement a line"


@check
def banners(lesson):
    for cell in lesson.code:
        if BANNER.search(cell.source):
            yield cell, "a comment that divides a cell is a missing markdown cell"


@check
def last_line(lesson):
    "A cell ends in the value or picture worth seeing."
    for cell in lesson.plain:
        last = cell.tree.body[-1] if cell.tree.body else None
        call = last.value if isinstance(last, ast.Expr) else None
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print":
            yield cell, "ends in print: end in the value itself"


@check
def flags(lesson):
    flagged = [c for c in lesson.code if any(flag in c.directives for flag in FLAGS)]
    if len(flagged) > MAX_FLAGGED:
        yield flagged[-1], f"{len(flagged)} cells flagged {'/'.join(FLAGS)}; at most {MAX_FLAGGED}"


# Marks of an accident


@check
def conflicts(lesson):
    for cell in lesson.cells:
        if CONFLICT.search(cell.source):
            yield cell, "a merge conflict marker: resolve it in the notebook, then export"


@check
def emoji(lesson):
    for cell in lesson.cells:
        if any(EMOJI.search(text) for text in (cell.source, *_texts(cell.outputs))):
            yield cell, "an emoji"


@check
def source_paths(lesson):
    for cell in lesson.cells:
        found = MACHINE_PATH.search(cell.source)
        if found:
            yield cell, f"'{found[0]}': a path of one machine; use sample, cache_dir or tempfile"


# Outputs


@check
def output_paths(lesson):
    for cell in lesson.code:
        found = next(filter(None, map(MACHINE_PATH.search, _texts(cell.outputs))), None)
        if found:
            yield cell, f"its output shows the path '{found[0]}...' of one machine: show path.name"


@check
def stderr(lesson):
    for cell in lesson.code:
        for out in cell.outputs:
            if out.get("name") == "stderr":
                text = "".join(out.get("text", "")).strip()[:60]
                yield cell, f"stderr in the output ('{text}'): mend the cause and run again"
            if out.get("output_type") == "error":
                yield cell, f"an error in the output: {out.get('ename')}"


@check
def widget_state(lesson):
    if "widgets" in lesson.metadata:
        yield None, "widget state in the metadata: switch off saving it, clear, run again"
    for cell in lesson.code:
        for kinds in (out.get("data", {}) for out in cell.outputs):
            if any("widget-state" in kind for kind in kinds):
                yield cell, "widget state in the output"
            if any("widget-view" in kind for kind in kinds) and "image/png" not in kinds:
                yield cell, "a widget without a picture (image/png) for readers without a kernel"


@check
def output_size(lesson):
    sizes = [len(json.dumps(c.outputs, ensure_ascii=False).encode()) for c in lesson.code]
    if sum(sizes) > MAX_OUTPUT:
        kb = [-(-n // 1000) for n in (sum(sizes), max(sizes), MAX_OUTPUT)]
        worst = lesson.code[sizes.index(max(sizes))]
        yield worst, f"outputs have {kb[0]} KB, {kb[1]} of them here; at most {kb[2]} in all"


@check
def outputs_present(lesson):
    "Half of the cells that end in an expression have an output; flagged ones may have none."
    skip = {*FLAGS, "eval"}
    plain = [c for c in lesson.plain if c.tree.body and not skip & set(c.directives)]
    want = [c for c in plain if isinstance(c.tree.body[-1], ast.Expr)]
    have = sum(bool(c.outputs) for c in want)
    if 2 * have < len(want):
        yield (
            None,
            f"{have} of {len(want)} cells that end in a value have an output: run it, commit",
        )


@check
def execution_counts(lesson):
    for cell in lesson.code:
        counts = [thing.get("execution_count") for thing in (cell.raw, *cell.outputs)]
        if any(count is not None for count in counts):
            yield cell, "has an execution count: run nbdev_clean"


def problems(lesson):
    "All problems of one lesson."
    return [text for rule in CHECKS for text in rule(lesson)]


# What is true of the whole course


def course_modules(root):
    "A module without its notebook is an orphan; a notebook without a module was not exported."
    package, files = Path(root) / PACKAGE, lesson_files(Path(root) / "nbs")
    made = {p.stem for p in package.glob("*.py") if not p.stem.startswith("_")}
    wanted = {p.stem.partition("_")[2]: p.name for p in files}
    return [
        *(
            f"{PACKAGE}/{m}.py has no notebook: delete it and run nbdev_export"
            for m in sorted(made - set(wanted))
        ),
        *(
            f"{wanted[m]} has no {PACKAGE}/{m}.py: run nbdev_export"
            for m in sorted(set(wanted) - made)
        ),
    ]


def course_samples(root):
    "Every sample is listed with hash, licence and origin; nothing else lies there."
    folder = Path(root) / "data_samples"
    with open(folder / "samples.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    found, seen = [], set()
    for row in rows:
        name = row["name"]
        found += [f"samples.csv lists {name} twice"] * (name in seen)
        seen.add(name)
        for column in ("sha256", "licence", "origin", "shows"):
            if not (row.get(column) or "").strip():
                found.append(f"samples.csv says nothing under {column} for {name}")
        path = folder / name
        if not path.is_file():
            found.append(f"data_samples/{name} is listed in samples.csv but missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            found.append(
                f"data_samples/{name} is not the file that samples.csv lists: its SHA-256 differs"
            )
    files = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    rest = {p.relative_to(folder).as_posix() for p in files} - seen - {"samples.csv"}
    found += [f"data_samples/{name} is not listed in samples.csv" for name in sorted(rest)]
    weights = [p for p in files if p.parent.name == "weights"]
    for name, part, most in (
        ("data_samples/weights", weights, MAX_WEIGHTS),
        ("data_samples without weights", set(files) - set(weights), MAX_SAMPLES),
    ):
        size = sum(p.stat().st_size for p in part)
        if size > most:
            found.append(f"{name} has {size / 1e6:.1f} MB; at most {most // 10**6}")
    return found


def course_readme(root):
    "README's table of lessons is the folder nbs/: | [00](nbs/00_core.ipynb) | question? | 25 |"
    text = (Path(root) / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|\s*\[(\d\d)\]\((nbs/[^)]+)\)\s*\|([^|]*)\|([^|]*)\|\s*$", text, re.M)
    there = [f"nbs/{p.name}" for p in lesson_files(Path(root) / "nbs")]
    listed = [path for _, path, _, _ in rows]
    found = [f"README's lesson table has no row for {path}" for path in there if path not in listed]
    found += [
        f"README's lesson table names {path}, which does not exist"
        for path in listed
        if path not in there
    ]
    if not found and listed != there:
        found.append("README's lesson table is not in number order, or names a lesson twice")
    for number, path, question, minutes in rows:
        if not path.startswith(f"nbs/{number}_"):
            found.append(f"README calls {path} lesson {number}")
        if not question.strip().endswith("?"):
            found.append(f"README has no question for {path}")
        if not minutes.strip().isdigit():
            found.append(f"README gives no minutes for {path}")
    lines = text.count("\n")
    if lines > 140:
        found.append(f"README has {lines} lines; at most 140")
    return found


def main(paths):
    found = [text for path in paths for text in problems(read(path))]
    print("\n".join(found) if found else f"{len(paths)} lessons, no problem")
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
