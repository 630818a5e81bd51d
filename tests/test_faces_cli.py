"""`deepfake-course faces` as a user meets it: real input, bad input, full disks, Ctrl-C, a second run."""
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut
from typer.testing import CliRunner

from deepfake_course import faces
from deepfake_course._cli import app
from deepfake_course.core import sample
from deepfake_course.video import pan, write_clip


def run(*args):
    return CliRunner().invoke(app, ["faces", *map(str, args)])


def one_line(answer, *words):
    """What a user reads on standard error, without the progress bar: one line, no traceback."""
    assert "Traceback" not in answer.stderr
    lines = [line for line in re.split(r"[\r\n]+", answer.stderr) if line.startswith("deepfake-course: ")]
    assert len(lines) == 1, answer.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def portrait():
    return astronaut()


@pytest.fixture(scope="module")
def clip(portrait, tmp_path_factory):
    """A clip that the test writes itself."""
    path = tmp_path_factory.mktemp("clip") / "pan.mp4"
    return write_clip(path, pan(portrait, 40, (480, 360), ((0.45, 0.3, 1.0), (0.42, 0.26, 1.5))), fps=25)


def save_png(path, img):
    path.write_bytes(cv2.imencode(".png", img)[1].tobytes())
    return path


def test_a_clip_of_our_own(clip, tmp_path):
    answer = run(clip, "--out", tmp_path, "--frames", 8)
    assert answer.exit_code == 0, answer.stderr
    assert "8 frames asked for, 8 decoded" in answer.stdout
    assert "not for commercial use" in answer.stdout
    table = pd.read_csv(tmp_path / "faces.csv")
    assert len(table) == 8 and table["prob"].min() > 0.9 and table["time"].is_monotonic_increasing
    for _, row in table.iterrows():
        assert cv2.imread(str(tmp_path / row["crop"])).shape == (224, 224, 3)
        points = np.array(json.loads(row["landmarks"]))
        assert points.shape == (68, 2)
        inside = (points > row[["x0", "y0"]].to_numpy(float) - 20) & (points < row[["x1", "y1"]].to_numpy(float) + 20)
        assert inside.all()


def test_real_clips_and_pictures(real, tmp_path):
    files = [f for f in sorted(real.rglob("*")) if f.suffix in (".mp4", ".jpg")]
    answer = run(*files, "--out", tmp_path, "--frames", 6, "--json")
    assert answer.exit_code == 0, answer.stderr
    reports = json.loads(answer.stdout)
    assert len(reports) == len(files)
    assert all(report["decoded"] == report["asked"] == report["written"] for report in reports)
    assert len(pd.read_csv(tmp_path / "faces.csv")) == sum(report["written"] for report in reports)


def text(folder, portrait):
    path = folder / "notes.mp4"
    path.write_text("I am no film.")
    return path


def empty(folder, portrait):
    path = folder / "empty.mp4"
    path.write_bytes(b"")
    return path


def cut_early(folder, portrait):
    path = folder / "cut.mp4"
    path.write_bytes(sample("astronaut.mp4").read_bytes()[:3000])
    return path


def faceless(folder, portrait):
    return write_clip(folder / "wall.mp4", np.full((12, 240, 320, 3), 128, np.uint8), fps=25)


BAD = [(text, "not a video"), (empty, "empty.mp4"), (cut_early, "cut.mp4"), (faceless, "no face")]


@pytest.mark.parametrize("make, says", BAD, ids=lambda v: getattr(v, "__name__", ""))
def test_a_bad_file_is_one_line_and_1_and_loses_nobody(make, says, portrait, tmp_path):
    good = save_png(tmp_path / "good.png", portrait[..., ::-1])
    answer = run(make(tmp_path, portrait), good, "--out", tmp_path / "out", "--frames", 4)
    assert answer.exit_code == 1
    one_line(answer, says)
    assert len(pd.read_csv(tmp_path / "out" / "faces.csv")) == 1


def sixteen_bit(folder, portrait):
    return save_png(folder / "deep.png", portrait[..., ::-1].astype(np.uint16) * 257), "16 to 8 bits"


def grey(folder, portrait):
    return save_png(folder / "grey.png", portrait[..., 1]), "grey to RGB"


def umlauts(folder, portrait):
    (folder / "Fräulein Müller's Bilder (2)").mkdir()
    return save_png(folder / "Fräulein Müller's Bilder (2)" / "schön & gut.png", portrait[..., ::-1]), "schön & gut.png"


def cut_late(folder, portrait):
    path = folder / "cut.mp4"
    data = sample("astronaut.mp4").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path, "cannot be decoded"


@pytest.mark.parametrize("make", [sixteen_bit, grey, umlauts, cut_late], ids=lambda v: v.__name__)
def test_odd_but_usable_input_is_used_and_told(make, portrait, tmp_path):
    path, says = make(tmp_path, portrait)
    answer = run(path, "--out", tmp_path / "out", "--frames", 6)
    assert answer.exit_code == 0, answer.stderr
    assert says in answer.stdout
    assert len(pd.read_csv(tmp_path / "out" / "faces.csv")) >= 1


def test_an_output_folder_that_is_a_file(clip, tmp_path):
    (tmp_path / "out").write_text("in the way")
    answer = run(clip, "--out", tmp_path / "out")
    assert answer.exit_code == 1
    one_line(answer, str(tmp_path / "out"))


def test_a_read_only_output_folder(clip, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "out"))

    monkeypatch.setattr(faces.Path, "mkdir", refuse)
    answer = run(clip, "--out", tmp_path / "out")
    assert answer.exit_code == 1
    one_line(answer, "Read-only file system", str(tmp_path / "out"))


@pytest.mark.parametrize("after", [2, 7, 12])
def test_a_full_disk_keeps_what_was_done(after, clip, portrait, tmp_path, monkeypatch):
    good = save_png(tmp_path / "good.png", portrait[..., ::-1])
    undisturbed = run(good, clip, "--out", tmp_path / "whole", "--frames", 8, "--no-cache")
    assert undisturbed.exit_code == 0
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        full = run(good, clip, "--out", tmp_path / "out", "--frames", 8)
    assert full.exit_code == 1
    one_line(full, "No space left on device")
    assert not list((tmp_path / "out").rglob("*.part"))
    second = run(good, clip, "--out", tmp_path / "out", "--frames", 8)
    assert second.exit_code == 0, second.stderr
    assert (tmp_path / "out" / "faces.csv").read_bytes() == (tmp_path / "whole" / "faces.csv").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a process, which Windows has not")
def test_ctrl_c_is_one_line_and_130_and_the_second_run_goes_on(portrait, tmp_path):
    long = write_clip(tmp_path / "long.mp4", pan(portrait, 200, (480, 360), ((0.45, 0.3, 1.0), (0.42, 0.26, 1.5))), fps=25)
    command = [sys.executable, "-m", "deepfake_course._cli", "faces", str(long), "--out", str(tmp_path / "out"), "--frames", "200"]
    cache = tmp_path / "cache"
    env = {**os.environ, "DEEPFAKE_COURSE_CACHE": str(cache)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    while child.poll() is None and not list(cache.rglob("part-*.json")):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130, said
    assert "Traceback" not in said and "the same command goes on" in said
    second = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert second.returncode == 0, second.stderr
    kept = int(re.search(r"\((\d+) from the cache\)", second.stdout).group(1))
    assert 30 <= kept < 200
    assert len(pd.read_csv(tmp_path / "out" / "faces.csv")) == 200
