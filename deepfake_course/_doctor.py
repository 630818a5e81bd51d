"""What this machine has, what is missing, and what to do about it. Written by hand."""
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
from platformdirs import user_cache_path

from .core import cache_dir, hash_file, sample_dir

PACKAGES = (
    "jupyterlab", "nbdev", "torch", "torchvision", "tensorflow", "keras", "facenet-pytorch",
    "scikit-learn", "dlib-bin", "seaborn", "ipywidgets", "av", "opencv-python-headless",
)
OPTIONAL = ("nbdev",)  # needed to change or test lessons, not to read them
FAULTS = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)


def check() -> list[dict]:
    """Rows of {what, state, ok, required, remedy}; `ok` False and `required` True is a fault.

    A section that breaks is a fault with a remedy itself; the others still say what they found.
    """
    again, folder = "run `python3 course.py setup`", "set DEEPFAKE_COURSE_CACHE to a folder you may write to"
    sections = (
        ("system", _system, again), ("disk", _disk, folder), ("packages", _packages, again),
        ("sample files", _samples, "run `git checkout data_samples`, or install the course again"),
        ("cache", _cache, folder), ("real databases", _data, "set DEEPFAKE_COURSE_DATA to a folder you may read"),
        ("weights", _weights, again), ("optional", _optional, again),
    )
    rows = []
    for what, section, remedy in sections:
        try:
            rows.extend(section())  # rows that came before the fault are kept
        except FAULTS as error:
            rows.append(_row(what, _reason(error), False, True, remedy))
    return rows


def check_data(folder) -> list[dict]:
    """Rows of a database: what it is, how labels were read, whether it is whole, which shortcuts leak.

    A folder of several databases gives the rows of each, with its name in front.
    """
    from .databases import recognise

    folder = Path(folder)
    try:
        kinds = {folder: recognise(folder)}
    except ValueError:
        kinds = dict(filter(None, map(_kind, sorted(folder.iterdir()))))
        if not kinds:
            raise
    rows = []
    for place, kind in kinds.items():
        front = "" if place == folder else f"{place.name}: "
        rows += [row | {"what": front + row["what"]} for row in _database(place, kind)]
    return rows


def _kind(place):
    """(folder, layout) of a database among other things, or None."""
    from .databases import recognise

    try:
        return (place, recognise(place)) if place.is_dir() and place.name[0] != "." else None
    except ValueError:
        return None


