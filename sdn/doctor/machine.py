"""Versions, processor, threads, caches, and which fast paths run here: facts, and sentences on what is wrong."""

import importlib
import importlib.metadata
import os
import platform
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sdn.compiler.sources import folder
from sdn.dynamics import LIF, simulate
from sdn.neuron import Neuron
from sdn.ops.common import place

__all__ = ["active_paths", "caches", "machine", "packages"]

USED = ("numpy", "numba", "llvmlite", "safetensors", "loguru", "tqdm", "triton")
TRAIN = ("lightning", "hydra-core", "omegaconf", "torchmetrics", "matplotlib")
STRANGERS = ("torchvision", "torchaudio")
"""Packages that Lightning and torchmetrics import where they are installed, so that a broken one breaks these."""


def packages() -> tuple[dict[str, str | None], list[str]]:
    """Versions by package, None for what is not installed, and problems."""
    names = ("torch", *USED, *TRAIN, *STRANGERS)
    from sdn import __version__

    found = {"sdn-spikingssm": __version__, "python": platform.python_version(), **{n: _version(n) for n in names}}
    problems = []
    for name in STRANGERS:
        if find_spec(name) is not None and (why := _broken(name)):
            problems.append(
                f"{name} {found[name]} fails to import beside torch {found['torch']} ({why}), and Lightning imports "
                f"it: pip uninstall {name}, or install the one that fits."
            )
    missing = [name for name in TRAIN if found[name] is None]
    found["training"] = (
        f"needs {', '.join(missing)}: pip install 'sdn-spikingssm[train,data]'" if missing else "everything is there"
    )
    return found, problems


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _broken(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever it is, it breaks what imports it
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return ""


def machine() -> tuple[dict[str, Any], list[str]]:
    """Processor, cores, memory in GiB and threads, and problems."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    flushed = torch.tensor([1e-40]).mul(1.0).item() == 0.0
    found = {
        "system": platform.platform(), "processor": _processor(), "cores": cores, "threads": threads,
        "memory_gib": _memory(), "subnormals": "flushed to 0" if flushed else "kept",
    }  # fmt: skip
    problems = []
    if threads > cores:
        problems.append(
            f"torch uses {threads} threads on {cores} cores, which wait for each other; set OMP_NUM_THREADS={cores}."
        )
    if flushed:
        problems.append("subnormal numbers are flushed to 0, so spikes may differ; torch.set_flush_denormal(False).")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        problems.append("NUMBA_DISABLE_JIT is set; kernels are compiled all the same. solver='loop' is plain Python.")
    return found, problems


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _memory() -> float | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def caches() -> tuple[list[dict[str, Any]], list[str]]:
    """Folders that keep what was compiled: whether one can write there, files, MiB; and problems."""
    places = {"generated code and its kernels (SDN_CACHE_DIR)": folder()}
    if os.environ.get("NUMBA_CACHE_DIR"):
        places["kernels (NUMBA_CACHE_DIR)"] = Path(os.environ["NUMBA_CACHE_DIR"])
    if place.HAS_TRITON:
        places["GPU kernels (TRITON_CACHE_DIR)"] = Path(
            os.environ.get("TRITON_CACHE_DIR", "~/.triton/cache")
        ).expanduser()
    found, problems = [], []
    for what, path in places.items():
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
        size = sum(file.stat().st_size for file in files) / 2**20
        why = _unwritable(path)
        found.append({"what": what, "path": str(path), "writable": not why, "files": len(files), "mib": round(size, 1)})
        if why:
            problems.append(
                f"{path} cannot be written ({why}), so every process compiles anew, seconds a kernel: {what}"
            )
    return found, problems


def _unwritable(path: Path) -> str:
    """Why nothing can be written there, or nothing; a folder that is not there yet is made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def active_paths() -> tuple[dict[str, str], list[str]]:
    """Which fast paths run here, tried on a few steps of LIF against the plain loop, and problems."""
    lif = LIF(0.9)
    current = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(0))  # (B, L, C)
    exact = simulate(lif, current).spike
    found, problems = {"loop": "runs, the reference"}, []
    for solver in ("fused", "parallel", "surrogate"):
        try:
            spikes, _ = Neuron(lif, 8, solver=solver)(current)
        except Exception as error:  # that it fails is what is asked
            found[solver] = f"fails: {type(error).__name__}"
            problems.append(f"solver={solver!r} fails: {' '.join(str(error).split())[:300]}")
            continue
        agree = (spikes == exact).double().mean().item()
        found[solver] = f"runs, {agree:.2%} of the spikes are the loop's"
        if agree < (0.95 if solver == "surrogate" else 1.0):
            problems.append(f"solver={solver!r} gives {agree:.4%} of the loop's spikes; please report this.")
    missing = place.missing("cuda") if torch.cuda.is_available() else "no CUDA device"
    found["GPU kernels"] = missing or "compiled by Triton"
    if torch.cuda.is_available() and missing:
        problems.append(f"the GPU is there, but {missing}.")
    if place.HAS_TRITON and not torch.cuda.is_available():
        found["GPU kernels"] += "; triton is installed (1 GB) and not needed here"
    return found, problems
