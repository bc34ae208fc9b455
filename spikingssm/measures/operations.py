"""The arithmetic of a network, counted module by module; every rule stands in docs/energy.md too."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sdn import Neuron, ReducedSDN, SpikingLayer, Surrogate
from sdn.compiler.counting import derivative_operations, operations_of
from sdn.neuron import Fixed
from sdn.surrogate.seams import TAUS
from spikingssm.layers import (
    S4D,
    EachStep,
    LastStep,
    LeakyIntegrator,
    LeakyReadout,
    MeanOverTime,
    PairDecoder,
    Recurrent,
    Residual,
    ResonateAndFire,
    SpikingBlock,
    TiedDropout,
    TokenEncoder,
    Vocabulary,
)
from spikingssm.measures.circuit import INPUT, Circuit, as_circuit

__all__ = ["FORMS", "INPUT", "Operations", "driven", "not_counted", "operations"]

FORMS = ("recurrence", "fft")


@dataclass(frozen=True)
class Operations:
    """Numbers of operations: multiplications, additions (comparisons too), and functions (divisions, exp, sqrt)."""

    multiplications: float = 0.0
    additions: float = 0.0
    functions: float = 0.0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: float) -> "Operations":
        return Operations(*(times * n for n in vars(self).values()))


@dataclass(frozen=True)
class _Run:
    """How a network is run: its form, steps of one sequence, rates by layer, whether as its real-valued twin, and
    whether its linear maps are counted."""

    circuit: Circuit
    form: str
    length: float
    rates: Mapping[str, float]
    dense: bool
    maps: bool


def operations(
    model: nn.Module | Circuit,
    steps: float,
    rates: Mapping[str, float],
    form: str = "recurrence",
    *,
    sequences: int = 1,
    dense: bool = False,
    maps: bool = True,
) -> dict[str, Operations]:
    """All arithmetic of one sample by part: encoder, norm, ssm, neuron, mix, gate, residual, pool, decoder, other.

    Args:
        model: the network, in inference: norms over batches are constants, dropout is nothing. For several counts of
            one network, its `Circuit`.
        steps: of one sample, as its neurons see them: without padding, and in frames where it reads patches.
        rates: of each neuron layer, in [0, 1], as `SpikeRecord.rates` gives them; "input": events of the data per
            channel and step, where they are spikes (see `SpikeRecord.events`) and the model says what reads them.
        form: "recurrence": every state space layer and the exact neuron step by step, as in a stream. "fft": the
            convolution over whole sequences, and the neuron as its solver runs it (a surrogate: its SDN).
        sequences: that make up one sample, 2 for pairs.
        dense: of the real-valued twin instead: the same network whose linear maps read real numbers and which has no
            neuron, nor any activation in its place. What reads the data is the same in both.
        maps: False leaves out the products of all linear maps, and so whatever depends on the rates.

    Raises:
        ValueError: another form.
    """
    if form not in FORMS:
        raise ValueError(f"operations: form must be one of {', '.join(FORMS)}, got {form!r}.")
    circuit = as_circuit(model)
    run = _Run(circuit, form, steps / sequences, rates, dense, maps)
    found: dict[str, Operations] = defaultdict(Operations)
    for name, module in circuit.modules.items():
        rule, place = _rule(module), name.split(".")[0]
        if rule is None or id(module) in circuit.left_out:
            continue
        for part, count in rule(module, name, run).items():
            part = place if part == "other" and place in ("encoder", "decoder") else part
            found[part] += count * (1 if place == "decoder" and circuit.answers_once else steps)
    return dict(found)


def driven(model: nn.Module | Circuit) -> dict[str, tuple[str, ...]]:
    """The linear maps at which the spikes of each neuron layer arrive, by the names of both, see `Circuit`."""
    return as_circuit(model).driven


def not_counted(model: nn.Module | Circuit) -> list[str]:
    """Modules that no rule knows, as "name (Type)": what they compute is in no count, nor their spikes in the SOPs."""
    return [
        f"{name or 'model'} ({type(module).__name__})"
        for name, module in as_circuit(model).modules.items()
        if _is_unknown(module) or (isinstance(module, Neuron) and _update(module) is None)
    ]


def _rule(module: nn.Module) -> Callable[[Any, str, _Run], dict[str, Operations]] | None:
    return next((RULES[kind] for kind in type(module).__mro__ if kind in RULES), None)


def _is_unknown(module: nn.Module) -> bool:
    leaf = next(module.children(), None) is None
    own = next(module.parameters(recurse=False), None) is not None
    return _rule(module) is None and (leaf or own)


# ---- what a module computes in one step, by part
def _linear(layer: nn.Linear | LeakyReadout | LeakyIntegrator, name: str, run: _Run) -> dict[str, Operations]:
    if not run.maps:
        return {}
    (inputs, weights), sources = run.circuit.linear(name), run.circuit.drivers.get(name, ())
    if INPUT in sources and INPUT in run.rates:
        return {"encoder": Operations(additions=run.rates[INPUT] * weights)}
    if not sources or INPUT in sources:
        return {"encoder" if sources else "other": Operations(weights, weights)}
    if not run.dense:  # what passes a skip arrives one by one, so that no sum is formed there
        return {"mix": Operations(additions=sum(run.rates[source] for source in sources) * weights)}
    skip = {"residual": Operations(additions=inputs)} if len(sources) > 1 else {}
    return {"mix": Operations(weights, weights), **skip}


def _block(block: SpikingBlock, name: str, run: _Run) -> dict[str, Operations]:
    return {"gate": Operations(1, 1, 2) * (block.output.out_features // 2)}  # sigmoid: exp, an addition, a division


def _s4d(ssm: S4D, name: str, run: _Run) -> dict[str, Operations]:
    if run.form == "recurrence":
        modes = (2 if ssm.bidirectional else 1) * ssm.d_state // 2
        channel = Operations(8, 6) * modes  # A x + B u: 6 and 4, the real part of C x in the sum: 2 and 2
    else:  # two real transforms of 2 L numbers and the product of two spectra, over L steps
        channel = Operations(4, 6) * math.log2(2 * run.length) + Operations(4, 2)
    return {"ssm": (channel + Operations(1, 1)) * ssm.d_model}  # and D u


def _update(neuron: Neuron) -> Operations | None:
    """One step of the exact neuron: what its file says, else what its graph has; None where it has none."""
    known = neuron.dynamics.operations or operations_of(neuron.dynamics)
    return None if known is None else Operations(*known)


def _neuron(neuron: Neuron, name: str, run: _Run) -> dict[str, Operations]:
    if run.dense:
        return {}
    one = _update(neuron) or Operations()
    if run.form == "fft" and isinstance(neuron.solver, Surrogate):
        one = _surrogate(neuron, neuron.solver, one)
    return {"neuron": one * neuron.channels}


def _surrogate(neuron: Neuron, solver: Surrogate, one: Operations) -> Operations:
    """A step of the network and of what the exact neuron does beside it; ``one`` is a step of the neuron."""
    made_for, artifact = solver.stands_for(neuron.dynamics)
    weights = sum(p.numel() for key, p in artifact.network.named_parameters() if key.endswith("weight"))
    scaled = "threshold" in neuron.learned or made_for.threshold != neuron.dynamics.threshold
    if not isinstance(artifact.network, ReducedSDN):
        network, rounds = artifact.network, 3 if solver.rounds is None else solver.rounds
        follows = network.width > 0
        moved = Operations(*derivative_operations(neuron.dynamics, follows)) + one
        averages = Operations(1, 1) * (2 * len(TAUS))  # of current and spikes
        guess = moved + averages + Operations(weights, weights) * (1 / network.chunk)
        return guess + moved * (rounds - 1) + one
    width = artifact.network.d_model * artifact.network.n_layers  # two ReLUs and one sum each; input; comparison
    once = Operations(weights + (2 if scaled else 0), weights + 3 * width + 2)
    return once + one * solver.refine


def _resonator(neuron: ResonateAndFire, name: str, run: _Run) -> dict[str, Operations]:
    # factor x: 4 and 2; the gain is in the weights of the map before it, whose complex output is added
    state, turn = Operations(4, 4), Operations()
    if neuron.rotate:  # one part of V x
        block = neuron.channels // neuron.num_blocks
        turn = Operations(2 * block, 2 * block - 1)
    one = Operations(additions=1)  # comparison
    if neuron.magnitude:
        one += turn + Operations(2, 1, 1)
    if neuron.refractory is not None:
        one += Operations(1, 2)  # q: 1 and 1; threshold + q
    ssm = {"ssm": (state + turn) * neuron.channels}
    return ssm if run.dense else {**ssm, "neuron": one * neuron.channels}


def _readout(readout: LeakyReadout, name: str, run: _Run) -> dict[str, Operations]:
    leak = Operations(1, 2) * len(readout.tau)  # leak and input of the integrator, and the mean
    return {**_linear(readout, name, run), "pool": leak}


def _integrator(readout: LeakyIntegrator, name: str, run: _Run) -> dict[str, Operations]:
    leak = Operations(1, 1) * len(readout.tau)  # 1 - alpha is in the weights
    return {**_linear(readout, name, run), "pool": leak}


def _recurrent(layer: Recurrent, name: str, run: _Run) -> dict[str, Operations]:
    both = Operations(additions=layer.channels)  # what the two maps give; they are modules of their own
    return {"mix": both} if run.dense else {"mix": both, **_neuron(layer, name, run)}


def _residual(residual: Residual, name: str, run: _Run) -> dict[str, Operations]:
    width = next((part.channels for part in residual.modules() if isinstance(part, SpikingLayer)), 0)
    return {"residual": Operations(additions=width)}


def _layer_norm(norm: nn.LayerNorm, name: str, run: _Run) -> dict[str, Operations]:
    width = math.prod(norm.normalized_shape)
    return {"norm": Operations(3 * width + 2, 4 * width, 2)}  # mean, centre, variance, 1 / sqrt, scale, affine


def _batch_norm(norm: nn.BatchNorm1d, name: str, run: _Run) -> dict[str, Operations]:
    return {"norm": Operations(norm.num_features, norm.num_features)}


def _vocabulary(table: Vocabulary, name: str, run: _Run) -> dict[str, Operations]:
    return {"other": Operations(1, 1) * (table.d_model * table.vocab)} if run.maps else {}


def _pairs(head: PairDecoder, name: str, run: _Run) -> dict[str, Operations]:
    # a - b, a * b, and x / 2 (1 + erf(x / sqrt 2)); its maps are modules of their own
    return {"other": (Operations(1, 1) + Operations(2, 1, 1)) * head.inner.out_features}


def _mean(pool: MeanOverTime, name: str, run: _Run) -> dict[str, Operations]:
    return {"pool": Operations(additions=pool.d_model)}


def _nothing(module: nn.Module, name: str, run: _Run) -> dict[str, Operations]:
    return {}


RULES: dict[type[nn.Module], Callable[[Any, str, _Run], dict[str, Operations]]] = {
    SpikingBlock: _block, S4D: _s4d, Neuron: _neuron, Residual: _residual, nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm, nn.Linear: _linear, Vocabulary: _vocabulary, PairDecoder: _pairs,
    MeanOverTime: _mean, ResonateAndFire: _resonator, LeakyReadout: _readout,
    Recurrent: _recurrent, LeakyIntegrator: _integrator, Fixed: _nothing,
    # read from a table, passed on, or only there in training
    TokenEncoder: _nothing, nn.Embedding: _nothing, LastStep: _nothing, EachStep: _nothing, TiedDropout: _nothing,
    nn.Dropout: _nothing, nn.Identity: _nothing, nn.ParameterDict: _nothing, nn.ModuleList: _nothing,
}  # fmt: skip
"""A module's own arithmetic, without that of the modules in it; a new kind of layer gets a line here."""
