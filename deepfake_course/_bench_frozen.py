"""Rows `frozen-features` and `frozen-features-10` of `deepfake-course bench tasks`: phase 1. Written by hand.

VGG19's ImageNet weights are not part of the course, and an untrained VGG19 cannot tell forgeries. What is
measured is time, so it is untrained here, and what the head learns is to tell blurred faces from sharp ones.
"""
from functools import partial

import numpy as np

from ._bench import Bench, has_bfloat16

FACES, SIDE, BATCH, SEED = 96, 64, 16, 0
PRECISION = "bfloat16" if has_bfloat16() else "float32"


def setup():
    """An untrained VGG19, and faces of which every second one is blurred."""
    import cv2
    import keras

    from .intra_database import find_faces
    from .samples import load_samples
    from .training import face_examples
    from .transfer_learning import backbone

    rows = find_faces(load_samples("A"), k=6)
    faces = face_examples(rows[rows["face"]].iloc[:FACES], SIDE)
    y = np.arange(len(faces)) % 2
    x = np.stack([cv2.GaussianBlur(img, (21, 21), 0) if blurred else img for img, blurred in zip(faces.x, y)])
    keras.utils.set_random_seed(SEED)
    lower, upper, _ = backbone("vgg19", "none", SIDE)
    base = keras.Model(lower.input, upper(lower.output))
    base.trainable = False
    return [(base, x, y)]


def _head(features, start, given, x, y, epochs):
    """Phase 1: RMSprop on the head, whatever comes before it. The head's scores of the faces."""
    import keras

    from .transfer_learning import Batches, _add_head

    keras.utils.set_random_seed(SEED)
    head = _add_head()
    model = keras.Model(start, head(features))
    model.compile("rmsprop", "binary_crossentropy")
    model.fit(Batches(x, y, BATCH, SEED), epochs=epochs, verbose=0)
    return head(given(), training=False).numpy()[:, 0]


def obvious(given, epochs):
    """The frozen base answers anew in every epoch, as in report 002."""
    import keras

    from .transfer_learning import frozen_features

    base, x, y = given
    start = keras.Input(x.shape[1:])
    return _head(base(start, training=False), start, lambda: frozen_features(base, x), x, y, epochs)


def ours(given, epochs):
    """The frozen base answers once, in half the bits where the processor is quicker so."""
    import keras

    from .transfer_learning import frozen_features

    base, x, y = given
    kept = frozen_features(base, x, precision=PRECISION)
    start = keras.Input(base.output.shape[1:])
    return _head(start, start, lambda: kept, kept, y, epochs)


def agree(given, a, b):
    """The same AUC in the end, within .005."""
    from .metrics import auc

    one, two = auc(given[2], a), auc(given[2], b)
    return abs(one - two) <= 0.005, f"VGG19, {FACES} faces of {SIDE} px; AUC {one:.4f} and {two:.4f} ({PRECISION})"


def _row(name, epochs, target, repeats):
    against = f"phase 1 with the frozen base recomputed in each of {epochs} epochs, float32"
    return Bench(name, against, target, setup, partial(obvious, epochs=epochs), partial(ours, epochs=epochs), agree,
                 repeats)  # fmt: skip


ROWS = [_row("frozen-features", 3, 4, 3), _row("frozen-features-10", 10, 8, 1)]
