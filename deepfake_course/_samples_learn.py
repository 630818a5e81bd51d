"""What `samples check` lets classifiers learn: shortcuts, planted leaks, the pattern. Written by hand.

An auditor never sees a face: it gets the bytes of a clip, or its picture without the face. A detector of
the pattern sees nothing but the face, at its native scale. Both are judged on people they never saw.
"""
import re
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from .core import config_seed
from .video import read_frames, scan, write_clip

PLANTS = ("size", "codec", "background")
PACKETS = 30  # packet sizes of a clip that an auditor sees; longer and shorter clips are resampled
FACE = 1.5  # the box of the landmarks, this much wider and higher, is what "background only" leaves out
WINDOW, VIEW = 160, 128  # px at native scale: what is cut out round a face, and what the net sees of it


# auditors


def packet_features(path: Path) -> np.ndarray:
    """What the sizes of a clip's packets say: the whole, each one in turn, keyframes, and their spread."""
    _, table = scan(path)
    size = np.log(table["size"].to_numpy(float) + 1)
    size = np.interp(np.linspace(0, 1, PACKETS), np.linspace(0, 1, len(size)), size)
    key = table["key"].to_numpy(bool)
    file = np.log(Path(path).stat().st_size)
    return np.r_[file, size, size - size.mean(), np.sort(size), key.sum(), size[0] - size[1:].mean(), size.std()]


def outside_face(shape: tuple, marks: np.ndarray) -> np.ndarray:
    """Mask (h, w): True where a picture surely shows no face, given the (68, 2) landmarks of the real clip."""
    low, high = marks.min(0), marks.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * FACE
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (np.abs(x - middle[0]) > half[0]) | (np.abs(y - middle[1]) > half[1])


