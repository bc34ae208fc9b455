"""The arithmetic of a network, counted module by module; every rule stands in docs/energy.md too."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sdn import ALIF, BRF, HRF, LIF, RF, Dynamics, IzhikevichRF, Neuron, SpikingLayer, Surrogate
from sdn.neuron import Fixed
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
from spikingssm.models.base import answers_of, synapses_of

__all__ = ["FORMS", "INPUT", "Operations", "connections", "driven", "not_counted", "operations"]

FORMS = ("recurrence", "fft")
INPUT = "input"
"""How a model's ``synapses`` calls its input, see `driven`."""


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
    """How a network is run: its form, steps of one sequence, rates by layer, whether as its real-valued twin, what
    drives each linear map, and the connections of those that are cut."""

    form: str
    length: float
    rates: Mapping[str, float]
    dense: bool
    drivers: Mapping[str, tuple[str, ...]]
    connections: Mapping[str, int]


def operations(
    model: nn.Module,
    steps: float,
    rates: Mapping[str, float],
    form: str = "recurrence",
    *,
    sequences: int = 1,
    dense: bool = False,
) -> dict[str, Operations]:
    """All arithmetic of one sample by part: encoder, norm, ssm, neuron, mix, gate, residual, pool, decoder, other.

    Args:
        model: the network, in inference: norms over batches are constants, dropout is nothing.
        steps: of one sample, as its neurons see them: without padding, and in frames where it reads patches.
        rates: of each neuron layer, in [0, 1], as `SpikeRecord.rates` gives them; "input": events of the data per
            channel and step, where they are spikes (see `SpikeRecord.events`) and the model says what reads them.
        form: "recurrence": every state space layer and the exact neuron step by step, as in a stream. "fft": the
            convolution over whole sequences, and the neuron as its solver runs it (a surrogate: its SDN).
        sequences: that make up one sample, 2 for pairs.
        dense: of the real-valued twin instead: the same network whose linear maps read real numbers and which has no
            neuron, nor any activation in its place. What reads the data is the same in both.

    Raises:
        ValueError: another form.
    """
    if form not in FORMS:
        raise ValueError(f"operations: form must be one of {', '.join(FORMS)}, got {form!r}.")
    run = _Run(form, steps / sequences, rates, dense, _drivers(model), _cut(model))
    found: dict[str, Operations] = defaultdict(Operations)
    once = answers_of(model) != "step"  # the decoder then runs once a sample
    left_out = _left_out(model)
    for name, module in model.named_modules():
        rule, place = _rule(module), name.split(".")[0]
        if rule is None or id(module) in left_out:
            continue
        for part, count in rule(module, name, run).items():
            part = place if part == "other" and place in ("encoder", "decoder") else part
            found[part] += count * (1 if place == "decoder" and once else steps)
    return dict(found)


def driven(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The linear maps at which the spikes of each neuron layer arrive, by the names of both.

    Found by asking every module that has a method ``synapses``, which gives just this with names inside that module. A
    spike that passes a skip arrives at each map behind it. A map is a module with ``weight`` (outputs, inputs). The
    whole model can say too what reads its data: the maps of "input".
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for source, maps in synapses_of(module).items():
            if source != INPUT or not prefix:
                found[prefix + source] = tuple(prefix + target for target in maps)
    return found


def connections(model: nn.Module, name: str) -> int:
    """How many weights a linear map has, those that a mask cuts left out."""
    weight = model.get_submodule(name).weight
    return _cut(model).get(name, weight.numel())  # type: ignore[operator, union-attr]


def _cut(model: nn.Module) -> dict[str, int]:
    """Connections of the recurrent maps that have a mask."""
    layers = {name: part.mask for name, part in model.named_modules() if isinstance(part, Recurrent)}
    return {f"{name}.recurrent".lstrip("."): int(mask.sum()) for name, mask in layers.items() if mask is not None}


def not_counted(model: nn.Module) -> list[str]:
    """Modules that no rule knows, as "name (Type)": what they compute is in no count, nor their spikes in the SOPs."""
    return [
        f"{name or 'model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if _is_unknown(module) or (isinstance(module, Neuron) and _update(module) is None)
    ]


def _rule(module: nn.Module) -> Callable[[Any, str, _Run], dict[str, Operations]] | None:
    return next((RULES[kind] for kind in type(module).__mro__ if kind in RULES), None)


def _is_unknown(module: nn.Module) -> bool:
    leaf = next(module.children(), None) is None
    own = next(module.parameters(recurse=False), None) is not None
    return _rule(module) is None and (leaf or own)


def _drivers(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """`driven` the other way round: what arrives at each map."""
    found: dict[str, tuple[str, ...]] = {}
    for source, maps in driven(model).items():
        for target in maps:
            found[target] = (*found.get(target, ()), source)
    return found


def _left_out(model: nn.Module) -> set[int]:
    """Modules whose result goes nowhere."""
    return {id(part.norm) for part in model.modules() if isinstance(part, Residual) and part.norm_as_published}


# ---- what a module computes in one step, by part
def _linear(layer: nn.Linear | LeakyReadout | LeakyIntegrator, name: str, run: _Run) -> dict[str, Operations]:
    outputs, inputs = layer.weight.shape
    weights, sources = run.connections.get(name, inputs * outputs), run.drivers.get(name, ())
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


UPDATES: dict[type[Dynamics], Operations] = {
    LIF: Operations(1, 3),  # decay u; input, comparison, reset
    ALIF: Operations(4, 5),  # a: 1 and 1, theta: 1 and 1, h: 2 and 1; comparison, reset
    RF: Operations(5, 4),  # u: 3 and 2, v: 2 and 1; comparison
    HRF: Operations(6, 8),  # b: 0 and 1, v: 1 and 1, u: 4 and 3, q: 1 and 1; threshold + q, comparison
    IzhikevichRF: Operations(5, 4),  # as RF
    BRF: Operations(7, 9),  # b: 0 and 1, u: 3 and 3, v: 3 and 2, q: 1 and 1; threshold + q, comparison
}
"""One step of one exact neuron; what its parameters alone decide is computed before."""


def _update(neuron: Neuron) -> Operations | None:
    if type(neuron.dynamics) is LIF and neuron.dynamics.reset == "none":
        return Operations(1, 2)
    return UPDATES.get(type(neuron.dynamics))


def _neuron(neuron: Neuron, name: str, run: _Run) -> dict[str, Operations]:
    if run.dense:
        return {}
    one = _update(neuron) or Operations()
    if run.form == "fft" and isinstance(neuron.solver, Surrogate):
        made_for, artifact = neuron.solver.stands_for(neuron.dynamics)
        weights = sum(p.numel() for key, p in artifact.network.named_parameters() if key.endswith("weight"))
        width = artifact.network.d_model * artifact.network.n_layers  # two ReLUs and one sum each; input; comparison
        scaled = "threshold" in neuron.learned or made_for.threshold != neuron.dynamics.threshold
        once = Operations(weights + (2 if scaled else 0), weights + 3 * width + 2)
        one = once + one * neuron.solver.refine
    return {"neuron": one * neuron.channels}


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
    return {"other": Operations(1, 1) * (table.d_model * table.vocab)}


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
