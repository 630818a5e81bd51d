"""What the lesson on splits cannot show: readers' manifests, damage, size, and no false alarm."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedGroupKFold

from deepfake_course import databases
from deepfake_course.splits import (
    DIAL,
    PRESETS,
    LeakExplorer,
    as_frames,
    audit_split,
    audit_summary,
    balance,
    connected_groups,
    draw_leak,
    drop_short,
    group_folds,
    group_split,
    image_split,
    leak_dial,
    leak_features,
    mini_manifest,
    official_split,
    pair_split,
    part_split,
    person_split,
    row_order_split,
    small_subset,
)

DRAWS = 12
WHOLE = ("clip", "base", "group", "identity")


def leaks(df, split, levels=WHOLE, frames=False):
    found = audit_split(df, split, frames)
    return found[found["level"].isin(levels)]


def random_manifest(seed, rows=200, people=60):
    "Many people, few links: components of all sizes."
    rng = np.random.default_rng(seed)
    target = rng.integers(people, size=rows)
    fake = rng.random(rows) < 0.5
    donor = np.where(rng.random(rows) < 0.3, rng.integers(people, size=rows), target // 2 * 2)
    return pd.DataFrame(
        {
            "path": [f"{i}.mp4" for i in range(rows)],
            "label": fake.astype(int),
            "database": "X",
            "target": [f"p{t}" for t in target],
            "donor": [f"p{d}" if f else "" for d, f in zip(donor, fake)],
            "base": [f"b{t}" for t in target],
            "group": "",
        }
    )


# Splits against scikit-learn


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_as_even_as_those_of_scikit_learn(seed):
    df = random_manifest(seed)
    group = connected_groups(df, ("base",))
    fold = group_folds(df, 5, ("base",), seed)
    theirs = sorted(len(test) for _, test in GroupKFold(5).split(df, groups=group))
    assert sorted(fold.value_counts()) == theirs
    assert (fold.groupby(group).nunique() == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_group_split_keeps_what_scikit_learn_keeps_and_sizes_better(seed):
    "Both keep groups whole; GroupShuffleSplit counts groups, not rows, so its shares are coarser."
    df = random_manifest(seed)
    group = connected_groups(df, ("base",))
    train, test = next(
        GroupShuffleSplit(1, test_size=0.3, random_state=seed).split(df, groups=group)
    )
    theirs = pd.Series("train", df.index)
    theirs.iloc[test] = "test"
    ours = group_split(df, (70, 0, 30), ("base",), seed)
    for split in (ours, theirs):
        assert leaks(df, split, ("clip", "base")).empty
    assert abs((ours == "test").mean() - 0.3) <= abs(len(test) / len(df) - 0.3) + 0.005
    assert abs(df["label"][ours == "test"].mean() - df["label"].mean()) < 0.1


def test_the_auditor_passes_scikit_learns_group_splitters_and_catches_its_plain_ones():
    df = random_manifest(3)
    group = connected_groups(df, ("base",))
    for _, test in StratifiedGroupKFold(4, shuffle=True, random_state=0).split(
        df, df["label"], group
    ):
        side = pd.Series(np.where(np.isin(np.arange(len(df)), test), "test", "train"))
        assert leaks(df, side, ("clip", "base")).empty
    shuffled = pd.Series(np.random.default_rng(0).permutation(side.to_numpy()))
    assert len(leaks(df, shuffled, ("base",))) > 5


def test_sizes_are_kept_and_seeds_differ():
    df = mini_manifest("dfdc", people=100)
    for sizes in ((70, 20, 10), (7, 2, 1)):
        split = group_split(df, sizes, "base")
        share = split.value_counts(normalize=True)
        assert np.allclose(share[["train", "val", "test"]], (0.7, 0.2, 0.1), atol=0.005)
    splits = {tuple(group_split(df, (7, 2, 1), "base", seed)) for seed in range(5)}
    assert len(splits) == 5


def test_leaving_one_group_out():
    df = mini_manifest("ff")
    fold = group_folds(df, k=6)
    assert fold.nunique() == 6 == connected_groups(df).nunique()
    with pytest.raises(ValueError, match="cannot fill 1 folds"):
        group_folds(df, k=1)


@pytest.mark.parametrize("seed", range(20))
def test_no_person_is_on_two_sides_and_few_clips_are_lost(seed):
    df = random_manifest(seed)
    split = person_split(df, (70, 0, 30), seed)
    assert leaks(df, split, ("identity",)).empty
    chance = np.random.default_rng(seed).random(60) < 0.3
    people = {f"p{i}": side for i, side in enumerate(chance)}
    crossing = [people[t] != people.get(d, people[t]) for t, d in zip(df["target"], df["donor"])]
    assert (split == "").sum() <= sum(crossing) + 5


def test_one_donor_for_all_cannot_be_shared_out():
    "As in UADFV: every fake wears one face."
    df = mini_manifest("celeb").assign(donor=lambda d: np.where(d["label"] == 1, "nic", ""))
    for seed in range(5):  # all fakes are on the donor's side
        with pytest.raises(ValueError, match="clips of (train|test) are real"):
            person_split(df, (1, 0, 1), seed)
    fakes = df[df["label"] == 1]
    with pytest.raises(ValueError, match="cannot be shared out"):
        person_split(fakes, (1, 0, 1))


def test_a_side_with_one_label_is_refused_unless_there_is_only_one():
    df = mini_manifest("celeb")
    refused = 0
    for seed in range(20):
        try:
            split = person_split(df, (8, 1, 1), seed)
        except ValueError as error:
            side = re.search(r"clips of (\w+) are real|: (\w+) stays empty", str(error))
            assert side and "Draw again" in str(error)
            refused += 1
        else:
            assert (df["label"].groupby(split).nunique().drop("", errors="ignore") == 2).all()
    assert refused
    fakes = df[df["label"] == 1]
    assert set(person_split(fakes, (2, 0, 1))) == {"train", "test", ""}


# What readers give


def test_people_of_vidtimit_are_people_of_deepfaketimit(tmp_path):
    "Real and fake clips come from two databases whose names mean the same people."
    databases.write_miniature("timit", tmp_path, 3)
    df = databases.read_database(tmp_path, "timit")
    assert set(df["database"]) == {"VidTIMIT", "DeepfakeTIMIT"}
    split = df["database"].map({"VidTIMIT": "train", "DeepfakeTIMIT": "test"})
    assert len(leaks(df, split, ("base",))) and len(leaks(df, split, ("identity",)))
    group = connected_groups(df)
    fakes = df[(df["label"] == 1) & (df["base"] != "")]
    assert len(fakes)
    where = dict(zip(df["path"], group))
    assert all(where[base] == group[i] for i, base in fakes["base"].items())


def test_equal_names_in_two_databases_are_two_people(tmp_path):
    df = mini_manifest("celeb")
    both = pd.concat([df, df.assign(database="again")], ignore_index=True)
    split = both["database"].map({"celeb": "train", "again": "test"})
    assert leaks(both, split).empty
    assert connected_groups(both).nunique() == 2 * connected_groups(df).nunique()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["uadfv", "celeb-df", "ff++", "dfdc", "kaggle-faces"])
def test_manifests_of_the_readers_are_split_by_base(kind, tmp_path):
    databases.write_miniature(kind, tmp_path, 6)
    df = databases.read_database(tmp_path, kind)
    known = df[df["base"] != ""]
    split = group_split(known, (1, 0, 1), ("base", "group"), tolerance=0.3)
    assert leaks(known, split, ("clip", "base", "group")).empty
    assert {"train", "test"} == set(split)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_database_without_names_is_refused_with_the_remedy(tmp_path):
    databases.write_miniature("uadfv", tmp_path, 6)
    df = databases.read_database(tmp_path, "uadfv")
    with pytest.raises(ValueError, match="by=\\('base',\\)"):
        group_split(df)
    with pytest.raises(ValueError, match="unknown='base'"):
        person_split(df)
    with pytest.raises(ValueError, match="has no official split"):
        official_split(df)
    assert leaks(df, person_split(df, (1, 0, 1), unknown="base"), ("clip", "base")).empty


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_development_and_evaluation_of_the_instructor(tmp_path):
    "Report 002's hand-out: development/ and evaluation/ are the official split."
    databases.write_miniature("uam", tmp_path, 4)
    df = databases.read_database(tmp_path, "uam")
    split = official_split(df)
    assert set(split) == {"train", "test"}
    assert (split[df["path"].str.contains("evaluation")] == "test").all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_official_list_of_celeb_df(tmp_path):
    databases.write_miniature("celeb-df", tmp_path, 4)
    df = databases.read_database(tmp_path, "celeb-df")
    listed = (tmp_path / "List_of_testing_videos.txt").read_text().split()[1::2]
    assert set(df["path"][official_split(df) == "test"]) == set(listed)


# The presets: caught where they leak, and mended they pass


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_caught_and_its_repair_passes(name):
    level, make = PRESETS[name]
    df, split = make()
    frames = "frame" in df
    found = audit_split(df, split, frames)
    lost = audit_summary(df, split, frames).loc["on no side", "nodes"]
    assert lost if level == "on no side" else (found["level"] == level).any()
    for _, row in found.iterrows():
        assert row["paths"] and set(row["paths"]) <= set(df["path"]) and row["rows"] > 0
    mended = group_split(df, (3, 0, 1), ("base", "group"), tolerance=0.1)
    assert leaks(df, mended, ("frame", "clip", "base"), frames).empty
    assert not audit_summary(df, mended, frames).loc["on no side", "nodes"]


def test_no_false_alarm_on_clean_splits():
    ff = mini_manifest("ff")
    assert leaks(ff, official_split(ff), (*WHOLE, "donor", "official")).empty
    dfdc = mini_manifest("dfdc")
    assert leaks(dfdc, part_split(dfdc, {"train": [0, 1], "test": [2]})).empty
    both = pd.concat([ff, dfdc], ignore_index=True)
    by_database = both["database"].map({"ff": "train", "dfdc": "test"})
    assert leaks(both, by_database, (*WHOLE, "donor", "database")).empty


def test_shares_are_those_of_a_plain_count():
    df, split = PRESETS["Celeb-DF: official list"][1]()
    test, train = df[split == "test"], df[split == "train"]
    fakes = test[test["label"] == 1]
    met = fakes["base"].isin(train["base"])
    assert 0 < met.mean() < 1
    shared = set(test["base"]) & set(train["base"])
    assert set(leaks(df, split, ("base",))["node"]) == shared
    touched = audit_summary(df, split).loc["base", "touched"]
    assert touched == test["base"].isin(shared).mean()


def test_rows_on_no_side_are_no_leak_and_are_counted():
    df = mini_manifest("celeb")
    split = person_split(df, (2, 0, 1))
    table = audit_summary(df, split)
    assert table.loc["on no side", "nodes"] == (split == "").sum() > 0
    assert leaks(df, split, ("identity",)).empty


def test_frames_and_clips_are_told_apart():
    rows = as_frames(mini_manifest("ff"), 4)
    same = {"train": np.ones(len(rows), bool), "test": np.arange(len(rows)) < 8}
    found = audit_split(rows, same, frame_level=True)
    assert (found["level"] == "frame").sum() == 8 and (found["level"] == "clip").sum() == 2
    assert leaks(rows, image_split(rows), ("frame",), True).empty


def test_unknown_is_reported_not_passed():
    df = mini_manifest("celeb")
    blank = df.assign(base=df["base"].where(df["label"] == 0, ""), target="", donor="")
    table = audit_summary(blank, "split")
    fakes = df.loc[df["split"] == "test", "label"].mean()
    assert table.loc["base", "unknown"] == fakes and table.loc["identity", "unknown"] == 1
    with pytest.raises(ValueError, match="have a gap in base"):
        group_split(blank, by="base")
    dropped = group_split(blank, (1, 0, 1), by="base", unknown="drop")
    assert (dropped[blank["label"] == 1] == "").all() and (dropped[blank["label"] == 0] != "").all()


# Input that cannot be meant


def test_bad_manifests_are_refused_in_words():
    df = mini_manifest("ff")
    with pytest.raises(ValueError, match="no rows"):
        group_split(df.iloc[:0])
    with pytest.raises(ValueError, match="reset_index"):
        group_split(pd.concat([df, df]))
    with pytest.raises(ValueError, match="there is no base"):
        group_split(df.drop(columns="base"))
    with pytest.raises(ValueError, match="there is no mood"):
        group_split(df, stratify="mood")
    with pytest.raises(ValueError, match="unknown is"):
        group_split(df, unknown="guess")
    for sizes in ((0, 1, 1), (1, -1, 1), (1, 1), (1, 0, float("nan"))):
        with pytest.raises(ValueError, match="sizes are parts"):
            group_split(df, sizes)


def test_missing_values_count_as_unknown():
    df = mini_manifest("celeb").astype({"donor": object})
    df["donor"] = df["donor"].replace("", None)
    assert connected_groups(df).equals(connected_groups(mini_manifest("celeb")))


def test_bad_splits_are_refused_in_words():
    df = mini_manifest("ff")
    with pytest.raises(ValueError, match="manifest's index"):
        audit_split(df, df["split"].iloc[:-1])
    with pytest.raises(ValueError, match="mask of"):
        audit_split(df, {"train": [True], "test": [False]})
    with pytest.raises(ValueError, match="no side"):
        audit_split(df, {})
    with pytest.raises(ValueError, match="leaves a side"):
        row_order_split(df.iloc[:1])
    with pytest.raises(ValueError, match="not listed as one pair"):  # both in train, no pair
        pair_split(
            df.query("target in ('000', '002')").assign(path="Deepfakes/000_002.mp4"),
            {"train": [["000", "001"], ["002", "003"]]},
        )


def test_parts_on_two_sides_are_refused():
    df = mini_manifest("dfdc")
    with pytest.raises(ValueError, match="belongs to one side"):
        part_split(df, {"train": [0, 1], "test": [1]})
    acted = df.assign(target="ann")
    with pytest.raises(ValueError, match="the identity ann"):
        part_split(acted, {"train": [0], "test": [1]})


# Equal, long, small


def test_balance_within_a_column():
    df = mini_manifest("dfdc")
    even = balance(df, "base", seed=1)
    assert (even.groupby("base")["label"].agg(["size", "sum"]) == [2, 1]).all(axis=None)
    assert balance(df)["label"].mean() == 0.5 and len(balance(df)) == 2 * (df["label"] == 0).sum()
    assert not balance(df, "base", 1).equals(balance(df, "base", 2))
    df.attrs["root"] = "somewhere"
    assert balance(df, "base").attrs["root"] == "somewhere"


def test_subsets_keep_side_and_classes():
    df = mini_manifest("dfdc", people=300)
    split = group_split(df, (8, 1, 1), "base")
    small = small_subset(df, split, {"train": 600, "val": 30, "test": 30})
    drawn = small != ""
    assert (small[drawn] == split[drawn]).all() and drawn.sum() == 660
    for side in ("train", "val", "test"):
        share = df["label"][small == side].mean()
        assert abs(share - df["label"][split == side].mean()) <= 1 / (small == side).sum()


def test_short_clips_of_unknown_length():
    df = mini_manifest("ff")
    df.loc[3, "frames"] = pd.NA
    for function in (drop_short, as_frames):
        with pytest.raises(ValueError, match="1 clips is unknown"):
            function(df)


# Size


def test_a_manifest_as_large_as_dfdc():
    df = mini_manifest("dfdc", people=17_000)
    assert len(df) == 119_000
    split = group_split(df, by="base")
    assert leaks(df, split, ("clip", "base")).empty
    torn = row_order_split(df.sample(frac=1, random_state=0))
    shuffled = df.loc[torn.index]
    assert len(leaks(shuffled, torn, ("base",))) > 10_000


# The dial and its widget, on features made up here


@pytest.fixture(scope="module")
def dial():
    """Features are the clip's own noise. Of 12 frames a clip about 3 train, so hardly a clip is
    unknown when pictures are shuffled: .7**11 = .02."""
    df = pd.concat([mini_manifest("ff", 36), mini_manifest("celeb")], ignore_index=True)
    rows = as_frames(df, 12)
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(len(df), 96)).repeat(12, 0) + rng.normal(size=(len(rows), 96)) / 10
    return rows, clip, leak_dial(rows, clip, DRAWS, size=0.3)


def test_the_dial_measures_what_was_planted(dial):
    rows, clip, table = dial
    mean = table.groupby(["detector", "level"])["auc"].mean()
    assert mean["memory", "frame"] > 0.9
    for detector in ("memory", "spectrum"):
        assert all(abs(mean[detector, level] - 0.5) < 0.12 for level in DIAL[1:])
    assert table.groupby("level")["trained"].unique().map(len).eq(1).all()
    for level in ("clip", "base", "identity", "database"):
        assert (table.loc[table["level"] == level, level] == 0).all()
    pd.testing.assert_frame_equal(leak_dial(rows, clip, DRAWS, size=0.3), table)


def test_without_a_leak_the_dial_stands_still(dial):
    "Features that tell the label, and nothing about the clip."
    rows = dial[0]
    noise = np.random.default_rng(1).normal(size=(len(rows), 96))
    table = leak_dial(rows, rows["label"].to_numpy()[:, None] + noise, 3, size=0.3)
    mean = table.groupby(["detector", "level"])["auc"].mean()
    assert (mean["spectrum"] > 0.95).all()
    assert mean["memory"].min() > 0.75 and np.ptp(mean["memory"]) < 0.05


def test_what_hurts_when_clips_are_held_out_is_the_room(dial):
    "Features are those of the base: other versions of a tested clip have the other label."
    rows = dial[0][dial[0]["database"] == "celeb"].reset_index(drop=True)
    rows = rows[rows["target"].str.startswith("id")].reset_index(drop=True)  # one real, one fake
    rows = pd.concat([rows, rows.assign(database="again")], ignore_index=True)
    base = rows.groupby(["database", "base"]).ngroup().to_numpy()
    rng = np.random.default_rng(2)
    room = rng.normal(size=(base.max() + 1, 96))[base] + rng.normal(size=(len(rows), 96)) / 10
    mean = leak_dial(rows, room, 3, size=0.3).groupby(["detector", "level"])["auc"].mean()
    assert mean["memory", "clip"] < 0.35 and abs(mean["memory", "base"] - 0.5) < 0.12
    assert mean["spectrum", "clip"] < 0.35


def test_a_dial_that_cannot_be_turned_says_why(dial):
    rows, features, _ = dial
    with pytest.raises(ValueError, match="take more clips"):
        leak_dial(rows, features, 2, size=0.74)
    with pytest.raises(ValueError, match="no room"):
        leak_dial(rows, features, 2, size=0.9)
    with pytest.raises(ValueError, match="of each frame"):
        leak_dial(rows.iloc[1:], features, 2)
    with pytest.raises(ValueError, match="root"):
        leak_features(rows)


def test_the_explorer_moves_by_its_controls_and_tells_the_numbers(dial):
    table = dial[2]
    explorer = LeakExplorer(table)
    seen = set()
    for at, level in enumerate(DIAL):
        explorer.controls["level"].value = at
        assert f"Leak dial {at} (held out by {level}), split 1 of" in explorer.status
        seen.add(explorer.png)
    assert len(seen) == len(DIAL)
    explorer.controls["level"].value = 0
    explorer.controls["split"].value = DRAWS
    one = table.query("level == 'frame' and draw == @DRAWS-1").set_index("detector")
    assert f"split {DRAWS} of {DRAWS}" in explorer.status
    assert f"memory AUC {one.loc['memory', 'auc']:.2f}" in explorer.status
    assert explorer.status == draw_leak(explorer.figure, table, 0, DRAWS)
    with pytest.raises(ValueError, match="take it from leak_dial"):
        LeakExplorer(table[table["level"] != "base"])
