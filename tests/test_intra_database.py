"""What the lesson on Task 1 cannot show: other data, damage, the contract, the console script, the bench."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from deepfake_course import _bench_grid, _cli
from deepfake_course.databases import MANIFEST, to_manifest, write_miniature
from deepfake_course.intra_database import (
    FEATURES,
    BagOfWords,
    Detector,
    Family,
    LandmarkDetector,
    best_cells,
    copy_same_label,
    develop,
    families,
    find_faces,
    grid_search,
    landmark_features,
    load_databases,
    make_folds,
    mean_auc,
    out_of_fold,
    score_rows,
    table_1,
    take_turns,
    to_pipeline,
)
from deepfake_course.metrics import bootstrap_indices
from deepfake_course.samples import load_samples
from deepfake_course.video import write_clip

SMALL = {
    "SVM RBF": Family(SVC(), {"C": [0.1, 1.0, 10.0], "gamma": [0.001, 0.01, 0.1]}),
    "SVM linear": Family(LinearSVC(random_state=0), {"C": [0.01, 1.0]}),
    "LR": Family(LogisticRegression(), {"C": [0.01, 1.0]}, {"C": [0.1]}),
    "forest": Family(RandomForestClassifier(10, random_state=0), {"max_depth": [2, 3]}),
    "boosting": Family(GradientBoostingClassifier(n_estimators=5, random_state=0), {"max_depth": [1, 2]}),
}


def numbers(seed=0, n=90, d=8, apart=0.5, folds=3):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, d))
    x[y == 1] += apart
    return x, y, np.arange(n) // 2 % folds


def rbf(c=1.0, gamma=0.05):
    return make_pipeline(StandardScaler(), SVC(C=c, gamma=gamma))


@pytest.fixture(scope="module")
def rows():
    "Three frames of each clip of A."
    return find_faces(load_samples("A"), k=3)


# The grid against scikit-learn


@pytest.mark.parametrize("pca", [None, 0.9])
@pytest.mark.parametrize("name", SMALL)
def test_every_cell_is_that_of_scikit_learn(name, pca):
    x, y, fold = numbers()
    ours = grid_search(x, y, fold, {name: SMALL[name]}, (pca,))
    steps = to_pipeline(SMALL, pd.Series({"family": name, "pca": pca, "params": {}}))
    cells = [{f"{steps.steps[-1][0]}__{key}": [value] for key, value in cell.items()} for cell in SMALL[name].cells(pca)]
    theirs = GridSearchCV(steps, cells, scoring="roc_auc", cv=PredefinedSplit(fold)).fit(x, y)
    assert np.allclose(ours["auc"], theirs.cv_results_["mean_test_score"], atol=1e-12)
    assert (ours["folds"] == 3).all()


@pytest.mark.parametrize("seed", range(8))
def test_keep_winner_has_the_winners_of_all_and_fits_less(seed):
    x, y, fold = numbers(seed, apart=0.3 + seed / 10)
    whole, fast, half = (grid_search(x, y, fold, SMALL, (None, 0.9), keep=how) for how in ("all", "winner", "half"))
    for column in ("pca", "params", "auc"):
        assert best_cells(whole)[column].equals(best_cells(fast)[column])
    assert fast["folds"].sum() <= whole["folds"].sum() and half["folds"].sum() < whole["folds"].sum()
    done = fast["auc"].notna()
    assert np.array_equal(fast["auc"][done], whole["auc"][done])
    done = half["auc"].notna()
    assert done.groupby(half["family"]).any().all() and np.array_equal(half["auc"][done], whole["auc"][done])


def test_processes_and_memory_change_nothing_and_say_nothing(tmp_path):
    x, y, fold = numbers()
    given = x, y, fold, SMALL, (None, 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = grid_search(*given, keep="winner")
        assert one.equals(grid_search(*given, keep="winner", n_jobs=2))
        assert one.equals(grid_search(*given, keep="winner", memory=tmp_path))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.pkl")}
    assert len(kept) == 6, "three folds, with and without PCA"
    assert one.equals(grid_search(*given, keep="winner", memory=tmp_path))
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.pkl")}


def test_the_bar_ends_full(capsys):
    for keep in ("all", "winner", "half"):
        grid_search(*numbers(), SMALL, (None,), keep=keep, progress=True)
        assert "100%" in capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]


def test_a_grid_that_does_not_converge_says_so():
    x, y, fold = numbers()
    hard = {"LR": Family(LogisticRegression(max_iter=1, solver="sag"), {"C": [1.0]})}
    assert grid_search(x, y, fold, hard, (None,))["unconverged"].item() == 3


@pytest.mark.parametrize(
    "bend, words",
    [
        (lambda x, y, f: (np.where(x > 1, np.nan, x), y, f), "frames without a face"),
        (lambda x, y, f: (x, np.where(y, "fake", "real"), f), "as text"),
        (lambda x, y, f: (x, 0 * y, f), "needs real and fake"),
        (lambda x, y, f: (x, y, f + 1), "numbered from 0"),
        (lambda x, y, f: (x, y, y), "each fold"),
        (lambda x, y, f: (x, y, f[:-1]), r"\(n, d\)"),
        (lambda x, y, f: (x[:, 0], y, f), r"\(n, d\)"),
        (lambda x, y, f: (x[:0], y[:0], f[:0]), "empty"),
    ],
)
def test_a_grid_on_bad_numbers_is_refused(bend, words):
    with pytest.raises(ValueError, match=words):
        grid_search(*bend(*numbers()), SMALL)


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match="winner"):
        grid_search(*numbers(), SMALL, keep="best")
    with pytest.raises(ValueError, match="code"):
        families("memory")


def test_the_first_of_equals_wins():
    cells = pd.DataFrame({"family": ["a", "a", "b"], "auc": [0.9, 0.9, 0.1], "params": [1, 2, 3]})
    assert list(best_cells(cells)["params"]) == [1, 3]


def test_table_1_repeats_the_grid():
    x, y, fold = numbers()
    cells = grid_search(x, y, fold, SMALL, (None, 0.9))
    table = table_1(cells, SMALL, x, y, fold, np.arange(len(y)) // 2 * 2 + y)
    assert np.allclose(table["AUC (CV)"].astype(float), best_cells(cells)["auc"], atol=1e-12)
    assert (table["low"] <= table["AUC (CV)"]).all() and (table["AUC (CV)"] <= table["high"]).all()


# Intervals against a plain loop


@pytest.mark.parametrize("seed", range(4))
def test_mean_auc_is_the_mean_of_scikit_learn_and_its_interval_that_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    clip = np.repeat(np.arange(24), 3)
    y, fold = clip % 2, clip // 2 % 3
    score = (rng.normal(size=72) + y * 0.8).round(1)

    def value(take):
        return np.mean([roc_auc_score(y[take][fold[take] == n], score[take][fold[take] == n]) for n in range(3)])

    strata = pd.factorize(pd.MultiIndex.from_arrays([np.arange(24) % 2, np.arange(24) // 2 % 3]))[0]
    drawn = [
        value(np.concatenate([np.flatnonzero(clip == c) for c in draw]))
        for draw in bootstrap_indices(24, 50, 0, strata)
    ]
    told = mean_auc(y, score, fold, clip, draws=50)
    assert np.allclose(told, (value(np.arange(72)), *np.quantile(drawn, [0.025, 0.975])))


def test_a_perfect_score_keeps_a_doubt():
    y = np.repeat([0, 1], 10)
    value, low, high = mean_auc(y, y, 0 * y, np.arange(20))
    assert value == high == 1 and 0.7 < low < 0.75, "Wilson's low end for 10 of 10"


# Folds


@pytest.mark.parametrize("by, column", [("clip", "path"), ("identity", "base")])
def test_folds_keep_groups_whole(rows, by, column):
    fold = make_folds(rows, by, 3)
    assert (pd.Series(fold).groupby(rows[column]).nunique() == 1).all()
    assert (rows["label"].groupby(fold).nunique() == 2).all()
    assert not np.array_equal(fold, make_folds(rows, by, 3, seed=1))


def test_folds_that_cannot_be_are_refused(rows):
    one = rows[rows["target"] == rows["target"].iloc[0]]
    with pytest.raises(ValueError, match="the rarer class has 1, and two are needed"):
        make_folds(one, "identity", 2)
    with pytest.raises(ValueError, match="k is from 2 to"):
        make_folds(one, "clip", 50)
    with pytest.raises(ValueError, match="needs real and fake"):
        make_folds(rows[rows["label"] == 0])
    with pytest.raises(ValueError, match="as text"):
        make_folds(rows.assign(label=np.where(rows["label"], "fake", "real")))
    with pytest.raises(ValueError, match="image"):
        make_folds(rows, "person")


# Faces


def noise(path, frames=6):
    rng = np.random.default_rng([*str(path.name).encode()])
    write_clip(path, rng.integers(0, 255, (frames, 96, 128, 3)).astype(np.uint8))


def manifest(folder, **labels):
    return to_manifest(
        [{"path": folder / name, "label": label, "raw_label": str(label)} for name, label in labels.items()],
        folder, "mine",
    )  # fmt: skip


def test_a_clip_without_faces_keeps_its_rows_and_gets_a_half(tmp_path, rows):
    noise(tmp_path / "a.mp4")
    noise(tmp_path / "b.mp4")
    found = find_faces(manifest(tmp_path, **{"a.mp4": 0, "b.mp4": 1}), k=2)
    assert len(found) == 4 and not found["face"].any()
    with pytest.raises(ValueError, match="no face was found in any of the 4 frames"):
        landmark_features(found)
    with pytest.raises(ValueError, match="no face was found"):
        LandmarkDetector(rbf()).fit(found)
    with pytest.raises(ValueError, match="no face was found"):
        develop(found, SMALL)
    detector = LandmarkDetector(rbf()).fit(rows)
    assert (score_rows(detector, found) == 0.5).all()


def test_unreadable_clips_are_told_of_and_left_out(tmp_path):
    noise(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    df = manifest(tmp_path, **{"a.mp4": 0, "b.mp4": 1})
    with pytest.warns(UserWarning, match="1 of 2 clips cannot be read"):
        found = find_faces(df, k=2)
    assert {*found["path"]} == {"a.mp4"} and "b.mp4" in found.attrs["unreadable"]
    with pytest.raises(ValueError, match="none of the 1 clips can be read"):
        find_faces(df[df["label"] == 1])


def test_no_clips_are_refused():
    df = load_samples("A")
    with pytest.raises(ValueError, match="the manifest is empty"):
        find_faces(df.iloc[:0])
    df.attrs.pop("root")
    with pytest.raises(ValueError, match="has no root"):
        find_faces(df)
    with pytest.raises(ValueError, match="a label is 0"):
        find_faces(load_samples("A").assign(label="fake"))


def test_a_folder_of_frames_is_a_clip(tmp_path):
    import cv2

    from deepfake_course.video import read_frames

    df = load_samples("A")
    (tmp_path / "walk").mkdir()
    frames = read_frames(Path(df.attrs["root"]) / df["path"].iloc[0], 5).frames
    for i, img in enumerate(frames):
        cv2.imwrite(str(tmp_path / "walk" / f"{i:03d}.png"), cv2.cvtColor(img, cv2.COLOR_RGB2BGR))
    with pytest.warns(UserWarning, match="all 1 clips are real"):
        df = manifest(tmp_path, walk=0)
    found = find_faces(df, k=3)
    assert found["frame"].is_monotonic_increasing and len(found) == 3
    assert found["face"].all() and landmark_features(found).shape == (3, 68)


@pytest.mark.parametrize("kind", FEATURES)
def test_features_are_numbers_and_a_gap_is_a_gap(rows, kind):
    some = rows.head(4).copy()
    whole = landmark_features(some, kind)
    some.loc[some.index[1], "face"] = False
    x = landmark_features(some, kind)
    assert np.isfinite(whole).all() and np.isnan(x[1]).all() and np.array_equal(x[[0, 2, 3]], whole[[0, 2, 3]])


def test_words_are_learnt_from_training_faces_only(rows):
    x, y = landmark_features(rows, "sift"), rows["label"].to_numpy()
    fold = make_folds(rows, "identity", 3)
    model = make_pipeline(BagOfWords(8), StandardScaler(), LogisticRegression())
    told = out_of_fold(model, x, y, fold)
    for n in range(3):
        words = BagOfWords(8).fit(x[fold != n])
        scale = StandardScaler().fit(words.transform(x[fold != n]))
        lr = LogisticRegression().fit(scale.transform(words.transform(x[fold != n])), y[fold != n])
        assert np.allclose(lr.decision_function(scale.transform(words.transform(x[fold == n]))), told[fold == n])


# The contract of detectors


def apart(rows):
    "All real clips are one person's, all fake ones another's."
    who = np.where(rows["label"], "b", "a")
    return rows.assign(target=who, base=who)


class Fixed:
    "Says what it is told to say."

    def __init__(self, answer):
        self.answer = answer

    def fit(self, data, y=None):
        return self

    def prepare(self, rows):
        assert rows["face"].all(), "only rows with a face come in"
        return np.arange(len(rows))

    def score(self, x):
        return self.answer(x)


def test_score_rows_fills_gaps_and_keeps_the_order(rows):
    some = rows.head(6).assign(face=[True, False, True, True, False, True])
    told = score_rows(Fixed(lambda x: x / 10), some)
    assert told.tolist() == [0, 0.5, 0.1, 0.2, 0.5, 0.3]
    assert isinstance(Fixed(None), Detector) and isinstance(LandmarkDetector(rbf()), Detector)


@pytest.mark.parametrize(
    "answer",
    [lambda x: x[:-1] / 10, lambda x: x + 1, lambda x: -x - 0.1, lambda x: x * np.nan, lambda x: np.zeros((len(x), 1))],
)
def test_a_score_that_is_no_probability_is_refused(rows, answer):
    with pytest.raises(ValueError, match="one probability"):
        score_rows(Fixed(answer), rows.head(3))


def test_a_manifest_or_nothing_is_no_rows(rows):
    for ask in (lambda r: score_rows(Fixed(None), r), landmark_features, lambda r: develop(r, SMALL),
                lambda r: take_turns(r, SMALL)):  # fmt: skip
        with pytest.raises(ValueError, match="find_faces"):
            ask(load_samples("A"))
        with pytest.raises(ValueError, match="find_faces"):
            ask(rows.iloc[:0])


def test_a_manifest_rows_and_arrays_make_the_same_detector(rows):
    x, y = landmark_features(rows), rows["label"].to_numpy()
    fold = make_folds(rows, "identity", 5)
    by = [
        LandmarkDetector(rbf(), k=3).fit(load_samples("A")),
        LandmarkDetector(rbf()).fit(rows),
        LandmarkDetector(rbf()).fit(x, y, fold),
    ]
    told = [one.score(x) for one in by]
    assert np.array_equal(told[0], told[1]) and np.array_equal(told[1], told[2])
    raw = by[0].fitted.decision_function(x)
    assert np.array_equal(np.argsort(raw, kind="stable"), np.argsort(told[0], kind="stable"))


def test_probabilities_are_modest_where_nothing_can_be_learnt():
    "On new rows: on those of the training an SVM is sure of itself, whatever the labels."
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(300) % 2)
    detector = LandmarkDetector(rbf()).fit(rng.normal(size=(300, 8)), y)
    told = detector.score(rng.normal(size=(1000, 8)))
    assert abs(told - 0.5).mean() < 0.1
    known = LandmarkDetector(rbf()).fit(rng.normal(size=(300, 8)) + 2 * y[:, None], y)
    assert abs(known.score(rng.normal(size=(1000, 8)) + 2 * (np.arange(1000)[:, None] % 2)) - 0.5).mean() > 0.3


def test_a_detector_on_bad_data_says_what_is_wrong(rows):
    x, y = landmark_features(rows), rows["label"].to_numpy()
    with pytest.raises(ValueError, match="rows hold NaN"):
        LandmarkDetector(rbf()).fit(np.where(x > 60, np.nan, x), y)
    with pytest.raises(ValueError, match="needs real and fake"):
        LandmarkDetector(rbf()).fit(rows[rows["label"] == 1])
    with pytest.raises(ValueError, match="2 folds by identity are not possible"):
        LandmarkDetector(rbf()).fit(apart(rows))
    with pytest.raises(ValueError, match="5 folds by image are not possible"):
        LandmarkDetector(rbf()).fit(x[:4], np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="as text"):
        LandmarkDetector(rbf()).fit(x, np.where(y, "fake", "real"))


def test_nobody_is_evaluated_by_a_detector_that_met_them(rows, monkeypatch):
    from deepfake_course import intra_database

    seen = []
    real = intra_database.develop
    monkeypatch.setattr(intra_database, "develop", lambda dev, *a, **k: seen.append({*dev["target"]}) or real(dev, *a, **k))
    told = take_turns(rows, {"LR": SMALL["LR"]}, people=3)
    assert len(told) == len(rows) and len(seen) == 3
    for n, others in enumerate(seen):
        assert not others & {*told["target"][told["turn"] == n]}


def test_the_leak_is_the_one_of_the_report():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.permutation(np.arange(40) % 2)
    x[rng.random(40) < 0.4] = np.nan
    last, want = {}, x.copy()
    for i in range(40):
        if np.isnan(x[i, 0]):
            later = [j for j in range(i, 40) if y[j] == y[i] and not np.isnan(x[j, 0])]
            want[i] = last[y[i]] if y[i] in last else x[later[0]]
        else:
            last[y[i]] = x[i]
    assert np.array_equal(copy_same_label(x, y), want)


# Databases of your own


def test_databases_are_found_by_option_and_by_variable(tmp_path, monkeypatch):
    for layout in ("celeb-df", "uadfv", "ff++"):
        write_miniature(layout, tmp_path / layout, n=4)
    monkeypatch.setenv("DEEPFAKE_COURSE_DATA", str(tmp_path))
    by = load_databases()
    assert [*by] == ["uadfv", "celeb-df", "ff++"] and not any(df.attrs["tier"].startswith("sample") for df in by.values())
    assert all({*df.columns} == {*MANIFEST} for df in by.values())
    assert [*load_databases(tmp_path / "uadfv")] == ["uadfv"]
    few = load_databases(tmp_path, clips=4)
    assert all(df["label"].value_counts().to_dict() == {0: 2, 1: 2} for df in few.values())
    assert [*load_databases(tmp_path, clips=4)["uadfv"]["path"]] == [*few["uadfv"]["path"]]
    monkeypatch.delenv("DEEPFAKE_COURSE_DATA")
    assert [*load_databases()] == [*"ABCD"]


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is no folder"):
        load_databases(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no database that the course knows"):
        load_databases(tmp_path)
    monkeypatch.setenv("DEEPFAKE_COURSE_DATA", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="DEEPFAKE_COURSE_DATA"):
        load_databases()


# The console script and the bench


def call(*args):
    command = [sys.executable, "-m", "deepfake_course._cli", "grid", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_console_script_knows_all_features():
    assert [kind.value for kind in _cli.Kind] == [*FEATURES]


def test_grid_on_a_database_of_your_own(tmp_path, borrowed):
    root = write_miniature("uadfv", tmp_path / "mine", 8, borrowed)
    (root / "real" / "0003.mp4").write_bytes(b"no video")
    args = ["--data", root, "--frames", 2, "--by", "clip", "--folds", 3, "--pca", "none", "--family", "LR",
            "--family", "SVM RBF"]  # fmt: skip
    answer = call(*args, "--json")
    assert answer.returncode == 0, answer.stderr
    assert "1 of 16 clips cannot be read and are left out, such as real/0003.mp4" in answer.stderr
    table = json.loads(answer.stdout)
    assert [row["family"] for row in table] == ["SVM RBF", "LR"], "in the order of the grid"
    keys = "kind by data clips frames faceless unreadable family pca params auc low high cells".split()
    assert all([*row] == keys for row in table)
    assert all(row["data"] == "real mine" and row["clips"] == 15 and row["unreadable"] == 1 for row in table)
    assert all(0 <= row["low"] <= row["auc"] <= row["high"] <= 1 for row in table)


def test_grid_prints_table_1():
    answer = call("A", "--frames", 2, "--pca", "none", "--keep", "half", "--by", "identity")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == "kind grey, by identity, data sample A (excerpt), clips 24, frames 48, faceless 0, unreadable 0"
    assert lines[1].split() == ["family", "PCA", "parameters", "AUC", "(CV)", "interval"]
    assert [line[:10].strip() for line in lines[2:]] == [*families()]
    assert "100%" in answer.stderr


def test_mistakes_are_one_line(tmp_path):
    for layout in ("uadfv", "celeb-df"):
        write_miniature(layout, tmp_path / layout, n=3)
    for args, word in (
        (("--data", tmp_path), "holds 2 databases (uadfv, celeb-df)"),
        (("--data", tmp_path / "uadfv"), "can be read"),
        (("A", "--frames", 1, "--folds", 50), "k is from 2 to 6"),
        (("A", "--family", "forest"), "there are: SVM RBF, SVM linear"),
    ):
        answer = call(*args)
        assert answer.returncode == 1 and answer.stdout == "" and "Traceback" not in answer.stderr
        assert word in answer.stderr.strip().splitlines()[-1]


def test_the_bench_row_is_the_agreed_one_and_notices_another_winner():
    (row,) = _bench_grid.ROWS
    assert (row.name, row.target) == ("grid-search", 3)
    x, y, fold = numbers()
    given = x, y, fold, {"LR": SMALL["LR"], "SVM RBF": SMALL["SVM RBF"]}
    slow, fast = row.obvious(given), row.ours(given)
    assert row.agree(given, slow, fast)[0] is True
    other = fast | {"LR": (fast["LR"][0], fast["LR"][1], {"C": 7.0})}
    assert row.agree(given, slow, other)[0] is False
    near = fast | {"LR": (fast["LR"][0] - 1e-6, *fast["LR"][1:])}
    assert row.agree(given, slow, near)[0] is False
