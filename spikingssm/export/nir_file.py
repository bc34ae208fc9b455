"""A network of leaky integrate-and-fire neurons as a graph of NIR, with test vectors and a contract beside it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn

from sdn import Neuron
from sdn.runs.files import writing
from spikingssm.export.beside import say, write_contract
from spikingssm.export.contract import contract
from spikingssm.export.needed import needed
from spikingssm.export.nir_import import from_nir
from spikingssm.export.nir_neurons import Clock, node_of, step_of
from spikingssm.export.subject import Subject, Vectors, by_steps, compared, vectors
from spikingssm.layers.block import TiedDropout
from spikingssm.layers.heads import EachStep, LastStep, MeanOverTime, as_pool
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.maps import weight_of
from spikingssm.layers.recurrent import Recurrent
from spikingssm.models.base import pool_of
from spikingssm.models.rsnn import RSNN
from spikingssm.streaming.tensors import TensorStep

__all__ = ["READERS", "export_nir", "to_nir"]

Array = np.ndarray[Any, Any]
READERS: dict[str, dict[str, Any]] = {
    "snntorch": {"dt": 1e-4, "nested": True},
    "norse": {"dt": 1e-3, "unit_r": True},
    "sinabs": {"dt": 1.0, "step": "exact", "affine": True},
}
"""Options of `to_nir` for what a library expects: ``to_nir(network, **READERS["norse"])``."""
PASSED = (nn.Identity, nn.Dropout, TiedDropout)
"""Modules that do nothing where a network is evaluated."""
REASONS = {
    "S4D": "its states are complex modes; NIR has neither complex numbers nor a state-space node",
    "S5": "its states are complex modes; NIR has neither complex numbers nor a state-space node",
    "LayerNorm": "NIR has no norm",
    "BatchNorm1d": "NIR has no norm; with its running statistics it is a Linear, if you fold it",
    "MaskedBatchNorm": "NIR has no norm",
    "SpikingBlock": "NIR has no product of two signals, which a gated linear unit is",
    "Residual": "NIR has no sum beside a norm, and the stream is not of spikes",
    "MeanOverTime": "NIR has no pool over time; average the answers of the steps outside",
    "LastStep": "NIR has no pool over time; take the answer of the last step outside",
    "LeakyReadout": "its answer is a mean over time, for which NIR has no node",
    "TokenEncoder": "NIR has no tokens and no table of vectors",
    "Vocabulary": "NIR has no tokens and no table of vectors",
    "Embedding": "NIR has no tokens and no table of vectors",
    "Frames": "NIR cannot join steps to frames",
    "GELU": "NIR has no such function",
    "GLU": "NIR has no product of two signals",
}
"""What NIR has not, by the name of a class."""
POOLS: dict[type[nn.Module], str] = {
    EachStep: "the answer of every step is an answer of the network",
    LastStep: "the network answers with the last step: take the answer of the last valid step outside the graph",
    MeanOverTime: "the network answers with the mean: average the answers of all valid steps outside the graph",
}
MAPPING = {
    "lif": "tau dv/dt = (v_leak - v) + r I; a spike where v > v_threshold, then v = v_reset at once",
    "euler": "decay = 1 - dt / tau, what r I adds in a step: r dt / tau",
    "exact": "decay = exp(-dt / tau), what r I adds in a step: r (1 - decay)",
    "gain": "r = 1 / (1 - decay), so that one unit of input adds 1",
    "unit_r": "r = 1; v_threshold and v_reset are those of a membrane times 1 - decay",
    "comparison": "ours fires at the threshold and above, a node of NIR above it: v_threshold is the float32 number "
    "below our threshold, which is the same in float32",
    "recurrence": "a cycle; it brings the spikes of the step before",
    "li": "r = 1: an input adds 1 - decay times itself",
}


def to_nir(
    module: nn.Module,
    dt: float = 1e-4,
    *,
    step: str = "euler",
    unit_r: bool = False,
    affine: bool = False,
    nested: bool = False,
) -> Any:
    """A network as a ``nir.NIRGraph``.

    Args:
        module: an `RSNN`, or a `sdn.Sequential` of `torch.nn.Linear`, `sdn.Neuron`, `Recurrent` and `LeakyIntegrator`.
            Neurons are `sdn.LIF` with a hard reset, or what `from_nir` gives. A pool of an RSNN is left out.
        dt: length of a step, in the unit that time constants shall have. 1e-4 is what snnTorch expects, in seconds.
        step: "euler": ``decay = 1 - dt / tau``, as snnTorch and norse read. "exact": ``exp(-dt / tau)``, as sinabs.
        unit_r: write R = 1 and scaled thresholds, for readers that do not look at R, such as norse.
        affine: write Affine with a bias of 0 where there is none, for readers without Linear, such as sinabs.
        nested: write neurons with connections of their own as a graph in the graph, as snnTorch needs it.

    Returns:
        the graph. Parameters are arrays (n,); weights and thresholds are float32, time constants and R float64.

    Raises:
        NotImplementedError: parts that NIR cannot hold; the error lists all of them, and why.
        ValueError: a dt or a step that is none.
        ImportError: the package ``nir`` is missing.
    """
    (nir,) = needed("nir")
    graph = _Graph(nir, Clock(dt, step), unit_r, affine, nested)
    if problems := [
        f"{name or 'the network'} ({type(part).__name__}): {why}" for name, part, why in graph.misfits(module)
    ]:
        raise NotImplementedError("\n- ".join(["nir: this network cannot be written:", *problems]))
    graph.add(module, "")
    return graph.made()


class _Graph:
    """Nodes and edges, one after the other."""

    def __init__(self, nir: Any, clock: Clock, unit_r: bool, affine: bool, nested: bool) -> None:
        self.nir, self.clock, self.unit_r, self.affine, self.nested = nir, clock, unit_r, affine, nested
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.last = "input"

    def misfits(self, module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module, str]]:
        """All parts that do not fit, with the reason."""
        if isinstance(module, Neuron) and type(module) in (Neuron, Recurrent):
            if isinstance(found := step_of(module.current_dynamics(), self.clock), str):
                yield name, module, found
            return
        if isinstance(module, (nn.Linear, LeakyIntegrator, *PASSED)):
            return
        children = [(f"{name}.{key}" if name else key, part) for key, part in module.named_children()]
        known = [REASONS[base.__name__] for base in type(module).__mro__ if base.__name__ in REASONS]
        if isinstance(module, RSNN) and not name:  # whose pool is left to the reader
            children = [(key, part) for key, part in children if key != "pool"]
        elif known or not isinstance(module, (RSNN, nn.Sequential, nn.ModuleList, EachStep)):
            why = "only an RSNN and a Sequential say in which order their parts run"
            yield name, module, known[0] if known else why if children else "NIR has no node for it"
        for key, part in children:
            yield from self.misfits(part, key)

    def add(self, module: nn.Module, name: str) -> None:
        """A module and all that is in it."""
        if isinstance(module, RSNN):
            for i, layer in enumerate(module.layers):
                self.add(layer, _joined(name, f"layers_{i}"))
            self.add(module.readout, _joined(name, "readout"))
        elif isinstance(module, nn.Sequential):
            for key, part in module._modules.items():
                assert part is not None
                self.add(part, _joined(name, key))
        elif isinstance(module, Recurrent):
            self._next(f"{name}.w_in", self._map(weight_of(module.input), module.input.bias))
            self._cycle(name, self._neurons(module), self._map(module.weight[:, module.d_input :], None))
        elif isinstance(module, LeakyIntegrator):
            self._next(f"{name}.w_in", self._map(module.weight, module.bias))
            rate = -np.expm1(-1 / np.abs(module.tau.detach().cpu().double().numpy()))
            levels = {"r": np.ones(len(rate)), "v_leak": np.zeros(len(rate), np.float32)}
            self._next(f"{name}.li", self.nir.LI(tau=self.clock.tau(rate), **levels, metadata=self._said()))
        elif isinstance(module, Neuron):
            self._next(name, self._neurons(module))
        elif isinstance(module, nn.Linear):
            self._next(name, self._map(weight_of(module), module.bias))

    def _neurons(self, module: Neuron) -> Any:
        step = step_of(module.current_dynamics(), self.clock)
        assert not isinstance(step, str)  # misfits were refused
        return node_of(step, self.clock, module.channels, self.unit_r, self.nir, self._said())

    def _map(self, weight: Tensor, bias: Tensor | None) -> Any:
        if bias is None and self.affine:
            bias = torch.zeros(len(weight))
        return self.nir.Linear(_array(weight)) if bias is None else self.nir.Affine(_array(weight), _array(bias))

    def _cycle(self, name: str, neurons: Any, inner: Any) -> None:
        """Neurons and what they say to each other: two nodes, or a graph of its own. The edges in are the last ones."""
        if not self.nested:
            self._next(f"{name}.lif", neurons)
            self.nodes[f"{name}.w_rec"] = inner
            self.edges += [(f"{name}.lif", f"{name}.w_rec"), (f"{name}.w_rec", f"{name}.lif")]
            return
        ends = self.nir.Input(neurons.input_type), self.nir.Output(neurons.output_type)
        nodes = {"input": ends[0], "lif": neurons, "w_rec": inner, "output": ends[1]}
        edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        self._next(name, self.nir.NIRGraph(nodes, edges))

    def _next(self, name: str, node: Any) -> None:
        if self.nested and name != "output":  # which snnTorch reads in the order of their names
            name = f"n{len(self.nodes):03}_{name}"
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name

    def _said(self) -> dict[str, Any]:
        return {"dt": self.clock.dt, "step": self.clock.step}

    def made(self) -> Any:
        """The graph, checked by nir."""
        if not self.nodes:
            raise NotImplementedError("nir: nothing in this network can be written; it needs a Linear or neurons.")
        first, last = next(iter(self.nodes.values())).input_type, self.nodes[self.last].output_type
        self.nodes = {"input": self.nir.Input({"input": np.asarray(next(iter(first.values())))}), **self.nodes}
        self._next("output", self.nir.Output({"output": np.asarray(next(iter(last.values())))}))
        said = {**self._said(), "unit_r": int(self.unit_r), **MAPPING}
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=said)


def _joined(name: str, key: str) -> str:
    """A name that readers, who make attributes of it, take as a Python name."""
    return f"{name}_{key}" if name else f"part_{key}" if key[:1].isdigit() else key


def _array(values: Tensor) -> Array:
    found: Array = values.detach().cpu().numpy().astype(np.float32)
    return found


def export_nir(what: Subject, out: Path, steps: int, seed: int, check: bool, reader: str | None = None) -> Path:
    """Write NAME.nir, its contract NAME.nir.json and test vectors NAME.vectors.h5, and read the file again.

    Args:
        what: an RSNN; other networks are refused, with the list of what does not fit.
        out: folder; it is made.
        steps: of the test vectors.
        seed: of the test vectors.
        check: read the file, make a network of it and compare every step.
        reader: whose conventions to write, a key of `READERS`; None writes what any reader of the equations can read.

    Raises:
        NotImplementedError: parts that NIR cannot hold; the error lists all of them.
        ValueError: an unknown reader.
        ImportError: the package ``nir`` is missing.
    """
    if reader is not None and reader not in READERS:
        raise ValueError(f"nir: reader must be one of {', '.join(READERS)}, got {reader!r}.")
    (nir,) = needed("nir")
    options = {"dt": 1e-4, "step": "euler", **(READERS[reader] if reader else {})}
    graph = to_nir(what.exact, **options)
    pool: Any = pool_of(what.model)
    each = _at_each_step(what)
    known = vectors(each, steps, seed)
    path, beside = out / f"{what.name}.nir", out / f"{what.name}.vectors.h5"
    with writing(path) as partial:
        nir.write(str(partial), graph)
    with writing(beside) as partial:
        nir.write_data(str(partial), _data(known, graph, options["dt"], nir))
    told = contract(each, each.plan, path, known, beside)
    told["output"]["meaning"] = f"potentials of this step; {POOLS[type(pool)]}"
    told["vectors"]["layout"] = "nir.read_data; TimeGriddedData (1, steps, n): input, spikes, potentials of each step"
    told["nir"] = {"version": nir.__version__, "reader": reader, **options, "mapping": MAPPING}
    unchecked = {"checked": False, "why": "was not asked for"}
    told["agreement"] = _agreement(path, known, options, nir) if check else unchecked
    write_contract(told, path)
    say(path, told)
    if not isinstance(pool, EachStep):
        logger.warning(f"{path.name} holds no pool: {POOLS[type(pool)]}.")
    return path


def _at_each_step(what: Subject) -> Subject:
    """The same network, sharing its weights, with the potentials of every step as its answer."""
    model: Any = copy.copy(what.exact)
    model._modules = {**model._modules, "pool": as_pool("each", what.plan.d_output)}
    return Subject(what.name, model, model.plan(), what.trained)


def _data(known: Vectors, graph: Any, dt: float, nir: Any) -> Any:
    """Test vectors as nir keeps them: what the input brings, spikes of neurons, potentials of the output.

    On the grid of time: `nir.EventData` divides its times by dt when it is read, and 68 of 1000 steps of 1e-4 move.
    """
    found = {"input": {"input": known.x.astype(np.float32)}, "output": {"output": known.answers.logits}}
    spiking = [
        name for name, node in graph.nodes.items() if type(node).__name__ in ("LIF", "IF", "CubaLIF", "NIRGraph")
    ]
    for name, spikes in zip(spiking, known.answers.spikes.values(), strict=True):
        found[name] = {"spikes": spikes.astype(bool)}
    data = nir.NIRGraphData(
        {
            name: nir.NIRNodeData({what: nir.TimeGriddedData(values[None], dt) for what, values in each.items()})
            for name, each in found.items()
        }
    )
    data.check_nodes(graph)
    return data


def _agreement(path: Path, known: Vectors, options: dict[str, Any], nir: Any) -> dict[str, Any]:
    """What the file answers when it is read again as a network of ours."""
    read = from_nir(path, options["dt"], step=options["step"])
    assert isinstance(read, RSNN)  # as only an RSNN has a plan and was written
    found = by_steps(TensorStep(read.plan()), known.x)
    return {"checked": True, "by": f"nir {nir.__version__}, from_nir", **compared(known.answers, found)}
