"""Row `fit-overhead` of `deepfake-course bench tasks`: what does the readable loop cost? Written by hand."""
import numpy as np
import torch

from ._bench import Bench

N, SIDE, BATCH, EPOCHS, SEED, RATE, DECAY = 160, 128, 32, 8, 5, 3e-3, 0.01


def setup():
    """Random pictures with random labels: what is learned does not matter, what it costs does."""
    from .training import Examples

    torch.set_num_threads(1)  # both ways: on a busy machine two threads wait for each other, for seconds
    rng = np.random.default_rng(0)
    return [Examples(rng.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8), np.arange(N) % 2)]


def bare(data):
    """The loop of every PyTorch tutorial, with nothing around it."""
    from .core import to_batch
    from .training import TinyNet

    torch.manual_seed(SEED)
    net, rng, y = TinyNet(), np.random.default_rng(SEED), torch.from_numpy(data.y).float()
    adam = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    loss = torch.nn.BCEWithLogitsLoss()
    for _ in range(EPOCHS):
        for rows in rng.permutation(N).reshape(-1, BATCH):
            adam.zero_grad()
            loss(net(to_batch(data.x[rows])), y[rows]).backward()
            adam.step()
    return net


def ours(data):
    """`fit`, with the same settings."""
    from .training import FitSettings, TinyNet, fit

    settings = FitSettings(EPOCHS, BATCH, rate=RATE, weight_decay=DECAY, channels_last=False, threads=1, seed=SEED)
    return fit(TinyNet, data, settings)[0]


def agree(data, one, two):
    """The same weights, bit by bit."""
    one, two = one.state_dict(), two.state_dict()
    same = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    steps = EPOCHS * N // BATCH
    return same, f"weights after {steps} steps are {'equal bit by bit' if same else 'NOT the same'}"


ROWS = [
    Bench("fit-overhead", "a bare PyTorch loop: 40 steps of 32 pictures of 128 px, one thread each", 0.95,
          setup, bare, ours, agree, repeats=9),
]  # fmt: skip
