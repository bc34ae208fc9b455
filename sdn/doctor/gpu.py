"""The checks of a CUDA device, each a function that gives facts and problems; `sdn doctor --gpu` runs them all.

Every check takes the device, so that the tests run it on the CPU too, where it compares the CPU with itself.
"""

import contextlib
import importlib.metadata
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdn.doctor.graphs import calls, in_a_graph
from sdn.doctor.known import SLACK, STACK, TRITON, family_of
from sdn.doctor.models import models
from sdn.doctor.operators import EXACT, Operator, operators
from sdn.dynamics import LIF
from sdn.neuron import Neuron
from sdn.ops.common import place

__all__ = ["CHECKS", "placement", "setting", "shapes", "size", "spills", "times"]

Found = tuple[dict[str, Any], list[str]]
SHAPES = [(1, 31), (63, 33), (65, 1), (1000, 33), (65, 600)]
"""Steps and channels: lengths around the tiles, widths that are no multiple of a warp."""
NEARLY = 0.999
"""Share of the spikes that must agree where sums are rounded in another order."""
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Largest error of a gradient over its largest entry."""
BESIDE = ("last device", "side stream")
PLACED = ("resonate, wide rotation", "recurrent brf", "scan, complex", "modes")
"""Operators that are run there besides LIF, one for each kind of kernel."""
FLOOR = 0.3
"""Share of the speed of a memory copy below which LIF is called slow."""


def setting(device: str) -> Found:
    """1. CUDA, driver, Triton, capability, C compiler, cache folder."""
    found: dict[str, Any] = {"torch": str(torch.__version__), "cuda": torch.version.cuda, "hip": torch.version.hip}
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    found["c_compiler"] = compiler
    problems = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["triton"] = importlib.metadata.version("triton")
    if torch.device(device).type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        found |= {"name": facts.name, "capability": f"{facts.major}.{facts.minor}", "driver": _driver()}
        found |= {"memory_gib": round(facts.total_memory / 2**30, 1), "processors": facts.multi_processor_count}
        if why := place.missing("cuda"):
            problems.append(f"{why}.")
    if compiler is None:
        problems.append("no C compiler: Triton cannot build what starts its kernels. Install gcc, or set CC=PATH.")
    return found, problems


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    return None


def shapes(device: str) -> Found:
    """2. Every operator in its own tiles against the CPU, in both precisions, and twice for equal bits."""
    worst: dict[str, Any] = {}
    problems = []
    for name, operator in operators().items():
        for dtype in (torch.float32, torch.float64):
            for length, channels in SHAPES:
                where = f"{name}, {str(dtype).removeprefix('torch.')}, {length} steps, {channels} channels"
                error, found = _compared(operator, device, dtype, length, channels)
                problems += [f"{where}: {what}" for what in found]
                worst[name] = max(worst.get(name, 0.0), error)
    return {"largest_gradient_error": worst}, problems


def _compared(
    operator: Operator, device: str, dtype: torch.dtype, length: int, channels: int
) -> tuple[float, list[str]]:
    """The largest relative error of a gradient, and what is wrong."""
    expected = operator("cpu", dtype, length, channels)
    first, second = operator(device, dtype, length, channels), operator(device, dtype, length, channels)
    found = [f"{n} differ from one run to the next" for n in first if not torch.equal(first[n], second[n])]
    errors, same = [0.0], True
    for name, value in expected.items():
        got = first[name].cpu()
        if "spikes" in name:
            agree = (got == value).double().mean().item()
            same = same and agree == 1.0
            if agree < (1.0 if name == EXACT else NEARLY):
                found.append(f"{agree:.4%} of the spikes are those of the CPU")
        else:
            errors.append(((got - value).abs().max() / value.abs().max().clamp_min(1e-30)).item())
    if same and max(errors) > ROUNDING[dtype]:
        found.append(f"a gradient differs from that of the CPU by {max(errors):.1e} of its largest entry")
    return (max(errors) if same else 0.0), found


def placement(device: str) -> Found:
    """3. On the last device, on a side stream, under autocast, under `torch.compile`, and in a captured graph."""
    lif = operators()["lif"]
    expected = lif("cpu", torch.float32, 65, 33)
    found: dict[str, Any] = {}
    problems = []
    for name, around in _settings(device).items():
        try:
            with around() as there:
                got = lif(there, torch.float32, 65, 33)
            fine = all(torch.allclose(got[n].cpu(), expected[n], rtol=1e-3, atol=1e-5) for n in expected)
            found[name] = "equal" if fine else "differs"
        except Exception as error:  # that it fails is what is asked
            found[name] = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    runs = {"torch.compile": _under_compile}
    runs |= {f"{place}, {name}": partial(_elsewhere, place, name) for place in BESIDE for name in PLACED}
    runs |= {f"captured graph, {name}": partial(in_a_graph, name) for name in calls("cpu")}
    for name, run in runs.items():
        try:
            found[name] = run(device)
        except Exception as error:  # as above
            found[name] = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    problems += [f"{name}: {what}" for name, what in found.items() if what not in ("equal", "not on this device")]
    return found, problems


def _settings(device: str) -> dict[str, Callable[[], contextlib.AbstractContextManager[str]]]:
    kind = torch.device(device).type

    @contextlib.contextmanager
    def last() -> Iterator[str]:
        yield f"cuda:{torch.cuda.device_count() - 1}" if kind == "cuda" else device

    @contextlib.contextmanager
    def side() -> Iterator[str]:
        if kind != "cuda":
            yield device
            return
        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield device
        torch.cuda.current_stream().wait_stream(stream)

    @contextlib.contextmanager
    def lower() -> Iterator[str]:
        with torch.autocast(kind, dtype=torch.bfloat16):
            yield device

    return {"last device": last, "side stream": side, "autocast": lower}


def _under_compile(device: str) -> str:
    neuron = Neuron(LIF(0.9), 33).to(device)
    x = torch.randn(2, 65, 33, device=device)

    def spikes(v: Tensor) -> Tensor:
        found: Tensor = neuron(v)[0]
        return found

    compiled: Any = torch.compile(spikes)
    return "equal" if torch.equal(compiled(x), neuron(x)[0]) else "differs"


def _elsewhere(place: str, name: str, device: str) -> str:
    """Equal bits of an operator and its gradients there and in the usual way."""
    expected = operators()[name](device, torch.float32, 65, 33)
    with _settings(device)[place]() as there:
        got = operators()[name](there, torch.float32, 65, 33)
    return "equal" if all(torch.equal(got[n].to(device), value) for n, value in expected.items()) else "differs"


def size(device: str) -> Found:
    """4. One tensor of more than 2^31 elements, where memory allows it, looked at in its last channels."""
    length, channels = 2**20 + 1, 2**11
    if torch.device(device).type != "cuda":
        return {"elements": None, "why": "not on this device"}, []
    needed, free = 3 * 4 * length * channels, torch.cuda.mem_get_info(device)[0]
    if free < needed:
        return {"elements": None, "why": f"{needed / 2**30:.0f} GiB are needed, {free / 2**30:.0f} are free"}, []
    neuron = Neuron(LIF(0.9), channels).to(device)
    with torch.no_grad():
        x = torch.randn(1, length, channels, device=device)
        spikes, _ = neuron(x)
        few, _ = Neuron(LIF(0.9), 64).to(device)(x[..., -64:].contiguous())
        fine = torch.equal(spikes[..., -64:], few)
    return {"elements": length * channels, "equal": fine}, [] if fine else ["spikes behind element 2^31 are wrong"]


def spills(device: str) -> Found:
    """5. Registers, and bytes spilled to memory, of every kernel that has been compiled, beside the stored table."""
    found = {}
    problems = []
    if torch.device(device).type == "cuda":
        for name, family, kernel in _compiled_kernels():
            spilled, known = 4 * kernel.n_spills, STACK[family]  # Triton counts numbers of 4 bytes
            found[name] = {"registers": kernel.n_regs, "spilled_bytes": spilled, "known": known}
            if spilled > known + SLACK:
                problems.append(
                    f"{name} spills {spilled} bytes, where {known} are known of {family} kernels (sm_90, Triton "
                    f"{TRITON}); it will be slower on this device."
                )
    return found, problems


def _compiled_kernels() -> Iterator[tuple[str, str, Any]]:
    """Name, family in the stored table, and what Triton knows of each kernel of this package."""
    import gc

    from triton.runtime.jit import JITFunction

    for function in (item for item in gc.get_objects() if isinstance(item, JITFunction)):
        family = family_of(function.__module__)
        if family is None:
            continue
        for caches in getattr(function, "device_caches", {}).values():
            for number, kernel in enumerate(caches[0].values()):
                if hasattr(kernel, "n_regs"):
                    yield f"{family}{function.__name__} {number}", family, kernel


def times(device: str) -> Found:
    """6. LIF beside a memory copy, `torch.relu`, the parallel solver and the eager loop, at 25,600 rows."""
    cuda = torch.device(device).type == "cuda"
    batch, length, channels = (50, 1024, 512) if cuda else (2, 64, 32)
    x = torch.randn(batch, length, channels, device=device)
    y, short = torch.empty_like(x), x[:, :64].contiguous()
    runs: dict[str, tuple[Callable[[], object], int]] = {
        "copy": (lambda: y.copy_(x), 1),
        "relu": (lambda: torch.relu(x), 1),
    }
    for solver in ("fused", "parallel"):
        neuron = Neuron(LIF(0.9), channels, solver=solver).to(device)
        runs[solver] = (lambda neuron=neuron: neuron(x), 1)  # type: ignore[misc]
    loop = Neuron(LIF(0.9), channels, solver="loop").to(device)
    runs["loop"] = (lambda: loop(short), length // 64)
    with torch.no_grad():
        found = {name: 1e3 * factor * _median(run, cuda) for name, (run, factor) in runs.items()}
    share = found["copy"] / found["fused"]
    facts = {"milliseconds": {k: round(v, 4) for k, v in found.items()}, "copy_over_fused": round(share, 3)}
    problems = []
    if cuda and share < FLOOR:
        problems.append(f"LIF runs at {share:.0%} of the speed of a memory copy, {FLOOR:.0%} or more is expected.")
    if cuda and found["fused"] > min(found["loop"], found["parallel"]):
        problems.append(f"the fused solver is not the fastest: {facts['milliseconds']} ms.")
    return facts, problems


def _median(run: Callable[[], object], cuda: bool) -> float:
    """Seconds, the queue of the device included."""
    found = []
    for _ in range(12 if cuda else 4):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])


CHECKS: dict[str, Callable[[str], Found]] = {
    "setting": setting, "shapes": shapes, "placement": placement, "size": size, "spills": spills, "times": times,
    "models": models,
}  # fmt: skip
"""In the order in which they run: what is compiled by the second is looked at by the fifth."""
