#!/usr/bin/env python3
"""Sets the course up, opens it and tests it, with nothing but Python's standard library.

    python3 course.py lab       JupyterLab on the first lesson
    python3 course.py test      every lesson, then the tests
    python3 course.py doctor    what is missing on this machine, and what to do
    python3 course.py apps      all widgets on one web page, and the lessons (Voila)
    python3 course.py bench     how fast, against the obvious way
    python3 course.py setup     only the installation, which the others do by themselves
    python3 course.py clean     remove what was installed here

The first start installs the versions of requirements.lock into .venv; later starts take seconds.
"""
import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

WINDOWS = os.name == "nt"
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON = BIN / ("python.exe" if WINDOWS else "python")
STAMP = VENV / ".course-stamp.json"  # written last: its presence means a complete installation
UNFINISHED = VENV / ".course-unfinished.json"  # there from the first step to the last
LOG = VENV / "install.log"
LOCK = ROOT / ".venv.lock"
FIRST_LESSON, WIDGETS = "nbs/00_core.ipynb", "_widgets.ipynb"
CPU_INDEX = os.environ.get("DEEPFAKE_COURSE_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
KEEP_LITTLE = ["-o", "tmp_path_retention_count=1", "-o", "tmp_path_retention_policy=failed"]
TWO_WORKERS = ["-n", "2", "--dist", "loadfile"]  # of pytest-xdist: a file's tests stay together, and share what they make
LESSON_SECONDS, TEST_SECONDS = 1500, 3300
GB = 10**9


class Stop(Exception):
    """Something the user has to know or do; shown without a traceback."""


def stop_if(problem):
    if problem:
        raise Stop(problem)


# What this machine must have


def settings():
    parser = ConfigParser(delimiters=["="])
    parser.read(str(ROOT / "settings.ini"), encoding="utf-8")
    return parser["DEFAULT"]


def version_pair(text):
    return tuple(int(part) for part in text.split(".")[:2])


def supported_minors():
    low, high = (version_pair(settings()[key]) for key in ("min_python", "max_python"))
    return [(low[0], minor) for minor in range(low[1], high[1])]


def other_pythons():
    """Commands on this machine that start a supported Python."""
    names = ["python{}.{}".format(*pair) for pair in supported_minors()]
    return [name for name in names if starts(name, "-c", "")]


def starts(*command):
    """Can this be run, and does it end well? (A version manager's shim may exist and yet start nothing.)"""
    try:
        done = subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def check_python():
    if sys.version_info[:2] in supported_minors():
        return
    good = ["{}.{}".format(*pair) for pair in supported_minors()]
    there = other_pythons()
    if there:
        remedy = f"It is on this machine already: {there[-1]} course.py lab"
    elif WINDOWS:
        remedy = f"Get one from https://www.python.org/downloads/, then: py -{good[-2]} course.py lab"
    elif sys.platform == "darwin":
        remedy = f"Get one: brew install python@{good[-2]}, then: python{good[-2]} course.py lab"
    else:
        remedy = (
            f"Get one from your distribution (Debian, Ubuntu: sudo apt install python{good[0]} "
            f"python{good[0]}-venv) or with uv: uv python install {good[-2]}"
        )
    here = "{}.{}.{}".format(*sys.version_info[:3])
    raise Stop(f"The course needs Python {', '.join(good[:-1])} or {good[-1]}; this is {here}.\n{remedy}")


def check_platform():
    """The systems for which all pinned packages have ready-made wheels."""
    system, machine = platform.system(), platform.machine().lower()
    libc = platform.libc_ver()[0]
    fits = {
        "Linux": machine in ("x86_64", "aarch64") and libc in ("glibc", ""),
        "Darwin": machine == "arm64" and int(platform.mac_ver()[0].split(".")[0] or 99) >= 14,
        "Windows": machine == "amd64",
    }
    if sys.maxsize < 2**32 or not fits.get(system, False):
        raise Stop(
            f"PyTorch and TensorFlow have no wheels for this system ({system} {machine} {libc}). The "
            "course runs on 64-bit Linux with glibc (x86_64, aarch64), macOS 14 or newer on Apple "
            "silicon, and Windows on x86_64.\nOn another machine use Docker or Codespaces: "
            ".devcontainer/ is ready for both."
        )


def uv():
    """Path of a uv that really starts, or None. DEEPFAKE_COURSE_INSTALLER=pip ignores it."""
    found = shutil.which("uv")
    if not found or os.environ.get("DEEPFAKE_COURSE_INSTALLER") == "pip":
        return None
    return found if starts(found, "--version") else None


def venv_problem():
    """Why Python cannot make a virtual environment with pip in it, or None."""
    if uv() or all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return None
    return (
        "This Python cannot make virtual environments: the venv and ensurepip modules are missing.\n"
        "Debian, Ubuntu: sudo apt install python3-venv   (for another Python than the system's: "
        f"python{sys.version_info[0]}.{sys.version_info[1]}-venv). Or install uv."
    )


def disk():
    """Use of the disk that .venv is on, which may be a link to another one."""
    place = VENV.resolve()
    return shutil.disk_usage(str(place if place.exists() else ROOT))


def needed_gb(flavour):
    """Measured: 9 and 4 GB in the end; pip keeps its downloads beside them until it is done."""
    with_uv, with_pip = (9, 13) if flavour == "cuda" else (5, 7)
    return with_uv if uv() else with_pip


def disk_problem(flavour):
    """A sentence if the disk is too full for a first installation, or None."""
    free, need = disk().free / GB, needed_gb(flavour)
    if free >= need or os.environ.get("DEEPFAKE_COURSE_SKIP_DISK_CHECK"):
        return None
    advice = "Free some space, or move this folder to a larger disk (DEEPFAKE_COURSE_SKIP_DISK_CHECK=1 goes on anyway)."
    if flavour == "cuda":
        advice += f" With --cpu about {needed_gb('cpu')} GB are enough."
    return f"The installation needs about {need} GB; {ROOT} has {free:.1f} GB free.\n{advice}"


# The installation


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_json(path, value):
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(str(part), str(path))


def wanted(flavour):
    """What the stamp of an up-to-date installation says."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "settings.ini", "setup.py"):
        digest.update((ROOT / name).read_bytes())
    version = "{}.{}".format(*sys.version_info[:2])
    return {"files": digest.hexdigest(), "python": version, "flavour": flavour, "root": str(ROOT)}


def choose_flavour(cpu):
    """'cuda' (the registry's Linux wheels), 'cpu' (PyTorch's smaller ones) or 'plain' (other systems)."""
    if platform.system() != "Linux":
        return "plain"
    return "cpu" if cpu else remembered_flavour() or "cuda"


def remembered_flavour():
    return (read_json(STAMP) or read_json(UNFINISHED)).get("flavour")


def venv_works():
    """Does the environment's Python start, with the version that runs this script?"""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        out = subprocess.run([str(PYTHON), "-I", "-S", "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return out.stdout.decode().strip() == "{}.{}".format(*sys.version_info[:2])


def why_rebuild(want):
    """Why the environment there is of no use as a base, or None."""
    have = read_json(STAMP)  # empty: an environment that the user made; it is installed into
    if not VENV.exists() or not any(VENV.iterdir()):
        return "there is none yet"
    if UNFINISHED.exists():
        return "making it was interrupted"
    if not venv_works():
        return "its Python is gone, or is another version than this one"
    if not (uv() or starts(PYTHON, "-m", "pip", "--version")):
        return "it has no pip"
    if have.get("root", want["root"]) != want["root"]:
        return "this folder was moved or copied"
    if have.get("flavour", want["flavour"]) != want["flavour"]:
        return "it has PyTorch's other wheels"
    return None


@contextlib.contextmanager
def only_one():
    """Hold the lock of this folder. The system frees it when the holder and its installer are gone."""
    with open(str(LOCK), "a+") as handle:
        said = False
        while not try_lock(handle):
            if not said:
                print("Another course.py is setting up this folder; waiting for it (Ctrl-C stops).", flush=True)
            said = True
            time.sleep(0.5)
        yield handle


def try_lock(handle):
    try:
        if WINDOWS:
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # a file system without locks, such as some network drives
        print(f"note: this folder cannot be locked ({error}); do not start a second set-up", flush=True)
    return True


def remove_venv():
    """Move the environment aside, then delete it: an interruption never leaves half of it in place."""
    place = VENV.resolve()
    for old in place.parent.glob(place.name + "-old*"):
        shutil.rmtree(str(old), ignore_errors=True)
    if place.exists():
        aside = place.with_name(f"{place.name}-old{os.getpid()}")
        try:
            os.replace(str(place), str(aside))
        except OSError as error:
            raise Stop(f"Cannot replace {VENV}: {error}\nClose what uses it (JupyterLab, an editor), then try again.")
        shutil.rmtree(str(aside), ignore_errors=True)


def step(what, command, lock, env=None):
    """Run one step of the installation; its output goes to the log, a line about it to the screen."""
    start, used = time.time(), disk().used
    keep = {} if WINDOWS else {"pass_fds": (lock.fileno(),)}  # an orphaned installer keeps the lock
    print(what, end="" if sys.stdout.isatty() else "\n", flush=True)
    with open(str(LOG), "ab") as log:
        log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        log.flush()
        begin = log.tell()
        child = subprocess.Popen(
            [str(c) for c in command], cwd=str(ROOT), stdout=log, stderr=subprocess.STDOUT, env=env, **keep
        )
        try:
            show_progress(child, what, start, used)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    show(what, f"{time.time() - start:.0f} s", last=True)
    if child.returncode:
        with open(str(LOG), "rb") as log:
            log.seek(begin)
            output = log.read().decode(errors="replace")
        raise Stop(explain_failure(what, output))


def show_progress(child, what, start, used):
    while True:
        try:
            return child.wait(timeout=1 if sys.stdout.isatty() else 60)
        except subprocess.TimeoutExpired:
            more = max(0, disk().used - used) / GB
            show(what, f"{time.time() - start:.0f} s, {more:.1f} GB so far")


def show(what, state, last=False):
    """On a terminal a line that is written over until the last time, elsewhere one line each."""
    if sys.stdout.isatty():
        print(f"\r{what}  {state}".ljust(78), end="\n" if last else "", flush=True)
    else:
        print(f"    {state}", flush=True)


NETWORK = re.compile(
    r"name resolution|dns error|getaddrinfo|NewConnectionError|Connection(Error| refused| reset| aborted| broken)"
    r"|error sending request|timed? ?out|Max retries|ProxyError|Network is unreachable|Could not fetch URL|SSLError"
    r"|from versions: none",
    re.I,
)


def explain_failure(what, output):
    if re.search(r"No space left|disk quota|not enough space", output, re.I):
        advice = "The disk is full. Free some space and run the same command again."
    elif "ensurepip" in output and what.startswith("1/3"):
        advice = "Debian, Ubuntu: sudo apt install python3-venv, then run the same command again."
    elif NETWORK.search(output):
        advice = (
            "The package registry could not be reached. Check the network (behind a proxy set HTTPS_PROXY) and run "
            "the same command again: downloads are kept."
        )
    else:
        advice = "Run the same command again: downloads are kept. If it fails once more, report the lines above."
    lines = [line for line in output.strip().splitlines() if not line.startswith("Ignoring ")]
    last = "\n".join("  | " + line for line in lines[-12:])
    return f"Step failed: {what}\n{last}\nAll of it is in {LOG}\n{advice}"


def split_lock(text):
    """(CPU pins of torch and torchvision, the lock's other lines without the CUDA packages)."""
    pins, rest = [], []
    for line in text.splitlines():
        name = re.match(r"[A-Za-z0-9._-]*", line).group().lower()
        if name in ("torch", "torchvision"):
            pins.append(line.split(";")[0].strip() + "+cpu")
        elif name and not re.match(r"(nvidia|cuda)-|triton$", name):
            rest.append(line)
    return pins, rest


def check_cpu_index(pins):
    """Raise unless PyTorch's CPU index answers and has exactly the versions of the lock."""
    tag = "cp{}{}".format(*sys.version_info[:2])
    sorry = "\nFor the registry's ordinary wheels (larger; they run on a CPU too) run "
    if remembered_flavour() == "cpu":
        sorry += "`python3 course.py clean`, then the same command without --cpu."
    else:
        sorry += "the same command without --cpu."
    for pin in pins:
        name, version = pin.split("==")
        url = f"{CPU_INDEX.rstrip('/')}/{name}/"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                page = answer.read().decode(errors="replace").replace("%2B", "+").replace("%2b", "+")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Stop(f"--cpu needs PyTorch's CPU index, and {url} cannot be reached ({reason}).{sorry}")
        if not re.search(re.escape(f"{name}-{version}-{tag}-") + rf"[\w.-]*{platform.machine()}\.whl", page):
            raise Stop(f"--cpu needs {name} {version} ({tag}, {platform.machine()}), and {url} does not list it.{sorry}")


def install(want, lock):
    """Bring the environment to what `want` says, from zero where the present one is of no use."""
    flavour, rebuild = want["flavour"], why_rebuild(want)
    requirements = ROOT / "requirements.lock"
    pins, rest = split_lock(requirements.read_text(encoding="utf-8"))
    if not rebuild:
        pins = [pin for pin in pins if not list(VENV.glob(f"lib/*/site-packages/{pin.replace('==', '-')}.dist-info"))]
    if flavour == "cpu":
        check_cpu_index(pins)
    if rebuild:
        stop_if(venv_problem())
        print(f"Making {VENV} ({rebuild}): some minutes, about {needed_gb(flavour)} GB.", flush=True)
        remove_venv()
        stop_if(disk_problem(flavour))
        VENV.resolve().mkdir(parents=True)
    with contextlib.suppress(OSError):
        STAMP.unlink()
    write_json(UNFINISHED, want)
    LOG.write_bytes(b"")
    tmp = VENV / ".tmp"  # pip unpacks gigabytes here; /tmp is often a small memory disk
    tmp.mkdir(exist_ok=True)
    env = clean_env(TMPDIR=str(tmp), TEMP=str(tmp), TMP=str(tmp))
    tool = uv()
    if tool:
        add = [tool, "pip", "install", "--python", PYTHON]
        make = [tool, "venv", "--seed", "--allow-existing", "--python", base_python(), VENV.resolve()]
    else:
        add = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        make = [base_python(), "-m", "venv", VENV.resolve()]
    if rebuild:
        step("1/3 virtual environment", make, lock, env)
    exact = []
    if flavour == "cpu":
        if pins:
            step("2/3 PyTorch for CPU", add + ["--no-deps", "--index-url", CPU_INDEX] + pins, lock, env)
        requirements = VENV / "cpu-requirements.txt"
        requirements.write_text("\n".join(rest) + "\n", encoding="utf-8")
        exact = ["--no-deps"]
    step("2/3 packages of requirements.lock", add + exact + ["-r", requirements], lock, env)
    step("3/3 the course itself", add + ["--no-deps", "--no-build-isolation", "-e", "."], lock, env)
    shutil.rmtree(str(tmp), ignore_errors=True)
    set_merge_driver()
    write_json(STAMP, want)
    UNFINISHED.unlink()
    print("Set-up is complete.", flush=True)


def base_python():
    return getattr(sys, "_base_executable", None) or sys.executable


def ready(flavour):
    """Is a complete, up-to-date installation there?"""
    return read_json(STAMP) == wanted(flavour) and not UNFINISHED.exists() and venv_works()


def set_up(cpu=False):
    check_python()
    check_platform()
    if cpu and platform.system() != "Linux":
        print("--cpu: on this system the ordinary wheels are CPU wheels already.", flush=True)
    if ready(choose_flavour(cpu)):
        return
    with only_one() as lock:
        flavour = choose_flavour(cpu)  # again: another process may have finished meanwhile
        if not ready(flavour):
            install(wanted(flavour), lock)


def git(*arguments):
    """Output of a git command in this clone; None where there is no clone or no git."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return None
    done = subprocess.run(
        ["git", *arguments], cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode(errors="replace").strip()


def merge_driver():
    return f"{BIN.relative_to(ROOT).as_posix()}/nbdev_merge %O %A %B %P"


def set_merge_driver():
    """Let git resolve conflicts cell by cell: .gitattributes names the driver, this clone defines it."""
    if git("config", "--local", "--get", "merge.nbdev-merge.driver") not in (None, merge_driver()):
        git("config", "--local", "merge.nbdev-merge.name", "merge notebooks cell by cell")
        git("config", "--local", "merge.nbdev-merge.driver", merge_driver())


# Running things in the environment


def clean_env(**more):
    """This process's environment without what would lead another Python astray."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH", "PIP_USER")}
    return dict(env, **more)


def course_env(**more):
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return clean_env(VIRTUAL_ENV=str(VENV), PATH=path, **more)


def tool(name):
    return str(BIN / (name + ".exe" if WINDOWS else name))


def call(command):
    """Run a command of the environment to its end; its exit code."""
    return wait_for(start(command, course_env()))


def start(command, env):
    """Start a command of the environment that ends with this process when this one is told to end."""
    child = subprocess.Popen(command, cwd=str(ROOT), env=env)
    with contextlib.suppress(ValueError):  # signals can be set in the main thread only
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child


def wait_for(child):
    """Wait through Ctrl-C, which the child gets as well and answers in its own way."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def timed(command, seconds, env):
    """Exit code of a command that is stopped with all its children after `seconds` (then 124)."""
    group = {"creationflags": 0x200} if WINDOWS else {"start_new_session": True}
    child = subprocess.Popen(command, cwd=str(ROOT), env=env, **group)
    try:
        return child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        kill_group(child)


def kill_group(child):
    """End what is left of a command started by `timed`."""
    if WINDOWS:
        if child.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], stdout=subprocess.DEVNULL)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def free_port(asked):
    """The asked port, or the first free one from 8888 on."""
    for port in [asked] if asked else range(8888, 8988):
        with socket.socket() as probe:
            if not WINDOWS:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except (OSError, OverflowError):
                continue
    raise Stop(f"Port {asked or '8888 to 8987'} on this machine is taken or not allowed: choose another with --port.")


SERVER_CONFIG = '''\
# Written by course.py. Notebooks are cleaned as they are saved, so that git sees only real changes.
import os

def clean(**kwargs):
    from nbdev.clean import clean_jupyter
    clean_jupyter(**kwargs)

c.ContentsManager.pre_save_hook = clean
c.ServerApp.jpserver_extensions = {"voila.server_extension": False}  # `course.py apps` is for that
if os.environ.get("DEEPFAKE_COURSE_TOKEN"):
    c.IdentityProvider.token = os.environ["DEEPFAKE_COURSE_TOKEN"]
'''
LAB_DEFAULTS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
LAB_PAGE = {"disabledExtensions": {"@voila-dashboards/jupyterlab-preview": True}}


def write_lab_settings():
    """Defaults of this environment's JupyterLab. The user's own settings are not touched."""
    config = VENV / "etc" / "jupyter"
    overrides = VENV / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    for folder in (config / "labconfig", overrides.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (config / "jupyter_server_config.py").write_text(SERVER_CONFIG, encoding="utf-8")
    write_json(config / "labconfig" / "page_config.json", LAB_PAGE)
    write_json(overrides, LAB_DEFAULTS)


def serve(name, command, port, path, answers, variable):
    """Start a server on loopback, say where it is as soon as it answers, wait for its end.

    It gets its token through the environment `variable`: other users can read command lines.
    """
    token = next((a.split("=", 1)[1] for a in command if a.startswith("--IdentityProvider.token=")), None)
    token = token or os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    child = start(command, course_env(**{variable: token}))
    base, until = f"http://127.0.0.1:{port}", time.time() + 180
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        while child.poll() is None and time.time() < until:
            with contextlib.suppress(OSError):
                direct.open(f"{base}{answers}?token={token}", timeout=5).close()
                print(f"{name} runs at\n    {base}{path}?token={token}\nCtrl-C in this window stops it.", flush=True)
                break
            time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    return wait_for(child)


def as_root():
    return [] if WINDOWS or os.geteuid() else ["--allow-root"]


# The commands


def options(ours, rest):
    """Our settings except those that the user gives as well (Jupyter refuses to be told twice), then theirs."""
    theirs = {argument.split("=", 1)[0] for argument in rest}
    return [f"{name}={value}" for name, value in ours.items() if name not in theirs] + rest


def lab(args, rest):
    set_up(args.cpu)
    write_lab_settings()
    port = free_port(args.port)
    ours = {
        "--ServerApp.ip": "127.0.0.1",
        "--ServerApp.port": port,
        "--ServerApp.port_retries": 0,
        "--ServerApp.root_dir": ROOT,
        "--LabApp.default_url": f"/lab/tree/{FIRST_LESSON}",
        "--Application.log_level": "WARN",
    }
    jupyter = [str(PYTHON), "-W", "ignore:Overriding existing pre_save_hook", "-m", "jupyterlab", *as_root()]
    command = jupyter + ["--no-browser"] * args.no_browser + options(ours, rest)
    return serve("JupyterLab", command, port, f"/lab/tree/{FIRST_LESSON}", "/api/status", "DEEPFAKE_COURSE_TOKEN")


def apps(args, rest):
    set_up()
    port = free_port(args.port)
    ours = {
        "--Voila.ip": "127.0.0.1",
        "--Voila.port": port,
        "--Voila.port_retries": 0,
        "--Voila.auto_token": True,
        "--Voila.log_level": "WARN",
    }
    command = [tool("voila"), "nbs"] + ["--no-browser"] * args.no_browser + options(ours, rest)
    return serve("Voila", command, port, f"/voila/render/{WIDGETS}", "/", "JUPYTER_TOKEN")


def test(args, rest):
    set_up(args.cpu)
    one = {key: "1" for key in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
    env = course_env(**one)
    verdict = None
    if not args.no_lessons:
        verdict = test_isolated(env) if args.isolated else test_lessons(env)
        print(f"Lessons: {verdict or 'all passed'}.", flush=True)
    paths = [] if any((ROOT / arg.split("::")[0]).exists() for arg in rest) else ["tests"]
    two = [] if any(arg.startswith(("-n", "-s", "--pdb", "-p")) for arg in rest) else TWO_WORKERS
    code = timed([str(PYTHON), "-m", "pytest", *KEEP_LITTLE, *two, *paths, *rest], TEST_SECONDS, env)
    return code or (1 if verdict else 0)


def test_lessons(env):
    """What is wrong with the lessons, or None."""
    print(f"Lessons: nbdev_test, 2 workers, at most {LESSON_SECONDS} s.", flush=True)
    code = timed([tool("nbdev_test"), "--n_workers", "2", "--timing"], LESSON_SECONDS, env)
    if code == 124:
        return f"FAILED, stopped after {LESSON_SECONDS} s; `python3 course.py test --isolated` shows which one hangs"
    return f"FAILED, nbdev_test ended with exit code {code} (see above)" if code else None


def test_isolated(env):
    """The same with a process of its own for each lesson, two at a time, at most 300 s each."""

    def one(path):
        start = time.time()
        code = timed([tool("nbdev_test"), "--path", str(path), "--n_workers", "0"], 300, env)
        print(f"{path.name}: {'ok' if not code else f'FAILED ({code})'}, {time.time() - start:.0f} s", flush=True)
        return code

    found = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not re.search(r"/[._]", p.relative_to(ROOT).as_posix()))
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(one, found))
    bad = [path.name for path, code in zip(found, codes) if code]
    return f"FAILED in {', '.join(bad)}" if bad else None


def doctor(args, rest):
    """Print one line for each thing; the exit code says whether the course can be used or set up."""
    bad = 0

    def line(state, text):
        nonlocal bad
        bad += state == "MISSING"
        print(f"{state:9}{text}".replace("\n", "\n" + " " * 9))

    def problem_of(check):
        try:
            check()
        except Stop as stop:
            return str(stop)

    old = problem_of(check_python) or problem_of(check_platform)
    line("MISSING" if old else "ok", old or f"Python {platform.python_version()} on {platform.platform()}")
    flavour = choose_flavour(False)
    complete = not old and ready(flavour)
    if complete:
        line("ok", f"{VENV} is complete and up to date ({flavour} wheels)")
    else:
        state = "is not there yet"
        if UNFINISHED.exists():
            state = "was interrupted while it was made: the next start makes it anew"
        elif VENV.exists():
            state = "is not up to date" if STAMP.exists() else "was not made by course.py"
        line("to do", f"{VENV} {state}. Run: python3 course.py lab")
        line("MISSING" if venv_problem() else "ok", venv_problem() or "virtual environments can be made")
        if not VENV.exists():
            full = disk_problem(flavour)
            line("MISSING" if full else "ok", full or f"disk space (about {needed_gb(flavour)} GB needed)")
    line("ok", f"installer: {'uv' if uv() else 'pip'}")
    if git("rev-parse", "--git-dir") is None:
        line("optional", "git clone: without one, changes to lessons cannot be compared or merged")
    else:
        driver = git("config", "--local", "--get", "merge.nbdev-merge.driver") == merge_driver()
        line("ok" if driver else "to do", "git merges notebooks cell by cell" + ("" if driver else " after set-up"))
    browser = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")), None)
    line("ok" if browser else "optional",
         f"browser for the browser test: {browser}" if browser else
         "Chromium, only for the browser test. Debian: sudo apt install chromium")  # fmt: skip
    gpu = shutil.which("nvidia-smi")
    line("ok" if gpu else "optional", "NVIDIA driver found" if gpu else "NVIDIA GPU: none found, the course does not need one")
    sys.stdout.flush()
    if complete:
        print("\nInside the environment:", flush=True)
        bad += call([tool("deepfake-course"), "doctor"]) != 0
    return 1 if bad else 0


def bench(args, rest):
    set_up()
    return call([tool("deepfake-course"), "bench", *rest])


def setup(args, rest):
    set_up(args.cpu)
    return 0


def made_here():
    """Files and folders that the commands above made in this folder and can make again."""
    names = [".venv", ".venv.lock", ".pytest_cache", "build", "deepfake_course.egg-info", "nbs/.last_checked"]
    found = [ROOT / name for name in names] + sorted(ROOT.glob(".venv-old*"))
    for folder in ("deepfake_course", "data_samples", "tests", "nbs", "."):
        found.append(ROOT / folder / "__pycache__")
    return [path for path in found if path.exists() or path.is_symlink()]


def clean(args, rest):
    found = made_here()
    if not found:
        print("There is nothing to remove.")
        return 0
    print("This removes, inside " + str(ROOT) + ":")
    for path in found:
        print("   ", path.relative_to(ROOT))
    print("Lessons, your own files and downloads in your cache folders stay.", flush=True)
    try:
        sure = args.yes or input("Remove them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        sure = False
    if not sure:
        print("Nothing was removed.")
        return 1
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path), ignore_errors=True)
        else:
            path.unlink()
    left = [str(path.relative_to(ROOT)) for path in found if path.exists()]
    if left:
        raise Stop(f"Could not remove {', '.join(left)}: close what uses it, then try again.")
    print("Removed.")
    return 0


def parser():
    top = argparse.ArgumentParser(
        prog="course.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def add(function, text, extra=False, **more):
        one = commands.add_parser(function.__name__, help=text, description=text, allow_abbrev=False, **more)
        one.set_defaults(function=function, extra=extra)
        return one

    cpu = "on Linux, install PyTorch's smaller CPU wheels (about 4 GB in all); remembered until `clean`"
    one = add(lab, "JupyterLab on the first lesson. Further arguments go to JupyterLab.", extra=True)
    one.add_argument("--no-browser", action="store_true", help="only print the address with its token")
    one.add_argument("--port", type=int, help="port on this machine (the first free one from 8888 on)")
    one.add_argument("--cpu", action="store_true", help=cpu)
    one = add(test, "Every lesson with nbdev_test, then pytest. Further arguments go to pytest.", extra=True)
    one.add_argument("--isolated", action="store_true", help="run each lesson in a process of its own")
    one.add_argument("--no-lessons", action="store_true", help="only pytest")
    one.add_argument("--cpu", action="store_true", help=cpu)
    add(doctor, "What is missing on this machine, and what to do about it.")
    one = add(apps, "All widgets on one web page, and the lessons as such pages. Further arguments go to Voila.", extra=True)
    one.add_argument("--no-browser", action="store_true", help="only print the address with its token")
    one.add_argument("--port", type=int, help="port on this machine (the first free one from 8888 on)")
    add(bench, "Speed against the obvious way: bench [GROUP] [--json].", extra=True, add_help=False)
    add(setup, "Only the installation.").add_argument("--cpu", action="store_true", help=cpu)
    add(clean, "Remove the installation and caches in this folder.").add_argument(
        "--yes", action="store_true", help="do not ask"
    )
    return top


def main(argv=None):
    top = parser()
    args, rest = top.parse_known_args(argv)
    if not args.command:
        top.print_help()
        return 2
    if rest and not args.extra:
        top.error(f"{args.command} does not know {' '.join(rest)}")
    try:
        return args.function(args, rest)
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from a clean state; downloads are kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
