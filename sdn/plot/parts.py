"""What pictures share: matplotlib, axes, numbers and time, and what is wrong with what was given."""

from typing import Any

import numpy as np
from torch import Tensor

from sdn.checks.arguments import ArgumentError, check_count, shown, told

__all__ = [
    "ABOVE", "INPUT", "LINE", "SPIKE", "Array", "axes_of", "check_place", "label_time", "numbers", "pyplot", "time_of",
]  # fmt: skip

Array = np.ndarray[Any, Any]
SPIKE, INPUT, LINE = "#c0142b", "0.45", "C0"
"""Colours of spikes, of the input and of what a neuron holds."""
ABOVE: dict[str, Any] = {
    "loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1, "frameon": False, "fontsize": "small",
}  # fmt: skip
"""Options of a legend that stands above the axes, where it covers nothing."""


def pyplot() -> Any:
    """matplotlib.pyplot, or an error that names the extra."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        extra = "install the extra `train`: pip install 'sdn-spikingssm[train]'"
        raise ImportError(f"sdn.plot needs the package {error.name}; {extra}.") from error
    return plt


def axes_of(who: str, ax: Any, size: tuple[float, float] = (7, 2.6)) -> Any:
    """The axes given, or those of a new figure."""
    if ax is None:
        return pyplot().subplots(figsize=size, layout="constrained")[1]
    if not hasattr(ax, "vlines"):
        raise ArgumentError(
            f"{who}: ax must be one Axes of matplotlib, got {type(ax).__name__}; leave it for a figure."
        )
    return ax


def numbers(who: str, name: str, value: Any, axes: int | None, shape: str, way: str) -> Array:
    """Numbers as an array of so many axes."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # of torch, for a tuple of tensors that are learned
        raise ArgumentError(f"{who}: {name} must be {shape} of numbers, got {told(value)}.") from None
    if (found.ndim > 1 if axes is None else found.ndim != axes) or not found.size:
        raise ValueError(f"{who}: {name} must be {shape}, got shape {found.shape}; {way}.")
    return found


def time_of(length: int, dt: float | None) -> Array:
    """The time of each step, (L,): in ms, or in steps without ``dt``."""
    if dt is not None and not (isinstance(dt, (int, float)) and 0 < dt < float("inf")):
        raise ValueError(f"sdn.plot: dt must be the length of a step in ms, > 0, got {shown(dt)}.")
    return np.arange(length) * (1.0 if dt is None else float(dt))


def label_time(ax: Any, length: int, dt: float | None) -> None:
    """Limits and unit of a time axis of so many steps."""
    step = 1.0 if dt is None else float(dt)
    ax.set(xlim=(-0.5 * step, (length - 0.5) * step), xlabel="time (steps)" if dt is None else "time (ms)")


def check_place(who: str, name: str, place: int, count: int) -> None:
    """Refuse a row or a neuron that is not one of so many; negative ones count from the end."""
    check_count(who, name, place, least=None)
    if not -count <= place < count:
        raise ValueError(f"{who}: {name} must be from 0 to {count - 1}, got {place}; there are {count}.")
