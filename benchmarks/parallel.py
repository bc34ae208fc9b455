"""Suite ``parallel``: how many rounds exact spikes take without a loop over time, and what is known about each row.

Currents are N(0, std of the dynamics), and constant ones just below the threshold, which need the most rounds. Spikes
are compared with those of the fused loop. One thread does all chunks here; a GPU would do them at once. Table
``draws``: rounds of eight draws of the currents, and what the slope of a spike in the derivatives is worth.
"""

import itertools
import time
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import sdn
from benchmarks.harness import Bench

__all__ = ["run"]

Shape = tuple[int, int, int]
LEAST = {"half": 0.5, "most": 0.9}


def run(bench: Bench) -> None:
    """One row per neuron, kind of current, length and length of a chunk."""
    try:
        from sdn.ops.chunks.seams import HELD
        from sdn.solvers.parallel import Parallel, solve
    except ImportError:
        bench.note("no parallel solver in this version")
        return
    lengths = bench.pick((1024, 4096), (1024,), (40,))
    lif = [sdn.LIF(0.9), sdn.LIF(0.99), sdn.LIF(0.9, reset="soft"), sdn.LIF(0.99, reset="soft")]
    others = [sdn.ALIF(), sdn.BRF(), sdn.HRF(), sdn.IzhikevichRF(), sdn.RF()]
    cases = [(dynamics, _noise) for dynamics in bench.pick([*lif, *others], [*lif, *others], [lif[0], others[-1]])]
    cases += [(sdn.LIF(decay), _near_threshold) for decay in (0.125, 0.9)]
    chunks = bench.pick((32, 128, 256), (32, 128), (16,))
    for (dynamics, draw), length, chunk in itertools.product(cases, lengths, chunks):
        is_one_scan = isinstance(dynamics, sdn.RF)
        if is_one_scan and chunk > 32:
            continue
        shape = bench.pick((1, length, 64), (1, length, 64), (2, length, 5))
        current, solver = draw(dynamics, shape), Parallel(max_rounds=64, chunk=chunk)
        neuron = sdn.Neuron(dynamics, shape[-1], solver="fused")
        with torch.no_grad():
            for _ in range(2):  # the first run compiles
                begin = time.process_time()
                exact, _ = neuron(current)
                fused, begin = time.process_time() - begin, time.process_time()
                spikes, _, certificate = solve(dynamics, current, solver=solver)
                seconds = time.process_time() - begin
        row: dict[str, Any] = {"table": "parallel", "neuron": str(dynamics), "currents": draw.__doc__}
        row["scheme"] = f"L = {length}, " + ("one scan" if is_one_scan else f"chunks of {chunk}")
        row |= dict.fromkeys(LEAST) if bench.level == "tiny" else _rounds(dynamics, current, solver)
        equal, rate = bool(torch.equal(spikes, exact)), exact.mean().item()
        bench.add(**row, shape=shape, rate=rate, equal=equal, **certificate._asdict(), seconds=seconds, fused=fused)
    for dynamics in bench.pick([*lif, *others[:-1]], [others[0]], [lif[2]]):
        rounds = _draws(bench, dynamics)
        with mock.patch("sdn.solvers.chunks.follows", return_value=HELD):
            held = _draws(bench, dynamics)
        bench.add(table="draws", neuron=str(dynamics), draws=rounds, held=held)


def _draws(bench: Bench, dynamics: sdn.Dynamics) -> list[int]:
    """Rounds until all 64 rows are done, chunks of 32, by draw of the currents."""
    from sdn.solvers.parallel import Parallel, solve

    found = []
    for seed in range(bench.pick(8, 2)):
        current = _noise(dynamics, bench.pick((1, 1024, 64), (1, 1024, 64), (1, 40, 5)), seed)
        found.append(solve(dynamics, current, solver=Parallel(max_rounds=64, chunk=32))[2].rounds)
    return found


def _rounds(dynamics: sdn.Dynamics, current: Tensor, solver: sdn.Parallel) -> dict[str, int | None]:
    """Rounds after which half of the rows, and nine in ten, are done."""
    from sdn.solvers.parallel import solve

    found: dict[str, int | None] = dict.fromkeys(LEAST)
    for rounds in range(1, solver.max_rounds + 1):
        options = {"max_rounds": rounds, "chunk": solver.chunk, "warm_up": solver.warm_up}
        certificate = solve(dynamics, current, solver=sdn.Parallel(**options))[2]
        share = 1 - certificate.handed_over / certificate.rows
        found = {name: found[name] or (rounds if share >= least else None) for name, least in LEAST.items()}
        if found["most"] is not None or certificate.rounds < rounds:
            break
    return found


def _noise(dynamics: sdn.Dynamics, shape: Shape, seed: int = 0) -> Tensor:
    """N(0, std)"""
    return dynamics.default_std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _near_threshold(dynamics: sdn.Dynamics, shape: Shape) -> Tensor:
    """constant, 0.88 .. 0.999 of what fires at rest"""
    level = 0.88 + 0.119 * torch.rand(shape[0], 1, shape[2], generator=torch.Generator().manual_seed(0))
    scale = float(dynamics.threshold) / float(dynamics.gain)
    return (scale * level).expand(shape).contiguous()
