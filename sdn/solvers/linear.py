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
from sdn.compiler.neuron import FUNCTIONS, evaluate
from sdn.compiler.programs import Program, program
from sdn.ops.neuron.layout import Kernel
from sdn.ops.scan.matrices import scan_matrices
from sdn.ops.scan.operator import scan

__all__ = ["Certain", "Linear", "certain", "distance_error", "linear_of", "solve", "spikes_at"]

LAST = slice(-1, None)
BLOCK = 1 << 17
"""Elements of a tensor that `certain` works on at once."""
COMPARISONS = frozenset({"eq", "ne", "gt", "ge", "lt", "le", "real"})


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
        raise NotImplementedError(f"{found.step.name} is not linear in its state given its spikes.")
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
    size, A, b = len(stage.states), _matrix(stage, values, like), _evaluated(list(stage.b), values, like)
    if size == 1:
        return [scan(A[0], b[0], before[0])]
    if stage.rotates:
        z = scan(torch.complex(A[0], A[2]), torch.complex(b[0], b[1]), torch.complex(*before))
        return [z.real, z.imag]
    matrices = torch.stack([x.expand(like.shape) for x in A], -1).reshape(*like.shape, size, size)
    return [*scan_matrices(matrices, torch.stack(b, -1), torch.stack(before, -1)).unbind(-1)]


def _matrix(stage: Stage, values: dict[str, Any], like: Tensor) -> list[Tensor]:
    """The entries of A in the order of rows, each (B, L, H), or (1, 1, H) where none of them changes over time."""
    found = evaluate([node for row in stage.A for node in row], values)
    entries = [torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in found]
    shape = like.shape if any(x.ndim == 3 for x in entries) else (1, 1, like.shape[2])
    return [x.expand(shape) for x in entries]


def _evaluated(roots: list[Node], values: dict[str, Any], like: Tensor) -> list[Tensor]:
    """Nodes at all steps, each (B, L, H)."""
    return [
        torch.as_tensor(v, dtype=like.dtype, device=like.device).expand(like.shape) for v in evaluate(roots, values)
    ]


def spikes_at(kernel: Kernel, distance: Tensor) -> Tensor:
    """Spikes, 0 or 1, at these distances to the threshold."""
    at_threshold = program(kernel.program).step.at_threshold
    return (distance >= 0 if at_threshold else distance > 0).to(distance.dtype)


class Certain(NamedTuple):
    """What `certain` finds, in float64."""

    spikes: Tensor
    """(B, L, H), what the neuron would do at each step after the spikes that were given."""
    margin: Tensor
    """(B, L, H), its distance to the threshold in units of the bound on its error: that spike is certain above 1."""
    final: Tensor
    """(B, S, H), the state after the last step."""


