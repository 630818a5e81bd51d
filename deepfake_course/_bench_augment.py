"""Rows of `deepfake-course bench tasks`: the perturbations of lesson 17. Written by hand.

Timed is one chain: decoded pictures, every operation in turn, the batch of floats that a network takes.
An Augmenter multiplies colours and places before it touches a pixel, so the ends of two chains differ;
hence every operation is also run by itself, compared, and its time noted.
"""
import math
import time
from io import BytesIO

import numpy as np

from ._bench import Bench

U = 0.75  # every draw: plus signs, and half of what "at most" allows
VALUES = {
    "blur": 9, "noise": 10, "grey noise": 10, "jpeg": 40, "resolution": 0.5, "hsv": 1, "contrast": 0.2,
    "brightness": 0.2, "offset": 20, "channel shift": 20, "grey": 1, "flip": 1, "rotate": 20, "scale": 0.2,
    "stretch": 0.2, "shift": 0.1, "shear": 10, "cutout": 0.4,
}  # fmt: skip
HSV = 0.5 * np.array([40, 30, 20])  # degrees, levels, levels
LUMA = np.array([0.2989, 0.587, 0.114])


def _sigma(side):
    return 0.15 * side + 0.35


def _matrix(name, side):
    """Old place to new place (2, 3), pixels from the first pixel's middle, y down."""
    turn = math.radians(VALUES["rotate"])
    grow, far = 1 + VALUES["scale"], VALUES["shift"] * side / 2
    part, shift = {
        "flip": (np.diag([-1, 1]), 0),
        "rotate": (np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]), 0),
        "scale": (np.diag([grow, grow]), 0),
        "stretch": (np.eye(2) * (1 + VALUES["stretch"] / 2), 0),
        "shift": (np.eye(2), far),
        "shear": (np.array([[1, math.tan(math.radians(VALUES["shear"]))], [0, 1]]), 0),
    }[name]
    centre = np.full(2, (side - 1) / 2)
    return np.c_[part, centre - part @ centre + shift]


def _hole(side):
    """First and last row of the black square, the same as its columns."""
    start = U * (1 - VALUES["cutout"]) * side
    return math.ceil(start - 0.5), math.ceil(start + VALUES["cutout"] * side - 0.5)


def _cutout(img, side):
    out, (first, last) = img.copy(), _hole(side)
    out[first:last, first:last] = 0
    return out


# The ways


