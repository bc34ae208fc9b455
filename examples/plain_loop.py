"""Exact, fast neurons in a training loop of one's own: `python examples/plain_loop.py`."""

import math

import torch
from torch import nn

import sdn

torch.manual_seed(0)


def batch(rows: int = 64, length: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy sines (rows, length, 1) of a slow or a fast period, and which it is."""
    y = torch.randint(2, (rows,))
    t = torch.arange(length) / length
    pace = (4 + 6 * y)[:, None]
    x = torch.sin(2 * math.pi * (pace * t + torch.rand(rows, 1))) + 0.3 * torch.randn(rows, length)
    return x[..., None], y


net = sdn.Sequential(
    nn.Linear(1, 32),
    sdn.Neuron(sdn.LIF(0.9), 32, learn={"decay": None}),  # one compiled loop, with its own backward pass
    nn.Linear(32, 32),
    sdn.Neuron(sdn.ALIF(), 32),
    nn.Linear(32, 2),
)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
for step in range(101):
    x, y = batch()
    logits, state = net(x)  # (rows, length, 2), and the state of every layer
    loss = nn.functional.cross_entropy(logits.mean(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.3f}  right {(logits.mean(1).argmax(-1) == y).float().mean():.2f}")
