"""course.py: set-up that survives interruptions, clear messages, exit codes, a lab that asks for its token.

Nothing here installs anything or needs a network. Where set-up runs, the installer is a small program
that stands on PATH as `uv`, makes a real but empty environment and takes as long as it is told.
"""
import functools
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fixtures import tiny

ROOT = tiny.ROOT
FILES = ("course.py", "settings.ini", "setup.py", "requirements.lock")
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in installer is a script with a #! line")

INSTALLER = f"""#!{sys.executable}
import os, subprocess, sys, time
what = sys.argv[1]
if what == "--version":
    sys.exit(0)
def note(text):
    with open(os.environ["UV_LOG"], "a") as log:
        log.write(text + "\\n")
note("begin " + what)
if what == "venv":
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[-1]], check=True)
else:
    time.sleep(float(os.environ.get("UV_SECONDS", 0)))
    if os.environ.get("UV_SAYS"):
        sys.exit(os.environ["UV_SAYS"])
note("end " + what)
"""


def load(root):
    "course.py of a folder, as a module."
    spec = importlib.util.spec_from_file_location("course_under_test", root / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def stand_in_is_used(monkeypatch):
    "The stand-in must be found, whatever the user who runs the tests prefers; it installs nothing, so it needs no room."
    monkeypatch.delenv("DEEPFAKE_COURSE_INSTALLER", raising=False)
    monkeypatch.setenv("DEEPFAKE_COURSE_SKIP_DISK_CHECK", "1")


@pytest.fixture
def place(tmp_path):
    "A folder with nothing but what set-up reads."
    root = tmp_path / "a folder"
    root.mkdir()
    for name in FILES:
        shutil.copy2(ROOT / name, root)
    return root


@pytest.fixture
def course(place):
    return load(place)


@pytest.fixture
def command(place, tmp_path):
    "Start course.py in `place` with the stand-in installer; `command.log()` is what the installer noted."
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(INSTALLER)
    (folder / "uv").chmod(0o755)
    notes = tmp_path / "notes.txt"
    notes.write_text("")

    def start(*args, **env):
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "UV_LOG": str(notes)} | env
        return subprocess.Popen(
            [sys.executable, str(place / "course.py"), *args], env=env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    start.log = lambda: notes.read_text().splitlines()
    return start


def ends(process, code, *words):
    "Wait for the end; the right exit code, these words, never a traceback. The whole output."
    out, err = process.communicate(timeout=120)
    text = out + err
    assert process.returncode == code, text
    assert "Traceback" not in text
    for word in words:
        assert word in text
    return text


def until(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.05)


# Set-up

ONCE = ["begin venv", "end venv", "begin pip", "end pip", "begin pip", "end pip"]


@posix
def test_set_up_happens_once_and_again_after_a_change(place, command):
    ends(command("setup"), 0, "Set-up is complete")
    assert command.log() == ONCE
    assert not (place / ".venv" / ".course-unfinished.json").exists()
    assert ends(command("setup"), 0) == ""
    assert command.log() == ONCE
    with open(place / "requirements.lock", "a") as lock:
        lock.write("# changed\n")
    ends(command("setup"), 0, "Set-up is complete")
    assert command.log() == ONCE + ONCE[2:]  # brought up to date in the same environment


@posix
def test_killed_half_way_it_starts_over(place, command):
    first = command("setup", UV_SECONDS="2")
    until(lambda: "begin pip" in command.log())
    first.kill()
    first.communicate()
    assert (place / ".venv" / ".course-unfinished.json").exists()
    planted = place / ".venv" / "half a package"
    planted.write_text("")
    second = command("setup")  # at once, while the killed one's installer is still at work
    ends(second, 0, "Another course.py is setting up this folder", "was interrupted", "Set-up is complete")
    assert not planted.exists()
    assert command.log() == ONCE[:4] + ONCE


@posix
def test_two_at_a_time_wait_for_each_other(place, command):
    both = [command("setup", UV_SECONDS="0.5") for _ in range(2)]
    texts = [ends(process, 0) for process in both]
    assert command.log() == ONCE
    assert sorted("waiting for it" in text for text in texts) == [False, True]


@posix
def test_ctrl_c_says_how_to_go_on(place, command):
    process = command("setup", UV_SECONDS="30")
    until(lambda: "begin pip" in command.log())
    process.send_signal(signal.SIGINT)
    ends(process, 130, "Stopped.", "The same command")
    ends(command("setup"), 0, "Set-up is complete")


@posix
def test_an_environment_whose_python_is_gone_is_made_again(place, command):
    ends(command("setup"), 0)
    python = place / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(place / "uninstalled")
    ends(command("setup"), 0, "its Python is gone")
    assert command.log() == ONCE + ONCE


@posix
def test_a_folder_that_moved_is_set_up_again(place, command):
    ends(command("setup"), 0)
    stamp = place / ".venv" / ".course-stamp.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"root": "/elsewhere"}))
    ends(command("setup"), 0, "moved")
    assert command.log() == ONCE + ONCE


@posix
def test_a_link_to_a_larger_disk_stays(place, command, tmp_path):
    (tmp_path / "large disk").mkdir()
    (place / ".venv").symlink_to(tmp_path / "large disk")
    ends(command("setup"), 0, "Set-up is complete")
    assert (place / ".venv").is_symlink() and (tmp_path / "large disk" / ".course-stamp.json").exists()


@posix
@pytest.mark.parametrize("says, words", [
    ("error: dns error: failed to lookup address information", "registry could not be reached"),
    ("WARNING: Retrying after NewConnectionError\nERROR: No matching distribution", "registry could not be reached"),
    ("OSError: [Errno 28] No space left on device", "The disk is full"),
    ("something else", "report the lines above"),
])  # fmt: skip
def test_a_failed_step_shows_its_last_lines_and_what_to_do(says, words, place, command):
    text = ends(command("setup", UV_SAYS=says), 1, "Step failed: 2/3", words, "install.log")
    assert says.splitlines()[-1] in text
    assert not (place / ".venv" / ".course-stamp.json").exists()
    ends(command("setup"), 0, "Set-up is complete")


def test_without_uv_an_environment_without_pip_is_no_base(course, monkeypatch):
    monkeypatch.setattr(course, "uv", lambda: None)
    want = course.wanted("cuda")
    assert course.why_rebuild(want) == "there is none yet"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(course.VENV)], check=True)
    assert course.venv_works() and course.why_rebuild(want) == "it has no pip"
    monkeypatch.setattr(course, "uv", lambda: "uv")  # uv needs no pip in it
    assert course.why_rebuild(want) is None


