"""A known neuron fitted to a recording: its fields, and how the current enters it, by gradient."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, check_count
from sdn.checks.finite import Diverged
from sdn.dynamics.base import Dynamics, check_dynamics
from sdn.ops.neuron.sequence import run_sequence
from sdn.recordings.data import Recording
from sdn.recordings.fitted import Fitted, say_no_fit, scored, split_of
from sdn.recordings.scores import train_distance

__all__ = ["fit_dynamics"]

STARTS = 8
"""Neurons that are fitted side by side, as the channels of one layer; the best one counts."""
POLISHED = 40
"""Rounds of the search at the end."""
TRIED = 64
"""Neurons that a round of it tries."""
SEARCHED = 4
"""Starts that are searched around, the best ones."""
RADIUS = 0.3
"""How far it looks at first, in what each transform learns."""
SPREAD = {"logit": 1.0, "log": 0.5, "abs": 0.5, "none": 0.5}
"""How far apart the starts are, in what each transform learns."""
Raw = dict[str, Tensor]
"""What is learned, (H,) each: fields by their names, ``scale`` (its logarithm) and ``offset`` of the current."""


def fit_dynamics(
    dynamics: Dynamics,
    recording: Recording,
    learn: Sequence[str] = ("threshold",),
    *,
    steps: int = 200,
    seed: int = 0,
    held_out: Sequence[str] | None = None,
    learn_scale: bool | None = None,
) -> Fitted:
    """Fit fields of a known neuron to the spikes of a recording.

    Eight neurons start from values around those given. They run over all sweeps by the compiled loop, and Adam follows
    the spike gradient of the difference of their spike trains, smoothed over 2, 8 and 32 steps. Around the best ones
    the cross-entropy method then searches, since the difference of whole spikes has no slope at its bottom. The same
    arguments give the same numbers.

    Args:
        dynamics: the neuron, with plain numbers; those of ``learn`` are where the search starts.
        recording: at the neuron's step; `Recording.resampled` makes it. Steps of about 1 ms are best. With 0.1 ms the
            search finds no way to the spikes.
        learn: fields to fit.
        steps: of Adam.
        seed: of the starts and of the search.
        held_out: families that are not fitted but scored. None: the last family, or, where there is one only, every
            fourth sweep.
        learn_scale: whether an input is ``scale * current + offset`` with both learned. None: where the current has a
            unit. Where a neuron scales with its threshold, leave that out of ``learn`` then.

    Returns:
        The neuron, scale and offset, with scores of the sweeps fitted and of those held out. Look at them: a neuron
        that is no fit is returned too, with a warning.

    Raises:
        ValueError: a field that cannot be learned, a tensor for a field, or nothing left to fit.
    """
    _check(dynamics, learn, steps)
    fit, held = split_of(recording, held_out)
    scaled = recording.units["current"] != "1" if learn_scale is None else learn_scale
    if not learn and not scaled:
        raise ValueError("fit_dynamics: nothing to learn; name fields in learn, or set learn_scale=True.")
    generator = torch.Generator().manual_seed(seed)
    current = fit.current.unsqueeze(-1)
    target = fit.spikes.float().unsqueeze(-1)
    raw = _starts(dynamics, learn, generator)
    if scaled:
        raw |= _scales(dynamics, raw, fit)
    starts, losses = _descend(dynamics, raw, current, target, steps)
    best, loss = starts[0], math.inf
    for one in starts[:SEARCHED]:
        near, found = _polish(dynamics, one, current, target, generator)
        best, loss = (near, found) if found < loss else (best, loss)
        if loss == 0:
            break
    numbers = {name: float(value) for name, value in _fields(dynamics, best).items()}
    neuron = dynamics.replace(**numbers)
    scale, offset = (float(best["scale"].exp()), float(best["offset"])) if scaled else (1.0, 0.0)
    fitted = scored(Fitted(neuron, scale, offset, recording.dt, recording.units["current"], (*losses, loss)), fit, held)
    say_no_fit("fit_dynamics", fitted, "start from other values, or take another neuron")
    return fitted


def _check(dynamics: Any, learn: Sequence[str], steps: Any) -> None:
    check_dynamics("fit_dynamics", dynamics)
    check_count("fit_dynamics", "steps", steps, least=0)
    name = type(dynamics).__name__
    if isinstance(learn, str):
        raise ArgumentError(f"fit_dynamics: learn must be several names, got {learn!r}; write learn=({learn!r},).")
    for field in learn:
        if field not in dynamics.transforms:
            raise ValueError(
                f"fit_dynamics: {name} cannot learn {field!r}; its learnable fields are {sorted(dynamics.transforms)}."
            )
    if several := [k for k, v in vars(dynamics).items() if isinstance(v, Tensor)]:
        raise ValueError(
            f"fit_dynamics: {several[0]} of {name} is a tensor; a recording is of one neuron, give a number."
        )


def _starts(dynamics: Dynamics, learn: Sequence[str], generator: torch.Generator) -> Raw:
    """The neuron's own values, and others around them that it accepts."""
    raw: Raw = {}
    for field in learn:
        kind, own = dynamics.transforms[field], float(getattr(dynamics, field))
        if (kind == "log" and own <= 0) or (kind == "logit" and not 0 < own < 1):
            raise ValueError(f"fit_dynamics: {field} cannot be learned from {own:g}; start inside its range.")
        centre = _to_raw(torch.tensor(own, dtype=torch.float64), kind)
        around = SPREAD[kind] * torch.randn(STARTS, generator=generator, dtype=torch.float64)
        around[0] = 0
        size = centre.abs().clamp_min(0.1) if kind in ("abs", "none") else 1.0
        raw[field] = centre + size * around
    for place in range(1, STARTS):
        try:
            dynamics.replace(
                **{field: float(_from_raw(raw[field], dynamics.transforms[field])[place]) for field in learn}
            )
        except ValueError:
            for field in learn:
                raw[field][place] = raw[field][0]
    return {field: value.float() for field, value in raw.items()}


