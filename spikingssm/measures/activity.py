"""Layers whose neurons never change: named after the epoch that shows it, with the scale of the data and a way out."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from loguru import logger
from torch import Tensor, nn

from sdn import Neuron
from spikingssm.datasets.base import Batch
from spikingssm.measures.spikes import neurons_of, record_spikes
from spikingssm.processes.distributed import SHARD, Sharded

__all__ = ["Activity", "state_of", "working_factors"]

SILENT, SATURATED = 1e-3, 0.9
"""Spikes per neuron and step below and above which a layer tells nothing."""
REVIVED = 3e-4
"""Spikes per neuron and step with which a silent layer can learn: training takes it from there."""
FACTORS = {"silent": (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), "saturated": (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)}
"""What the data are multiplied with, to see what a layer makes of that."""
ROWS = 8
"""Rows of a batch that this is tried on."""


class Activity(Callback):
    """Name each silent or saturated layer once, after the first epoch in which it is one.

    What would make it fire is tried out on a few rows of the validation, with the weights as they are then. What was
    said is kept in the module's ``advice`` by the name of the layer, for the end of the run.
    """

    def __init__(self) -> None:
        self._rows: Batch | None = None
        self._std: float | None = None

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take up a few rows and their scale; tokens have none."""
        if self._rows is None and batch.x.is_floating_point():
            lengths = None if batch.lengths is None else batch.lengths[:ROWS].clone()
            self._rows = Batch(batch.x[:ROWS].clone(), batch.y[:ROWS].clone(), lengths)
            self._std = float(_real(batch).float().std(correction=0))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Say what the counts of this epoch show."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        record = pl_module.seen
        rates, silent = record.rates(), record.silent()
        states = {name: state_of(rate) for name, rate in rates.items()}
        found = {name: state for name, state in states.items() if state and _short(name) not in pl_module.advice}
        rows = None if isinstance(trainer.strategy, Sharded) else self._rows
        tried = rows is not None
        factors = {} if rows is None or not found else working_factors(pl_module.model, rows, found)
        for name, state in found.items():
            never = f", {silent[name]:.0%} of its neurons never fired" if silent[name] else ""
            scale = "" if self._std is None else f", the data have standard deviation {self._std:.3g}"
            way = _way(pl_module.model, name, state, factors.get(name), tried)
            pl_module.advice[_short(name)] = way
            logger.warning(
                f"{_short(name)}: {state}, spike rate {rates[name]:.4f} in the validation of epoch "
                f"{trainer.current_epoch + 1}{never}{scale}; {way}"
            )


def state_of(rate: float) -> str:
    """What a layer with that many spikes per neuron and step is: "silent", "saturated" or "" for neither."""
    return "silent" if rate < SILENT else "saturated" if rate > SATURATED else ""


@torch.no_grad()
def working_factors(model: nn.Module, rows: Batch, states: Mapping[str, str]) -> dict[str, float]:
    """The factor of the data nearest to 1 with which layers are neither silent nor saturated any more.

    Args:
        model: is run as it is, in eval mode.
        rows: with floating-point x.
        states: of the layers that are asked for, by their names in the model: "silent" or "saturated".

    Returns:
        layer -> factor, the same for all layers of a state; layers that no factor helps are not in it.
    """
    found: dict[str, float] = {}
    for state in set(states.values()):
        asked, works = {name for name in states if states[name] == state}, set[str]()
        for factor in FACTORS[state]:
            try:
                with record_spikes(model) as record:
                    model(rows.x * factor, lengths=rows.lengths)
            except ValueError:  # it diverges, and all the more with the factors behind
                break
            now = {name for name in asked if REVIVED <= record.rates()[name] <= SATURATED}
            if now > works:
                found |= dict.fromkeys(now, factor)
                works = now
    return found


def _way(model: nn.Module, name: str, state: str, factor: float | None, tried: bool) -> str:
    layer, lower = neurons_of(model)[name], "lower" if state == "silent" else "raise"
    key = "model.dynamics.threshold" if isinstance(layer, Neuron) else "model.threshold"
    if factor is not None:
        own = f"data.scale={factor:g} for data of your own"
        return f"multiply the data by {factor:g} ({own}), with which that ends, or {lower} {key}"
    if tried:
        return f"{lower} {key}: no factor of the data from {FACTORS[state][0]:g} to {FACTORS[state][-1]:g} changes it"
    return f"{lower} {key}"


def _real(batch: Batch) -> Tensor:
    """The numbers of a batch that are no padding."""
    if batch.lengths is None:
        return batch.x
    steps = torch.arange(batch.x.shape[1], device=batch.x.device)
    return batch.x[steps < batch.lengths.unsqueeze(-1)]


def _short(name: str) -> str:
    return name.replace(SHARD, "")
