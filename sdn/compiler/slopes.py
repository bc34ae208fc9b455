"""A spike gradient as a graph: its slope over the distance to the threshold."""

import functools
from dataclasses import dataclass
from typing import Any

import torch

from sdn.checks.arguments import ArgumentError, init_fields
from sdn.compiler.graph import Builder, Node, dependencies, leaves, ordered, rewritten
from sdn.compiler.neuron import evaluate
from sdn.compiler.tape import Refused, Tape
from sdn.gradients import SpikeGradient

__all__ = ["Slope", "numbers_of", "trace_slope"]


@dataclass(frozen=True, eq=False)
class Slope:
    """The slope of a spike gradient over the leaves ``distance`` and its numbers."""

    name: str
    builder: Builder
    numbers: dict[str, Node]
    """Leaf and expression, over the fields of the spike gradient."""
    slope: Node


def trace_slope(gradient: SpikeGradient) -> Slope:
    """Record the slope of a spike gradient.

    The fields of those of `sdn` are numbers of the kernel, so that another width is no other kernel. In one of your own
    all numbers are part of it.

    Raises:
        Refused: an operation that is not elementwise, or a branch on data; with its line.
    """
    kind = type(gradient)
    if not kind.__module__.startswith("sdn."):
        return _trace(gradient, ())
    options = {n: v for n in init_fields(gradient) if isinstance(v := getattr(gradient, n), bool)}
    return _ours(kind, tuple(options.items()))


def numbers_of(slope: Slope, gradient: SpikeGradient) -> list[float]:
    """The numbers that a kernel takes for a spike gradient."""
    values = {name: getattr(gradient, name) for name in {leaf.name for leaf in leaves(slope.numbers.values())}}
    return [float(value) for value in evaluate([*slope.numbers.values()], values)]


@functools.cache
def _ours(kind: Any, options: tuple[tuple[str, bool], ...]) -> Slope:
    gradient = kind(**dict(options))
    return _trace(gradient, tuple(name for name in init_fields(gradient) if name not in dict(options)))


def _trace(gradient: Any, fields: tuple[str, ...]) -> Slope:
    kind = type(gradient)
    builder = Builder()
    tape = Tape(builder, kind.__name__)
    with torch.no_grad(), torch.device("cpu"):
        values = {n: torch.tensor(float(getattr(gradient, n)), dtype=torch.float64) for n in fields}
        if fields:
            symbolic = object.__new__(kind)
            symbolic.__dict__.update(gradient.__dict__ | values)
            gradient = symbolic
        like = torch.full((1, 2), 0.5, dtype=torch.float64)
        with tape:
            for name, value in values.items():
                tape.given(value, builder.leaf(name))
            out = gradient.slope(tape.given(like.clone(), builder.leaf("distance")))
        if not isinstance(out, torch.Tensor):
            raise ArgumentError(f"{kind.__name__}.slope must return a tensor, got {type(out).__name__}.")
        if out.shape != like.shape and out.numel() != 1:
            raise Refused(f"{kind.__name__}.slope makes shape {tuple(out.shape)} of {tuple(like.shape)}")
        root = tape.real(tape.node(out))
    if tape.constants:
        raise Refused(f"{kind.__name__} uses a tensor of several numbers")
    return _split(kind.__name__, builder, root, frozenset(fields))


def _split(name: str, builder: Builder, root: Node, fields: frozenset[str]) -> Slope:
    """Take out what depends on fields alone; a quotient by it becomes a product, which is faster."""
    root = _without_quotients(builder, root, fields)
    depends = dependencies([root])
    numbers: dict[str, Node] = {}
    known: dict[int, Node] = {}
    for node in ordered([root]):
        if depends[id(node)] <= fields:
            continue
        for arg in node.args:
            if depends[id(arg)] and depends[id(arg)] <= fields and id(arg) not in known:
                known[id(arg)] = builder.leaf(f"n{len(numbers)}")
                numbers[f"n{len(numbers)}"] = arg
    return Slope(name, builder, numbers, rewritten(builder, [root], known)[0])


def _without_quotients(builder: Builder, root: Node, fields: frozenset[str]) -> Node:
    depends, found = dependencies([root]), dict[int, Node]()
    for node in ordered([root]):
        args = tuple(found[id(arg)] for arg in node.args)
        by_fields = node.op == "div" and depends[id(node.args[1])] <= fields
        if by_fields and not depends[id(node)] <= fields:
            found[id(node)] = builder.make("mul", args[0], builder.make("reciprocal", args[1]))
        else:
            found[id(node)] = builder.make(node.op, *args, kind=node.kind) if args else node
    return found[id(root)]
