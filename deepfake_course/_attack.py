"""What `deepfake-course attack` does: a detector, faces of a database, the protocol of lesson 30. Written by hand."""
import importlib.util
from pathlib import Path

import numpy as np

from ._fit import manifest, network
from .attacks import Robustness
from .core import sample
from .intra_database import find_faces
from .training import NetDetector, face_examples

NAMES = {"TinyNet(": "tiny", "Meso4(": "meso4", "MesoInception4(": "mesoinception4"}
COURSE = "course"  # the name of the course's own MesoInception4


def load_detector(text):
    """(detector, side of a face or None) of "course", of weights from `fit`, or of FILE.py:NAME."""
    if text == COURSE:
        return from_weights(sample("weights/mesonet.safetensors"))
    name, _, thing = text.rpartition(":")
    if name.endswith(".py"):
        return from_python(Path(name), thing)
    path = Path(text)
    if path.suffix != ".safetensors":
        raise ValueError(f"a detector is {COURSE!r}, weights from `deepfake-course fit` (.safetensors), or FILE.py:NAME, not {text!r}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return from_weights(path)


def from_weights(path):
    """A detector from weights that `fit` wrote; which network it is stands in the file."""
    from .training import _read_weights

    told = _read_weights(path)[0]
    made = next((name for start, name in NAMES.items() if told["network"].startswith(start)), None)
    if made is None:
        raise ValueError(f"{path.name} holds a network that `fit` does not make: give it as FILE.py:NAME")
    detector = NetDetector(network(made, told["size"]), size=told["size"])
    detector.load(path)
    return detector, told["size"]


def from_python(path, name):
    """An object of a user's own file: a network, a detector, or a function that makes one without arguments."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise ValueError(f"{path.name} defines no {name!r}: write FILE.py:NAME")
    return getattr(module, name), None


def run(detector, surrogate, name, data, size, frames, side, epsilons):
    """Rows of the protocol, with what made them."""
    detector_, own = load_detector(detector)
    through, other = load_detector(surrogate) if surrogate else (None, None)
    side = side or own or other or 256
    df = manifest(name, size, data)
    faces = face_examples(find_faces(df, k=frames), side)
    table = Robustness(faces, [eps / 255 for eps in epsilons]).run(detector_, through)
    return [{"detector": detector, "data": df.attrs["tier"], "attack": row.attack,
             "through": "itself" if row.seen else surrogate, "epsilon_255": round(255 * row.eps, 4),
             "accuracy": round(row.accuracy, 4), "low": round(row.low, 4), "high": round(row.high, 4),
             "clips": int(row.clips), "success": None if np.isnan(row.success) else round(float(row.success), 4),
             "l2": round(row.l2, 4)} for row in table.itertuples()]  # fmt: skip