@pytest.mark.parametrize("name", ["requirements.lock", "settings.ini", "setup.py"])
def test_the_stamp_knows_what_it_was_made_from(name, course, place):
    before = course.wanted("cuda")
    assert before == course.wanted("cuda") != course.wanted("cpu")
    with open(place / name, "a") as file:
        file.write("\n# changed\n")
    assert course.wanted("cuda") != before


# What the machine must have


@pytest.mark.parametrize("bounds", [("3.97", "3.99"), ("3.5", "3.7")], ids=["too old", "too new"])
def test_the_wrong_python_is_told_the_right_ones(bounds, place, command):
    text = (place / "settings.ini").read_text()
    for key, value in zip(("min_python", "max_python"), bounds):
        text = re.sub(rf"(?m)^{key} = .*", f"{key} = {value}", text)
    (place / "settings.ini").write_text(text)
    good = [f"3.{minor}" for minor in range(int(bounds[0][2:]), int(bounds[1][2:]))]
    here = "this is {}.{}.{}".format(*sys.version_info[:3])
    ends(command("lab"), 1, f"needs Python {good[0]} or {good[1]}", here)
    ends(command("doctor"), 1, "MISSING", f"needs Python {good[0]} or {good[1]}")
    assert command.log() == [] and not (place / ".venv").exists()


