"""Row `activation` of `deepfake-course bench mesonet`: what do all filters of a layer want? Written by hand."""
import time
from functools import lru_cache

import numpy as np
import torch

from ._bench import Bench

LAYER, STEPS, RATE, WEIGHT, P, MOST = "block3.conv", 8, 0.05, 10.0, 6.0, 0.02


@lru_cache(maxsize=1)
def trained():
    """The detector that comes with the course."""
    from .core import sample
    from .mesonet import MesoDetector

    torch.set_num_threads(1)
    detector = MesoDetector()
    detector.load(sample("weights/mesonet.safetensors"))
    return detector.model_.to(memory_format=torch.contiguous_format).eval()


def setup():
    """Where all start: grey, with noise in the middle, where the unit sees it (3, 256, 256)."""
    from .looking_inside import _start, receptive_field

    net = trained()
    top, side, _ = receptive_field(net, LAYER)
    start = torch.zeros(3, net.side, net.side)
    start[:, top : top + side, top : top + side] = _start(net.side, top, side, 1, 0)[0][0]
    return [(start, top, side)]


def climb(start, k, cut):
    """One filter by gradient ascent on whole pictures, as in any tutorial; cut: stop at the layer."""
    from .looking_inside import _run

    net, z = trained(), start[None].clone()
    middle = net.side // 8
    for n in range(STEPS):
        z = z.detach().requires_grad_(True)
        maps = _run(net, z + 0.5, LAYER) if cut else _run(net, z + 0.5, LAYER, cut=False)[0]
        height = maps[0, k, middle, middle] - WEIGHT * torch.linalg.vector_norm(z.flatten(), P)
        (slope,) = torch.autograd.grad(height, z)
        slope = slope / (slope.square().sum() / slope.ne(0).sum()).sqrt()
        z = (z + RATE * (1 - n / STEPS) * slope).clamp(-0.5, 0.5)
    return z.detach()[0] + 0.5


def one_by_one(given, cut=False):
    """Sixteen climbs, one after another."""
    start, top, side = given
    pictures = torch.stack([climb(start, k, cut) for k in range(16)])
    return pictures[:, :, top : top + side, top : top + side].numpy()


def in_one_batch(given):
    """The lesson's way: cut at the layer and at what the unit sees."""
    from .looking_inside import maximise_activation

    return maximise_activation(trained(), LAYER, steps=STEPS, rate=RATE, weight=WEIGHT, p=P).x.numpy()


def batch_only(given):
    """Also cut at both, but one filter after another: what the batch alone is worth."""
    from .looking_inside import maximise_activation

    return [maximise_activation(trained(), LAYER, [k], steps=STEPS, rate=RATE, weight=WEIGHT, p=P).x for k in range(16)]


def same_pictures(given, one, two):
    """Every pixel within MOST of 1; and what one by one costs when it is cut, too."""
    apart, times = float(np.abs(one - two).max()), {}
    for name, way in {"ours": in_one_batch, "cut": lambda g: one_by_one(g, True), "single": batch_only}.items():
        start = time.perf_counter()
        way(given)
        times[name] = time.perf_counter() - start
    note = (f"pixels of 16 pictures differ by {apart:.0e} at most; one by one cut at the layer costs "
            f"{times['cut'] / times['ours']:.1f} of ours, cut at what the unit sees too {times['single'] / times['ours']:.1f}")  # fmt: skip
    return apart <= MOST, note


ROWS = [
    Bench("activation", f"filters of {LAYER} one by one through the whole network, 256 px, one thread", 5.0,
          setup, one_by_one, in_one_batch, same_pictures),
]  # fmt: skip
