"""The arithmetic of a diagonal state space model: start values, discretisation, kernel, convolution, last state.

A system has N/2 complex modes per channel, the other half being their conjugates, so every output is ``2 Re(...)``:
``x'(t) = A x(t) + B u(t)``, ``y(t) = 2 Re sum_n C_n x_n(t)``. Everything here is a pure function of tensors.
"""

import math
from typing import Any

import torch
from torch import Tensor

from sdn.checks.tracing import transforming

__all__ = [
    "DISCRETISATIONS", "complex_normal", "convolve", "discretise", "discretise_spikes", "fast_length", "hippo_normal",
    "kernel", "kernel_naive", "last_state", "lecun_normal_", "log_uniform", "s4d_lin",
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


def lecun_normal_(weight: Tensor) -> None:
    """Fill (outputs, inputs) with a normal distribution cut off at two standard deviations, of variance 1 / inputs."""
    std = weight.shape[1] ** -0.5 / 0.8796256610342398  # the standard deviation that the cut leaves of 1
    torch.nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


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


DISCRETISATIONS = ("dirac", "zoh", "bilinear")


def discretise_spikes(how: str, A: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """One step of ``x' = A x + u`` as ``x[t] = factor x[t-1] + gain u[t]``, for three ideas of what u does in a step.

    "dirac": u arrives at once, as a spike does; the factor is exact and the gain is eta, with no phase of its own.
    "zoh": u is held over the step. "bilinear": the trapezoidal rule, which warps frequencies.

    Args:
        how: one of `DISCRETISATIONS`.
        A: (P,) complex, real parts < 0.
        eta: (P,) length of a step, > 0.

    Returns:
        factor and gain, each (P,) complex; |factor| < 1, in floating point at most 1 up to rounding.

    Raises:
        ValueError: another word.

    Source: Huber et al., ECCV 2024 workshops (arXiv 2504.00719) for "dirac"; Smith et al., ICLR 2023 (arXiv
        2208.04933) for the others.
    """
    z = A * eta
    if how == "dirac":
        return torch.exp(z), eta.to(z.dtype)
    if how == "zoh":
        return torch.exp(z), torch.expm1(z) / A
    if how == "bilinear":
        return (1 + z / 2) / (1 - z / 2), eta / (1 - z / 2)
    raise ValueError(f"discretisation must be one of {', '.join(DISCRETISATIONS)}, got {how!r}.")


def hippo_normal(size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of HiPPO-N, the normal part of the HiPPO-LegS matrix.

    ``S = A + p p^T`` with ``A[i, j] = -sqrt(2i+1) sqrt(2j+1)`` below the diagonal, ``-(i+1)`` on it, and ``p[i] =
    sqrt(i + 1/2)``: -1/2 on the diagonal and skew-symmetric beside it, so -iS without its diagonal is Hermitian.

    Args:
        size: n, >= 1.

    Returns:
        eigenvalues (n,), real parts -1/2, imaginary parts ascending, both members of every pair; V (n, n), unitary,
        ``S = V diag(eigenvalues) V^H``, its first row positive; each complex128.

    Source: Gu et al., "How to Train Your HiPPO", ICLR 2023 (arXiv 2206.12037); Smith et al., ICLR 2023, section 3.3.
    """
    root = torch.sqrt(2 * torch.arange(size, dtype=torch.float64) + 1)
    product = torch.outer(root, root) / 2
    skew = product.triu(1) - product.tril(-1)  # A + p p^T without its diagonal
    frequencies, V = torch.linalg.eigh(-1j * skew)
    V = V * (V[0].conj() / V[0].abs())  # else the phases are those of the solver
    return torch.complex(torch.full_like(frequencies, -0.5), frequencies), V


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
        z: (H, N/2) complex exponents, real parts <= 0.
        length: L >= 1.

    Returns:
        (c, H, L) real; equal to `kernel_naive` up to rounding.
    """
    rows, channels, modes = weights.shape
    coarse, fine = _split(length, rows)
    cos, sin = (plane.unsqueeze(1) for plane in _powers(z, fine * torch.arange(coarse, device=z.device)))
    real, imag = (2 * plane.transpose(0, 1).unsqueeze(-1) for plane in (weights.real, weights.imag))
    left = torch.cat([real * cos - imag * sin, -(real * sin + imag * cos)], 2).mT  # (H, c, coarse, N)
    right = torch.cat(_powers(z, torch.arange(fine, device=z.device)), 1)  # (H, N, fine)
    out = torch.bmm(left.reshape(channels, rows * coarse, 2 * modes), right)
    return out.reshape(channels, rows, coarse * fine)[..., :length].transpose(0, 1)


def last_state(u: Tensor, z: Tensor, B_bar: Tensor, initial: Tensor | None = None) -> Tensor:
    """The state after the last step: ``exp(L z) initial + sum_t exp((L-1-t) z) B_bar u[t]``.

    The weighted sum uses the same two tables as `kernel`; no state of an inner step is formed.

    Args:
        u: (B, L, H) real input.
        z: (H, N/2) complex exponents, real parts <= 0.
        B_bar: (H, N/2) complex.
        initial: (B, H, N/2) complex state before the first step; None is zero.

    Returns:
        (B, H, N/2) complex.
    """
    batch, length, channels = u.shape
    coarse, fine = _split(length, batch)
    padded = torch.nn.functional.pad(u, (0, 0, coarse * fine - length, 0))  # silence before the first step
    blocks = padded.reshape(batch * coarse, fine, channels).permute(2, 0, 1)  # (H, B coarse, fine)
    inner = torch.complex(*_powers(z, torch.arange(fine - 1, -1, -1, device=z.device))) * B_bar.unsqueeze(-1)
    sums = torch.bmm(blocks, torch.view_as_real(inner.mT.contiguous()).flatten(2))  # (H, B coarse, N)
    sums = torch.view_as_complex(sums.reshape(channels, batch, coarse, z.shape[-1], 2))
    outer = torch.complex(*_powers(z, fine * torch.arange(coarse - 1, -1, -1, device=z.device)))
    state = (sums * outer.mT.unsqueeze(1)).sum(2).transpose(0, 1)
    if initial is None:
        return state
    return state + torch.complex(*_powers(z, torch.tensor([length], device=z.device))).squeeze(-1) * initial


def convolve(u: Tensor, forward: Tensor, backward: Tensor | None = None) -> Tensor:
    """Linear convolution along time by FFTs of the next fast length from 2L-1 on.

    ``y[t] = sum_{l>=0} forward[l] u[t-l] + sum_{l>=0} backward[l] u[t+1+l]``: the second sees strictly later steps.

    Args:
        u: (B, L, H) real.
        forward: (H, L) kernel of the lags 0, 1, ...
        backward: (H, L) kernel of the lags -1, -2, ..., or None.

    Returns:
        (B, L, H), laid out with time innermost.
    """
    length = u.shape[1]
    if not u.numel():
        return u.clone()
    size = fast_length(2 * length - 1)
    circle = torch.nn.functional.pad(forward, (0, size - length))
    if backward is not None and length > 1:  # the last lag meets no step
        circle = circle + torch.nn.functional.pad(backward[:, : length - 1].flip(-1), (size - length + 1, 0))
    run: Any = _Convolution.forward if transforming() else _Convolution.apply
    y: Tensor = run(u, circle)
    return y


def fast_length(least: int) -> int:
    """Smallest number >= ``least`` with no prime factor but 2, 3 and 5; other FFTs take up to twice as long."""
    bits = range(least.bit_length())
    odd: list[int] = [3**i * 5**j for i in bits for j in bits]
    return min(n << (-(-least // n) - 1).bit_length() for n in odd)


class _Convolution(torch.autograd.Function):
    """Circular convolution of the rows of u (B, L, H), padded with zeros, with a circle (H, n), n >= L; first L steps.

    Its own derivative, because torch's derivative of a real transform is a complex one of twice the size and time. It
    keeps its inputs and no spectrum, and can be differentiated again.
    """

    @staticmethod
    def forward(u: Tensor, circle: Tensor) -> Tensor:
        size = circle.shape[-1]
        product = torch.fft.rfft(u.mT, n=size) * torch.fft.rfft(circle)
        y: Tensor = torch.fft.irfft(product, n=size)[..., : u.shape[1]].mT
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        u, circle = ctx.saved_tensors
        size, spectrum = circle.shape[-1], torch.fft.rfft(gradient.mT, n=circle.shape[-1])
        du = d_circle = None
        if ctx.needs_input_grad[1]:
            d_circle = torch.fft.irfft((spectrum * torch.fft.rfft(u.mT, n=size).conj()).sum(0), n=size)
        if ctx.needs_input_grad[0]:
            du = torch.fft.irfft(spectrum * torch.fft.rfft(circle).conj(), n=size)[..., : u.shape[1]].mT
        return du, d_circle


def _powers(z: Tensor, lags: Tensor) -> tuple[Tensor, Tensor]:
    """``exp(l z)`` for whole lags l >= 0 as real and imaginary part, (H, N/2, lags) each.

    The phase counts turns in float64, since a float32 phase of many turns has lost its digits. Below e^-40, under the
    rounding of float64, a power is 0: products of smaller numbers are subnormal, and ten times slower.
    """
    exact = z.imag.dtype if z.device.type == "mps" else torch.float64  # no float64 there
    turns = (z.imag.to(exact) / (2 * math.pi)).unsqueeze(-1) * lags
    angle = (2 * math.pi * (turns - turns.detach().round())).to(z.imag.dtype)
    exponent = z.real.unsqueeze(-1) * lags
    decay = torch.exp(exponent.masked_fill(exponent < -40, -math.inf))
    return decay * torch.cos(angle), decay * torch.sin(angle)


def _split(length: int, rows: int) -> tuple[int, int]:
    """Coarse and fine table sizes with coarse * fine >= length; ``rows`` copies of the coarse one are needed."""
    fine = min(length, math.ceil(math.sqrt(length * max(1, rows))))
    return math.ceil(length / fine), fine
