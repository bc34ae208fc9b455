"""A neuron that was fitted to a recording, with the scale of its current and its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from loguru import logger
from torch import Tensor

from sdn.dynamics.base import Dynamics
from sdn.ops.neuron.sequence import run_sequence
from sdn.recordings.data import Recording
from sdn.recordings.scores import SpikeScores, best_level, score_spikes

__all__ = ["Fitted", "say_no_fit", "scored", "split_of"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit returns: ``sdn.Neuron(fitted.dynamics, 1)`` on ``fitted.inputs(current)`` spikes as the recorded cell.

    Args:
        dynamics: the neuron, of plain numbers.
        scale: what a unit of current is as an input, input = scale * current + offset.
        offset: input of no current.
        dt: length of its step in ms.
        unit: of the current.
        losses: as the fit went on.
        scores: "fitted" and the name of each family that was held out ("held out" for sweeps of a fitted one).
        without_past: the same of the best level that the current alone can cross, the neuron with ``mem = 0``.
    """

    dynamics: Dynamics
    scale: float
    offset: float
    dt: float
    unit: str
    losses: tuple[float, ...] = ()
    scores: Mapping[str, SpikeScores] = field(default_factory=dict)
    without_past: Mapping[str, SpikeScores] = field(default_factory=dict)

    def inputs(self, current: Tensor) -> Tensor:
        """The input of the neuron for a current in `unit`, of any shape."""
        return self.scale * current + self.offset

    def spikes(self, recording: Recording) -> Tensor:
        """The spikes (N, T), bool, that the neuron makes of the currents of a recording, from rest.

        Raises:
            ValueError: another time step or unit.
        """
        found = recording.dt, recording.units["current"]
        if abs(recording.dt - self.dt) > 1e-6 * self.dt or found[1] != self.unit:
            raise ValueError(
                f"Fitted: the neuron was fitted at {self.dt:g} ms and in {self.unit}, the recording is at "
                f"{found[0]:g} ms in {found[1]}; use recording.resampled({self.dt:g}), or convert the current."
            )
        with torch.no_grad():
            spikes = run_sequence(self.dynamics, self.inputs(recording.current).unsqueeze(-1)).spike
        return spikes.squeeze(-1) > 0

    def score(self, recording: Recording, tolerance: int = 1) -> SpikeScores:
        """Its spikes against those of a recording."""
        return score_spikes(self.spikes(recording), recording.spikes, tolerance)

    def __str__(self) -> str:
        """A line for each set of sweeps."""
        lines = [f"{type(self.dynamics).__name__}, input = {self.scale:g} * current [{self.unit}] + {self.offset:g}"]
        for name, found in self.scores.items():
            lines.append(f"  {name}: {found}; mem = 0: F1 {self.without_past[name].f1:.3f}")
        return "\n".join(lines)


def split_of(recording: Recording, held_out: Sequence[str] | None) -> tuple[Recording, dict[str, Recording]]:
    """The sweeps to fit, and those to judge by, by name.

    Args:
        recording: all of them.
        held_out: families; None is the last one, or every fourth sweep where there is one only.

    Raises:
        ValueError: an unknown family, or nothing left to fit.
    """
    if not isinstance(recording, Recording):
        raise ValueError(f"a fit needs an sdn.Recording, got {type(recording).__name__}; make one by Recording.of.")
    kinds = list(dict.fromkeys(recording.families))
    if held_out is None and len(kinds) == 1:
        last = [i for i in range(len(recording)) if i % 4 == 3]
        rest = [i for i in range(len(recording)) if i % 4 != 3]
        return _with_spikes(recording.rows(rest)), {"held out": recording.rows(last)} if last else {}
    names = [kinds[-1]] if held_out is None else [held_out] if isinstance(held_out, str) else list(held_out)
    held = {name: recording.sweeps(name) for name in names}
    return _with_spikes(recording.sweeps(without=names)), held


def scored(fitted: Fitted, fit: Recording, held: Mapping[str, Recording]) -> Fitted:
    """The same with its scores on the sweeps fitted and on those held out."""
    level = best_level(fit.current, fit.spikes)
    sets = {"fitted": fit, **held}
    return replace(
        fitted,
        scores={name: fitted.score(part) for name, part in sets.items()},
        without_past={name: score_spikes(part.current >= level, part.spikes) for name, part in sets.items()},
    )


def say_no_fit(who: str, fitted: Fitted, way: str) -> None:
    """Warn of a neuron that has little to do with the recorded one on one of its sets, such as a silent one."""
    name, score = min(fitted.scores.items(), key=lambda each: each[1].f1)
    if score.f1 < 0.2 or score.predicted_rate < 0.1 * score.rate:
        steps = "recording.resampled(1.0) has larger steps, or " if fitted.dt < 0.5 else ""
        logger.warning(
            f"{who}: this is no fit: F1 {score.f1:.2f} on {name!r}, spikes in {100 * score.predicted_rate:.2g} % of "
            f"the steps and {100 * score.rate:.2g} % recorded; {steps}{way}"
        )


def _with_spikes(fit: Recording) -> Recording:
    if not bool(fit.spikes.any()):
        raise ValueError(f"none of the {len(fit)} sweeps to fit has a spike; hold out other families.")
    return fit
