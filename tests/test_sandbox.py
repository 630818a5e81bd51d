"""Hostile submissions are contained: nothing gets out, no mark is gained, the grader lives on.

A tiny assignment of one exercise, so that each attack costs a second or two. Where no sandbox can run, the tests of
containment are skipped and say why; that it is then refused is tested everywhere.
"""

import copy
import io
import json
import os
import time
import zipfile

import numpy as np
import pytest

from deepfake_course import _grader, _sandbox, _wire

WHY_NOT = _sandbox.why_not()
walls = pytest.mark.skipif(bool(WHY_NOT), reason=f"no sandbox can run here: {WHY_NOT}")


def cell(source, name="", **notes):
    notes = {"grade": False, "grade_id": name, "locked": False, "schema_version": 3, "solution": False, **notes}
    return {"cell_type": "code", "id": name or "plain", "source": source, "outputs": [], "execution_count": None,
            "metadata": {"nbgrader": notes} if name else {}}


SOLUTION = "def double(x):\n    ### BEGIN SOLUTION\n    return 2*x\n    ### END SOLUTION"
TEST = f"""assert double(2) == 4, "twice 2 is 4"
{_grader.BEGIN}
import numpy as np
from deepfake_course._homework import ask, close
x = me.cases("double").random(5)
close(ask("double", x), 2*x, "wrong on other numbers")
{_grader.END}"""
TINY = {"cells": [cell("import os, sys, numpy as np", "setup", locked=True), cell(SOLUTION, "double", solution=True),
                  cell(TEST, "test-double", grade=True, locked=True, points=2)],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def attempt(code, unsafe=False, limit=20.0, test=None):
    "The report on a submission whose gap holds `code`."
    nb = _grader.release(TINY)
    nb["cells"][1]["source"] = code
    nb["cells"][2]["source"] = test or nb["cells"][2]["source"]
    return _grader.grade(_grader.overlay(TINY, nb), "tiny", "ana", unsafe, limit)


def said(report):
    return json.dumps(report.outputs[1]) if report.outputs else ""


@pytest.fixture
def hurry(monkeypatch):
    "A cell has two seconds instead of thirty."
    monkeypatch.setattr(_grader, "CELL_SECONDS", 2)
    monkeypatch.setattr(_grader, "ASK_SECONDS", 2)


@walls
def test_right_wrong_and_untouched():
    assert attempt(SOLUTION).score == 2
    wrong = attempt("def double(x): return x + 2")
    assert wrong.score == 0 and wrong.verdicts[0].message == "wrong on other numbers"
    untouched = attempt(_grader.release(TINY)["cells"][1]["source"])
    assert untouched.score == 0 and "NotImplementedError" in untouched.verdicts[0].message


ENDLESS = "def double(x):\n    while True: pass"
STUBBORN = """while True:
    try:
        while True: pass
    except BaseException:
        pass"""
FORKS = "while True:\n    os.fork()"
PATCHED = """import builtins, numpy.testing, deepfake_course._homework as homework, deepfake_course._wire as wire
np.allclose = np.isclose = lambda *a, **k: True
homework.close = homework.ask = lambda *a, **k: None
class Yes:
    def __eq__(self, other): return True
    def __array__(self, *a, **k): raise SystemExit
def double(x): return Yes()"""
KILLS = "import signal\nfor who in (1, os.getppid(), 0, -1):\n    os.kill(who, signal.SIGKILL)"
FLOOD = "block = 'x'*10**6\nwhile True:\n    print(block)\n    os.write(1, block.encode())"
CHANNEL = """for place in range(3, 30):
    try: os.write(place, b'\\xff'*16 + b'{}'*1000)
    except OSError: pass
def double(x): return x"""
MEMORY = "kept = []\nwhile True:\n    kept.append(np.ones(10**7))"
HOSTILE = {
    "endless loop": ENDLESS, "loop that catches everything": STUBBORN, "fork bomb": FORKS,
    "patched assert and library": PATCHED, "kills its parents": KILLS, "gigabytes of output": FLOOD,
    "forged answers on the channel": CHANNEL, "all the memory": MEMORY, "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)", "an exception with a bad text": "class E(Exception):\n    def __str__(self): raise self\nraise E()",
    "a recursion": "def double(x): return double(x)", "an object for an answer": "def double(x): return object()",
    "a huge answer": "def double(x): return np.zeros(10**8)", "a pickle for an answer": "def double(x): return np.array([os], object)",
}  # fmt: skip


@walls
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_submission_scores_nothing(name, hurry):
    started = time.monotonic()
    report = attempt(HOSTILE[name], limit=8)
    assert report.score == 0 and report.verdicts[0].message, report
    assert len(json.dumps(report.outputs)) < 200_000
    assert time.monotonic() - started < 60


@walls
def test_the_rest_of_the_class_is_not_touched(hurry):
    "The worst ones at the same time as an honest one, and one after them."
    from concurrent.futures import ThreadPoolExecutor

    worst = [FORKS, KILLS, MEMORY, FLOOD]
    with ThreadPoolExecutor(len(worst) + 1) as pool:
        reports = list(pool.map(lambda code: attempt(code, limit=10), [*worst[:2], SOLUTION, *worst[2:]]))
    assert [report.score for report in reports] == [0, 0, 2, 0, 0]
    assert attempt(SOLUTION).score == 2


@walls
@pytest.mark.skipif(not _sandbox._root(), reason="without root every sandbox has a user namespace of its own")
def test_no_two_sandboxes_share_a_user():
    "Not even those of two graders: what one of them starts would count against the other's limit."
    ask = {"do": "run", "cells": ["import os; os.getuid()"], "seconds": 5}
    with _sandbox.Worker() as one, _sandbox.Worker() as two:
        users = {worker.call(ask, 30)["ok"][0][0]["data"]["text/plain"] for worker in (one, two)}
        assert len(users) == 2
        free = _sandbox._user()
        assert str(free) not in users
        _sandbox._given = int(min(users)) - _sandbox.USERS - 1 - 97 * os.getpid()  # the next would be the first again
        assert str(_sandbox._user()) not in users


LOOK = """found = []
for top, folders, files in os.walk("/"):
    folders[:] = [one for one in folders if os.path.join(top, one) not in ("/proc", "/usr", "/sys", "/lib")]
    found += [os.path.join(top, one) for one in files if one in KEY]
print("found", found, "environment", [one for one in os.environ if "KEY" in one or "TOKEN" in one or "UNSAFE" in one])
try: print("ids", os.setuid(0))
except OSError: print("stays", os.getuid() != 0)
def double(x): return x"""
WRITE = """for path in PLACES:
    try:
        with open(path, "w") as file: file.write("gotcha")
        print("wrote", path)
    except OSError as error:
        print("no")
def double(x): return x"""


@walls
def test_nothing_of_the_teacher_is_to_be_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "17")
    monkeypatch.chdir(tmp_path)
    for name in ("gradebook-17.db", "tiny-key.ipynb"):
        (tmp_path / name).write_text(_grader.BEGIN)
    key = ["gradebook-17.db", "tiny-key.ipynb", "intra_database.ipynb", "test_classroom.py"]
    told = said(attempt(f"KEY = {key}\n" + LOOK))
    assert "found [] environment []" in told, told
    assert "stays True" in told, told


