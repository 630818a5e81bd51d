"""Rows of `deepfake-course bench ground`: frames, faces, landmarks, bootstrap. Written by hand.

All clips are made here from scikit-image's public-domain astronaut portrait, once, in the cache.
"""
from functools import lru_cache

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
    return [path]


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


# faces


def _person(img):
    """A second person: the portrait mirrored, in another size and colour."""
    import cv2

    other = cv2.resize(img[20:330, 100:370][:, ::-1], (430, 494), interpolation=cv2.INTER_CUBIC)
    return np.clip(other[..., [2, 1, 0]] * np.array([0.8, 1.0, 0.9]) + 12, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def faces_clips():
    """30 evenly spaced frames of two 300-frame shots at 720p; the second has a cut, then a second person enters."""
    import torch
    from skimage.data import astronaut

    torch.set_num_threads(1)  # both ways: on a busy machine two threads wait for each other, for seconds
    img, size = astronaut(), (1280, 720)
    plain = pan(img, FRAMES, size, ((0.45, 0.3, 1.0), (0.5, 0.32, 1.35), (0.42, 0.28, 1.1)))[_wanted()]
    before = pan(img, FRAMES // 2, size, ((0.5, 0.3, 1.0), (0.45, 0.3, 1.2)))
    after = pan(img, FRAMES // 2, size, ((0.4, 0.25, 1.7), (0.46, 0.27, 1.4)))
    shot, other = np.concatenate([before, after])[_wanted()], _person(img)
    for n in range(20, K):
        x = 1280 - int(min(1, (n - 19) / 4) * 430)
        shot[n, 720 - 494 :, x:] = other[:, : 1280 - x]
    return [plain, shot]


def _one_by_one(clip, min_face):
    from facenet_pytorch import MTCNN

    detector, found = MTCNN(keep_all=True, min_face_size=min_face), []
    for frame in clip:
        boxes, probs = detector.detect(frame)
        found.append(np.zeros((0, 4)) if boxes is None else boxes[probs.astype(float) >= 0.9].astype(float))
    return found


def faces_obvious(clip):
    """facenet-pytorch's MTCNN at its defaults."""
    return _one_by_one(clip, 20)


def faces_obvious_equal_scale(clip):
    """The same, looking for faces no smaller than ours."""
    from .faces import face_sizes

    return _one_by_one(clip, face_sizes(clip.shape[1:3])[0])


def faces_ours(clip):
    """The full cascade on every fifth frame, a second look at its faces in between."""
    from .faces import track

    return [found.boxes for found in track(clip)]


def faces_agree(clip, slow, fast):
    """Every face of the slow way has one of the fast way on it."""
    from .faces import iou

    best = [b for x, y in zip(slow, fast) for b in (iou(x, y).max(1) if len(y) else np.zeros(len(x)))]
    lost, extra = sum(b < 0.5 for b in best), sum(map(len, fast)) - sum(map(len, slow))
    same = len(slow) == len(fast) and np.mean(best) >= 0.95 and not lost
    return same, f"mean IoU {np.mean(best):.4f}, least {min(best):.2f}; {lost} of {len(best)} faces lost, {extra} extra"


# landmarks


def landmarks_setup():
    """20 face crops, the box of the face in each as the table of an extraction gives it, and a detector."""
    from facenet_pytorch import MTCNN

    from .faces import crop, track

    crops, boxes = [], []
    frames = faces_clips()[0][:20]
    for frame, found in zip(frames, track(frames)):
        box = found.boxes[0].astype(float)
        side = max(box[2] - box[0], box[3] - box[1]) * 1.3
        corner = (box[:2] + box[2:]) / 2 - side / 2
        crops.append(crop(frame, box))
        boxes.append((box - [*corner, *corner]) * 224 / side)
    return [(crops, boxes, MTCNN())]


def landmarks_obvious(inputs):
    """As report 002: enlarge to 768 pixels, MTCNN, HOG inside its box, predict."""
    from .faces import _detect_again

    crops, _, detector = inputs
    return [found[0] if (found := _detect_again(img, detector)) else None for img in crops]


def landmarks_ours(inputs):
    """Predict from the box that is known already."""
    from .faces import landmarks

    return [landmarks(img, [box])[0] for img, box in zip(*inputs[:2])]


def landmarks_agree(inputs, slow, fast):
    """Mean distance of the points within 3 % of the distance between the eyes."""
    pairs = [(a, b) for a, b in zip(slow, fast) if a is not None]
    errors = [
        np.linalg.norm(a - b, axis=1).mean() / np.linalg.norm(a[36:42].mean(0) - a[42:48].mean(0)) for a, b in pairs
    ]
    same = len(errors) >= 15 and np.mean(errors) <= 0.03
    return same, f"mean distance {np.mean(errors):.1%} of the eyes', worst crop {max(errors):.1%}; {len(errors)} of {len(slow)} crops"


# bootstrap


def bootstrap_setup(n=5000):
    """Labels and scores, rounded so that there are ties."""
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.5).astype(int)
    return [(y, (rng.normal(size=n) + y).round(2))]


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
          frames_setup, frames_obvious, frames_ours, frames_agree),
    Bench("faces", "facenet-pytorch's MTCNN at its defaults, one by one, 30 frames of 720p; then with a cut and a second person; one thread each", 15,
          faces_clips, faces_obvious, faces_ours, faces_agree),
    Bench("faces-equal-scale", "the same with the smallest face as ours", 4,
          faces_clips, faces_obvious_equal_scale, faces_ours, faces_agree),
    Bench("landmarks", "detect again at 768 px, then predict, for 20 crops (report 002)", 50,
          landmarks_setup, landmarks_obvious, landmarks_ours, landmarks_agree, inner=5),
    Bench("bootstrap", "loop over scikit-learn's roc_auc_score, 2,000 draws of 5,000 scores", 50,
          bootstrap_setup, bootstrap_obvious, bootstrap_ours, bootstrap_agree, inner=5),
]