def test_missing_venv_and_full_disk_are_said_before_anything_is_made(course, place, monkeypatch, capsys):
    monkeypatch.setattr(course, "uv", lambda: None)
    monkeypatch.setattr(course.importlib.util, "find_spec", lambda name: None)
    assert course.main(["setup"]) == 1
    assert "apt install python3-venv" in capsys.readouterr().err
    assert "apt install python3-venv" in course.explain_failure("1/3 environment", "ensurepip is not available")
    monkeypatch.setattr(course.importlib.util, "find_spec", lambda name: name)
    full = shutil._ntuple_diskusage(100 * 10**9, 97 * 10**9, 3 * 10**9)
    monkeypatch.delenv("DEEPFAKE_COURSE_SKIP_DISK_CHECK")
    monkeypatch.setattr(course.shutil, "disk_usage", lambda path: full)
    assert course.main(["setup"]) == 1
    assert "3.0 GB free" in capsys.readouterr().err
    assert course.main(["doctor"]) == 1
    assert "3.0 GB free" in capsys.readouterr().out
    assert not (place / ".venv").exists()


@pytest.mark.parametrize("system, machine, fits", [
    ("Linux", "x86_64", True), ("Linux", "armv7l", False), ("Darwin", "arm64", True),
    ("Darwin", "x86_64", False), ("Windows", "AMD64", True), ("Windows", "ARM64", False),
])  # fmt: skip
def test_systems_without_wheels_are_refused(system, machine, fits, course, monkeypatch):
    monkeypatch.setattr(course.platform, "system", lambda: system)
    monkeypatch.setattr(course.platform, "machine", lambda: machine)
    monkeypatch.setattr(course.platform, "mac_ver", lambda: ("14.5", ("", "", ""), machine))
    if fits:
        course.check_platform()
    else:
        with pytest.raises(course.Stop, match="no wheels"):
            course.check_platform()


def test_doctor_works_before_anything_is_installed(place, command):
    text = ends(command("doctor"), 0, "to do", "is not there yet", "course.py lab")
    assert "Inside the environment" not in text
    assert not (place / ".venv").exists()


# PyTorch's CPU wheels


def test_the_cpu_choice_changes_torch_and_drops_cuda_only(course):
    lines = [x for x in (ROOT / "requirements.lock").read_text().splitlines() if x and x[0] not in " #"]
    pins, rest = course.split_lock((ROOT / "requirements.lock").read_text())
    torch = [x.split(" ;")[0] for x in lines if re.match(r"torch(vision)?==", x)]
    assert pins == [x + "+cpu" for x in torch] and len(pins) == 2
    gone = [x for x in lines if x not in rest and x.split(" ;")[0] not in torch]
    assert gone and all(x.startswith(("nvidia-", "cuda-", "triton==")) for x in gone)
    assert len(rest) + len(gone) + len(torch) == len(lines)


def test_the_cpu_index_is_asked_first_and_never_replaced_silently(course, tmp_path, monkeypatch):
    pins = ["torch==9.9.9+cpu"]
    tag = "cp{}{}".format(*sys.version_info[:2])
    wheel = f"torch-9.9.9%2Bcpu-{tag}-{tag}-some_{course.platform.machine()}.whl"
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "index.html").write_text(f'<a href="{wheel}">')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(course, "CPU_INDEX", f"http://127.0.0.1:{server.server_port}")
        course.check_cpu_index(pins)
        with pytest.raises(course.Stop, match="does not list it.*\n.*without --cpu"):
            course.check_cpu_index(["torch==9.9.8+cpu"])
        with pytest.raises(course.Stop, match="cannot be reached"):
            course.check_cpu_index(["torchvision==9.9.9+cpu"])
        server.shutdown()
    with pytest.raises(course.Stop, match="cannot be reached"):
        course.check_cpu_index(pins)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the choice")