def background_features(imgs: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Colour, texture, blocks and flicker of pictures (t, h, w, 3) in consecutive pairs, where no face is."""
    rows, flicker = [], []
    for n, img in enumerate(imgs):
        mask, img = outside_face(img.shape, marks[n]), img.astype(np.float32)
        rows.append(np.r_[_colours(img[mask]), _texture(img, mask), _blocks(img.mean(2), mask)])
        if n % 2:
            both = mask & outside_face(img.shape, marks[n - 1])
            flicker.append(np.log(np.abs(img - imgs[n - 1])[both].mean(0) + 0.01))
    return np.r_[np.mean(rows, 0), np.std(rows, 0), np.mean(flicker, 0)]


def _colours(pixels):
    ends = np.percentile(pixels, (0.5, 5, 50, 95, 99.5), axis=0)
    ratio = np.log(pixels.mean(0) + 1)
    return np.r_[ends.ravel(), pixels.std(0), ratio[0] - ratio[1], ratio[2] - ratio[1], (ends[:, 0] - ends[:, 2])]


def _texture(img, mask):
    rows = []
    for sigma in (0.6, 1.2, 2.4):
        rest = (img - cv2.GaussianBlur(img, (0, 0), sigma))[cv2.erode(np.uint8(mask), np.ones((5, 5))) > 0]
        spread = rest.std(0) + 0.01
        rows.append(np.r_[np.log(spread), np.abs(rest).mean(0) / spread])
    return np.concatenate(rows)


def _blocks(grey, mask):
    """Steps at the borders of 8 x 8 blocks against steps elsewhere, along both axes."""
    rows = []
    for step, inside in ((np.abs(np.diff(grey)), mask[:, 1:]), (np.abs(np.diff(grey.T)), mask.T[:, 1:])):
        border = np.zeros_like(inside)
        border[:, 7::8] = True
        rows.append(np.log((step[border & inside].mean() + 0.01) / (step[~border & inside].mean() + 0.01)))
    return np.array(rows)


def out_of_fold(x: np.ndarray, y: np.ndarray, groups: np.ndarray, repeats: int = 3) -> np.ndarray:
    """Scores (n,) of clips by classifiers that saw no clip of the same group; mean over `repeats` divisions."""
    code = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    count, score = code.max() + 1, np.zeros(len(y))
    if count < 2:
        raise ValueError("an audit needs clips of two groups or more")
    for seed in range(repeats):
        fold = (np.random.default_rng(seed).permutation(count) % min(5, count))[code]
        for n in range(fold.max() + 1):
            score[fold == n] += _audit(x[fold != n], y[fold != n], x[fold == n], seed)
    return score / repeats


def _audit(x, y, asked, seed):
    """A linear and a branching view of the same numbers, averaged."""
    lines = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))
    trees = ExtraTreesClassifier(150, min_samples_leaf=2, max_features=0.5, class_weight="balanced", random_state=seed)
    return np.mean([model.fit(x, y).predict_proba(asked)[:, 1] for model in (lines, trees)], axis=0)


# planted leaks


def plant(kind: str, source: Path, copy: Path, fake: bool) -> Path:
    """Write `source` once more, real or fake; only the fakes get what is planted."""
    clip = read_frames(source, None, "every", step=1)
    frames, crf, gop = clip.frames, quality(source), None
    if fake and kind == "size":
        crf += 16  # more than the 14 that D's qualities span by design
    if fake and kind == "codec":
        gop = 6
    if fake and kind == "background":
        frames = np.uint8(0.8 * frames + 0.2 * np.array([200.0, 60.0, 200.0]) + 0.5)
    Path(copy).parent.mkdir(parents=True, exist_ok=True)
    return write_clip(copy, frames, clip.info.fps, min(crf, 51), gop)


def quality(path: Path) -> float:
    """The CRF that x264 left in the first packet of a clip."""
    with open(path, "rb") as file:
        told = re.search(rb" crf=([0-9.]+)", file.read())
    if told is None:
        raise ValueError(f"{Path(path).name} does not say its CRF: only clips of write_clip can be planted in")
    return float(told[1])


# the pattern: spectrum and logistic regression


def spectrum(crops: np.ndarray) -> np.ndarray:
    """Radial mean of the log power spectrum of square faces (n, s, s, 3); (n, s // 2)."""
    side = crops.shape[1]
    place = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(*np.meshgrid(place, place)).round().astype(int)
    inside = radius < side // 2
    window, size = np.outer(np.hanning(side), np.hanning(side)), np.bincount(radius[inside])
    rows = []
    for img in crops:
        grey = img.mean(2)
        power = np.log(np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 + 1)
        rows.append(np.bincount(radius[inside], power[inside]) / size)
    return np.array(rows)


def learn_spectrum(crops: np.ndarray, y: np.ndarray, source: np.ndarray, seed: int):
    """A function from faces to scores, trained on the spectra of `crops`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=3000))
    model.fit(spectrum(crops), y)
    return lambda faces: model.decision_function(spectrum(faces))


# the pattern: a small net


class Views(nn.Module):
    """Four looks of growing reach at the same place, side by side (MesoInception's first layers)."""

    def __init__(self, inputs, widths):
        super().__init__()
        self.first = nn.Conv2d(inputs, sum(widths), 1)
        self.widths = list(widths)
        self.reach = nn.ModuleList(nn.Conv2d(w, w, 3, padding=d, dilation=d) for d, w in enumerate(widths[1:], 1))
        self.norm = nn.BatchNorm2d(sum(widths))

    def forward(self, x):
        parts = F.relu(self.first(x)).split(self.widths, 1)
        return self.norm(F.relu(torch.cat([parts[0], *(f(p) for f, p in zip(self.reach, parts[1:]))], 1)))


class SmallNet(nn.Module):
    """MesoInception-style: two blocks of views, two convolutions, pooled over the face; one score."""

    def __init__(self):
        super().__init__()
        far = lambda inputs: (nn.Conv2d(inputs, 16, 5, padding=2), nn.ReLU(), nn.BatchNorm2d(16))
        self.body = nn.Sequential(
            Views(3, (1, 4, 4, 2)), nn.MaxPool2d(2), Views(11, (2, 4, 4, 2)), nn.MaxPool2d(2),
            *far(12), nn.MaxPool2d(2), *far(16), nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(32, 16), nn.LeakyReLU(0.1), nn.Linear(16, 1))

    def forward(self, x):
        z = self.body(x - 0.5)
        return self.head(torch.cat([z.mean((2, 3)), z.amax((2, 3))], 1))[:, 0]


def _views(crops, rows, rng):
    """Random parts of the chosen faces, half of them mirrored, as x (b, 3, VIEW, VIEW) in [0, 1]."""
    room, views = crops.shape[1] - VIEW + 1, []
    for row, top, left, flip in zip(rows, *rng.integers(0, room, (2, len(rows))), rng.integers(0, 2, len(rows))):
        view = crops[row, top : top + VIEW, left : left + VIEW]
        views.append(view[:, ::-1] if flip else view)
    return _tensor(np.stack(views))


def _tensor(imgs):
    return torch.from_numpy(np.ascontiguousarray(imgs)).permute(0, 3, 1, 2).float() / 255


def _balanced(y, source, count, rng):
    """Rows of a batch: each database and each class as often as the other."""
    cells = [np.flatnonzero((source == s) & (y == c)) for s in np.unique(source) for c in (0, 1)]
    return np.concatenate([rng.choice(cell, -(-count // len(cells))) for cell in cells])


def learn_net(crops: np.ndarray, y: np.ndarray, source: np.ndarray, seed: int, steps: int = 600, batch: int = 16):
    """A function from faces to scores: the small net, trained on random parts of `crops`."""
    rng, start = np.random.default_rng(seed), config_seed({"samples check": "net", "seed": seed})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start)
        net = SmallNet().to(memory_format=torch.channels_last)
        adam = torch.optim.Adam(net.parameters(), 1e-3)
        pace = torch.optim.lr_scheduler.OneCycleLR(adam, 5e-3, steps)
        for _ in range(steps):
            rows = _balanced(y, source, batch, rng)
            x = _views(crops, rows, rng).contiguous(memory_format=torch.channels_last)
            loss = F.binary_cross_entropy_with_logits(net(x), torch.from_numpy(y[rows]).float())
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
    net.eval()
    return lambda faces: _scores(net, faces)


def _scores(net, crops):
    edge = (crops.shape[1] - VIEW) // 2
    middle = crops[:, edge : edge + VIEW, edge : edge + VIEW]
    with torch.inference_mode():
        chunks = np.array_split(middle, -(-len(middle) // 64))
        parts = [net(_tensor(part)) + net(_tensor(part[:, :, ::-1])) for part in chunks]
    return torch.cat(parts).numpy() / 2
