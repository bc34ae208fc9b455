"""Whole layers: when each neuron fired, and how often the neurons of each layer do."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdn.checks.arguments import ArgumentError, check_count, plain_number, told
from sdn.plot.parts import LINE, Array, axes_of, label_time, numbers, time_of

__all__ = ["raster", "rates"]


def raster(spikes: Any, ax: Any = None, length: Any = None, *, dt: float | None = None) -> Any:
    """Which neuron spiked when: a row for each neuron, a tick for each spike.

    Args:
        spikes: (L, C) of 0 and 1, of one row of a batch.
        ax: where to draw; None makes a figure.
        length: number of the steps that are real, where the rest is padding; it is cut off. None draws all.
        dt: length of a step in ms for the time axis; None counts steps.

    Returns:
        the axes.

    Raises:
        ValueError: another shape, or a length that is not from 1 to L.
        ImportError: matplotlib is missing.
    """
    values = numbers("raster", "spikes", spikes, 2, "(L, C)", "take one row of the batch, such as spikes[0]")
    if length is not None:
        length = length if isinstance(length, int) else plain_number(np.asarray(length))  # such as lengths[0]
        check_count("raster", "length", length)
        if length > len(values):
            raise ValueError(f"raster: length is {length}, the spikes have {len(values)} steps; give one up to that.")
        values = values[:length]
    ax = axes_of("raster", ax)
    steps, neurons = np.nonzero(values)
    ax.vlines(time_of(len(values), dt)[steps], neurons - 0.4, neurons + 0.4, color="black", linewidth=_thin(ax, values))
    ax.set(ylim=(-0.6, values.shape[1] - 0.4), ylabel="neuron")
    ax.yaxis.get_major_locator().set_params(integer=True)
    label_time(ax, len(values), dt)
    return ax


def rates(rates_by_layer: Mapping[str, Any], ax: Any = None) -> Any:
    """How often the neurons of each layer fire, as bars; a layer that never does is marked.

    Args:
        rates_by_layer: name -> spikes per neuron and step, in [0, 1], as of ``spikingssm.record_spikes(...).rates()``.
        ax: where to draw; None makes a figure.

    Returns:
        the axes.

    Raises:
        ValueError: no layer, or a rate that is not one number in [0, 1].
        ImportError: matplotlib is missing.
    """
    if not isinstance(rates_by_layer, Mapping) or not rates_by_layer:
        way = 'give names and rates, such as {"first": 0.1}'
        raise ArgumentError(f"rates: needs a mapping of at least one layer, got {told(rates_by_layer)}; {way}.")
    values = []
    for name, rate in rates_by_layer.items():
        value = numbers("rates", f"the rate of {name!r}", rate, 0, "one number", "take the mean of it")
        if not 0 <= value <= 1:
            way = "divide the spikes by neurons and steps"
            raise ValueError(f"rates: the rate of {name!r} must be in [0, 1], got {float(value):g}; {way}.")
        values.append(100 * float(value))
    ax = axes_of("rates", ax, (7, 0.9 + 0.3 * len(values)))
    bars = ax.barh([str(name) for name in rates_by_layer], values, color=LINE)
    ax.bar_label(bars, [f"{value:.3g}" if value else "never fires" for value in values], padding=3, fontsize="small")
    ax.set(xlabel="spikes per neuron and step (%)", xlim=(0, 1.18 * max(values) or 1))
    ax.invert_yaxis()
    return ax


def _thin(ax: Any, values: Array) -> float:
    """Points of a tick, so that neighbours stay apart where there is room."""
    points = 72 * ax.get_window_extent().width / ax.get_figure().dpi
    return float(np.clip(0.7 * points / len(values), 0.4, 1.5))
