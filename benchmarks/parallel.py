"""Suite ``parallel``: how many rounds exact spikes take without a loop over time, and how many rows it hands over.

Currents are N(0, std of the dynamics), and constant ones just below the threshold, which need the most rounds. Spikes
are compared with those of the fused loop. One thread does all rounds here; a GPU would do each at once.
"""

import itertools
import time
from typing import Any

import torch
from torch import Tensor

import sdn
from benchmarks.harness import Bench

__all__ = ["run"]

Shape = tuple[int, int, int]


def run(bench: Bench) -> None:
    """One row per neuron, kind of current and scheme."""
    try:
        from sdn.solvers.parallel import Parallel, solve
    except ImportError:
        bench.note("no parallel solver in this version")
        return
    small: Shape = bench.pick((4, 1024, 64), (4, 1024, 64), (2, 40, 5))
    large: Shape = bench.pick((8, 4096, 512), small)
    lif = [sdn.LIF(decay) for decay in (0.125, 0.5, 0.9, 0.99)]
    others = [sdn.LIF(0.5, reset="soft"), sdn.ALIF(), sdn.RF(), sdn.BRF()]
    cases = [(dynamics, _noise) for dynamics in bench.pick([*lif, *others], [*lif, *others], lif[:2])]
    cases += [(dynamics, _near_threshold) for dynamics in (lif[0], lif[2])]
    for (dynamics, draw), scheme in itertools.product(cases, ("rounds", "chunks")):
        shape = large if dynamics in lif and draw is _noise else small  # where nothing settles, each round is in vain
        current = draw(dynamics, shape)
        neuron, solver = sdn.Neuron(dynamics, shape[-1], solver="fused"), Parallel(scheme=scheme)
        with torch.no_grad():
            for part in (current[:1, :8], current):  # the first run only compiles
                begin = time.process_time()
                exact, _ = neuron(part)
                fused, begin = time.process_time() - begin, time.process_time()
                spikes, _, certificate = solve(dynamics, part, solver=solver)
                seconds = time.process_time() - begin
        row: dict[str, Any] = {"table": "parallel", "neuron": str(dynamics), "currents": draw.__doc__, "scheme": scheme}
        equal, rate = bool(torch.equal(spikes, exact)), exact.mean().item()
        bench.add(**row, shape=shape, rate=rate, equal=equal, **certificate._asdict(), seconds=seconds, fused=fused)


def _noise(dynamics: sdn.Dynamics, shape: Shape) -> Tensor:
    """N(0, std)"""
    return dynamics.default_std * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _near_threshold(dynamics: sdn.Dynamics, shape: Shape) -> Tensor:
    """constant, 0.88 .. 0.999 of what fires at rest"""
    level = 0.88 + 0.119 * torch.rand(shape[0], 1, shape[2], generator=torch.Generator().manual_seed(0))
    scale = float(dynamics.threshold) / float(dynamics.gain)
    return (scale * level).expand(shape).contiguous()
