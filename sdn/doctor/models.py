"""The check of whole models on a device: one training step of each, here and on the CPU."""

import contextlib
import importlib.metadata
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["models"]


def models(device: str) -> tuple[dict[str, Any], list[str]]:
    """7. One training step of each model, here and on the CPU: loss, gradients, and waits for the device."""
    found: dict[str, Any] = {}
    problems = []
    for point in importlib.metadata.entry_points(group="sdn.doctor"):
        for name, step in point.load()().items():
            loss, grads = step("cpu")
            with _waits(device) as waits:
                other, theirs = step(device)
            error = _relative(theirs, grads)
            found[name] = {"loss": loss, "loss_here": other, "gradient_error": error, "waits": len(waits)}
            if abs(other - loss) > 1e-2 * abs(loss) or error > 0.1:
                problems.append(
                    f"{name}: loss {other:.6f} here, {loss:.6f} on the CPU, gradients differ by {error:.1e}"
                )
    return found, problems


def _relative(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    return max(float((one[n].cpu() - g).norm() / g.norm().clamp_min(1e-12)) for n, g in two.items())


@contextlib.contextmanager
def _waits(device: str) -> Iterator[list[Any]]:
    """Collect torch's warnings of operations that wait for the device."""
    cuda = torch.device(device).type == "cuda"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found: list[Any] = []
        if cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
            found += [w for w in caught if "synchroniz" in str(w.message)]
