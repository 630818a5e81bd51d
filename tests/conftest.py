"""What all tests share: where things are, a cache of their own, one thread a process."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fixtures import tiny  # noqa: E402
from lesson_runner import ONE_THREAD  # noqa: E402

# Set before anything imports NumPy or the course; every process that a test starts inherits it.
os.environ.update(ONE_THREAD)
os.environ.pop("IN_TEST", None)
os.environ.setdefault("MPLBACKEND", "agg")
KEPT_CACHE = os.environ.get("DEEPFAKE_COURSE_CACHE")
TIMES = pytest.StashKey()


def pytest_configure(config):
    config.stash[TIMES] = []
    folder = tempfile.mkdtemp(prefix="deepfake-course-tests-")
    os.environ["DEEPFAKE_COURSE_CACHE"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    config.add_cleanup(_restore_cache)


def _restore_cache():
    os.environ.pop("DEEPFAKE_COURSE_CACHE", None)
    if KEPT_CACHE is not None:
        os.environ["DEEPFAKE_COURSE_CACHE"] = KEPT_CACHE


def pytest_sessionfinish(session):
    "A worker of pytest-xdist hands its times to the process that prints them."
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["times"] = session.config.stash[TIMES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    node.config.stash[TIMES].extend(map(tuple, getattr(node, "workeroutput", {}).get("times", [])))


def pytest_terminal_summary(terminalreporter, config):
    "Seconds per lesson, slowest first: printed, never asserted."
    rows = sorted(((seconds, name) for name, seconds in config.stash[TIMES]), reverse=True)
    if rows:
        text = ", ".join(f"{name.removesuffix('.ipynb')} {seconds:.0f}" for seconds, name in rows)
        terminalreporter.write_line(f"seconds a lesson: {text}")


@pytest.fixture(scope="session")
def root():
    "The repository."
    return ROOT


@pytest.fixture(scope="session")
def real():
    "Folder with real clips, pictures and weights; where it is not there, the test is skipped."
    named = os.environ.get("DEEPFAKE_COURSE_REAL")
    folder = Path(named) if named else ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        why = (
            f"DEEPFAKE_COURSE_REAL={named} is no folder"
            if named
            else "no real clips here: set DEEPFAKE_COURSE_REAL to a folder that has them"
        )
        pytest.skip(why)
    return folder


@pytest.fixture(scope="session")
def lesson_times(request):
    "List of (lesson, seconds) that ends up in the summary."
    return request.config.stash[TIMES]


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("tiny") / "course")


@pytest.fixture
def tiny_course(tiny_original, tmp_path):
    "Call it for a fresh copy of the course of two tiny lessons, free to be bent."

    def copy():
        return Path(shutil.copytree(tiny_original, tmp_path / "course"))

    return copy


@pytest.fixture(scope="session")
def borrowed():
    "A maker of media for `write_miniature`: readable clips with faces, of the class that the layout asks for."
    from deepfake_course.samples import load_samples

    df = load_samples("A")

    def copy(path):
        fake = any(word in path.as_posix() for word in ("fake/", "synthesis", "manipulated"))
        clips = df["path"][df["label"] == fake]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(df.attrs["root"]) / clips.iloc[sum(path.stem.encode()) % len(clips)], path)

    return copy
