"""A graph of NIR as one line of nodes, with cycles of a neuron and a map."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Node", "chain"]

SPIKING = ("LIF", "IF", "CubaLIF")
MAPS = ("Linear", "Affine")


@dataclass
class Node:
    """A node on the way from the input to the output.

    Args:
        name: in the file, with that of the graphs around it: ``rnn.lif``.
        node: of nir.
        cycle: the map through which its spikes come back to it, or None.
    """

    name: str
    node: Any
    cycle: "Node | None" = None

    @property
    def kind(self) -> str:
        """The class of nir."""
        return type(self.node).__name__


Edges = list[tuple[str, str]]


def chain(graph: Any, problems: list[str]) -> list[Node]:
    """The nodes in the order in which they run, without the maps of cycles.

    Args:
        graph: a ``nir.NIRGraph``, with graphs in it or without.
        problems: gets a line for everything that is no line of nodes.
    """
    nodes, edges = _flat(graph)
    if lost := sorted({name for edge in edges for name in edge} - set(nodes)):
        problems.append(f"the graph: edges name {', '.join(lost)}, which {_is(lost)} not among its nodes")
        return []
    cycles = _cycles(nodes, edges, problems)
    maps = set(cycles.values())
    forward = [edge for edge in edges if not maps & set(edge)]
    starts = [name for name in nodes if name not in maps and name not in {after for _, after in forward}]
    if len(starts) != 1:
        found = ", ".join(starts) or "none"
        problems.append(f"the graph: it must begin with one node, and begins with {len(starts)}: {found}")
        return []
    order = _walk(starts[0], forward, problems)
    if left := sorted(set(nodes) - set(order) - maps):
        problems.append(f"the graph: {', '.join(left)} {_is(left)} on no single way from the input to the output")
    return [Node(name, nodes[name], _cycle(name, nodes, cycles)) for name in order]


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _cycle(name: str, nodes: dict[str, Any], cycles: dict[str, str]) -> Node | None:
    return Node(cycles[name], nodes[cycles[name]]) if name in cycles else None


def _cycles(nodes: dict[str, Any], edges: Edges, problems: list[str]) -> dict[str, str]:
    """Spiking nodes and the map that reads them and feeds them."""
    found: dict[str, str] = {}
    for one, other in edges:
        if one == other:
            problems.append(f"{one}: it feeds itself; put a Linear between")
        if type(nodes[one]).__name__ not in SPIKING or type(nodes[other]).__name__ not in MAPS:
            continue
        if (other, one) not in edges:
            continue
        others = [edge for edge in edges if other in edge and edge not in ((one, other), (other, one))]
        if others or one in found:
            problems.append(f"{other}: a map of a cycle must have no other edges, and there is one cycle a neuron")
        found.setdefault(one, other)
    return found


def _walk(name: str, edges: Edges, problems: list[str]) -> list[str]:
    """The nodes behind one another; a problem where a way parts, joins or closes."""
    order = [name]
    while True:
        before = sorted(one for one, other in edges if other == name)
        after = sorted(other for one, other in edges if one == name)
        if len(before) > 1:
            problems.append(f"{name}: {' and '.join(before)} join there; only cycles of a neuron and a map are read")
        if len(after) > 1:
            problems.append(f"{name}: {' and '.join(after)} read it; only one line of nodes is read")
        if not after or after[0] in order:
            return order
        name = after[0]
        order.append(name)


def _flat(graph: Any, around: str = "") -> tuple[dict[str, Any], Edges]:
    """Nodes and edges, those of graphs in the graph with its name before theirs and without their ends."""
    nodes: dict[str, Any] = {}
    ends: dict[str, tuple[list[str], list[str]]] = {}
    edges: Edges = []
    for key, node in graph.nodes.items():
        name = f"{around}{key}"
        if type(node).__name__ != "NIRGraph":
            nodes[name] = node
            continue
        inner, within = _flat(node, f"{name}.")
        first = [each for each, part in inner.items() if type(part).__name__ == "Input"]
        last = [each for each, part in inner.items() if type(part).__name__ == "Output"]
        heads = [other for one, other in within if one in first]
        tails = [one for one, other in within if other in last]
        ends[name] = heads, tails
        nodes |= {each: part for each, part in inner.items() if each not in (*first, *last)}
        edges += [edge for edge in within if not {*edge} & {*first, *last}]
    for one, other in graph.edges:
        source, target = f"{around}{one}", f"{around}{other}"
        sources = ends[source][1] if source in ends else [source]
        edges += [(a, b) for a in sources for b in (ends[target][0] if target in ends else [target])]
    return nodes, list(dict.fromkeys(edges))
