"""The sample databases, measured: `deepfake-course samples check`. Written by hand.

A group of rows is a function of the loaded databases; a row has a name, a value with an interval where
that makes sense, a target in words, n, and whether it is met (None: not measured, or nothing to meet).
What is slow to find, such as faces, is kept in the cache under the hash of the clip it was found in.
"""
import importlib.util
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import _samples_learn as learn
from .core import atomic_write, cache_dir, hash_file
from .databases import file_properties
from .faces import choose, detect, landmarks
from .metrics import auc, bootstrap_ci, bootstrap_indices, pool_clips, wilson
from .video import read_frames, write_clip

NAMES, SIZES = ("A", "B", "C", "D"), ("excerpt", "small", "full")
EDITION = 1  # counts up whenever something else is found in the same clip
LOOKS = 10  # frames of a clip in which faces are searched, evenly spaced
CLIPS = 100  # most clips of a class that detectors are tried on
FRONTAL = 0.12  # most asymmetry of nose to outer eye corners; about the sine of the yaw
SAME = ("extension", "container", "codec", "profile", "pixels", "settings", "tags", "encoder", "sound",
        "width", "height", "fps", "frames", "seconds")  # fmt: skip
PEOPLE = {"excerpt": 4, "small": 8, "full": 24}
MINUTES = {"small": 6, "full": 25}
SWAPS = ("network", "swap")  # methods that put another person's face in
OUTER_EYES = [36, 45]
SPEAKERS = 6  # people who are filmed speaking, to see whether a swapped mouth follows
FACES = 4  # donors whose faces each of them gets


@dataclass
class Database:
    """A sample database and what is true about it."""

    name: str
    size: str
    df: pd.DataFrame  # manifest with its root in attrs
    truth: Callable[[str], dict]  # of a clip: landmarks (t, 68, 2), mask (t, h, w)
    film: Callable[[str], Path] | None = None  # a clip of a donor who is in no clip of the database

    def file(self, path: str) -> Path:
        return Path(self.df.attrs["root"]) / path

    def best(self) -> pd.DataFrame:
        """Clips of the best quality only, where there are several."""
        return self.df[self.df["compression"] == min(self.df["compression"])]


def load(name: str, size: str) -> Database:
    """A database that was built; nothing is built here."""
    from . import samples

    if not (samples.samples_root(name, size) / "truth" / "build.json").is_file():
        raise ValueError(f"{name} ({size}) is not built: run `deepfake-course samples build {name} --size {size}`")
    df = samples.load_samples(name, size)
    film = lambda donor: samples.film_take(name, int(donor), 0, cache_dir("samples-check", "donors"))
    return Database(name, size, df, lru_cache(maxsize=32)(lambda path: samples.load_truth(df, path)), film)


# rows


def meets(value: float, target: str) -> bool:
    """Is a value what a target such as ">= 0.9", "> 0", "<= 2", "= 0" or "0.55 to 0.8" asks for?"""
    first, _, rest = target.partition(" ")
    if rest.startswith("to "):
        return float(first) <= value <= float(rest[3:])
    limit = float(rest)
    return {">=": value >= limit, "<=": value <= limit, ">": value > limit, "=": value == limit}[first]


def row(name, value=None, target=None, n=None, low=None, high=None, note="", ok=None) -> dict:
    """One row of the table; whether it is met follows from the target unless it is said."""
    if ok is None and value is not None and target is not None:
        ok = meets(value, target)
    short = lambda number: None if number is None or not np.isfinite(number) else round(float(number), 4)
    return {"name": name, "value": short(value), "low": short(low), "high": short(high), "target": target,
            "ok": None if ok is None else bool(ok), "n": None if n is None else int(n), "note": note}  # fmt: skip


def share(name, hits, target, note="") -> dict:
    """A row for the share of True; Wilson's interval takes the n as independent."""
    hits = np.asarray(hits, bool)
    if not len(hits):
        return row(name, target=target, n=0, note="nothing to measure")
    return row(name, hits.mean(), target, len(hits), *wilson(int(hits.sum()), len(hits)), note)


