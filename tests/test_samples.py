"""Building the sample databases: interrupted, damaged, repeated; and what the committed excerpt owes."""

import json

import numpy as np
import pandas as pd
import pytest

from deepfake_course import samples
from deepfake_course.core import hash_file
from deepfake_course.databases import recognise

KINDS = {"A": "uadfv", "B": "celeb-df", "C": "ff++", "D": "dfdc"}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Two people, four frames, one process: D, whose methods need no trained network."""
    monkeypatch.setenv("DEEPFAKE_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(samples, "SIZES", {"tiny": 2})
    monkeypatch.setattr(samples, "FRAMES", 4)
    return lambda folder: samples.build_samples("D", "tiny", tmp_path / folder, jobs=1, progress=False)


def hashes(root):
    return {p.relative_to(root).as_posix(): hash_file(p) for p in root.rglob("*") if p.is_file()}


def test_a_killed_build_goes_on_and_ends_the_same(tiny, tmp_path, monkeypatch):
    whole = tiny("whole")
    make, made = samples._make_and_note, []

    def killed(rows, root, work):
        if made:
            raise KeyboardInterrupt
        make(rows, root, work)
        made.append(rows[0]["unit"])

    monkeypatch.setattr(samples, "_make_and_note", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny("half")
    half = tmp_path / "half"
    kept = {p: p.stat().st_mtime_ns for p in half.rglob("*.mp4")}
    assert kept and not (half / "truth/build.json").exists()  # an unfinished build does not look finished

    monkeypatch.setattr(samples, "_make_and_note", make)
    assert hashes(tiny("half")) == hashes(whole)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # what was done is not done again


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "mask"])
def test_damage_is_found_and_mended(tiny, damage):
    root = tiny("db")
    before = hashes(root)
    victim = sorted(root.glob("dfdc*/*.mp4"))[0]
    if damage == "mask":
        victim = sorted(p for p in (root / "truth").glob("*__*.npz"))[0]
    data = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(data[: len(data) // 2] if damage == "truncated" else data[:-9] + b"123456789")
    assert samples.changed_files(root) == [victim.relative_to(root).as_posix()]
    assert hashes(tiny("db")) == before


def test_loading_says_what_is_wrong(tiny, monkeypatch):
    root = tiny("db")
    monkeypatch.setattr(samples, "samples_root", lambda name, size: root)
    assert len(samples.load_samples("D", "tiny")) == 8
    clip = sorted(root.glob("dfdc*/*.mp4"))[0]
    data = clip.read_bytes()
    clip.write_bytes(data[:100])
    with pytest.raises(ValueError, match="1 files are missing or changed.*samples build D --size tiny"):
        samples.load_samples("D", "tiny")
    clip.write_bytes(data)
    (root / "truth/build.json").unlink()
    monkeypatch.setattr(samples, "SIZES", {"excerpt": 2})
    with pytest.raises(ValueError, match="comes with the course"):
        samples.load_samples("D", "excerpt")


def test_a_take_without_its_truth_is_filmed_again(tiny, tmp_path):
    work = tmp_path / "takes"
    work.mkdir()
    path = samples.film_take("D", 40_000, 0, work)
    first = hash_file(path)
    path.with_suffix(".npz").unlink()
    assert hash_file(samples.film_take("D", 40_000, 0, work)) == first
    assert len(samples.read_take(path).clip) == 4
    with np.load(path.with_suffix(".npz")) as truth:
        short = {name: truth[name][:3] for name in truth.files}
    np.savez_compressed(path.with_suffix(".npz"), **short)
    with pytest.raises(ValueError, match="4 frames and 3 in its truth"):
        samples.read_take(path)
    for file in (path, path.with_suffix(".npz")):
        whole = file.read_bytes()
        file.write_bytes(whole[:len(whole) // 2])
        with pytest.raises(ValueError, match="delete both and build again"):
            samples.read_take(path)
        file.write_bytes(whole)


@pytest.mark.parametrize("name", samples.RECIPES)
def test_sizes_are_nested_and_splits_are_clean(name):
    plans = {size: samples.plan_samples(name, size) for size in samples.SIZES}
    paths = {size: set(plan.path) for size, plan in plans.items()}
    assert paths["excerpt"] < paths["small"] < paths["full"]
    full = plans["full"]
    assert full.path.is_unique and full[full.label.eq(1)].base.isin(full.path[full.label.eq(0)]).all()
    assert (full[full.label.eq(1)].target != full[full.label.eq(1)].donor).all()
    if name in "CD":  # people who forge each other never stand on two sides
        sides = pd.concat([full[["target", "split"]], full[full.label.eq(1)][["donor", "split"]].set_axis(["target", "split"], axis=1)])
        assert sides.groupby("target").split.nunique().eq(1).all()
    pairs = full.groupby("unit")[["crf"]].agg(set)  # one quality for a real clip and its fakes
    assert pairs.crf.map(len).eq(len(samples.RECIPES[name].crf) if name == "C" else 1).all()


@pytest.mark.parametrize("name", samples.RECIPES)
def test_the_excerpt_is_read_as_what_it_resembles(name):
    root = samples.samples_root(name, "excerpt")
    assert recognise(root) == KINDS[name]
    df = samples.load_samples(name)
    plan = samples.plan_samples(name, "excerpt").set_index("path")
    assert set(df.path) == set(plan.index) and df.target.nunique() >= 4
    assert (df.set_index("path").label == plan.label.reindex(df.path)).all()
    stranger = samples.load_samples(name, truth=False)
    fakes = stranger[stranger.label.eq(1)].set_index("path")
    known = fakes.base[fakes.base != ""]  # the reader's own idea of the base is the true one
    assert (known == plan.base.reindex(known.index)).all()
    assert name == "D" or len(known)
    build = json.loads((root / "truth/build.json").read_text())
    assert build["edition"] == samples.EDITION and build["size"] == "excerpt"


def test_no_actor_is_in_two_databases():
    people = {name: set(samples.load_samples(name).target) | set(samples.load_samples(name).donor) - {""} for name in samples.RECIPES}
    names = list(people)
    assert all(not people[a] & people[b] for a in names for b in names if a < b)


def test_unknown_names_and_sizes():
    with pytest.raises(ValueError, match="sample databases are A, B, C, D, not 'E'"):
        samples.samples_root("E", "small")
    with pytest.raises(ValueError, match="one of excerpt, small, full"):
        samples.build_samples("A", "huge")
