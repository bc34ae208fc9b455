"""Layers whose neurons never change: named before any training is spent on them, with the scale of the data and a way
out."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from loguru import logger
from torch import Tensor, nn

from sdn import Neuron
from spikingssm.datasets.base import Batch
from spikingssm.measures.spikes import SpikeRecord, neurons_of, record_spikes
from spikingssm.models.base import evaluating
from spikingssm.processes.distributed import SHARD, Sharded

__all__ = ["Activity", "state_of", "working_factors"]

SILENT, LOUD, SATURATED = 1e-3, 0.35, 0.9
"""Spikes per neuron and step below which a layer tells nothing, above which an untrained one hardly learns, and above
which it tells nothing either."""
CALM = 0.2
"""Up to here a loud layer is to be brought."""
REVIVED = 3e-4
"""Spikes per neuron and step with which a silent layer can learn: training takes it from there."""
SMALLER = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
FACTORS = {"silent": (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), "loud": SMALLER, "saturated": SMALLER}
"""What the data are multiplied with, to see what a layer makes of that."""
BEFORE = "before the first epoch"
ROWS = 8
"""Rows of a batch that this is tried on."""


class Activity(Callback):
    """Name each silent or saturated layer once: before the first epoch, or after the first one in which it is one.

    What would make it fire is tried out on a few rows of the validation, with the weights as they are then. What was
    said is kept in the module's ``advice`` by the name of the layer and its state, for the end of the run.
    """

    def __init__(self) -> None:
        self._rows: Batch | None = None
        self._std: float | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look at a few rows before anything is trained; a run that goes on has been looked at."""
        data = trainer.datamodule
        if not trainer.is_global_zero or isinstance(trainer.strategy, Sharded) or data.first_epoch or data.first_batch:
            return
        x, y, lengths = data.val_set.__getitems__(data.val_rows[:ROWS].tolist())
        device = pl_module.device
        rows = Batch(x.to(device), y.to(device), None if lengths is None else lengths.to(device))
        rows = trainer.precision_plugin.convert_input(rows)
        self._take(rows)
        with contextlib.suppress(ValueError):  # it diverges: the training says so in its own words
            self._say(pl_module, _looked_at(pl_module.model, rows), BEFORE, self._rows)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take up a few rows and their scale; tokens have none."""
        self._take(batch)

    def _take(self, batch: Batch) -> None:
        if self._rows is None and batch.x.is_floating_point():
            lengths = None if batch.lengths is None else batch.lengths[:ROWS].clone()
            self._rows = Batch(batch.x[:ROWS].clone(), batch.y[:ROWS].clone(), lengths)
            self._std = float(_real(batch).float().std(correction=0))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Say what the counts of this epoch show."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        when = f"in the validation of epoch {trainer.current_epoch + 1}"
        self._say(pl_module, pl_module.seen, when, None if isinstance(trainer.strategy, Sharded) else self._rows)

    def _say(self, pl_module: Any, record: SpikeRecord, when: str, rows: Batch | None) -> None:
        """Name what a record shows that has not been named."""
        rates, silent = record.rates(), record.silent()
        begins = when == BEFORE
        states = {name: state_of(rate) or ("loud" if begins and rate > LOUD else "") for name, rate in rates.items()}
        found = {n: state for n, state in states.items() if state and (_short(n), state) not in pl_module.advice}
        tried = rows is not None
        factors = {} if rows is None or not found else working_factors(pl_module.model, rows, found)
        for name, state in found.items():
            never = f", {silent[name]:.0%} of its neurons never fired" if silent[name] else ""
            scale = "" if self._std is None else f", the data have standard deviation {self._std:.3g}"
            way = _way(pl_module.model, name, state, factors.get(name), tried)
            pl_module.advice[_short(name), state] = way
            logger.warning(f"{_short(name)}: {state}, spike rate {rates[name]:.4f} {when}{never}{scale}; {way}")


def state_of(rate: float) -> str:
    """What a layer with that many spikes per neuron and step is: "silent", "saturated" or "" for neither."""
    return "silent" if rate < SILENT else "saturated" if rate > SATURATED else ""


@torch.no_grad()
def working_factors(model: nn.Module, rows: Batch, states: Mapping[str, str]) -> dict[str, float]:
    """The factor of the data nearest to 1 with which layers are neither silent nor saturated any more.

    Args:
        model: is run as it is, in eval mode.
        rows: with floating-point x.
        states: of the layers that are asked for, by their names in the model: "silent", "loud" or "saturated".

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
            most = CALM if state == "loud" else SATURATED
            now = {name for name in asked if REVIVED <= record.rates()[name] <= most}
            if now > works:
                found |= dict.fromkeys(now, factor)
                works = now
    return found


@torch.no_grad()
def _looked_at(model: nn.Module, rows: Batch) -> SpikeRecord:
    """The spikes of a model on a few rows, in eval mode; the mode is restored."""
    with evaluating(model), record_spikes(model) as record:
        model(rows.x, lengths=rows.lengths)
    return record


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