def spread(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows of each class, evenly spaced."""
    parts = []
    for _, part in table.groupby("label"):
        places = np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int)
        parts.append(part.iloc[np.unique(places)])
    return pd.concat(parts) if parts else table


# what is found in a clip, once


def kept(kind: str, path: Path, make: Callable[[], dict]) -> dict:
    """What `make` finds in a clip, from the cache if the clip is unchanged; a damaged file is made again."""
    file = cache_dir("samples-check", f"{kind}-{EDITION}") / f"{hash_file(path)}.npz"
    try:
        with np.load(file) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        file.unlink(missing_ok=True)
    found = make()
    with atomic_write(file, "wb") as f:
        np.savez_compressed(f, **found)
    return found


@lru_cache(maxsize=1)
def _mtcnn():
    """As everybody has it who writes MTCNN(): facenet-pytorch's own, with its defaults."""
    from facenet_pytorch import MTCNN

    return MTCNN()


def look(path: Path) -> dict:
    """Faces in evenly spaced frames: at (k,) frame numbers; of each face row, boxes, probs and 68 marks."""
    return kept("look", path, lambda: _look(path))


def _look(path):
    clip = read_frames(path, LOOKS)
    boxes, probs = _mtcnn().detect(clip.frames)
    rows = [n for n, found in enumerate(boxes) if found is not None for _ in found]
    found = [box for part in boxes if part is not None for box in part]
    marks = [landmarks(clip.frames[n], box)[0] for n, box in zip(rows, found)]
    certain = [prob for part, prob in zip(boxes, probs) if part is not None for prob in prob]
    boxes, marks = np.array(found, np.float32).reshape(-1, 4), np.array(marks, np.float32).reshape(-1, 68, 2)
    return {"at": clip.indices, "row": np.array(rows, int), "boxes": boxes, "probs": np.array(certain, np.float32),
            "marks": marks}  # fmt: skip


def holds(boxes: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Which boxes (n, 4) are round this point (2,)?"""
    return ((boxes[:, :2] <= point) & (point <= boxes[:, 2:])).all(1)


def own_faces(db: Database, path: str) -> tuple[dict, np.ndarray]:
    """What was found in a clip, and for each frame the surest face round the actor's nose, or -1."""
    seen, nose = look(db.file(path)), db.truth(path)["landmarks"][:, 30]
    chosen = np.full(len(seen["at"]), -1)
    for n, frame in enumerate(seen["at"]):
        right = np.flatnonzero((seen["row"] == n) & holds(seen["boxes"], nose[frame]))
        if len(right):
            chosen[n] = right[seen["probs"][right].argmax()]
    return seen, chosen


# detectors


def detectors(db: Database) -> list[dict]:
    """Is the face found that is there?"""
    clips = spread(db.df, CLIPS)
    return [*mtcnn_rows(db, clips), hog_row(db, clips), yunet_row(db, clips)]


def mtcnn_rows(db: Database, clips: pd.DataFrame) -> list[dict]:
    """Share of frames in which MTCNN finds the actor, and how sure it is of it."""
    found, sure, fake, lost = [], [], [], {}
    for path, label in tqdm(list(zip(clips["path"], clips["label"])), f"{db.name}: MTCNN", unit="clip", leave=False):
        seen, chosen = own_faces(db, path)
        found += (chosen >= 0).tolist()
        fake += [label] * len(chosen)
        sure += seen["probs"][chosen[chosen >= 0]].tolist()
        lost[path] = int((chosen < 0).sum())
    found, fake, worst = np.array(found), np.array(fake), max(lost, key=lost.get)
    note = f"{len(clips)} of {len(db.df)} clips, up to {LOOKS} frames each"
    most = f"; {lost[worst]} of {sum(lost.values())} misses in {worst}" if lost[worst] else ""
    rows = [share(f"{db.name} MTCNN found", found, ">= 0.99", note + most)]
    for n, of in enumerate(("real", "fake")):
        rows.append(share(f"{db.name} MTCNN found, {of}", found[fake == n], ">= 0.99"))
    if not sure:
        return [*rows, row(f"{db.name} MTCNN median probability", target=">= 0.99", n=0, ok=False)]
    low, high = np.quantile(sure, (0.025, 0.975))
    note = "low, high: 95 % of the faces"
    return [*rows, row(f"{db.name} MTCNN median probability", np.median(sure), ">= 0.99", len(sure), low, high, note)]


def _tried(db, clips, find, text):
    """Of every second frame that MTCNN saw: does one of the boxes of `find` hold the actor's nose?"""
    hits = []
    for path in tqdm(clips["path"], f"{db.name}: {text}", unit="clip", leave=False):
        clip, nose = read_frames(db.file(path), LOOKS // 2), db.truth(path)["landmarks"][:, 30]
        hits += [holds(find(img), nose[frame]).any() for img, frame in zip(clip.frames, clip.indices)]
    return hits


def hog_row(db: Database, clips: pd.DataFrame) -> dict:
    """Share of frames in which dlib's HOG detector finds the actor."""
    find = lambda img: detect(img, "dlib", min_face=img.shape[0] / 4)[0].boxes
    hits = _tried(db, clips, find, "HOG")
    return share(f"{db.name} dlib HOG found", hits, ">= 0.95", "faces from a quarter of the height")


def yunet_file() -> Path | None:
    """YuNet's weights: not part of the course, but perhaps among the real files of this machine."""
    folder = os.environ.get("DEEPFAKE_COURSE_REAL")
    return next(iter(sorted(Path(folder).glob("weights/*yunet*.onnx"))), None) if folder else None


def yunet_row(db: Database, clips: pd.DataFrame) -> dict:
    """Share of frames in which YuNet finds the actor, where its weights are."""
    name, file = f"{db.name} YuNet found", yunet_file()
    if file is None:
        note = "not run: weights absent (DEEPFAKE_COURSE_REAL/weights/*yunet*.onnx)"
        return row(name, target=">= 0.95", note=note)
    net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), 0.6)

    def find(img):
        net.setInputSize(img.shape[1::-1])
        found = net.detect(cv2.cvtColor(img, cv2.COLOR_RGB2BGR))[1]
        boxes = np.zeros((0, 4)) if found is None else found[:, :4]
        return np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]

    return share(name, _tried(db, clips, find, "YuNet"), ">= 0.95", "score of 0.6 or more")