def _scales(dynamics: Dynamics, raw: Raw, fit: Recording) -> Raw:
    """For each start the scale, of 33 over four decades, with which it spikes about as often as the recording."""
    with torch.no_grad():
        usual = dynamics.default_std / float(fit.current.std().clamp_min(1e-30))
        factors = torch.logspace(-2, 2, 33) * usual
        many = {name: value.repeat_interleave(33) for name, value in raw.items()}
        inputs = fit.current.unsqueeze(-1) * factors.repeat(STARTS)
        try:
            counts = _spikes(dynamics, many, inputs).sum((0, 1)).reshape(STARTS, 33)
        except Diverged:
            counts = torch.zeros(STARTS, 33)
        nearest = (torch.log1p(counts) - math.log1p(float(fit.spikes.sum()))).abs().argmin(1)
        return {"scale": factors[nearest].log(), "offset": torch.zeros(STARTS)}


def _descend(
    dynamics: Dynamics, raw: Raw, current: Tensor, target: Tensor, steps: int
) -> tuple[list[Raw], list[float]]:
    """Adam on all starts; the best numbers that each had, the best of all first, and the least loss of each step."""
    raw = {name: value.clone().requires_grad_() for name, value in raw.items()}
    optimiser = torch.optim.Adam([*raw.values()], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    best, least = {name: value.detach().clone() for name, value in raw.items()}, torch.full((STARTS,), math.inf)
    losses: list[float] = []
    for _ in range(steps + 1):
        try:
            loss = _losses(dynamics, raw, current, target)
        except Diverged:
            break
        better = loss.detach() < least
        least = torch.where(better, loss.detach(), least)
        best = {name: torch.where(better, value.detach(), best[name]) for name, value in raw.items()}
        losses.append(float(loss.detach().min()))
        optimiser.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        for one in raw.values():
            if one.grad is not None:
                one.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
        schedule.step()
    order = least.argsort(stable=True).tolist()
    return [{name: value[place] for name, value in best.items()} for place in order], losses


def _polish(
    dynamics: Dynamics, best: Raw, current: Tensor, target: Tensor, generator: torch.Generator
) -> tuple[Raw, float]:
    """The cross-entropy method: draw neighbours, keep the best quarter, draw from the normal law of those, and so on.

    Source: Rubinstein, Methodology and Computing in Applied Probability 1, 1999.
    """
    names = list(best)
    found = mean = torch.stack([best[name] for name in names]).double()
    kinds = [dynamics.transforms.get(name, "log") for name in names]
    size = torch.tensor(
        [max(abs(float(m)), 0.1) if k in ("abs", "none") else 1.0 for m, k in zip(mean, kinds, strict=True)]
    )
    spread = torch.diag(RADIUS * size).double()
    least = math.inf
    with torch.no_grad():
        for _ in range(POLISHED):
            tried = mean + torch.randn(TRIED, len(names), generator=generator, dtype=torch.float64) @ spread.T
            tried[0] = found
            try:
                losses = _losses(dynamics, dict(zip(names, tried.float().T, strict=True)), current, target)
            except (Diverged, ValueError):
                spread = spread / 2
                continue
            order = losses.argsort(stable=True)
            if float(losses[order[0]]) < least:
                found, least = tried[order[0]].clone(), float(losses[order[0]])
            if least == 0:
                break
            elite = tried[order[: TRIED // 4]]
            mean = elite.mean(0)
            around = (elite - mean).T @ (elite - mean) / len(elite) + 1e-10 * torch.eye(len(names), dtype=torch.float64)
            spread = torch.linalg.cholesky(0.5 * around + 0.5 * spread @ spread.T)
    return {name: value.float() for name, value in zip(names, found, strict=True)}, least


def _losses(dynamics: Dynamics, raw: Raw, current: Tensor, target: Tensor) -> Tensor:
    """The `train_distance` of each of the neurons: (H,)."""
    inputs = current
    if "scale" in raw:
        inputs = current * raw["scale"].exp() + raw["offset"]
    inputs = inputs.expand(-1, -1, len(next(iter(raw.values())))).contiguous()
    return train_distance(_spikes(dynamics, raw, inputs), target)


def _spikes(dynamics: Dynamics, raw: Raw, inputs: Tensor) -> Tensor:
    """Spikes (N, T, H) of the H neurons."""
    return run_sequence(dynamics.with_known(_fields(dynamics, raw)), inputs).spike


def _fields(dynamics: Dynamics, raw: Raw) -> Mapping[str, Tensor]:
    return {name: _from_raw(value, kind) for name, value in raw.items() if (kind := dynamics.transforms.get(name, ""))}


def _from_raw(raw: Tensor, kind: str) -> Tensor:
    """The value of a field; as `sdn.Neuron` has it, which stands above this module."""
    return {"log": torch.exp, "logit": torch.sigmoid, "abs": torch.abs}.get(kind, torch.clone)(raw)


def _to_raw(value: Tensor, kind: str) -> Tensor:
    return {"log": torch.log, "logit": torch.logit}.get(kind, torch.clone)(value)