@walls
def test_nothing_is_written_outside(tmp_path):
    canary = tmp_path / "canary.txt"
    canary.write_text("alive")
    package = os.path.dirname(_grader.__file__)
    places = [str(canary), str(tmp_path / "new"), "/usr/local/new", "/etc/new", "/course/new", f"{package}/new.py",
              "/course/deepfake_course/_grader.py", np.__file__]
    told = said(attempt(f"PLACES = {places}\n" + WRITE))
    assert "wrote" not in told and told.count("no") >= len(places), told
    assert canary.read_text() == "alive" and not (tmp_path / "new").exists()


@walls
def test_no_network_and_few_processes():
    told = said(attempt("import socket\ntry: socket.create_connection(('127.0.0.1', 22), 2)\n"
                        "except OSError as error: print('offline', os.listdir('/sys') if os.path.exists('/sys') else '')\n"
                        "print('processes', sorted(one for one in os.listdir('/proc') if one.isdigit()).__len__())\n"
                        "def double(x): return x"))  # fmt: skip
    assert "offline" in told, told
    assert int(told.split("processes ")[1].split("\\n")[0]) < 10, told


@walls
def test_a_changed_test_cell_is_the_teachers_again():
    report = attempt("def double(x): return x", test="pass")
    assert report.score == 0 and report.verdicts[0].message == "twice 2 is 4"


