"""A callback for any LightningModule with spiking layers: how many of their neurons never fire, or always do."""

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from loguru import logger
from torch import Tensor, nn

from sdn import Neuron
from spikingssm.measures.dead import DeadReport, LayerActivity, check_limits, judged
from spikingssm.measures.spikes import Firing, SpikeRecord, neurons_of, watch_neurons
from spikingssm.processes.distributed import SHARD, total

__all__ = ["DeadNeurons"]

MANY = 0.5
"""From this share of a layer on its dead neurons are worth a warning."""


class DeadNeurons(Callback):
    """Log for each layer the share of its neurons that never fire and of those that always do, over an epoch.

    Counted are the batches of the validation, or those of the training where there is no validation. The metrics are
    ``silent/LAYER`` and ``loud/LAYER``, in [0, 1]. A layer in which half of the neurons or more are silent, or loud, is
    named once in a warning, with what to do about it.

    Args:
        every_n_epochs: look at the first epoch and at each n-th after it, >= 1.
        silent: up to so many spikes per step a neuron counts as one that never fires.
        loud: from so many spikes per step on it counts as one that always fires.

    Raises:
        ValueError: a number out of range; when the training starts, a module without spiking layers.

    Example:
        >>> trainer = lightning.Trainer(callbacks=[DeadNeurons()])
    """

    def __init__(self, every_n_epochs: int = 1, silent: float = 0.0, loud: float = 1.0) -> None:
        if not (isinstance(every_n_epochs, int) and every_n_epochs > 0):
            raise ValueError(f"DeadNeurons: every_n_epochs must be an integer >= 1, got {every_n_epochs!r}.")
        check_limits("DeadNeurons", silent, loud)
        self.every_n_epochs, self.silent, self.loud = every_n_epochs, silent, loud
        self.found: DeadReport | None = None
        """What the last epoch that was looked at has shown, over all processes."""
        self._open, self._record, self._warned = ExitStack(), SpikeRecord({}), set[tuple[str, str]]()
        self._currents: dict[str, float] = {}
        self._looked: int | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a module without neurons before anything is trained."""
        neurons_of(_network(pl_module))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting where there is no validation."""
        if not trainer.enable_validation and self._is_due(trainer):
            self._start(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what was counted in the training."""
        if not trainer.enable_validation and self._is_due(trainer):
            self._end(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting."""
        if self._is_due(trainer) and not trainer.sanity_checking:
            self._start(pl_module)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what was counted."""
        if self._is_due(trainer) and not trainer.sanity_checking:
            self._end(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._open.close()

    def _is_due(self, trainer: Any) -> bool:
        """The first look of every so many epochs, whichever of them have a validation."""
        return self._looked is None or trainer.current_epoch // self.every_n_epochs != self._looked

    def _start(self, pl_module: Any) -> None:
        model = _network(pl_module)
        self._open.close()
        self._currents.clear()
        self._record = SpikeRecord({name: layer.channels for name, layer in neurons_of(model).items()})
        self._open.enter_context(watch_neurons(model, self._look))

    def _look(self, seen: Firing) -> None:
        self._record.add(seen.name, seen.spikes, seen.valid)
        if seen.name not in self._currents and isinstance(
            seen.current, Tensor
        ):  # once a layer, since it waits for the device
            self._currents[seen.name] = float(seen.current.detach().float().std(correction=0))

    def _end(self, trainer: Any, pl_module: Any) -> None:
        self._open.close()
        self._looked = trainer.current_epoch // self.every_n_epochs

        def summed(counts: Tensor) -> Tensor:
            return total(counts.to(pl_module.device))

        record = self._record.summed(summed)
        self.found = DeadReport(
            {name.replace(SHARD, ""): layer for name, layer in judged(record, self.silent, self.loud).items()}
        )
        for name, layer in self.found.items():
            shares = {"silent": layer.silent_share, "loud": layer.loud_share}
            for state, share in shares.items():
                pl_module.log(f"{state}/{name}", torch.tensor(share), on_step=False, on_epoch=True, sync_dist=True)
                if share >= MANY and trainer.is_global_zero and (name, state) not in self._warned:
                    self._warned.add((name, state))
                    logger.warning(self._proposal(_network(pl_module), name, state, layer, trainer.current_epoch + 1))

    def _proposal(self, model: nn.Module, name: str, state: str, layer: LayerActivity, epoch: int) -> str:
        """What is wrong with a layer and what to do about it."""
        share, does = (
            (layer.silent_share, "never fire") if state == "silent" else (layer.loud_share, "fire at every step")
        )
        told = f"{name}: {share:.0%} of its {len(layer.rates)} neurons {does} in epoch {epoch}"
        part = {key.replace(SHARD, ""): value for key, value in neurons_of(model).items()}[name]
        if type(part) is Neuron and (std := self._currents.get(name)):
            kind, usual = type(part.dynamics).__name__, part.dynamics.default_std
            told += f"; its currents have standard deviation {std:.3g}, {kind} with its default values fires well from "
            told += f"about {usual:g}"
        if state == "silent":
            return (
                f'{told}. Multiply the input by 3 to 30, lower the threshold, or learn it: learn={{"threshold": None}}.'
            )
        return f"{told}. Divide the input by 3 to 30, raise the threshold, or lower a bias before the layer."


def _network(pl_module: Any) -> nn.Module:
    """The module's ``model`` where that holds all neurons, whose names are then shorter; else the module itself."""
    model = getattr(pl_module, "model", None)
    if isinstance(model, nn.Module):
        held = {id(part) for part in model.modules()}
        if all(id(part) in held for part in neurons_of(pl_module).values()):
            return model
    return pl_module  # type: ignore[no-any-return]
