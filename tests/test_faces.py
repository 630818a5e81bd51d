"""What the faces lesson cannot say about itself: real files, damaged files, full disks, Ctrl-C.

Real clips are looked for in ../shared/real beside the repository, or in DEEPFAKE_COURSE_REAL; tests
that need them skip, with the reason, where they are absent.
"""

import errno
import os
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import skimage.data

from deepfake_course import faces
from deepfake_course.core import sample
from deepfake_course.faces import (
    NoFaceError, align, crop, detect, extract_faces, extract_many, face_sizes, iou, landmarks, track,
)
from deepfake_course.video import pan, read_frames, write_clip

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("DEEPFAKE_COURSE_REAL") or ROOT.parent / "shared" / "real")
CLIPS = ("fsgan_conan_obrien.mp4", "fsgan_shinzo_abe.mp4")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def portrait():
    return skimage.data.astronaut()


def real(name):
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{name} is not in {REAL.name}/: set DEEPFAKE_COURSE_REAL to check real material")
    return path


def save(path, img, *, ext=".png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(ext, img[..., ::-1] if img.ndim == 3 else img)[1].tobytes())
    return path


def part_files(folder):
    return [f for f in Path(folder).rglob("*") if f.suffix == ".part"]


# The same boxes


def two_shots(portrait):
    "24 frames: a cut after the tenth, a second person from the sixteenth to the end."
    first = pan(portrait, 10, (640, 360), ((.5, .3, 1.), (.45, .3, 1.2)))
    second = pan(portrait, 14, (640, 360), ((.4, .25, 1.7), (.46, .27, 1.4)))
    shot = np.concatenate([first, second])
    other = cv2.resize(portrait[20:330, 100:370][:, ::-1, ::-1], (215, 247))
    for n in range(16, 24):
        x = 640 - min(215, 60 * (n - 15))
        shot[n, 360 - 247:, x:] = other[:, :640 - x]
    return shot


def test_track_loses_no_face_over_a_cut_and_a_second_person(portrait):
    shot = two_shots(portrait)
    tracked, full = track(shot), detect(shot)
    assert max(len(d) for d in full) == 2, "the clip shows no second person: the test tests nothing"
    assert [len(d) for d in tracked] == [len(d) for d in full]
    overlap = np.concatenate([iou(a.boxes, b.boxes).max(1) for a, b in zip(full, tracked)])
    assert overlap.mean() > .99 and overlap.min() > .85


def test_a_face_that_leaves_or_comes_between_full_searches_is_not_invented(portrait):
    empty = np.full((360, 640, 3), 90, np.uint8)
    shot = two_shots(portrait)
    blink = np.stack([shot[0]] * 3 + [empty] * 3 + [shot[0]] * 3)
    assert [len(d) for d in track(blink, every=4)] == [1, 1, 1, 0, 0, 0, 1, 1, 1]


def scene(portrait, *heights, background=120):
    "A plain wall with heads whose faces are about as high as asked for."
    wall, left = np.full((720, 1280, 3), background, np.uint8), 40
    for height in heights:
        head = cv2.resize(portrait[20:200, 150:300], None, fx=height / 110, fy=height / 110)[:660]
        wall[30 : 30 + head.shape[0], left : left + head.shape[1]] = head
        left += head.shape[1] + 40
    return wall


@pytest.mark.parametrize(
    "between, last, background",
    [
        ((90,), (380,), 120),  # the face is suddenly small: fewer found than at both ends
        ((380, 90), (380,), 160),  # a small second face in another shot: a cut there and back
        ((380, 90), (380, 110), 120),  # somebody came and stayed
    ],
)
def test_between_full_searches_no_face_of_another_size_is_lost(portrait, between, last, background):
    middle = scene(portrait, *between, background=background)
    clip = [scene(portrait, 380)] * 4 + [middle] * 3 + [scene(portrait, *last)] * 2
    counts = [1] * 4 + [len(between)] * 3 + [len(last)] * 2
    assert [len(d) for d in track(clip, every=8, min_face=40)] == counts


@pytest.mark.parametrize("min_face", [20, None])
def test_detect_is_facenet_pytorch(portrait, min_face):
    from facenet_pytorch import MTCNN

    picture = two_shots(portrait)[-1]
    sizes = face_sizes(picture.shape, min_face)
    boxes, probs, points = MTCNN(keep_all=True, min_face_size=sizes[0]).detect(picture, landmarks=True)
    ours = detect(picture, min_face=min_face, min_prob=.7)[0]
    assert np.allclose(ours.boxes, boxes.astype(float), atol=1e-2)
    assert np.allclose(ours.points, points.astype(float), atol=1e-2)
    assert np.allclose(ours.probs, probs.astype(float), atol=1e-4)


@pytest.mark.parametrize("name", CLIPS)
def test_real_clip_against_an_independent_detector(name, tmp_path):
    clip, model = real(f"clips/{name}"), real("weights/yunet_n_640_640.onnx")
    table, report = extract_faces(clip, tmp_path / "crops", k=8)
    assert report.asked == report.decoded == 8 and report.written == len(table) == 8
    assert all(Path(c).is_file() for c in table["crop"])
    overlap = []
    for index, img in zip(table["frame"], read_frames(clip, indices=table["frame"]).frames):
        h, w = img.shape[:2]
        small = cv2.resize(img, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
        yunet = cv2.FaceDetectorYN.create(str(model), "", (w // 2, h // 2), .6)
        found = yunet.detect(np.ascontiguousarray(small[..., ::-1]))[1]
        x, y, bw, bh = 2 * max(found, key=lambda f: f[2] * f[3])[:4]
        mine = table.loc[table["frame"] == index, ["x0", "y0", "x1", "y1"]]
        overlap.append(iou(mine, [[x, y, x + bw, y + bh]]).max())
    assert np.mean(overlap) > .6 and min(overlap) > .4


def test_real_pictures(tmp_path):
    folder = real("mesonet_images")
    table, reports, failures = extract_many([folder], tmp_path / "out", progress=False, min_face=40)
    assert not failures and len(reports) == 4
    assert table["source"].nunique() == 4 and (table["prob"] > .9).all()


# Crops, landmarks


def test_crop_and_align_take_any_reasonable_box(portrait):
    for box in ([0, 0, 511, 511], [-40, -40, 60, 60], [500, 500, 530, 540], [10.2, 10.7, 12.1, 12.4]):
        assert crop(portrait, box).shape == (224, 224, 3)
    for bad in ([10, 10, 10, 40], [np.nan, 0, 5, 5], [600, 0, 700, 50]):
        with pytest.raises(ValueError, match="box"):
            crop(portrait, bad)


@pytest.mark.parametrize("shrink", [1, 5])
def test_align_puts_the_eyes_where_it_says(portrait, shrink):
    size = 224 // shrink
    points = detect(portrait)[0].points[0]
    marked = portrait.copy()
    for x, y in points[:2]:
        cv2.circle(marked, (round(float(x)), round(float(y))), 4, (0, 255, 0), -1)
    result = align(marked, points, size).astype(int)
    green = (result[..., 1] - result[..., [0, 2]].max(-1)).clip(0)
    half = size // 2
    for side, want in ((green[:, :half], .34), (green[:, half:], .66 - half / size)):
        y, x = (np.average(g, weights=side) for g in np.indices(side.shape))
        assert abs(x / size - want) < .02 and abs(y / size - .42) < .02


def test_landmarks_move_with_the_picture(portrait):
    box = detect(portrait)[0].boxes
    shifted = np.roll(portrait, (30, 20), (0, 1))
    moved = landmarks(shifted, box + [20, 30, 20, 30]) - landmarks(portrait, box)
    assert np.allclose(moved, [20, 30], atol=2)
    assert landmarks(portrait, np.zeros((0, 4))).shape == (0, 68, 2)


# Bad input: one clear line, nothing else lost


def make_text(path, portrait):
    path.write_text("this is no video")


def make_empty(path, portrait):
    path.write_bytes(b"")


def make_cut_off(path, portrait):
    path.write_bytes(sample("astronaut.mp4").read_bytes()[:700])


def make_faceless(path, portrait):
    write_clip(path, pan(portrait[330:, :180], 12, (320, 240)))


@pytest.mark.parametrize(
    "name, make, says",
    [
        ("text.mp4", make_text, "text.mp4"),
        ("text.png", make_text, "not a picture"),
        ("empty.mp4", make_empty, "empty"),
        ("empty.jpg", make_empty, "not a picture"),
        ("cut off.mp4", make_cut_off, "cut"),
        ("no face.mp4", make_faceless, "no face found"),
    ],
)
def test_a_bad_file_is_one_line_and_loses_nobody(tmp_path, portrait, name, make, says):
    good = save(tmp_path / "in" / "gut ä.png", portrait)
    bad = tmp_path / "in" / name
    make(bad, portrait)
    table, reports, failures = extract_many([bad, good], tmp_path / "out", progress=False)
    assert list(failures) == [str(bad)] and says in failures[str(bad)]
    assert "\n" not in failures[str(bad)]
    assert [Path(r.source).name for r in reports] == ["gut ä.png"] and len(table) == 1
    with pytest.raises(ValueError, match=says):
        extract_faces(bad)


def test_a_missing_file_is_told_with_the_others(tmp_path, portrait):
    good = save(tmp_path / "good.png", portrait)
    _, reports, failures = extract_many([tmp_path / "gone.mp4", good], tmp_path / "out", progress=False)
    assert len(reports) == 1 and "No such file" in failures[str(tmp_path / "gone.mp4")]
    with pytest.raises(ValueError, match="no clip and no picture"):
        extract_many([(tmp_path / "void").mkdir() or tmp_path / "void"], tmp_path / "out")


def test_no_face_carries_its_counts(tmp_path, portrait):
    make_faceless(tmp_path / "suit.mp4", portrait)
    with pytest.raises(NoFaceError) as error:
        extract_faces(tmp_path / "suit.mp4")
    report = error.value.report
    assert (report.asked, report.decoded, report.faces["0"], report.written) == (12, 12, 12, 0)
    assert report.skipped == {"frames without a face": 12}


def test_a_cut_off_clip_gives_what_it_has(tmp_path):
    clip = tmp_path / "half.mkv"
    write_clip(clip, read_frames(sample("astronaut.mp4"), 60, "first").frames, gop=10)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 6 // 10])
    _, report = extract_faces(clip, k=60, how="first")
    assert 20 < report.decoded == report.written <= report.asked <= 60
    missing = report.skipped.get("frames that cannot be decoded", 0)
    assert missing == report.asked - report.decoded and report.decoded < 50


@pytest.mark.parametrize(
    "change, notes",
    [
        (lambda img: img, []),
        (lambda img: img.astype(np.uint16) * 257, ["16 to 8 bits"]),
        (lambda img: cv2.cvtColor(img, cv2.COLOR_RGB2GRAY), ["grey to RGB"]),
        (lambda img: cv2.cvtColor(img, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257, ["grey to RGB", "16 to 8 bits"]),
    ],
)
def test_kinds_of_pictures(tmp_path, portrait, change, notes):
    path = save(tmp_path / "Bild mit Umlaut ü.png", change(portrait))
    table, report = extract_faces(path, tmp_path / "out")
    assert report.converted == notes and len(table) == 1
    assert all(note in str(report) for note in notes)
    assert iou(table[["x0", "y0", "x1", "y1"]], detect(portrait)[0].boxes).max() > .8


def test_alpha_and_a_photo_that_is_stored_turned(tmp_path, portrait):
    rgba = np.dstack([portrait[..., ::-1], np.full(portrait.shape[:2], 255, np.uint8)])
    (tmp_path / "alpha.png").write_bytes(cv2.imencode(".png", rgba)[1].tobytes())
    assert extract_faces(tmp_path / "alpha.png")[1].converted == ["alpha dropped"]
    from PIL import Image

    turned, exif = Image.fromarray(np.rot90(portrait)), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "phone.jpg", exif=exif)
    assert extract_faces(tmp_path / "phone.jpg")[1].written == 1


@pytest.mark.parametrize(
    "settings, says",
    [
        (dict(method="retina"), "viola_jones"),
        (dict(faces="first"), "largest, central, all"),
        (dict(ext="gif"), "png, jpg"),
        (dict(k=0), "k=0"),
        (dict(how="sometimes"), "sometimes"),
        (dict(min_face=3), "at least 12"),
        (dict(margin=-1), "at least 0"),
    ],
)
def test_bad_settings_stop_before_any_work(tmp_path, portrait, settings, says):
    picture = save(tmp_path / "p.png", portrait)
    with pytest.raises(ValueError, match=says):
        extract_many([picture], tmp_path / "out", progress=False, **settings)
    assert not (tmp_path / "out").exists()


# Names


def test_one_stem_in_two_folders(tmp_path, portrait):
    one, two = (save(tmp_path / d / "clip.png", portrait) for d in ("a", "b"))
    third = save(tmp_path / "a" / "CLIP.jpg", portrait, ext=".jpg")
    table, _, failures = extract_many([one, two, third], tmp_path / "out", progress=False)
    assert not failures and table["crop"].nunique() == 3
    assert all((tmp_path / "out" / c).is_file() for c in table["crop"])
    again = extract_many([two, one, third], tmp_path / "out", progress=False)[0]
    assert again.equals(table)


def test_new_settings_and_a_changed_file_replace_the_old_crops(tmp_path, portrait):
    picture, out = save(tmp_path / "p.png", portrait), tmp_path / "out"
    extract_many([picture], out, progress=False)
    table = extract_many([picture], out, progress=False, ext="jpg", size=96)[0]
    assert [f.suffix for f in (out / "crops" / "p").glob("0*")] == [".jpg"] and len(table) == 1
    save(picture, portrait[::-1])
    table, _, failures = extract_many([picture], out, progress=False)
    assert len(table) == 0 and "no face found" in failures[str(picture)]


def test_fakes_take_the_boxes_of_their_real_clip(tmp_path):
    clip = sample("astronaut.mp4")
    frames = read_frames(clip, 35, "first").frames
    write_clip(tmp_path / "fake.mp4", frames[:30, ::-1])
    with pytest.raises(NoFaceError):
        extract_faces(tmp_path / "fake.mp4", how="first")
    table, report = extract_faces(tmp_path / "fake.mp4", boxes_from=clip, how="first", k=35)
    real_table = extract_faces(clip, how="first", k=35)[0]
    columns = ["frame", "x0", "y0", "x1", "y1"]
    assert table[columns].equals(real_table[columns][:30])
    assert report.skipped == {"boxes after the end of this clip": 5}


# Broken off and gone on


def count_work(monkeypatch, stop_at=None, error=KeyboardInterrupt):
    calls, work = [], faces.track

    def counted(frames, *args, **kwargs):
        calls.append(len(frames))
        if len(calls) == stop_at:
            raise error
        return work(frames, *args, **kwargs)

    monkeypatch.setattr(faces, "track", counted)
    return calls


def test_ctrl_c_keeps_finished_parts(tmp_path, monkeypatch, cache):
    clip = sample("astronaut.mp4")
    with monkeypatch.context() as m:
        count_work(m, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            extract_faces(clip, k=70)
    assert not part_files(cache)
    calls = count_work(monkeypatch)
    table, report = extract_faces(clip, k=70)
    assert calls == [10] and report.cached == 60 and len(table) == report.written == 70


def test_ctrl_c_between_files_keeps_the_table(tmp_path, monkeypatch, portrait):
    paths = [save(tmp_path / f"{n}.png", portrait) for n in range(3)]
    with monkeypatch.context() as m:
        count_work(m, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            extract_many(paths, tmp_path / "out", progress=False, cache=False)
    assert len(pd.read_csv(tmp_path / "out" / "faces.csv")) == 2
    calls = count_work(monkeypatch)
    table, reports, _ = extract_many(paths, tmp_path / "out", progress=False, cache=False)
    assert calls == [1] and len(table) == len(reports) == 3


def test_a_damaged_cache_is_noticed_and_mended(cache):
    clip = sample("astronaut.mp4")
    table, _ = extract_faces(clip, k=31)
    good = Path(table["crop"][0]).read_bytes()
    Path(table["crop"][0]).write_bytes(good[:-1] + b"x")
    assert extract_faces(clip, k=31)[1].cached == 1
    assert Path(table["crop"][0]).read_bytes() == good
    for spoil in (b"", b"{", b"[]", b'{"crops": {}}', b'{"rows": 3, "crops": {}}'):
        next(cache.rglob("part-00000.json")).write_bytes(spoil)
        again, report = extract_faces(clip, k=31)
        assert report.cached == 1 and again.equals(table)


@pytest.mark.parametrize("at", [1, 4, 7, 10])
def test_a_full_disk_loses_nothing_finished(tmp_path, monkeypatch, portrait, at):
    paths, out = [save(tmp_path / f"{n}.png", portrait) for n in range(3)], tmp_path / "out"
    real_write, writes = faces.atomic_write, []

    @contextmanager
    def full(path, mode="w"):
        with real_write(path, mode) as f:
            writes.append(Path(path))
            if len(writes) == at:
                f.write(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield f

    with monkeypatch.context() as m:
        m.setattr(faces, "atomic_write", full)
        with pytest.raises(OSError) as error:
            extract_many(paths, out, progress=False)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(writes[-1])
    assert not part_files(tmp_path)
    if (out / "faces.csv").exists():
        table = pd.read_csv(out / "faces.csv")
        assert all(read.shape == (224, 224, 3) for c in table["crop"] if (read := cv2.imread(str(out / c))) is not None)
        assert all((out / c).is_file() for c in table["crop"])
    table, reports, failures = extract_many(paths, out, progress=False)
    assert len(table) == len(reports) == 3 and not failures


def test_an_output_folder_that_cannot_be(tmp_path, portrait):
    picture = save(tmp_path / "p.png", portrait)
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(OSError) as error:
        extract_many([picture], tmp_path / "out", progress=False)
    assert str(tmp_path / "out") in str(error.value.filename)


def test_a_read_only_output_folder(tmp_path, monkeypatch, portrait):
    picture = save(tmp_path / "p.png", portrait)

    @contextmanager
    def refused(path, mode="w"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        yield

    monkeypatch.setattr(faces, "atomic_write", refused)
    with pytest.raises(PermissionError) as error:
        extract_many([picture], tmp_path / "out", progress=False)
    assert error.value.filename == str(tmp_path / "out" / "faces.csv")


def test_one_path_is_not_a_list_of_letters(tmp_path, portrait):
    save(tmp_path / "a.png", portrait)
    for path in (str(tmp_path / "a.png"), tmp_path / "a.png"):
        assert len(extract_many(path, tmp_path / "out", progress=False)[0]) == 1


def test_files_of_others_are_left_alone(tmp_path, portrait):
    save(tmp_path / "clip.png", portrait)
    save(tmp_path / "...png", portrait)
    mine = tmp_path / "crops" / "clip" / "000000_0.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"my holiday")
    (tmp_path / "2024_01.png").write_bytes(b"and another")
    for _ in range(2):
        table, _, failures = extract_many([tmp_path / "clip.png", tmp_path / "...png"], tmp_path, progress=False)
        assert len(table) == 2 and not failures
    assert mine.read_bytes() == b"my holiday" and (tmp_path / "2024_01.png").read_bytes() == b"and another"
    assert all(path.startswith("crops/") and ".." not in path for path in table["crop"])


def test_a_foreign_table_is_not_overwritten(tmp_path, portrait):
    save(tmp_path / "a.png", portrait)
    (tmp_path / "faces.csv").write_text("name,age\n")
    with pytest.raises(ValueError, match="not a table of faces"):
        extract_many(tmp_path / "a.png", tmp_path, progress=False)
    assert (tmp_path / "faces.csv").read_text() == "name,age\n"


def test_our_own_crops_are_no_input(tmp_path, portrait):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.png", portrait)
    for _ in range(3):
        assert len(extract_many([tmp_path / "in"], tmp_path / "in" / "faces", progress=False)[0]) == 1


def test_two_runs_do_not_write_to_one_folder(tmp_path, portrait):
    save(tmp_path / "a.png", portrait)
    extract_many(tmp_path / "a.png", tmp_path / "out", progress=False)
    with faces._only_writer(tmp_path / "out"), pytest.raises(ValueError, match="another run"):
        extract_many(tmp_path / "a.png", tmp_path / "out", progress=False)
    extract_many(tmp_path / "a.png", tmp_path / "out", progress=False)


def test_after_a_stop_with_new_settings_the_table_lists_only_what_is_there(tmp_path, monkeypatch, portrait):
    save(tmp_path / "a.png", portrait)
    save(tmp_path / "b.png", portrait)
    arguments = dict(paths=[tmp_path / "a.png", tmp_path / "b.png"], out=tmp_path / "out", progress=False)
    extract_many(**arguments)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(faces, "extract_faces", stop)
        extract_many(**arguments, size=64)
    table = pd.read_csv(tmp_path / "out" / "faces.csv")
    assert len(table) == 1 and (tmp_path / "out" / table["crop"][0]).is_file()
    assert len(extract_many(**arguments, size=64)[0]) == 2


@pytest.mark.parametrize("name, damage", [
    ("000000_0.png", b""), ("faces.csv", b"\xff\xfe"), ("report.json", b"[]"),
    ("report.json", b'{"path": []}'), ("report.json", b'{"path": 1, "report": {"faces": 5}, "files": {}}'),
])
def test_damaged_results_are_redone(tmp_path, portrait, name, damage):
    save(tmp_path / "a.png", portrait)
    extract_many(tmp_path / "a.png", tmp_path / "out", progress=False)
    (tmp_path / "out" / "crops" / "a" / name).write_bytes(damage)
    table, reports, failures = extract_many(tmp_path / "a.png", tmp_path / "out", progress=False)
    assert len(table) == 1 and reports[0].written == 1 and not failures
    assert cv2.imread(str(tmp_path / "out" / table["crop"][0])).shape == (224, 224, 3)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_utf8(tmp_path, portrait):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png")
    save(Path(path), portrait)
    for _ in range(2):
        table, _, failures = extract_many([path], tmp_path / "out", progress=False)
        assert table["source"].tolist() == [path] and not failures


@pytest.mark.parametrize("setting", [
    {"k": "30"}, {"k": 3.5}, {"k": True}, {"margin": None}, {"margin": float("inf")}, {"margin": "0.3"},
    {"align": "no"}, {"seed": "a"}, {"every": 1.5}, {"min_prob": 5}, {"min_face": float("nan")},
])
def test_a_setting_of_the_wrong_kind_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        faces.FaceSettings(**setting)


def test_many_frames_of_one_picture_cost_nothing(tmp_path, portrait):
    save(tmp_path / "a.png", portrait)
    assert len(extract_many(tmp_path / "a.png", tmp_path / "out", progress=False, k=10**9)[0]) == 1