def test_the_choice_of_wheels_is_remembered(course):
    assert (course.choose_flavour(False), course.choose_flavour(True)) == ("cuda", "cpu")
    course.VENV.mkdir()
    course.write_json(course.STAMP, course.wanted("cpu"))
    assert course.choose_flavour(False) == "cpu"


# Arguments and exit codes


@pytest.mark.parametrize("args, code, words", [
    ([], 2, "COMMAND"),
    (["bake"], 2, "invalid choice: 'bake'"),
    (["lab", "--help"], 0, "--no-browser"),
    (["doctor", "--bogus"], 2, "does not know --bogus"),
    (["lab", "--port", "many"], 2, "--port"),
    (["clean"], 0, "nothing to remove"),
])  # fmt: skip
def test_wrong_usage_is_2_and_help_is_0(args, code, words, command):
    ends(command(*args), code, words)


@pytest.mark.parametrize("line, name, rest", [
    ("test -k metrics --isolated -x", "isolated", ["-k", "metrics", "-x"]),
    ("test tests/test_core.py --no-lessons", "no_lessons", ["tests/test_core.py"]),
    ("lab --no-browser --ServerApp.password=x", "no_browser", ["--ServerApp.password=x"]),
    ("bench ground --json", "command", ["ground", "--json"]),
])  # fmt: skip
def test_other_arguments_are_passed_on(line, name, rest, course):
    args, more = course.parser().parse_known_args(line.split())
    assert getattr(args, name) and more == rest


def test_a_taken_port_is_said(course):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(course.Stop, match="choose another with --port"):
            course.free_port(taken.getsockname()[1])
    assert course.free_port(None)


@posix
def test_clean_shows_asks_and_keeps_the_users_files(place, command):
    ends(command("setup"), 0)
    mine = place / "my clips"
    mine.mkdir()
    ends(command("clean"), 1, ".venv", "Nothing was removed")  # nobody answers the question
    assert (place / ".venv").exists()
    ends(command("clean", "--yes"), 0, "Removed.")
    assert {p.name for p in place.iterdir()} == {*FILES, "my clips"}


# `test`: lessons, then pytest


