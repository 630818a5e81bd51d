"""What `04_responsibility` does not say about itself: damaged cards, odd registers, coverage."""
from contextlib import chdir
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import binom, binomtest

from deepfake_course import responsibility as r
from deepfake_course.core import Result, hash_file, sample, sample_dir
from deepfake_course.video import psnr, read_frames

SHA = "0123456789abcdef"*4
ROW = Result("lesson", "AUC", .912345678, 40, "A (sample)", .85, .96, .5, "course")
TEXTS = {"licence": "CC0-1.0", "origin": "Made here.\nTwice.", "command": "make it --seed 3",
         "intended_use": "Learning.", "out_of_scope": "Accusing.", "limits": "Small."}


def data_card(**changes):
    return r.card("data", **({"name": "set", "files": [("a.csv", 3, SHA)], "people": "Nobody.",
                              "consent": "Nobody."} | TEXTS | changes))


def model_card(**changes):
    return r.card("model", **({"name": "net", "files": [("w/a.safetensors", 3, SHA)],
                               "training_data": "set", "groups": "Not known: no labels.",
                               "results": [ROW]} | TEXTS | changes))


# Cards: what is saved is what is read


@pytest.mark.parametrize("make", [data_card, model_card])
def test_a_card_comes_back(make, tmp_path):
    rows = [ROW, Result("lesson", "loss", 1e-7, 3, "B", 9e-8, 2e-5), replace(ROW, value=-3, low=-4)]
    card = make(results=rows, files=[("b c.bin", 0, SHA), ("a.csv", 3, SHA)],
                limits="# not a title\n> a quote\n\n| a | table |\n- *list*\n## \n".strip() + " x",
                command="# comment\nrun --a 1 \\\n    --b 2", name="Größe: 1 # > |")
    card = replace(card, limits=card.limits.replace("## x", "### x"))
    back = r.read_card(r.save_card(card, tmp_path / "card.md"))
    assert back == card and type(back) is type(card)
    assert back.results[0].value == .9123 and back.files[0][0] == "a.csv"


