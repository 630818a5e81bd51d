"""Run lessons in processes of their own, in copies of the project.

`test_path.py` uses it. As a script, `lesson_runner.py NOTEBOOK ROOT`, it is
that process: it runs one notebook with nbdev's own test function and with the package in ROOT.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lesson_checks import PACKAGE

WORKERS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2  # beside another worker of pytest, one lesson at a time
TIMEOUT = float(
    os.environ.get("DEEPFAKE_COURSE_LESSON_TIMEOUT", 300)
)  # seconds; the budget is 60 on a quiet machine
ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    )
}


@dataclass
class Outcome:
    lesson: str  # file name of the notebook
    ok: bool
    seconds: float
    error: str = ""  # what the notebook wrote to stderr
    left: tuple = ()  # files it left beside itself


def clean_env():
    "The environment, one thread, without what changes the outcome (IN_TEST stops nbdev_export)."
    drop = ("IN_TEST", "MPLBACKEND", "PYTHONPATH", "PYTHONSAFEPATH")
    return {k: v for k, v in os.environ.items() if k not in drop} | ONE_THREAD


def run(command, cwd, timeout=TIMEOUT):
    "Exit code and stderr of a command; past the time limit it is killed with all its children."
    own = {"start_new_session": True} if os.name == "posix" else {}
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=cwd,
        env=clean_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **own,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL) if own else process.kill()
        out, err = process.communicate()
        return 124, f"{err}\nstopped after {timeout:.0f} s"
    return process.returncode, err or (out if process.returncode else "")


def link(source, target):
    "A hard link where the file system can, else a copy."
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def package_files(package):
    "All files of the package but Python's caches."
    files = (p for p in Path(package).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(package).as_posix(): p for p in sorted(files)}


def machinery(package):
    "Hand-written: names with an underscore (`__init__.py` too), except nbdev's index."
    files = package_files(package)
    return {name: p for name, p in files.items() if name[0] == "_" and name != "_modidx.py"}


def copy_project(root, target, package="machinery", data=shutil.copy2):
    'Settings, lessons, samples; of the package the "machinery", the "whole" or nothing.'
    root, target = Path(root), Path(target)
    (target / "nbs").mkdir(parents=True)
    shutil.copy2(root / "settings.ini", target)
    for file in (root / "nbs").iterdir():
        if file.is_file() and file.name[0] not in "_.":
            shutil.copy2(file, target / "nbs")
    if (root / "data_samples").is_dir():
        skip = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(
            root / "data_samples", target / "data_samples", copy_function=data, ignore=skip
        )
    files = {"machinery": machinery, "whole": package_files}.get(package, lambda _: {})
    for name, file in files(root / PACKAGE).items():
        (target / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target / PACKAGE / name)
    return target


def export_all(root):
    "`nbdev_export` in a project; what went wrong, or an empty string."
    code, error = run(
        [sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], root, 300
    )
    return error.strip() if code else ""


def listing(root):
    skip = ("__pycache__", ".ipynb_checkpoints")
    return {
        p.relative_to(root).as_posix()
        for p in Path(root).rglob("*")
        if p.is_file() and not set(skip) & set(p.parts)
    }


def run_lesson(root, notebook, timeout=TIMEOUT):
    "One notebook of a (temporary) project in its own process, with the project's own package."
    before, start = listing(root), time.perf_counter()
    command = [sys.executable, Path(__file__).resolve(), Path(root, "nbs", notebook), root]
    code, error = run(command, root, timeout)
    left = tuple(sorted(listing(root) - before))
    return Outcome(notebook, code == 0, time.perf_counter() - start, error.strip(), left)


def start_all(job, names):
    "Run `job(name)` for all names, two at a time; a dictionary of futures."
    pool = ThreadPoolExecutor(WORKERS)
    futures = {name: pool.submit(job, name) for name in names}
    pool.shutdown(wait=False)
    return futures


def tail(text, lines=25):
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", text).strip().split("\n")[-lines:])


# --- the part that runs in the new process


def main(notebook, package_root):
    from nbdev.config import get_config
    from nbdev.test import test_nb

    notebook, package_root = Path(notebook).resolve(), Path(package_root).resolve()
    sys.path[:] = [
        p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent
    ]
    ok, _ = test_nb(notebook, skip_flags=get_config().tst_flags.split(), basepath=package_root)
    package = sys.modules.get(PACKAGE)
    if package and Path(package.__file__).resolve().parent != package_root / PACKAGE:
        sys.exit(f"{notebook.name} imported {package.__file__}, not the package in {package_root}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
