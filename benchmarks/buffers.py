"""Suite ``buffers``: LIF where outputs land in memory that is already there, as with buffers that the caller owns.

A fresh output costs page faults, 0.2 to 0.3 ns a byte, as much as a simple kernel itself; below 32 MiB it depends on
what ran before. Here the C allocator is told to keep what it has (no mmap, no trimming), so that every variant writes
to pages that are in place. That setting cannot be undone, so the suite wants a process of its own.
"""

import torch

from benchmarks.harness import Bench, keep_memory
from benchmarks.neurons import Shape, variant

__all__ = ["run"]

NAMES = ("relu", "fused", "unbind")


def run(bench: Bench) -> None:
    """Forward, and forward and backward, on 4096 rows."""
    try:
        keep_memory()
    except (OSError, AttributeError):
        print("the C allocator cannot be set here: not measured")
        return
    full: list[Shape] = [(8, 1024, 512), (8, 4096, 512)]
    for shape in bench.pick(full, full[:1], [(2, 9, 5)]):
        for backward in (False, True):
            found = {}
            for name in NAMES:
                try:
                    found[name] = variant(name, shape, backward)
                except (ValueError, NotImplementedError) as reason:
                    bench.note(f"{name} left out: {str(reason).splitlines()[0]}")
            word = "fwd+bwd" if backward else "fwd"
            case = {"table": "buffers", "neuron": "LIF hard", "shape": shape, "pass": word}
            bench.compare(case, found, torch.Size(shape).numel(), ("relu", "unbind"))
