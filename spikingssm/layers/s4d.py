"""The diagonal state space layer with long convolutions."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sdn.checks.arguments import Spelled, check_count, check_kind, check_tensor
from sdn.checks.axes import mend, mend_step
from sdn.checks.finite import nothing
from sdn.checks.kept import kept
from sdn.checks.precision import in_full_precision
from sdn.checks.trees import as_tree
from sdn.checks.watched import is_watched
from sdn.checks.words import MODEL_WORDS
from sdn.ops.common.operator import COMPLEX
from sdn.ops.modes.operator import modes
from spikingssm.layers.ssm import complex_normal, convolve, discretise, kernel, last_state, log_uniform, s4d_lin

__all__ = ["S4D", "S4DState"]


ALGORITHMS = ("auto", "fft", "recurrence")
_MOST_MODES = 96  # see S4D.choose


@as_tree
class S4DState(NamedTuple):
    """The modes ``x``, (B, H, N/2) complex; None where a training run from rest by FFT did not compute them."""

    x: Tensor | None


class S4D(Spelled, nn.Module):
    """A linear state space model per channel, run over a sequence as one operation: (B, L, H) -> (B, L, H).

    ``x[t] = exp(dt A) x[t-1] + B_bar u[t]``, ``y[t] = 2 Re sum_n C_n x_n[t] + D u[t]``, zero-order hold; in parallel
    ``y = u * K + D u`` with ``K_l = 2 Re sum_n C_n B_bar_n exp(l dt A_n)``. A bidirectional layer adds a second kernel,
    with its own C, over the steps to come.

    Args:
        d_model: H, >= 1.
        d_state: N, even, >= 2; N/2 complex modes stand for N real ones.
        dt_min: smallest step at the start, > 0.
        dt_max: largest step at the start, >= dt_min.
        bidirectional: see the future too; such a layer cannot stream.
        learn_b: learn B, which is 1 otherwise.
        algorithm: how a sequence is run. "recurrence": all modes step by step in one compiled operator, the last state
            comes with it; no second derivatives. "fft": the convolution. "auto": the faster one, see `choose`. The
            results are equal up to rounding.

    Raises:
        ValueError: a size, range or word as above that does not hold.

    Parameters are real: ``C`` is (directions, H, N/2, 2), ``B`` (H, N/2, 2). ``slow_parameters`` names those that want
    a learning rate of at most 1e-3 and no weight decay, ``plain_parameters`` those that want no decay. It computes and
    answers in float32 (float64 for float64 input), also under autocast, so that a neuron compares currents with its
    threshold in full precision.

    Source: Gu et al., NeurIPS 2022 (arXiv 2206.11893). Where we differ from the usual code: `expm1` in the
    discretisation, the kernel from two small tables, an exact state, and an odd d_state is refused rather than floored.
    """

    slow_parameters: tuple[str, ...] = ("log_dt", "log_A_real", "A_imag")
    plain_parameters: tuple[str, ...] = ("C", "D")
    spellings = MODEL_WORDS

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        bidirectional: bool = False,
        learn_b: bool = False,
        algorithm: str = "auto",
    ) -> None:
        super().__init__()
        check_count("S4D", "d_model", d_model)
        check_count("S4D", "d_state", d_state, least=None)
        if d_state < 2 or d_state % 2:
            raise ValueError(
                f"S4D: d_state must be even and at least 2, got {d_state}; modes come in conjugate pairs, "
                f"use {max(2, d_state - 1)} or {max(2, d_state + 1)}."
            )
        if not 0 < dt_min <= dt_max < math.inf:
            raise ValueError(f"S4D: needs 0 < dt_min <= dt_max, got dt_min {dt_min} and dt_max {dt_max}.")
        if algorithm not in ALGORITHMS:
            raise ValueError(f"S4D: algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}.")
        self.algorithm, self.rate = algorithm, 1.0
        self.d_model, self.d_state, self.bidirectional, self.learn_b = d_model, d_state, bidirectional, learn_b
        log_A_real, A_imag = s4d_lin(d_model, d_state)
        self.log_dt = nn.Parameter(log_uniform(d_model, dt_min, dt_max))
        self.log_A_real, self.A_imag = nn.Parameter(log_A_real), nn.Parameter(A_imag)
        self.C = nn.Parameter(complex_normal(2 if bidirectional else 1, d_model, d_state // 2))
        self.D = nn.Parameter(torch.randn(d_model))
        if learn_b:
            self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(d_model, d_state // 2, 1))
            self.slow_parameters = (*type(self).slow_parameters, "B")

    def forward(self, x: Tensor, state: S4DState | None = None) -> tuple[Tensor, S4DState | None]:
        """The whole sequence at once.

        Args:
            x: (B, L, H), any strides, L >= 1.
            state: state before the first step; None is rest. Chunks one after another equal the whole.

        Returns:
            y (B, L, H) and the state after the last step. In training mode a run from rest by FFT leaves it out
            (``S4DState(None)``, refused if fed back): pass ``initial_state`` to have it. None if bidirectional.

        Raises:
            ValueError: x or state of another shape, a state that was left out, or any state if bidirectional.
        """
        self._check_input(x, 3)
        self._check_state(state, len(x))
        wide = torch.promote_types(x.dtype, torch.float32)
        with in_full_precision(x):
            run = self._recur if self.choose(x) == "recurrence" else self._convolve
            return run(x.to(wide), None if state is None else state.x)

    def step(self, x: Tensor, state: S4DState | None = None) -> tuple[Tensor, S4DState]:
        """One step by the recurrence: (B, H) -> y (B, H) and the state.

        Raises:
            NotImplementedError: a bidirectional layer.
            ValueError: as in `forward`.
        """
        self._refuse_streaming()
        self._check_input(x, 2)
        self._check_state(state, len(x))
        if is_watched(self):
            y, after = self(x.unsqueeze(1), state)
            if after is not None and after.x is not None:  # a convolution in training gives none
                return y.squeeze(1), after
        wide = torch.promote_types(x.dtype, torch.float32)
        with in_full_precision(x):
            u = x.to(wide)
            A_bar, B_bar, C, D = kept(self, (wide, self.rate), self._sources(), lambda: self._stepped(wide))
            modes = B_bar * u.unsqueeze(-1)
            if state is not None and state.x is not None:
                modes = torch.addcmul(modes, A_bar, state.x)
            return torch.addcmul((C * modes).sum(-1).real, D, u), S4DState(modes)

    def initial_state(
        self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> S4DState:
        """The state at rest; ``dtype`` is that of the input, the state is its complex counterpart.

        Raises:
            NotImplementedError: a bidirectional layer.
        """
        self._refuse_streaming()
        wide = COMPLEX[torch.promote_types(dtype, torch.float32)]
        return S4DState(torch.zeros(batch, self.d_model, self.d_state // 2, device=device, dtype=wide))

    def extra_repr(self) -> str:
        """What `print` shows."""
        sizes = f"{self.d_model}, d_state={self.d_state}, bidirectional={self.bidirectional}, learn_b={self.learn_b}"
        return f"{sizes}, algorithm={self.algorithm}"

    def choose(self, x: Tensor) -> str:
        """The algorithm that runs x, "recurrence" or "fft": this layer's own, or for "auto" the faster by measurement.

        The time of the recurrence grows with the modes that run, that of the FFT hardly. On the CPU they meet at about
        96 modes (d_state 192). Lanes of a vector register (16 float32 or 8 float64 channels) that have no channel
        count, and so does the second direction, since two kernels share their transforms. Other devices take the FFT.
        """
        if self.algorithm != "auto":
            return self.algorithm
        lanes = 8 if x.dtype == torch.float64 else 16
        directions = 2 if self.bidirectional else 1
        modes_run = directions * self.d_state / 2 * math.ceil(self.d_model / lanes) * lanes / self.d_model
        return "recurrence" if x.device.type == "cpu" and modes_run <= _MOST_MODES else "fft"

    def _convolve(self, u: Tensor, initial: Tensor | None) -> tuple[Tensor, S4DState | None]:
        z, B_bar, C = self._system(u.dtype)
        length, through = u.shape[1], self.D.to(u.dtype).unsqueeze(-1)
        causal, *later = kernel(C * B_bar, z, length)
        y = convolve(u, causal + nn.functional.pad(through, (0, length - 1)), *later)  # D is one more lag-0 term
        if self.bidirectional:
            return y, None
        if initial is None:
            return y, S4DState(None if self.training else last_state(u, z, B_bar))
        free = kernel(C[0] * torch.exp(z) * initial, z, length)
        return y + free.transpose(1, 2), S4DState(last_state(u, z, B_bar, initial))

    def _recur(self, u: Tensor, initial: Tensor | None) -> tuple[Tensor, S4DState | None]:
        z, B_bar, C = self._system(u.dtype)
        A_bar, D = torch.exp(z), self.D.to(u.dtype)
        y, last = modes(u, A_bar, B_bar, C[0], D, None if initial is None else initial.to(z.dtype))
        if not self.bidirectional:
            return y, S4DState(last)
        if u.shape[1] > 1:
            later, _ = modes(u[:, 1:], A_bar, B_bar, C[1], reverse=True)
            y = y + nn.functional.pad(later, (0, 0, 0, 1))
        return y, None

    def _sources(self) -> list[Tensor]:
        found: list[Tensor] = [self.log_dt, self.log_A_real, self.A_imag, self.C, self.D]
        return [*found, self.B] if self.learn_b else found

    def _stepped(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A_bar, B_bar and 2 C (H, N/2), and D (H,): what one step multiplies with."""
        z, B_bar, C = self._system(dtype)
        return torch.exp(z), B_bar, 2 * C[0], self.D.to(dtype)

    def _system(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        log_A, log_dt = self.log_A_real.to(dtype), self.log_dt.to(dtype)
        A = torch.complex(-torch.exp(log_A) + nothing(log_A), self.A_imag.to(dtype))
        z, B_bar = discretise(A, self.rate * torch.exp(log_dt) + nothing(log_dt))
        if self.learn_b:
            B_bar = B_bar * torch.view_as_complex(self.B.to(dtype))
        return z, B_bar, torch.view_as_complex(self.C.to(dtype))

    def _check_input(self, x: Tensor, ndim: int) -> None:
        check_tensor("S4D", "x", x)
        mended = mend if ndim == 3 else mend_step
        axes = "(batch, length, channels) with length >= 1" if ndim == 3 else "(batch, channels)"
        if x.ndim != ndim or (ndim == 3 and x.shape[1] == 0) or not x.is_floating_point():
            found = f"{x.dtype} of shape {tuple(x.shape)}{mended(x, self.d_model)}"
            raise ValueError(f"S4D: x must be a floating-point {axes}, got {found}.")
        if x.shape[-1] != self.d_model:
            wanted = f"{self.d_model}{mended(x, self.d_model)}"
            raise ValueError(f"S4D: x has {x.shape[-1]} channels on its last axis, this layer has {wanted}.")

    def _check_state(self, state: S4DState | None, batch: int) -> None:
        if state is None:
            return
        if self.bidirectional:
            raise ValueError(
                "S4D: a bidirectional layer sees the future and has no state; pass state=None, or build it causal."
            )
        check_kind("S4D", state, S4DState)
        if state.x is None:
            raise ValueError(
                "S4D: this state was left out (a training run from rest by FFT); start with state=initial_state(batch)."
            )
        shape = (batch, self.d_model, self.d_state // 2)
        if tuple(state.x.shape) != shape or not state.x.is_complex():
            found = f"{state.x.dtype} of shape {tuple(state.x.shape)}"
            raise ValueError(f"S4D: state x is {found}, this input needs a complex tensor of shape {shape}.")

    def _refuse_streaming(self) -> None:
        if self.bidirectional:
            raise NotImplementedError(
                "S4D: a bidirectional layer needs the steps to come, so it cannot run step by step; "
                "give it whole sequences, or build it with bidirectional=False."
            )
