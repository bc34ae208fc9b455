"""What the neurons of a network do while it runs: spikes, counted over the steps that are real."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdn import SpikingLayer
from sdn.checks.arguments import check_uncompiled
from spikingssm.measures.padding import first_two, real_steps, watch_input
from spikingssm.models.base import synapses_of

__all__ = ["Firing", "SpikeRecord", "neurons_of", "record_spikes", "spikes_of", "watch_neurons"]

EXACT = 2**24
"""Up to this many ones, a sum in float32 is exact."""
LARGEST_COUNT = 100
"""Data of whole numbers up to this one are counts of spikes; grey levels go further."""


class Firing(NamedTuple):
    """One call of a neuron: its name, its arguments, its spikes (B, L, H) and the steps that are real."""

    name: str
    current: Tensor
    state: Any
    spikes: Tensor
    valid: Tensor | None
    """(B, L), False at padding; None is all True."""


class SpikeRecord:
    """Spikes, steps and rows per neuron layer, and events of the data, over all that was run; padding is left out.

    Spikes are counted neuron by neuron, so that `silent` can tell how many never fired.

    A row is one row of a batch in one call: a sequence, a chunk of a stream, or a single step.

    Args:
        channels: neurons of each layer, by its name.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        self._channels = dict(channels)
        self._spikes: dict[str, Tensor] = {n: torch.zeros(h, dtype=torch.int64) for n, h in channels.items()}
        self._steps: dict[str, Tensor | int] = dict.fromkeys(channels, 0)
        self.rows: dict[str, int] = dict.fromkeys(channels, 0)
        self._events: Tensor | int | None = None
        self._foreign: Tensor | int = 0  # steps of the data with other than counts

    @property
    def events(self) -> int | None:
        """Events of the data: the sum of its magnitudes, if all of it are whole numbers up to `LARGEST_COUNT`.

        None for other data, and for a model that does not say what reads its data, see `record_spikes`.
        """
        return None if self._events is None or int(self._foreign) else int(self._events)

    @property
    def spikes(self) -> dict[str, int]:
        """Number of spikes per layer."""
        return {name: int(count.sum()) for name, count in self._spikes.items()}

    @property
    def fired(self) -> dict[str, Tensor]:
        """Number of spikes per neuron, layer -> (H,) int64."""
        return dict(self._spikes)

    @property
    def steps(self) -> dict[str, int]:
        """Number of steps per layer, over all rows."""
        return {name: int(count) for name, count in self._steps.items()}

    @property
    def elements(self) -> dict[str, int]:
        """Opportunities to spike per layer: steps times channels."""
        return {name: count * self._channels[name] for name, count in self.steps.items()}

    def rates(self) -> dict[str, float]:
        """Spikes per element of each layer, in [0, 1].

        Raises:
            ValueError: a layer that was not run.
        """
        elements = self._elements()
        return {name: count / elements[name] for name, count in self.spikes.items()}

    @property
    def total_rate(self) -> float:
        """Spikes of all layers per element of all layers.

        Raises:
            ValueError: a layer that was not run.
        """
        return sum(self.spikes.values()) / sum(self._elements().values())

    def silent(self) -> dict[str, float]:
        """The share of the neurons of each layer that never fired, in [0, 1].

        Raises:
            ValueError: a layer that was not run.
        """
        self._elements()
        return {name: float((count == 0).double().mean()) for name, count in self._spikes.items()}

    def by_neuron(self) -> dict[str, Tensor]:
        """Spikes per step of every neuron that was run, layer -> (H,) float64 in [0, 1]."""
        return {
            name: self._spikes[name].double() / count for name, count in self.steps.items() if self.rows[name] and count
        }

    def add(self, name: str, spikes: Tensor, valid: Tensor | None = None) -> None:
        """Count one output of a layer.

        Args:
            name: of the layer.
            spikes: (B, L, H), 0 and 1.
            valid: (B, L), False at padding; None is all True.
        """
        spikes, every = spikes.detach(), spikes.shape[0] * spikes.shape[1]
        exact = torch.float32 if spikes.dtype == torch.float32 and every <= EXACT else torch.float64
        steps = every if valid is None else valid.sum()
        if valid is not None:
            spikes = spikes * valid.unsqueeze(-1)
        fired = spikes.sum((0, 1), dtype=exact).long()  # a tenth of the time of count_nonzero
        self._spikes[name] = fired if not self.rows[name] else self._spikes[name] + fired
        self._steps[name] = self._steps[name] + steps
        self._channels[name] = spikes.shape[-1]
        self.rows[name] += len(spikes)

    def add_data(self, x: Tensor, valid: Tensor | None = None) -> None:
        """Count the events of data (B, L, C), floating-point; ``valid`` as in `add`."""
        size = x.detach().abs()
        events = size.sum(-1, dtype=torch.promote_types(size.dtype, torch.float32))
        foreign = ~((size.amax(-1) <= LARGEST_COUNT) & (size.frac().amax(-1) == 0))  # NaN is too
        if valid is not None:
            events, foreign = events.masked_fill(~valid, 0), foreign & valid
        self._events = (0 if self._events is None else self._events) + events.long().sum()
        self._foreign = self._foreign + foreign.sum()

    def summed(self, over: Callable[[Tensor], Tensor]) -> "SpikeRecord":
        """The record of all processes.

        Args:
            over: sums an int64 tensor over the processes; every process must call it.
        """
        data = [0 if self._events is None else int(self._events), int(self._foreign)]
        counts = torch.tensor([*data, *self.steps.values(), *self.rows.values()])
        found = over(torch.cat([counts, *(count.cpu() for count in self._spikes.values())])).cpu()
        record, layers = SpikeRecord(self._channels), len(self.rows)
        record._events, record._foreign = None if self._events is None else int(found[0]), int(found[1])
        steps, rows, *spikes = torch.split(found[2:], [layers, layers, *self._channels.values()])
        record._steps = dict(zip(self.rows, steps.tolist(), strict=True))
        record.rows = dict(zip(self.rows, rows.tolist(), strict=True))
        record._spikes = dict(zip(self.rows, spikes, strict=True))
        return record

    def _elements(self) -> dict[str, int]:
        elements = self.elements
        if silent := [name for name, count in elements.items() if count == 0]:
            raise ValueError(f"spike rates: {silent} were not run; call the model inside `with record_spikes(model)`.")
        return elements


