"""Readers of databases on miniature trees, on trees damaged the way real copies are, and on real pictures.

What a label should be is told here by file names alone, so that no reader is judged by its own tables.
"""
import json
import os
import shutil
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepfake_course import databases
from deepfake_course.databases import (
    MANIFEST, OFFICIAL_COUNTS, READERS, SIGNS, check_manifest, combine, completeness, count_clips,
    file_properties, find_shortcuts, probe_manifest, read_class_folders, read_database, read_dfdc,
    read_faceforensics, read_timit, recognise, to_manifest, write_miniature,
)
from deepfake_course.video import write_clip

KINDS = {  # miniature -> layout, rows, fakes for 3 people or pairs
    "uadfv": ("uadfv", 6, 3), "uadfv-zip": ("uadfv", 6, 3), "uadfv-frames": ("uadfv", 6, 3),
    "uam": ("uam", 12, 6), "mesonet": ("mesonet", 12, 6), "plain": ("plain", 6, 3),
    "celeb-df": ("celeb-df", 15, 6), "celeb-df-frames": ("celeb-df", 15, 6),
    "ff++": ("ff++", 39, 31), "ff++-images": ("ff++", 72, 60),
    "dfdc": ("dfdc", 15, 7), "dfdc-train": ("dfdc", 15, 7), "dfdc-preview": ("dfdc-preview", 9, 6),
    "timit": ("timit", 18, 12), "kaggle-faces": ("kaggle-faces", 6, 3),
}
CONSTANTS = {
    "uadfv": "UADFV_LABELS", "uam": "UAM_LABELS", "mesonet": "MESONET_LABELS", "plain": "PLAIN_LABELS",
    "ff++": "FF_LABELS", "dfdc-preview": "DFDC_PREVIEW_LABELS", "timit": "TIMIT_LABELS",
    "kaggle-faces": "KAGGLE_LABELS",
}
FAKE = (  # in the path of every fake of every miniature, and of no real clip
    "_fake.", "_fake/", "/fake", "df/", "Celeb-synthesis", "manipulated", "method_", "DeepfakeTIMIT", "testb",
)


def is_fake(path):
    return any(word in f"{path}/" for word in FAKE)


def tree(tmp_path, kind, n=3, media=None):
    return write_miniature(kind, tmp_path / kind, n, media)


