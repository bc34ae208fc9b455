"""What the linear maps of a network read while it runs: which numbers were not zero, counted input by input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikingssm.layers import AdaptiveVocabulary, Frames, Recurrent
from spikingssm.measures.circuit import INPUT, Circuit
from spikingssm.measures.padding import real_steps, watch_input
from spikingssm.measures.spikes import SpikeRecord, neurons_of

__all__ = ["MapRecord", "Reading", "record_maps"]


class Reading(NamedTuple):
    """What one linear map has read.

    Args:
        nonzero: how often each of its inputs was not 0, (inputs,) int64.
        times: how often the map was applied: rows times real steps.
        ternary: whether all that it read is -1, 0 or 1.
        source: "spikes" of one layer, as `SpikeRecord` has them; "watched" at the map itself; or "assumed" not to be 0.
    """

    nonzero: Tensor
    times: int
    ternary: bool
    source: str


class MapRecord:
    """What arrives at the linear maps of a model over all that was run; padding is left out.

    Maps that read the spikes of one layer are not watched: `readings` takes what a `SpikeRecord` has counted.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.circuit = Circuit(model)
        neurons = set(neurons_of(model))
        self.spiking = {name: source for name in self.circuit.maps() if (source := self._source(name)) in neurons}
        inside = tuple(
            f"{name}." for name, part in self.circuit.modules.items() if isinstance(part, AdaptiveVocabulary)
        )
        left = [name for name in self.circuit.maps() if name not in self.spiking]
        self.assumed = [name for name in left if inside and name.startswith(inside)]  # run for some labels only
        self.watched = [name for name in left if name not in self.assumed]
        self._nonzero: dict[str, Tensor] = {}
        self._times: dict[str, Tensor | int] = dict.fromkeys(self.watched, 0)
        self._foreign: dict[str, Tensor | int] = dict.fromkeys(self.watched, 0)

    def add(self, name: str, x: Tensor, valid: Tensor | None = None) -> None:
        """Count one input of a map.

        Args:
            name: of the map.
            x: (..., inputs).
            valid: (B, L) for x (B, L, inputs), False at padding; None is all True.
        """
        x = x.detach()
        there, foreign = x != 0, (x.abs() != 1) & (x != 0)
        if valid is not None:
            there, foreign = there & valid.unsqueeze(-1), foreign & valid.unsqueeze(-1)
        self._nonzero[name] = self._nonzero.get(name, 0) + there.flatten(0, -2).sum(0)
        self._times[name] = self._times[name] + (x[..., 0].numel() if valid is None else valid.sum())
        self._foreign[name] = self._foreign[name] + foreign.sum()

    def readings(self, record: SpikeRecord) -> dict[str, Reading]:
        """What every map has read, by its name; a map that was not run is left out.

        Args:
            record: of the same run.
        """
        fired, steps = record.fired, record.steps
        found = {n: Reading(fired[s].cpu(), steps[s], True, "spikes") for n, s in self.spiking.items() if steps[s]}
        for name in self.watched:
            if times := int(self._times[name]):
                found[name] = Reading(self._nonzero[name].cpu(), times, not int(self._foreign[name]), "watched")
        for name in self.assumed:
            times = max(steps.values())
            inputs = self.circuit.linear(name).inputs
            found[name] = Reading(torch.full((inputs,), times), times, False, "assumed")
        return {name: found[name] for name in self.circuit.maps() if name in found}

    def _source(self, name: str) -> str:
        """The layer of neurons whose spikes alone a map reads; "" for none, or for more than one."""
        around = name.rpartition(".")[0]
        if isinstance(self.circuit.modules[around], Recurrent) and name.endswith("recurrent"):
            return around or "neuron"
        sources = self.circuit.drivers.get(name, ())
        return sources[0] if len(sources) == 1 and sources[0] != INPUT else ""


@contextmanager
def record_maps(model: nn.Module) -> Iterator[MapRecord]:
    """Count what the linear maps of a model read while the context is open.

    Args:
        model: any module that holds neurons. Its maps are its `torch.nn.Linear`, readouts and vocabularies.

    Yields:
        MapRecord, which stays valid after the context; the model is left as it was.

    Raises:
        ValueError: a model without neurons.
    """
    record = MapRecord(model)
    handles = []
    with real_steps(model) as valid:
        for name in record.watched:
            part = record.circuit.modules[name]

            def look(x: Tensor, name: str = name, part: nn.Module = part) -> None:
                read = part.framed(x) if isinstance(part, Frames) else x
                record.add(name, read, valid(name, read) if read.ndim == 3 else None)

            handles.append(watch_input(model, name, look))
        try:
            yield record
        finally:
            for handle in handles:
                handle.remove()
