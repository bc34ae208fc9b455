"""Trajectories of a neuron under random currents."""

import functools
import warnings
import zlib
from collections.abc import Callable

import torch

from sdn.compiler.programs import check_compiled
from sdn.dynamics.base import Dynamics, Trajectory, check_dynamics, simulate
from sdn.ops.common.place import has_kernels
from sdn.ops.neuron.sequence import run_sequence
from sdn.surrogate.trajectory_files import ROWS_AT_ONCE, TENSORS

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
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Simulate ``samples`` neurons from rest under independent normal currents N(mean, std).

    Args:
        dynamics: the neuron; plain numbers only, since every row is one neuron of the same kind.
        samples: number of rows N, >= 1.
        length: steps per row L, >= 1.
        mean, std: of the currents, in the neuron's units; std None is ``dynamics.default_std``.
        seed: of a generator on the CPU, so that every device sees the same currents.
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
    check_request(dynamics, samples, length, mean, std, device, seed)
    try:
        input, mem, spike = (torch.empty(samples, length, dtype=dtype) for dtype in TENSORS.values())
    except RuntimeError:
        raise ValueError(_too_many(samples, length)) from None
    run = _runner(dynamics, torch.empty(0, device=device))
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, samples, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, samples))
        input[rows].normal_(mean, std, generator=generator)
        with torch.no_grad():
            done = run(dynamics, input[rows].to(device).T.contiguous().unsqueeze(0))
        mem[rows] = done.mem[0].T
        spike[rows] = done.spike[0].T > 0
        if progress is not None:
            progress(rows.stop - rows.start)
    rate = int(spike.count_nonzero()) / spike.numel()
    if not SENSIBLE_RATE[0] <= rate <= SENSIBLE_RATE[1]:
        warnings.warn(
            f"{dynamics} under N({mean}, {std}) spikes in {rate:.2%} of the steps, outside 2 % to 40 %; change mean or "
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