def certain(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor) -> Certain | None:
    """Whether the step by step loop, as it rounds, would spike at these steps; None where nothing can be said.

    On the CPU some channels after others, so that what it computes on the way stays in cache.
    """
    width = x.shape[2] if x.device.type != "cpu" else max(1, BLOCK // x[..., 0].numel())
    found = []
    for start in range(0, x.shape[2], width):
        some = slice(start, start + width)
        part = _certain(kernel._replace(fixed=kernel.fixed[:, some]), *(t[..., some] for t in (x, first, spikes)))
        if part is None:
            return None
        found.append(part)
    return Certain(*(torch.cat(parts, -1) for parts in zip(*found, strict=True)))


def _certain(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor) -> Certain | None:
    error = distance_error(kernel, x, first, spikes)
    if error is None:
        return None
    wide = kernel._replace(fixed=kernel.fixed.double())
    distance, states = solve(wide, x.double(), first.double(), spikes.double())
    return Certain(spikes_at(kernel, distance), distance.abs() / error, states[:, -1])


def distance_error(kernel: Kernel, x: Tensor, first: Tensor, spikes: Tensor) -> Tensor | None:
    """How far the distance of the step by step loop may lie from that of `solve` in float64: (B, L, H) float64.

    The loop is off by what it rounds. At a step that follows from the graph, operation by operation; the rest is
    carried on: ``e[t] = |A| e[t-1] + rounded[t]``. Where the loop is in float64 too, both are off; a scan by a tree of
    depth D rounds every term at most D times more. An eighth more than that covers products of roundings. None where
    this says nothing: operations other than sums, products and choices, or three and more states that need each other.
    Nothing is said about numbers that underflow.
    """
    found = program(kernel.program)
    parts, names = linear_of(found), found.step.states
    if any(len(stage.states) > 2 for stage in parts.stages):
        return None
    dtype, roundings = x.dtype, 1
    if dtype == torch.float64:
        roundings = 3 if x.device.type == "cpu" else 4 + 2 * math.ceil(math.log2(x.shape[1] + 1))
    unit = 0.5625 * roundings * torch.finfo(dtype).eps
    numbers = zip(found.step.numbers, kernel.numbers, strict=True)
    errors: dict[str, Any] = {name: _representation(number, dtype) for name, number in numbers}
    kernel, (x, first, spikes) = kernel._replace(fixed=kernel.fixed.double()), (t.double() for t in (x, first, spikes))
    values, _ = _solved(found, kernel, x, first, spikes)
    for stage in parts.stages:
        rounded = _rounded([found.step.after[i] for i in stage.states], values, errors, unit, dtype)
        if rounded is None:
            return None
        still = {**values, **dict.fromkeys((*names, "spike"), 0.0)}
        carried = _carried(stage, values, still, [torch.as_tensor(e).to(x).expand(x.shape) for e in rounded])
        errors |= {names[i]: _shifted(e, torch.zeros_like(e[:, 0])) for i, e in zip(stage.states, carried, strict=True)}
    total = _rounded([found.step.distance], values, errors, unit, dtype)
    return None if total is None else torch.as_tensor(total[0]).to(x).expand(x.shape)


def _carried(stage: Stage, values: dict[str, Any], still: dict[str, Any], rounded: list[Tensor]) -> list[Tensor]:
    """Bounds of the errors of one state or two after all steps, from what is rounded at each.

    Two states are measured in coordinates in which their matrix at rest, ``still``, is a rotation times a number, so
    that the error of a damped oscillator shrinks at every step.
    """
    like = rounded[0]
    if len(stage.states) == 1:
        return [scan(_matrix(stage, values, like)[0].abs(), like.contiguous())]
    a, b, c, d = (x[0, 0] for x in _matrix(stage, still, like))
    turns = (a - d) ** 2 + 4 * b * c < 0
    p = torch.where(turns, c.abs().sqrt(), 1)  # the coordinates [[p, q], [0, r]] (u, v)
    q = torch.where(turns, (a - d) * c.sign() / (-2 * p), 0)
    r = torch.where(turns, (b.abs() - q * q).sqrt(), 1)
    a, b, c, d = _matrix(stage, values, like)
    first = a + q * c / p
    squares = first**2 + ((p * b + q * d - q * first) / r) ** 2 + (r * c / p) ** 2 + (d - q * c / p) ** 2
    twice = 2 * (a * d - b * c).abs()
    factor = ((squares + twice).sqrt() + (squares - twice).clamp(min=0).sqrt()) / 2  # the largest singular value
    u, v = rounded
    error = scan(factor, torch.hypot(p * u + q.abs() * v, r * v))
    return [error * torch.hypot(1 / p, q / (p * r)), error / r]


def _representation(number: float, dtype: torch.dtype) -> float:
    """How far a number is from what it becomes in the loop."""
    return abs(torch.tensor(number, dtype=dtype).item() - number)


def _rounded(
    roots: list[Node], values: dict[str, Any], errors: dict[str, Any], unit: float, dtype: torch.dtype
) -> list[Any] | None:
    """Bounds of the errors of some nodes, from those of their leaves and what every operation rounds."""
    known: dict[int, tuple[Any, Any]] = {}
    for node in ordered(roots):
        if node.op == "leaf":
            found = values[node.name], errors.get(node.name, 0.0)
        elif node.is_constant:
            found = node.value, _representation(float(node.value), dtype)
        else:
            given, off = zip(*(known[id(arg)] for arg in node.args), strict=True)
            made = _of_operation(node.op, given, off, unit)
            if made is None:
                return None
            found = made
        known[id(node)] = found
    return [known[id(root)][1] for root in roots]


def _of_operation(op: str, given: tuple[Any, ...], off: tuple[Any, ...], unit: float) -> tuple[Any, Any] | None:
    """Value and error of an operation on numbers that are off by so much."""
    a, b = given[-2:] if len(given) > 1 else (*given, *given)
    of_a, of_b = off[-2:] if len(off) > 1 else (*off, *off)
    if op == "where":  # the condition is exact, or there were none
        return FUNCTIONS[op](*given), FUNCTIONS[op](given[0], of_a, of_b)
    if op == "neg":
        return -a, of_a
    if op in COMPARISONS:
        return (FUNCTIONS[op](*given), 0.0) if all(_is_exact(error) for error in off) else None
    if op in ("add", "sub"):
        error = of_a + of_b
    elif op == "mul":
        error = of_a * abs(b) + abs(a) * of_b + of_a * of_b
    elif op == "div" and _is_exact(of_b):
        error = of_a / abs(b)
    else:
        return None
    value = FUNCTIONS[op](a, b)
    return value, error + unit * abs(value)


def _is_exact(error: Any) -> bool:
    return not isinstance(error, Tensor) and error == 0


def _shifted(x: Tensor, first: Tensor) -> Tensor:
    """x[t-1] at step t: (B, L, H), with ``first`` (B, H) at the first step."""
    return torch.cat([first.unsqueeze(1), x[:, :-1]], 1)
