"""Synaptic operations and energy: the published count, and one that leaves no arithmetic out.

Energies are those of 32-bit floating point arithmetic in 45 nm. Reading and writing memory is in no count, though it
can cost more than all of the arithmetic.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from torch import nn

from spikingssm.measures.circuit import INPUT, Circuit, LinearMap, as_circuit
from spikingssm.measures.operations import FORMS, Operations, not_counted, operations
from spikingssm.measures.spikes import SpikeRecord

__all__ = ["ADD", "FUNCTION", "MAC", "MULTIPLY", "account", "joule", "published"]

MULTIPLY = 3.7e-12
"""Joule a multiplication. Source: Horowitz, ISSCC 2014, 45 nm."""
ADD = 0.9e-12
"""Joule an addition, which is what a spike costs at one synapse (AC); a comparison counts as one. Source: as above."""
MAC = MULTIPLY + ADD
"""Joule a multiplication with its addition, 4.6 pJ."""
FUNCTION = 7.1 * MULTIPLY
"""Joule a division: 7.1 multiplications, as measured on a Cortex-M4F (PMC8934428, table 3). That exp, sqrt and erf cost
as much is our assumption."""


def joule(count: Operations) -> float:
    """Energy of operations."""
    return count.multiplications * MULTIPLY + count.additions * ADD + count.functions * FUNCTION


def published(model: nn.Module | Circuit, steps: float, rates: Mapping[str, float]) -> dict[str, float]:
    """The count of the SpikingSSM paper: the linear maps that spikes drive, and nothing else.

    ``MACs = sum over maps of steps * inputs * outputs``, ``ACs = sum of rate * MACs``, at 4.6 and 0.9 pJ. The rate is
    that of the layer before; where a skip ends, the sum of the rates of all layers whose spikes arrive.

    Args:
        model: a network that says by ``synapses`` what its spikes drive, see `spikingssm.measures.circuit`; or
            its `Circuit`.
        steps: of one sample.
        rates: of each neuron layer, in [0, 1], as `SpikeRecord.rates` gives them.

    Returns:
        ``macs`` and ``acs`` of a sample, their energies ``mac_joule`` and ``ac_joule``, and the ``saving``
        1 - ac_joule / mac_joule.

    Raises:
        ValueError: a model without such maps.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909).
    """
    circuit = as_circuit(model)
    arriving = [(name, target) for name, maps in circuit.driven.items() if name != INPUT for target in maps]
    macs = {target: steps * circuit.linear(target).connections for _, target in arriving}
    if not macs:
        raise ValueError(f"published: {circuit.kind} has no synapses(), which says what its spikes drive.")
    total, acs = sum(macs.values()), sum(rates[name] * macs[target] for name, target in arriving)
    energies = {"mac_joule": total * MAC, "ac_joule": acs * ADD}
    return {"macs": total, "acs": acs, **energies, "saving": 1 - energies["ac_joule"] / energies["mac_joule"]}


def account(model: nn.Module, record: SpikeRecord, sequences: int = 1) -> dict[str, Any]:
    """What a sample cost on average, from the spikes that were counted.

    Args:
        model: the network that was run.
        record: of the run.
        sequences: rows that make up one sample, 2 for pairs.

    Returns:
        ``steps``: of a sample, as the neurons saw them, without padding. ``spikes``, ``spikes_by_layer``: the neurons'
        own output, before any skip, which is what the code of S5-RF logs as operations. ``input_events``: of the data,
        only where these are spikes, see `SpikeRecord.events`. ``sops``, ``sops_by_layer``: synaptic operations; a spike
        counts once for each output of every linear map at which it arrives, behind skips too, and an event of the data
        likewise ("input"). ``energy``: `published`, and for each of `FORMS` the ``joule`` of all arithmetic, the
        ``dense_joule`` of the real-valued twin (see `operations`), the ``saving`` that remains, and the joule of all
        ``parts``. ``not_counted``: modules that no rule knows.

    Raises:
        ValueError: a layer that was not run.
    """
    rates, samples = record.rates(), {name: rows / sequences for name, rows in record.rows.items()}
    steps = sum(count / samples[name] for name, count in record.steps.items()) / len(samples)
    spikes = {name: count / samples[name] for name, count in record.spikes.items()}
    found: dict[str, Any] = {"steps": steps, "spikes": sum(spikes.values()), "spikes_by_layer": spikes}
    counts: dict[str, float] = dict(record.spikes)
    circuit = Circuit(model)
    arrives = circuit.driven
    energy: dict[str, Any] = {"published": published(circuit, steps, rates)} if arrives else {}
    if INPUT in arrives and record.events is not None:
        samples[INPUT] = fmean(samples.values())
        counts[INPUT], found["input_events"] = record.events, record.events / samples[INPUT]
        rates[INPUT] = found["input_events"] / (steps * circuit.linear(arrives[INPUT][0]).inputs)
    sops = {
        name: counts[name] / samples[name] * sum(map(_fan_out, map(circuit.linear, maps)))
        for name, maps in arrives.items()
        if name in counts
    }
    for form in FORMS:
        own, twin = (operations(circuit, steps, rates, form, sequences=sequences, dense=d) for d in (False, True))
        parts = {name: joule(count) for name, count in own.items()}
        total, dense = sum(parts.values()), sum(joule(count) for count in twin.values())
        saving = 1 - total / dense if dense else 0.0
        energy[form] = {"joule": total, "dense_joule": dense, "saving": saving, "parts": parts}
    found |= {"sops": sum(sops.values()), "sops_by_layer": sops, "energy": energy}
    return {**found, "not_counted": not_counted(circuit)}


def _fan_out(linear: LinearMap) -> float:
    """How many outputs one input reaches on average."""
    return linear.connections / linear.inputs
