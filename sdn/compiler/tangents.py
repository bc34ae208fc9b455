"""The derivative of a step in forward mode: how a small change of the state moves the state after the step."""

from dataclasses import dataclass

from sdn.compiler.graph import Builder, Node, rewritten
from sdn.compiler.neuron import WATCH, Derivative, Step

__all__ = ["Tangents", "leaf_of", "moves", "tangents"]


@dataclass(frozen=True, eq=False)
class Tangents:
    """What a step does to small changes, as nodes over the leaves of the step."""

    states: tuple[tuple[Node, ...], ...]
    """Derivative of each state after the step by each before it, the spike held: (D, D)."""
    spike: tuple[Node, ...]
    """Derivative of each state after the step by the spike: (D,)."""
    distance: tuple[Node, ...]
    """Derivative of the distance to the threshold by each state: (D,)."""


def leaf_of(row: int, column: int) -> str:
    """The leaf of an entry of the derivative before the step."""
    return f"m{row}_{column}"


def tangents(step: Step, back: Derivative) -> Tangents:
    """The derivative of a step, out of its backward pass: that is linear in the gradients that it is given."""
    builder = step.builder
    own = [name for name in step.states if name != WATCH]
    given = ["slope", *(f"after_{name}" for name in own)]
    zero, one = builder.constant(0.0), builder.constant(1.0)

    def only(name: str) -> dict[int, Node]:
        return {id(builder.leaf(other)): one if other == name else zero for other in given}

    rows = [tuple(rewritten(builder, back.states, only(name))) for name in given]
    through = tuple(rewritten(builder, [back.reset], only(name))[0] for name in given[1:])
    return Tangents(tuple(rows[1:]), through, rows[0])


def moves(step: Step, found: Tangents, follows: bool) -> tuple[tuple[Node, ...], ...]:
    """One step of the derivative of a state by that at some earlier step.

    Args:
        step: the neuron.
        found: its derivative.
        follows: whether the spike follows the distance, with the leaf ``slope``; else it is held.

    Returns:
        (D, D) nodes over the leaves of the step and `leaf_of`, the derivative before it; 0 where it always stays 0.
    """
    builder, size = step.builder, len(found.states)
    zero = builder.constant(0.0)
    before = [[builder.leaf(leaf_of(i, d)) if _is_filled(found, i, d, follows) else zero for d in range(size)]
              for i in range(size)]  # fmt: skip
    columns = []
    for d in range(size):
        column = [before[k][d] for k in range(size)]
        after = [_product(builder, row, column) for row in found.states]
        if follows:
            spike = builder.make("mul", builder.leaf("slope"), _product(builder, found.distance, column))
            after = [
                builder.make("add", state, builder.make("mul", by, spike))
                for state, by in zip(after, found.spike, strict=True)
            ]
        columns.append(after)
    return tuple(zip(*columns, strict=True))


def _product(builder: Builder, row: tuple[Node, ...], column: list[Node]) -> Node:
    total = builder.constant(0.0)
    for factor, term in zip(row, column, strict=True):
        total = builder.make("add", total, builder.make("mul", factor, term))
    return total


def _is_filled(found: Tangents, row: int, column: int, follows: bool) -> bool:
    """Whether an entry can ever be another number than 0, from the identity on."""
    size = range(len(found.states))
    near = [{k for k in size if not _is_zero(found.states[i][k])} for i in size]
    if follows:
        moved = {k for k in size if not _is_zero(found.distance[k])}
        near = [near[i] | (set() if _is_zero(found.spike[i]) else moved) for i in size]
    reached, ahead = {row}, [row]
    while ahead:
        new = near[ahead.pop()] - reached
        reached |= new
        ahead += new
    return column in reached


def _is_zero(node: Node) -> bool:
    return node.is_constant and node.value == 0
