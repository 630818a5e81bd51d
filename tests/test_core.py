"""What the lesson `00_core` cannot show in a few cells: broken lines, full disks, killed writers."""
import errno
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from deepfake_course import core
from deepfake_course._results import _refuses, code_hash
from deepfake_course.core import Result, atomic_write, compare, config_seed, fetch, hash_file, seed_everything

BODY = bytes(range(256)) * 4000


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves BODY; `/breaks` closes the line half-way unless asked for the rest; `/other` sends something else."""

    asked = []

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        type(self).asked.append((self.path, start))
        if self.path == "/gone.bin":
            self.send_error(404)
            return
        if self.path == "/shrunk.bin" and start:
            self.send_error(416)
            return
        body = BODY[start:] if self.path != "/other.bin" else BODY[::-1]
        self.send_response(206 if start else 200)
        if self.path != "/endless.bin":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/endless.bin":
            body = body * 50
        if self.path == "/breaks.bin" and not start:
            body = body[: len(body) // 2]
        try:
            self.wfile.write(body)
        except ConnectionError:
            type(self).asked.append(("hung up", start))

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    _Server.asked = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def facts(tmp_path):
    (tmp_path / "body").write_bytes(BODY)
    return dict(sha256=hash_file(tmp_path / "body"), size=len(BODY), licence="CC0", page="https://example.org/page", folder=tmp_path)


def test_fetch_keeps_a_good_file_and_asks_once(server, facts, capsys):
    path = fetch(f"{server}/good.bin", **facts)
    assert path.read_bytes() == BODY
    assert "1,024,000 bytes, licence: CC0" in capsys.readouterr().out
    assert fetch(f"{server}/good.bin", **facts) == path
    assert len(_Server.asked) == 1


def test_fetch_goes_on_after_a_break(server, facts):
    with pytest.raises(ConnectionError, match="https://example.org/page"):
        fetch(f"{server}/breaks.bin", **facts)
    assert not (facts["folder"] / "breaks.bin").exists()
    assert fetch(f"{server}/breaks.bin", **facts).read_bytes() == BODY
    assert _Server.asked[-1] == ("/breaks.bin", len(BODY) // 2)


def test_fetch_throws_another_file_away(server, facts):
    with pytest.raises(ValueError, match="thrown away"):
        fetch(f"{server}/other.bin", **facts)
    assert not list(facts["folder"].glob("other*"))


def test_fetch_names_the_page_without_network(facts):
    with pytest.raises(ConnectionError, match="get x.bin from https://example.org/page and save it as"):
        fetch("http://127.0.0.1:9/x.bin", **facts)


def test_fetch_refuses_a_changed_copy(server, facts):
    path = fetch(f"{server}/good.bin", **facts)
    path.write_bytes(BODY + b"!")
    with pytest.raises(ValueError, match="delete it"):
        fetch(f"{server}/good.bin", **facts)
    assert path.read_bytes() == BODY + b"!"


def test_fetch_reports_404(server, facts):
    with pytest.raises(ConnectionError, match="404"):
        fetch(f"{server}/gone.bin", **facts)


def test_fetch_stops_when_too_much_arrives(server, facts):
    with pytest.raises(ValueError, match="sent more than expected, thrown away"):
        fetch(f"{server}/endless.bin", **facts)
    assert not list(facts["folder"].glob("endless*"))


def test_fetch_starts_anew_where_the_rest_is_refused(server, facts):
    (facts["folder"] / "shrunk.bin.part").write_bytes(b"something longer")
    assert fetch(f"{server}/shrunk.bin", **facts).read_bytes() == BODY
    assert _Server.asked == [("/shrunk.bin", 16), ("/shrunk.bin", 0)]


@pytest.mark.parametrize("end", ["", "/", "/a/", "/..%2Fevil.bin", "/a%5Cevil.bin", "/..", "/a%00b"])
def test_fetch_refuses_a_url_without_a_file_name(facts, end):
    with pytest.raises(ValueError, match="name of a file"):
        fetch(f"http://127.0.0.1:9{end}", **facts)


def test_fetch_takes_any_case_and_makes_the_folder(server, facts):
    facts |= {"sha256": facts["sha256"].upper(), "folder": facts["folder"] / "new" / "deep"}
    assert fetch(f"{server}/good.bin", **facts) == fetch(f"{server}/good.bin", **facts)
    assert len(_Server.asked) == 1


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    with atomic_write(tmp_path / "a.csv") as f:
        f.write("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(core.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        with atomic_write(tmp_path / "a.csv") as f:
            f.write("new")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_killed_writer_keeps_the_old_file(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    code = (
        "import sys, time\nfrom deepfake_course.core import atomic_write\n"
        f"with atomic_write({str(tmp_path / 'a.csv')!r}) as f:\n"
        "    f.write('new')\n    f.flush()\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "writing"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (tmp_path / "a.csv").read_text() == "old"


def test_written_files_are_readable_by_others(tmp_path):
    with atomic_write(tmp_path / "a.txt") as f:
        f.write("Müller\n")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "Müller\n"


def test_long_names_can_be_written(tmp_path):
    path = tmp_path / ("顔" * 83 + ".txt")
    with atomic_write(path) as f:
        f.write("x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="mode bits and symlinks are POSIX")
def test_mode_and_symlink_stay(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to("real.txt")
    with atomic_write(link) as f:
        f.write("new")
    assert link.is_symlink() and real.read_text() == "new" and real.stat().st_mode & 0o777 == 0o600


def test_two_writers_do_not_mix(tmp_path):
    def write(letter):
        for _ in range(20):
            with atomic_write(tmp_path / "a") as f:
                f.write(letter * 100_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert (tmp_path / "a").read_text() in ("a" * 100_000, "b" * 100_000)


def test_config_seed_is_pinned_and_spreads():
    assert config_seed({"lr": 0.001, "batch": 32}) == config_seed(json.loads('{"batch":32,"lr":1e-3}'))
    seeds = {config_seed({"i": i}) for i in range(5000)}
    assert len(seeds) >= 4998
    assert 0 <= min(seeds) and max(seeds) < 2**32
    assert abs(np.mean(list(seeds)) / 2**31 - 1) < 0.03


def test_seed_everything_seeds_torch_and_numpy():
    import torch

    def draw():
        rng = seed_everything(7)
        return rng.random(), np.random.rand(), torch.rand(1).item(), __import__("random").random()

    assert draw() == draw()
    with pytest.raises(ValueError, match="2\\*\\*32"):
        seed_everything(-1)


    assert seed_everything(np.int64(3)).random() == seed_everything(3).random()
    with pytest.raises(ValueError, match="whole seed"):
        seed_everything(2.5)


@pytest.mark.parametrize("wrong", [
    {"value": np.nan}, {"value": np.inf}, {"value": "0.5"}, {"value": None}, {"n": 0}, {"n": 2.5}, {"n": "3"},
    {"n": True}, {"low": .1}, {"high": .9}, {"low": .9, "high": .1}, {"low": np.nan, "high": np.nan},
    {"low": 0, "high": np.inf}])
def test_result_refuses_what_cannot_be_read(wrong):
    with pytest.raises(ValueError, match="result 'a'"):
        Result(**{"lesson": "core", "name": "a", "value": .5, "n": 3, "data": "d"} | wrong)
    Result("core", "a", np.float32(.5), np.int64(3), "d", low=np.float64(.1), high=1)


def test_batch_of_a_mirrored_picture():
    img = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert (core.to_batch(img[..., ::-1]) == core.to_batch(img[..., ::-1].copy())).all()


@pytest.mark.parametrize("text", ["", "name\na.txt\n", "name,sha256\n", "name,sha256\na.txt,\n", "name,sha256\n,12\n",
                                  "name,sha256\na.txt,1\na.txt,2\n", "name,sha256\na,b,c\nd,e,f,g,h\n"])
def test_damaged_table_of_samples(tmp_path, monkeypatch, text):
    (tmp_path / "samples.csv").write_text(text)
    monkeypatch.setattr(core, "sample_dir", lambda: tmp_path)
    with pytest.raises(ValueError, match="git checkout -- :/data_samples/samples.csv"):
        core.sample("a.txt")


def test_compare_shows_missing_as_dash():
    table = compare([Result("core", "a", 0.5, 3, "d"), Result("core", "b", 0.25, 3, "d", low=0.1, high=0.4, baseline=0.5)])
    assert table.loc["a", "95 % interval"] == "-" and table.loc["a", "report"] == "-"
    assert table.loc["b", "95 % interval"] == "0.100 to 0.400"


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_COURSE_CACHE", str(tmp_path / "mine"))
    assert core.cache_dir("a", "b") == tmp_path / "mine" / "a" / "b"
    monkeypatch.delenv("DEEPFAKE_COURSE_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert core.cache_dir() == tmp_path / "xdg" / "deepfake_course"


def _module(tmp_path, name, text):
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "m.py").write_text(text)
    sys.path.insert(0, str(tmp_path))
    try:
        return __import__(f"{name}.m", fromlist=["m"])
    finally:
        sys.path.remove(str(tmp_path))


BASE = "SCALE = 2\ndef factor():\n    return SCALE\ndef other():\n    return 1\ndef scale(x):\n    return x * factor()\n"


@pytest.mark.parametrize(
    "change, same",
    [
        (("return x * factor()", '"A docstring."\n    return x * factor()  # and a comment'), True),
        (("def other():\n    return 1", "def other():\n    return 2"), True),
        (("return SCALE", "return SCALE + 1"), False),
        (("SCALE = 2", "SCALE = 3"), False),
        (("return x * factor()", "return factor() * x"), False),
        (("return x * factor()", "if x < 0:\n        raise ValueError(\n            SCALE)\n    return x * factor()"), True),
        (("return x * factor()", "if x < 0: raise ValueError\n    _check(x, other())\n    return x * factor()"), True),
        (("return x * factor()", "if x < 0:\n        check(x)\n        raise ValueError\n    return x * factor()"), True),
        (("return x * factor()", "if x < 0:\n        x = 0\n    return x * factor()"), False),
        (("return x * factor()", "if x < 0:\n        raise ValueError\n    else:\n        x = 0\n    return x * factor()"), False),
        (("return x * factor()", "if (x := x + 1) < 0:\n        raise ValueError\n    return x * factor()"), False),
        (("return x * factor()", "x = _check(x)\n    return x * factor()"), False),
        (("return x * factor()", "other()\n    return x * factor()"), False),
    ],
)
def test_code_hash_sees_what_runs_and_nothing_else(tmp_path, change, same):
    tag = abs(hash(change))
    assert BASE.count(change[0]) == 1
    before = code_hash(_module(tmp_path, f"before{tag}", BASE).scale)
    after = code_hash(_module(tmp_path, f"after{tag}", BASE.replace(*change)).scale)
    assert (before == after) is same


def test_checks_of_the_course_only_refuse():
    "What the hash of recorded rows leaves out must not be able to change a number."
    import ast

    called, made = set(), {}
    for path in Path(core.__file__).parent.glob("[!_]*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and _refuses(node):
                called.add((path.stem, node.value.func.id))
            if isinstance(node, ast.FunctionDef) and node.name.lstrip("_").startswith("check"):
                made[path.stem, node.name] = node
    assert len(called) > 20
    for (module, name) in called & set(made):
        for node in ast.walk(made[module, name]):
            aims = getattr(node, "targets", None) or [getattr(node, "target", None)]
            assert not isinstance(node, (ast.Global, ast.Nonlocal, ast.Delete)), (module, name)
            stored = isinstance(node, (ast.Assign, ast.AugAssign)) and any(isinstance(a, (ast.Attribute, ast.Subscript)) for a in aims)
            assert not stored, (module, name)