@pytest.fixture
def project(course, tiny_course, monkeypatch):
    "Run `course.py test` over the two tiny lessons, in the environment that runs this test."
    root = tiny_course()
    (root / "tests").mkdir()
    (root / "tests" / "test_area.py").write_text("def test_area():\n    assert 3*3 == 9\n")
    monkeypatch.setattr(course, "ROOT", root)
    monkeypatch.setattr(course, "BIN", Path(sys.executable).parent)
    monkeypatch.setattr(course, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(course, "set_up", lambda cpu=False: None)
    return root


def closing_line(text):
    return text.strip().splitlines()[-1]


def test_passing_lessons_and_tests_are_0(project, course, capfd):
    assert course.main(["test"]) == 0
    out = capfd.readouterr().out
    assert "Lessons: all passed." in out
    assert re.search(r"= 1 passed in .* =", closing_line(out))


def test_a_failing_lesson_is_1_and_pytest_runs_all_the_same(project, course, capfd):
    tiny.edit(project, "01_second", "== 2*area(2)", "== 3*area(2)")
    assert course.main(["test"]) == 1
    out, err = capfd.readouterr()
    assert "Lessons: FAILED" in out and "01_second.ipynb" in err
    assert "1 passed" in closing_line(out)
    assert course.main(["test", "--isolated"]) == 1
    out = capfd.readouterr().out
    assert "00_first.ipynb: ok" in out and "Lessons: FAILED in 01_second.ipynb." in out
    assert "1 passed" in closing_line(out)


def test_a_failing_test_is_1(project, course, capfd):
    (project / "tests" / "test_area.py").write_text("def test_area():\n    assert 3*3 == 8\n")
    assert course.main(["test", "--no-lessons"]) == 1
    out = capfd.readouterr().out
    assert "Lessons:" not in out and "1 failed" in closing_line(out)


@posix
def test_a_hanging_lesson_is_stopped_with_its_workers(project, course, capfd, monkeypatch):
    pids = project / "pids.txt"
    sleep = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(600)"
    tiny.edit(project, "00_first", "assert abs(area(2)-4*area(1)) < 1e-9", sleep)
    monkeypatch.setattr(course, "LESSON_SECONDS", 12)
    assert course.main(["test"]) == 1
    out = capfd.readouterr().out
    assert "stopped after 12 s" in out and "1 passed" in closing_line(out)
    found = pids.read_text().split()
    assert found
    until(lambda: not any(alive(int(pid)) for pid in found))


def alive(pid):
    "Is this process still running (a zombie is not)?"
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


# `lab`: JupyterLab with a token

BORROWED = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("course", {path!r})
course = importlib.util.module_from_spec(spec)
spec.loader.exec_module(course)
course.BIN, course.PYTHON, course.set_up = Path({python!r}).parent, Path({python!r}), lambda cpu=False: None
sys.exit(course.main(sys.argv[1:]))
"""


@pytest.fixture
def lab(place, tmp_path):
    """Start `lab --no-browser` on a small folder; returns (process, seconds to the first answer, its address).

    With the installation that course.py made here, if this is it: that is a second start as a user has
    it. Otherwise with the environment that runs this test.
    """
    (place / "nbs").mkdir()
    shutil.copy2(ROOT / "nbs" / "00_core.ipynb", place / "nbs")
    ours = load(ROOT)
    real = Path(sys.prefix) == ours.VENV and ours.ready(ours.choose_flavour(False))
    borrowed = BORROWED.format(path=str(place / "course.py"), python=sys.executable)
    start = [sys.executable, str(ROOT / "course.py")] if real else [sys.executable, "-c", borrowed]
    private = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    env = os.environ | private | {"PYTHONUNBUFFERED": "1"}
    if not real:
        env["JUPYTER_CONFIG_PATH"] = str(place / ".venv" / "etc" / "jupyter")
    begin = time.time()
    process = subprocess.Popen(
        [*start, "lab", "--no-browser", f"--ServerApp.root_dir={place}"],
        env=env, cwd=place, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    timer = threading.Timer(120, process.kill)
    timer.start()
    said, address = [], None
    try:
        while address is None and (line := process.stdout.readline()):
            said.append(line)
            address = re.search(r"http://127\.0\.0\.1:\S+token=\S+", line)
        assert address, "".join(said)
        yield process, time.time() - begin, address[0], place, real
    finally:
        timer.cancel()
        process.terminate()
        process.communicate(timeout=30)


def status(url, data=None):
    request = urllib.request.Request(url, data, method="PUT" if data else "GET")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.url, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, url, b""


def test_lab_serves_the_first_lesson_to_those_with_the_token(lab, capsys):
    process, seconds, address, place, real = lab
    base, token = re.match(r"(http://[^/]+)/lab/tree/nbs/00_core.ipynb\?token=(\w+)$", address).groups()
    assert len(token) >= 32
    assert status(f"{base}/api/contents")[0] == 403
    assert status(f"{base}/api/contents?token={'0' * len(token)}")[0] == 403
    assert "/login" in status(f"{base}/lab")[1]
    code, url, page = status(address)
    assert code == 200 and "/login" not in url and b"jupyter-config-data" in page
    code, url, listing = status(f"{base}/api/contents/nbs?token={token}")
    assert [entry["name"] for entry in json.loads(listing)["content"]] == ["00_core.ipynb"]

    # Saving cleans: counts and foreign metadata go, the output stays.
    nb = tiny.notebook([("code", "1+1")])
    output = dict(output_type="execute_result", execution_count=7, metadata={}, data={"text/plain": ["2"]})
    nb["cells"][0] |= dict(execution_count=7, outputs=[output], metadata={"scrolled": True})
    body = json.dumps(dict(type="notebook", format="json", content=nb)).encode()
    assert status(f"{base}/api/contents/nbs/saved.ipynb?token={token}", body)[0] == 201
    cell = json.loads((place / "nbs" / "saved.ipynb").read_text())["cells"][0]
    assert cell["execution_count"] is None and cell["metadata"] == {}
    assert cell["outputs"][0]["data"] == {"text/plain": ["2"]}

    if real:  # no news dialogue over the first lesson
        name = "@jupyterlab/apputils-extension:notification"
        schema = json.loads(status(f"{base}/lab/api/settings/{name}?token={token}")[2])["schema"]
        assert schema["properties"]["fetchNews"]["default"] == "false"

    process.terminate()
    process.wait(timeout=30)
    port = int(base.rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with capsys.disabled():
        kind = "second start of `course.py lab`" if real else "start of JupyterLab through course.py"
        print(f"\n{kind}: {seconds:.1f} s to the first answer", end=" ")


# What is written about it


def written(*names):
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def test_every_command_that_is_written_down_exists(course):
    import deepfake_course._cli as cli

    text = written("README.md", ".ci/run", ".github/workflows/test.yml", ".devcontainer/devcontainer.json", "binder/postBuild")
    used = re.findall(r"course\.py ([a-z]+)((?: --?[a-z-]+)*)", text)
    known = course.parser()._subparsers._group_actions[0].choices
    assert {name for name, _ in used} >= {"lab", "test", "doctor", "apps", "bench", "setup", "clean"}
    for name, flags in used:
        own = known[name]._option_string_actions
        assert all(flag in own for flag in flags.split() if flag.startswith("--")), (name, flags)
    scripts = {c.name or c.callback.__name__ for c in cli.app.registered_commands} | {g.name for g in cli.app.registered_groups}
    assert set(re.findall(r"deepfake-course ([a-z]+)", written("README.md"))) <= scripts


def test_the_readme_is_short_and_names_the_right_pythons(course):
    text = written("README.md")
    assert len(text.splitlines()) <= 140
    minors = [f"{a}.{b}" for a, b in course.supported_minors()]
    assert f"Python {', '.join(minors[:-1])} or {minors[-1]}" in text
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_lock_holds_everything_that_settings_ask_for(course):
    from packaging.requirements import Requirement

    settings, lock = course.settings(), written("requirements.lock")
    assert re.search(r"(?m)^#    uv pip compile setup\.py --universal .*-o requirements\.lock$", lock)
    pins = {}
    for name, version in re.findall(r"(?m)^([\w.-]+)==([^ ;\n]+)", lock):
        pins.setdefault(name.lower().replace("_", "-"), []).append(version)
    for text in settings["requirements"].split() + settings["dev_requirements"].split():
        asked = Requirement(text)
        found = pins.get(asked.name.lower().replace("_", "-"), [])
        assert found and all(version in asked.specifier for version in found), text


def test_licence_and_citation():
    complete = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # apache.org's text
    text = written("LICENSE").replace("\r\n", "\n")
    assert hashlib.sha256(text.encode()).hexdigest() == complete
    version = re.search(r"(?m)^version = (\S+)", written("settings.ini"))[1]
    assert f"\nversion: {version}\n" in written("CITATION.cff")


def test_the_wheel_carries_the_samples(tmp_path):
    source, out, place = (tmp_path / name for name in ("source", "out", "installed"))
    source.mkdir()
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    for name in ("deepfake_course", "data_samples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(out)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,) = out.glob("*.whl")
    shutil.unpack_archive(wheel, place, "zip")
    ask = "import sys; sys.path.insert(0, sys.argv[1])\n"
    ask += "import deepfake_course.core as core; print(core.__file__); print(core.sample('scores.csv'))"
    done = subprocess.run([sys.executable, "-c", ask, str(place)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(place) for line in done.stdout.split("\n")[:2])
