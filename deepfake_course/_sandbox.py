"""Where a student's code runs: bubblewrap with no network, a read-only system, its own processes, and limits.

Written by hand. The sandbox sees Python, its packages, this package, the sample files and an empty folder, and nothing
else: no home folder, no gradebook, no other submission, no hidden test. Where the system has none, `start` refuses;
`unsafe=True` runs the same worker as an ordinary process, with the limits but without the walls.
"""
import functools
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

from . import _wire

PACKAGE = Path(__file__).resolve().parent
INSIDE = "/course"
GB = 1 << 30
USERS, HOW_MANY = 61_000, 4_000  # as root, each sandbox gets a user of its own among these
_given, _lock = 0, threading.Lock()


class Refused(ValueError):
    """No sandbox can run here."""


class Stopped(Exception):
    """The student's process is gone: killed at a limit, or ended by itself."""


def _root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _user():
    """A user id that nobody has: another sandbox's processes would count against this one's limit, and could be seen."""
    global _given
    import psutil

    with _lock:
        taken = {one.info["uids"].real for one in psutil.process_iter(["uids"]) if one.info["uids"]}
        for _ in range(HOW_MANY):
            _given += 1
            user = USERS + (97 * os.getpid() + _given) % HOW_MANY
            if user not in taken:
                return user
    raise Refused(f"all {HOW_MANY} user ids of the sandbox are in use")


@functools.lru_cache(maxsize=1)
def why_not() -> str:
    """Why no sandbox can run here, in one sentence; empty if one can."""
    if sys.platform != "linux":
        return f"the sandbox (bubblewrap) runs on Linux, not on {sys.platform}: grade in a Linux virtual machine or WSL"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed: `sudo apt install bubblewrap` (or your system's package of this name)"
    home, shown = Path.home(), [Path(path) for path in _readable()[1]]
    if any(path == home or path in home.parents for path in shown):
        return f"Python is installed where {home} is, so that a sandbox that shows Python would show your files: use another one"
    done = subprocess.run([*_walls(), sys.executable, "-c", "print(6*7)"], capture_output=True, text=True, timeout=60,
                          env=_environment({}), check=False)
    if done.returncode or done.stdout.strip() != "42":
        told = " ".join((done.stderr or done.stdout).split())[:200]
        return (f"bubblewrap cannot make a sandbox here ({told}): user namespaces are switched off, as in many "
                "containers; grade on a machine or in a virtual machine where they are allowed")
    return ""


def _data():
    beside = PACKAGE.parent / "data_samples"
    return beside if beside.is_dir() else PACKAGE / "data_samples"


def _readable():
    """Folder here -> folder inside, of all that the worker needs."""
    system = [path for path in ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache",
                                "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/fonts", "/etc/alternatives")]
    python = {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"),
              str(Path(os.path.realpath(sys.executable)).parent.parent)}
    python |= set(_packages())
    return system, sorted(python), {str(PACKAGE): f"{INSIDE}/{PACKAGE.name}", str(_data()): f"{INSIDE}/data_samples"}


def _packages():
    """Folders of sys.path that hold installed packages; never the current folder, where a gradebook may lie."""
    return [path for path in sys.path if path and next(Path(path).glob("*.dist-info"), None) is not None]


