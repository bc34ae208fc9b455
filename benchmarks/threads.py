"""Suite ``threads``: what a second thread brings, in time on the clock. It says something on a quiet machine only."""

import time
from functools import partial

import torch

from benchmarks.harness import Bench, Run
from benchmarks.neurons import Shape, variant

__all__ = ["run"]


def run(bench: Bench) -> None:
    """One thread against two: `torch.relu` and fused LIF, forward, and forward and backward."""
    shape: Shape = bench.pick((8, 4096, 512), (8, 1024, 512), (2, 9, 5))
    before = torch.get_num_threads()
    for backward in (False, True):
        found: dict[str, Run] = {}
        for name in ("relu", "fused"):
            try:
                inner = variant(name, shape, backward)
            except (ValueError, NotImplementedError) as reason:
                bench.note(f"{name} left out: {str(reason).splitlines()[0]}")
                continue
            for threads in (1, 2):
                found[f"{name}, {threads} thread{'s' * (threads > 1)}"] = partial(_with_threads, threads, inner)
        case = {"table": "threads", "shape": shape, "pass": "fwd+bwd" if backward else "fwd", "clock": "wall"}
        references = ("relu, 1 thread", "fused, 1 thread")
        bench.compare(case, found, torch.Size(shape).numel(), references, clock=time.perf_counter)
    torch.set_num_threads(before)


def _with_threads(threads: int, run: Run) -> None:
    torch.set_num_threads(threads)
    run()
