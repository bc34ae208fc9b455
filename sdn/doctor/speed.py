"""How fast this machine runs a neuron, in two seconds: the fused loop beside `torch.relu` and the eager loop."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdn.dynamics import LIF, simulate
from sdn.neuron import Neuron

__all__ = ["speed"]

SHAPE = (8, 2048, 256)
"""Batch, steps, channels."""
EXPECTED = 6.0
"""Times of `relu` that the fused loop may take, forward and backward; 2.6 on a quiet machine, at this shape."""


def speed(seconds: float = 2.0) -> tuple[dict[str, Any], list[str]]:
    """Nanoseconds for a neuron and step, forward and backward, medians of rounds in turn; and problems.

    The eager loop runs on an eighth of the steps, twice.
    """
    lif = LIF(0.9)
    neuron = Neuron(lif, SHAPE[-1])
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))  # (B, L, C)
    short = x[:, : SHAPE[1] // 8].contiguous()
    variants: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "fused": (lambda v: neuron(v)[0], x), "relu": (torch.relu, x),
        "loop": (lambda v: simulate(lif, v).spike, short),
    }  # fmt: skip
    for name in ("fused", "relu"):
        _once(*variants[name])  # compiles
    times: dict[str, list[float]] = {name: [] for name in variants}
    start = time.perf_counter()
    while len(times["fused"]) < 3 or time.perf_counter() - start < seconds:
        for name, (function, given) in variants.items():
            if name != "loop" or len(times["loop"]) < 2:
                times[name].append(_once(function, given) / given.numel())
    found = {name: round(1e9 * statistics.median(values), 2) for name, values in times.items()}
    ratio = found["fused"] / found["relu"]
    facts: dict[str, Any] = {"shape": SHAPE, "threads": torch.get_num_threads(), "ns_per_neuron_and_step": found}
    facts |= {"fused_over_relu": round(ratio, 2), "loop_over_fused": round(found["loop"] / found["fused"], 1)}
    problems = []
    if ratio > EXPECTED:
        problems.append(
            f"the fused loop takes {ratio:.1f} times as long as torch.relu, 2 to 3 is usual; is the machine busy? "
            "Else remove the folder of generated code, which may be of another processor."
        )
    if found["loop"] < found["fused"]:
        problems.append(f"the fused loop is slower than the eager one: {found['fused']} and {found['loop']} ns.")
    return facts, problems


def _once(function: Callable[[Tensor], Tensor], given: Tensor) -> float:
    """Seconds of one pass forward and backward."""
    leaf = given.detach().requires_grad_()
    start = time.perf_counter()
    torch.autograd.grad(function(leaf).sum(), leaf)
    return time.perf_counter() - start
