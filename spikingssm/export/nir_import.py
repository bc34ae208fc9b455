"""A graph of NIR as a network of ours: what snnTorch, norse, sinabs and we write."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdn import LIF, Dynamics, Neuron, Sequential
from spikingssm.export.needed import needed
from spikingssm.export.nir_graph import Node, chain
from spikingssm.export.nir_neurons import Clock, Part, cuba_of, dynamics_of, integrator_of
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.recurrent import Recurrent
from spikingssm.models.rsnn import RSNN

__all__ = ["from_nir"]

MAPS, NEURONS = ("Linear", "Affine"), ("LIF", "IF", "CubaLIF")
REFUSED = {
    "Delay": "no layer here delays; take the delays out, or run the parts around it one after the other",
    "Threshold": "it has no state and no gradient; use LIF",
    "Scale": "multiply the weights of the map behind it by the scale, and leave it out",
    "I": "an integrator without a leak grows without a bound; use LI",
    "CubaLI": "no integrator here has a synapse; put an LI of tau_syn before an LI of tau_mem",
    "Conv1d": "networks here take channels, not images; write the convolution as a Linear",
    "Conv2d": "networks here take channels, not images; write the convolution as a Linear",
    "SumPool2d": "networks here take channels, not images; write the pool as a Linear",
    "AvgPool2d": "networks here take channels, not images; write the pool as a Linear",
}
"""Nodes that are not read, and the way out."""


def from_nir(source: Any, dt: float = 1e-4, *, step: str = "euler", jump: bool = False) -> Sequential | RSNN:
    """A network of ours from a graph of NIR.

    Args:
        source: a ``nir.NIRGraph``, or a file. A Flatten changes nothing: x has one axis of channels.
        dt: length of a step, in the unit of the file's time constants. snnTorch writes for 1e-4, see docs/howto/nir.md.
        step: "euler": ``decay = 1 - dt / tau``. "exact": ``exp(-dt / tau)``, as sinabs computes.
        jump: an input adds R (in CubaLIF ``w_in``) at once, whatever dt is, as in sinabs without ``norm_input`` and in
            the LIFCell of norse. Else it adds ``R (1 - decay)``, as the equation says.

    Returns:
        an `RSNN` where the graph is one: layers with connections of their own, and an LI at the end. Else a
        `sdn.Sequential` with the names of the nodes: `torch.nn.Linear`, `sdn.Neuron`, `Recurrent` for a cycle and
        `LeakyIntegrator` for LI. Both give an output (B, L, C) and a state.

    Raises:
        NotImplementedError: nodes, fields and edges that cannot be read; the error lists all of them, and why.
        ValueError: a dt or a step that is none, or a file that holds no graph.
        FileNotFoundError: there is no such file.
        ImportError: the package ``nir`` is missing.

    Warns of another dt than a file of ours says, and of time constants above 10,000 steps.
    Gradients of spikes are those of the neurons here: NIR holds none.
    """
    (nir,) = needed("nir")
    clock = Clock(dt, step)
    graph = _read(nir, Path(source)) if isinstance(source, (str, Path)) else source
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f"from_nir: source must be a nir.NIRGraph or a file, got a {type(graph).__name__}.")
    _compare(getattr(graph, "metadata", None), clock)
    problems: list[str] = []
    found = _Reader(clock, jump, problems).read(chain(graph, problems))
    if not found and not problems:
        problems.append("the graph: there is nothing between its input and its output")
    if problems:
        raise NotImplementedError("\n- ".join(["nir: this graph cannot be read:", *problems]))
    return _network(found)


def _read(nir: Any, path: Path) -> Any:
    """The graph in a file."""
    if not path.is_file():
        raise FileNotFoundError(f"from_nir: there is no file {path}.")
    try:
        return nir.read(str(path), type_check=False)
    except Exception as error:  # of h5py or nir, of many kinds
        raise ValueError(
            f"from_nir: {path} cannot be read as a NIR graph ({type(error).__name__}: {error})."
        ) from error


def _compare(said: Any, clock: Clock) -> None:
    """Warn of a file that says another dt; what it says is not used, since metadata must not matter."""
    for name, mine in (("dt", clock.dt), ("step", clock.step)):
        theirs = said.get(name, mine) if isinstance(said, dict) else mine
        if theirs != mine:
            warnings.warn(
                f"from_nir: the file was written with {name}={theirs}, and is read with {mine}.", stacklevel=3
            )


class _Reader:
    """Nodes of a chain as parts, with the size of what arrives at each."""

    def __init__(self, clock: Clock, jump: bool, problems: list[str]) -> None:
        self.clock, self.jump, self.problems = clock, jump, problems
        self.size: int | None = None
        self.shape = np.zeros(0, int)

    def read(self, nodes: list[Node]) -> list[tuple[Part, tuple[Tensor, Tensor | None] | None]]:
        """Parts, each with the map of its cycle or None."""
        made = []
        for each in nodes:
            part = self._part(each)
            if part is not None:
                within = None if each.cycle is None else self._map(each.cycle, part.size)
                made.append((part, within))
        return made

    def _part(self, each: Node) -> Part | None:
        if each.kind == "Input":
            self.shape = np.atleast_1d(np.asarray(each.node.input_type["input"]))
            self.size = int(self.shape[0]) if len(self.shape) == 1 else None  # peers write a batch there too
        elif each.kind == "Flatten":  # of what is flat here: x is given with one axis of channels
            self.size = int(self.shape.prod()) if self.size is None and self.shape.size else self.size
        elif each.kind in MAPS:
            if (found := self._map(each, None)) is not None:
                self.size = len(found[0])
                return Part("map", each.name, self.size, found)
            self.size = None
        elif each.kind in NEURONS or each.kind == "LI":
            return self._states(each)
        elif each.kind != "Output":
            self.problems.append(f"{each.name}: {each.kind} is not read: {REFUSED.get(each.kind, 'it is not known')}")
        return None

    def _states(self, each: Node) -> Part | None:
        n = self.size = np.asarray(each.node.r).size if self.size is None else self.size
        if each.kind == "LI":
            value: Any = integrator_of(each.node, self.clock, n, self.jump, self._told(each))
        else:
            read = cuba_of if each.kind == "CubaLIF" else dynamics_of
            value = read(each.node, self.clock, n, self.jump, self._told(each))
        kind = "integrator" if each.kind == "LI" else "neuron"
        return None if value is None else Part(kind, each.name, n, value)

    def _map(self, each: Node, wanted: int | None) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias; of a cycle (n, n)."""
        weight, bias = _tensor(each.node.weight), getattr(each.node, "bias", None)
        told, into = self._told(each), self.size if wanted is None else wanted
        if weight.ndim != 2:
            told("weight", f"has shape {tuple(weight.shape)}; a map here has two axes")
        elif into is not None and weight.shape[1] != into:
            told("weight", f"has shape {tuple(weight.shape)}, and {into} values arrive at the node")
        elif wanted is not None and weight.shape[0] != wanted:
            told("weight", f"has shape {tuple(weight.shape)}, and it feeds {wanted} neurons")
        elif not weight.isfinite().all() or (bias is not None and not _tensor(bias).isfinite().all()):
            told("weight or bias", "holds NaN or infinity")
        elif bias is not None and _tensor(bias).numel() != len(weight):
            told("bias", f"has shape {tuple(_tensor(bias).shape)}, the weight {tuple(weight.shape)}")
        else:
            return weight, None if bias is None else _tensor(bias).reshape(-1)
        return None

    def _told(self, each: Node) -> Callable[[str, str], None]:
        return lambda field, why: self.problems.append(f"{each.name} ({each.kind}): {field} {why}")


