"""The numbers of a `LearnedNeuron` as tensors: where they start, and all steps at once for spikes that are given."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.ops.scan.operator import scan
from sdn.recordings.neuron import LearnedNeuron, learned_neuron

__all__ = ["Weights", "distance", "forced", "neuron_of", "seen", "start"]

FASTEST, SLOWEST = 1.5, 150.0
"""Time constants in steps between which the poles start, as those of ELM (Spieler et al., ICLR 2024)."""


class Weights(NamedTuple):
    """Tensors of K poles and J hidden units; complex numbers have a last axis of two."""

    decay: Tensor
    """(K,), through the logistic function."""
    turn: Tensor
    """(K,), radians per step."""
    reset: Tensor
    """(K,), through the logistic function."""
    kick: Tensor
    """(K, 2)."""
    direct: Tensor
    """(K, 2)."""
    weight: Tensor
    """(J, K, 2)."""
    bias: Tensor
    """(J,)."""
    out: Tensor
    """(J,)."""
    hold: Tensor
    """(J,), through the logistic function."""
    clear: Tensor
    """(J,), through the logistic function."""
    drive: Tensor
    """()."""
    sharpness: Tensor
    """(), logarithm of the factor between the distance to the threshold and the logit of a spike."""


def start(poles: int, hidden: int, generator: torch.Generator) -> Weights:
    """Random readouts of poles whose time constants are spread evenly over their logarithm."""

    def normal(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    tau = torch.logspace(math.log10(FASTEST), math.log10(SLOWEST), poles)
    return Weights(
        decay=torch.logit(torch.exp(-1 / tau)),
        turn=torch.linspace(0.1, 0.5, poles) / tau,
        reset=torch.logit(torch.linspace(0.9, 0.1, poles)),
        kick=torch.zeros(poles, 2),
        direct=normal(0.3, poles, 2),
        weight=normal(1 / math.sqrt(2 * poles), hidden, poles, 2),
        bias=normal(0.5, hidden),
        out=normal(0.3, hidden),
        hold=torch.linspace(-2.0, 2.0, hidden),
        clear=torch.full((hidden,), 2.0),
        drive=torch.tensor(0.1),
        sharpness=torch.tensor(1.0),
    )


def forced(w: Weights, x: Tensor, spikes: Tensor) -> Tensor:
    """Distance to the threshold (N, T) at every step, where the spikes of the steps before are those given.

    Args:
        w: the numbers.
        x: inputs (N, T).
        spikes: (N, T), 0 or 1.
    """
    return distance(w, seen(w, x, spikes), x)


def seen(w: Weights, x: Tensor, spikes: Tensor) -> Tensor:
    """What `mem` is a weighted sum of, (N, T, 2 K + J): the poles before a step's input, and the hidden units.

    With the spikes given the poles are linear in the input, so all steps are one scan, and the units are another.
    """
    decay, s = torch.sigmoid(w.decay), spikes.unsqueeze(-1)
    pole = torch.polar(decay, w.turn)
    keep = 1 - torch.sigmoid(w.reset) * s
    into = torch.complex((1 - decay) * x.unsqueeze(-1) * keep + w.kick[:, 0] * s, w.kick[:, 1] * s)
    after = scan(pole * keep, into)
    turned = torch.view_as_real(pole * pad(after[:, :-1], (0, 0, 1, 0))).flatten(-2)
    if not len(w.out):
        return turned
    units = torch.tanh(turned @ w.weight.flatten(1).T + w.bias)
    held = torch.sigmoid(w.hold) * (1 - torch.sigmoid(w.clear) * pad(s[:, :-1], (0, 0, 1, 0)))
    return torch.cat([turned, scan(held, units)], -1)


def distance(w: Weights, found: Tensor, x: Tensor) -> Tensor:
    """Distance to the threshold (N, T) from what `seen` found."""
    return found @ torch.cat([w.direct.flatten(), w.out]) + w.drive * x - 1


def neuron_of(w: Weights) -> LearnedNeuron:
    """The neuron with these numbers, as plain numbers of single precision."""
    poles, hidden = len(w.turn), len(w.out)
    decay, reset, hold, clear = (torch.sigmoid(raw) for raw in (w.decay, w.reset, w.hold, w.clear))
    found = {"drive": w.drive}
    for k in range(poles):
        found |= {f"decay{k}": decay[k], f"turn{k}": w.turn[k], f"reset{k}": reset[k]}
        found |= {f"kick{k}": w.kick[k, 0], f"kick_i{k}": w.kick[k, 1]}
        found |= {f"direct{k}": w.direct[k, 0], f"direct_i{k}": w.direct[k, 1]}
    for j in range(hidden):
        found |= {f"bias{j}": w.bias[j], f"out{j}": w.out[j], f"hold{j}": hold[j], f"clear{j}": clear[j]}
        for k in range(poles):
            found |= {f"weight{j}_{k}": w.weight[j, k, 0], f"weight_i{j}_{k}": w.weight[j, k, 1]}
    return learned_neuron(poles, hidden)(**{name: float(value.detach()) for name, value in found.items()})
