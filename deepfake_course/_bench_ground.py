"""Rows of `deepfake-course bench ground`: frames, faces, landmarks, bootstrap. Written by hand.

All clips are made here from scikit-image's public-domain astronaut portrait, once, in the cache.
"""
import numpy as np

from ._bench import Bench
from .core import cache_dir
from .metrics import bootstrap_ci, bootstrap_indices
from .video import pan, read_frames, sample_indices, write_clip

FRAMES, K = 300, 30


def _wanted():
    return sample_indices(FRAMES, K)


# frames


def _numbered(clip):
    """Draw each frame's number as nine black or white squares, which a wrong frame cannot fake."""
    for n, img in enumerate(clip):
        for bit in range(9):
            img[8:40, 8 + 32 * bit : 40 + 32 * bit] = 255 * (n >> bit & 1)
    return clip


def _number(img):
    return sum(1 << bit for bit in range(9) if img[16:32, 16 + 32 * bit : 32 + 32 * bit].mean() > 127)


def frames_setup(gop=250):
    """A 300-frame 720p clip: the portrait, panned and zoomed, with a tremble and a number in each frame."""
    from skimage.data import astronaut

    path = cache_dir("bench") / f"frames-720p-gop{gop}.mp4"
    if not path.is_file():
        stops = ((0.45, 0.30, 1.6), (0.5, 0.35, 1.1), (0.4, 0.25, 2.2), (0.55, 0.4, 1.3), (0.45, 0.25, 1.8))
        clip = pan(astronaut(), FRAMES, (1280, 720), stops, shake=6)
        write_clip(path, _numbered(clip), fps=25, crf=23, gop=gop)
    return path


def frames_obvious(path):
    """Seek to each wanted frame and read it."""
    import cv2

    video = cv2.VideoCapture(str(path))
    frames = []
    for index in _wanted():
        video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        frames.append(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB))
    return np.array(frames)


def frames_ours(path):
    """One pass."""
    return read_frames(path, K).frames


def frames_agree(path, a, b):
    """The same frames, by the number drawn in them, and the same pixels."""
    if a.shape != b.shape:
        return False, f"shapes {a.shape} and {b.shape}"
    right = all(_number(x) == _number(y) == n for x, y, n in zip(a, b, _wanted()))
    worst = int(np.abs(a.astype(int) - b).max())
    return right and worst == 0, f"frame numbers {'right' if right else 'WRONG'}, largest pixel difference {worst}"


# bootstrap


def bootstrap_setup(n=5000):
    """Labels and scores, rounded so that there are ties."""
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.5).astype(int)
    return y, (rng.normal(size=n) + y).round(2)


def bootstrap_obvious(inputs, draws=2000):
    """One call of scikit-learn for each draw."""
    from sklearn.metrics import roc_auc_score

    y, score = inputs
    values = [roc_auc_score(y[rows], score[rows]) for rows in bootstrap_indices(len(y), draws, seed=0)]
    return float(roc_auc_score(y, score)), *np.quantile(values, [0.025, 0.975])


def bootstrap_ours(inputs, draws=2000):
    """One NumPy expression for a chunk of draws."""
    return bootstrap_ci(*inputs, draws=draws, seed=0)


def bootstrap_agree(inputs, a, b):
    """Same resample indices, so value and both ends of the interval are equal."""
    worst = float(np.abs(np.subtract(a, b)).max())
    return worst <= 1e-9, f"value and interval differ by at most {worst:.0e}"


ROWS = [
    Bench("frames", "OpenCV, seek to each of 30 frames of 300 (720p, GOP 250)", 8,
          frames_setup, frames_obvious, frames_ours, frames_agree, repeats=5),
    Bench("bootstrap", "loop over scikit-learn's roc_auc_score, 2,000 draws of 5,000 scores", 50,
          bootstrap_setup, bootstrap_obvious, bootstrap_ours, bootstrap_agree, inner=5),
]