def test_random_cards_come_back(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [*"ab |#>-`\\*_\n\t:é", "\r\n", "\x0b", "\u2028", "## ", "```", "> data card", "# x",
              " to ", " | "]
    kept = 0
    for _ in range(400):
        texts = {name: "a" + "".join(rng.choice(pieces, rng.integers(0, 9))) for name in TEXTS}
        card = data_card(**texts)
        try:
            text = r.card_text(card)
        except ValueError as error:
            assert "starts with" in str(error)
            continue
        path = tmp_path / "card.md"
        assert r.read_card(r.save_card(card, path)) == card
        assert path.read_text(encoding="utf-8") == text
        kept += 1
    assert 200 < kept < 400


@pytest.mark.parametrize("make", [data_card, model_card])
def test_every_question_must_be_answered(make):
    for field in fields(make()):
        if field.name == "results" and make is data_card:
            continue
        empty = ["", " \n", "TODO: ask", "n/a", "..."]
        for value in [()] if field.name in ("files", "results") else empty:
            with pytest.raises(ValueError, match=f"{field.name} is empty"):
                r.card_text(make(**{field.name: value}))


@pytest.mark.parametrize("changes, message", [
    ({"files": [("../a", 3, SHA)]}, "inside the card's folder"),
    ({"files": [("/a", 3, SHA)]}, "inside the card's folder"),
    ({"files": [("C:a", 3, SHA)]}, "inside the card's folder"),
    ({"files": [("a\\b", 3, SHA)]}, "forward slashes"),
    ({"files": [("a", 3, SHA[:-1])]}, "use file_fact"),
    ({"files": [("a", -1, SHA)]}, "use file_fact"),
    ({"files": [("a|b", 3, SHA)]}, "cannot stand in a table"),
    ({"files": [("a", 3, SHA), ("a", 4, SHA)]}, "lists a twice"),
    ({"files": ("a", 3, SHA)}, "files is a list"),
    ({"results": ["AUC .9"]}, "results is a list"),
    ({"results": [replace(ROW, name="a\nb")]}, "cannot stand in a table"),
    ({"results": [replace(ROW, low=None, high=None)]}, "has no interval"),
    ({"results": [replace(ROW, baseline=float("nan"))]}, "baseline of nan"),
    ({"limits": "a\n## b"}, "limits holds a line"),
    ({"command": "a\n```"}, "command holds a line"),
    ({"name": "a\nb"}, "name holds a line"),
])
def test_what_a_page_cannot_hold_is_refused(changes, message, tmp_path):
    path = r.save_card(model_card(), tmp_path / "card.md")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        r.save_card(model_card(**changes), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_data_card_needs_no_results_and_no_interval():
    assert "Results" not in r.card_text(data_card())
    assert "| - |" in r.card_text(data_card(results=[replace(ROW, low=None, high=None)]))


# Cards: damage


def test_a_damaged_page_never_loses_anything_silently(tmp_path):
    text, path, refused = r.card_text(model_card()), tmp_path / "card.md", 0
    lines = text.splitlines(keepends=True)
    broken = [text[:n] for n in range(0, len(text), 7)]
    broken += ["".join(lines[:n] + lines[n + 1:]) for n in range(len(lines))]
    broken += ["".join(lines[:n] + [lines[n]]*2 + lines[n + 1:]) for n in range(len(lines))]
    broken += ["".join(lines[:n] + ["stray words\n"] + lines[n:]) for n in range(len(lines))]
    for bad in broken:
        path.write_text(bad, encoding="utf-8", newline="\n")
        try:
            assert r.card_text(r.read_card(path)) == bad
        except ValueError:
            refused += 1
    assert refused > .8*len(broken)


@pytest.mark.parametrize("content, message", [
    (b"", "is no card"), (b"\xff\xfe\x00", "not UTF-8"),
    (b"# a\n\n> person card\n\n", "is no card"),
    (b"# a\n\n> data card\n\n## Name\n\nb\n", "not complete"),
    (b"# a\n\n> data card\n\n## Kind\n\nmodel\n", "not complete"),
    (b"# a\n\n> data card\n\n## Opinion\n\nnice\n", "does not ask for opinion"),
    (b"# a\n\n> data card\n\n## Files\n\n|x|\n|-|\n| a | many | 0 |\n", "a row of its files"),
    (b"# a\n\n> model card\n\n## Results\n\n|x|\n|-|\n| a |\n", "a row of its results"),
])
def test_a_page_that_is_no_card(content, message, tmp_path):
    (tmp_path / "card.md").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        r.read_card(tmp_path / "card.md")


def test_an_interval_that_does_not_hold_its_ends_is_refused(tmp_path):
    path = r.save_card(model_card(), tmp_path / "card.md")
    path.write_text(path.read_text().replace("0.85 to 0.96", "0.96 to 0.85"))
    with pytest.raises(ValueError, match="low <= high"):
        r.read_card(path)


def test_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "card.md"
    path.write_bytes(r.card_text(model_card()).replace("\n", "\r\n").encode())
    assert r.read_card(path) == model_card()


def test_changed_missing_and_swapped_files(tmp_path):
    (tmp_path / "w").mkdir()
    file = tmp_path / "w" / "a.safetensors"
    file.write_bytes(b"abc")
    card = model_card(files=[r.file_fact(file, tmp_path)])
    assert card.files == (("w/a.safetensors", 3, hash_file(file)),)
    assert r.check_files(card, tmp_path) is card
    for content in (b"abd", b"ab", b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="a.safetensors is another file"):
            r.check_files(card, tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="is missing"):
        r.check_files(card, tmp_path)


# The course's own cards


@pytest.mark.parametrize("name", ["scores.csv", "astronaut.mp4"])
def test_own_cards_are_true(name, tmp_path):
    listed = pd.read_csv(sample_dir() / "samples.csv").set_index("name").loc[name]
    card = r.read_card(r.save_card(r.course_card(name), tmp_path / "card.md"))
    assert card.files == ((name, (sample_dir() / name).stat().st_size, listed["sha256"]),)
    assert card.licence == listed["licence"] and listed["origin"] in card.origin
    assert r.check_files(card, sample_dir())


def test_the_command_on_the_astronauts_card_makes_the_clip(tmp_path):
    with chdir(tmp_path):
        exec(r.course_card("astronaut.mp4").command, {})
    made, listed = (read_frames(path, 100).frames
                    for path in (tmp_path / "astronaut.mp4", sample("astronaut.mp4")))
    assert made.shape == listed.shape and psnr(made, listed) > 35


# Consent


def ask(*rows, day="2026-05-01", purpose="teaching", people=None):
    register = pd.DataFrame(rows, columns=["person", "told", "purpose", "given", "withdrawn"])
    return r.consent_gaps(register, people or {"target": "Ana"}, purpose, day)["gap"].tolist()


@pytest.mark.parametrize("rows, gaps", [
    ([("Ana", "all", "teaching", "2026-05-01", "")], []),
    ([("Ana", "all", "teaching", "2026-05-02", "")], ["has not agreed yet"]),
    ([("Ana", "all", "teaching", "2026-01-01", "2026-05-01")], ["withdrew on 2026-05-01"]),
    ([("Ana", "all", "teaching", "2026-01-01", "2026-05-02")], []),
    ([("Ana", "all", "teaching", "2026-01-01", "2026-02-01"),
      ("Ana", "all", "teaching", "2026-03-01", "")], []),
    ([("Ana", "all", "teaching", "2026-01-01", "2026-02-01"),
      ("Ana", "all", "teaching", "2026-06-01", "")], ["withdrew on 2026-02-01"]),
    ([("Ana", np.nan, "teaching", "2026-01-01", np.nan)], ["was not told what will be made"]),
    ([("Ana", "all", "teaching", "2026-01-01", np.nan)], []),
    ([("Ana", "all", "own film", "2026-01-01", "")], ["did not agree to teaching"]),
    ([("ana", "all", "teaching", "2026-01-01", "")], ["was never asked"]),
    ([], ["was never asked"]),
])
def test_consent(rows, gaps):
    assert ask(*rows) == gaps


def test_consent_of_one_person_in_both_roles():
    row = ("Ana", "all", "teaching", "2026-01-01", "")
    assert ask(row, people={"target": "Ana", "donor": "Ana"}) == []
    assert ask(row, people={"target": "Ana", "donor": "Ben"}) == ["was never asked"]


@pytest.mark.parametrize("given", ["", "01.02.2026", np.nan, "2026-13-01"])
def test_a_date_that_is_none(given):
    with pytest.raises(ValueError, match="isoformat|month"):
        ask(("Ana", "all", "teaching", given, ""))


def test_a_register_with_other_columns():
    with pytest.raises(ValueError, match="columns"):
        r.consent_gaps(pd.DataFrame({"person": ["Ana"]}), {"target": "Ana"}, "x", "2026-01-01")
    with pytest.raises(ValueError, match="name for every role"):
        ask(("Ana", "all", "teaching", "2026-01-01", ""), people={"target": None})


# Groups and gaps


def test_group_errors_against_counting():
    rng = np.random.default_rng(2)
    for _ in range(20):
        n = int(rng.integers(1, 60))
        group, y = rng.choice(["a", "b", "c"], n), rng.integers(0, 2, n)
        score, cut = rng.random(n).round(1), rng.random()
        table = r.group_errors(group, y, score, cut)
        assert set(table.index) == set(group)
        for name, row in table.iterrows():
            for kind, (total, wrong, rate) in enumerate((("real", "accused", "fpr"),
                                                         ("fake", "missed", "fnr"))):
                mine = [s for g, k, s in zip(group, y, score) if g == name and k == kind]
                bad = sum((s >= cut) != bool(kind) for s in mine)
                assert (row[total], row[wrong]) == (len(mine), bad)
                ends = (0, 1)
                if mine:
                    ends = binomtest(bad, len(mine)).proportion_ci(method="wilson")
                assert np.isnan(row[rate]) == (not mine)
                assert np.allclose(row[[f"{rate}_low", f"{rate}_high"]].astype(float), ends)


@pytest.mark.parametrize("group", [["a"], ["a", None], [["a"], ["b"]], ["a", np.nan]])
def test_group_names_that_are_none(group):
    with pytest.raises(ValueError, match="group names|one label"):
        r.group_errors(np.array(group, dtype=object), [0, 1], [.1, .9])


@pytest.mark.parametrize("a, b, n_a, n_b",
                         [(.1, .3, 20, 60), (.05, .05, 100, 100), (.5, .2, 15, 15)])
def test_the_gap_interval_holds_the_truth(a, b, n_a, n_b):
    "Coverage added up over all outcomes, nothing drawn."
    held = 0
    for k, m in product(range(n_a + 1), range(n_b + 1)):
        _, low, high = r.gap_interval(k, n_a, m, n_b)
        held += binom.pmf(k, n_a, a)*binom.pmf(m, n_b, b)*(low <= a - b <= high)
    assert .93 < held < .99


def test_the_gap_interval_is_antisymmetric():
    gap, low, high = r.gap_interval(3, 40, 11, 50)
    assert np.allclose(r.gap_interval(11, 50, 3, 40), (-gap, -high, -low))


def test_clips_needed_is_symmetric_and_refuses():
    assert r.clips_needed(.1, .3) == r.clips_needed(.3, .1) < r.clips_needed(.1, .3, power=.9)
    for bad in ((-.1, .3), (.1, .3, 1), (.1, .3, .8, 0), (np.nan, .3)):
        with pytest.raises(ValueError, match="rates are in"):
            r.clips_needed(*bad)


# Base rates and costs


def test_the_innocent_share_holds_the_truth():
    "Worst of several true rates, added up over all outcomes of 20 real and 25 fake clips."
    for fpr, tpr, share in product((.05, .3), (.6, .95), (.01, .3)):
        truth = (1 - share)*fpr/((1 - share)*fpr + share*tpr)
        held = lost = 0
        for k, m in product(range(21), range(26)):
            chance = binom.pmf(k, 20, fpr)*binom.pmf(m, 25, tpr)
            if k + m == 0:
                lost += chance
                continue
            value, low, high = r.innocent_share(k, 20, m, 25, share)
            assert low <= value <= high
            held += chance*(low <= truth <= high)
        assert held/(1 - lost) > .94


@pytest.mark.parametrize("counts", [(1, 0, 1, 2, .5), (3, 2, 1, 2, .5), (1, 2, -1, 2, .5)])
def test_counts_that_cannot_be(counts):
    with pytest.raises(ValueError, match="wilson needs"):
        r.innocent_share(*counts)


def test_move_prior_goes_there_and_back():
    p = np.r_[0, np.sort(np.random.default_rng(0).random(50)), 1]
    there = r.move_prior(p, .5, .02)
    assert np.allclose(r.move_prior(there, .02, .5), p)
    assert (np.diff(there) >= 0).all() and there[0] == 0 and there[-1] == 1 and (there <= p).all()
    for bad in ([1.2], [np.nan], []):
        with pytest.raises(ValueError, match="probabilities|NaN|nothing"):
            r.move_prior(bad, .5, .1)


def test_accuse_from_is_where_both_costs_are_equal():
    for wrong, miss, trained, used in product((.5, 3, 40), (1, 7), (.5, .7), (.01, .4)):
        said = r.accuse_from(wrong, miss, trained, used)
        p = r.move_prior([said], trained, used)[0]
        assert np.isclose((1 - p)*wrong, p*miss)


def test_a_thousand_dots_and_the_same_picture_again():
    figure = Figure(figsize=(6, 3))
    FigureCanvasAgg(figure)

    def pixels(*values):
        sentence = r.draw_thousand(figure, *values)
        places = np.concatenate([marks.get_offsets() for marks in figure.axes[0].collections])
        assert len(places) == len(np.unique(places, axis=0)) == 1000 and len(figure.axes) == 1
        (left, right), (low, high) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
        assert ((left, low) < places).all() and (places < (right, high)).all()
        figure.canvas.draw()
        return sentence, np.asarray(figure.canvas.buffer_rgba()).copy()

    first = pixels(.9, .05, .01)
    for values in product((0, .37, 1), (0, .5, 1), (0, .001, .5, 1)):
        pixels(*values)
    again = pixels(.9, .05, .01)
    assert first[0] == again[0] and (first[1] == again[1]).all()


def test_the_tables_are_whole():
    terms = r.database_terms()
    assert terms.index.is_unique and (terms.drop(columns=["people", "real", "fake", "unverified"])
                                      .map(bool).all(axis=None))
    assert set(terms["pass_on"]) <= {"no", "not found"}
    assert r.case_notes({})["answer"].eq("open").all()
    assert r.case_notes({"keep": " "}).loc["keep", "answer"] == "open"
