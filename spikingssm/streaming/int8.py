"""A plan whose linear maps have weights of 8 bits: a quarter of the memory, and what that does to the numbers."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikingssm.streaming import loops
from spikingssm.streaming.plan import Call, Part, Plan

__all__ = ["Rounded", "in_int8"]

MOST = 127
"""The largest weight; -128 is not used, so that a sign costs nothing."""


@dataclass(frozen=True)
class Rounded:
    """What became of the weights of one linear map.

    Args:
        inputs: of the map.
        outputs: of the map.
        saturated: part of the weights that lie outside of what 8 bits reach, and were cut off.
        error: root of the mean square of the difference, over that of the weights.
        zeros: part of the weights that became 0.
    """

    inputs: int
    outputs: int
    saturated: float
    error: float
    zeros: float


def in_int8(plan: Plan, reach: float = 1.0) -> tuple[Plan, list[Rounded]]:
    """The same network with weights of 8 bits: ``w = scale q`` with one scale for each output of a map.

    Biases, norms, tables of tokens, state space layers and neurons stay in float32.

    Args:
        plan: of a network.
        reach: what the largest weight stands for, as a part of the largest of its output: 1 cuts nothing off; less
            makes steps finer, and saturates what lies above.

    Returns:
        the plan, and what became of each map in the order in which they run.

    Raises:
        ValueError: a reach that is not in (0, 1].
    """
    if not 0 < reach <= 1:
        raise ValueError(f"int8: reach must be in (0, 1], got {reach}.")
    maps = {call.arguments[1] for call in plan.calls if call.word == "mapped"}
    found = copy.copy(plan)
    found.sizes = {**plan.sizes, "w": 0, "q": 0}
    found.constants, found.calls = {}, []
    moved: dict[Any, Part] = {}
    scales: dict[Part, Part] = {}
    told: dict[Part, Rounded] = {}
    for part, values in plan.constants.items():
        if part not in maps:
            moved[part] = found.constant(values)
            continue
        whole, scale, told[part] = _rounded(values, reach)
        moved[part], scales[part] = found.constant(whole), found.constant(scale)
    for call in plan.calls:
        given: tuple[Any, ...] = tuple(
            moved.get(each, each) if isinstance(each, Part) else each for each in call.arguments
        )
        if call.word == "mapped":
            x, q, y, inputs, outputs = given
            scale_part, room = scales[call.arguments[1]], found.room(outputs)
            given = (x, q, scale_part, room, y, inputs, outputs)
            found.calls.append(Call(loops.mapped_int8.__name__, given, call.layer))
        else:
            found.calls.append(Call(call.word, given, call.layer))
    return found, [told[call.arguments[1]] for call in plan.calls if call.word == "mapped"]


def _rounded(weight: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray, Rounded]:
    """Weights (inputs, outputs) as whole numbers, the scale of each output, and what that cost."""
    largest = np.abs(weight).max(0)
    scale = np.where(largest > 0, reach * largest / MOST, 1).astype(np.float32)
    exact = weight / scale
    whole = np.clip(np.rint(exact), -MOST, MOST).astype(np.int8)
    power = float(np.square(weight, dtype=np.float64).mean())
    away = float(np.square(weight - scale * whole, dtype=np.float64).mean())
    error = (away / power) ** 0.5 if power else 0.0
    over = float((np.abs(exact) > MOST + 0.5).mean())
    inputs, outputs = weight.shape
    return whole, scale, Rounded(inputs, outputs, over, error, float((whole == 0).mean()))