# landmarks


def asymmetry(marks: np.ndarray) -> np.ndarray:
    """How far (n, 68, 2) landmarks are from frontal: 0 = the nose tip is midway between the outer eye corners."""
    left, right, nose = marks[:, 36], marks[:, 45], marks[:, 30]
    axis = right - left
    length = np.linalg.norm(axis, axis=1)
    return np.abs(2 * ((nose - left) * axis).sum(1) / length**2 - 1)


def landmark_errors(db: Database) -> pd.DataFrame:
    """One row a near-frontal frame of a real clip: person, error of the inner 51 and of all 68 points."""
    rows, clips = [], spread(db.df[db.df["label"] == 0], CLIPS)
    for path, person in zip(clips["path"], clips["target"]):
        seen, chosen = own_faces(db, path)
        true = db.truth(path)["landmarks"][seen["at"]]
        for n in np.flatnonzero((chosen >= 0) & (asymmetry(true) <= FRONTAL)):
            far = np.linalg.norm(seen["marks"][chosen[n]] - true[n], axis=1)
            far = far / np.linalg.norm(np.subtract(*true[n][OUTER_EYES]))
            rows.append((person, far[17:].mean(), far.mean()))
    return pd.DataFrame(rows, columns=["person", "inner", "all"])


def landmark_rows(db: Database) -> list[dict]:
    """dlib's landmarks against the truth, as shares of the distance of the outer eye corners."""
    table, rows = landmark_errors(db), []
    for column, points, target in (("inner", "the 51 inner points", "<= 0.04"), ("all", "all 68", "<= 0.06")):
        name = f"{db.name} landmark error, {points}"
        if table.empty:
            rows.append(row(name, target=target, n=0, note="no near-frontal frame was found"))
            continue
        sums = table.groupby("person")[column].agg(["sum", "size"]).to_numpy()
        drawn = sums[bootstrap_indices(len(sums))].sum(1)
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
        note = f"{len(sums)} people; asymmetry of nose and eyes up to {FRONTAL}"
        rows.append(row(name, table[column].mean(), target, len(table), low, high, note))
    return rows


# identities


@lru_cache(maxsize=1)
def _face_net():
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None:
        raise FileNotFoundError("no face embedding: pip install face_recognition_models")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    return dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))


def embedding(db: Database, path: str) -> np.ndarray:
    """Mean of dlib's face embedding (128,) over up to five frames, of a fake only where something is forged."""
    seen, chosen = own_faces(db, path)
    usable = chosen >= 0
    if db.df.set_index("path").at[path, "label"]:
        forged = db.truth(path)["mask"][seen["at"]].any((1, 2))
        usable &= forged
    places = np.flatnonzero(usable)
    if not len(places):
        return np.full(128, np.nan)
    places = places[np.unique(np.linspace(0, len(places) - 1, 5).round().astype(int))]
    marks = seen["marks"][chosen[places]]
    return kept("embedding", db.file(path), lambda: {"emb": _embed(db.file(path), seen["at"][places], marks)})["emb"]


def _embed(path, frames, marks):
    import dlib

    chips = []
    for img, points in zip(read_frames(path, indices=frames).frames, marks):
        parts = [dlib.point(int(x), int(y)) for x, y in points]
        box = dlib.rectangle(*(int(v) for v in (*points.min(0), *points.max(0))))
        chips.append(dlib.get_face_chip(img, dlib.full_object_detection(box, parts), 150))
    return np.mean([np.array(v) for v in _face_net().compute_face_descriptor(chips)], axis=0)


