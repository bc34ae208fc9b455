"""Whether a step is affine in its state once its spikes are known, and its factors: ``state[t] = A state[t-1] + b``.

A state may depend on others as long as these come first: the adaptation of ALIF and the refraction of BRF follow from
the spikes alone, and what multiplies them later is known by then. So the states fall into stages, one recurrence each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sdn.compiler.graph import Node, leaves, ordered, rewritten
from sdn.compiler.neuron import WATCH, Step, evaluate, jacobian

__all__ = ["Affine", "Stage", "affine"]

ANALYTIC = frozenset({"add", "sub", "mul", "div", "neg", "reciprocal", "exp", "expm1", "log", "log1p", "sin", "cos",
                      "tan", "tanh", "sigmoid", "erf", "atan", "sinh", "cosh", "sqrt", "power"})  # fmt: skip
"""Operations whose derivative says all about how they depend on an operand."""


@dataclass(frozen=True, eq=False)
class Stage:
    """States that follow from each other linearly, over the leaves of the step and the states of earlier stages."""

    states: tuple[int, ...]
    A: tuple[tuple[Node, ...], ...]
    b: tuple[Node, ...]
    rotates: bool
    """Two states whose matrix is ``[[re, -im], [im, re]]``: one complex factor."""


@dataclass(frozen=True, eq=False)
class Affine:
    """A step as stages, in the order in which they are solved."""

    stages: tuple[Stage, ...]
    feeds_back: bool
    """Whether a spike moves any state."""


def affine(step: Step) -> Affine | None:
    """The linear parts of a step, or None where it is not affine in its state."""
    names = [name for name in step.states if name != WATCH]
    after = step.after[: len(names)]
    table = jacobian(step)
    needs = [{j for j, name in enumerate(names) if name in _names(node)} for node in after]
    stages = []
    for group in _ordered_groups(needs):
        own = frozenset(names[j] for j in group)
        if any(_is_rough(after[i], own) for i in group):
            return None
        A = tuple(tuple(table[i][j] for j in group) for i in group)
        if any(_names(node) & own for row in A for node in row):
            return None
        zero = step.builder.constant(0.0)
        known = {id(step.builder.leaf(name)): zero for name in own}
        b = tuple(rewritten(step.builder, [after[i] for i in group], known))
        stages.append(Stage(tuple(group), A, b, len(group) == 2 and _rotates(A)))
    return Affine(tuple(stages), any("spike" in _names(node) for node in after))


def _names(node: Node) -> frozenset[str]:
    return frozenset(leaf.name for leaf in leaves([node]))


def _is_rough(root: Node, own: frozenset[str]) -> bool:
    """Whether a comparison, a rounding or the like looks at one of these states."""
    reach: dict[int, frozenset[str]] = {}
    for node in ordered([root]):
        inside = frozenset().union(*(reach[id(arg)] for arg in node.args))
        reach[id(node)] = frozenset({node.name}) if node.op == "leaf" else inside
        if node.op not in ("where", "real", *ANALYTIC) and node.args and inside & own:
            return True
        if node.op in ("where", "real") and reach[id(node.args[0])] & own:
            return True
    return False


def _ordered_groups(needs: Sequence[set[int]]) -> list[list[int]]:
    """States that need each other, in an order in which each group needs only itself and those before it."""
    reach = [{i} | set(group) for i, group in enumerate(needs)]
    for _ in needs:
        reach = [set().union(*(reach[j] for j in group)) for group in reach]
    groups: list[list[int]] = []
    for i in sorted(range(len(needs)), key=lambda i: len(reach[i])):
        if not any(i in group for group in groups):
            groups.append([j for j in range(len(needs)) if j in reach[i] and i in reach[j]])
    return groups


def _rotates(A: tuple[tuple[Node, ...], ...]) -> bool:
    """Whether a 2 x 2 matrix is a rotation times a number; tried on numbers, since equal terms may be two nodes."""
    flat = [node for row in A for node in row]
    names = sorted({leaf.name for leaf in leaves(flat)})
    generator = torch.Generator().manual_seed(0)
    with torch.device("cpu"):
        values: dict[str, Any] = {n: 0.1 + torch.rand(16, generator=generator, dtype=torch.float64) for n in names}
        re, minus, im, other = (torch.as_tensor(v, dtype=torch.float64).expand(16) for v in evaluate(flat, values))
        pairs = (re, other), (minus, -im)
        return all(torch.allclose(one, two, rtol=1e-12, atol=1e-14) for one, two in pairs)
