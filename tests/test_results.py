"""Recorded results go stale when, and only when, something they rest on changes."""
import functools
import json

import pytest

from deepfake_course import _results, core


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A copy of the record in a folder of its own, so that no test writes to nbs/."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(_results.load()))
    monkeypatch.setattr(_results, "results_path", lambda: path)
    monkeypatch.setattr(_results, "lessons", lambda: ["core"])
    rows = [row for row in _results.load() if row["lesson"] == "core"]
    _results.save(rows)
    return path


def test_the_committed_record_is_fresh(book):
    assert _results.stale_rows() == []


@pytest.mark.parametrize("what", ["config", "code", "data"])
def test_a_changed_hash_is_stale(book, what):
    rows = _results.load()
    rows[0]["hashes"][what] = {"scores.csv": "0"} if what == "data" else "0" * 64
    _results.save(rows)
    (problem,) = _results.stale_rows()
    assert what in problem and "results run core" in problem


def test_a_missing_row_and_a_strange_lesson_are_told(book):
    rows = _results.load()
    _results.save([{**rows[0], "lesson": "alchemy"}])
    problems = " ".join(_results.stale_rows())
    assert "never recorded" in problems and "alchemy" in problems


def test_run_keeps_fresh_rows_and_redoes_stale_ones(book, monkeypatch):
    calls = []
    (key,) = [k for k in core.HEADLINES if k[0] == "core"]
    real = core.HEADLINES[key]

    @functools.wraps(real)
    def counted():
        calls.append(1)
        return real()

    monkeypatch.setitem(core.HEADLINES, key, counted)
    _results.run("core")
    assert not calls
    _results.run("core", force=True)
    assert len(calls) == 1
    rows = _results.load()
    rows[0]["hashes"]["code"] = "0"
    _results.save(rows)
    _results.run("core")
    assert len(calls) == 2 and _results.stale_rows() == []


def test_verify_notices_another_value(book):
    rows = _results.load()
    rows[0]["value"] += 0.01
    _results.save(rows)
    assert _results.verify(rows[0]["name"])[2] is False


@pytest.mark.parametrize(
    "text",
    ["[1]", "[{}]", "null", '"x"', "{}", "no JSON", "", "\udcff", "nan", "hashes"],
)
def test_a_damaged_record_is_told_with_a_remedy(book, text):
    rows = json.loads(book.read_text(encoding="utf-8"))
    if text == "nan":
        text = json.dumps([rows[0] | {"value": float("nan")}])
    elif text == "hashes":
        text = json.dumps([rows[0] | {"hashes": {"function": "f"}}])
    book.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"results\.json is damaged: .* `git checkout -- nbs/results\.json`"):
        _results.load()


def test_a_number_that_is_not_finite_is_not_saved(book):
    before, rows = book.read_bytes(), _results.load()
    with pytest.raises(ValueError, match="JSON compliant"):
        _results.save([rows[0] | {"value": float("nan")}])
    assert book.read_bytes() == before
