"""Trajectories of a neuron under random currents."""

import functools
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from sdn.checks.finite import Diverged
from sdn.compiler.programs import check_compiled
from sdn.dynamics.base import Dynamics, Trajectory, check_dynamics, simulate
from sdn.dynamics.fields import numeric_fields
from sdn.ops.common.place import has_kernels
from sdn.ops.neuron.sequence import run_sequence
from sdn.surrogate.currents import FAMILIES, currents
from sdn.surrogate.trajectory_files import ROWS_AT_ONCE, TENSORS, drawn_values

__all__ = ["check_request", "default_seed", "generate"]

LARGEST = 1 << 60
"""Steps of all rows together; torch cannot say so many bytes."""
SENSIBLE_RATE = (0.02, 0.40)


def generate(
    dynamics: Dynamics,
    samples: int,
    length: int,
    mean: float = 0.0,
    std: float | None = None,
    seed: int = 0,
    *,
    family: str = "normal",
    over: Mapping[str, Sequence[float]] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Simulate ``samples`` neurons from rest under random currents, by default independent ones from N(mean, std).

    Args:
        dynamics: the neuron; plain numbers only, since every row is one neuron of the same kind.
        samples: number of rows N, >= 1.
        length: steps per row L, >= 1.
        mean: of the currents, in the neuron's units.
        std: their standard deviation, in the same units; None is ``dynamics.default_std``.
        seed: of a generator on the CPU, so that every device sees the same currents.
        family: of the currents, see `sdn.surrogate.currents`; "mixture" has some of each. Others than "normal" take
            no mean.
        over: fields and their bounds, ``{"decay": (0.05, 0.95)}``: every row is a neuron with values of its own.
        device: where to simulate; the result is on the CPU.
        progress: called with the number of rows done since the last call.

    Returns:
        Trajectory of contiguous (N, L) tensors: input and mem float32, spike bool; state is None.

    Raises:
        ValueError: a size below 1, a negative std, a dynamics with tensor fields, or a device that is not there.

    Warns:
        UserWarning: a spike rate outside 2 % to 40 %, with which little can be learned.
    """
    check_dynamics("generate", dynamics)
    std = dynamics.default_std if std is None else std
    check_request(dynamics, samples, length, mean, std, device, seed, family, over or {})
    try:
        input, mem, spike = (torch.empty(samples, length, dtype=dtype) for dtype in TENSORS.values())
    except RuntimeError:
        raise ValueError(_too_many(samples, length)) from None
    values = drawn_values(over or {}, samples, seed)
    run = _runner(dynamics, torch.empty(0, device=device))
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, samples, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, samples))
        if family == "normal":
            input[rows].normal_(mean, std, generator=generator)
        else:
            part = (seed + 1_000_003 * (start // ROWS_AT_ONCE)) % 2**63
            input[rows] = currents(dynamics, family, rows.stop - rows.start, length, std, part)
        neurons = dynamics.replace(**{name: value[rows] for name, value in values.items()}) if values else dynamics
        try:
            with torch.no_grad():
                done = run(neurons, input[rows].to(device).T.contiguous().unsqueeze(0))
        except Diverged as error:
            way = (
                f"these are {family} currents of standard deviation {std:g}; take smaller ones (std=, -s, or "
                f"default_std of the class {type(dynamics).__name__}), or change the neuron"
            )
            raise Diverged(str(error).replace(dynamics.when_diverging, way)) from None
        mem[rows] = done.mem[0].T
        spike[rows] = done.spike[0].T > 0
        if progress is not None:
            progress(rows.stop - rows.start)
    rate = int(spike.count_nonzero()) / spike.numel()
    law = f"N({mean}, {std})" if family == "normal" else f"{family} currents of std {std}"
    if not SENSIBLE_RATE[0] <= rate <= SENSIBLE_RATE[1]:
        warnings.warn(
            f"{dynamics} under {law} spikes in {rate:.2%} of the steps, outside 2 % to 40 %; change mean or "
            f"std (the default std for this neuron is {dynamics.default_std}).",
            stacklevel=2,
        )
    return Trajectory(input, mem, spike)


def _runner(dynamics: Dynamics, like: torch.Tensor) -> Callable[..., Trajectory]:
    """The compiled loop, which computes the very numbers of `simulate`; that itself where there is none, said aloud."""
    if not has_kernels(like):
        return simulate
    try:
        check_compiled(dynamics)
    except NotImplementedError as error:
        warnings.warn(f"{error} Until then it is simulated step by step, about ten times slower.", stacklevel=3)
        return simulate
    return functools.partial(run_sequence, record=True)


def check_request(
    dynamics: Dynamics,
    samples: int,
    length: int,
    mean: float,
    std: float,
    device: torch.device | str,
    seed: int = 0,
    family: str = "normal",
    over: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> None:
    """Refuse what `generate` cannot do, before it has done anything."""
    for name, value in {"samples": samples, "length": length}.items():
        if value < 1:
            raise ValueError(f"generate: {name} must be at least 1, got {value}.")
    if samples * length >= LARGEST:
        raise ValueError(_too_many(samples, length))
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"generate: seed must be an integer of at most 64 bits, got {seed}.")
    if not 0 <= std < float("inf") or not abs(mean) < float("inf"):
        raise ValueError(f"generate: currents need a finite mean and a finite std >= 0, got N({mean}, {std}).")
    if family not in (*FAMILIES, "mixture"):
        raise ValueError(f"generate: the family of currents must be one of {[*FAMILIES, 'mixture']}, got {family!r}.")
    if family != "normal" and mean:
        raise ValueError(f"generate: a mean belongs to the family 'normal', got mean {mean} for {family!r}.")
    for field, bounds in over.items():
        kind: Any = type(dynamics)
        known = sorted(name for name in numeric_fields(kind) if name not in kind.numbers)
        if field not in known:
            raise ValueError(f"generate: {dynamics} has no number {field!r} that may differ by row; it has {known}.")
        low, high = bounds
        if not low < high:
            raise ValueError(f"generate: {field} needs a lower and a higher bound, got {low} and {high}.")
        dynamics.replace(**{field: low}).replace(**{field: high})
    if any(isinstance(v, list) for v in dynamics.facts().values()):
        raise ValueError(f"generate: every row is the same neuron, {dynamics} has one value per channel; use numbers.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"generate: device {device!r} cannot be used here ({reason}); use device cpu.") from None


def _too_many(samples: int, length: int) -> str:
    gib = 9 * samples * length / 2**30
    return f"generate: {samples} x {length} steps take {gib:.3g} GiB of memory; ask for fewer."


def default_seed(name: str) -> int:
    """The seed of a split that was given none: crc32 of its name, so that splits differ and each can be made again."""
    return zlib.crc32(name.encode())
