"""The console script: help with an example, exit codes, clean standard output, no traceback for a mistake."""
import json
import subprocess
import sys

import pytest

COMMANDS = (["doctor"], ["faces"], ["bench"], ["results"], ["results", "run"], ["curriculum"])


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
        (["faces"], ["PATH"]),
        (["faces", __file__], ["--out"]),
        (["results", "run"], ["LESSON"]),
        (["faces", "no such file.mp4", "--out", "x"], ["no such file.mp4"]),
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
        (["bench", "alchemy"], ["alchemy", "ground"]),
        (["bench", "ground", "--only", "alchemy"], ["alchemy", "bootstrap"]),
    ],
    ids=lambda v: " ".join(v)[:30],
)
def test_a_mistake_is_1_and_says_what_there_is(args, words):
    fails(call(*args), 1, *words)


def test_doctor_explains_the_machine():
    answer = call("doctor")
    assert answer.returncode == 0, answer.stderr
    for word in ("Python", "disk", "torch", "MTCNN weights", "non-commercial", "sample files"):
        assert word in answer.stdout


def test_doctor_finds_a_fault(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    import os

    answer = call("doctor", env={**os.environ, "DEEPFAKE_COURSE_CACHE": str(blocker)})
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr


def test_json_is_the_only_thing_on_standard_output():
    rows = json.loads(call("doctor", "--json").stdout)
    assert {"what", "state", "ok", "required", "remedy"} == set(rows[0])


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


def test_bench_catches_ways_that_do_not_agree():
    from deepfake_course import _bench

    row = _bench.Bench("wrong", "-", 1, lambda: [3], lambda n: n * 2, lambda n: n * 2 + 1, lambda n, a, b: (a == b, f"{a} and {b}"))
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
