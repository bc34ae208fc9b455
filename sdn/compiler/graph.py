"""Expressions of a step: nodes that are written once however often they are used, folded where nothing is rounded.

A node is an operation on nodes, a leaf with a name, or a plain number. A `Builder` gives the same node for the same
operation on the same nodes, so that what a step computes twice is one node. It folds what cannot change a result but
the sign of a zero: a factor 1 or -1, a term 0, two signs. It never reorders sums or products, so that each remaining
operation is rounded as torch rounds it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Builder", "Node", "carries", "dependencies", "leaves", "ordered", "rewritten", "text_of"]

COMMUTATIVE = frozenset({"add", "mul", "and", "or", "eq", "ne"})


@dataclass(frozen=True, eq=False)
class Node:
    """One operation; compared by identity, which a `Builder` makes the same as equality."""

    op: str
    args: tuple["Node", ...]
    kind: Literal["real", "bool"]
    name: str = ""
    """Of a leaf."""
    value: float | bool = 0.0
    """Of a constant."""

    @property
    def is_constant(self) -> bool:
        """Whether it is a plain number."""
        return self.op == "constant"


class Builder:
    """Makes nodes."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Node] = {}
        self._number: dict[int, int] = {}

    def _node(self, key: tuple[object, ...], node: Node) -> Node:
        if key not in self._known:
            self._known[key] = node
            self._number[id(node)] = len(self._number)
        return self._known[key]

    def leaf(self, name: str, kind: Literal["real", "bool"] = "real") -> Node:
        """What comes from outside under a name."""
        return self._node(("leaf", name), Node("leaf", (), kind, name=name))

    def constant(self, value: float | bool) -> Node:
        """A plain number, or True or False."""
        kind: Literal["real", "bool"] = "bool" if isinstance(value, bool) else "real"
        value = value if kind == "bool" else float(value)
        return self._node(("constant", kind, repr(value)), Node("constant", (), kind, value=value))

    def make(self, op: str, *args: Node, kind: Literal["real", "bool"] = "real") -> Node:
        """The node of an operation, or a simpler one that is the same number."""
        folded = self._folded(op, args)
        if folded is not None:
            return folded
        ids = tuple(id(arg) for arg in args)
        if op in COMMUTATIVE:
            ids = tuple(sorted(ids, key=lambda one: self._number[one]))
        return self._node((op, *ids), Node(op, args, kind))

    def _folded(self, op: str, args: tuple[Node, ...]) -> Node | None:
        values = [arg.value if arg.is_constant else None for arg in args]
        if op in _ARITHMETIC and all(value is not None for value in values):
            return self.constant(_ARITHMETIC[op](*values))
        if op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        if op == "mul":
            return self._folded_product(args, values)
        if op in ("add", "sub"):
            return self._folded_sum(op, args, values)
        if op == "div" and values[1] == 1:
            return args[0]
        if op == "where":
            if args[0].is_constant:
                return args[1] if args[0].value else args[2]
            return args[1] if args[1] is args[2] else None
        return None

    def _folded_product(self, args: Sequence[Node], values: Sequence[object]) -> Node | None:
        for one, other in ((0, 1), (1, 0)):
            if values[one] == 0:
                return args[one]
            if values[one] == 1:
                return args[other]
            if values[one] == -1:
                return self.make("neg", args[other])
        return None

    def _folded_sum(self, op: str, args: Sequence[Node], values: Sequence[object]) -> Node | None:
        left, right = args
        if values[1] == 0:
            return left
        if values[0] == 0:
            return right if op == "add" else self.make("neg", right)
        if right.op == "neg":
            return self.make("sub" if op == "add" else "add", left, right.args[0])
        if op == "add" and left.op == "neg":
            return self.make("sub", right, left.args[0])
        return None


_ARITHMETIC: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
}


def ordered(roots: Iterable[Node]) -> list[Node]:
    """All nodes that the roots need, each behind those that it needs itself."""
    done: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) not in done:
            for arg in node.args:
                visit(arg)
            done[id(node)] = node

    for root in roots:
        visit(root)
    return list(done.values())


def leaves(roots: Iterable[Node]) -> Iterator[Node]:
    """The leaves that the roots need."""
    return (node for node in ordered(roots) if node.op == "leaf")


def dependencies(roots: Iterable[Node]) -> dict[int, frozenset[str]]:
    """Names of the leaves that each node under the roots needs, by its id."""
    found: dict[int, frozenset[str]] = {}
    for node in ordered(roots):
        own = {node.name} if node.op == "leaf" else set()
        found[id(node)] = frozenset(own).union(*(found[id(arg)] for arg in node.args))
    return found


def rewritten(builder: Builder, roots: Sequence[Node], known: dict[int, Node]) -> list[Node]:
    """The roots with some nodes, by their id, in place of others; what follows from them is folded anew."""
    found = dict(known)
    for node in ordered(roots):
        if id(node) not in found:
            args = tuple(found[id(arg)] for arg in node.args)
            same = all(one is other for one, other in zip(args, node.args, strict=True))
            found[id(node)] = node if same else builder.make(node.op, *args, kind=node.kind)
    return [found[id(root)] for root in roots]


def carries(node: Node) -> frozenset[str]:
    """Names of the leaves whose NaN or infinity is one of the node too, whatever the others are."""
    found: dict[int, frozenset[str]] = {}
    for each in ordered([node]):
        inside = [found[id(arg)] for arg in each.args]
        if each.op == "leaf":
            found[id(each)] = frozenset({each.name})
        elif each.op in ("add", "sub", "mul", "neg"):
            found[id(each)] = frozenset().union(*inside)
        elif each.op in ("div", "sqrt", "abs"):
            found[id(each)] = inside[0]
        elif each.op == "where":
            found[id(each)] = inside[1] & inside[2]
        else:
            found[id(each)] = frozenset()
    return found[id(node)]


def text_of(*roots: Node) -> str:
    """Nodes as text that tells any two graphs apart."""
    place: dict[int, int] = {}
    lines = []
    for node in ordered(roots):
        place[id(node)] = len(place)
        own = node.name if node.op == "leaf" else repr(node.value) if node.is_constant else ""
        lines.append(f"{node.op} {own} {[place[id(arg)] for arg in node.args]}")
    return "; ".join([*lines, str([place[id(root)] for root in roots])])
