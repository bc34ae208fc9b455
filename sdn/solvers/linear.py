"""Neurons whose spikes are known: what is left is linear, and solved for all steps by scans.

Which linear recurrence that is, is read off the step (`sdn.compiler.affine`). Every function takes the program of a
neuron and its operands (`Kernel`: rows (P, H), numbers), currents (B, L, H), the state before them (B, S, H) and spikes
(B, L, H), and is differentiable in the first three.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.compiler.affine import Affine, Stage
from sdn.compiler.graph import Node, ordered
from sdn.compiler.neuron import evaluate
from sdn.compiler.programs import Program, program
from sdn.ops.neuron.layout import Kernel
from sdn.ops.scan.matrices import scan_matrices
from sdn.ops.scan.operator import scan

__all__ = ["Linear", "distance_error", "linear_of", "solve"]

LAST = slice(-1, None)


class Linear(NamedTuple):
    """What `solve` finds."""

    distance: Tensor
    """(B, L, H), the potential minus the threshold in force."""
    states: Tensor
    """(B, n, S, H), the states after the steps asked for."""


def linear_of(found: Program) -> Affine:
    """The linear parts of a neuron.

    Raises:
        NotImplementedError: it has none.
    """
    if found.affine is None:
        raise NotImplementedError(
            f"{found.step.name} is not linear in its state given its spikes, as the parallel solver needs it; use "
            "solver='fused'."
        )
    return found.affine


def solve(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, at: slice = LAST) -> Linear:
    """Distances to the threshold, and some states, of the neuron that spikes at these steps, whatever it would do."""
    found = program(kernel.program)
    values, after = _solved(found, kernel, x, first, spikes)
    states = torch.stack([series[:, at] for series in after], 2)
    if states.shape[2] < first.shape[1]:  # the watch of a program has no recurrence of its own
        states = torch.cat([states, torch.zeros_like(states[:, :, :1])], 2)
    (distance,) = _evaluated([found.step.distance], values, x)
    return Linear(distance, states)


def _solved(
    found: Program, kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor
) -> tuple[dict[str, Any], list[Tensor]]:
    """The value of every leaf at all steps, and every state after all steps, each (B, L, H)."""
    names, parts = found.step.states, linear_of(found)
    values: dict[str, Any] = {"current": x, "spike": spikes, **_parameters(found, kernel)}
    after: dict[int, Tensor] = {}
    for stage in parts.stages:
        before = [first[:, i] for i in stage.states]
        for i, series in zip(stage.states, _recurrence(stage, values, before, x), strict=True):
            after[i] = series
            values[names[i]] = _shifted(series, first[:, i])
    return values, [after[i] for i in sorted(after)]


def _parameters(found: Program, kernel: Kernel) -> dict[str, Any]:
    numbers = zip(found.step.numbers, kernel.numbers, strict=True)
    return {**dict(zip(found.step.rows, kernel.fixed, strict=True)), **dict(numbers)}


def _recurrence(stage: Stage, values: dict[str, Any], before: list[Tensor], like: Tensor) -> list[Tensor]:
    """The states of a stage after all steps."""
    flat = [node for row in stage.A for node in row]
    size = len(stage.states)
    found = _evaluated([*flat, *stage.b], values, like)
    A, b = found[: len(flat)], found[len(flat) :]
    if size == 1:
        return [scan(A[0], b[0], before[0])]
    if stage.rotates:
        z = scan(torch.complex(A[0], A[2]), torch.complex(b[0], b[1]), torch.complex(*before))
        return [z.real, z.imag]
    matrices = torch.stack(A, -1).reshape(*like.shape, size, size)
    return [*scan_matrices(matrices, torch.stack(b, -1), torch.stack(before, -1)).unbind(-1)]


def _evaluated(roots: list[Node], values: dict[str, Any], like: Tensor) -> list[Tensor]:
    """Nodes at all steps, each (B, L, H)."""
    return [
        torch.as_tensor(v, dtype=like.dtype, device=like.device).expand(like.shape) for v in evaluate(roots, values)
    ]


def distance_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor, sequential: bool) -> Tensor:
    """How far the distance of `solve` may lie from that of the step by step loop, both as rounded: (B, L, H), no sign.

    Both are off the true one by what they round. At a step that follows from the graph, operation by operation; the
    rest is carried on: ``e[t] = |A| e[t-1] + rounded[t]``. A scan by a tree of depth D rounds every term at most D
    times more. Taking the machine epsilon for the unit roundoff leaves a factor 2. Infinite where this says nothing:
    operations other than sums and products, or states that mix other than by rotation. Nothing is said about numbers
    that underflow.
    """
    found = program(kernel.program)
    parts, names = linear_of(found), found.step.states
    eps = float(torch.finfo(x.dtype).eps)
    kernel, (x, first, spikes) = kernel._replace(fixed=kernel.fixed.double()), (t.double() for t in (x, first, spikes))
    values, _ = _solved(found, kernel, x, first, spikes)
    depth = 1 if sequential else 1 + math.ceil(math.log2(x.shape[1] + 1))
    errors: dict[str, Tensor] = {}
    for stage in parts.stages:
        rounded = _rounded([found.step.after[i] for i in stage.states], values, errors, eps * depth)
        if rounded is None or (len(stage.states) > 1 and not stage.rotates):
            return torch.full_like(x, float("inf"))
        A = _evaluated([node for row in stage.A for node in row], values, x)
        factor = A[0].abs() if len(A) == 1 else torch.complex(A[0], A[2]).abs()
        carried = scan(factor, sum(rounded).expand(x.shape).contiguous())  # type: ignore[union-attr]
        errors |= {names[i]: _shifted(carried, torch.zeros_like(first[:, i])) for i in stage.states}
    total = _rounded([found.step.distance], values, errors, eps)
    return torch.full_like(x, float("inf")) if total is None else 2 * total[0].expand(x.shape)


def _rounded(roots: list[Node], values: dict[str, Any], errors: dict[str, Tensor], eps: float) -> list[Tensor] | None:
    """Bounds of the errors of some nodes, from those of their leaves and what every operation rounds."""
    nothing = torch.zeros((), dtype=torch.float64, device=values["current"].device)
    known: dict[int, tuple[Any, Tensor]] = {}
    for node in ordered(roots):
        if node.op == "leaf":
            known[id(node)] = values[node.name], errors.get(node.name, nothing)
        elif node.is_constant:
            known[id(node)] = node.value, nothing
        elif node.op == "neg":
            known[id(node)] = -known[id(node.args[0])][0], known[id(node.args[0])][1]
        elif node.op in ("add", "sub", "mul"):
            (a, of_a), (b, of_b) = (known[id(arg)] for arg in node.args)
            value = a + b if node.op == "add" else a - b if node.op == "sub" else a * b
            carried = of_a + of_b if node.op != "mul" else of_a * abs(b) + abs(a) * of_b + of_a * of_b
            known[id(node)] = value, carried + eps * abs(value)
        else:
            return None
    return [known[id(root)][1] for root in roots]


def _shifted(x: Tensor, first: Tensor) -> Tensor:
    """x[t-1] at step t: (B, L, H), with ``first`` (B, H) at the first step."""
    return torch.cat([first.unsqueeze(1), x[:, :-1]], 1)
