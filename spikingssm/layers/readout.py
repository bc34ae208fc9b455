"""A leaky integrator behind a linear map, averaged over time: from spikes to logits."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn.checks.arguments import check_kind
from sdn.checks.axes import check_sequence, check_step
from sdn.checks.finite import nothing
from sdn.checks.trees import as_tree
from spikingssm.layers.heads import check_lengths, padding
from spikingssm.layers.ssm import lecun_normal_

__all__ = ["LeakyReadout", "ReadoutState"]


@as_tree
class ReadoutState(NamedTuple):
    """The integrator ``y`` and the ``sum`` of its values so far, (B, C) each, and the ``count`` of steps, (B,)."""

    y: Tensor
    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple's own count is of no use here


class LeakyReadout(nn.Module):
    """The mean over time of leaky integrators: (B, L, P) -> (B, C).

        y[k] = alpha y[k-1] + W s[k],  alpha = sigmoid(tau)  a class,  logits = mean over k of y[k]

    without a gain of 1 - alpha. Computed by its closed form, in which step k of T weighs ``(1 - alpha^(T-k+1)) / (1 -
    alpha)``: no y is formed but the last.

    Args:
        d_input: P.
        d_output: C classes.

    Source: Huber et al., ECCV 2024 workshops (arXiv 2504.00719). Its readout is complex and keeps the real part, so
        that one half of it never matters; here that half is left out.
    """

    def __init__(self, d_input: int, d_output: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_output, d_input))
        self.tau = nn.Parameter(torch.full((d_output,), math.log(0.8 / 0.2)))
        lecun_normal_(self.weight)

    def forward(
        self, x: Tensor, state: ReadoutState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, ReadoutState]:
        """The mean over the steps of the state and of x.

        Args:
            x: (B, L, P).
            state: after the steps before; None is none.
            lengths: (B,) integers, valid steps of each row, 1..L (0..L with a state); None is L.

        Returns:
            (B, C) in x's dtype, and the state (float32, or float64 for float64).

        Raises:
            ValueError: x or lengths of another shape or range, or the state of another batch or number of classes.
        """
        check_sequence("LeakyReadout", x, self.weight.shape[1])
        check_kind("LeakyReadout", state, ReadoutState)
        steps, shape = x.shape[1], (len(x), len(self.tau))
        if state is not None and not tuple(state.y.shape) == tuple(state.sum.shape) == shape:
            found = f"{tuple(state.y.shape)} and {tuple(state.sum.shape)}"
            raise ValueError(f"LeakyReadout: the state has y and sum of shape {found}, this input needs {shape}.")
        every = torch.full((len(x),), steps, device=x.device)
        count = every if lengths is None else check_lengths(lengths, x, state)
        outputs = functional.linear(x, self.weight.to(x.dtype))
        outputs = outputs.to(torch.promote_types(x.dtype, torch.float32))
        tau = self.tau.to(outputs.dtype)
        log_alpha = functional.logsigmoid(tau) + nothing(tau)
        if lengths is None:
            left = torch.arange(steps - 1, -1, -1, device=x.device).unsqueeze(-1)  # (L, 1)
        else:
            outputs = outputs.masked_fill(padding(count, steps), 0)
            left = (count.unsqueeze(-1) - 1 - torch.arange(steps, device=x.device)).clamp(min=0).unsqueeze(-1)
        total = (outputs * _series(log_alpha, left + 1)).sum(1)
        y = (outputs * torch.exp(left * log_alpha)).sum(1)
        if state is not None:
            valid = count.unsqueeze(-1)
            total = state.sum + total + state.y * torch.exp(log_alpha) * _series(log_alpha, valid)
            y, count = y + torch.exp(valid * log_alpha) * state.y, state.count + count
        return (total / count.clamp(min=1).unsqueeze(-1)).to(x.dtype), ReadoutState(y, total, count)

    def step(self, x: Tensor, state: ReadoutState | None = None) -> tuple[Tensor, ReadoutState]:
        """One step: (B, P) -> the logits of the prefix (B, C), and the state."""
        check_step("LeakyReadout", "x", x, self.weight.shape[1])
        logits, state = self(x.unsqueeze(1), state)
        return logits, state

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ReadoutState:
        """Nothing integrated yet."""
        wide = torch.promote_types(dtype, torch.float32)
        zeros = torch.zeros(batch, len(self.tau), device=device, dtype=wide)
        return ReadoutState(zeros, zeros.clone(), torch.zeros(batch, device=device, dtype=torch.long))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


def _series(log_alpha: Tensor, terms: Tensor) -> Tensor:
    """``1 + alpha + alpha^2 + ...`` of so many terms, (..., 1) -> (..., C)."""
    log_alpha = log_alpha.clamp(max=-1e-20)  # from there on every term is 1, and the quotient stays one of numbers
    return torch.expm1(terms * log_alpha) / torch.expm1(log_alpha)
