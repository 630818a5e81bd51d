"""Rows of `deepfake-course bench mesonet`: one face, 32 faces, one training step. Written by hand."""
import time
from functools import lru_cache

import numpy as np
import torch

from . import _bench_looking
from ._bench import Bench, has_bfloat16

STEPS, BATCH, MOST = 6, 32, 1e-3
PRECISION = "bf16-mixed" if has_bfloat16() else "32-true"
CURVE = 0.02  # losses are about .25; bfloat16 has 8 bits for the fraction, and Adam's first steps amplify


@lru_cache(maxsize=1)
def trained():
    """The detector that comes with the course, and 32 faces that it is asked about."""
    from .core import sample, to_batch
    from .intra_database import find_faces
    from .mesonet import MesoDetector
    from .samples import load_samples
    from .training import face_examples

    torch.set_num_threads(1)
    detector = MesoDetector()
    detector.load(sample("weights/mesonet.safetensors"))
    faces = face_examples(find_faces(load_samples("A"), k=2), 256)
    return detector.model_.to(memory_format=torch.contiguous_format), to_batch(faces.x[np.arange(BATCH) % len(faces)])


@lru_cache(maxsize=1)
def session():
    """The same network as an ONNX file, loaded by ONNX Runtime with one thread."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from .mesonet import OnnxDetector, export_onnx

    with TemporaryDirectory() as folder:
        return OnnxDetector(export_onnx(trained()[0], Path(folder) / "net.onnx"))


def one_face():
    """Three faces, one a turn."""
    return [trained()[1][k : k + 1] for k in (0, 9, 20)]


def many_faces():
    """One batch."""
    return [trained()[1]]


def eager(x):
    """PyTorch as it comes: float32, channels first."""
    with torch.inference_mode():
        return trained()[0](x).sigmoid().numpy()


def eager_often(x):
    """Too short to time once."""
    return [eager(x) for _ in range(40)][-1]


def runtime(x):
    """ONNX Runtime."""
    return session().score(x)


def runtime_often(x):
    """As often as the other way."""
    return [runtime(x) for _ in range(40)][-1]


def same_scores(x, one, two):
    """Scores within 1e-3."""
    apart = float(np.abs(one - two).max())
    return apart <= MOST, f"{len(x)} scores differ by {apart:.0e} at most"


def faces_to_learn():
    """Faces with labels; what is learned in so few steps does not matter, what it costs does."""
    from .core import to_batch  # noqa: F401  (loads what both ways need)
    from .training import Examples

    x = (trained()[1].permute(0, 2, 3, 1) * 255).round().byte().numpy()
    return [Examples(np.ascontiguousarray(x), np.arange(BATCH) % 2)]


def settings(channels_last, precision):
    """One epoch a step, so that the history is the loss curve."""
    from .training import FitSettings

    return FitSettings(STEPS, BATCH, 1, 1e-3, optimiser="adam", weight_decay=0.0, balanced=True, precision=precision,
                       channels_last=channels_last, threads=1, seed=0)  # fmt: skip


def steps_first(data):
    """`fit` in eager float32 with channels first, as PyTorch lays pictures out by default."""
    from .mesonet import MesoInception4
    from .training import fit

    return fit(MesoInception4, data, settings(False, "32-true"), loss="mse")[1]["loss"].to_numpy()


def steps_last(data):
    """`fit` with channels last, as it comes, and products in bfloat16 where the processor has them."""
    from .mesonet import MesoInception4
    from .training import fit

    return fit(MesoInception4, data, settings(True, PRECISION), loss="mse")[1]["loss"].to_numpy()


def keras_step(data):
    """Seconds of one step of the Keras twin, in a graph, on one thread."""
    from .mesonet import MesoInception4, to_keras

    import keras
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    twin = to_keras(MesoInception4())
    twin.compile(keras.optimizers.Adam(1e-3), "mse")
    x, y = data.x / np.float32(255), data.y.astype(np.float32)
    twin.train_on_batch(x, y)
    start = time.perf_counter()
    for _ in range(STEPS):
        twin.train_on_batch(x, y)
    return (time.perf_counter() - start) / STEPS


def same_curve(data, one, two):
    """The same first loss, all within .02 on average, and no step slower than Keras'."""
    apart = np.abs(one - two)
    start = time.perf_counter()
    steps_last(data)
    own, theirs = (time.perf_counter() - start) / STEPS, keras_step(data)
    note = f"{PRECISION}; losses of {STEPS} steps differ by {apart.mean():.3f} on average; a step of the Keras twin takes {theirs / own:.2f} of ours"
    return apart[0] <= MOST and apart.mean() <= CURVE and own <= theirs, note


ROWS = [
    Bench("inference-b1", "PyTorch eager float32, one face, one thread", 1.4, one_face, eager_often, runtime_often,
          same_scores, repeats=9),
    Bench("inference-b32", "PyTorch eager float32, 32 faces, one thread", 2.0, many_faces, eager, runtime,
          same_scores, repeats=5),
    Bench("train-step", "eager float32, channels first, batch 32, 256 px, one thread", 2.0, faces_to_learn,
          steps_first, steps_last, same_curve),
    *_bench_looking.ROWS,  # lesson 24
]  # fmt: skip