@walls
def test_hidden_tests_do_not_enter_and_do_not_come_back():
    report = attempt("def double(x):\n    import inspect\n    return x + 1 if x == 2 else x")
    nb = _grader.fill(copy.deepcopy(TINY), report)
    assert "HIDDEN" not in json.dumps(nb) and "other numbers" not in json.dumps(nb["cells"][2]["source"])


def test_a_test_that_is_brought_along_is_a_plain_cell(tmp_path):
    "Whatever a submission says of its cells, hidden tests, points and kinds are the teacher's."
    nb, canary = _grader.release(TINY), tmp_path / "canary"
    payload = f"{_grader.BEGIN}\nopen({str(canary)!r}, 'w')\n{_grader.END}"
    nb["cells"] += [cell(payload, "bonus", grade=True, locked=True, points=50), cell(payload, "test-double", grade=True, points=9)]
    nb["cells"][1]["metadata"]["nbgrader"] |= {"grade": True, "solution": False, "points": 9}
    nb["cells"][1]["source"] = SOLUTION + "\n" + payload.replace("open", "1 and open")
    nb["cells"][2]["metadata"]["nbgrader"] |= {"points": "abc", "solution": True}
    laid = _grader.overlay(TINY, nb)
    notes = [_grader.meta(one) for one in laid["cells"]]
    assert [one.get("points") for one in notes] == [None, None, 2, None, None]
    assert [_grader.is_test(one) for one in laid["cells"]] == [False, False, True, False, False]
    assert _grader.text(laid["cells"][2]) == TEST and not notes[3] and not notes[4]
    report = _grader.grade(laid, "tiny", "ana", bool(WHY_NOT))
    assert len(report.verdicts) == 1 and report.score <= 2 and not canary.exists()


@walls
def test_limits_on_output_are_kept_outside_too():
    report = attempt("sys.stdout.left = 10**9\nprint('x'*10**6)\nfor _ in range(500): display(1)\ndef double(x): return 2*x")
    assert report.score == 2 and len(json.dumps(report.outputs)) < 100_000


@walls
def test_half_characters_and_terminal_codes_do_not_come_back():
    report = attempt("def double(x): raise ValueError('\\ud800 \\x1b[31m')")
    assert report.score == 0 and "ValueError" in report.verdicts[0].message and "\x1b" not in report.verdicts[0].message
    json.dumps([report.rows(), report.outputs], ensure_ascii=False).encode()


