"""What a step costs in operations, counted in its graph."""

from collections.abc import Sequence

from sdn.compiler.graph import Node, leaves, ordered
from sdn.compiler.programs import program_of
from sdn.compiler.tangents import moves, tangents
from sdn.compiler.tape import Refused
from sdn.dynamics.base import Dynamics

__all__ = ["derivative_operations", "operations_of"]


def operations_of(dynamics: Dynamics) -> tuple[int, int, int] | None:
    """Multiplications, additions and functions of one step; None where the step cannot be compiled.

    What depends on parameters alone is computed before. A comparison, a choice and a reset count as additions, a
    product with a spike as none; divisions, exponentials and their like are functions.
    """
    try:
        step = program_of(dynamics).step
    except Refused:
        return None
    return _counted(ordered([step.distance, *step.after[: len(dynamics.State._fields)]]))


def derivative_operations(dynamics: Dynamics, follows: bool) -> tuple[int, int, int]:
    """The same of what `sdn::chunks` computes beside a step: the derivative by the state at the start of a chunk."""
    made = program_of(dynamics)
    step = made.step
    known = {id(node) for node in ordered([step.distance, *step.after])}
    table = moves(step, tangents(step, made.derivative), follows)
    more = [node for node in ordered([entry for row in table for entry in row]) if id(node) not in known]
    return _counted(more)


def _counted(nodes: Sequence[Node]) -> tuple[int, int, int]:
    kinds = [_kind(node) for node in nodes]
    return kinds.count(0), kinds.count(1), kinds.count(2)


def _kind(node: Node) -> int | None:
    if not node.args or node.op in ("neg", "real", "not", "detach"):
        return None
    if node.op == "mul":
        return None if any(_is_spike(arg) for arg in node.args) else 0
    if _is_spike(node):
        return None
    return 1 if node.op in ("add", "sub", "abs", "where", "minimum", "maximum", "sign") or node.kind == "bool" else 2


def _is_spike(node: Node) -> bool:
    """Whether a node is 0 or 1 by the spike alone."""
    names = {leaf.name for leaf in leaves([node])}
    return names == {"spike"}
