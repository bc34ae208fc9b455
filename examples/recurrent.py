"""Neurons that read each other's spikes and remember a cue, in a loop of one's own: `python examples/recurrent.py`."""

import torch
from torch import nn

import sdn

torch.manual_seed(0)
CHANNELS, NEURONS, CUE, STEPS = 4, 64, 10, 60


def batch(rows: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten steps of spikes in one of four channels, then noise (rows, STEPS, CHANNELS), and which channel it was."""
    y = torch.randint(CHANNELS, (rows,))
    x = (torch.rand(rows, STEPS, CHANNELS) < 0.02).float()
    x[torch.arange(rows), :CUE, y] = (torch.rand(rows, CUE) < 0.5).float()
    return x, y


class Memory(nn.Module):
    """A recurrent layer and what reads its last spikes."""

    def __init__(self) -> None:
        super().__init__()
        inputs, lateral = 2.0 * torch.randn(NEURONS, CHANNELS), 0.5 * torch.randn(NEURONS, NEURONS) / NEURONS**0.5
        self.weight = nn.Parameter(torch.cat([inputs, lateral], 1))  # (NEURONS, CHANNELS + NEURONS)
        self.neuron = sdn.ALIF(tau_m=10.0, tau_a=55.0, beta=1.0, threshold=0.05)  # tired for about 55 steps
        self.read = nn.Linear(NEURONS, CHANNELS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (rows, CHANNELS), 40 steps after the cue, and the spikes of a neuron and step."""
        spikes, _ = sdn.recurrent(x, self.weight, self.neuron)  # (rows, STEPS, NEURONS)
        return self.read(5 * spikes[:, -10:].mean(1)), spikes.mean()


net = Memory()
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
for step in range(301):
    x, y = batch()
    logits, rate = net(x)
    loss = nn.functional.cross_entropy(logits, y)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    if step % 50 == 0:
        right = (logits.argmax(-1) == y).float().mean()
        print(f"step {step:3d}  loss {loss.item():.3f}  right {right:.2f}  spikes a step {rate.item():.3f}")
