"""Sweeps of a LIF over a guessed membrane, on the CPU: elementwise, in blocks that stay in the cache.

Rows are those of `predict_cpu`: steps of D numbers, so that the step before is D numbers to the left.
"""

import numpy as np
from torch import Tensor

from sdn.ops.common.cpu import jit, spread

__all__ = ["sweep_cpu"]

BLOCK = 4096  # numbers of a row


def sweep_cpu(
    mem: Tensor, rows: Tensor, decay: Tensor, threshold: Tensor, reset: int, sweeps: int, dilation: int
) -> None:
    """Replace ``mem``, (N, T * D), by what ``sweeps`` sweeps make of it; all tensors contiguous.

    Args:
        mem: the guess; its first step stays.
        rows: (N, L * D) currents of which the last T steps are those of ``mem``.
        decay, threshold: (H,).
        reset: 0 hard, 1 soft, 2 none.
        sweeps: >= 1.
        dilation: D, either H or 1; if 1, row n is of channel n modulo H.
    """
    fields = (decay.detach().numpy(), threshold.detach().numpy())
    spread(sweep_rows, len(mem), mem.numpy(), rows.detach().numpy(), *fields, reset, sweeps, dilation)


@jit
def sweep_rows(mem, rows, decay, threshold, reset, sweeps, D, begin, end):  # type: ignore[no-untyped-def]
    """The rows begin .. end-1, each from its last block to its first: a block finds what is before it as it was.

    A block reads ``sweeps`` steps of history and loses one with each sweep; at the beginning of a row there is none to
    lose, and the first step is put back.
    """
    length, block = mem.shape[1], max(BLOCK // D, sweeps, 1) * D
    most = min(length, block + sweeps * D)
    now, then = np.empty(most, mem.dtype), np.empty(most, mem.dtype)
    a, theta = np.empty(most, mem.dtype), np.empty(most, mem.dtype)
    for row in range(begin, end):
        if D == 1:
            a[:], theta[:] = decay[row % len(decay)], threshold[row % len(decay)]
        elif row == begin:
            for i in range(most):
                a[i], theta[i] = decay[i % D], threshold[i % D]
        current = rows[row, rows.shape[1] - length :]
        for start in range((length - 1) // block * block, -1, -block):
            stop = min(start + block, length)
            first = max(0, start - sweeps * D)
            count = stop - first
            now[:count] = mem[row, first:stop]
            for _ in range(sweeps):
                then[:D] = now[:D]
                _step(now[: count - D], current[first : stop - D], a, theta, then[D:count], reset)
                now, then = then, now
            mem[row, start:stop] = now[start - first : count]


@jit
def _step(mem, current, decay, threshold, after, reset):  # type: ignore[no-untyped-def]
    """``after[i] = decay u``, u the potential ``mem + current`` after its reset."""
    none = mem.dtype.type(0)
    if reset == 0:
        for i in range(len(mem)):
            h = mem[i] + current[i]
            after[i] = decay[i] * (none if h - threshold[i] >= none else h)
    elif reset == 1:
        for i in range(len(mem)):
            h = mem[i] + current[i]
            after[i] = decay[i] * (h - (threshold[i] if h - threshold[i] >= none else none))
    else:
        for i in range(len(mem)):
            after[i] = decay[i] * (mem[i] + current[i])
