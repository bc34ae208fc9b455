"""The efficiency of a network under the names of NeuroBench's metrics, and what these leave out.

The metrics are those of NeuroBench 2.3 (Yik et al., Nature Communications 2025, arXiv 2304.04640). Its hooks see
`torch.nn` maps and snnTorch neurons; these counts are our own, of our own layers. docs/howto/card.md has the
definitions, and where they differ.
"""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from spikingssm.measures.circuit import as_circuit
from spikingssm.measures.maps import MapRecord, record_maps
from spikingssm.measures.operations import FORMS, operations
from spikingssm.measures.spikes import SpikeRecord, record_spikes
from spikingssm.models.base import evaluating, placed

__all__ = [
    "connection_sparsity", "footprint", "map_counts", "metrics_of", "neurobench", "outside_maps", "state_bytes",
    "stream_state",
]  # fmt: skip


@torch.no_grad()
def metrics_of(model: nn.Module, batches: Iterable[Any]) -> dict[str, Any]:
    """The metrics of a network on batches of your own, in eval mode; the mode is restored.

    Args:
        model: any module that holds neurons, such as an `sdn.Sequential`.
        batches: x (B, L, C), or pairs of x and lengths (B,), for a model whose ``forward`` takes ``lengths``.

    Returns:
        what `neurobench` gives, and what `map_counts` gives as ``maps``.

    Raises:
        ValueError: a model without neurons, or no batch.

    Example:
        >>> found = spikingssm.measures.card.metrics_of(net, [x])
        >>> found["SynapticOperations"]
    """
    with evaluating(model), record_spikes(model) as spikes, record_maps(model) as maps:
        for batch in batches:
            x, lengths = batch if isinstance(batch, (tuple, list)) else (batch, None)
            model(placed(model, x), **({} if lengths is None else {"lengths": lengths}))
    return {**neurobench(model, spikes, maps), "maps": map_counts(spikes, maps)}


def neurobench(model: nn.Module, record: SpikeRecord, maps: MapRecord, sequences: int = 1) -> dict[str, Any]:
    """The metrics under NeuroBench's names, from what was counted while the network ran.

    Args:
        model: the network that was run.
        record: its spikes.
        maps: what its linear maps have read in the same run.
        sequences: rows that make up one sample, 2 for pairs.

    Returns:
        ``ParameterCount``; ``Footprint`` in bytes; ``ConnectionSparsity``, ``ActivationSparsity`` and
        ``ActivationSparsityByLayer`` in [0, 1]; ``SynapticOperations`` with ``Effective_MACs``, ``Effective_ACs`` and
        ``Dense``, and ``MembraneUpdates``, of a sample on average.

    Raises:
        ValueError: a layer that was not run.
    """
    rates, counts = record.rates(), map_counts(record, maps, sequences).values()
    effective = {kind: sum(count["effective"] for count in counts if count["kind"] == kind) for kind in ("MAC", "AC")}
    return {
        "ParameterCount": sum(p.numel() for p in model.parameters()),
        "Footprint": footprint(model),
        "ConnectionSparsity": connection_sparsity(model),
        "ActivationSparsity": 1 - record.total_rate,
        "ActivationSparsityByLayer": {name: 1 - rate for name, rate in rates.items()},
        "SynapticOperations": {
            "Effective_MACs": effective["MAC"],
            "Effective_ACs": effective["AC"],
            "Dense": sum(count["dense"] for count in counts),
        },
        "MembraneUpdates": sum(record.elements.values()) / _samples(record, sequences),
    }


def map_counts(record: SpikeRecord, maps: MapRecord, sequences: int = 1) -> dict[str, dict[str, Any]]:
    """Operations of a sample of every linear map that was run.

    Args:
        record, maps, sequences: as in `neurobench`.

    Returns:
        map -> ``kind``: "AC" where all that it read is -1, 0 or 1, else "MAC"; ``effective``: pairs of an input and a
        weight, neither of them 0; ``dense``: all pairs; ``times`` that it was applied; ``source``, see `Reading`.

    Raises:
        ValueError: a layer that was not run.
    """
    record.rates()
    samples, found = _samples(record, sequences), {}
    for name, reading in maps.readings(record).items():
        weight = maps.circuit.matrix(name)
        columns = (weight != 0).sum(0).cpu()
        found[name] = {
            "kind": "AC" if reading.ternary else "MAC",
            "effective": int(reading.nonzero @ columns) / samples,
            "dense": reading.times * weight.numel() / samples,
            "times": reading.times / samples,
            "source": reading.source,
        }
    return found


def outside_maps(model: nn.Module, record: SpikeRecord, sequences: int = 1) -> dict[str, dict[str, dict[str, float]]]:
    """What a sample costs besides its linear maps, whatever is zero: state spaces, neurons, norms, gates, pools.

    NeuroBench counts none of this.

    Args:
        model, record, sequences: as in `neurobench`.

    Returns:
        for each of `FORMS`, part -> ``multiplications``, ``additions`` and ``functions``, see `operations`.
    """
    circuit, rates = as_circuit(model), record.rates()
    steps = fmean(sequences * count / record.rows[name] for name, count in record.steps.items())
    found = {}
    for form in FORMS:
        parts = operations(circuit, steps, rates, form, sequences=sequences, maps=False)
        found[form] = {part: dict(vars(count)) for part, count in parts.items() if any(vars(count).values())}
    return found


def connection_sparsity(model: nn.Module) -> float:
    """Zeros among the weights of all linear maps, in [0, 1]; connections that a mask cuts are zeros. 0 without maps."""
    circuit = as_circuit(model)
    weights = [circuit.matrix(name) for name in circuit.maps()]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def footprint(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


@torch.no_grad()
def stream_state(model: nn.Module, row: Tensor) -> int:
    """Bytes of the state of one stream: at rest, or behind a whole row where that is more, such as of a window.

    Args:
        model: is run in eval mode; the mode is restored.
        row: what it reads, (L, C) or tokens (L,).

    Raises:
        NotImplementedError: a model that gives no state, so that it cannot be continued.
    """
    with evaluating(model):
        after = state_bytes(model(placed(model, row[None]))[1])
    if not after:
        raise NotImplementedError(f"{type(model).__name__} gives no state behind a sequence, so it has no streams.")
    rest = getattr(model, "initial_state", None)
    return after if rest is None else max(after, state_bytes(rest(1)))


def state_bytes(state: Any) -> int:
    """Bytes of a state: of tensors in nested tuples, lists and dicts."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (tuple, list)) else ()
    return sum(state_bytes(part) for part in parts)


def _samples(record: SpikeRecord, sequences: int) -> float:
    return fmean(record.rows.values()) / sequences
