"""What an assignment's notebook imports: data and constants that differ from student to student.

Written by hand. The seed of everything is the student's id, so that a number copied from a neighbour is wrong.
Hidden tests ask for answers with `ask` and `value`. In a notebook that is run as it is, these look into the
notebook; in the grader they ask the sandbox, where the student's code runs (see `_grader.py`).
"""
import contextvars
import functools
import os
import re
import sys
import unicodedata
from types import SimpleNamespace

import numpy as np

from .core import config_seed, sample

DATA, PLACEHOLDER = "classroom.npz", "your-id"
ANSWERS = contextvars.ContextVar("answers", default=None)  # set by the grader: who is asked, and for whom


def student_id(text: str) -> str:
    """The form of an id that files, seeds and the gradebook share: one spelling, no spaces, no path."""
    text = unicodedata.normalize("NFC", str(text)).strip()
    return re.sub(r"[^\w@.-]+", "_", text).strip("._-")


@functools.lru_cache(maxsize=1)
def _data():
    with np.load(sample(DATA), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def check_data() -> None:
    """Raise if the course's own data are missing or damaged: that must not cost students points."""
    _data()


class Homework:
    """Data and constants of one student in one assignment."""

    def __init__(self, assignment: str, student: str):
        self.assignment, self.student = assignment, student
        self.rng = np.random.default_rng(self._seed("draws"))

    def _seed(self, what):
        return config_seed({"assignment": self.assignment, "student": self.student.casefold(), "what": what})

    def choose(self, what: str, options):
        """Your constant: one of the options."""
        return options[self._seed(what) % len(options)]

    def cases(self, what: str) -> np.random.Generator:
        """Random numbers with a name, the same at each call."""
        return np.random.default_rng(self._seed(what))

    def faces(self, *databases: str) -> SimpleNamespace:
        """Frames of sample databases, all people but one of each, who is drawn for you.

        grey (n, 68) as in lesson 20, emb (n, 128) CourseNet's as in lesson 25, y (n,) 1 = fake, and the text
        columns clip, person (who is seen), donor (whose face was put on; empty if real), database.
        """
        data = _data()
        keep = np.isin(data["database"], databases)
        for name in databases:
            people = np.unique(data["person"][data["database"] == name])
            if not len(people):
                raise ValueError(f"there is no database {name!r}; there are: A, B, C, D")
            left_out = self.choose(f"left out of {name}", people)
            keep &= (data["database"] != name) | (data["person"] != left_out)
        names = ("y", "clip", "person", "donor", "database")
        numbers = {name: data[name][keep].astype(float) for name in ("grey", "emb")}
        return SimpleNamespace(**numbers, **{name: data[name][keep] for name in names})

    def pictures(self, count: int = 12) -> SimpleNamespace:
        """Some of A's faces: x (n, 3, 64, 64) float32 in [0, 1], y (n,) 1 = fake; real and fake alternate."""
        data, rng = _data(), self.cases("pictures")
        rows = [rng.permutation(np.flatnonzero(data["face_y"] == label))[: -(-count // 2)] for label in (0, 1)]
        rows = np.stack(rows, 1).ravel()[:count]
        x = data["face"][rows].transpose(0, 3, 1, 2).astype(np.float32) / 255
        return SimpleNamespace(x=x, y=data["face_y"][rows].astype(int))

    def net(self):
        """The detector that is attacked: a `TinyNet` of lesson 22, trained on A's faces. It answers with log-odds."""
        import torch

        from .training import TinyNet

        net = TinyNet()
        state = {name[4:]: torch.from_numpy(value) for name, value in _data().items() if name.startswith("net.")}
        net.load_state_dict(state)
        return net.eval().requires_grad_(False)


def begin(assignment: str, student: str) -> Homework:
    """Your data and constants. In the grader the id is the one that your teacher knows."""
    graded = ANSWERS.get()
    known = graded.student if graded else os.environ.get("DEEPFAKE_COURSE_STUDENT") or student
    name = student_id(known)
    if not name or name == student_id(PLACEHOLDER):
        raise ValueError(f"write your own id where STUDENT = {PLACEHOLDER!r} stands, and run the notebook from the top")
    return Homework(assignment, name)


# For hidden tests


def _notebook():
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.user_ns if shell else sys.modules["__main__"].__dict__


def ask(name: str, *args, **options):
    """What the student's function answers."""
    if graded := ANSWERS.get():
        return graded.ask(name, *args, **options)
    return _notebook()[name](*[_notebook()[arg.name] if isinstance(arg, Name) else arg for arg in args], **options)


def value(name: str):
    """What the student's variable holds."""
    return graded.value(name) if (graded := ANSWERS.get()) else _notebook()[name]


class Name:
    """A variable of the student's notebook, as an argument of `ask`: what is no number cannot be sent."""

    def __init__(self, name):
        self.name = name


def close(got, wanted, why: str, tolerance: float = 1e-6) -> None:
    """Numbers of the same shape that are as good as equal; else `why` is what the student reads."""
    try:
        got = np.asarray(got, float)
    except (TypeError, ValueError):
        raise AssertionError(f"{why} (numbers are expected, not {type(got).__name__})") from None
    wanted = np.asarray(wanted, float)
    assert got.shape == wanted.shape, f"{why} (shape {got.shape} where {wanted.shape} is expected)"
    assert np.allclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True), why


def make_data(path) -> None:
    """Make `classroom.npz` anew from the sample databases' excerpts (lessons 15, 18, 20, 22)."""
    import torch

    from .core import atomic_write
    from .intra_database import find_faces, landmark_features, load_databases
    from .training import Examples, FitSettings, TinyNet, face_examples, fit
    from .transfer_learning import embed_faces

    parts, found = [], load_databases()
    for name, df in found.items():
        rows = find_faces(df, k=6)
        rows = rows[rows["face"]].reset_index(drop=True)
        parts.append((name, rows, landmark_features(rows), embed_faces(rows, "course")))
    columns = {"y": "label", "clip": "path", "person": "target", "donor": "donor"}
    data = {key: np.concatenate([rows[name].to_numpy() for _, rows, _, _ in parts]) for key, name in columns.items()}
    data = {key: values.astype(np.int8 if key == "y" else str) for key, values in data.items()}
    data["database"] = np.concatenate([[name] * len(rows) for name, rows, _, _ in parts])
    data["grey"] = np.concatenate([grey for _, _, grey, _ in parts]).astype(np.float16)
    data["emb"] = np.concatenate([emb for _, _, _, emb in parts]).astype(np.float16)
    home = parts[0][1]
    faces = face_examples(home, 64)
    settings = FitSettings(16, 16, 20, 5e-3, "one_cycle", balanced=True, threads=1, seed=0)
    net, _ = fit(TinyNet, Examples(faces.x, faces.y, faces.clip), settings)
    first = np.flatnonzero(home.groupby("path", sort=False).cumcount().to_numpy() < 2)
    with torch.no_grad():
        x = torch.from_numpy(faces.x[first].transpose(0, 3, 1, 2)).float() / 255
        right = ((net.eval()(x) > 0).numpy() == (faces.y[first] == 1))
    data |= {"face": faces.x[first][right], "face_y": faces.y[first][right].astype(np.int8)}
    data |= {f"net.{name}": value.numpy() for name, value in net.state_dict().items()}
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, **data)
