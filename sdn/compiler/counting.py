"""What a step costs in operations, counted in its graph."""

from sdn.compiler.graph import Node, leaves, ordered
from sdn.compiler.programs import program_of
from sdn.compiler.tape import Refused
from sdn.dynamics.base import Dynamics

__all__ = ["operations_of"]


def operations_of(dynamics: Dynamics) -> tuple[int, int, int] | None:
    """Multiplications, additions and functions of one step; None where the step cannot be compiled.

    What depends on parameters alone is computed before. A comparison, a choice and a reset count as additions, a
    product with a spike as none; divisions, exponentials and their like are functions.
    """
    try:
        step = program_of(dynamics).step
    except Refused:
        return None
    found = [0, 0, 0]
    for node in ordered([step.distance, *step.after[: len(dynamics.State._fields)]]):
        kind = _kind(node)
        if kind is not None:
            found[kind] += 1
    return found[0], found[1], found[2]


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
