"""First weights with which layers of neurons fire at all where the input is of unit amplitude.

S5-RF and recurrent networks have no norm in front of their neurons, and their published weights are made for what was
published: spikes of many channels, or long recordings. Sines or noise of amplitude 1 then never reach a threshold, and
a layer that never fires has no gradient.
"""

import torch
from torch import Tensor

from sdn import Dynamics

__all__ = ["STARTS", "driven", "multiplied"]

STARTS = ("alive", "published")
SHARE = 0.6
"""Of the standard deviation of the current with which a neuron's trajectories are drawn: it then fires in some
percent of the steps."""
RATE = 0.05
"""Spikes a neuron and step that a layer is taken to get from the one before."""


@torch.no_grad()
def multiplied(weight: Tensor, factor: float) -> None:
    """Multiply first weights in place."""
    weight.mul_(factor)


@torch.no_grad()
def driven(weight: Tensor, dynamics: Dynamics, of_spikes: bool = False) -> None:
    """Scale the first weights of a map so that its currents make neurons fire; smaller they do not become.

    Currents then have a standard deviation of `SHARE` of the neuron's ``default_std`` where the inputs are independent
    and of variance 1, or spikes at a rate of `RATE`. Neurons that no spike moves, such as RF, are left as they are:
    they fire from the published weights on.

    Args:
        weight: (H, inputs), scaled in place.
        dynamics: of the H neurons.
        of_spikes: whether the inputs are spikes.
    """
    if weight.is_meta or not _moves(dynamics, len(weight), weight.device):
        return
    power = RATE if of_spikes else 1.0
    std = float((weight.double().square().sum(1).mean() * power).sqrt())
    if std > 0:
        weight.mul_(max(1.0, SHARE * dynamics.default_std / std))


def _moves(dynamics: Dynamics, channels: int, device: torch.device) -> bool:
    """Whether a spike moves the state of a neuron."""
    state = dynamics.initial_state(1, channels, device)
    current = torch.ones(1, channels, device=device)
    fired, quiet = (dynamics.advance(state, current, torch.full_like(current, s)) for s in (1.0, 0.0))
    return any(not torch.equal(one, other) for one, other in zip(fired, quiet, strict=True))
