"""A neuron that you write yourself, in one step, compiled and trained: `python examples/own_neuron.py`."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

import sdn

torch.manual_seed(0)


class TiredState(NamedTuple):
    """What the neuron remembers, (B, H) each."""

    u: torch.Tensor  # the membrane
    w: torch.Tensor  # how tired it is


@dataclass(frozen=True)
class Tired(sdn.Dynamics):
    """A leaky neuron that gets tired."""

    jump: float = 0.2  # how tired a spike makes it
    threshold: float = 1.0
    State = TiredState
    transforms = {"jump": "log"}  # it can be learned, and stays above 0

    def past(self, state):
        """What the past adds to the input."""
        return 0.9 * state.u - state.w

    def advance(self, state, current, spike):
        """The state after this step."""
        u = (self.past(state) + current) * (1 - spike)
        return TiredState(u, 0.95 * state.w + self.jump * spike)


x = 0.3 + 0.5 * torch.randn(16, 300, 8)  # (batch, steps, neurons)
neuron = sdn.Neuron(Tired(), 8, learn={"jump": None})  # compiled loops, forward and backward
print("equal to the plain loop:", torch.equal(neuron(x)[0], sdn.simulate(Tired(), x).spike))
target = torch.linspace(0.05, 0.2, 8)  # spikes a step that each neuron shall have
optimizer = torch.optim.Adam(neuron.parameters(), lr=0.05)
for step in range(151):
    off = neuron(x)[0].mean((0, 1)) - target
    optimizer.zero_grad(), (off**2).mean().backward(), optimizer.step()
    if step % 50 == 0:
        print(f"step {step:3d}  rates are off by {off.abs().mean():.4f}")
print("jumps", ", ".join(f"{jump:.2f}" for jump in neuron.current_dynamics().jump.tolist()))