def _film_embedding(db, donor):
    """Embedding of a donor who is in no clip: a take is filmed for this, once."""
    path = db.film(donor)
    seen = look(path)
    first = [np.flatnonzero(seen["row"] == n) for n in range(len(seen["at"]))]
    places = [n for n, faces in enumerate(first) if len(faces)][:5]
    marks = seen["marks"][[first[n][0] for n in places]]
    return kept("embedding", path, lambda: {"emb": _embed(path, seen["at"][places], marks)})["emb"]


def identities(db: Database) -> list[dict]:
    """Are people told apart, and does a donor's identity arrive?"""
    real = db.best().query("label == 0").sort_values("path")
    known = {path: embedding(db, path) for path in tqdm(real["path"], f"{db.name}: people", unit="clip", leave=False)}
    return [nearest_row(db, real, known), donor_row(db, known)]


def nearest_row(db: Database, real: pd.DataFrame, known: dict) -> dict:
    """Each person's other clips are asked for in a gallery of everybody's first clip."""
    gallery, hits = real.drop_duplicates("target"), []
    wall = np.stack([known[path] for path in gallery["path"]])
    for path, person in zip(*(real.drop(gallery.index)[c] for c in ("path", "target"))):
        far = np.linalg.norm(wall - known[path], axis=1)
        hits.append(np.isfinite(far).any() and gallery["target"].iloc[np.nanargmin(far)] == person)
    note = f"dlib's embedding, gallery of {len(gallery)} people"
    return share(f"{db.name} identities, nearest neighbour", hits, ">= 0.9", note)


def donor_row(db: Database, known: dict) -> dict:
    """Share of the face swaps that came nearer to the donor, compared with the real clip, than to third people.

    Blur alone moves a face away from everybody; third people show by how much.
    """
    fakes, filmed = db.best().query("method in @SWAPS"), {}
    clips = db.best().query("label == 0").groupby("target")["path"].agg(list)
    people = {person: np.nanmean([known[path] for path in paths], axis=0) for person, paths in clips.items()}
    rows = []
    for fake in tqdm(fakes.to_dict("records"), f"{db.name}: donors", unit="clip", leave=False):
        donor, target, base = fake["donor"], fake["target"], known[fake["base"]]
        if donor not in people and donor not in filmed:
            filmed[donor] = _film_embedding(db, donor)
        wall = people | filmed
        own = [known[path] for path in clips[target] if path != fake["base"]] or [base]
        emb, far = embedding(db, fake["path"]), lambda a, b: np.linalg.norm(a - b)
        third = [far(base, emb_) - far(emb, emb_) for name, emb_ in wall.items() if name not in (donor, target)]
        before, after = far(base, wall[donor]), far(emb, wall[donor])
        rows.append((before, after, far(emb, np.nanmean(own, axis=0)), np.mean(third) if third else 0.0))
    return _moved(f"{db.name} donor's identity moves in", np.array(rows).reshape(-1, 4))


def _moved(name, table):
    table = table[np.isfinite(table).all(1)]
    if not len(table):
        return row(name, target=">= 0.9", n=0, note="no swap in this database")
    before, after, target, third = table.T
    note = (f"distance to donor {before.mean():.2f} before, {after.mean():.2f} after; to target {target.mean():.2f}; "
            f"to third people {-third.mean():+.2f}; {(after < before).mean():.0%} nearer to donor than before, "
            f"{(after < target).mean():.0%} nearer to donor than to target")  # fmt: skip
    return share(name, before - after > third, ">= 0.9", note)


# mouths


@lru_cache(maxsize=1)
def _course_net():
    from .pretraining import CourseNet

    return CourseNet()


