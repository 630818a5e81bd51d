"""The console script: help with an example, exit codes, clean standard output, no traceback for a mistake."""
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from deepfake_course import _cli, _doctor

COMMANDS = (
    ["doctor"], ["faces"], ["bench"], ["results"], ["results", "run"], ["curriculum"], ["samples"],
    ["samples", "build"], ["samples", "check"], ["samples", "list"], ["samples", "train-swap"],
    ["pretrain"], ["grid"], ["fit"],
)  # fmt: skip


def call(*args, **kwargs):
    command = [sys.executable, "-m", "deepfake_course._cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)


def fails(answer, code, *words):
    """One clear line on standard error, the right code, nothing on standard output."""
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    for word in words:
        assert word in answer.stderr
    if code == 1:
        assert answer.stderr.strip().splitlines()[-1].startswith("deepfake-course: ")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    answer = call(*command, "--help")
    assert answer.returncode == 0 and answer.stderr == ""
    assert f"Example: deepfake-course {command[0]}" in answer.stdout


@pytest.mark.parametrize(
    "args, words",
    [
        (["bogus"], ["bogus"]),
        (["doctor", "--bogus"], ["--bogus"]),
        (["doctor", __file__], ["DATA_DIR", "is a file"]),
        (["doctor", "no such folder"], ["DATA_DIR", "does not exist"]),
        (["faces"], ["PATH"]),
        (["faces", __file__], ["--out"]),
        (["results", "run"], ["LESSON"]),
        (["faces", "no such file.mp4", "--out", "x"], ["no such file.mp4"]),
        (["faces", __file__, "--out", ""], ["--out", "no name"]),
        (["faces", __file__, "--out", "x", "--sampling", "every"], ["--sampling", "--step"]),
        (["results", "--json", "run", "core"], ["--json after run"]),
        (["results", "--verify", "x", "run", "core"], ["--verify"]),
        (["samples", "build", "E"], ["E", "A", "D"]),
        (["samples", "build", "A", "--size", "huge"], ["huge", "small"]),
        (["samples", "build", "--jobs", "0"], ["--jobs"]),
        (["samples", "check", "--plant", "colour"], ["colour", "background"]),
        (["samples", "train-swap", "A"], ["--out"]),
        (["samples", "train-swap", "E", "--out", "e.safetensors"], ["no swap", "A, B"]),
        (["samples", "train-swap", "A", "--out", "a.pt"], ["--out", ".safetensors"]),
        (["pretrain"], ["--out"]),
        (["pretrain", "--out", "a.pt"], ["--out", ".safetensors"]),
        (["pretrain", "--out", "a.safetensors", "--people", "1"], ["--people"]),
        (["grid"], ["NAME", "--data"]),
        (["grid", "A", "--data", "."], ["one of the two"]),
        (["grid", "E"], ["E", "A", "D"]),
        (["grid", "--data", "nowhere"], ["--data", "does not exist"]),
        (["grid", "A", "--kind", "colour"], ["colour", "spectrum"]),
        (["grid", "A", "--pca", "none,2"], ["--pca", "none,0.95"]),
        (["grid", "A", "--folds", "1"], ["--folds"]),
        (["fit"], ["NAME", "--data DIR"]),
        (["fit", "A", "--data", "."], ["NAME", "one of the two"]),
        (["fit", "E"], ["E", "A"]),
        (["fit", "A", "--schedule", "slow"], ["--schedule", "one_cycle"]),
        (["fit", "A", "--epochs", "0"], ["--epochs"]),
        (["fit", "A", "--out", "a.pt"], ["--out", ".safetensors"]),
        (["fit", "A", "--data", "no such folder"], ["--data", "does not exist"]),
    ],
    ids=lambda v: " ".join(v)[:30],
)
def test_wrong_usage_is_2(args, words, tmp_path):
    fails(call(*args, cwd=tmp_path), 2, *words)


@pytest.mark.parametrize(
    "args, words",
    [
        (["results", "run", "alchemy"], ["alchemy", "metrics"]),
        (["results", "--verify", "alchemy"], ["alchemy"]),
        (["results", "--verify", ""], ["no recorded result"]),
        (["bench", "alchemy"], ["alchemy", "ground"]),
        (["bench", "ground", "--only", "alchemy"], ["alchemy", "bootstrap"]),
        (["samples", "check", "--only", "alchemy"], ["alchemy", "landmarks"]),
        (["fit", "A", "--precision", "half"], ["precision is 32-true"]),
        (["fit", "A", "--accumulate", "3"], ["16 rows cannot be cut into 3"]),
        (["fit", "A", "--rate", "-1"], ["rate is above 0"]),
        (["fit", "A", "--device", "quantum"], ["'quantum' is not on this machine"]),
        (["samples", "check", "--plant", "size", "--only", "speed"], ["shortcuts alone"]),
        (["grid", "--data", "."], ["no database that the course knows", "celeb-df"]),
    ],
    ids=lambda v: " ".join(v)[:30],
)
def test_a_mistake_is_1_and_says_what_there_is(args, words):
    fails(call(*args), 1, *words)


def data_dir(folder, kind="uadfv", pairs=7, **fake):
    """A miniature database with real clips in it; `fake` says what is odd about its fakes."""
    from deepfake_course.databases import write_miniature
    from deepfake_course.video import write_clip

    def clip(path):
        imgs = np.random.default_rng([*path.stem.encode()]).integers(0, 255, (4, 48, 64, 3)).astype(np.uint8)
        write_clip(path, imgs, **(fake if "fake" in path.stem else {}))

    return write_miniature(kind, folder, pairs, clip)


def rows_of(answer):
    return {row["what"]: row for row in json.loads(answer.stdout)}


def test_doctor_of_a_database_says_what_it_is_and_what_leaks(tmp_path):
    root = data_dir(tmp_path / "mine", fps=30)
    answer = call("doctor", root, "--json")
    assert answer.returncode == 0, answer.stderr
    rows = rows_of(answer)
    assert rows["layout"]["state"] == "uadfv" and rows["clips"]["state"] == "14: 7 real, 7 fake"
    assert rows["labels"]["state"] == "'fake' is fake (7), 'real' is real (7)"
    assert rows["UADFV real"]["state"] == "7 of 49" and "42 are missing" in rows["UADFV real"]["remedy"]
    assert "real 25, fake 30" in rows["shortcut: fps"]["state"] and not rows["shortcut: fps"]["ok"]
    assert "AUC 1.00" in rows["shortcut: fps"]["state"] and rows["readable"]["ok"]
    text = call("doctor", root)
    assert text.returncode == 0 and "note  shortcut: fps" in text.stdout


def test_doctor_of_a_clean_database_and_of_several(tmp_path):
    data_dir(tmp_path / "one")
    data_dir(tmp_path / "two", "plain", 2)
    answer = call("doctor", tmp_path, "--json")
    rows = rows_of(answer)
    assert answer.returncode == 0
    assert "no sign in" in rows["one: shortcuts"]["state"] and "too few" in rows["two: shortcuts"]["state"]
    assert rows["two: layout"]["state"] == "plain" and "no official counts" in rows["two: whole"]["state"]


def test_doctor_finds_what_is_broken_in_a_database(tmp_path):
    root = data_dir(tmp_path / "mine")
    (root / "fake" / "0003_fake.mp4").write_bytes(b"half")
    shutil.rmtree(root / "real")
    answer = call("doctor", root, "--json")
    rows = rows_of(answer)
    assert answer.returncode == 1 and "2 to mend: copy, readable" in answer.stderr
    assert "expected files such as real/0000.mp4" in rows["copy"]["state"]
    assert rows["readable"]["state"] == "6 of the 7 clips that were opened"
    assert "0003_fake.mp4" in rows["readable"]["remedy"] and "cannot be told" in rows["shortcuts"]["state"]


def test_doctor_of_swapped_labels_stops_there(tmp_path):
    root = data_dir(tmp_path / "mine")
    for old, new in (("real", "x"), ("fake", "real"), ("x", "fake")):
        (root / old).rename(root / new)
    rows = rows_of(answer := call("doctor", root, "--json"))
    assert answer.returncode == 1 and set(rows) == {"layout", "copy"}
    assert "labels are swapped" in rows["copy"]["state"]


def test_doctor_of_a_folder_that_nobody_knows(tmp_path):
    fails(call("doctor", tmp_path), 1, "no database that the course knows", "Looked for", "Celeb-real/")


def test_doctor_explains_the_machine():
    answer = call("doctor")
    assert answer.returncode == 0, answer.stderr
    for word in ("Python", "disk", "torch", "MTCNN weights", "non-commercial", "sample files"):
        assert word in answer.stdout


@pytest.mark.parametrize("where", ["file", "file/below", "~nouser/x", "/proc/none"])
def test_doctor_finds_a_fault_and_still_prints_its_table(where, tmp_path):
    if where == "/proc/none" and not Path("/proc/version").is_file():
        pytest.skip("needs a folder that nobody can write to")
    (tmp_path / "file").write_text("not a folder")
    place = str(tmp_path / where) if where.startswith("file") else where
    answer = call("doctor", env={**os.environ, "DEEPFAKE_COURSE_CACHE": place})
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr and "cache" in answer.stderr
    for word in ("Python", "FAIL  cache", "set DEEPFAKE_COURSE_CACHE", "sample files", "MTCNN weights", "GPU"):
        assert word in answer.stdout
    if where.startswith("file"):
        assert "GB free" in answer.stdout


@pytest.mark.parametrize(
    "text",
    [None, b"", b"\xff\xfe\xff", b"name,licence\na.csv,x\n", b"sha256\n1\n", b"name,sha256\n", b"name,sha256\n,1\n"],
)
def test_doctor_survives_a_damaged_list_of_samples(text, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "samples.csv").write_bytes(text)
    monkeypatch.setattr(_doctor, "sample_dir", lambda: tmp_path)
    answer = CliRunner().invoke(_cli.app, ["doctor", "--json"])
    assert answer.exit_code == 1 and "sample files" in answer.stderr
    rows = {row["what"]: row for row in json.loads(answer.stdout)}
    assert not rows["sample files"]["ok"] and "git checkout data_samples" in rows["sample files"]["remedy"]
    assert rows["cache"]["ok"] and "Chromium" in rows


def test_json_is_the_only_thing_on_standard_output():
    rows = json.loads(call("doctor", "--json").stdout)
    assert {"what", "state", "ok", "required", "remedy"} == set(rows[0])


def test_samples_that_are_not_built_are_not_checked_but_listed(tmp_path):
    env = {**os.environ, "DEEPFAKE_COURSE_CACHE": str(tmp_path)}
    fails(call("samples", "check", "A", "--size", "small", env=env), 1, "samples build A --size small")
    answer = call("samples", "list", "--json", env=env)
    rows = json.loads(answer.stdout)
    assert answer.returncode == 0 and len(rows) == 12
    assert set(rows[0]) == set("name size built clips megabytes where".split())
    assert not any(row["built"] or row["clips"] for row in rows if row["size"] != "excerpt")
    assert "small" in call("samples", "list", env=env).stdout


def test_results_json_has_the_agreed_keys():
    answer = call("results", "--json")
    keys = "lesson name value low high n baseline data weights seed_report config".split()
    rows = json.loads(answer.stdout)
    assert rows and all(set(row) == set(keys) for row in rows)
    assert {"core", "metrics", "video", "faces"} <= {row["lesson"] for row in rows}


def test_bench_json_has_the_agreed_keys():
    answer = call("bench", "ground", "--only", "bootstrap", "--json")
    assert answer.returncode == 0, answer.stderr
    (row,) = json.loads(answer.stdout)
    assert set(row) == set("name ratio low high target equal against note".split())
    assert row["name"] == "bootstrap" and row["target"] == 50 and row["equal"] is True


def test_bench_names_are_the_agreed_ones():
    from deepfake_course import _bench

    assert [(row.name, row.target) for row in _bench.rows_of("ground")] == [
        ("frames", 8), ("faces", 15), ("faces-equal-scale", 4), ("landmarks", 50), ("bootstrap", 50),
    ]


def test_bench_takes_bfloat16_only_where_the_processor_has_it(monkeypatch):
    import torch
    from deepfake_course import _bench

    for found, has in (({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True, "avx512_bf16": False}, True), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert _bench.has_bfloat16() is has


def test_bench_catches_ways_that_do_not_agree():
    from deepfake_course import _bench

    ways = (lambda n: n * 2, lambda n: n * 2 + 1, lambda n, a, b: (a == b, f"{a} and {b}"))
    row = _bench.Bench("wrong", "-", 1, lambda: [3], *ways)
    assert _bench.measure(row)["equal"] is False


def test_settings_of_an_earlier_run_repeat_it(tmp_path):
    from deepfake_course.core import sample

    clip = sample("astronaut.mp4")
    first = call("faces", clip, "--out", tmp_path / "a", "--frames", 4, "--size", 64, "--align", "--format", "jpg")
    assert first.returncode == 0, first.stderr
    record = tmp_path / "a" / "crops" / "astronaut" / "report.json"
    again = call("faces", clip, "--out", tmp_path / "b", "--settings", record)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a" / "faces.csv").read_bytes() == (tmp_path / "b" / "faces.csv").read_bytes()
    other = call("faces", clip, "--out", tmp_path / "c", "--settings", record, "--frames", 2)
    assert (tmp_path / "c" / "faces.csv").read_text().count("\n") == 3, other.stderr
    record.write_text('{"colour": "red"}')
    fails(call("faces", clip, "--out", tmp_path / "d", "--settings", record), 1, "and no others")


def test_verify_recomputes():
    answer = call("results", "--verify", "always_fake_accuracy", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)[0]["same"] is True


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_no_input(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    fails(call("faces", tmp_path / "pipe.mp4", "--out", tmp_path / "out"), 2, "neither a file nor a folder")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_letters_that_the_console_has_not_do_not_cost_the_report(encoding):
    code = (
        "from deepfake_course import _cli, _doctor\n"
        "_doctor.check = lambda: [_doctor._row('\u4eba\u9854 \u00fc \U0001f600', 'lost', False, True, 'none')]\n"
        "_cli.main()"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    ask = [sys.executable, "-c", code, "doctor"]
    answer = subprocess.run(ask, capture_output=True, encoding=encoding, env=env, timeout=300)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert "FAIL  \\u4eba\\u9854" in answer.stdout and "1 to mend: \\u4eba" in answer.stderr
    answer = subprocess.run([*ask, "--json"], capture_output=True, encoding=encoding, env=env, timeout=300)
    assert json.loads(answer.stdout)[0]["what"] == "\u4eba\u9854 \u00fc \U0001f600"


def stop_inside(kind):
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise kind("a library that was not imported to its end") from error


@pytest.mark.parametrize("kind", [ImportError, SystemError])
def test_ctrl_c_inside_an_import_is_130(kind, monkeypatch):
    monkeypatch.setattr(_doctor, "check", lambda: stop_inside(kind))
    answer = CliRunner().invoke(_cli.app, ["doctor"])
    assert answer.exit_code == 130 and answer.stderr == f"deepfake-course: {_cli.STOPPED}\n"


def test_an_import_that_fails_is_no_ctrl_c(monkeypatch):
    monkeypatch.setattr(_doctor, "check", lambda: importlib.import_module("deepfake_course.alchemy"))
    assert isinstance(CliRunner().invoke(_cli.app, ["doctor"]).exception, ImportError)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def stopped(command, before=None):
    """An app of one command; `before` runs ahead of it."""
    made = typer.Typer()
    made.callback(invoke_without_command=True)(before or (lambda: None))
    made.command("other")(command)
    return made


@pytest.mark.parametrize(
    "app",
    [interrupt, stopped(lambda: None, lambda: interrupt()), stopped(_cli.friendly(lambda: interrupt()))],
    ids=["outside", "before", "inside"],
)
def test_ctrl_c_is_130_and_one_line_wherever_it_comes(app, monkeypatch, capsys):
    monkeypatch.setattr(_cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["deepfake-course", "other"])
    with pytest.raises(SystemExit) as stop:
        _cli.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == f"deepfake-course: {_cli.STOPPED}\n"