def _walls():
    command = [shutil.which("bwrap") or "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent",
               "--new-session", "--hostname", "sandbox", "--clearenv"]
    command += ["--cap-drop", "ALL"]
    if _root():  # without a user namespace, so that the worker can become a user whose processes are counted
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534", "--disable-userns"]
    system, python, course = _readable()
    made = set()
    for path in system:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    for path in [*python, *course.values()]:
        for parent in list(Path(path).parents)[-2::-1]:
            if str(parent) not in made and not str(parent).startswith(("/usr", "/etc", "/lib", "/bin")):
                command += ["--perms", "0755", "--dir", str(parent)]
                made.add(str(parent))
    for path in python:
        command += ["--ro-bind", path, path]
    for path, inside in course.items():
        command += ["--ro-bind", path, inside]
    command += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(GB // 4), "--tmpfs", "/tmp"]
    command += ["--perms", "1777", "--size", str(GB // 4), "--tmpfs", "/dev/shm"]
    for name, text in _environment({}).items():
        command += ["--setenv", name, text]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp"]


def _environment(more):
    extra = [path for path in _packages() if not path.startswith((sys.prefix, sys.base_prefix))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "MPLBACKEND": "agg",
            "PYTHONPATH": os.pathsep.join([INSIDE, *extra]), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0",
            "IPYTHONDIR": "/tmp/ipython", "MPLCONFIGDIR": "/tmp/mpl", "DEEPFAKE_COURSE_CACHE": "/tmp/cache",
            "TF_CPP_MIN_LOG_LEVEL": "3", **threads, **more}


class Worker:
    """A student's notebook in a process of its own; `call` sends an order and waits for the answer."""

    def __init__(self, student: str = "", unsafe: bool = False, memory: int = 3 * GB, processes: int = 64):
        if not unsafe and (why := why_not()):
            raise Refused(f"{why}. To run students' code without a sandbox, with your rights, add --unsafe")
        limits = {"AS": 4 * memory, "DATA": memory, "FSIZE": GB // 32, "NOFILE": 128, "CORE": 0}
        if not unsafe:
            limits["NPROC"] = processes
            limits |= {"user": _user()} if _root() else {}
        more = {"DEEPFAKE_COURSE_STUDENT": student} if student else {}
        command = [sys.executable, "-m", f"{__package__}._worker", json.dumps(limits if sys.platform == "linux" else {})]
        self.place = None
        if unsafe:
            self.place = tempfile.TemporaryDirectory(prefix="assignment-")
            env = {**os.environ, **_environment(more), "PYTHONPATH": os.pathsep.join(
                [str(PACKAGE.parent), *_environment({})["PYTHONPATH"].split(os.pathsep)[1:]])}
            env |= {name: os.path.join(self.place.name, name) for name in ("IPYTHONDIR", "MPLCONFIGDIR")}
            env |= {"PATH": os.environ.get("PATH", ""), "HOME": self.place.name, "DEEPFAKE_COURSE_CACHE": self.place.name}
        else:
            command, env = [*_walls(), *sum((["--setenv", *pair] for pair in more.items()), []), *command], {"PATH": os.environ["PATH"]}
        self.memory, self.most = 0, memory + GB
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=env, cwd=self.place and self.place.name, start_new_session=True, bufsize=0)
        self.arrived = queue.Queue(16)  # a flood of output waits in the pipe, not in our memory
        threading.Thread(target=self._listen, daemon=True).start()
        self.left, self.looked = b"", 0.

    def _listen(self):
        try:
            while part := os.read(self.process.stdout.fileno(), 1 << 20):
                self.arrived.put(part)
        except (OSError, ValueError):  # closed while it was read
            pass
        self.arrived.put(b"")

    def call(self, order: dict, seconds: float):
        """The answer to an order, or `Stopped` once the time is over or the process is gone."""
        end = time.monotonic() + seconds

        def read(length):
            while len(self.left) < length:
                self._check(end, seconds)
                try:
                    part = self.arrived.get(timeout=.25)
                except queue.Empty:
                    continue
                if not part:
                    break
                self.left += part
            taken, self.left = self.left[:length], self.left[length:]
            return taken

        try:
            self._send(_wire.pack(order), end, seconds)
            return _wire.receive(read)
        except (EOFError, BrokenPipeError):
            told = self.process.stderr.read(2000).decode(errors="replace").strip()
            self.stop()
            raise Stopped("the notebook ended its own process, or was stopped at a limit of memory or processes"
                          + (f" ({told.splitlines()[-1]})" if told else "")) from None

    def _send(self, data, end, seconds):
        """An order, written as far as the pipe takes it: somebody who does not read must not hold us up."""
        view, pipe = memoryview(data), self.process.stdin.fileno()
        if os.name != "posix":
            self.process.stdin.write(view)
            return
        os.set_blocking(pipe, False)
        while view:
            self._check(end, seconds)
            if select.select([], [pipe], [], .25)[1]:
                view = view[os.write(pipe, view[: 1 << 16]):]

    def _check(self, end, seconds):
        """Is the time over? And, four times a second, is too much memory in use?"""
        now = time.monotonic()
        if now > end:
            self.stop()
            raise Stopped(f"stopped after {seconds:.0f} s")
        if now > self.looked + .25:
            self._watch()
            self.looked = time.monotonic()

    def _watch(self):
        """All its processes together may not use more memory than one may."""
        import psutil

        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return
        used = 0
        for one in family:
            try:
                used += one.memory_info().rss
            except psutil.Error:  # gone meanwhile
                continue
        if used > self.most:
            self.stop()
            raise Stopped(f"stopped: its processes used more than {self.most / GB:.0f} GB of memory")

    def stop(self):
        """End it and all its children. Inside the walls, the end of the first process ends the rest."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL) if os.name == "posix" else self.process.kill()
        self.process.wait(20)
        while not self.arrived.empty():  # so that the listener is not held up, and ends
            self.arrived.get_nowait()
        for stream in (self.process.stdin, self.process.stderr):
            stream.close()
        if self.place:
            self.place.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
