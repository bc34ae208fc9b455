"""Peak memory of one run: the resident high-water mark of a fresh process, beyond its inputs.

``python -m benchmarks.memory module:function '{"json": "arguments"}'`` is that process: it calls the function, which
returns a `Run` with inputs and incoming gradient in place, resets the mark, runs once, and prints the difference.
"""

import gc
import importlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import trim

__all__ = ["available", "peak"]

STATUS = Path("/proc/self/status")
ROOT = Path(__file__).parent.parent


def peak(target: str, timeout: float = 900, **arguments: Any) -> int | None:
    """Bytes that a run needs beyond its inputs, or None where that cannot be measured (no /proc, too little memory).

    Args:
        target: ``module:function``; called with the arguments, returns a `Run`. With ``tiny=True`` it returns a small
            one, which is run first so that compiled code and libraries are in place.
        timeout: seconds.
        arguments: plain values.
    """
    if not STATUS.exists():
        return None
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", target, json.dumps(arguments)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.strip().splitlines()
    return int(lines[-1]) if done.returncode == 0 and lines else None


def available() -> int:
    """Bytes of memory that can be had without pushing anything out."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return 1024 * int(found.group(1)) if found else 0


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    return 1024 * int(found.group(1)) if found else 0


def _measure(target: str, arguments: dict[str, Any]) -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, function = target.split(":")
    build = getattr(importlib.import_module(module), function)
    build(**arguments, tiny=True)()
    run = build(**arguments)
    gc.collect()
    trim()
    # An allocation beyond this fails here, instead of making the system end somebody's process.
    limit = _status("VmSize") + int(0.9 * available())
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the mark
    run()
    return _status("VmHWM") - before


if __name__ == "__main__":
    print(_measure(sys.argv[1], json.loads(sys.argv[2])))
