"""Rows `asrid-step` and `asrid-memory` of `deepfake-course bench metric`: lesson 27. Written by hand."""
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ._bench import Bench

CLIPS, FRAMES, SIDE, PART = 6, 30, 380, 6  # as report 004 has it: 6 clips of 30 pictures of 380 px
MOST = 2e-3  # of losses: what is kept has half precision
SLOPE = 1e-4  # of gradients, of the largest: a convolution over other pictures at once rounds otherwise


@lru_cache(maxsize=1)
def kept():
    """Six clips of eight faces, 224 px, and what the frozen backbone says of them."""
    from .attention import RegionBackbone, clip_faces, clip_features
    from .intra_database import find_faces
    from .samples import load_samples

    torch.set_num_threads(1)
    df = load_samples("A")
    few = df.groupby("label").head(CLIPS // 2).reset_index(drop=True)
    few.attrs = df.attrs
    clips, _ = clip_faces(find_faces(few, k=8))
    net = RegionBackbone()
    return net, clips, clip_features(clips.x, net)


def one_step():
    """The labels of one batch."""
    return [torch.tensor(kept()[1].y, dtype=torch.float)]


def step(x, y):
    """Forward, backward, update of a fresh head; its loss before and after."""
    from .attention import ASRID, asrid_loss

    torch.manual_seed(0)
    net, batch = ASRID(272), {"x": torch.as_tensor(np.asarray(x, np.float32)), "y": y}
    for block in net.blocks:
        block.drop.p = 0.0
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
    losses = []
    for _ in range(2):
        loss = asrid_loss(net, batch)
        losses.append(float(loss.detach()))
        if len(losses) == 1:
            loss.backward()
            optimiser.step()
    return losses


def asked_again(y):
    """The backbone is asked in each step, as in the authors' code."""
    from .core import to_batch

    net, clips, _ = kept()
    with torch.inference_mode():
        said = [net(to_batch(clip)) for clip in clips.x]
    return step(torch.stack(said).numpy(), y)


def asked_once(y):
    """The lesson's way: what it said was kept."""
    return step(kept()[2], y)


def same_losses(y, one, two):
    """Both losses within 2e-3."""
    apart = float(np.abs(np.subtract(one, two)).max())
    return apart <= MOST, f"losses before and after a step of {CLIPS} clips of 8 faces, 224 px, differ by {apart:.0e} at most"


def peak_bytes():
    """The most memory that this process has had at once, as the system counts it."""
    if sys.platform == "win32":
        raise ValueError("asrid-memory reads the peak of a process from Linux or macOS, not from Windows: leave the row out")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def one_large_step(out, part, clips=CLIPS, frames=FRAMES, side=SIDE, learn=1):
    """In a process of its own: MobileNetV3-Small and ASRID in one step; peaks and gradients go into a file.

    The weights are random, on which neither depends, and the pictures noise.
    """
    from .attention import ASRID, ClipNet, RegionBackbone

    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = RegionBackbone("mobilenet", "none")
    net = ClipNet(backbone, ASRID(backbone.channels).eval(), bool(learn), part)
    x = torch.rand(clips, frames, 3, side, side)
    before = peak_bytes()
    net(x).sum().backward()
    slopes = torch.cat([w.grad.flatten() for w in net.parameters() if w.grad is not None])
    np.savez(out, peak=peak_bytes(), before=before, gradients=slopes.numpy())


def measured(part, *sizes):
    """Peaks and gradients of such a step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "step.npz"
        ask = f"from {__name__} import one_large_step as step; step({str(out)!r}, {', '.join(map(str, (part, *sizes)))})"
        package = str(Path(__file__).parents[1])
        ran = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=folder,
                             env=os.environ | {"PYTHONPATH": package})  # fmt: skip
        if ran.returncode:
            told = ran.stderr.strip().splitlines()[-1:] or ["killed, most likely for want of memory"]
            raise ValueError(f"a step of this size ended with {ran.returncode}: {told[0]}")
        with np.load(out) as found:
            return {name: found[name] for name in found}


def plain(_):
    """All maps are kept for the way back."""
    return measured(0)


def checkpointed(_):
    """Six pictures at a time are computed again."""
    return measured(PART)


def same_gradients(_, one, two):
    """All gradients alike; what the process had before the step, and what a frozen backbone needs."""
    apart = float(np.abs(one["gradients"] - two["gradients"]).max() / np.abs(one["gradients"]).max())
    frozen = measured(PART, CLIPS, FRAMES, SIDE, 0)
    peaks = [float(told["peak"]) / 2**30 for told in (one, two, frozen)]
    note = (f"peak of the process {peaks[0]:.2f} GiB against {peaks[1]:.2f}, {float(two['before']) / 2**30:.2f} of it before "
            f"the step; backbone frozen, without gradients {peaks[2]:.2f}; {len(one['gradients'])} gradients differ by "
            f"{apart:.0e} of the largest")  # fmt: skip
    return apart < SLOPE, note


def size(answer):
    """What is compared in this row."""
    return float(answer["peak"])


ROWS = [
    Bench("asrid-step", "frozen backbone asked in every step, 6 clips of 8 faces of 224 px, one thread", 5.0,
          one_step, asked_again, asked_once, same_losses, repeats=5),
    Bench("asrid-memory", "peak memory (not time) of a step that keeps all maps, 6 clips of 30 pictures of 380 px", 2.0,
          lambda: [None], plain, checkpointed, same_gradients, repeats=1, cost=size),
]  # fmt: skip