def _tensor(values: Any) -> Tensor:
    found = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    return found.to(torch.get_default_dtype())


Parts = list[tuple[Part, tuple[Tensor, Tensor | None] | None]]


def _network(parts: Parts) -> Sequential | RSNN:
    """Modules, where a map and what reads it are one."""
    made: OrderedDict[str, nn.Module] = OrderedDict()
    waiting: Part | None = None
    for part, within in parts:
        before, waiting = waiting, None
        joins = part.kind == "integrator" or within is not None
        if before is not None and not joins:
            made[_name(before, made)] = _linear(*before.value)
        weight, bias = before.value if before is not None and joins else (torch.eye(part.size), None)
        if part.kind == "map":
            waiting = part
        elif part.kind == "integrator":
            made[_name(part, made)] = _integrator(part, weight, bias)
        elif within is None:
            made[_name(part, made)] = Neuron(part.value, part.size)
        else:
            made[_name(part, made)] = _recurrent(part, weight, bias, *within)
    if waiting is not None:
        made[_name(waiting, made)] = _linear(*waiting.value)
    *layers, last = made.values()
    if layers and isinstance(last, LeakyIntegrator) and all(isinstance(each, Recurrent) for each in layers):
        return _rsnn(layers, last)  # type: ignore[arg-type]
    return Sequential(made)


def _name(part: Part, taken: OrderedDict[str, nn.Module]) -> str:
    """The name of a node as that of a module, which has no dots and is no method."""
    name = part.name.replace(".", "_") or "node"
    while name in taken or hasattr(Sequential, name):
        name += "_"
    return name


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], len(weight), bias is not None)
    _fill(made, weight, bias)
    return made


@torch.no_grad()
def _fill(made: Any, weight: Tensor, bias: Tensor | None) -> None:
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(bias)


@torch.no_grad()
def _recurrent(part: Part, weight: Tensor, bias: Tensor | None, inner: Tensor, inner_bias: Tensor | None) -> Recurrent:
    if inner_bias is not None and inner_bias.any():  # which is added in every step, as that of the input is
        bias = inner_bias if bias is None else bias + inner_bias
    dynamics: Dynamics = part.value
    made = Recurrent(weight.shape[1], dynamics, part.size, bias=bias is not None)
    _fill(made.input, weight, bias)
    made.recurrent.weight.copy_(inner)
    return made


@torch.no_grad()
def _integrator(part: Part, weight: Tensor, bias: Tensor | None) -> LeakyIntegrator:
    rate, scale = part.value
    if (scale != 1).any():
        factor = torch.from_numpy(scale).to(weight)
        weight, bias = factor[:, None] * weight, None if bias is None else factor * bias
    made = LeakyIntegrator(weight.shape[1], part.size, bias=bias is not None)
    made.tau.copy_(torch.from_numpy(-1 / np.log1p(-rate)))
    _fill(made, weight, bias)
    return made


def _rsnn(layers: list[Recurrent], readout: LeakyIntegrator) -> RSNN:
    sizes = [each.channels for each in layers]
    made = RSNN(layers[0].d_input, len(readout.tau), sizes, dynamics=LIF(), start="published")
    made.layers = nn.ModuleList(layers)  # type: ignore[assignment]  # whose types leave out what it holds
    made.readout = readout
    return made