@walls
def test_the_clock_is_that_of_the_whole_notebook():
    report = attempt("import time\ndef double(x):\n    time.sleep(4)\n    return 2*x", limit=7)
    assert report.score == 0 and "stopped after" in report.verdicts[0].message


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("size", [10, 10**6])
def test_who_does_not_read_does_not_hold_us_up(size):
    import signal

    with _sandbox.Worker(unsafe=True) as worker:
        worker.call({"do": "run", "cells": ["x = 1"], "seconds": 5}, 60)
        os.kill(worker.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(_sandbox.Stopped, match="stopped after 2 s"):
            worker.call({"do": "value", "name": "x" * size}, 2)
        assert time.monotonic() - started < 20


def test_links_and_pages_in_words_are_defused():
    words = "[a](javascript:alert(1)) ![b](http://evil/x.png) [c]: data:x\n[d][c] <javascript:alert(2)> <b>"
    nb = {"cells": [{"cell_type": "markdown", "source": words, "metadata": {}}]}
    told = _grader.fill(nb, _grader.Report("tiny", "ana"))["cells"][0]["source"]
    import mistune

    page = mistune.html(told)
    assert "href" not in page and "<img" not in page and "<b>" not in page
    assert told.replace("\u2060", "") == words, "and yet it reads as it was written"


def test_without_a_sandbox_it_is_refused(monkeypatch):
    monkeypatch.setattr(_sandbox, "why_not", lambda: "bubblewrap is not installed")
    with pytest.raises(_sandbox.Refused, match="bubblewrap is not installed.*--unsafe"):
        attempt(SOLUTION)
    assert attempt(SOLUTION, unsafe=True).score == 2


@pytest.mark.parametrize("which,words", [("win32", "Linux, not on win32"), ("linux", "not installed")])
def test_why_not_says_what_to_do(which, words, monkeypatch):
    monkeypatch.setattr(_sandbox.sys, "platform", which)
    monkeypatch.setattr(_sandbox.shutil, "which", lambda name: None)
    assert words in _sandbox.why_not.__wrapped__()


# The wire


@pytest.mark.parametrize("thing", [
    None, True, 1.5, "text", [1, [2, "x"]], {"a": {"array": 1}}, np.arange(6.).reshape(2, 3), np.array(["a", "b"]),
    {"x": np.array([True])}, np.float32(2), float("inf"),
])  # fmt: skip
def test_the_wire_gives_back_what_it_got(thing):
    stream = io.BytesIO(_wire.pack(thing))
    got = _wire.receive(stream.read)
    assert np.array_equal(got, thing) if isinstance(thing, np.ndarray) else got == thing


def test_the_wire_carries_tables_and_tensors():
    import pandas as pd
    import torch

    got = _wire.receive(io.BytesIO(_wire.pack([pd.DataFrame({"a": [1, 2]}), torch.ones(2), pd.Series([3.])])).read)
    assert got[0].equals(pd.DataFrame({"a": [1, 2]})) and torch.equal(got[1], torch.ones(2)) and got[2].tolist() == [3]


def bomb():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a0.npy", b"\0" * 10**8)
    return data.getvalue()


def pickled():
    data = io.BytesIO()
    np.savez(data, a0=np.array([{}], object))
    return data.getvalue()


@pytest.mark.parametrize("text,numbers,words", [
    (b'{"array": "a0"}', bomb(), "unfolds"), (b'{"array": "a0"}', pickled(), "cannot be read"),
    (b"{", b"", "cannot be read"), (b"\xff", b"", "cannot be read"), (b'{"array": "a0"}', b"", "cannot be read"),
    (b'{"frame": [["a", 1.5]], "rows": 200000000}', b"", "one length"),
    (b'{"frame": [["a", [1]]], "rows": 2}', b"", "one length"), (b"[" + b"[]," * 500_000 + b"[]]", b"", "too many parts"), (b"[" * 100_000, b"", "cannot be read"), (b'{"dict": 3}', b"PK", "cannot be read"),
])  # fmt: skip
def test_the_wire_trusts_nothing(text, numbers, words):
    with pytest.raises(_wire.WireError, match=words):
        _wire.unpack(text, numbers)


def test_an_array_is_used_once():
    "A short message must not become a large table."
    data = io.BytesIO()
    np.savez(data, a0=np.zeros(3))
    text = json.dumps({"frame": [[str(k), {"array": "a0"}] for k in range(2)], "rows": 3}).encode()
    with pytest.raises(_wire.WireError, match="cannot be read"):
        _wire.unpack(text, data.getvalue())


def test_the_wire_refuses_lengths_and_objects():
    with pytest.raises(_wire.WireError, match="longer"):
        _wire.receive(io.BytesIO(_wire.HEAD.pack(1 << 60, 0)).read)
    with pytest.raises(_wire.WireError, match="is a object"):
        _wire.pack([object()])
    with pytest.raises(EOFError):
        _wire.receive(io.BytesIO(b"123").read)
