"""The curriculum: 259 rows, each owed by somebody, and every name in it leads to something."""

import json

import pytest

from deepfake_course import _curriculum

HEAD = "number,capability,seeds,owed,lesson,name\n"


@pytest.fixture(scope="module")
def rows():
    return _curriculum.load()


def test_columns_and_rows(root, rows):
    text = (root / "nbs" / "curriculum.csv").read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert [row["number"] for row in rows] == list(range(1, 260))
    assert all(row["capability"] and row["owed"] in "MSN" for row in rows)


def test_seed_marks(rows):
    for row in rows:
        for mark in row["seeds"].split():
            seed, _, how = mark.partition(":")
            assert seed in ("S0", "S1", "S2", "S3", "S4") and how in ("Y", "p", "c", "t"), row


def test_owed_counts(rows):
    "The counts of the table this one was made from."
    counts = {label: n["rows"] for label, n in _curriculum.coverage(rows).items()}
    assert counts == {"must": 203, "should": 38, "optional": 18, "all": 259}


def test_every_name_resolves(root, rows):
    found = [text for text in (_curriculum.problem(row, root) for row in rows) if text]
    assert not found, "\n".join(found)


def test_report_counts_what_it_lists(root):
    report = _curriculum.report(json=True)
    assert json.loads(json.dumps(report)) == report and report["problems"] == []
    assert sum(row["delivered"] for row in report["rows"]) == report["coverage"]["all"]["delivered"]
    text = _curriculum.report()
    assert f"{report['coverage']['all']['delivered']:3d} of 259" in text and text.endswith(
        "every name resolves"
    )


# A tiny clone whose table is bent


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "tests").mkdir()
    cells = [{"cell_type": "markdown", "source": ["# Core\n", "\n", "## Where it breaks"]}]
    (tmp_path / "nbs" / "00_core.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    (tmp_path / "tests" / "test_z.py").write_text("def test_it(:", encoding="utf-8")
    code = "def test_it(): pass\ndef helper(): pass\nclass TestIt:\n    def test_this(self): pass\n"
    (tmp_path / "tests" / "test_x.py").write_text(code, encoding="utf-8")

    def write(*lines):
        text = HEAD + "".join(f"{line}\n" for line in lines)
        (tmp_path / "nbs" / "curriculum.csv").write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    "lesson,name",
    [
        ("", ""),
        ("00_core", "core:config_seed"),
        ("00_core", "core:Result.__init__"),
        ("00_core", "00_core.ipynb#Where it breaks"),
        ("", "_curriculum:report"),
        ("", "tests/test_x.py::test_it"),
        ("00_core", "tests/test_x.py::TestIt::test_this"),
    ],
)
def test_good_rows(lesson, name, clone):
    root = clone(f'1,"seeds, by config",S4:Y,M,{lesson},{name}')
    report = _curriculum.report(json=True, root=root)
    assert report["problems"] == []
    assert report["coverage"]["must"] == {"rows": 1, "delivered": int(bool(name))}


@pytest.mark.parametrize(
    "lesson,name,word",
    [
        ("00_core", "core:no_such_thing", "exports no no_such_thing"),
        ("00_core", "core:np", "exports no np"),
        ("00_core", "core:Result.nothing", "has no Result.nothing"),
        ("", "nowhere:thing", "cannot be imported"),
        ("", "tests/test_z.py::test_it", "does not parse"),
        ("00_core", "00_core.ipynb#Nowhere", "no heading 'Nowhere'"),
        ("00_core", "07_none.ipynb#Where it breaks", "does not exist"),
        ("", "tests/test_x.py::test_that", "has no test"),
        ("", "tests/test_x.py::helper", "not collected"),
        ("", "tests/test_y.py::test_it", "no file of tests/"),
        ("", "config_seed", "is no module:object"),
        ("00_core", "", "nothing that delivers it"),
        ("07_none", "core:config_seed", "no lesson nbs/07_none.ipynb"),
        ("", "core:config_seed", "is not of lesson"),
    ],
)
def test_bad_rows(lesson, name, word, clone):
    root = clone(f"1,seeds by config,S4:Y,M,{lesson},{name}")
    report = _curriculum.report(json=True, root=root)
    assert (
        len(report["problems"]) == 1
        and word in report["problems"][0]
        and "row 1" in report["problems"][0]
    )
    assert report["coverage"]["must"]["delivered"] == 0
    assert f"problem: {report['problems'][0]}" in _curriculum.report(root=root)


@pytest.mark.parametrize(
    "lines,word",
    [
        (["1,faces, boxes,S0:Y,M,,"], "quote commas"),
        (["1,faces,S0:Y,M"], "quote commas"),
        (["1,faces,S0:Y,X,,"], "owed"),
        (['1,"faces" and,S0:Y,M,,'], "curriculum.csv line"),
        (["one,faces,S0:Y,M,,"], "number"),
        (["1,faces,S0:Y,M,,", "3,boxes,S0:Y,M,,"], "without gap"),
        (["1,faces,S0:Y,M,,", "1,boxes,S0:Y,M,,"], "without gap"),
    ],
)
def test_damaged_tables(lines, word, clone):
    with pytest.raises(ValueError, match=word):
        _curriculum.load(clone(*lines))


def test_other_columns(tmp_path):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "curriculum.csv").write_text("number,name\n1,x\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must have the columns"):
        _curriculum.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"cells": [1]}', "no JSON", "\udcff"])
def test_a_damaged_notebook_is_a_problem_of_its_row(text, clone):
    root = clone("1,seeds,S4:Y,M,00_core,00_core.ipynb#Where it breaks", "2,by config,S4:Y,M,,")
    (root / "nbs" / "00_core.ipynb").write_bytes(text.encode("utf-8", "surrogateescape"))
    (found,) = _curriculum.report(json=True, root=root)["problems"]
    assert "row 1: nbs/00_core.ipynb is no readable notebook: " in found
    assert "  0 of   2 delivered" in _curriculum.report(root=root)


def test_a_test_file_that_is_no_text_is_a_problem_of_its_row(clone):
    root = clone("1,seeds,S4:Y,M,,tests/test_z.py::test_it")
    (root / "tests" / "test_z.py").write_bytes(b"\xff\x00")
    assert "does not parse" in _curriculum.report(json=True, root=root)["problems"][0]


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b'"number', b"\x00", HEAD.encode() + "²,faces,S0:Y,M,,".encode()])
def test_a_damaged_table_is_named(text, clone):
    root = clone()
    (root / "nbs" / "curriculum.csv").write_bytes(text)
    with pytest.raises(ValueError, match="curriculum.csv"):
        _curriculum.load(root)
