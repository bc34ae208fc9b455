"""Synaptic operations and energy: the published count, and one that leaves no arithmetic out.

Energies are those of 32-bit floating point arithmetic in 45 nm. Reading and writing memory is in no count, though it
can cost more than all of the arithmetic.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spikingssm.metrics import SpikeRecord
from spikingssm.operations import FORMS, Operations, driven, not_counted, operations

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


def published(model: nn.Module, steps: float, rates: Mapping[str, float]) -> dict[str, float]:
    """The count of the paper: the linear maps that spikes drive, and nothing else.

    ``MACs = sum over layers of steps * inputs * outputs``, ``ACs = sum of rate * MACs``, at 4.6 and 0.9 pJ.

    Args:
        model: a network of `SpikingBlock`.
        steps: of one sample.
        rates: of each neuron layer, in [0, 1], as `SpikeRecord.rates` gives them.

    Returns:
        ``macs`` and ``acs`` of a sample, their energies ``mac_joule`` and ``ac_joule``, and the ``saving``
        1 - ac_joule / mac_joule.

    Raises:
        ValueError: a model without such maps.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909).
    """
    macs = {name: steps * output.in_features * output.out_features for name, output in driven(model).items()}
    if not macs:
        raise ValueError(f"published: {type(model).__name__} holds no SpikingBlock, whose linear maps are counted.")
    total, acs = sum(macs.values()), sum(rates[name] * count for name, count in macs.items())
    energies = {"mac_joule": total * MAC, "ac_joule": acs * ADD}
    return {"macs": total, "acs": acs, **energies, "saving": 1 - energies["ac_joule"] / energies["mac_joule"]}


def account(model: nn.Module, record: SpikeRecord, sequences: int = 1) -> dict[str, Any]:
    """What a sample cost on average, from the spikes that were counted.

    Args:
        model: the network that was run.
        record: of the run.
        sequences: rows that make up one sample, 2 for pairs.

    Returns:
        ``steps``: of a sample, as the neurons saw them, without padding. ``sops`` and ``sops_by_layer``: synaptic
        operations of a sample; a spike counts once for each output of the linear map that it drives. ``energy``:
        `published`, and for each of `FORMS` the ``joule`` of all arithmetic, the ``dense_joule`` of the real-valued
        twin (see `operations`), the ``saving`` that remains, and the joule of all ``parts``. ``not_counted``: modules
        that no rule knows.

    Raises:
        ValueError: a layer that was not run.
    """
    rates, samples = record.rates(), {name: rows / sequences for name, rows in record.rows.items()}
    steps = sum(count / samples[name] for name, count in record.steps.items()) / len(samples)
    maps = driven(model)
    sops = {name: record.spikes[name] * output.out_features / samples[name] for name, output in maps.items()}
    energy: dict[str, Any] = {"published": published(model, steps, rates)} if maps else {}
    for form in FORMS:
        own, twin = (operations(model, steps, rates, form, sequences=sequences, dense=d) for d in (False, True))
        parts = {name: joule(count) for name, count in own.items()}
        total, dense = sum(parts.values()), sum(joule(count) for count in twin.values())
        saving = 1 - total / dense if dense else 0.0
        energy[form] = {"joule": total, "dense_joule": dense, "saving": saving, "parts": parts}
    found = {"steps": steps, "sops": sum(sops.values()), "sops_by_layer": sops, "energy": energy}
    return {**found, "not_counted": not_counted(model)}
