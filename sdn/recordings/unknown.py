"""`learn_neuron`: an unknown neuron from its recording, trained with its spikes given and judged running free."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sdn.checks.arguments import check_count
from sdn.ops.neuron.sequence import run_sequence
from sdn.recordings.data import Recording
from sdn.recordings.fitted import Fitted, say_no_fit, scored, split_of
from sdn.recordings.neuron import LearnedNeuron
from sdn.recordings.scores import score_spikes
from sdn.recordings.weights import Weights, distance, neuron_of, seen, start

__all__ = ["learn_neuron"]

STARTS = 2
"""Random starts, of which the best after `FIRST` and `TRIAL` steps goes on."""
FIRST = 30
"""Steps of Adam before L-BFGS, which needs a sensible place to begin at."""
TRIAL = 60
ROUND = 100
"""Steps of L-BFGS before its memory is emptied."""
THRESHOLDS = 31
VOLTAGE = 0.05
"""Weight of the voltage's error in the loss, in nats of a spike; it is 0 in the last quarter of the steps."""
PEAK = 0.97
"""Quantile that the voltage is cut at: what is above it belongs to the spikes."""


def learn_neuron(
    recording: Recording,
    poles: int = 4,
    hidden: int = 4,
    *,
    steps: int = 600,
    seed: int = 0,
    held_out: Sequence[str] | None = None,
) -> Fitted:
    """Learn a `LearnedNeuron` from the currents and spikes of a recording.

    It is trained with the recorded spikes in the place of its own, by L-BFGS on the likelihood of the next spike: then
    all steps are two scans. Where there is a voltage, its poles and units shall also tell that, below the spikes: it
    says at every step what the neuron remembers. The threshold is set at last where it spikes best when it runs
    free, on the same sweeps. The same arguments give the same numbers.

    Args:
        recording: at the step that the neuron shall have; `Recording.resampled` makes it.
        poles: K complex poles.
        hidden: units behind them; 0 is a linear neuron, with its resets.
        steps: evaluations of the loss, about as many seconds per 100 as the recording has hundreds of thousands of
            steps.
        seed: of the starts.
        held_out: families that are not fitted but scored. None: the last family, or, where there is one only, every
            fourth sweep.

    Returns:
        The neuron, the scale and offset of the current, and scores, all of spikes that it makes running free.

    Raises:
        ValueError: an unknown family, nothing left to fit, or a size out of range.
    """
    check_count("learn_neuron", "poles", poles)
    check_count("learn_neuron", "hidden", hidden, least=0)
    check_count("learn_neuron", "steps", steps)
    fit, held = split_of(recording, held_out)
    scale = 1 / float(fit.current.std().clamp_min(1e-30))
    offset = -float(fit.current.mean()) * scale
    x = fit.current * scale + offset
    target = Target(x.double(), fit.spikes.double(), _below_spikes(fit.voltage))
    generator = torch.Generator().manual_seed(seed)
    w, losses = _trained(poles, hidden, target, steps, generator)
    neuron = _with_threshold(neuron_of(w), x, fit.spikes)
    fitted = scored(Fitted(neuron, scale, offset, recording.dt, recording.units["current"], tuple(losses)), fit, held)
    say_no_fit("learn_neuron", fitted, "take more poles, or fit sweeps that are more like those")
    return fitted


class Target(NamedTuple):
    """What is learned, float64 (N, T): inputs, spikes, and the voltage of variance 1 or None."""

    x: Tensor
    spikes: Tensor
    voltage: Tensor | None


def _below_spikes(voltage: Tensor | None) -> Tensor | None:
    """A voltage without its peaks, of mean 0 and variance 1."""
    if voltage is None:
        return None
    few = voltage.flatten()[:: max(1, voltage.numel() // 100_000)]
    cut = voltage.double().clamp(max=float(torch.quantile(few, PEAK)))
    return (cut - cut.mean()) / cut.std().clamp_min(1e-30)


def _trained(
    poles: int, hidden: int, target: Target, steps: int, generator: torch.Generator
) -> tuple[Weights, list[float]]:
    """The numbers and the losses of the best start."""
    trials = []
    for _ in range(STARTS):
        w = Weights(*(value.double().requires_grad_() for value in start(poles, hidden, generator)))
        reader = torch.zeros(2 * poles + hidden + 2, dtype=torch.float64, requires_grad=True)
        losses: list[float] = []
        _adam(w, reader, target, min(FIRST, steps), losses)
        _newton(w, reader, target, min(TRIAL, steps - len(losses)), losses)
        trials.append((losses[-1], w, reader, losses))
    _, w, reader, losses = min(trials, key=lambda trial: trial[0])
    for until, goal in ((steps * 3 // 4, target), (steps, target._replace(voltage=None))):
        while len(losses) < until:
            before = len(losses)
            _newton(w, reader, goal, min(ROUND, until - len(losses)), losses)
            if len(losses) - before <= 1:  # it is where it cannot become better
                break
    return w, losses


def _loss(w: Weights, reader: Tensor, target: Target) -> Tensor:
    """Minus the mean log likelihood of a spike or of none at each step, in nats, and the voltage's weighted error."""
    found = seen(w, target.x, target.spikes)
    logits = w.sharpness.exp() * distance(w, found, target.x)
    loss = binary_cross_entropy_with_logits(logits, target.spikes)
    if target.voltage is None:
        return loss
    read = found @ reader[2:] + reader[0] + reader[1] * target.x
    return loss + VOLTAGE * (read - target.voltage).square().mean()


def _adam(w: Weights, reader: Tensor, target: Target, steps: int, losses: list[float]) -> None:
    numbers = [*w, reader]
    optimiser = torch.optim.Adam(numbers, lr=0.03)
    for _ in range(steps):
        loss = _loss(w, reader, target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(numbers, 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))


def _newton(w: Weights, reader: Tensor, target: Target, steps: int, losses: list[float]) -> None:
    """L-BFGS for so many evaluations."""
    if steps < 1:
        return
    numbers = [*w] if target.voltage is None else [*w, reader]
    optimiser = torch.optim.LBFGS(
        numbers, max_iter=steps, max_eval=steps, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=1e-9,
        tolerance_change=1e-12,
    )  # fmt: skip

    def evaluated() -> Tensor:
        optimiser.zero_grad()
        loss = _loss(w, reader, target)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        return loss

    optimiser.step(evaluated)  # type: ignore[no-untyped-call]


def _with_threshold(neuron: LearnedNeuron, x: Tensor, spikes: Tensor) -> LearnedNeuron:
    """The neuron with the threshold, out of some around its own, of the best F1 when it runs free."""
    levels = torch.linspace(0.7, 1.3, THRESHOLDS)
    with torch.no_grad():
        inputs = x.unsqueeze(-1).expand(-1, -1, THRESHOLDS).contiguous()
        free = run_sequence(neuron.replace(threshold=levels), inputs).spike > 0
    found = [score_spikes(free[..., i], spikes).f1 for i in range(THRESHOLDS)]
    best = max(range(THRESHOLDS), key=lambda i: (found[i], -abs(float(levels[i]) - 1)))
    return neuron.replace(threshold=float(levels[best]))