def swap(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def quiet(root, *args, **options):
    """The manifest and its notes, which must also be warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        df = read_database(root, *args, **options)
    assert [str(one.message) for one in told] == df.attrs["notes"]
    return df, " | ".join(df.attrs["notes"])


# Every layout


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_recognised_and_read(kind, tmp_path):
    root = tree(tmp_path, kind)
    layout, rows, fakes = KINDS[kind]
    df, notes = quiet(root)
    assert recognise(root) == layout == df.attrs["kind"] and notes == ""
    assert (len(df), df["label"].sum()) == (rows, fakes)
    assert (df["label"] == df["path"].map(is_fake)).all()
    assert check_manifest(df).equals(df) and list(df) == list(MANIFEST)
    assert all((root / path).exists() for path in df["path"])
    known = df[(df["base"] != "") & (df["label"] == 1)]
    labels = df.set_index("path")["label"]
    assert (labels[known["base"]] == 0).all(), "a base is a real clip of the same copy"
    groups = df.set_index("path")["group"]
    assert (groups[known["base"]].to_numpy() == known["group"].to_numpy()).all()
    assert (df.query("label == 0")[["method", "donor"]] == "").all(axis=None)


def test_every_layout_has_a_miniature_and_a_reader():
    assert {layout for layout, _, _ in KINDS.values()} == set(SIGNS)
    assert set(KINDS) == set(databases._MINIATURES)
    assert set(READERS) | {"plain", "uam", "mesonet"} == set(SIGNS)


@pytest.mark.parametrize("kind", [*CONSTANTS, "dfdc", "dfdc test", "celeb-df", "celeb-df list"])
def test_a_flipped_label_convention_is_noticed(kind, tmp_path, monkeypatch):
    more = {"dfdc": "DFDC_LABELS", "dfdc test": "DFDC_TEST_LABELS", "celeb-df": "CELEB_DF_FOLDERS",
            "celeb-df list": "CELEB_DF_LABELS"}
    name = (CONSTANTS | more)[kind]
    root = tree(tmp_path, kind.split()[0])
    monkeypatch.setattr(databases, name, {raw: 1 - label for raw, label in getattr(databases, name).items()})
    try:
        df, _ = quiet(root)
    except ValueError as error:
        assert "swapped" in str(error) or "name of" in str(error) or "wears" in str(error)
        return
    assert not (df["label"] == df["path"].map(is_fake)).all()


@pytest.mark.parametrize("kind", ["celeb-df", "ff++", "dfdc", "uadfv", "kaggle-faces", "timit"])
def test_upper_and_lower_case_do_not_matter(kind, tmp_path):
    root = tree(tmp_path, kind)
    before = len(read_database(root))
    for place in sorted(root.iterdir()):
        place.rename(root / f"{place.name}.tmp")
        (root / f"{place.name}.tmp").rename(root / place.name.swapcase())
    df = read_database(root)
    assert len(df) == before and all((root / path).exists() for path in df["path"])


def test_youtube_real_with_a_small_t(tmp_path):
    root = tree(tmp_path, "celeb-df")
    (root / "YouTube-real").rename(root / "x")
    (root / "x").rename(root / "Youtube-real")
    df = read_database(root)
    assert df.set_index("path")["split"]["Youtube-real/00170.mp4"] == "test"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells case apart")
def test_two_folders_that_differ_in_case_only(tmp_path):
    root = tree(tmp_path, "celeb-df")
    shutil.copytree(root / "YouTube-real", root / "Youtube-real")
    with pytest.raises(ValueError, match="differ only in case"):
        read_database(root)


@pytest.mark.parametrize("kind", ["uadfv", "celeb-df", "ff++", "dfdc", "dfdc-preview", "kaggle-faces", "plain"])
def test_what_a_mac_leaves_behind_is_no_clip(kind, tmp_path):
    root = tree(tmp_path, kind)
    before = read_database(root)
    (root / ".DS_Store").write_bytes(b"x")
    for path in [p for p in root.rglob("*") if p.suffix in (".mp4", ".jpg")]:
        path.with_name(f"._{path.name}").write_bytes(b"x")
    assert read_database(root).equals(before)


@pytest.mark.parametrize("kind", KINDS)
def test_folders_without_clips_name_the_path_they_expected(kind, tmp_path):
    root = tree(tmp_path, kind)
    for path in [p for p in root.rglob("*") if p.is_file()]:
        if path.suffix not in (".json", ".csv", ".txt", ".wav"):
            path.unlink()
    for path in sorted(root.rglob("*/frames/*")) + sorted(root.rglob("*/images/*")):
        path.rmdir()
    with pytest.raises(ValueError, match="expected|holds no clips"):
        read_database(root, KINDS[kind][0])


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(ValueError, match="no database that the course knows.*Looked for.*Celeb-real"):
        read_database(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        read_database(tmp_path / "none")
    with pytest.raises(ValueError, match="is no folder"):
        read_database(__file__)


def test_signs_of_two_layouts_need_a_word(tmp_path):
    root = write_miniature("celeb-df", tmp_path / "both")
    shutil.copytree(tree(tmp_path, "ff++"), root, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="several layouts: say kind= with one of celeb-df, ff"):
        read_database(root)
    assert len(read_database(root, "celeb-df")) == 15 and len(read_database(root, "ff++")) == 39


def test_another_name(tmp_path):
    df = read_database(tree(tmp_path, "uadfv"), name="A")
    assert set(df["database"]) == {"A"} and df.attrs["root"] and completeness(df).empty


# Celeb-DF


def test_the_first_and_the_last_line_of_the_list_count(tmp_path):
    root = tree(tmp_path, "celeb-df")
    text = (root / "List_of_testing_videos.txt").read_bytes()
    names = [line.split()[1] for line in text.decode().splitlines()]
    assert text[-1:] != b"\n" and len(names) == text.count(b"\n") + 1
    for ending in (b"\n", b"\r\n"):
        (root / "List_of_testing_videos.txt").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", ending))
        df = read_database(root)
        assert set(df.query("split == 'test'")["path"]) == set(names)
        assert set(df["split"]) == {"train", "test"}


def test_celeb_df_matches_whole_paths_and_finds_bases(tmp_path):
    df = read_database(tree(tmp_path, "celeb-df")).set_index("path")
    assert df["split"]["Celeb-real/id1_0000.mp4"] == "train"  # id0_id1_0000 is in the list
    assert df["split"]["Celeb-synthesis/id0_id1_0000.mp4"] == "test"
    row = df.loc["Celeb-synthesis/id1_id6_0001.mp4"]
    assert (row["target"], row["donor"], row["base"]) == ("id1", "id6", "Celeb-real/id1_0001.mp4")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("1 YouTube", "0 YouTube", "list says 0 of YouTube-real/00170, and in Celeb-DF 1 is real"),
        ("0 Celeb", "1 Celeb", "list says 1 of Celeb-synthesis/id0_id1_0000"),
        ("1 YouTube", "real YouTube", "line 1 is no line"),
        ("Celeb-real/id0_0000", "Celeb-fake/id0_0000", "line 2 is no line"),
        ("0 Celeb", "2 Celeb", "line 3 is no line"),
    ],
)
def test_a_wrong_list_is_refused(old, new, words, tmp_path):
    root = tree(tmp_path, "celeb-df")
    swap(root / "List_of_testing_videos.txt", old, new)
    with pytest.raises(ValueError, match=words):
        read_database(root)
    with pytest.raises(ValueError, match=words):
        read_database(root, strict=False)


def test_an_empty_list_and_one_of_another_database(tmp_path):
    root = tree(tmp_path, "celeb-df")
    for text, words in (("\n", "is empty"), ("1 YouTube-real/99999.mp4", "does it belong to this database")):
        (root / "List_of_testing_videos.txt").write_text(text)
        with pytest.raises(ValueError, match=words):
            read_database(root)


def test_a_missing_list(tmp_path):
    root = tree(tmp_path, "celeb-df")
    kept = (root / "List_of_testing_videos.txt").rename(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="List_of_testing_videos.txt is missing.*test_list="):
        read_database(root)
    df, notes = quiet(root, strict=False)
    assert set(df["split"]) == {""} and "is missing" in notes
    assert (read_database(root, test_list=kept)["split"] == "test").sum() == 3


def test_a_stray_list_without_youtube_and_one_of_another_copy(tmp_path):
    root = tree(tmp_path, "celeb-df")
    swap(root / "List_of_testing_videos.txt", "1 YouTube-real/00170.mp4\n", "")
    df, notes = quiet(root)
    assert "none of YouTube-real" in notes and "518" in notes and (df["split"] == "test").sum() == 2
    swap(root / "List_of_testing_videos.txt", "id0_0000", "id44_0000")
    assert "1 of 2 clips in the list are not here, such as celeb-real/id44_0000" in quiet(root)[1]


def test_versions_of_celeb_df(tmp_path):
    for name, database in (("Celeb-DF-v1", "Celeb-DF v1"), ("Celeb-DF-v2", "Celeb-DF v2"), ("mini1", "Celeb-DF")):
        assert set(read_database(write_miniature("celeb-df", tmp_path / name))["database"]) == {database}
    assert set(read_database(tmp_path / "mini1", version=1)["database"]) == {"Celeb-DF v1"}


def test_a_foreign_name_in_celeb_df(tmp_path):
    root = tree(tmp_path, "celeb-df")
    (root / "Celeb-real" / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="Celeb-real/holiday.mp4 is no name of Celeb-DF, such as id0_0000"):
        read_database(root)


# Half copies


@pytest.mark.parametrize(
    "kind, gone, words",
    [
        ("celeb-df", "Celeb-real", "expected files such as Celeb-real/id0_0000.mp4"),
        ("celeb-df", "Celeb-synthesis", "expected files such as Celeb-synthesis/id0_id1_0000.mp4"),
        ("uadfv", "real", "expected files such as real/0000.mp4"),
        ("ff++", "original_sequences", "original_sequences is missing"),
        ("ff++", "manipulated_sequences", "manipulated_sequences is missing"),
        ("timit", "VidTIMIT", "get VidTIMIT"),
        ("timit", "DeepfakeTIMIT", "no fakes: expected DeepfakeTIMIT/higher_quality/"),
    ],
)
def test_a_half_copied_database(kind, gone, words, tmp_path):
    root = tree(tmp_path, kind)
    shutil.rmtree(root / gone)
    with pytest.raises(ValueError, match=words):
        read_database(root, kind)
    df, notes = quiet(root, kind, strict=False)
    assert len(df) and notes
    if gone in ("original_sequences", "real", "VidTIMIT"):
        assert (df["base"] == "").all() and (df["group"] != "").all() and "are fake" in notes


def test_uadfv_fakes_without_their_real(tmp_path):
    root = tree(tmp_path, "uadfv")
    (root / "real" / "0001.mp4").unlink()
    df, notes = quiet(root)
    assert "1 fakes are here without the real clip" in notes
    assert df.set_index("path")["base"]["fake/0001_fake.mp4"] == ""


def test_uadfv_with_a_foreign_name(tmp_path):
    root = tree(tmp_path, "uadfv")
    (root / "real" / "anna.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="real/anna.mp4 is no name of UADFV.*kind='plain'"):
        read_database(root)
    assert len(read_database(root, "plain")) == 7


# FaceForensics++


def test_both_directions_of_a_pair_share_split_and_group(tmp_path):
    df = read_database(tree(tmp_path, "ff++", n=5)).query("database == 'FaceForensics++'")
    for one, both in df.groupby("group"):
        assert both["split"].nunique() == 1 and len(set(both["target"]) | set(both["donor"]) - {""}) == 2
    assert df["split"].value_counts().to_dict() == {"train": 36, "val": 12, "test": 12}
    assert "FaceShifter" in set(df["method"])  # it has no masks


def test_masks_and_models_are_no_clips_and_c0_is_raw(tmp_path):
    root = tree(tmp_path, "ff++")
    assert not read_database(root)["path"].str.contains("masks").any()
    df = read_database(tree(tmp_path, "ff++-images"))
    assert set(df["compression"]) == {"raw", "c40"}
    fake = df.query("label == 1")
    assert (fake["base"].str.contains("c0/") == (fake["compression"] == "raw")).all()
    only = read_faceforensics(tmp_path / "ff++-images", compression="c40")
    assert set(only["compression"]) == {"c40"} and len(only) == 36


def test_a_base_of_another_grade_will_do(tmp_path):
    root = tree(tmp_path, "ff++-images")
    shutil.rmtree(root / "original_sequences" / "youtube" / "c40")
    fake = read_database(root).query("label == 1 and compression == 'c40'")
    assert fake["base"].str.contains("youtube/c0/").all()


def test_without_the_lists_there_is_no_split(tmp_path):
    root = tree(tmp_path, "ff++")
    kept = (root / "splits").rename(tmp_path / "lists")
    df, notes = quiet(root)
    assert set(df["split"]) == {""} and "no official split: put train.json" in notes
    assert df.query("database == 'FaceForensics++'")["group"].nunique() == 3
    df = read_database(root, splits=kept)
    assert set(df.query("database == 'FaceForensics++'")["split"]) == {"train", "val", "test"}
    assert set(df.query("database == 'DeepFakeDetection'")["split"]) == {""}
    with pytest.raises(ValueError, match="has no train.json"):
        read_faceforensics(root, splits=root)


@pytest.mark.parametrize(
    "text, words",
    [
        ('[["777", "778"]]', "in no list of the official split"),
        ("[[4, 1]]", "no pair of texts"),
        ('[["004"]]', "no pair of texts"),
        ('[["004", "001"], ["000", "005"]]', "in two splits"),
        ('[["004", "00', "test.json is damaged"),
        ('{"004": "001"}', "holds no list"),
    ],
)
def test_wrong_lists_of_faceforensics(text, words, tmp_path):
    root = tree(tmp_path, "ff++")
    (root / "splits" / "test.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_database(root)


def test_sequences_of_one_youtube_video_are_one_group(tmp_path):
    root = tree(tmp_path, "ff++")
    told = {"000": "abc 0", "002": "abc 1", "004": "xyz 0", "downloaded": "xyz 3"}
    (root / "splits" / "conversion_dict.json").write_text(json.dumps(told))
    groups = read_database(root).set_index("path")["group"].filter(like="youtube")
    assert groups.iloc[[0, 2, 3, 5]].nunique() == 1 and groups.nunique() == 2


def test_dfd_names(tmp_path):
    df = read_database(tree(tmp_path, "ff++")).query("database == 'DeepFakeDetection' and label == 1").iloc[0]
    assert (df["target"], df["donor"], df["group"]) == ("01", "02", "actor 01")
    assert df["base"].endswith("actors/c23/videos/01__kitchen_pan.mp4")


# DFDC


def part(root, number=0):
    return root / f"dfdc_train_part_{number}" / "metadata.json"


def test_an_original_in_another_part_is_found(tmp_path):
    root = tree(tmp_path, "dfdc")
    swap(part(root), '"original": "realaa.mp4"', '"original": "realba.mp4"')
    row = read_dfdc(root).set_index("path").loc["dfdc_train_part_0/fakeaa.mp4"]
    assert (row["base"], row["group"]) == ("dfdc_train_part_1/realba.mp4", "realba.mp4")


@pytest.mark.parametrize("old, new", [('"original": "realaa.mp4"', '"original": "nowhere.mp4"'),
                                      (', "original": "realaa.mp4"', "")])
def test_a_missing_original_is_an_unknown_group(old, new, tmp_path):
    root = tree(tmp_path, "dfdc")
    swap(part(root), old, new)
    df, notes = quiet(root)
    row = df.set_index("path").loc["dfdc_train_part_0/fakeaa.mp4"]
    assert (row["base"], row["group"]) == ("", "") and "original of 1 fakes is not here" in notes


def test_parts_without_metadata(tmp_path):
    root = tree(tmp_path, "dfdc")
    part(root, 1).unlink()
    with pytest.raises(ValueError, match="dfdc_train_part_1 has no metadata.json"):
        read_database(root)
    df, notes = quiet(root, strict=False)
    assert not df["path"].str.contains("part_1").any() and "dfdc_train_part_1 has no" in notes


@pytest.mark.parametrize(
    "text, words",
    [("{", "damaged"), ("[]", "holds no dict"), ('{"a.mp4": {"split": "train"}}', "damaged.*label"),
     ('{"a.mp4": {"label": "fake"}}', "damaged.*fake"), ('{"a.mp4": "FAKE"}', "damaged"),
     ("{}", "6 clips of dfdc_train_part_0 have no label")],
)
def test_damaged_metadata_is_named(text, words, tmp_path):
    root = tree(tmp_path, "dfdc")
    part(root).write_text(text)
    with pytest.raises(ValueError, match=f"(?s)dfdc_train_part_0.*{words}|{words}"):
        read_database(root)


def test_listed_clips_that_are_not_here_and_the_other_way_round(tmp_path):
    root = tree(tmp_path, "dfdc")
    (part(root).parent / "fakeaa.mp4").unlink()
    (root / "test" / "extra.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="1 clips of test have no label, such as extra.mp4"):
        read_database(root)
    df, notes = quiet(root, strict=False)
    assert "part_0: 1 of 6 listed clips are not here" in notes and "test: 1 clips have no label" in notes
    assert len(df) == 14


def test_one_part_alone_and_unlabelled_test_videos(tmp_path):
    root = tree(tmp_path, "dfdc")
    df, notes = quiet(root / "dfdc_train_part_1")
    assert len(df) == 6 and df["path"].iloc[0] == "fakeba.mp4" and notes == ""
    (root / "test_videos").mkdir()
    (root / "test_videos" / "a.mp4").write_bytes(b"x")
    df, notes = quiet(root)
    assert len(df) == 15 and "test_videos has no metadata.json or labels.csv" in notes
    (root / "test").rename(root / "validation")
    assert set(quiet(root)[0]["split"]) == {"train", "val"}


def test_labels_of_the_test_clips_must_be_0_or_1(tmp_path):
    root = tree(tmp_path, "dfdc")
    swap(root / "test" / "labels.csv", "testb.mp4,1", "testb.mp4,fake")
    with pytest.raises(ValueError, match="test/labels.csv is damaged"):
        read_database(root)


# DFDC preview, Kaggle, TIMIT, MesoNet


def test_preview_without_method_b_and_with_swapped_labels(tmp_path):
    root = tree(tmp_path, "dfdc-preview")
    shutil.rmtree(root / "method_B")
    df, notes = quiet(root)
    assert len(df) == 6 and "3 of 9 listed clips are not here" in notes
    assert set(df["split"]) == {"train", "test"} and set(df["method"]) == {"", "method_A"}
    swap(root / "dataset.json", '"label": "fake"', '"label": "real"')
    with pytest.raises(ValueError, match="the labels are swapped"):
        read_database(root)
    (root / "dataset.json").unlink()
    with pytest.raises(ValueError, match="dataset.json is missing"):
        read_database(root)


def test_a_damaged_table_of_kaggle(tmp_path):
    root = tree(tmp_path, "kaggle-faces")
    (root / "faces_224" / "real0.jpg").unlink()
    df, notes = quiet(root)
    assert "1 of 6 rows have no face" in notes
    assert df.set_index("path").loc["faces_224/fake0.jpg", ["base", "group"]].tolist() == ["", ""]
    swap(root / "metadata.csv", ",REAL,", ",Real,")
    with pytest.raises(ValueError, match="metadata.csv is damaged"):
        read_database(root)


def test_timit_frames_sounds_and_heads(tmp_path):
    root = tree(tmp_path, "timit")
    df = read_database(root)
    real = df.query("database == 'VidTIMIT'")
    assert real["path"].str.fullmatch(r"VidTIMIT/person\d/video/sa1").all() and len(real) == 6
    assert not df["path"].str.contains("wav|head|audio").any()
    assert df.groupby("group").size().tolist() == [6, 6, 6]  # a pair: 2 real clips, 4 fakes
    for frame in (root / "VidTIMIT").rglob("00?"):
        frame.rename(frame.with_name(f"{frame.name}.jpeg"))
    assert read_database(root).equals(df)
    shutil.rmtree(root / "VidTIMIT" / "person0" / "video" / "sa1")
    (root / "VidTIMIT" / "person0" / "video" / "sa1").mkdir()
    assert "1 clips of VidTIMIT hold no frames" in quiet(root)[1]


def test_vidtimit_elsewhere(tmp_path):
    root = tree(tmp_path, "timit")
    (tmp_path / "other").mkdir()
    real = (root / "VidTIMIT").rename(tmp_path / "other" / "vid")
    df = read_timit(root / "DeepfakeTIMIT", vidtimit=real)
    assert df.attrs["root"] == str(tmp_path) and all((tmp_path / path).exists() for path in df["path"])
    assert (df["base"] != "").all()


def test_timit_swaps_in_pairs(tmp_path):
    root = tree(tmp_path, "timit")
    folder = root / "DeepfakeTIMIT" / "lower_quality" / "person0"
    (folder / "sa1-video-person1.avi").rename(folder / "sa1-video-person4.avi")
    with pytest.raises(ValueError, match="swaps in pairs"):
        read_database(root)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no colon in names")
def test_mesonet_as_it_was_zipped(tmp_path):
    root = tree(tmp_path, "mesonet")
    (root / "train_test").rename(root / "train:test")
    (tmp_path / "outer" / "deepfake_database").parent.mkdir()
    root.rename(tmp_path / "outer" / "deepfake_database")
    df = read_database(tmp_path / "outer")
    assert df["split"].value_counts().to_dict() == {"train": 6, "val": 6}
    assert set(df["group"]) == {""} and df.attrs["kind"] == "mesonet"


def test_an_empty_class(tmp_path):
    root = tree(tmp_path, "uam")
    shutil.rmtree(root / "evaluation" / "fake")
    with pytest.raises(ValueError, match="no clips or stills in evaluation/fake"):
        read_class_folders(root, "uam")
    assert "evaluation/fake is empty" in quiet(root, strict=False)[1]
    with pytest.raises(ValueError, match="class folders are"):
        read_class_folders(root, "faces")


# The manifest


def one_row(**changes):
    row = dict.fromkeys(MANIFEST, "") | {"path": "a.mp4", "label": 1, "frames": pd.NA, "fps": pd.NA}
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"path": "a\\b.mp4"}, "forward slashes"), ({"path": "/a.mp4"}, "below the root"),
        ({"path": "C:/a.mp4"}, "below the root"), ({"path": "../a.mp4"}, "below the root"), ({"path": ""}, "below"),
        ({"label": 2}, "not 2"), ({"label": "1"}, "not '1'"), ({"label": None}, "0 .real. or 1"),
        ({"split": "Train"}, "split is"), ({"target": None}, "'target' holds something that is no text"),
        ({"donor": 7}, "'donor'"), ({"label": 0, "base": "b.mp4"}, "its own base"),
    ],
)
def test_what_is_no_manifest(changes, words):
    with pytest.raises(ValueError, match=words):
        check_manifest(one_row(**changes))


def test_a_manifest_survives_a_table_on_disk(tmp_path):
    df = read_database(tree(tmp_path, "celeb-df"))
    df.to_csv(tmp_path / "m.csv", index=False)
    back = pd.read_csv(tmp_path / "m.csv", keep_default_na=False, na_values={"frames": "", "fps": ""},
                       dtype={name: "str" for name, kind in MANIFEST.items() if kind == "str"})
    assert check_manifest(back).equals(df)
    with pytest.raises(ValueError, match="has no root"):
        check_manifest(back, rooted=True)
    with pytest.raises(ValueError, match="holds no clips"):
        to_manifest([], tmp_path, "mine")


def test_combined_people_and_groups_do_not_meet(tmp_path):
    one, two = (read_database(write_miniature("celeb-df", tmp_path / name)) for name in ("v1", "x/v2"))
    both = combine([one, two])
    assert len(both) == 30 and not set(both["group"][:15]) & set(both["group"][15:])
    assert all((tmp_path / path).exists() for path in both["path"])
    inner = combine([read_database(tmp_path / "v1"), two])
    assert inner.equals(both)
    found = two.assign(face=True)
    found.attrs = two.attrs
    for wrong in ([], [one, one], one, [one, found], [one, two.reset_index(drop=True).assign(path="x").pipe(pd.DataFrame, copy=True)]):
        with pytest.raises(ValueError, match="a list of manifests"):
            combine(wrong)


def test_a_miniature_goes_into_a_new_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty"):
        write_miniature("uadfv", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


# Counts


def test_official_counts_add_up():
    total = OFFICIAL_COUNTS.groupby("database")["official"].sum()
    assert total["UADFV"] == 98 and total["MesoNet"] == 19509
    assert total["DFDC"] == 128154 and total["DFDC preview"] == 1131 + 4119
    test = OFFICIAL_COUNTS[OFFICIAL_COUNTS["part"].str.startswith("test, ")]
    assert test.query("database == 'Celeb-DF v2'")["official"].sum() == 518


def test_every_official_part_is_found_in_a_miniature(tmp_path):
    """A query that never finds anything would call every copy empty."""
    found = {}
    for kind in ("uadfv", "celeb-df", "ff++", "dfdc", "dfdc-preview", "timit", "mesonet"):
        for version in (1, 2) if kind == "celeb-df" else (None,):
            root = write_miniature(kind, tmp_path / f"{kind}{version}")
            df = read_database(root, **({"version": version} if version else {}))
            for row in completeness(df).to_dict("records"):
                found[row["database"], row["part"]] = row["found"]
    official = set(zip(OFFICIAL_COUNTS["database"], OFFICIAL_COUNTS["part"]))
    assert set(found) == official
    assert {key for key, n in found.items() if not n} == {("DFDC", "validation")}
    assert found["Celeb-DF v2", "YouTube-real"] == 3 and found["Celeb-DF v2", "Celeb-real"] == 6


def test_people_are_counted_once(tmp_path):
    row = count_clips(read_database(tree(tmp_path, "celeb-df"))).iloc[0]
    assert (row["people"], row["donors"], row["unnamed"], row["test"]) == (3, 3, 3, 3)
    table = count_clips(read_database(tree(tmp_path, "ff++")), by=("database", "method"))
    assert table["clips"]["FaceForensics++", "FaceSwap"] == 6


# Properties and shortcuts


def clip(path, width=64, length=6, fps=25, crf=23, seed=0):
    rng = np.random.default_rng([seed, *path.stem.encode()])
    imgs = np.kron(rng.integers(0, 255, (length, 6, width // 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    write_clip(path, imgs, fps=fps, crf=crf)


def still(path, quality=90):
    img = np.random.default_rng([*path.stem.encode()]).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(img).save(path, **({"quality": quality} if path.suffix == ".jpg" else {}))


def test_probe_fills_in_and_lists_the_unreadable(tmp_path):
    root = tree(tmp_path, "uadfv", media=clip)
    (root / "fake" / "0000_fake.mp4").write_bytes(b"")
    (root / "fake" / "0001_fake.mp4").write_text("no video")
    with pytest.warns(UserWarning, match="2 of 6 clips cannot be read"):
        df = probe_manifest(read_database(root))
    assert df["frames"].tolist() == [6, 6, 6, pd.NA, pd.NA, 6] and df["fps"].dropna().eq(25).all()
    assert "is empty" in df.attrs["unreadable"]["fake/0000_fake.mp4"]
    assert set(df.attrs["unreadable"]) == {"fake/0000_fake.mp4", "fake/0001_fake.mp4"}
    with pytest.raises(ValueError, match="has no root"):
        probe_manifest(one_row())


def test_probe_of_stills_and_frames(tmp_path):
    df = probe_manifest(read_database(tree(tmp_path, "uadfv-frames", media=still)))
    assert df["frames"].eq(1).all() and df["fps"].isna().all()
    root = tree(tmp_path, "kaggle-faces", media=still)
    (root / "faces_224" / "fake0.jpg").write_bytes(b"\xff\xd8broken")
    with pytest.warns(UserWarning, match="1 of 6"):
        assert probe_manifest(read_database(root))["frames"].isna().sum() == 1


def test_extensionless_frames_are_opened(tmp_path):
    def media(path):
        if path.suffix == ".avi":
            return clip(path)
        still(path.with_suffix(".jpg"))
        path.with_suffix(".jpg").rename(path)

    df = read_database(tree(tmp_path, "timit", media=media))
    table = file_properties(df)
    assert not table.attrs["unreadable"] and probe_manifest(df)["frames"].tolist() == [2]*6 + [6]*12
    found = find_shortcuts(df).set_index("property")
    assert found["auc"]["container"] == 1  # AVI against frames: the codec tells everything


LEAKS = {"width": {"width": 72}, "settings": {"crf": 30}, "fps": {"fps": 24}, "frames": {"length": 7}}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found(name, tmp_path):
    def media(path):
        clip(path, **(LEAKS[name] if "fake" in path.stem else {}))

    found = find_shortcuts(read_database(tree(tmp_path, "uadfv", 7, media))).set_index("property")
    assert found["verdict"][name] == "leak" and found["auc"][name] == 1 and found["p"][name] < .05


def test_containers_and_jpeg_tables_leak(tmp_path):
    for i in range(8):
        for kind, name in (("real", f"{i}.mp4"), ("fake", f"{i}.avi")):
            (tmp_path / "clips" / kind).mkdir(parents=True, exist_ok=True)
            clip(tmp_path / "clips" / kind / name)
    found = find_shortcuts(read_database(tmp_path / "clips")).set_index("property")
    assert found["verdict"]["container"] == "leak"
    root = tree(tmp_path, "uam", 8, lambda path: still(path, 75 if "fake" in path.stem else 90))
    found = find_shortcuts(read_database(root)).set_index("property")
    assert found["verdict"]["JPEG tables"] == "leak" and found["auc"]["JPEG tables"] == 1


@pytest.mark.parametrize("kind", ["uadfv", "celeb-df", "dfdc", "ff++"])
def test_a_clean_copy_is_clean(kind, tmp_path):
    df = read_database(tree(tmp_path, kind, 6, lambda path: clip(path, length=3)))
    found = find_shortcuts(df)
    assert set(found["verdict"]) == {"no sign"}, found.query("verdict == 'leak'")


def paired(pairs, fakes=1):
    """A manifest without files: `pairs` groups of a real clip and its fakes."""
    rows = [one_row(path=f"{i}/{k}.mp4", label=int(k > 0), group=str(i)) for i in range(pairs) for k in range(fakes + 1)]
    return check_manifest(pd.concat(rows, ignore_index=True))


def test_a_leak_between_two_values_is_found(tmp_path):
    """Real is narrow or wide, fake between: no threshold tells, the values do."""
    df = paired(12)
    width = np.where(df["label"] == 1, 942, np.where(df.index % 4 < 2, 940, 944))
    assert .4 < roc_auc_score(df["label"], width) < .6
    found = find_shortcuts(df, pd.DataFrame({"width": width}, df.index)).iloc[0]
    assert (found["auc"], found["verdict"]) == (1, "leak")


@pytest.mark.parametrize("pairs, fakes", [(8, 1), (20, 1), (6, 3)])
def test_no_wolf_is_cried(pairs, fakes):
    """A dozen properties that depend on the group or on luck, many times: alarms in about 5 % of the tables."""
    df, alarms, tables = paired(pairs, fakes), 0, 60
    group = df["group"].astype(int)
    for seed in range(tables):
        rng = np.random.default_rng(seed)
        own = {f"own{k}": rng.normal(size=len(df)) + rng.normal(size=pairs)[group] for k in range(5)}
        of_group = {f"group{k}": rng.integers(0, 4, pairs)[group] for k in range(4)}
        text = {f"text{k}": pd.Series(rng.integers(0, 3, len(df)), df.index).astype(str) for k in range(3)}
        found = find_shortcuts(df, pd.DataFrame({**own, **of_group, **text}, df.index), draws=100)
        alarms += found["verdict"].eq("leak").any()
    assert alarms <= 9  # 60 tables at 5 %: more than 9 in 1 of 1,000


def test_the_auc_of_the_votes_is_scikit_learns(tmp_path):
    df = paired(15, 2)
    labels, score = df["label"].to_numpy(), np.random.default_rng(0).integers(0, 9, len(df)).astype(float)
    ours = databases._auc_rows(labels[None], score[None])[0]
    assert ours == pytest.approx(roc_auc_score(labels, score))


def test_too_few_groups_and_one_class(tmp_path):
    few = find_shortcuts(paired(4), pd.DataFrame({"width": [1, 2]*4}))
    assert few["verdict"].tolist() == ["too few groups"]
    df = paired(8)
    for wrong in (df[df["label"] == 1], df[df["group"] == "0"]):
        with pytest.raises(ValueError, match="readable real and fake clips of two groups"):
            find_shortcuts(wrong, pd.DataFrame({"width": 1}, wrong.index))


def test_rows_of_unknown_group_are_exchanged_too():
    df = paired(20).assign(group="")
    y = df["label"].to_numpy()
    leak = find_shortcuts(df, pd.DataFrame({"width": y + 940, "luck": np.arange(40) % 7}, df.index))
    assert dict(zip(leak["property"], leak["verdict"])) == {"width": "leak", "luck": "no sign"}


def test_a_large_copy_is_sampled_by_group(tmp_path):
    df = read_database(tree(tmp_path, "uadfv", 10, lambda path: clip(path, length=1)))
    table = file_properties(df, limit=6)
    assert len(table) == 6 and df.loc[table.index].groupby("group").size().eq(2).all()
    assert not file_properties(df, limit=6, seed=1).index.equals(table.index)


# Real pictures


def test_real_faces_of_mesonet(real):
    df = read_database(real / "mesonet_images")
    assert df.attrs["kind"] == "plain" and df["database"].eq("mesonet_images").all()
    assert (df["label"] == df["path"].str.contains("/df")).all() and len(df) == 4
    assert probe_manifest(df)["frames"].eq(1).all()
    table = file_properties(df)
    assert table["container"].eq("JPEG").all() and table["JPEG tables"].str.startswith("mean").all()
    assert set(find_shortcuts(df)["verdict"]) == {"too few groups"}


def test_real_clips(real, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "fake").mkdir()
    for path in sorted((real / "clips").glob("*.mp4")):
        shutil.copy2(path, tmp_path / "real")
    df, notes = quiet(tmp_path, strict=False)
    table = file_properties(df)
    assert "are real" in notes and len(table) == len(df) and not table.attrs["unreadable"]
    assert table["codec"].eq("h264").all() and (probe_manifest(df)["frames"] > 25).all()
