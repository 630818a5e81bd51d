"""What the lesson on Task 2 cannot show: any detector, damage, real layouts, and that nothing is trained abroad."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from deepfake_course.databases import write_miniature
from deepfake_course.inter_database import (
    attainable,
    baseline,
    by_clip,
    cross_matrix,
    evaluate,
    hold_out,
    plot_matrix,
    selection_cost,
)
from deepfake_course.intra_database import find_faces, load_databases
from deepfake_course.metrics import wilson
from deepfake_course.samples import load_samples

COLUMNS = ["tier", "part", "clips", "fakes", "faceless", "frame AUC", "AUC", "low", "high", "accuracy", "balanced",
           "threshold there", "balanced there"]  # fmt: skip


def frames(name="X", people=6, k=3, split="", seed=0, tier="made up"):
    "Rows as `find_faces` gives them: one real and one fake clip a person."
    rng = np.random.default_rng(seed)
    clips = pd.DataFrame(
        [
            {"path": f"{name}{i}{kind}.mp4", "label": label, "database": name, "base": f"{name}{i}real.mp4",
             "target": f"{name}{i}", "donor": "", "group": "", "split": split or ("test" if i < 2 else "train")}
            for i in range(people) for label, kind in enumerate(("real", "fake"))
        ]
    )  # fmt: skip
    rows = clips.loc[np.repeat(clips.index, k)].reset_index(drop=True)
    rows["frame"], rows["face"], rows["value"] = np.tile(np.arange(k), len(clips)), True, rng.random(len(rows))
    rows.attrs["tier"] = tier
    return rows


class Told:
    "A detector whose answer is a function of the rows."

    def __init__(self, answer):
        self.answer, self.met = answer, None

    def fit(self, data, y=None):
        assert self.met is None, "trained twice"
        self.met = data
        return self

    def prepare(self, rows):
        return np.arange(len(rows)), rows

    def score(self, x):
        return np.asarray(self.answer(x[1], self.met), float)


def value(rows, met):
    return rows["value"]


def truth(rows, met):
    return rows["label"]


def memory(rows, met):
    "Knows the clips that it met, and nothing else."
    known = dict(zip(met["path"], met["label"]))
    return [known.get(path, 0.5) for path in rows["path"]]


# One row a database


def test_numbers_are_those_of_a_plain_loop():
    rows = frames()
    rows.loc[[0, 5], "face"] = False
    told = evaluate(Told(value), {"X": rows}, threshold=0.4).loc["X"]
    score = np.where(rows["face"], rows["value"], 0.5)
    clips = pd.DataFrame({"path": rows["path"], "y": rows["label"], "s": score}).groupby("path").mean()
    assert [*told.index] == COLUMNS and told["part"] == "all" and told["tier"] == "made up"
    assert np.isclose(told["frame AUC"], roc_auc_score(rows["label"], score))
    assert np.isclose(told["AUC"], roc_auc_score(clips["y"], clips["s"])) and told["low"] <= told["AUC"] <= told["high"]
    assert np.isclose(told["accuracy"], (clips["y"] == (clips["s"] >= 0.4)).mean())
    assert told["clips"] == 12 and told["fakes"] == 0.5 and np.isclose(told["faceless"], 2 / 36)
    every = [((clips["s"] >= cut) == clips["y"]).groupby(clips["y"]).mean().mean() for cut in [*clips["s"], 2]]
    assert np.isclose(told["balanced there"], max(every)), "the best that any threshold could do"


def test_certainty_keeps_a_doubt_at_both_ends():
    told = evaluate(Told(truth), {"X": frames()}).loc["X"]
    assert told["AUC"] == told["high"] == 1 and np.isclose(told["low"], wilson(6, 6)[0])
    told = evaluate(Told(lambda rows, met: 1 - rows["label"]), {"X": frames()}).loc["X"]
    assert told["AUC"] == told["low"] == 0 and np.isclose(told["high"], wilson(0, 6)[1])


def test_nothing_is_trained_or_changed_abroad():
    rows = {name: find_faces(load_samples(name), k=1) for name in "AB"}
    detector = baseline().fit(rows["A"])
    before = pickle.dumps(detector)
    first = evaluate(detector, {"B": rows["B"], "A": rows["A"]})
    assert pickle.dumps(detector) == before and first.equals(evaluate(detector, {"B": rows["B"], "A": rows["A"]}))
    detector.fit = None
    assert first.equals(evaluate(detector, {"B": rows["B"], "A": rows["A"]})), "fit is not even looked at"
    assert evaluate(detector, {"B": load_samples("B")}, k=1).equals(first.loc[["B"]]), "a manifest will do"


def test_all_faces_missing_is_half_everywhere():
    told = evaluate(Told(value), {"X": frames().assign(face=False)}).loc["X"]
    assert told["AUC"] == 0.5 and told["faceless"] == 1 and told["accuracy"] == 0.5


def test_official_test_clips_only_and_said_so():
    told = evaluate(Told(value), {"X": frames("X"), "Y": frames("Y", split="test"), "Z": frames("Z")}, official=True)
    assert [*told["part"]] == ["official test", "all (no official split)", "official test"]
    assert [*told["clips"]] == [4, 12, 4]


@pytest.mark.parametrize(
    "bend, words",
    [
        (lambda rows: rows[rows["label"] == 1], "X: all .* labels are 1"),
        (lambda rows: rows.iloc[:0], "X: .*find_faces"),
        (lambda rows: rows[rows["target"] == "X0"], "X: 1 group of a class"),
        (lambda rows: rows.assign(value=np.nan), "X: .*one probability"),
        (lambda rows: rows.assign(value=2.0), "X: .*one probability"),
        (lambda rows: rows.assign(label=np.where(rows["label"], "fake", "real")), "X: .*as text"),
    ],
)
def test_a_database_that_cannot_be_asked_about_is_named(bend, words):
    with pytest.raises(ValueError, match=words):
        evaluate(Told(value), {"W": frames("W"), "X": bend(frames("X"))})


def test_no_database_and_no_test_clips_are_refused():
    with pytest.raises(ValueError, match="tested is empty"):
        evaluate(Told(value), {})
    one = frames()
    one.loc[one["label"] == 1, "split"] = "train"
    with pytest.raises(ValueError, match="X: all .* labels are 0"):
        evaluate(Told(value), {"X": one}, official=True)


# Home by people held out


def test_nobody_is_scored_by_a_detector_that_met_them():
    made = []
    rows = frames(people=7)
    told = hold_out(lambda: made.append(Told(value)) or made[-1], rows, people=3)
    assert len(made) == 3 and told.index.equals(rows.index) and np.array_equal(told["score"], rows["value"])
    for n, one in enumerate(made):
        assert {*one.met["target"]} | {*told["target"][told["turn"] == n]} == {*rows["target"]}
        assert not {*one.met["target"]} & {*told["target"][told["turn"] == n]}


def test_there_are_no_more_turns_than_people():
    assert hold_out(lambda: Told(value), frames(people=3), people=6)["turn"].nunique() == 3
    with pytest.raises(ValueError, match="two are needed"):
        hold_out(lambda: Told(value), frames(people=1))


def test_memory_is_worth_nothing_in_the_home_cells():
    "A detector that knows its training clips by heart gets 1.0 by resubstitution, and a half here."
    databases = {name: frames(name, seed=n) for n, name in enumerate("XYZ")}
    cells = cross_matrix(lambda: Told(memory), databases)
    assert (cells["AUC"] == 0.5).all() and len(cells) == 9
    assert [*cells["how"]].count("people held out") == 3
    assert evaluate(Told(memory).fit(databases["X"]), {"X": databases["X"]}).loc["X", "AUC"] == 1


def test_official_sides_are_kept():
    made = []
    databases = {"X": frames("X"), "Y": frames("Y", split="train")}
    cells = cross_matrix(lambda: made.append(Told(value)) or made[-1], databases, official=True)
    assert [*cells["how"]] == ["official split", "abroad", "abroad", "people held out"]
    assert [*cells["clips"]] == [4, 12, 4, 12]
    assert {*made[0].met["split"]} == {"train"} and made[0].met["path"].nunique() == 8


def test_the_matrix_names_the_database_that_fails():
    with pytest.raises(ValueError, match="Y: "):
        cross_matrix(lambda: Told(value), {"X": frames("X"), "Y": frames("Y").query("label == 0")})


def test_the_drawing_says_every_number_and_frames_the_home_cells():
    cells = cross_matrix(lambda: Told(value), {name: frames(name, seed=n) for n, name in enumerate("YX")})
    ax = plot_matrix(cells, title="told")
    texts = [text.get_text() for text in ax.texts]
    assert [text.split("\n")[0] for text in texts] == [f"{auc:.2f}" for auc in cells["AUC"]], "Y before X, as given"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["Y", "X"] and ax.get_title() == "told"
    assert sorted(patch.get_xy() for patch in ax.patches) == [(0, 0), (1, 1)]
    assert plot_matrix(cells, ax) is ax


# Clips


def test_clips_are_means_in_order_of_appearance():
    rows = frames().sample(frac=1, random_state=0)
    clips = by_clip(rows, rows["value"].to_numpy())
    assert [*clips.index] == [*dict.fromkeys(rows["path"])]
    assert np.allclose(clips["score"], rows.groupby("path", sort=False)["value"].mean())
    assert np.array_equal(clips["label"], clips.index.str.contains("fake"))


# What a threshold could get


@pytest.mark.parametrize("apart", [0, 0.3, 1, 2.5])
def test_attainable_is_the_integral(apart):
    auc = quad(lambda x: norm.pdf(x) * norm.sf(x - apart), -12, 12)[0]
    best = max((norm.cdf(cut) + norm.sf(cut - apart)) / 2 for cut in np.linspace(-3, 6, 9001))
    assert np.isclose(attainable(auc), best, atol=1e-6)


def test_attainable_at_the_ends():
    assert attainable(1) == 1 and attainable(0) == 0 and attainable(0.5) == 0.5
    assert np.isclose(attainable(0.3), 1 - attainable(0.7))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="lies in"):
            attainable(wrong)


# The best of many


def people(n=20, seed=0):
    y = np.tile([0, 1], n)
    return y, np.repeat(np.arange(n), 2), np.random.default_rng(seed)


def test_the_best_of_many_coins_promises_and_does_not_deliver():
    y, group, rng = people()
    coins = {str(i): rng.random(len(y)) for i in range(30)}
    told = selection_cost(coins, y, group, draws=100)
    assert told["promised"].mean() > 0.65 and told["delivered"].mean() < 0.55
    one = selection_cost({"0": coins["0"]}, y, group, draws=200)
    assert abs(one["promised"].mean() - one["delivered"].mean()) < 0.03, "one idea: nothing was chosen"


def test_a_good_detector_is_found_and_keeps_its_word():
    y, group, rng = people()
    told = selection_cost({"good": y + rng.random(len(y)), "coin": rng.random(len(y))}, y, group, draws=50)
    assert (told["winner"] == "good").all() and (told["delivered"] == 1).all()


def test_halves_without_a_class_are_refused():
    with pytest.raises(ValueError, match="more people"):
        selection_cost({"coin": np.zeros(4)}, [0, 0, 1, 1], [0, 0, 1, 1])


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="spectrum"):
        baseline("colour")


# Real layouts


def test_the_same_calls_run_on_real_layouts(tmp_path, monkeypatch, borrowed):
    for layout in ("uadfv", "celeb-df", "ff++"):
        write_miniature(layout, tmp_path / layout, 4, borrowed)
    listed = tmp_path / "celeb-df" / "List_of_testing_videos.txt"
    real = sorted((tmp_path / "celeb-df" / "Celeb-real").glob("*.mp4"))[:2]
    fake = sorted((tmp_path / "celeb-df" / "Celeb-synthesis").glob("*.mp4"))[:2]
    listed.write_text("".join(f"{int(p in real)} {p.parent.name}/{p.name}\n" for p in real + fake))
    monkeypatch.setenv("DEEPFAKE_COURSE_DATA", str(tmp_path))
    with pytest.warns(UserWarning, match="the test list has 4 rows"):
        databases = {name: find_faces(df, k=1) for name, df in load_databases(clips=12).items()}
    home, *abroad = databases
    assert home == "uadfv" and {*abroad} == {"celeb-df", "ff++"}
    detector = baseline().fit(databases[home])
    told = evaluate(detector, {name: databases[name] for name in abroad})
    assert [*told["tier"]] == [f"real {name}" for name in abroad] and (told["faceless"] < 0.1).all()
    cells = cross_matrix(baseline, {home: databases[home], "celeb-df": databases["celeb-df"]})
    assert np.isfinite(cells[["AUC", "low", "high"]].to_numpy(float)).all()
    with pytest.warns(UserWarning, match="the test list has 4 rows"):
        whole = find_faces(load_databases(tmp_path / "celeb-df", clips=None)["celeb-df"], k=1)
    assert evaluate(detector, {"celeb-df": whole}, official=True).loc["celeb-df", "clips"] == 4


def test_unreadable_clips_are_left_out_and_told_of(tmp_path, borrowed):
    write_miniature("uadfv", tmp_path / "mine", 4, borrowed)
    (tmp_path / "mine" / "fake" / "0001_fake.mp4").write_bytes(b"no video")
    with pytest.warns(UserWarning, match="1 of 8 clips cannot be read"):
        told = evaluate(baseline().fit(find_faces(load_samples("A"), k=1)), load_databases(tmp_path / "mine"), k=1)
    assert told.loc["mine", "clips"] == 7
