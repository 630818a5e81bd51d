"""Rows of `deepfake-course bench adversaries`: attacks and repairs, one after the other or in a batch. Written by hand."""
import os
from functools import lru_cache, partial

import numpy as np
import torch

from ._bench import Bench

FACES, MOST = 12, 0.01  # norms agree within this share
PICTURES = 32  # to be repaired


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


@lru_cache(maxsize=1)
def repairable():
    """A detector that was trained here, its training set, and attacked faces in question."""
    from .attacks import fgsm
    from .post_training import PostSettings, _fold

    torch.set_num_threads(1)
    net, support, x, y, _ = _fold(0)
    times = -(-PICTURES // len(x))
    x = torch.cat([fgsm(net, x, y, (1 + k) / 255) for k in range(times)])[:PICTURES]
    return net, support, x, PostSettings(tau=None), PostSettings(tau=None, freeze=False)  # at .9 nobody is near


def searched():
    """Pictures with the search done, which both ways share: who learns from whom."""
    from .post_training import _who

    net, support, x, freeze, _ = repairable()
    return [(x, *_who(net, support, x, freeze)[:2])]


def few():
    """A quarter of them, for the ways in which all weights move; all processors, as both ways come."""
    x, rows, counts = searched()[0]
    torch.set_num_threads(os.cpu_count())
    return [(x[: PICTURES // 4], rows[: PICTURES // 4], counts[: PICTURES // 4])]


def one_copy_each(given, freeze=True):
    """The report's way: a deep copy of the detector for each picture, and an optimiser."""
    from .post_training import _learn

    net, support, *settings = (*repairable()[:2], *repairable()[3:])
    made = []
    for rows, counts in zip(*given[1:]):
        for copy in _learn(net, support, rows, counts, settings[not freeze]):
            pass
        made.append(copy.eval())
    return {name: torch.stack([dict(net.named_parameters())[name].detach() for net in made])
            for name, _ in made[0].named_parameters()}  # fmt: skip


def side_by_side(given, freeze=True):
    """All copies in one go, or one a processor."""
    from .post_training import _train

    net, support, *settings = (*repairable()[:2], *repairable()[3:])
    x, rows, counts = given
    for state in _train(net, support, x, rows, counts, settings[not freeze], None):
        pass
    return state


def same_copies(given, one, two):
    """The same weights, and the same answers."""
    from .post_training import _answer

    net, x = repairable()[0], given[0]
    apart = max(float((one[name] - v).abs().max()) for name, v in two.items())
    with torch.no_grad():
        said = [_answer(net, {name: state[name] for name in two}, x) for state in (one, two)]
    moved = max(float((v - net.get_parameter(name).detach()).abs().max()) for name, v in two.items())
    same = bool(((said[0] > 0) == (said[1] > 0)).all()) and apart <= 1e-5 and moved > 0
    return same, f"{len(x)} copies, weights move by up to {moved:.1e} and differ by {apart:.1e} at most"


def crowd():
    """Anchors of two kinds, and a training set of 30,000 embeddings as Xception's would be."""
    rng = torch.Generator().manual_seed(0)
    emb = torch.rand(30_000, 2048, generator=rng)
    return [(torch.rand(4, 2048, generator=rng), emb)]


def row_by_row(given):
    """Algorithm 2's inner loop, embeddings kept: one cosine at a time."""
    anchors, emb = given
    like = torch.empty(len(anchors), len(emb))
    for k, anchor in enumerate(anchors):
        for i in range(len(emb)):
            like[k, i] = torch.nn.functional.cosine_similarity(anchor, emb[i], 0)
    return like.topk(16, 1)


def one_product(given):
    """`nearest`: blocks of a matrix product."""
    from .post_training import nearest

    rows, like = nearest(given[0], given[1], 16)
    return like, rows


def same_neighbours(given, one, two):
    """The same neighbours; where two are equally near, in either order."""
    apart = float((one[0] - two[0]).abs().max())
    same = float((one[1] == two[1]).float().mean())
    return apart <= 1e-5 and same >= 0.99, f"cosines differ by {apart:.1e}, {same:.0%} of the rows are equal"


ROWS = [
    Bench("deepfool", f"torchattacks' DeepFool picture by picture, {FACES} faces of 256 px, one thread", 2.0, faces,
          one_by_one, active_set, same_flips),
    Bench("post-training-freeze", f"a copy and an optimiser for each of {PICTURES} pictures, last layer", 30.0, searched,
          one_copy_each, side_by_side, same_copies),
    Bench("post-training-full", f"the same, all weights, {PICTURES // 4} pictures, all processors", 1.0, few,
          partial(one_copy_each, freeze=False), partial(side_by_side, freeze=False), same_copies),
    Bench("neighbour-search", "one cosine after the other, 4 x 30,000 embeddings of 2,048", 50.0, crowd, row_by_row,
          one_product, same_neighbours),
]  # fmt: skip