def _database(place, kind):
    from .databases import completeness, read_database

    yield _row("layout", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what readers note is a row here
        try:
            table = read_database(place, kind)
        except ValueError as strict:
            yield _row("copy", _reason(strict), False, True, "mend this; what follows goes without")
            try:
                table = read_database(place, kind, strict=False)
            except ValueError:  # nothing is left to describe
                return
    fakes = int(table["label"].sum())
    yield _row("clips", f"{len(table)}: {len(table) - fakes} real, {fakes} fake")
    read = table.groupby("raw_label")["label"].agg(["first", "size"])
    told = [f"{raw!r} is {('real', 'fake')[row['first']]} ({row['size']})" for raw, row in read.iterrows()]
    yield _row("labels", ", ".join(told))
    yield from _who(table)
    counted = completeness(table)
    if counted.empty:
        yield _row("whole", f"no official counts for {', '.join(sorted(set(table['database'])))}", False, False,
                   "Celeb-DF: name the folder Celeb-DF-v1 or Celeb-DF-v2" if kind == "celeb-df" else "")
    for row in counted.to_dict("records"):
        name = " ".join(filter(None, (row["database"], row["compression"], row["part"])))
        over = "more than the makers counted: two copies in one, or another version"
        yield _row(name, f"{row['found']} of {row['official']}", row["missing"] == 0, False,
                   f"{row['missing']} are missing ({row['source']})" if row["missing"] > 0 else over)
    for note in table.attrs["notes"]:
        yield _row("note", note, False, False)
    yield from _leaks(table)


def _who(table):
    people = (set(table["target"]) | set(table["donor"])) - {""}
    splits = table["split"].replace("", "no split").value_counts()
    groups = table["group"][table["group"] != ""].nunique()
    unknown = int((table["group"] == "").sum())
    yield _row("splits", ", ".join(f"{name} {n}" for name, n in splits.items()))
    yield _row("groups", f"{groups}, unknown for {unknown} clips" if unknown else groups)
    yield _row("people", f"{len(people)} by name" if people else "names tell nothing")


def _leaks(table):
    from .databases import file_properties, find_shortcuts

    properties = file_properties(table)
    bad = properties.attrs["unreadable"]
    opened = len(properties) + len(bad)
    first = next(iter(bad.items()), ("", ""))
    yield _row("readable", f"{len(properties)} of the {opened} clips that were opened", not bad, True,
               f"fetch them again; the first is {first[0]}: {first[1]}")
    try:
        found = find_shortcuts(table, properties)
    except ValueError as error:
        yield _row("shortcuts", f"cannot be told: {error}", False, False)
        return
    verdicts = found["verdict"].value_counts()
    if verdicts.get("too few groups"):
        best = found.iloc[0]
        yield _row("shortcuts", f"too few groups to tell; largest AUC {best['auc']:.2f} ({best['property']})")
    elif not verdicts.get("leak"):
        yield _row("shortcuts", f"no sign in {len(found)} properties of {len(properties)} clips")
    for row in found.query("verdict == 'leak'").to_dict("records"):
        yield _row(f"shortcut: {row['property']}",
                   f"AUC {row['auc']:.2f} ({row['low']:.2f} to {row['high']:.2f}), p {row['p']:.3f}: "
                   f"real {row['real']}, fake {row['fake']}", False, False,
                   "it tells the label without a face: crop, and encode both classes alike, before training")


def _reason(error):
    """An exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _row(what, state, ok=True, required=True, remedy=""):
    return {"what": what, "state": str(state), "ok": bool(ok), "required": required, "remedy": "" if ok else remedy}


def _system():
    memory = _memory()
    yield _row("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _row("processor", f"{os.cpu_count()} cores", (os.cpu_count() or 1) >= 2, False,
               "lessons take about twice as long on one core")
    yield _row("memory", f"{memory:.0f} GB" if memory else "unknown", not memory or memory >= 3.5, False,
               "a lesson needs up to 2 GB: close other programs, one lesson at a time")


def _disk():
    """Free space where the cache is or would be; the folder itself may not be there yet."""
    root = os.environ.get("DEEPFAKE_COURSE_CACHE")
    path = Path(root).expanduser() if root else user_cache_path("deepfake_course", appauthor=False)
    path = path.absolute()
    free = shutil.disk_usage(next(p for p in (path, *path.parents) if os.path.isdir(p))).free / 1e9
    yield _row("disk", f"{free:.0f} GB free", free >= 2, True,
               "free 2 GB, or set DEEPFAKE_COURSE_CACHE to a folder on a larger disk")


def _memory():
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return None


def _packages():
    for name in PACKAGES:
        try:
            yield _row(name, version(name))
        except PackageNotFoundError:
            yield _row(name, "missing", False, name not in OPTIONAL, "run `python3 course.py setup`")
    if "triton" in sys.modules and sys.modules["triton"] is None:
        yield _row("import guard", "Triton is switched off", False, False, "import deepfake_course before tensorflow")
    elif importlib.util.find_spec("triton") is None:
        yield _row("import guard", "not needed: there is no Triton here")
    else:
        yield _row("import guard", "Triton loads before TensorFlow")


def _samples():
    folder = sample_dir()
    table = pd.read_csv(folder / "samples.csv", encoding="utf-8")
    lost = {"name", "sha256"} - set(table.columns)
    if lost or table.empty:
        raise ValueError(f"samples.csv has no {' and no '.join(sorted(lost)) or 'rows'}")
    bad = [row["name"] for _, row in table.iterrows()
           if not (folder / row["name"]).is_file() or hash_file(folder / row["name"]) != row["sha256"]]
    yield _row("sample files", f"{len(table) - len(bad)} of {len(table)} as listed", not bad, True,
               f"changed or missing: {', '.join(bad)}; run `git checkout data_samples`")


def _cache():
    cache = cache_dir()
    with tempfile.TemporaryFile(dir=cache):
        pass
    size = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()) / 1e6
    yield _row("cache", f"{_short(cache)}, {size:.0f} MB, safe to delete")


def _data():
    data = os.environ.get("DEEPFAKE_COURSE_DATA")
    yield _row("real databases", data or "none: lessons use the samples (set DEEPFAKE_COURSE_DATA=DIR to use yours)",
               not data or Path(data).is_dir(), False, f"DEEPFAKE_COURSE_DATA points to {data}, which is no folder")


def _short(path):
    home = str(Path.home())
    return str(path).replace(home, "~", 1) if str(path).startswith(home + os.sep) else str(path)


def _package_file(package, *parts):
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent.joinpath(*parts) if spec and spec.origin else None
    return path if path and path.is_file() else None


def _weights():
    again = "run `python3 course.py setup`"
    mtcnn = _package_file("facenet_pytorch", "data", "pnet.pt")
    points = _package_file("face_recognition_models", "models", "shape_predictor_68_face_landmarks.dat")
    yield _row("MTCNN weights", "in facenet-pytorch (MIT)" if mtcnn else "missing", mtcnn, True, again)
    yield _row("dlib 68 landmarks", "in face_recognition_models (non-commercial use only)" if points else "missing",
               points, True, again)
    torch_home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    here = (torch_home / "checkpoints" / "20180402-114759-vggface2.pt").is_file()
    yield _row("FaceNet weights (VGGFace2)", "downloaded" if here else "not here", here, False,
               "optional, non-commercial; a lesson that can use them says so and works without")


def _optional():
    import torch

    kinds = [k for k, ok in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if ok]
    yield _row("GPU", ", ".join(kinds) or "none: every lesson runs on the processor", True, False)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    yield _row("Chromium", browser or "missing", browser, False,
               "only the browser tests need it: `sudo apt install chromium` on Debian or Ubuntu")
    from ._sandbox import why_not

    why = why_not()
    yield _row("sandbox", "cannot run" if why else "bubblewrap", not why, False, f"only grading needs it: {why}")
    found = importlib.util.find_spec("nbgrader") is not None
    yield _row("nbgrader", version("nbgrader") if found else "missing", found, False,
               "only teachers need it: python -m pip install 'nbgrader>=0.9.5,<0.10'")
