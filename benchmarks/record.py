"""What a result is kept with: the machine, versions, commit and date; and the JSON it goes into."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Bench
from sdn.runs.files import versions, write_json

__all__ = ["RESULTS", "facts", "write"]

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numba", "numpy", "triton", "spikingjelly", "snntorch", "norse", "jax", "jaxlib")
SETTINGS = ("THP_MEM_ALLOC_ENABLE", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX", "XLA_FLAGS")


def facts() -> dict[str, Any]:
    """What the numbers depend on, as plain values."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "clock": "process CPU time",
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "versions": {**versions(), **_installed(PACKAGES)},
    }


def write(bench: Bench, path: Path | None = None, **more: Any) -> Path:
    """Write a suite's rows and their facts as JSON; the default place is ``benchmarks/results/<suite>.json``."""
    path = path or RESULTS / f"{bench.suite}.json"
    found = {"suite": bench.suite, "level": bench.level, "facts": facts(), **more}
    write_json(path, {**found, "notes": bench.notes, "rows": bench.rows})
    return path


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    wide = " (AVX-512)" if info.exists() and "avx512f" in info.read_text() else ""
    return (named.group(1) if named else platform.processor() or platform.machine()) + wide


def _commit() -> str | None:
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + (" and changes" if changed.stdout.strip() else "")
