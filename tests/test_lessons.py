"""The lessons keep the house style, README and lists are true, nothing recorded is stale.

The checks are in `lesson_checks.py` and read without running. Here they meet every lesson, then one
good lesson that passes them all, then bad ones, which only the check made for them may notice.
"""

import csv
import hashlib
import json
from functools import cache

import lesson_checks
import pytest
from fixtures import lessons, tiny
from lesson_checks import CHECKS, PACKAGE, from_dict, lesson_files

ROOT = tiny.ROOT
LESSONS = lesson_files(ROOT / "nbs")
read = cache(lesson_checks.read)


@pytest.mark.parametrize("check", CHECKS, ids=[c.__name__ for c in CHECKS])
@pytest.mark.parametrize("path", LESSONS, ids=[p.name for p in LESSONS])
def test_lesson(path, check):
    found = check(read(path))
    assert not found, "\n".join(found)


def test_there_are_lessons():
    assert len(LESSONS) >= 6, "the ground has six lessons"


def test_every_module_has_its_notebook():
    found = lesson_checks.course_modules(ROOT)
    assert not found, "\n".join(found)


def test_samples_are_listed():
    found = lesson_checks.course_samples(ROOT)
    assert not found, "\n".join(found)


def test_readme_lists_the_lessons():
    found = lesson_checks.course_readme(ROOT)
    assert not found, "\n".join(found)


def test_recorded_results_are_fresh():
    from deepfake_course._results import stale_rows

    assert stale_rows() == []


# The checks fail when they should


@pytest.fixture
def place(tmp_path):
    lessons.neighbours(tmp_path)
    return tmp_path


def noticed(nb, path):
    "Names of the checks that find something, and what they say."
    lesson = from_dict(nb, path)
    found = {check.__name__: check(lesson) for check in CHECKS}
    return {name: texts for name, texts in found.items() if texts}


def test_a_good_lesson_passes(place):
    assert noticed(lessons.good(), place / lessons.NAME) == {}


@pytest.mark.parametrize(
    "bend,check", [case[1:] for case in lessons.BAD], ids=[case[0] for case in lessons.BAD]
)
def test_a_bad_lesson_is_noticed(bend, check, place):
    nb = lessons.good()
    bend(nb)
    found = noticed(nb, place / lessons.NAME)
    expected = {check} if isinstance(check, str) else set(check)
    assert set(found) == expected, found
    assert all(text.startswith(lessons.NAME) for texts in found.values() for text in texts), found


@pytest.mark.parametrize(
    "name", ["5_discs.ipynb", "05-discs.ipynb", "05_Discs.ipynb", "03a_discs.ipynb", "index.ipynb"]
)
def test_a_bad_file_name_is_noticed(name, place):
    assert "file_name" in noticed(lessons.good(), place / name)


def test_every_check_has_a_bad_lesson():
    tried = {
        name
        for case in lessons.BAD
        for name in ([case[2]] if isinstance(case[2], str) else case[2])
    }
    assert tried | {"file_name"} == {check.__name__ for check in CHECKS}


def test_a_problem_names_notebook_and_cell(place):
    nb = lessons.good()
    lessons.swap("    return a-b", "    return a-")(nb)
    (text,) = noticed(nb, place / lessons.NAME)["parse"]
    assert (
        text.startswith("05_discs.ipynb cell cell0015: exported cell does not parse")
        and "line 3" in text
    )


# So do those for the whole course


