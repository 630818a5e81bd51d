"""Rows of `deepfake-course bench adversaries`: attacks, one after the other or in a batch. Written by hand."""
from functools import lru_cache

import numpy as np
import torch

from ._bench import Bench

FACES, MOST = 12, 0.01  # norms agree within this share


@lru_cache(maxsize=1)
def trained():
    """The course's detector in float32, and faces that it is right about, half of them fake."""
    from .attacks import _case
    from .core import to_batch

    torch.set_num_threads(1)
    net, faces, _ = _case(1)
    order = np.arange(0, len(faces), max(1, len(faces) // FACES))
    return net, to_batch(faces.x)[order], torch.tensor(faces.y)[order].long()


class TwoLogits(torch.nn.Module):
    """The same detector as torchattacks wants it: logits (b, 2) of real and fake."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.train(net.training)  # torchattacks leaves a model as this one says it was

    def forward(self, x):
        said = self.net(x)
        return torch.stack([torch.zeros_like(said), said], 1)


def faces():
    """One batch of pictures."""
    return [trained()[1]]


def one_by_one(x):
    """torchattacks: one picture after the other, the slope of every class."""
    try:
        from torchattacks import DeepFool
    except ModuleNotFoundError as error:
        raise ValueError("this row measures against torchattacks: `pip install --no-deps torchattacks==3.5.1` "
                         "(its pin of requests is older than JupyterLab's)") from error  # fmt: skip
    net, _, y = trained()
    return DeepFool(TwoLogits(net), steps=50, overshoot=0.02)(x, y)


def active_set(x):
    """`deepfool`: one slope of the log-odds; who has crossed is not asked again."""
    from .attacks import deepfool

    net, _, y = trained()
    return deepfool(net, x, y[: len(x)])


def light(x):
    """The same in bfloat16, where the machine may be faster."""
    with torch.autocast("cpu", torch.bfloat16):
        return trained()[0](x).float()


def same_flips(x, one, two):
    """The same answers afterwards, and lengths within 1 %; what bfloat16 would change, in words."""
    import time

    from .attacks import deepfool

    net, _, y = trained()
    with torch.no_grad():
        flips = [(net(made) > 0) != (y == 1) for made in (one, two)]
    length = [(made - x).flatten(1).norm(dim=1) for made in (one, two)]
    apart = float((length[1] / length[0] - 1).abs().max())
    start = time.perf_counter()
    active_set(x[:2])
    middle = time.perf_counter()
    half = deepfool(light, x[:2], y[:2])
    end = time.perf_counter()
    with torch.no_grad():
        kept = int(((net(half) > 0) != (y[:2] == 1)).sum())
    change = float(((half - x[:2]).flatten(1).norm(dim=1) / length[1][:2] - 1).abs().max())
    note = (f"{int(flips[1].sum())} of {len(x)} flip both ways, lengths differ by {apart:.1e} at most; in bfloat16 two "
            f"faces take {(end - middle) / (middle - start):.1f} times as long, lengths differ by {change:.2f}, and "
            f"{kept} of 2 flip the float32 network")  # fmt: skip
    return bool((flips[0] == flips[1]).all()) and apart <= MOST, note


ROWS = [
    Bench("deepfool", f"torchattacks' DeepFool picture by picture, {FACES} faces of 256 px, one thread", 2.0, faces,
          one_by_one, active_set, same_flips),
]  # fmt: skip
