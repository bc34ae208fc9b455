"""How long one step of a stream takes: the network's own, and the compiled one."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingssm.models.base import able, evaluating, patch_of, placed

__all__ = ["NOT_MEASURED", "frames", "processor", "step_times"]

NOT_MEASURED = "not measured"
WARM = 20
"""Steps before the first that is timed."""


def step_times(model: nn.Module, row: Tensor, steps: int = 200, compiled_steps: int = 5000) -> dict[str, Any]:
    """Time single steps of one stream, batch 1, one after another on the numbers of a row.

    Args:
        model: with ``step``, and ``compile_step`` for the compiled one; its mode is restored.
        row: (L, C), or tokens (L,), that the network reads; it begins anew, from rest, where it ends.
        steps: of ``model.step`` that are timed.
        compiled_steps: of the compiled one.

    Returns:
        ``step`` and ``compiled_step``: each ``median_us``, ``p10_us`` and ``p90_us``, microseconds, the number of
        ``steps``, ``device`` and ``threads``; or "not measured" with the reason. ``processor`` and ``reads``: what one
        step reads.
    """
    patch = patch_of(model)
    reads = f"{patch} steps of the data" if patch > 1 else "1 step of the data"
    found: dict[str, Any] = {"processor": processor(), "reads": reads}
    for name, measure, count in (("step", _own, steps), ("compiled_step", _compiled, compiled_steps)):
        try:
            found[name] = measure(model, frames(row, patch), count)
        except (NotImplementedError, ValueError) as error:  # this network has none, and the error says why
            found[name] = {NOT_MEASURED: str(error)}
    return found


def frames(row: Tensor, patch: int) -> list[Tensor]:
    """What single steps read: of (L, C) each (1, C), or (1, patch, C), the last filled up; of tokens (L,) each (1,)."""
    if patch == 1:
        return list(row.unsqueeze(1).unbind(0))
    whole = functional.pad(row, (0, 0, 0, -len(row) % patch))
    return list(whole.view(-1, 1, patch, row.shape[-1]).unbind(0))


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@torch.no_grad()
def _own(model: nn.Module, given: list[Tensor], count: int) -> dict[str, Any]:
    step = able(model, "step").step
    ready = [placed(model, x) for x in given]
    device, state = ready[0].device, None

    def one(number: int) -> None:
        nonlocal state
        at = number % len(ready)
        state = step(ready[at], state if at else None)[1]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with evaluating(model):
        times = _timed(one, count)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)
    return {**times, "device": place, "threads": torch.get_num_threads()}


def _compiled(model: nn.Module, given: list[Tensor], count: int) -> dict[str, Any]:
    stream = able(model, "compile_step").compile_step()
    ready = [np.ascontiguousarray(x.cpu().reshape(1, -1), np.float32) for x in given]
    state = stream.initial_state()

    def one(number: int) -> None:
        if (at := number % len(ready)) == 0:
            state.reset()
        stream.step(ready[at], state)

    return {**_timed(one, count), "device": "cpu", "threads": 1}


def _timed(one: Callable[[int], None], count: int) -> dict[str, Any]:
    """Microseconds of single calls."""
    for number in range(WARM):
        one(number)
    taken = []
    for number in range(count):
        start = time.perf_counter_ns()
        one(number)
        taken.append((time.perf_counter_ns() - start) / 1e3)
    tenths = statistics.quantiles(taken, n=10)
    return {"median_us": statistics.median(taken), "p10_us": tenths[0], "p90_us": tenths[-1], "steps": count}
