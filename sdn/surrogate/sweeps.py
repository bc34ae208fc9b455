"""Exact sweeps over a predicted membrane: each replaces it by what the neuron itself makes of it in one step."""

from typing import Literal

import torch
from torch import Tensor

from sdn.checks.tracing import transforming
from sdn.dynamics.lif import LIF
from sdn.ops.common.operator import operator
from sdn.surrogate.predict import FUSED, flat, is_exporting

__all__ = ["sweep"]

RESETS: tuple[Literal["hard", "soft", "none"], ...] = ("hard", "soft", "none")


@torch.no_grad()
def sweep(dynamics: LIF, mem: Tensor, input: Tensor, sweeps: int) -> Tensor:
    """``mem'[t] = decay u[t-1]``, u the potential ``mem + input`` after its reset, that many times, in place.

    After k sweeps `mem` is exact as if the neuron had been run k steps from the `mem` it started with. The first step
    stays as it is.

    Args:
        dynamics: the neuron; fields are numbers or (H,).
        mem: (B, T, H) from `predict` of this input; overwritten.
        input: (B, L, H), of which the last T steps are those of ``mem``.
        sweeps: >= 0.

    Returns:
        ``mem``.
    """
    if sweeps:
        fields = (torch.as_tensor(f, dtype=mem.dtype, device=mem.device) for f in (dynamics.decay, dynamics.threshold))
        decay, threshold = (f.expand(mem.shape[2]).contiguous() for f in fields)
        run = _plain if is_exporting() or transforming() else _sweep
        run(mem, input, decay, threshold, RESETS.index(dynamics.reset), sweeps)
    return mem


def _in_place(mem: Tensor, input: Tensor, decay: Tensor, threshold: Tensor, reset: int, sweeps: int) -> None:
    if not mem.numel():
        return
    if mem.dtype not in FUSED or mem.device.type != "cpu":
        _plain(mem, input, decay, threshold, reset, sweeps)
        return
    from sdn.ops.membrane.sweep_cpu import sweep_cpu

    rows, dilation = flat(input)
    guess = mem.transpose(1, 2) if dilation == 1 else mem
    whole = guess.contiguous()
    sweep_cpu(whole.view(len(rows), -1), rows, decay, threshold, reset, sweeps, dilation)
    if whole.data_ptr() != guess.data_ptr():  # another layout than the input's
        guess.copy_(whole)


def _plain(mem: Tensor, input: Tensor, decay: Tensor, threshold: Tensor, reset: int, sweeps: int) -> None:
    """Any device and dtype, over the whole length at a time."""
    dynamics, now = LIF(decay, threshold, RESETS[reset]), input[:, input.shape[1] - mem.shape[1] : -1]
    for _ in range(sweeps):
        before = mem[:, :-1]
        h, fired = before + now, dynamics.fires(before, now)
        if dynamics.reset == "hard":
            h.masked_fill_(fired, 0)
        elif dynamics.reset == "soft":
            h.sub_(threshold * fired)
        mem[:, 1:] = h.mul_(decay)


_sweep = operator("sdn::sweep", _in_place, lambda *_: None, mutates=("mem",))
