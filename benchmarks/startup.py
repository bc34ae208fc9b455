"""Suite ``startup``: what importing and the first fused call cost, in fresh processes, beyond importing torch.

Cold has an empty cache of compiled code, in a folder of its own; warm is the next process with the same folder.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench

__all__ = ["run"]

CHILD = """
import json, sys, time
start = time.process_time()
import torch
torch.set_num_threads(1)
torched = time.process_time()
import sdn
imported = time.process_time()
seconds = {"torch": torched - start, "sdn": imported - torched}
x = torch.randn(2, 64, 32).requires_grad_()
neuron = sdn.Neuron(sdn.LIF(0.5), 32, solver=sys.argv[1])
begin = time.process_time()
neuron(x)[0].sum().backward()
first = time.process_time()
neuron(x)[0].sum().backward()
print(json.dumps({**seconds, "first": first - begin, "second": time.process_time() - first}))
"""


def run(bench: Bench) -> None:
    """Cold and warm, CPU seconds, for each solver that there is."""
    for solver in bench.pick(("fused", "parallel", "loop"), ("fused",), ("loop",)):
        with tempfile.TemporaryDirectory() as folder:
            cold = _child(solver, folder)
            if isinstance(cold, str):
                bench.note(f"{solver} left out: {cold}")
                continue
            warm = [_child(solver, folder) for _ in range(bench.pick(5, 2, 1))]
        for word, runs in (("cold", [cold]), ("warm", [found for found in warm if isinstance(found, dict)])):
            parts = {name: statistics.median(found[name] for found in runs) for name in runs[0]}
            bench.add(table="startup", solver=solver, cache=word, **parts, beyond_torch=parts["sdn"] + parts["first"])


def _child(solver: str, folder: str) -> dict[str, Any] | str:
    """Seconds by part, or why there are none."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parent.parent
    command = [sys.executable, "-W", "ignore", "-c", CHILD, solver]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return (done.stderr.strip().splitlines() or ["no output"])[-1]
    found: dict[str, Any] = json.loads(lines[-1])
    return found