@contextmanager
def record_spikes(model: nn.Module) -> Iterator[SpikeRecord]:
    """Count the spikes of every `sdn.SpikingLayer` in a model while the context is open.

    Counted is the neuron's own output, 0 or 1, before any dropout scales it, so rates are right in training too.
    Padding is left out where the modules around a neuron are told of it, see `watch_neurons`. The counts stay on the
    model's device until they are read. Where the model's ``synapses`` name a map of its "input", the events of the data
    are counted as they enter it.

    Args:
        model: any module; layers go by their names in ``model.named_modules()``, e.g. "blocks.0.layer.neuron".

    Yields:
        SpikeRecord, which stays valid after the context; the model is left as it was.

    Raises:
        ValueError: a model without neurons, or what `torch.compile` gives.

    Example:
        >>> with record_spikes(model) as record:
        ...     logits, _ = model(x, lengths=lengths)
        >>> record.rates(), record.total_rate
    """
    check_uncompiled("record_spikes", model)
    record = SpikeRecord({name: neuron.channels for name, neuron in neurons_of(model).items()})
    with watch_neurons(model, lambda seen: record.add(seen.name, seen.spikes, seen.valid), record.add_data):
        yield record


@contextmanager
def watch_neurons(
    model: nn.Module,
    look: Callable[[Firing], None],
    look_at_data: Callable[[Tensor, Tensor | None], None] | None = None,
) -> Iterator[None]:
    """Call ``look`` after every call of an `sdn.SpikingLayer` in a model while the context is open.

    Which steps are real is what the modules around a neuron are told, see `spikingssm.measures.padding.real_steps`.

    Args:
        model: any module that holds neurons.
        look: gets a `Firing`.
        look_at_data: gets the data (B, L, C) and the steps that are real, (B, L) or None, at the first map that the
            model's ``synapses`` name for its "input", if any.

    Raises:
        ValueError: a model without neurons, or lengths that are not of the neuron's rows.
    """
    handles = []
    with real_steps(model) as valid:
        for name, neuron in neurons_of(model).items():
            handles.append(neuron.register_forward_hook(_teller(name, valid, look), with_kwargs=True))
        for target in synapses_of(model).get("input", ())[:1] if look_at_data else ():
            handles.append(watch_input(model, target, _reader(target, valid, look_at_data)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def neurons_of(model: nn.Module) -> dict[str, SpikingLayer]:
    """Every `sdn.SpikingLayer` of a model by its name in ``named_modules()``; "neuron" for one that is the model.

    Raises:
        ValueError: a model without neurons.
    """
    neurons = {name or "neuron": module for name, module in model.named_modules() if isinstance(module, SpikingLayer)}
    if not neurons:
        raise ValueError(f"{type(model).__name__} holds no sdn.SpikingLayer, so there are no spikes to look at.")
    return neurons


@torch.no_grad()
def spikes_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Run a model on ``x`` in eval mode and return what each `sdn.SpikingLayer` in it spiked.

    Args:
        model: any module that takes x; its mode is restored afterwards.
        x: its input, e.g. (B, L, C).

    Returns:
        layer name -> (B, L, H), 0 and 1.
    """
    seen: dict[str, Tensor] = {}
    training = model.training
    with watch_neurons(model, lambda firing: seen.update({firing.name: firing.spikes})):
        try:
            model.eval()(x)
        finally:
            model.train(training)
    return seen


def _teller(name: str, valid: Callable[[str, Tensor], Tensor | None], look: Callable[[Firing], None]) -> Any:
    def tell(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        current, state = first_two(module, args, kwargs)
        spikes = output if isinstance(output, Tensor) else output[0]
        look(Firing(name, current, state, spikes, valid(name, spikes)))

    return tell


def _reader(name: str, valid: Callable[[str, Tensor], Tensor | None], look: Any) -> Callable[[Tensor], None]:
    return lambda data: look(data, valid(name, data))
