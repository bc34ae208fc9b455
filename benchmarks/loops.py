"""The loops that fast neurons are measured against: eager LIF with a hard reset, written as people write it."""

import torch
from torch import Tensor

from sdn.gradients import Triangle, spike

__all__ = ["ScriptedSDN", "select_loop", "unbind_loop"]

TRIANGLE = Triangle()


def unbind_loop(x: Tensor, decay: float, threshold: float = 1.0, axis: int = 1) -> Tensor:
    """LIF with a hard reset, one step after another over ``x.unbind(axis)``: the best plain eager form.

    Args:
        x: currents, e.g. (B, L, H) with the time on ``axis``.
        decay: factor per step.
        threshold: fires at or above it.
        axis: of the time.

    Returns:
        Spikes of x's shape; triangle gradient, reset detached.
    """
    u: Tensor | float = 0.0
    spikes = []
    for now in x.unbind(axis):
        h = decay * u + now
        s = spike(h - threshold, TRIANGLE, True)
        u = h * (1 - s.detach())
        spikes.append(s)
    return torch.stack(spikes, axis)


def select_loop(x: Tensor, decay: float, threshold: float = 1.0, detach_membrane: bool = False) -> Tensor:
    """The same neuron by ``x[..., t]`` with time last, as published; its backward is quadratic in L.

    Each selection makes a gradient of the size of all of x, and L of them are added.

    Args:
        x: (..., L).
        decay: factor per step.
        threshold: fires at or above it.
        detach_membrane: no gradient through time (the published "sltt"; else "bptt").

    Source: the iterative neurons described by Shen et al., AAAI 2025 (arXiv 2408.14909).
    """
    u = torch.zeros_like(x[..., 0])
    spikes = []
    for t in range(x.shape[-1]):
        h = decay * (u.detach() if detach_membrane else u) + x[..., t]
        s = spike(h - threshold, TRIANGLE, True)
        fired = s.detach()
        u = (1.0 - fired) * h + fired * 0.0
        spikes.append(s)
    return torch.stack(spikes, -1)


class ScriptedSDN(torch.nn.Module):
    """The published surrogate network in inference form, (N, L) -> (N, L): three convolutions, to be scripted.

    A dense convolution 1 -> C over K past steps, padded on both sides and cut to L, ReLU; a 1x1 convolution with the
    block's input added, ReLU; a 1x1 convolution to one channel.

    Args:
        d_model: C.
        kernel_size: K.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909), the reduced network.
    """

    def __init__(self, d_model: int = 8, kernel_size: int = 8) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv1d(1, d_model, kernel_size, padding=kernel_size)
        self.conv2 = torch.nn.Conv1d(d_model, d_model, 1)
        self.conv3 = torch.nn.Conv1d(d_model, 1, 1)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes (N, L) of the currents (N, L)."""
        first = torch.relu(self.conv1(x.unsqueeze(1))[..., : x.shape[-1]])
        return self.conv3(torch.relu(self.conv2(first) + first)).squeeze(1)
