"""All that the doctor finds, as one dictionary of plain values and as text."""

from typing import Any

import torch

from sdn.doctor.gpu import CHECKS
from sdn.doctor.machine import active_paths, caches, machine, packages
from sdn.doctor.speed import speed

__all__ = ["examine", "text"]


def examine(seconds: float = 2.0, gpu: bool = False, device: str = "cuda") -> dict[str, Any]:
    """Look at this machine.

    Args:
        seconds: for the speed check; 0 leaves it out.
        gpu: run the seven checks of a GPU too.
        device: the one that they are for.

    Returns:
        sections by name, and ``problems``: sentences, none where all is well.

    Raises:
        ValueError: gpu without a CUDA device.
    """
    if gpu and torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--gpu needs a CUDA device; torch {torch.__version__} sees none here.")
    sections: dict[str, Any] = {}
    problems: list[str] = []
    parts = {"packages": packages, "machine": machine, "caches": caches, "paths": active_paths}
    if seconds:
        parts["speed"] = lambda: speed(seconds)
    for name, part in parts.items():
        sections[name], found = part()
        problems += found
    if gpu:
        sections["gpu"] = {}
        for name, check in CHECKS.items():
            sections["gpu"][name], found = check(device)
            problems += [f"GPU, {name}: {line}" for line in found]
    elif torch.cuda.is_available():
        sections["gpu"] = f"{torch.cuda.get_device_name()}; `sdn doctor --gpu` checks it"
    else:
        sections["gpu"] = "no CUDA device"
    return {**sections, "problems": problems}


def text(found: dict[str, Any]) -> str:
    """The same for people: a section each, the problems last."""
    lines = []
    for name, section in found.items():
        if name == "problems":
            continue
        lines += [name, *_lines(section)]
    problems = found["problems"]
    lines += ["problems", *(f"  {line}" for line in problems or ["none"])]
    return "\n".join(lines)


def _lines(section: Any) -> list[str]:
    if isinstance(section, dict):
        return [f"  {name:24s} {_short(value)}" for name, value in section.items()]
    if isinstance(section, list):
        return [f"  {', '.join(f'{k} {_short(v)}' for k, v in item.items())}" for item in section]
    return [f"  {section}"]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