def table(root, rows):
    with open(root / "data_samples" / "samples.csv", "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["name", "sha256", "licence", "origin", "shows"])
        writer.writerows(rows)


@pytest.fixture
def sampled(tiny_course):
    "The tiny course with one listed sample."
    root = tiny_course()
    file = root / "data_samples" / "a.csv"
    file.write_text("1,2\n", encoding="utf-8")
    row = [
        "a.csv",
        hashlib.sha256(file.read_bytes()).hexdigest(),
        "CC0-1.0",
        "made up",
        "two numbers",
    ]
    table(root, [row])
    return root, row


def test_good_samples_pass(sampled):
    assert lesson_checks.course_samples(sampled[0]) == []


@pytest.mark.parametrize(
    "column,word", [(1, "sha256"), (2, "licence"), (3, "origin"), (4, "shows")]
)
def test_a_sample_without_its_facts(sampled, column, word):
    root, row = sampled
    table(root, [row[:column] + [""] + row[column + 1 :]])
    assert any(word in text and "a.csv" in text for text in lesson_checks.course_samples(root))


def test_a_changed_sample(sampled):
    root, _ = sampled
    (root / "data_samples" / "a.csv").write_text("1,3\n", encoding="utf-8")
    (text,) = lesson_checks.course_samples(root)
    assert "a.csv" in text and "SHA-256 differs" in text


def test_a_missing_an_unlisted_and_a_repeated_sample(sampled):
    root, row = sampled
    (root / "data_samples" / "weights").mkdir()
    (root / "data_samples" / "weights" / "w.safetensors").write_bytes(b"1")
    (root / "data_samples" / "a.csv").unlink()
    table(root, [row, row])
    found = "\n".join(lesson_checks.course_samples(root))
    assert "a.csv twice" in found and "a.csv is listed in samples.csv but missing" in found
    assert "weights/w.safetensors is not listed" in found


def test_large_samples(sampled, monkeypatch):
    monkeypatch.setattr(lesson_checks, "MAX_SAMPLES", 3)
    assert "at most" in lesson_checks.course_samples(sampled[0])[0]


def test_large_weights(sampled, monkeypatch):
    root, _ = sampled
    (root / "data_samples" / "weights").mkdir()
    (root / "data_samples" / "weights" / "w.safetensors").write_bytes(b"1234")
    monkeypatch.setattr(lesson_checks, "MAX_WEIGHTS", 3)
    assert any("weights has" in text for text in lesson_checks.course_samples(root))


README = """# Tiny

| lesson | question | minutes |
|---|---|---|
| [00](nbs/00_first.ipynb) | How large is a disc? | 5 |
| [01](nbs/01_second.ipynb) | And two of them? | 5 |
"""


def test_a_good_readme_passes(tiny_course):
    root = tiny_course()
    (root / "README.md").write_text(README, encoding="utf-8")
    assert lesson_checks.course_readme(root) == []


@pytest.mark.parametrize(
    "old,new,word",
    [
        (
            "| [01](nbs/01_second.ipynb) | And two of them? | 5 |\n",
            "",
            "no row for nbs/01_second.ipynb",
        ),
        ("nbs/01_second", "nbs/01_pair", "does not exist"),
        ("[01]", "[02]", "calls nbs/01_second.ipynb lesson 02"),
        ("And two of them?", "Two discs", "no question"),
        ("And two of them? | 5", "And two of them? | some", "no minutes"),
        ("# Tiny", "# Tiny" + "\n" * 140, "at most 140"),
    ],
)
def test_a_bad_readme_is_noticed(old, new, word, tiny_course):
    root = tiny_course()
    (root / "README.md").write_text(README.replace(old, new), encoding="utf-8")
    assert any(word in text for text in lesson_checks.course_readme(root))


def test_orphans_and_unexported_lessons(tiny_course):
    root = tiny_course()
    assert lesson_checks.course_modules(root) == []
    (root / PACKAGE / "second.py").rename(root / PACKAGE / "pair.py")
    found = lesson_checks.course_modules(root)
    assert ["pair.py" in found[0], "01_second.ipynb" in found[1], len(found)] == [True, True, 2]


def test_scratch_is_not_a_lesson(tiny_course):
    root = tiny_course()
    (root / "nbs" / "_try.ipynb").write_text(json.dumps(lessons.good()), encoding="utf-8")
    assert [p.name for p in lesson_files(root / "nbs")] == ["00_first.ipynb", "01_second.ipynb"]


def test_the_command_prints_and_exits(place, capsys):
    path = place / lessons.NAME
    tiny.write(path, lessons.good())
    assert lesson_checks.main([path]) == 0 and "no problem" in capsys.readouterr().out
    nb = lessons.good()
    lessons.drop("## References")(nb)
    tiny.write(path, nb)
    assert (
        lesson_checks.main([path]) == 1
        and "05_discs.ipynb: the section '## References'" in capsys.readouterr().out
    )