def read_mouth(clip: np.ndarray, marks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Opening of the mouth (t,) as CourseNet reads it in the squares (t, 4) that MTCNN found, cut as it learnt."""
    from .forge import mouth_opening
    from .pretraining import cut_face

    extent = boxes[:, 2:] - boxes[:, :2]
    squares = zip(clip, marks, boxes[:, :2] + extent / 2, 1.3 * extent.max(1))
    return mouth_opening(_course_net().ask(np.stack([cut_face(*each)[0] for each in squares]))["landmarks"])


def speakers(name: str, count: int = SPEAKERS):
    """Takes of people of a database who speak all the time; none of them is a donor of A or B."""
    from . import samples
    from .actors import Actor, Performance, film
    from .forge import Take

    recipe, first = samples.RECIPES[name], samples.CELEB_DONORS if name == "B" else 0
    for person in range(recipe.first + first, recipe.first + first + count):
        shot = film(Actor(person), Performance(7000 + person, talk=1, **recipe.manner), np.arange(24) / samples.FPS)
        with TemporaryDirectory(prefix="deepfake-course-speaker-") as folder:
            clip = read_frames(write_clip(Path(folder) / "take.mp4", shot.clip, samples.FPS, recipe.source_crf)).frames
        yield Take(clip, shot.landmarks, shot.mask, str(person), rendered=True)


def mouths(db: Database) -> list[dict]:
    """Does the mouth that a database's swap network draws follow the target's?"""
    from .forge import SWAPS, load_swap, mouth_opening, swap_by_network
    from .samples import RECIPES

    if db.name not in SWAPS:
        return []
    net, grade, found = load_swap(db.name), dict(RECIPES[db.name].methods)["network"], []
    for k, take in enumerate(tqdm(speakers(db.name), f"{db.name}: mouths", SPEAKERS, unit="take", leave=False)):
        true, others = mouth_opening(take.landmarks), [donor for donor in net.donors if donor != take.person]
        clips = [swap_by_network(take, net, donor, grade, k).clip for donor in np.roll(others, -k)[:FACES]]
        boxes = np.array([choose(found).boxes[0] for found in detect(list(take.clip))])
        follow = [np.corrcoef(true, read_mouth(clip, take.landmarks, boxes))[0, 1] for clip in (*clips, take.clip)]
        found.append([np.mean(follow[:-1]), follow[-1]])
    fake, real = np.array(found).T
    low, high = np.quantile(fake[bootstrap_indices(len(fake))].mean(1), (0.025, 0.975))
    note = f"network {grade}, up to {FACES} donors each; CourseNet reads the opening, off the real takes {real.mean():.2f}"
    return [row(f"{db.name} mouths follow, people who speak", fake.mean(), ">= 0.7", len(fake), low, high, note)]


# shortcuts


def shortcuts(db: Database, kind: str | None = None) -> list[dict]:
    """Does anything but the face tell real from fake? `kind`: plant a leak in a copy, which must be found."""
    if kind is None:
        return [pairs_row(db), *audit_rows(db, "bytes"), *audit_rows(db, "background")]
    with TemporaryDirectory(prefix="deepfake-course-plant-") as folder:
        bent = planted(db, kind, Path(folder))
        rows = audit_rows(bent, "background" if kind == "background" else "bytes", kind)
    return rows


def planted(db: Database, kind: str, folder: Path) -> Database:
    """A copy of a database whose fakes give themselves away."""
    table = db.df[["path", "label"]]
    for path, label in tqdm(list(table.itertuples(index=False)), f"{db.name}: planting", unit="clip", leave=False):
        learn.plant(kind, db.file(path), folder / path, bool(label))
    df = db.df.copy()
    df.attrs = db.df.attrs | {"root": str(folder)}
    return Database(db.name, db.size, df, db.truth, db.film)


def pairs_row(db: Database) -> dict:
    """Exact: in how many pairs of a fake and its real clip do any properties of the files differ?"""
    found = file_properties(db.df, limit=None).astype(object)
    bad = found.attrs.get("unreadable", {})
    told = {db.df.at[i, "path"]: tuple(found.loc[i].reindex(list(SAME)).map(str)) for i in found.index}
    pairs = db.df[(db.df["label"] == 1) & (db.df["base"] != "")]
    different, odd = [], set()
    for path, base in zip(pairs["path"], pairs["base"]):
        unlike = [name for name, a, b in zip(SAME, told.get(path, ()), told.get(base, ())) if a != b]
        different += [path] if unlike or path not in told or base not in told else []
        odd |= set(unlike)
    fakes = {told[path] for path in pairs["path"] if path in told}
    alone = [p for p in db.df["path"][db.df["label"] == 0] if p not in set(pairs["base"]) and told.get(p) not in fakes]
    note = f"{len(SAME)} properties" + (f"; differ: {', '.join(sorted(odd))}" if odd else "")
    note += f"; {len(alone)} real clips without fakes are unlike any fake" if alone else ""
    note += f"; {len(bad)} clips cannot be read" if bad else ""
    return row(f"{db.name} pairs whose files differ", len(different) + len(alone), "= 0", len(pairs), note=note)


def _bytes(db, clip):
    return learn.packet_features(db.file(clip["path"]))


def _background(db, clip):
    marks = db.truth(clip["path"])["landmarks"]
    first = np.unique(np.linspace(0, len(marks) - 2, 6).round().astype(int))
    frames = np.ravel(np.c_[first, first + 1])
    return learn.background_features(read_frames(db.file(clip["path"]), indices=frames).frames, marks[frames])


AUDITS = {"bytes": _bytes, "background": _background}


def audit_rows(db: Database, what: str, kind: str | None = None) -> list[dict]:
    """AUC of an auditor, out of fold by group, for each quality of the database."""
    rows = []
    for quality, part in db.df.groupby("compression"):
        clips = part.to_dict("records")
        bar = tqdm(clips, f"{db.name}: {what}", unit="clip", leave=False)
        x, y = np.array([AUDITS[what](db, clip) for clip in bar]), part["label"].to_numpy()
        groups = part["group"].where(part["group"] != "", part["path"]).to_numpy()
        note = f"{len(set(groups))} groups, {x.shape[1]} features"
        if what == "background":
            note += f"; {spilt(db, part):.1%} of what was forged is in it"
        rows.append(_audit_row(f"{db.name} {quality} {what}".replace("  ", " "), x, y, groups, kind, note))
    return rows


def spilt(db: Database, clips: pd.DataFrame) -> float:
    """Share of the forged area that lies in what the auditor takes for background."""
    outside = forged = 0.0
    for path in clips["path"][clips["label"] == 1]:
        mask, marks = (db.truth(path)[key][::6] for key in ("mask", "landmarks"))
        scale = np.array(mask.shape[1:]) / read_frames(db.file(path), 1).frames.shape[1:3]
        for here, points in zip(mask, marks * scale[::-1]):
            outside, forged = outside + here[learn.outside_face(here.shape, points)].sum(), forged + here.sum()
    return outside / forged if forged else 0.0


def _audit_row(name, x, y, groups, kind, note):
    value, low, high = bootstrap_ci(y, learn.out_of_fold(x, y, groups), groups)
    if kind:
        return row(f"{name} AUC, planted {kind}", value, ">= 0.9", len(y), low, high, note)
    ok = low <= 0.5 <= high or value <= 0.6
    return row(f"{name} AUC", value, "0.5 in the interval, or <= 0.6", len(y), low, high, note, ok)


# pattern


def crops(db: Database) -> dict:
    """Faces of the best quality at native scale: x (n, s, s, 3) uint8, y, clip, group."""
    parts = {"x": [], "y": [], "clip": [], "group": []}
    clips = db.best().to_dict("records")
    for clip in tqdm(clips, f"{db.name}: crops", unit="clip", leave=False):
        x = kept("crops", db.file(clip["path"]), lambda: {"x": _cut(db, clip["path"])})["x"]
        for key, value in (("y", clip["label"]), ("clip", clip["path"]), ("group", clip["group"])):
            parts[key].append(np.full(len(x), value))
        parts["x"].append(x)
    return {key: np.concatenate(value) for key, value in parts.items()}


def _cut(db, path):
    """A window round the middle of each found box; what is beyond the picture repeats its edge."""
    seen, chosen = own_faces(db, path)
    places, edge = np.flatnonzero(chosen >= 0), learn.WINDOW
    x = np.zeros((len(places), edge, edge, 3), np.uint8)
    if not len(places):
        return x
    for n, img in enumerate(read_frames(db.file(path), indices=seen["at"][places]).frames):
        box = seen["boxes"][chosen[places[n]]]
        left, top = ((box[:2] + box[2:]) / 2 + edge / 2).round().astype(int).clip(edge // 2, None)
        wide = cv2.copyMakeBorder(img, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        x[n] = wide[top : top + edge, left : left + edge]
    return x


def held_out(groups: np.ndarray, seed: int) -> np.ndarray:
    """True for the rows of a third of the people, drawn at random."""
    names = np.unique(groups)
    if len(names) < 4:
        raise ValueError(f"the pattern needs four people or more in a database, not {len(names)}")
    drawn = np.random.default_rng(seed).permutation(names)[: round(len(names) / 3)]
    return np.isin(groups, drawn)


def _judge(score, data, rows=slice(None)):
    value, y = score(data["x"][rows]), data["y"][rows]
    clips = pool_clips(data["clip"][rows], value)
    label = pd.Series(y, data["clip"][rows]).groupby(level=0).first()
    return {"frame": auc(y, value), "clip": auc(label.loc[clips.index].to_numpy(), clips.to_numpy())}


def one_seed(data: dict, seed: int, teach: Callable) -> dict:
    """AUC of one detector of A: on people of A it never saw, on B, and on B after C was added (the net only)."""
    a, test = data["A"], held_out(data["A"]["group"], seed)
    train = {key: value[~test] for key, value in a.items()}
    score = teach(train["x"], train["y"], np.zeros(len(train["y"])), seed)
    found = {"A": _judge(score, a, test), "B": _judge(score, data["B"])}
    if teach is learn.learn_net:
        both = {key: np.concatenate([train[key], data["C"][key]]) for key in ("x", "y")}
        source = np.r_[np.zeros(len(train["y"])), np.ones(len(data["C"]["y"]))]
        found["B after C"] = _judge(teach(both["x"], both["y"], source, seed), data["B"])
    return found


def pattern(dbs: dict[str, Database], seeds: int) -> list[dict]:
    """Nearly perfect at home, much worse abroad, better with more variety: means and ranges over seeds."""
    data = {name: crops(dbs[name]) for name in "ABC"}
    rows = []
    for name, teach in (("FFT", learn.learn_spectrum), ("net", learn.learn_net)):
        bar = tqdm(range(seeds), f"training: {name}", unit="seed", leave=False)
        found = [one_seed(data, seed, teach) for seed in bar]
        rows += pattern_rows(name, found, {key: len(np.unique(part["clip"])) for key, part in data.items()})
    return rows


def pattern_rows(name: str, found: list[dict], clips: dict) -> list[dict]:
    """The rows of one kind of detector, from the AUCs of each seed."""
    of = lambda place: np.array([seed[place]["frame"] for seed in found])
    mean_clip = lambda place: f"clip level {np.mean([seed[place]['clip'] for seed in found]):.3f}"
    home, abroad = of("A"), of("B")
    third = round(clips["A"] / 3)
    if name == "FFT":
        return [_ranged("FFT of A on held-out A, AUC", home, ">= 0.9", third, mean_clip("A")),
                _ranged("FFT of A on B, AUC", abroad, None, clips["B"], mean_clip("B")),
                _ranged("FFT of A, lower on B by", home - abroad, ">= 0.15", clips["B"])]  # fmt: skip
    more = of("B after C")
    return [_ranged("net of A on held-out A, AUC", home, ">= 0.95", third, mean_clip("A")),
            _ranged("net of A on B, AUC", abroad, "0.55 to 0.8", clips["B"], mean_clip("B")),
            _ranged("net of A and C on B, AUC", more, None, clips["B"], mean_clip("B after C")),
            _ranged("net, gain on B when C is added", more - abroad, "> 0", clips["B"])]  # fmt: skip


def _ranged(name, values, target, n, note=""):
    """A row whose interval is the range over seeds."""
    each = ", ".join(f"{value:.3f}" for value in values)
    note = "; ".join(part for part in (f"mean and range of seeds: {each}", "frame level" if note else "", note) if part)
    return row(name, values.mean(), target, n, values.min(), values.max(), note)


# size and speed


def size_row(db: Database) -> dict:
    """People with two clips or more, of 30 frames and 256 px or more."""
    real = db.best().query("label == 0")
    takes = real.groupby("target")["path"].size()
    found = file_properties(real, limit=None)
    frames, side = found["frames"].min(), found[["width", "height"]].min(axis=None)
    people, enough = (takes >= 2).sum(), frames >= 30 and side >= 256
    note = f"{db.size}: {len(takes)} people, {people} of them in 2 clips or more, {frames} frames of {side} px or more"
    least = PEOPLE[db.size]
    return row(f"{db.name} people", people, f">= {least}", len(db.df), note=note, ok=enough and people >= least)


def film_row(frames: int = 30) -> dict:
    """Rendered frames a second of one core, by processor time, so that a busy machine does not count."""
    from .actors import Actor, Performance, film

    threads, rates = cv2.getNumThreads(), []
    cv2.setNumThreads(1)
    try:
        for seed in (1, 2):
            actor, performance = Actor(seed), Performance(seed)
            film(actor, performance, np.zeros(1))  # builds the head, which is not what is timed
            start = time.process_time()
            film(actor, performance, np.arange(frames) / 15)
            rates.append(frames / (time.process_time() - start))
    finally:
        cv2.setNumThreads(threads)
    name = "rendered frames a second and core"
    return row(name, np.mean(rates), ">= 5", 2 * frames, min(rates), max(rates), "256 px")


def build_row(dbs: dict[str, Database], size: str) -> dict:
    """Minutes that the builds took, where `samples build` left a note of it on this machine."""
    name, limit = "build, minutes", MINUTES.get(size)
    files = [build_note(db.name, size) for db in dbs.values()]
    if not all(file.is_file() for file in files):
        return row(name, target=limit and f"<= {limit}", note="not recorded: `samples build` does when it starts anew")
    told = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    target = f"<= {limit}" if limit and set(dbs) == set(NAMES) else None
    jobs = "/".join(str(each["jobs"]) for each in told)
    note = f"{size}; {jobs} processes on {os.cpu_count()} cores"
    return row(name, sum(each["seconds"] for each in told) / 60, target, len(told), note=note)


def build_note(name: str, size: str) -> Path:
    """Where the time of a build is written down."""
    return cache_dir("samples-check") / f"build-{name}-{size}.json"


def memory_row(name: str) -> dict:
    """Peak memory of a fresh process that films and forges one take of a database."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        peak = pool.submit(_build_one, name).result()
    if peak is None:
        return row("memory of a build process, GB", target="<= 2", note="not run: no peak memory on this system")
    return row("memory of a build process, GB", peak / 1e9, "<= 2", 1, note=f"one take of {name} and all its forgeries")


def _build_one(name):
    """Bytes at the peak. Not ru_maxrss on Linux: a child's holds what its parent had before exec."""
    from . import samples

    plan = samples.plan_samples(name, "excerpt").assign(database=name)
    rows = plan[plan["unit"] == plan["unit"].iloc[0]].to_dict("records")
    with TemporaryDirectory(prefix="deepfake-course-memory-") as folder:
        work, root = Path(folder) / "takes", Path(folder) / "database"
        work.mkdir()
        donors = [row["donor"] for row in rows if row["label"] and row["method"] != "network"]
        for person in dict.fromkeys([rows[0]["target"], *donors]):
            samples.film_take(name, int(person), rows[0]["take"], work)
        samples.make_unit(rows, root, work)
    return _peak()


def _peak():
    status = Path("/proc/self/status")
    if status.is_file():
        return next((int(line.split()[1]) * 1024 for line in status.open() if line.startswith("VmHWM")), None)
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def speed(dbs: dict[str, Database], size: str) -> list[dict]:
    """How fast, and with how much memory?"""
    return [film_row(), build_row(dbs, size), memory_row("C" if "C" in dbs else next(iter(dbs)))]


# all of it

EACH = {"size": lambda db: [size_row(db)], "detectors": detectors, "landmarks": landmark_rows,
        "identities": identities, "mouths": mouths, "shortcuts": shortcuts}  # fmt: skip
GROUPS = (*EACH, "pattern", "speed")


def check(names=NAMES, size="excerpt", only=None, kind=None, seeds=3) -> list[dict]:
    """The rows of `samples check` for these databases; `kind` plants a leak and audits that alone."""
    chosen = list(only or (["shortcuts"] if kind else GROUPS))
    _check_choice(names, chosen, only, kind)
    dbs = {name: load(name, size) for name in dict.fromkeys(names)}
    tasks = [(f"{name}: {group}", lambda f=EACH[group], db=db: f(db)) for group in EACH if group in chosen and not kind
             for name, db in dbs.items()]  # fmt: skip
    if kind:
        tasks = [(f"{name}: planted {kind}", lambda db=db: shortcuts(db, kind)) for name, db in dbs.items()]
    if "pattern" in chosen and set("ABC") <= set(dbs):
        tasks.append(("pattern", lambda: pattern(dbs, seeds)))
    elif "pattern" in chosen:
        tasks.append(("pattern", lambda: [row("pattern", note="not run: it needs A, B and C")]))
    if "speed" in chosen:
        tasks.append(("speed", lambda: speed(dbs, size)))
    return _run(tasks)


def _check_choice(names, chosen, only, kind):
    for given, known, what in ((names, NAMES, "sample database"), (chosen, GROUPS, "group of rows")):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"no {what} {', '.join(unknown)}; there are: {', '.join(known)}")
    if kind and kind not in learn.PLANTS:
        raise ValueError(f"a planted leak is {', '.join(learn.PLANTS)}, not {kind!r}")
    if kind and chosen != ["shortcuts"]:
        raise ValueError("a planted leak is looked for by shortcuts alone")
    if only and "pattern" in only and not set("ABC") <= set(names):
        raise ValueError("the pattern is measured between A, B and C: name all three")


