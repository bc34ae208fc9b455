"""Linear resonate-and-fire neurons: a diagonal complex recurrence, and spikes that are read off it.

Without a reset the state knows nothing of the spikes, so that it can be found for all steps at once; with a refractory
threshold only the threshold does.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sdn.checks.arguments import check_tensor
from sdn.checks.axes import mend
from sdn.checks.finite import Diverged, all_finite, demand, demand_finite
from sdn.checks.neurons import check_range
from sdn.checks.tracing import has_numbers
from sdn.checks.trees import as_tree
from sdn.compiler.programs import slope_of
from sdn.dynamics.base import Value
from sdn.dynamics.fields import channelwise
from sdn.gradients import MultiGaussian, SpikeGradient, check_gradient, spike
from sdn.ops.common.operator import COMPLEX, operator
from sdn.ops.common.place import check_place
from sdn.ops.resonate import operator as kernel
from sdn.ops.scan.operator import scan

__all__ = ["ResonatorState", "resonate"]


@as_tree
class ResonatorState(NamedTuple):
    """State after a step: ``x`` (B, P) complex, and the refractory ``q`` (B, P), None without one."""

    x: Tensor
    q: Tensor | None = None


def resonate(
    drive: Tensor,
    factor: Tensor,
    gain: Tensor,
    initial: ResonatorState | None = None,
    *,
    threshold: Value = 1.0,
    spike_gradient: SpikeGradient = MultiGaussian(),  # noqa: B008
    rotation: Tensor | None = None,
    magnitude: bool = False,
    refractory: float | None = None,
    detach_reset: bool = True,
    solver: str = "fused",
    reuse: bool = False,
) -> tuple[Tensor, ResonatorState]:
    """Spikes of P linear complex neurons over a whole sequence, and their last state.

        x[t] = factor x[t-1] + gain u[t],    p[t] = Re(V x[t])  or  |V x[t]|
        spike[t] = H(p[t] - threshold - q[t-1]),    q[t] = refractory q[t-1] + spike[t]

    Strictly above the threshold. Without ``refractory`` there is no q: nothing is reset. Gradients flow to drive,
    factor, gain, threshold and the initial state.

    Args:
        drive: (B, L, 2P) float32 or float64: the real parts of u, then the imaginary ones; L >= 1.
        factor: (P,) complex, |factor| <= 1 for a state that stays bounded.
        gain: (P,) complex.
        initial: state before the first step; None is rest. Chunks one after another equal the whole.
        threshold: > 0; a number or (P,).
        spike_gradient: the slope used where the step has none: any that is elementwise, or any at all under "loop".
        rotation: (n, n) complex, a constant: the block of a block-diagonal V, the same for every n neighbours; n
            divides P. None is the identity.
        magnitude: threshold |V x| instead of its real part.
        refractory: factor that the raised threshold keeps per step, in [0, 1); None for none.
        detach_reset: keep gradients from flowing through the spike into q.
        solver: "fused" makes one pass over the drive each way and computes the states again in the backward pass, so
            that none is kept; "parallel" finds all states by `sdn.scan` and keeps them, the spikes of refractory
            neurons by rounds until none changes; "loop" is the plain loop, the reference.
        reuse: let the backward pass of "fused" write the gradient of the drive over the drive, for a caller that does
            not need it any more: a third less memory. A second backward pass is then an error.

    Returns:
        spikes (B, L, P), 0 or 1, and the state. Spikes of "fused" are those of "loop" bit for bit where there is no
        rotation; else, and for "parallel", up to potentials within rounding of the threshold.

    Raises:
        ValueError: shapes, dtypes or ranges as above that do not hold, a solver that is not known, or numbers that are
            NaN or infinite: what, step, row and neuron are named.
        NotImplementedError: a spike gradient that is not compiled, or a device without kernels; on CUDA a rotation
            with n above 64.

    Source: Huber, Lecomte, Polovnikov, von Arnim, "Scaling Up Resonate-and-Fire Networks for Fast Deep Learning",
        ECCV 2024 workshops (arXiv 2504.00719); the refractory threshold is that of Higuchi et al., ICML 2024 (arXiv
        2402.14603).
    """
    check_gradient("resonate", "spike_gradient", spike_gradient)
    channels = _checked(drive, factor, gain, initial, rotation, refractory, solver)
    check_range("resonate", "threshold", threshold, 0, float("inf"), closed=False)
    if reuse and drive.is_leaf and drive.requires_grad:
        raise ValueError(
            "resonate: reuse=True would overwrite a drive that is a leaf; give it a result, or reuse=False."
        )
    if initial is None:
        initial = rest(len(drive), channels, drive.device, drive.dtype, refractory is not None)
    setting = _Setting(
        channelwise(threshold, drive[..., :channels]), rotation, magnitude, refractory, detach_reset, reuse
    )
    dtype = COMPLEX[drive.dtype]
    runs = {"fused": _fused, "parallel": _parallel, "loop": _loop}
    factor, gain = factor.to(dtype), gain.to(dtype)
    spikes, last = runs[solver](drive, factor, gain, initial, setting, spike_gradient)
    if has_numbers(drive):
        _check_numbers(drive, factor, gain, initial, setting, last, isinstance(threshold, Tensor))
    return spikes, last


def rest(batch: int, channels: int, device: torch.device | str, dtype: torch.dtype, refractory: bool) -> ResonatorState:
    """The state at rest; ``dtype`` is real, that of the drive."""
    x = torch.zeros(batch, channels, device=device, dtype=COMPLEX[dtype])
    return ResonatorState(x, torch.zeros(batch, channels, device=device, dtype=dtype) if refractory else None)


class _Setting(NamedTuple):
    threshold: Tensor
    rotation: Tensor | None
    magnitude: bool
    refractory: float | None
    detach_reset: bool
    reuse: bool


def _loop(
    drive: Tensor, factor: Tensor, gain: Tensor, initial: ResonatorState, setting: _Setting, gradient: SpikeGradient
) -> tuple[Tensor, ResonatorState]:
    """Step by step, products and sums in the order of the kernels."""
    (fr, fi), (gr, gi), q = (factor.real, factor.imag), (gain.real, gain.imag), initial.q
    re, im, spikes = initial.x.real, initial.x.imag, []
    for now in drive.unbind(1):
        ur, ui = now.tensor_split(2, -1)
        re, im = (fr * re - fi * im) + (gr * ur - gi * ui), (fr * im + fi * re) + (gr * ui + gi * ur)
        v = _potential(re, im, setting) - setting.threshold
        fired = spike(v if q is None else v - q, gradient, at_threshold=False)
        spikes.append(fired)
        if q is not None:
            assert setting.refractory is not None
            q = setting.refractory * q + (fired.detach() if setting.detach_reset else fired)
    return torch.stack(spikes, 1), ResonatorState(torch.complex(re, im), q)


def _potential(re: Tensor, im: Tensor, setting: _Setting) -> Tensor:
    """Re(V x) or |V x| of x (..., P)."""
    if setting.rotation is not None:
        V = setting.rotation.to(COMPLEX[re.dtype])
        blocks = torch.complex(re, im).reshape(*re.shape[:-1], -1, len(V))
        x = torch.einsum("ij,...j->...i", V, blocks).flatten(-2)
        re, im = x.real, x.imag
    if not setting.magnitude:
        return re
    square = re * re + im * im
    rests = square == 0  # where the slope of the root is infinite, that of the magnitude is taken as 0
    return torch.where(rests, 0, torch.where(rests, 1, square).sqrt())


def _fused(
    drive: Tensor, factor: Tensor, gain: Tensor, initial: ResonatorState, setting: _Setting, gradient: SpikeGradient
) -> tuple[Tensor, ResonatorState]:
    check_place(drive, "resonate", "use solver='parallel' or 'loop'")
    fixed = torch.stack([factor.real, factor.imag, gain.real, gain.imag, setting.threshold])
    fields = [initial.x.real, initial.x.imag, *([] if initial.q is None else [initial.q])]
    V = setting.rotation
    rotation = drive.new_empty(2, 0, 0) if V is None else torch.stack([V.real, V.imag]).to(drive)
    options = setting.magnitude, setting.refractory or 0.0, *slope_of(gradient), not setting.detach_reset, setting.reuse
    spikes, last = kernel.run(drive, torch.stack(fields, 1).to(drive.dtype), fixed, rotation.detach(), *options)
    re, im, *q = last.unbind(1)
    return spikes, ResonatorState(torch.complex(re, im), q[0] if q else None)


def _parallel(
    drive: Tensor, factor: Tensor, gain: Tensor, initial: ResonatorState, setting: _Setting, gradient: SpikeGradient
) -> tuple[Tensor, ResonatorState]:
    """All states by one scan; then all spikes, by rounds where they raise the threshold."""
    x = scan(factor, gain * torch.complex(*drive.tensor_split(2, -1)), initial.x)
    v = _potential(x.real, x.imag, setting) - setting.threshold
    if setting.refractory is None:
        return spike(v, gradient, at_threshold=False), ResonatorState(x[:, -1].clone())
    assert initial.q is not None
    if not setting.detach_reset:
        raise NotImplementedError("resonate: the parallel solver detaches the reset; use solver='fused' or 'loop'.")
    gamma = torch.full_like(setting.threshold, setting.refractory)
    with torch.no_grad():
        spikes = _rounds(v.detach(), gamma, initial.q)
    q = scan(gamma, spikes, initial.q)
    before = torch.cat([initial.q.unsqueeze(1), q[:, :-1]], 1)
    slope = spike(v - before, gradient, at_threshold=False)  # of the very steps that `_exact` has found
    return slope + (spikes - slope).detach(), ResonatorState(x[:, -1].clone(), q[:, -1].clone())


def _exact(v: Tensor, gamma: Tensor, first: Tensor) -> Tensor:
    """Spikes (B, L, P) of neurons at a distance v, before any spike of theirs raises the threshold.

    The spikes of a round give the thresholds of the next, until none changes. Every round gets at least one more step
    of each neuron right, so the last one is exact; L rounds would be the most.
    """
    spikes = (v > 0).to(v.dtype)
    while True:
        q = scan(gamma, spikes, first)
        before = torch.cat([first.unsqueeze(1), q[:, :-1]], 1)
        found = (v - before > 0).to(v.dtype)
        if torch.equal(found, spikes):
            return spikes.contiguous()
        spikes = found


_rounds = operator("sdn::settle_resonate", _exact, lambda v, *_: v.new_empty(v.shape))


def _check_numbers(
    drive: Tensor,
    factor: Tensor,
    gain: Tensor,
    initial: ResonatorState,
    setting: _Setting,
    last: ResonatorState,
    by_channel: bool,
) -> None:
    """Refuse a threshold that is not above 0, and a run in which a number was NaN or infinite.

    A drive, a factor, a gain or a state that is none ends in a last state that is none. A threshold is looked at where
    it is given ``by_channel``, since one number has been.
    """
    threshold, rotation = setting.threshold, setting.rotation
    fields = {"factor": factor, "gain": gain, "threshold": threshold}

    def explain() -> None:
        for name, value in fields.items():
            if not all_finite(value):
                neuron = int((~torch.isfinite(value)).int().argmax())
                raise Diverged(
                    f"resonate: the {name} of neuron {neuron} is {value[neuron].item():g}, no finite number."
                )
        if rotation is not None and not all_finite(rotation):
            raise Diverged("resonate: the rotation holds NaN or infinity.")
        low = threshold.min().item()
        if not low > 0:
            raise ValueError(f"resonate: threshold must be > 0 everywhere, its smallest value is {low:g}.")
        _find_step(drive.detach(), factor.detach(), gain.detach(), initial.x.detach())
        raise Diverged("resonate: the state became NaN or infinite; look at the drive, or lower |factor|.")

    numbers = [part for part in (last.x, last.q, rotation) if part is not None]
    demand_finite([*numbers, threshold] if by_channel else numbers, "resonate: the state or a threshold", explain)
    if by_channel:
        demand((threshold.detach() > 0).all(), "resonate: a threshold is not above 0, or the state", explain)


@torch.no_grad()
def _find_step(drive: Tensor, factor: Tensor, gain: Tensor, x: Tensor) -> None:
    """Run once more, slowly, and name step, row and neuron of the first state that is not finite."""
    _refuse_state(x, factor, "starts from NaN or infinity")
    for step, now in enumerate(drive.unbind(1)):
        real, imaginary = now.tensor_split(2, -1)
        x = factor * x + gain * torch.complex(real, imaginary)
        _refuse_state(x, factor, f"became NaN or infinite at step {step}", real, imaginary)


def _refuse_state(x: Tensor, factor: Tensor, what: str, *drive: Tensor) -> None:
    wrong = ~torch.isfinite(x)
    if not wrong.any():
        return
    row, neuron = wrong.nonzero()[0].tolist()
    of_drive = "".join(f", {part[row, neuron]:g}" for part in drive).replace(", ", "drive ", 1)
    facts = ", ".join(filter(None, [of_drive, f"|factor| {factor[neuron].abs():.4g}"]))
    raise Diverged(
        f"resonate: neuron {neuron} of row {row} {what} ({facts}); look at the drive and the weights that made it, or "
        "lower the learning rate."
    )


def _mend(drive: Tensor) -> str:
    if drive.is_complex():
        return "; of a complex u it is torch.cat([u.real, u.imag], -1)"
    return mend(drive, None, "drive")


def _checked(
    drive: Tensor,
    factor: Tensor,
    gain: Tensor,
    initial: ResonatorState | None,
    rotation: Tensor | None,
    refractory: float | None,
    solver: str,
) -> int:
    """P, if everything fits."""
    if solver not in ("fused", "parallel", "loop"):
        raise ValueError(f"resonate: solver must be fused, parallel or loop, got {solver!r}.")
    for name, value in {"drive": drive, "factor": factor, "gain": gain}.items():
        check_tensor("resonate", name, value)
    if drive.ndim != 3 or 0 in drive.shape or drive.shape[2] % 2 or drive.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "resonate: drive must be float32 or float64 (B, L, 2P), P real parts and then P imaginary ones, with no "
            f"empty axis, got {drive.dtype} of shape {tuple(drive.shape)}{_mend(drive)}."
        )
    batch, channels = len(drive), drive.shape[2] // 2
    for name, value in {"factor": factor, "gain": gain}.items():
        if tuple(value.shape) != (channels,):
            raise ValueError(
                f"resonate: {name} has shape {tuple(value.shape)}, a drive of 2 x {channels} needs ({channels},)."
            )
    if rotation is not None and (
        rotation.ndim != 2 or rotation.shape[0] != rotation.shape[1] or channels % len(rotation)
    ):
        raise ValueError(
            f"resonate: rotation must be (n, n) with n a divisor of {channels} channels, got {tuple(rotation.shape)}."
        )
    if refractory is not None:
        check_range("resonate", "refractory", refractory, 0, 1)
    if initial is not None and getattr(initial, "_fields", None) != ResonatorState._fields:
        raise ValueError(f"resonate: initial must be a ResonatorState(x, q), got {type(initial).__name__}.")
    if initial is not None:
        shapes = [None if part is None else tuple(part.shape) for part in initial]
        wanted = [(batch, channels), None if refractory is None else (batch, channels)]
        if shapes != wanted or not initial.x.is_complex():
            raise ValueError(
                f"resonate: the state has x {initial.x.dtype} {shapes[0]} and q {shapes[1]}, this drive needs complex "
                f"{wanted[0]} and {wanted[1]}."
            )
    return channels
