"""What a network does, measured: spike rates."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sdn import Neuron

__all__ = ["SpikeRecord", "record_spikes", "spikes_of"]


class SpikeRecord:
    """Spikes and opportunities to spike (elements) per neuron layer, over all that was run."""

    def __init__(self, names: list[str]) -> None:
        self._spikes: dict[str, Tensor | int] = dict.fromkeys(names, 0)
        self.elements: dict[str, int] = dict.fromkeys(names, 0)

    @property
    def spikes(self) -> dict[str, int]:
        """Number of spikes per layer."""
        return {name: int(count) for name, count in self._spikes.items()}

    def rates(self) -> dict[str, float]:
        """Spikes per element of each layer, in [0, 1].

        Raises:
            ValueError: a layer that was not run.
        """
        self._refuse_empty()
        return {name: count / self.elements[name] for name, count in self.spikes.items()}

    @property
    def total_rate(self) -> float:
        """Spikes of all layers per element of all layers.

        Raises:
            ValueError: a layer that was not run.
        """
        self._refuse_empty()
        return sum(self.spikes.values()) / sum(self.elements.values())

    def add(self, name: str, spikes: Tensor) -> None:
        """Count one output of a layer: any shape, 0 and 1."""
        self._spikes[name] = self._spikes[name] + torch.count_nonzero(spikes.detach())
        self.elements[name] += spikes.numel()

    def _refuse_empty(self) -> None:
        if silent := [name for name, count in self.elements.items() if count == 0]:
            raise ValueError(f"spike rates: {silent} were not run; call the model inside `with record_spikes(model)`.")


@contextmanager
def record_spikes(model: nn.Module) -> Iterator[SpikeRecord]:
    """Count the spikes of every `sdn.Neuron` in a model while the context is open.

    Counted is the neuron's own output, 0 or 1, before any dropout scales it, so rates are right in training too.
    Padding counts as steps. The counts stay on the model's device until they are read.

    Args:
        model: any module; layers go by their names in ``model.named_modules()``, e.g. "blocks.0.layer.neuron".

    Yields:
        SpikeRecord, which stays valid after the context; the model is left as it was.

    Raises:
        ValueError: a model without neurons.

    Example:
        >>> with record_spikes(model) as record:
        ...     logits, _ = model(x)
        >>> record.rates(), record.total_rate
    """
    neurons = {name or "neuron": module for name, module in model.named_modules() if isinstance(module, Neuron)}
    if not neurons:
        raise ValueError(f"record_spikes: {type(model).__name__} holds no sdn.Neuron, so there are no spikes to count.")
    record = SpikeRecord(list(neurons))
    handles = [module.register_forward_hook(_counter(record, name)) for name, module in neurons.items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def spikes_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Run a model on ``x`` in eval mode and return what each `sdn.Neuron` in it spiked.

    Args:
        model: any module that takes x; its mode is restored afterwards.
        x: its input, e.g. (B, L, C).

    Returns:
        layer name -> (B, L, H), 0 and 1.
    """
    seen: dict[str, Tensor] = {}
    neurons = {name or "neuron": module for name, module in model.named_modules() if isinstance(module, Neuron)}
    handles = [module.register_forward_hook(_keeper(seen, name)) for name, module in neurons.items()]
    training = model.training
    try:
        model.eval()(x)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return seen


def _keeper(seen: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Any]) -> None:
        seen[name] = output[0]

    return keep


def _counter(record: SpikeRecord, name: str) -> Any:
    def count(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Any]) -> None:
        record.add(name, output[0])

    return count
