"""Leaky integrators behind a linear map: from spikes to a potential of each class at every step."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn import scan
from sdn.checks.arguments import check_kind
from sdn.checks.axes import check_sequence, check_step
from sdn.checks.finite import nothing
from sdn.checks.precision import in_full_precision
from sdn.checks.tracing import transforming
from sdn.ops.common.pages import huge

__all__ = ["LeakyIntegrator"]


class _Linear(torch.autograd.Function):
    """``x W^T`` with the gradient of x, the largest tensor of a step, on large pages."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows, seen = grad.flatten(0, -2), x.flatten(0, -2)
        if torch.is_grad_enabled():  # to be differentiated again
            return grad @ weight, rows.T @ seen
        grad_x = huge(torch.empty_like(x, memory_format=torch.contiguous_format))
        torch.mm(rows, weight, out=grad_x.view(len(rows), -1))
        return grad_x, rows.T @ seen


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    if x.device.type != "cpu" or not x.requires_grad or torch.compiler.is_compiling() or transforming():
        return functional.linear(x, weight)
    out: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return out


class LeakyIntegrator(nn.Module):
    """Leaky integrators: spikes (B, L, H) -> potentials (B, L, C) at every step.

        y[t] = alpha y[t-1] + (1 - alpha) (W s[t] + b),    alpha = exp(-1 / |tau|)  a class

    Args:
        d_input: H.
        d_output: C.
        tau_mean: mean of the normal distribution that the time constants start from, in steps; their sign is nothing.
        tau_std: its standard deviation, in steps.
        bias: whether there is a b; it starts at 0.

    Raises:
        ValueError: a size below 1, a mean that is not above 0, or a negative deviation.

    Source: the readout of Higuchi et al., ICML 2024 (arXiv 2402.14603).
    """

    plain_parameters: tuple[str, ...] = ("tau",)

    def __init__(
        self, d_input: int, d_output: int, tau_mean: float = 20.0, tau_std: float = 5.0, bias: bool = False
    ) -> None:
        super().__init__()
        if d_input < 1 or d_output < 1 or not (0 < tau_mean < math.inf and 0 <= tau_std < math.inf):
            raise ValueError(
                "LeakyIntegrator: sizes must be at least 1, tau_mean > 0 and tau_std >= 0 finite, got "
                f"d_input={d_input}, d_output={d_output}, tau_mean={tau_mean}, tau_std={tau_std}."
            )
        self.weight = nn.Parameter(torch.empty(d_output, d_input))
        nn.init.xavier_uniform_(self.weight)
        self.tau = nn.Parameter(torch.empty(d_output).normal_(tau_mean, tau_std))
        self.bias = nn.Parameter(torch.zeros(d_output)) if bias else None

    @property
    def alpha(self) -> Tensor:
        """(C,), what a potential keeps per step."""
        return torch.exp(-1 / self.tau.abs()) + nothing(self.tau)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Potentials and the last of them.

        Args:
            x: (B, L, H).
            state: (B, C), the potential before the first step; None is 0. Chunks one after another equal the whole.

        Returns:
            (B, L, C) in x's dtype, and (B, C) in float32 or better.

        Raises:
            ValueError: x or state of another shape.
        """
        check_sequence("LeakyIntegrator", x, self.weight.shape[1])
        check_kind("LeakyIntegrator", state, Tensor)
        if state is not None and tuple(state.shape) != (len(x), len(self.tau)):
            raise ValueError(
                f"LeakyIntegrator: the state has shape {tuple(state.shape)}, this input needs "
                f"{(len(x), len(self.tau))}."
            )
        wide = torch.promote_types(x.dtype, torch.float32)
        with in_full_precision(x):
            bias = None if self.bias is None else self.bias.to(wide)
            inputs = _linear(x.to(wide), self.weight.to(wide))
            inputs = inputs if bias is None else inputs + bias
            alpha = self.alpha.to(wide)
            y = scan(alpha, (1 - alpha) * inputs, None if state is None else state.to(wide))
        return y.to(x.dtype), y[:, -1].clone()

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step: (B, H) -> (B, C) and the state."""
        check_step("LeakyIntegrator", "x", x, self.weight.shape[1])
        y, state = self(x.unsqueeze(1), state)
        return y.squeeze(1), state

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Potentials of 0."""
        return torch.zeros(batch, len(self.tau), device=device, dtype=torch.promote_types(dtype, torch.float32))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"