def _run(tasks):
    rows, bar = [], tqdm(tasks, unit="part")
    for text, task in bar:
        bar.set_description(text)
        rows += task()
    return rows


# building and listing


def build(names, size: str, jobs: int | None) -> list[dict]:
    """Build databases; a row each: name, size, where, clips, megabytes, seconds."""
    from . import samples

    _check_choice(names, [], None, None)
    rows = []
    for name in dict.fromkeys(names):
        takes = cache_dir("samples", f"edition-{samples.EDITION}", "takes", name)
        anew = not samples.samples_root(name, size).exists() and not any(takes.iterdir())
        start = time.perf_counter()
        samples.build_samples(name, size, jobs=jobs)
        seconds = round(time.perf_counter() - start, 1)
        if anew:  # a build that goes on, or has nothing to do, would look too fast
            with atomic_write(build_note(name, size)) as f:
                json.dump({"seconds": seconds, "jobs": jobs or os.cpu_count()}, f)
        rows.append(state(name, size) | {"seconds": seconds})
    return rows


def state(name: str, size: str) -> dict:
    """Whether a database is built, where, how many clips it has and how large it is."""
    from . import samples

    root = samples.samples_root(name, size)
    built = (root / "truth" / "build.json").is_file()
    files = [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else []
    return {"name": name, "size": size, "built": built, "clips": sum(path.suffix == ".mp4" for path in files),
            "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1), "where": str(root)}  # fmt: skip


def listing() -> list[dict]:
    """One row a database and size, built or not."""
    return [state(name, size) for size in SIZES for name in NAMES]
