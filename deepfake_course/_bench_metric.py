"""Rows of `deepfake-course bench metric`: triplets of a batch, embeddings of faces; and lesson 27's. Written by hand."""
import time

import numpy as np
import torch

from . import _bench_attention
from ._bench import Bench

BATCH, MARGIN, APART, FACES = 32, 0.2, 1e-6, 32  # a batch of report 003


def batches():
    """Embeddings of length 1 with two classes, a little apart; one batch a turn."""
    torch.set_num_threads(1)
    found = []
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        y = torch.arange(BATCH) % 2
        emb = torch.randn(BATCH, 512, generator=rng) + 0.3 * y[:, None]
        found.append((torch.nn.functional.normalize(emb), y))
    return found


def larger(given, times=8):
    """A batch several times as large: the rows again, with a little noise."""
    emb, y = given
    noise = 0.01 * torch.randn(times * len(y), emb.shape[1], generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(emb.repeat(times, 1) + noise), y.repeat(times)


def loops(given, plain=False):
    """Semi-hard triplets by the lesson's three loops; plain: over Python's own numbers, distances in lists."""
    emb, labels = given
    far, found, rows = torch.cdist(emb, emb).square(), [], range(len(labels))
    if plain:
        far, labels = far.tolist(), labels.tolist()
    for a in rows:
        for p in rows:
            if a == p or labels[a] != labels[p]:
                continue
            for n in rows:
                if labels[n] != labels[a] and 0 < far[a][n] - far[a][p] <= MARGIN:
                    found.append((a, p, n))
    return found


def ours(given):
    """The lesson's: each anchor's negatives sorted once."""
    from .metric_learning import mine_triplets

    return mine_triplets(*given, "semi-hard", MARGIN)


def library(given):
    """pytorch-metric-learning's miner, with the same distance."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.miners import TripletMarginMiner

    far = LpDistance(normalize_embeddings=False, p=2, power=2)
    return TripletMarginMiner(MARGIN, "semihard", distance=far)(*given)


def seconds(way, given, times=9):
    """Median time of one call."""
    way(given)
    found = []
    for _ in range(times):
        start = time.perf_counter()
        way(given)
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def same_triplets(given, one, two):
    """The same sets, but for triplets on the very edge; and the library's, with its time."""
    emb, _ = given
    far = torch.cdist(emb.double(), emb.double()).square()
    sets = [set(one), set(zip(*(rows.tolist() for rows in two))), set(zip(*(rows.tolist() for rows in library(given))))]
    odd = set.union(*sets) - set.intersection(*sets)
    edge = all(min(abs(gap), abs(gap - MARGIN)) < APART for gap in (float(far[a, n] - far[a, p]) for a, p, n in odd))
    own = seconds(ours, given)
    ratio, lists = seconds(library, given) / own, seconds(lambda given: loops(given, True), given) / own
    big = larger(given)
    large = seconds(library, big, 3) / seconds(ours, big, 3)
    note = f"{len(sets[0])} triplets, {len(odd)} on the edge differ; pytorch-metric-learning takes {ratio:.1f} of ours, for {len(big[1])} rows {large:.1f}; loops over lists {lists:.1f}"
    return edge and ratio >= 1 and large >= 1, note


def faces():
    """FaceNet's architecture (untrained: it costs the same), and faces of noise at its size."""
    from .metric_learning import facenet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(FACES, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return [(facenet("none"), x)]


def one_by_one(given):
    """As a loop over files does: eager, a face at a time, channels first."""
    net, x = given
    net = net.to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        return np.concatenate([net(face[None]).numpy() for face in x])


def in_batches(given):
    """The lesson's."""
    from .metric_learning import embed_batches

    return embed_batches(*given)


def same_embeddings(given, one, two):
    """Every coordinate within 1e-4; and what bfloat16 would bring, and change."""
    from .metric_learning import embed_batches

    apart = float(np.abs(one - two).max())
    light = embed_batches(*given, precision="bfloat16")
    start = time.perf_counter()
    embed_batches(*given, precision="bfloat16")
    middle = time.perf_counter()
    in_batches(given)
    ratio = (time.perf_counter() - middle) / (middle - start)
    cosine = float((light * two).sum(1).min() / np.linalg.norm(light, axis=1).max())
    note = f"{len(one)} embeddings differ by {apart:.0e} at most; bfloat16 is {ratio:.1f} times as fast again, least cosine {cosine:.4f}"
    return apart <= 1e-4, note


ROWS = [
    Bench("mining", f"three loops over a tensor of distances, as in the lesson, batch {BATCH}, one thread", 20.0, batches,
          loops, ours, same_triplets, inner=10),
    Bench("embedding", f"InceptionResnetV1 face by face, eager, channels first, {FACES} faces, one thread", 1.5, faces,
          one_by_one, in_batches, same_embeddings),
    *_bench_attention.ROWS,
]  # fmt: skip
