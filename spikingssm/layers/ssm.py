"""The arithmetic of a diagonal state space model: start values, discretisation, kernel, convolution, last state.

A system has N/2 complex modes per channel, the other half being their conjugates, so every output is ``2 Re(...)``:
``x'(t) = A x(t) + B u(t)``, ``y(t) = 2 Re sum_n C_n x_n(t)``. Everything here is a pure function of tensors.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "complex_normal", "convolve", "discretise", "kernel", "kernel_naive", "last_state", "log_uniform", "s4d_lin",
]  # fmt: skip


def s4d_lin(d_model: int, d_state: int) -> tuple[Tensor, Tensor]:
    """Start of A: ``A_n = -exp(log_A_real) + i A_imag = -1/2 + i pi n``.

    Args:
        d_model: H.
        d_state: N, even.

    Returns:
        log_A_real and A_imag, each (H, N/2).

    Source: Gu et al., NeurIPS 2022 (arXiv 2206.11893), "S4D-Lin".
    """
    modes = torch.arange(d_state // 2, dtype=torch.get_default_dtype())
    return torch.full((d_model, d_state // 2), math.log(0.5)), (math.pi * modes).repeat(d_model, 1)


def log_uniform(d_model: int, low: float, high: float) -> Tensor:
    """Start of ``log_dt``, (H,): uniform between ``ln low`` and ``ln high``, so that channels cover all time scales."""
    return torch.empty(d_model).uniform_(math.log(low), math.log(high))


def complex_normal(*shape: int) -> Tensor:
    """Circular complex normal numbers of variance 1 as real pairs: (*shape, 2)."""
    return torch.randn(*shape, 2) * math.sqrt(0.5)


def discretise(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold: what one step of length dt does while the input is constant.

    ``x[t] = exp(z) x[t-1] + B_bar u[t]`` with ``z = dt A`` and ``B_bar = (exp(z) - 1) / A``, for B = 1.

    Args:
        A: (H, N/2) complex, real parts < 0.
        dt: (H,) step, > 0.

    Returns:
        z and B_bar, each (H, N/2) complex. The exponent z is kept because its multiples stay exact over long kernels.
    """
    z = dt.unsqueeze(-1) * A
    return z, torch.expm1(z) / A


def kernel_naive(weights: Tensor, z: Tensor, length: int) -> Tensor:
    """`kernel` written as its formula, with a tensor (c, H, N/2, L) in between: the reference."""
    powers = torch.exp(z.unsqueeze(-1) * torch.arange(length, device=z.device))
    return 2 * (weights.unsqueeze(-1) * powers).sum(-2).real


def kernel(weights: Tensor, z: Tensor, length: int) -> Tensor:
    """``K_l = 2 Re sum_n weights_n exp(l z_n)`` for l = 0 .. length-1.

    With ``l = i S + j`` the exponential splits into ``exp(i S z) exp(j z)``: two tables of about sqrt(L) columns, each
    from exact exponents, and one real matrix product per channel instead of H x N/2 x L exponentials.

    Args:
        weights: (c, H, N/2) complex: C times B_bar for the c kernels, or C times a state for c free responses.
        z: (H, N/2) complex exponents.
        length: L >= 1.

    Returns:
        (c, H, L) real; equal to `kernel_naive` up to rounding.
    """
    rows, channels, modes = weights.shape
    coarse, fine = _split(length, rows)
    starts = fine * torch.arange(coarse, device=z.device).unsqueeze(-1)
    left = weights.transpose(0, 1).unsqueeze(2) * torch.exp(z[:, None, None] * starts)  # (H, c, coarse, N/2)
    right = torch.exp(z.unsqueeze(-1) * torch.arange(fine, device=z.device))  # (H, N/2, fine)
    table = torch.cat([left.real, -left.imag], -1).reshape(channels, rows * coarse, 2 * modes)
    out = 2 * torch.bmm(table, torch.cat([right.real, right.imag], 1))
    return out.reshape(channels, rows, coarse * fine)[..., :length].transpose(0, 1)


def last_state(u: Tensor, z: Tensor, B_bar: Tensor, initial: Tensor | None = None) -> Tensor:
    """The state after the last step: ``exp(L z) initial + sum_t exp((L-1-t) z) B_bar u[t]``.

    The weighted sum uses the same two tables as `kernel`; no state of an inner step is formed.

    Args:
        u: (B, L, H) real input.
        z: (H, N/2) complex exponents.
        B_bar: (H, N/2) complex.
        initial: (B, H, N/2) complex state before the first step; None is zero.

    Returns:
        (B, H, N/2) complex.
    """
    batch, length, channels = u.shape
    coarse, fine = _split(length, batch)
    padded = torch.nn.functional.pad(u, (0, 0, coarse * fine - length, 0))  # silence before the first step
    blocks = padded.reshape(batch * coarse, fine, channels).permute(2, 0, 1)  # (H, B coarse, fine)
    ages = torch.arange(fine - 1, -1, -1, device=z.device).unsqueeze(-1)
    inner = torch.view_as_real(torch.exp(z.unsqueeze(1) * ages) * B_bar.unsqueeze(1)).flatten(2)  # (H, fine, N)
    sums = torch.view_as_complex(torch.bmm(blocks, inner).reshape(channels, batch, coarse, -1, 2))
    ages = fine * torch.arange(coarse - 1, -1, -1, device=z.device).unsqueeze(-1)
    state = (sums * torch.exp(z[:, None, None] * ages)).sum(2).transpose(0, 1)
    return state if initial is None else state + torch.exp(length * z) * initial


def convolve(u: Tensor, forward: Tensor, backward: Tensor | None = None) -> Tensor:
    """Linear convolution along time by FFTs of length 2L.

    ``y[t] = sum_{l>=0} forward[l] u[t-l] + sum_{l>=0} backward[l] u[t+1+l]``: the second sees strictly later steps.

    Args:
        u: (B, L, H) real.
        forward: (H, L) kernel of the lags 0, 1, ...
        backward: (H, L) kernel of the lags -1, -2, ..., or None.

    Returns:
        (B, L, H), laid out with time innermost.
    """
    length = u.shape[1]
    if backward is None:
        spectrum = torch.fft.rfft(forward, n=2 * length)
    else:
        spectrum = torch.fft.rfft(torch.cat([forward, backward.flip(-1)], -1))
    product = torch.fft.rfft(u.transpose(1, 2), n=2 * length) * spectrum
    return torch.fft.irfft(product, n=2 * length)[..., :length].transpose(1, 2)


def _split(length: int, rows: int) -> tuple[int, int]:
    """Coarse and fine table sizes with coarse * fine >= length; ``rows`` copies of the coarse one are needed."""
    fine = min(length, math.ceil(math.sqrt(length * rows)))
    return math.ceil(length / fine), fine