def pil_ways(side):
    """One function a perturbation, Image to Image; Pillow has no noise, so NumPy adds it."""
    from PIL import Image, ImageEnhance, ImageFilter

    def noise(img, channels, rng=np.random.default_rng(0)):
        grain = rng.standard_normal((side, side, channels), np.float32) * VALUES["noise"]
        return Image.fromarray(np.clip(np.asarray(img) + grain, 0, 255).round().astype(np.uint8))

    def jpeg(img):
        img.save(file := BytesIO(), "jpeg", quality=VALUES["jpeg"])
        return Image.open(file).convert("RGB")

    def hsv(img):
        dh, ds, dv = HSV
        tables = (lambda v: round(v + dh * 256 / 360) % 256, lambda v: v + ds, lambda v: v + dv)
        planes = [plane.point(table) for plane, table in zip(img.convert("HSV").split(), tables)]
        return Image.merge("HSV", planes).convert("RGB")

    def shift(img):
        return img.point([min(255, v + VALUES["channel shift"] // 2) for v in range(256)] * 3)

    def move(name):
        back = np.linalg.inv(np.r_[_matrix(name, side), [[0, 0, 1]]])[:2]
        back[:, 2] += 0.5 - back[:, :2] @ [0.5, 0.5]  # Pillow counts from the first pixel's corner
        return lambda img: img.transform(img.size, Image.Transform.AFFINE, back.ravel(), Image.Resampling.BILINEAR)

    def cutout(img):
        out, (first, last) = img.copy(), _hole(side)
        out.paste((0, 0, 0), (first, first, last, last))
        return out

    half = round(side * VALUES["resolution"])
    linear = Image.Resampling.BILINEAR
    return {
        "blur": lambda img: img.filter(ImageFilter.GaussianBlur(_sigma(VALUES["blur"]))),
        "noise": lambda img: noise(img, 3),
        "grey noise": lambda img: noise(img, 1),
        "jpeg": jpeg,
        "resolution": lambda img: img.resize((half, half), Image.Resampling.BOX).resize((side, side), linear),
        "hsv": hsv,
        "contrast": lambda img: ImageEnhance.Contrast(img).enhance(1 + VALUES["contrast"]),
        "brightness": lambda img: ImageEnhance.Brightness(img).enhance(1 + VALUES["brightness"]),
        "offset": lambda img: img.point(lambda v: v + VALUES["offset"]),
        "channel shift": shift,
        "grey": lambda img: img.convert("L").convert("RGB"),
        "flip": lambda img: img.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        **{name: move(name) for name in ("rotate", "scale", "stretch", "shift", "shear")},
        "cutout": cutout,
    }


def opencv_ways(side):
    """One function a perturbation, float32 (h, w, 3) in [0, 1] to the same, as a network takes them."""
    import cv2

    def noise(img, channels):
        grain = np.empty((side, side, channels), np.float32)
        cv2.randn(grain, (0,) * channels, (VALUES["noise"] / 255,) * channels)
        return np.clip(img + grain, 0, 1)

    def jpeg(img):
        img = cv2.cvtColor(cv2.convertScaleAbs(img, None, 255), cv2.COLOR_RGB2BGR)
        img = cv2.imdecode(cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, VALUES["jpeg"]])[1], cv2.IMREAD_COLOR)
        return cv2.cvtColor(img, cv2.COLOR_BGR2RGB).astype(np.float32) / 255

    def hsv(img):
        hue, full, light = cv2.split(cv2.cvtColor(img, cv2.COLOR_RGB2HSV))
        full, light = (np.clip(part + np.float32(by / 255), 0, 1) for part, by in zip((full, light), HSV[1:]))
        return cv2.cvtColor(cv2.merge([hue + np.float32(HSV[0]), full, light]), cv2.COLOR_HSV2RGB)

    def contrast(img, gain=1 + VALUES["contrast"]):
        mean = cv2.mean(cv2.cvtColor(img, cv2.COLOR_RGB2GRAY))[0]
        return np.clip(img * gain + (1 - gain) * mean, 0, 1)

    def move(name):
        matrix = _matrix(name, side)
        return lambda img: cv2.warpAffine(img, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)

    half, k = round(side * VALUES["resolution"]), VALUES["blur"]
    return {
        "blur": lambda img: cv2.GaussianBlur(img, (k, k), _sigma(k)),
        "noise": lambda img: noise(img, 3),
        "grey noise": lambda img: noise(img, 1),
        "jpeg": jpeg,
        "resolution": lambda img: cv2.resize(
            cv2.resize(img, (half, half), interpolation=cv2.INTER_AREA), (side, side)),
        "hsv": hsv,
        "contrast": contrast,
        "brightness": lambda img: np.minimum(img * np.float32(1 + VALUES["brightness"]), 1),
        "offset": lambda img: np.minimum(img + np.float32(VALUES["offset"] / 255), 1),
        "channel shift": lambda img: np.minimum(img + np.float32([VALUES["channel shift"] / 510] * 3), 1),
        "grey": lambda img: cv2.cvtColor(cv2.cvtColor(img, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        "flip": lambda img: cv2.flip(img, 1),
        **{name: move(name) for name in ("rotate", "scale", "stretch", "shift", "shear")},
        "cutout": lambda img: _cutout(img, side),
    }  # fmt: skip


def opencv_bytes(side):
    """The same on uint8, as Albumentations does it: a quarter of the memory, rounded after each step."""
    import cv2

    def noise(img, channels):
        grain = np.empty((side, side, channels), np.float32)
        cv2.randn(grain, (0,) * channels, (VALUES["noise"],) * channels)
        return cv2.add(img, grain if channels == 3 else cv2.merge([grain] * 3), dtype=cv2.CV_8U)

    def jpeg(img):
        code = cv2.imencode(".jpg", cv2.cvtColor(img, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, VALUES["jpeg"]])
        return cv2.cvtColor(cv2.imdecode(code[1], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    ramp, (dh, ds, dv) = np.arange(256), HSV
    tables = [np.uint8((ramp + dh / 2) % 180), *(np.uint8(np.clip(ramp + by, 0, 255)) for by in (ds, dv))]

    def hsv(img):
        planes = cv2.split(cv2.cvtColor(img, cv2.COLOR_RGB2HSV))
        return cv2.cvtColor(cv2.merge([*map(cv2.LUT, planes, tables)]), cv2.COLOR_HSV2RGB)

    def contrast(img, gain=1 + VALUES["contrast"]):
        mean = cv2.mean(cv2.cvtColor(img, cv2.COLOR_RGB2GRAY))[0]
        return cv2.convertScaleAbs(img, None, gain, (1 - gain) * mean)

    more = VALUES["channel shift"] / 2
    return opencv_ways(side) | {  # those that take both are not repeated
        "noise": lambda img: noise(img, 3),
        "grey noise": lambda img: noise(img, 1),
        "jpeg": jpeg,
        "hsv": hsv,
        "contrast": contrast,
        "brightness": lambda img: cv2.convertScaleAbs(img, None, 1 + VALUES["brightness"]),
        "offset": lambda img: cv2.add(img, (VALUES["offset"],) * 3 + (0,)),
        "channel shift": lambda img: cv2.add(img, (more, more, more, 0)),
    }


def our_ways(n):
    """One function a perturbation, `Faces` to a batch (n, 3, h, w), with the draws that the others use."""
    from .augment import _change

    u, grain = np.full((n, 3), U, np.float32), np.arange(n)

    def way(name):
        value = np.full(n, VALUES[name], np.float32)
        return lambda faces: _change(faces, name, value, u, grain).x

    return {name: way(name) for name in VALUES}


# Inputs and answers


def faces_setup():
    """24 faces of database A, 160 px, in the format that each way works on; one thread each."""
    import cv2
    import torch
    from PIL import Image

    from .augment import Faces
    from .samples import load_samples

    torch.set_num_threads(1)  # on a busy machine two threads wait for each other
    cv2.setNumThreads(1)
    faces = Faces.cut(load_samples("A"), k=1)
    imgs = (faces.x * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    given = {
        "ours": Faces(faces.x, rows=np.arange(len(imgs))), "Pillow": [*map(Image.fromarray, imgs)],
        "OpenCV float": [img.astype(np.float32) / 255 for img in imgs], "OpenCV uint8": list(imgs),
        "said": {},
    }  # fmt: skip
    return [given]


def _ways(given):
    n, side = len(given["ours"]), given["ours"].x.shape[3]
    makers = {"Pillow": pil_ways, "OpenCV float": opencv_ways, "OpenCV uint8": opencv_bytes}
    return {"ours": our_ways(n)} | {who: make(side) for who, make in makers.items()}


def _run(given, who, way):
    return way(given[who]) if who == "ours" else [way(img) for img in given[who]]


def _batch(imgs):
    import torch

    x = torch.from_numpy(np.stack([np.asarray(img) for img in imgs])).permute(0, 3, 1, 2)
    return x if x.is_floating_point() else x.float() / 255


def _chain(who, start):
    """All operations in turn on each decoded picture, then the batch."""

    def run(given):
        ways, done = _ways(given)[who].values(), []
        for img in given["OpenCV uint8"]:
            img = start(img)
            for way in ways:
                img = way(img)
            done.append(img)
        return _batch(done)

    return run


def chain_pil(given):
    """All operations in turn on each picture with Pillow."""
    from PIL import Image

    return _chain("Pillow", Image.fromarray)(given)


chain_opencv = _chain("OpenCV float", lambda img: img.astype(np.float32) / 255)
chain_bytes = _chain("OpenCV uint8", np.copy)


def chain_ours(given):
    """The batch of floats, then the steps of an Augmenter."""
    import pandas as pd

    from .augment import Augmenter, Faces, Step

    x, steps = _batch(given["OpenCV uint8"]), tuple(Step(1, {k: [v]}) for k, v in VALUES.items())
    rows = np.arange(len(x))
    return Augmenter(steps, pd.Series("train", rows))(Faces(x, rows=rows)).x


def _apart(given, who):
    """Mean difference in levels of each operation, theirs and ours; of the noises, that of their sizes."""
    ways, imgs, found = _ways(given), np.stack(given["OpenCV uint8"]).astype(np.float32), {}
    inner = np.abs(imgs - 127.5) < 127 - 4 * VALUES["noise"]  # where noise is not clipped
    for name in VALUES:
        a = np.stack([np.asarray(img) for img in _run(given, who, ways[who][name])]).astype(np.float32)
        a = a * 255 if who == "OpenCV float" else a
        b = 255 * ways["ours"][name](given["ours"]).permute(0, 2, 3, 1).numpy()
        if "noise" in name:
            sizes = [np.std((x - imgs)[inner]) for x in (a, b)]
            found[name] = float(abs(sizes[0] - sizes[1]))
            continue
        if name in ("rotate", "scale", "stretch", "shift", "shear"):  # Pillow is black beyond the edge
            a, b = (x[:, 40:-40, 40:-40] for x in (a, b))
        found[name] = float(np.abs(a - b).mean())
    return found


def _agree(who, most, extra=lambda given: ""):
    """Every operation gives the same picture within `most` levels on average, the noises the same amount."""

    def agree(given, theirs, ours):
        if who not in given["said"]:  # once, not at every turn
            given["said"][who] = _apart(given, who), extra(given)
        apart, more = given["said"][who]
        worst = max(apart, key=apart.get)
        fits = theirs.shape == ours.shape and theirs.dtype == ours.dtype and 0 <= ours.min() <= ours.max() <= 1
        said = f"operation by operation, means differ by at most {apart[worst]:.2f} levels of 255 ({worst})"
        return bool(fits) and apart[worst] <= most, said + more

    return agree


def _table(given):
    """Milliseconds a picture of each operation and in total."""
    ways, total = _ways(given), np.zeros(4)
    lines = []
    for name in VALUES:
        best = np.array([min(_seconds(_run, given, who, ways[who][name]) for _ in range(2)) for who in ways])
        best *= 1000 / len(given["ours"])
        total += best
        lines.append(f"{name} {'/'.join(f'{t:.2f}' for t in best)}")
    chains = np.array([[_seconds(chain, given) for chain in (chain_ours, chain_bytes)] for _ in range(5)])
    ratio = np.median(chains[:, 1] / chains[:, 0])
    return (
        f"; the chain of OpenCV on uint8 / ours {ratio:.2f}; each by itself, ms a picture, {'/'.join(ways)}: "
        f"{', '.join(lines)}; sum {'/'.join(f'{t:.1f}' for t in total)}"
    )


def _seconds(run, *args):
    start = time.perf_counter()
    run(*args)
    return time.perf_counter() - start


ROWS = [
    Bench("augment", f"Pillow, {len(VALUES)} operations in turn on each of 24 faces of 160 px; one thread each", 2,
          faces_setup, chain_pil, chain_ours, _agree("Pillow", 1), repeats=7),
    Bench("augment-opencv", "OpenCV on float32 pictures, the same operations in turn; one thread each", 1,
          faces_setup, chain_opencv, chain_ours, _agree("OpenCV float", 0.3, _table), repeats=9),
]  # fmt: skip
