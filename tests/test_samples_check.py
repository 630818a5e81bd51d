"""`samples check` on made-up clips: each row must find what was put there, and say when it is not there."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from deepfake_course import _cli
from deepfake_course import _samples_check as check
from deepfake_course import _samples_learn as learn
from deepfake_course.core import sample
from deepfake_course.databases import to_manifest
from deepfake_course.video import read_frames, write_clip

pytestmark = pytest.mark.filterwarnings("ignore:all . clips are real")
KEYS = ["name", "value", "low", "high", "target", "ok", "n", "note"]


# a made-up database: noise on a gradient; the fakes differ in the middle, where the face would be


def scene(rng, frames=12, side=96):
    still = np.linspace(60, 180, side)[None, :, None] + rng.uniform(-40, 40, 3) + rng.normal(0, 12, (side, side, 3))
    moves = still + rng.normal(0, rng.uniform(2, 5), (frames, side, side, 3))
    return moves.clip(0, 255).astype(np.uint8)


def face_marks(frames=12, middle=(48, 48), size=12):
    around = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return np.tile(np.c_[np.cos(around), np.sin(around)] * size + middle, (frames, 1, 1))


def made_up(folder, pairs=10, **fake):
    rows = []
    for i in range(pairs):
        clip, base = scene(np.random.default_rng(i)), folder / "real" / f"{i}.mp4"
        forged = clip.copy()
        forged[:, 40:56, 40:56] += 3
        names = {"target": f"p{i // 2}", "group": f"p{i // 2}", "base": base, "compression": ""}
        for label, frames in enumerate((clip, forged)):
            path = folder / ("real", "fake")[label] / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, frames, **{"fps": 15, "crf": 23} | (fake if label else {}))
            rows.append({"path": path, "label": label, "raw_label": "", **names})
    df = to_manifest(rows, folder, "made up")
    return check.Database("A", "small", df, lambda path: {"landmarks": face_marks(), "mask": np.ones((12, 4, 4))})


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("clean"))


# rows


@pytest.mark.parametrize(
    "value, target, met",
    [(0.9, ">= 0.9", True), (0.89, ">= 0.9", False), (0.04, "<= 0.04", True), (0.05, "<= 0.04", False),
     (0.0, "> 0", False), (0.1, "> 0", True), (0, "= 0", True), (1, "= 0", False),
     (0.55, "0.55 to 0.8", True), (0.81, "0.55 to 0.8", False), (0.5, "0.55 to 0.8", False)],
)  # fmt: skip
def test_targets_in_words(value, target, met):
    assert check.meets(value, target) is met
    assert check.row("x", value, target)["ok"] is met


def test_a_row_is_plain_json_and_unknown_is_none():
    row = check.row("x", np.float32(0.25), ">= 0.2", np.int64(7), np.nan)
    assert list(row) == KEYS and json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["low"] is None and row["n"] == 7 and row["ok"] is True
    assert check.row("x", None, ">= 0.2")["ok"] is None
    empty = check.share("x", [], ">= 0.2")
    assert empty["n"] == 0 and empty["ok"] is None and "nothing" in empty["note"]
    some = check.share("x", [True] * 8 + [False] * 2, ">= 0.9")
    assert some["value"] == 0.8 and some["low"] < 0.8 < some["high"] and some["ok"] is False


def test_spread_takes_the_ends_and_all_classes():
    table = pd.DataFrame({"label": [0] * 10 + [1] * 3, "i": range(13)})
    assert check.spread(table, 4)["i"].tolist() == [0, 3, 6, 9, 10, 11, 12]
    assert len(check.spread(table, 100)) == 13


# faces: the astronaut, in whose clip dlib's own points serve as a truth that is known to be off


@pytest.fixture(scope="module")
def portrait():
    path = sample("astronaut.mp4")
    seen = check.look(path)
    total = read_frames(path, 1).info.frames
    return path, seen, total


def astronaut(portrait, shift=0.0, nose=(0, 0)):
    path, seen, total = portrait
    marks = np.zeros((total, 68, 2))
    for row, points in zip(seen["row"], seen["marks"]):
        eyes = np.linalg.norm(points[45] - points[36])
        marks[seen["at"][row]] = points + [0, shift * eyes]
        marks[seen["at"][row], 30] += nose
    rows = [{"path": path, "label": 0, "raw_label": "", "target": "astronaut", "group": "g"}]
    return check.Database("A", "small", to_manifest(rows, path.parent, "a"), lambda _: {"landmarks": marks})


def test_a_face_that_is_there_is_found_and_one_elsewhere_is_not(portrait):
    db = astronaut(portrait)
    rows = {row["name"]: row for row in check.mtcnn_rows(db, db.df)}
    assert rows["A MTCNN found"]["value"] == 1 and rows["A MTCNN found, real"]["n"] == check.LOOKS
    assert rows["A MTCNN found, fake"]["ok"] is None and rows["A MTCNN median probability"]["value"] > 0.9
    rows = check.mtcnn_rows(astronaut(portrait, nose=(-1000, 0)), db.df)
    assert rows[0]["value"] == 0 and rows[0]["ok"] is False and rows[-1]["ok"] is False
    assert f"{check.LOOKS} of {check.LOOKS} misses in astronaut.mp4" in rows[0]["note"]


def test_hog_and_the_nose(portrait, monkeypatch):
    everywhere = np.array([[0, 0, 1e4, 1e4]])
    db = astronaut(portrait)
    monkeypatch.setattr(db, "truth", lambda _: {"landmarks": np.full((portrait[2], 68, 2), 50.0)})
    assert check._tried(db, db.df, lambda img: everywhere, "all") == [True] * 5
    assert check._tried(db, db.df, lambda img: everywhere[:0], "none") == [False] * 5


def test_yunet_without_weights_is_not_run(portrait, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPFAKE_COURSE_REAL", str(tmp_path))
    row = check.yunet_row(astronaut(portrait), pd.DataFrame())
    assert row["ok"] is None and row["value"] is None and "weights absent" in row["note"]


def test_yunet_with_weights_finds_the_portrait(portrait, real, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_COURSE_REAL", str(real))
    if check.yunet_file() is None:
        pytest.skip("no YuNet weights there")
    path, seen, total = portrait
    middle = np.median(seen["marks"][:, 30], axis=0)
    db = astronaut(portrait)
    db.truth = lambda _: {"landmarks": np.tile(middle, (total, 68, 1))}
    row = check.yunet_row(db, db.df)
    assert row["n"] == 5 and row["value"] > 0


def test_asymmetry_of_a_turned_head():
    marks = np.zeros((3, 68, 2))
    marks[:, 36], marks[:, 45] = (-45, 0), (45, 0)
    marks[:, 30] = [(0, 30), (45 * 0.12, 30), (-20, 30)]
    assert np.allclose(check.asymmetry(marks), [0, 0.12, 20 / 45])


def test_landmark_errors_are_what_the_truth_is_off_by(portrait, monkeypatch):
    monkeypatch.setattr(check, "FRONTAL", 9)
    rows = check.landmark_rows(astronaut(portrait))
    assert [row["value"] for row in rows] == [0, 0] and all(row["ok"] for row in rows)
    rows = check.landmark_rows(astronaut(portrait, shift=0.05))
    assert [row["value"] for row in rows] == [0.05, 0.05] and [row["ok"] for row in rows] == [False, True]
    monkeypatch.setattr(check, "FRONTAL", -1)
    rows = check.landmark_rows(astronaut(portrait))
    assert rows[0]["n"] == 0 and rows[0]["ok"] is None and "near-frontal" in rows[0]["note"]


def test_what_was_found_is_kept_and_a_damaged_file_is_made_again(tmp_path):
    made, path = [], tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    make = lambda: made.append(1) or {"x": np.arange(5)}
    assert check.kept("try", path, make)["x"].sum() == check.kept("try", path, make)["x"].sum() == 10
    assert len(made) == 1
    path.write_bytes(b"another clip")
    check.kept("try", path, make)
    assert len(made) == 2
    (file,) = [f for f in check.cache_dir("samples-check", f"try-{check.EDITION}").iterdir()
               if check.hash_file(path) == f.stem]  # fmt: skip
    file.write_bytes(file.read_bytes()[:40])
    assert check.kept("try", path, make)["x"].sum() == 10 and len(made) == 3
    assert check.kept("try", path, make)["x"].sum() == 10 and len(made) == 3


# identities, on embeddings made by hand


def people(names, fakes=()):
    rows = [{"path": Path(f"/d/{n}.mp4"), "label": 0, "raw_label": "", "target": n[0], "group": n[0]} for n in names]
    rows += [{"path": Path(f"/d/{t}_{d}.mp4"), "label": 1, "raw_label": "", "target": t[0], "donor": d, "group": t[0],
              "method": how, "base": Path(f"/d/{t}.mp4")} for t, d, how in fakes]  # fmt: skip
    return check.Database("A", "small", to_manifest(rows, Path("/d"), "people"), None)


def test_nearest_neighbour_counts_the_people_that_are_found_again():
    db = people(["a0", "a1", "b0", "b1", "c0"])
    known = {"a0.mp4": [0, 0], "a1.mp4": [0.1, 0], "b0.mp4": [1, 0], "b1.mp4": [0.2, 0], "c0.mp4": [5, 5]}
    row = check.nearest_row(db, db.df, {path: np.array(v, float) for path, v in known.items()})
    assert row["value"] == 0.5 and row["n"] == 2 and "3 people" in row["note"]


def test_a_donor_moves_in_or_not(monkeypatch):
    db = people(["a0", "a1", "b0", "b1"], [("a0", "b", "swap"), ("b0", "a", "network"), ("b1", "a", "mouth")])
    known = {"a0.mp4": 0, "a1.mp4": 0.2, "b0.mp4": 1, "b1.mp4": 1}
    known = {path: np.array([v, 0.0]) for path, v in known.items()}
    forged = {"a0_b.mp4": np.array([0.7, 0]), "b0_a.mp4": np.array([1.1, 0])}
    monkeypatch.setattr(check, "embedding", lambda db, path: forged[path])
    row = check.donor_row(db, known)
    assert row["n"] == 2 and row["value"] == 0.5  # the second moved away, and a mouth is no swap
    assert "to donor 0.95 before, 0.65 after" in row["note"] and "50% nearer to donor than to target" in row["note"]


def test_a_mouth_that_stands_still_does_not_follow(monkeypatch):
    from deepfake_course import forge

    take = next(check.speakers("A", 1))
    monkeypatch.setattr(check, "speakers", lambda name: [take])
    follow = lambda clip: monkeypatch.setattr(forge, "swap_by_network", lambda *given: SimpleNamespace(clip=clip))
    follow(take.clip)
    row = check.mouths(people(["a0"]))[0]
    assert row["ok"] and row["n"] == 1 and f"real takes {row['value']:.2f}" in row["note"]
    still = take.clip[np.zeros(len(take.clip), int)]
    box = np.array([[60.0, 60, 190, 190]]).repeat(len(still), 0)
    assert check.read_mouth(still, take.landmarks, box).std() < 1e-6
    follow(still)
    assert not check.mouths(people(["a0"]))[0]["ok"]
    nobody = people(["d0"])
    nobody.name = "D"  # no network swapped its faces
    assert check.mouths(nobody) == []


def test_a_face_that_moves_to_everybody_is_no_donors(monkeypatch):
    db = people(["a0", "b0", "c0"], [("a0", "b", "swap")])
    known = {"a0.mp4": np.array([0.0, 0]), "b0.mp4": np.array([1.0, 0]), "c0.mp4": np.array([1.0, 0.1])}
    monkeypatch.setattr(check, "embedding", lambda db, path: np.array([0.3, 0.1]))
    row = check.donor_row(db, known)
    assert row["value"] == 0 and "100% nearer to donor than before" in row["note"] and "third people" in row["note"]
    monkeypatch.setattr(check, "embedding", lambda db, path: np.array([0.3, -0.1]))
    assert check.donor_row(db, known)["value"] == 1


def test_a_donor_without_a_clip_is_filmed_once(monkeypatch):
    db = people(["a0", "a1"], [("a0", "z", "network"), ("a1", "z", "network")])
    filmed = []
    monkeypatch.setattr(check, "embedding", lambda db, path: np.array([0.5]))
    monkeypatch.setattr(check, "_film_embedding", lambda db, donor: filmed.append(donor) or np.array([1.0]))
    row = check.donor_row(db, {"a0.mp4": np.array([0.0]), "a1.mp4": np.array([0.0])})
    assert filmed == ["z"] and row["value"] == 1


# shortcuts


def test_equal_files_pass_the_exact_test(clean):
    row = check.pairs_row(clean)
    assert row["ok"] is True and row["value"] == 0 and row["n"] == 10


@pytest.mark.parametrize("fake, word", [({"fps": 30}, "fps"), ({"crf": 24}, "settings"), ({"gop": 6}, "settings")])
def test_unequal_files_do_not(fake, word, tmp_path):
    row = check.pairs_row(made_up(tmp_path, 3, **fake))
    assert row["ok"] is False and row["value"] == 3 and word in row["note"]


def test_a_real_clip_like_no_fake_is_counted(clean):
    db = check.Database("A", "small", clean.df.drop(index=clean.df.index[1]), clean.truth)  # its fake is gone
    assert check.pairs_row(db)["value"] == 0
    path = clean.df["path"].iloc[0]
    write_clip(clean.file(path), scene(np.random.default_rng(0)), fps=30)
    row = check.pairs_row(db)
    write_clip(clean.file(path), scene(np.random.default_rng(0)), fps=15, crf=23)
    assert row["value"] == 1 and "unlike any fake" in row["note"]


def test_a_clip_that_cannot_be_read_is_no_equal_pair(tmp_path):
    db = made_up(tmp_path, 2)
    db.file(db.df["path"].iloc[1]).write_bytes(b"half")
    row = check.pairs_row(db)
    assert row["value"] == 1 and "1 clips cannot be read" in row["note"]


@pytest.mark.parametrize("what", ["bytes", "background"])
def test_auditors_find_nothing_in_a_clean_database(clean, what):
    (row,) = check.audit_rows(clean, what)
    assert row["ok"] is True and row["n"] == 20 and row["value"] < 0.7


@pytest.mark.parametrize("kind", learn.PLANTS)
def test_auditors_find_what_was_planted(clean, kind):
    before = [path.read_bytes() for path in sorted(Path(clean.df.attrs["root"]).rglob("*.mp4"))]
    (row,) = check.shortcuts(clean, kind)
    assert row["ok"] is True and row["value"] >= 0.9 and kind in row["name"]
    assert before == [path.read_bytes() for path in sorted(Path(clean.df.attrs["root"]).rglob("*.mp4"))]


def test_out_of_fold_sees_no_group_twice():
    rng = np.random.default_rng(0)
    groups, y = np.repeat(np.arange(20), 4), np.tile([0, 1], 40)
    secret = rng.normal(size=(20, 2))[groups] * (2 * y - 1)[:, None]  # tells y to who knows the group
    score = learn.out_of_fold(secret, y, groups, 1)
    assert abs(check.auc(y, score) - 0.5) < 0.25
    assert check.auc(y, learn.out_of_fold(secret, y, np.arange(80), 1)) > 0.75  # and it does, where groups leak
    assert check.auc(y, learn.out_of_fold(np.c_[secret, y + rng.normal(0, 0.1, 80)], y, groups, 1)) > 0.99
    with pytest.raises(ValueError, match="two groups"):
        learn.out_of_fold(secret, y, np.zeros(80))


def test_the_background_auditor_does_not_see_the_face():
    clip, marks = scene(np.random.default_rng(3)), face_marks()
    inside = ~learn.outside_face(clip[0].shape, marks[0])
    assert inside[48, 48] and inside.sum() == 37**2  # 24 px wide, times 1.5, both ends counted
    changed = clip.copy()
    changed[:, 40:56, 40:56] = 255
    seen = learn.background_features(clip, marks)
    assert np.isfinite(seen).all() and np.allclose(seen, learn.background_features(changed, marks))
    changed[:, :8] = 255
    assert not np.allclose(seen, learn.background_features(changed, marks))


def test_what_is_forged_beyond_the_box_is_counted(clean):
    mask = np.zeros((12, 96, 96))
    mask[:, 48, 48] = mask[:, 2, 2] = 1
    db = check.Database("A", "small", clean.df, lambda path: {"landmarks": face_marks(), "mask": mask})
    assert check.spilt(db, clean.df) == 0.5
    mask[:, 2, 2] = 0
    assert check.spilt(db, clean.df) == 0


def test_only_clips_that_say_their_quality_can_be_planted_in(tmp_path):
    write_clip(tmp_path / "a.mp4", scene(np.random.default_rng(0)), crf=31)
    assert learn.quality(tmp_path / "a.mp4") == 31
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not say its CRF"):
        learn.quality(tmp_path / "b.mp4")


# the pattern


def test_spectrum_has_its_peak_where_the_waves_are():
    place = np.fft.fftfreq(160, 1 / 160)
    ring = np.abs(np.hypot(*np.meshgrid(place, place)) - 20) < 0.5
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(160, 160))) * ring
    waves = 127 + 20 * np.fft.ifft2(noise).real / np.fft.ifft2(noise).real.std()
    found = learn.spectrum(np.repeat(np.uint8(waves)[None, ..., None], 3, axis=3))
    assert found.shape == (1, 80) and found[0].argmax() == 20


def blurred_faces(n=48, seed=0):
    import cv2

    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 255, (n, 160, 160, 3)).astype(np.uint8), np.arange(n) % 2
    x[y == 1] = [cv2.GaussianBlur(img, (0, 0), 1.5) for img in x[y == 1]]
    return x, y


def test_both_detectors_learn_blur_and_the_net_repeats_itself():
    (x, y), (new, truth) = blurred_faces(), blurred_faces(16, 1)
    assert check.auc(truth, learn.learn_spectrum(x, y, y, 0)(new)) == 1
    state = torch.random.get_rng_state()
    first = learn.learn_net(x, y, np.zeros(48), 0, steps=12, batch=8)(new)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's draws change
    assert check.auc(truth, first) > 0.9
    assert np.allclose(first, learn.learn_net(x, y, np.zeros(48), 0, steps=12, batch=8)(new), atol=1e-4)


def test_a_batch_holds_every_database_and_class_alike():
    y, source = np.array([0] * 50 + [1] * 2 + [0, 1] * 20), np.array([0] * 52 + [1] * 40)
    rows = learn._balanced(y, source, 16, np.random.default_rng(0))
    assert [((y[rows] == c) & (source[rows] == s)).sum() for s in (0, 1) for c in (0, 1)] == [4] * 4


def faces_of(people, frames=4):
    group = np.repeat([f"p{i}" for i in range(people)], 2 * frames)
    y = np.tile(np.repeat([0, 1], frames), people)
    return {"x": np.arange(len(y)), "y": y, "clip": np.char.add(group, y.astype(str)), "group": group}


def test_held_out_people_are_never_trained_on():
    groups = np.repeat(list("abcdefghi"), 5)
    test = check.held_out(groups, 0)
    assert len(set(groups[test])) == 3 and not set(groups[test]) & set(groups[~test])
    assert any((check.held_out(groups, seed) != test).any() for seed in range(1, 5))
    with pytest.raises(ValueError, match="four people"):
        check.held_out(np.array(list("aabbcc")), 0)


def test_one_seed_judges_on_others_and_adds_c_for_the_net_only(monkeypatch):
    data, taught = {"A": faces_of(9), "B": faces_of(3), "C": faces_of(5)}, []

    def teach(x, y, source, seed):
        taught.append((x, source))
        return lambda faces: -faces.astype(float) % 8  # knows nothing of y but the place: real first

    found = check.one_seed(data, 0, teach)
    assert set(found) == {"A", "B"} and len(taught) == 1
    test = check.held_out(data["A"]["group"], 0)
    assert set(taught[0][0]) == set(data["A"]["x"][~test])
    monkeypatch.setattr(learn, "learn_net", teach)
    found = check.one_seed(data, 0, teach)
    assert set(found) == {"A", "B", "B after C"} and np.bincount(taught[2][1].astype(int)).tolist() == [48, 40]
    assert found["B"] == {"frame": 0.25, "clip": 0.0}  # real 0 7 6 5, fake 4 3 2 1: 4 of 16 pairs are in order


def test_pattern_rows_are_means_and_ranges():
    seed = lambda a, b, c: {"A": {"frame": a, "clip": 1}, "B": {"frame": b, "clip": 0.5},
                            "B after C": {"frame": c, "clip": 0.5}}  # fmt: skip
    clips = {"A": 32, "B": 34, "C": 80}
    home, abroad, more, gain = check.pattern_rows("net", [seed(0.96, 0.6, 0.7), seed(0.98, 0.7, 0.75)], clips)
    assert (home["value"], home["low"], home["high"], home["ok"]) == (0.97, 0.96, 0.98, True)
    assert abroad["value"] == 0.65 and abroad["ok"] and more["ok"] is None and gain["value"] == 0.075 and gain["ok"]
    home, _, drop = check.pattern_rows("FFT", [seed(0.9, 0.8, 0)], clips)
    assert home["ok"] and drop["value"] == 0.1 and not drop["ok"]


# the whole, and the command


def test_choices_are_checked_before_anything_runs():
    for given, words in (
        ({"names": ["E"]}, "A, B, C, D"), ({"only": ["looks"]}, "detectors"), ({"kind": "colour"}, "codec"),
        ({"kind": "size", "only": ["speed"]}, "shortcuts alone"), ({"names": ["A"], "only": ["pattern"]}, "all three"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            check.check(**{"names": ["A"], **given})


def test_groups_run_in_turn_and_the_pattern_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(check, "load", lambda name, size: name)
    monkeypatch.setattr(check, "EACH", {"size": lambda db: [check.row(f"{db} people", 1, ">= 1")]})
    rows = check.check(["B", "A"], only=["size"])
    assert [row["name"] for row in rows] == ["B people", "A people"]
    rows = check.check(["A"], only=None, kind=None) if "speed" not in check.GROUPS else []
    monkeypatch.setattr(check, "GROUPS", ("size", "pattern"))
    rows = check.check(["A"])
    assert rows[-1]["ok"] is None and "A, B and C" in rows[-1]["note"]


def test_size_counts_people_in_two_clips(clean):
    row = check.size_row(clean)
    assert row["value"] == 5 and row["ok"] is False and "12 frames of 96 px" in row["note"]


def test_peak_memory_is_that_of_this_process():
    peak = check._peak()
    assert peak is None or 5e7 < peak < 64e9


def test_build_minutes_come_from_the_notes_of_builds_that_started_anew(monkeypatch, tmp_path):
    from deepfake_course import samples

    monkeypatch.setenv("DEEPFAKE_COURSE_CACHE", str(tmp_path))
    built = lambda name, size, jobs: (samples.samples_root(name, size) / "truth").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(samples, "build_samples", built)
    dbs = {name: check.Database(name, "small", None, None) for name in "ABCD"}
    row = check.build_row(dbs, "small")
    assert row["ok"] is None and row["value"] is None and "not recorded" in row["note"]
    (row,) = check.build(["A"], "small", 2)
    assert list(row) == ["name", "size", "built", "clips", "megabytes", "where", "seconds"] and row["seconds"] < 60
    note = check.build_note("A", "small")
    assert json.loads(note.read_text())["jobs"] == 2
    for name in "ABCD":
        check.build_note(name, "small").write_text('{"seconds": 90, "jobs": 2}')
    check.build(["A"], "small", None)  # it is there already: the time of the first build stays
    row = check.build_row(dbs, "small")
    assert row["value"] == 6 and row["ok"] is True and row["target"] == "<= 6"
    assert check.build_row({"A": dbs["A"]}, "small")["target"] is None


def test_a_missed_target_is_exit_code_1(monkeypatch):
    asked = []

    def rows(*args):
        asked.append(args)
        return [check.row("good", 1, ">= 0.9", 3, 0.9, 1), check.row("bad", 0.5, ">= 0.9", 3), check.row("absent")]

    monkeypatch.setattr(check, "check", rows)
    answer = CliRunner().invoke(_cli.app, ["samples", "check", "A", "C", "--only", "size, speed", "--json"])
    assert answer.exit_code == 1 and "1 of 3 rows miss their target: bad" in answer.stderr
    assert [list(row) for row in json.loads(answer.stdout)] == [KEYS] * 3
    assert asked == [(["A", "C"], "excerpt", ["size", "speed"], None, 3)]
    text = CliRunner().invoke(_cli.app, ["samples", "check"]).stdout
    assert "0.900 to 1.000" in text and "NO" in text
    monkeypatch.setattr(check, "check", lambda *args: rows(*args)[::2])
    assert CliRunner().invoke(_cli.app, ["samples", "check", "--plant", "size"]).exit_code == 0
    assert asked[-1] == (["A", "B", "C", "D"], "excerpt", None, "size", 3)
