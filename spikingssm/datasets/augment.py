"""Augmentation of spike trains: time jitter, channel shift, CutMix. Each draws from the generator it is given."""

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np

__all__ = [
    "CUTMIX",
    "SHIFTS",
    "Mix",
    "channel_shift",
    "cutmix",
    "expected_dropped",
    "generator",
    "time_jitter",
    "window",
]

SHIFTS = "none", "batch", "sample"
CUTMIX = "none", "published", "corrected"
SHIFT_PROBABILITY = 0.2
RETRIES = 100
"""Draws of a mix after which a batch stays unmixed."""
JITTER, SHIFT, MIX = range(3)
"""Streams of random numbers."""


class Mix(NamedTuple):
    """A mixed batch of B sequences."""

    x: np.ndarray
    """(B, L, C)."""
    partner: np.ndarray
    """(B,) the sequence that the pasted steps are from; its own number where nothing is mixed."""
    weight: np.ndarray
    """(B,) float32, the part of the spikes that is its own, in [0, 1]."""
    window: tuple[int, int]
    """The pasted steps, first and the one behind the last."""


def generator(seed: int, epoch: int, stream: int, *rows: int) -> np.random.Generator:
    """A generator of its own for each (seed, epoch, stream, rows): what it draws depends on nothing else."""
    return np.random.default_rng([seed, epoch, stream, *rows])


def time_jitter(
    times: np.ndarray, units: np.ndarray, sd: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Times with Gaussian noise, rounded toward zero, without the events that then lie before 0.

    Events keep their order and may be out of the order of time: `Binning` takes them in any. How many are dropped on
    average is `expected_dropped`. The noise is drawn in single precision.

    Args:
        times: (E,) microseconds, integers >= 0.
        units: (E,) channels.
        sd: standard deviation of the noise in microseconds.
        random: what the noise is drawn from.

    Returns:
        times int64 and units of the events that are kept.

    Source: tonic, ``functional/time_jitter.py`` with ``clip_negative``.
    """
    noise = random.standard_normal(len(times), dtype=np.float32)
    noise *= np.float32(sd)
    # Whole and fraction apart: single precision holds no time of 1 s with a fraction of a microsecond.
    moved = times + np.floor(noise).astype(np.int64)
    if moved.min(initial=0) < 0:
        kept = times + np.ceil(noise).astype(np.int64) >= 0  # those above -1 are rounded to 0
        moved, units = np.maximum(moved, 0)[kept], units[kept]
    return moved, units


def expected_dropped(times: np.ndarray, sd: float) -> float:
    """How many events of one recording `time_jitter` drops on average: the sum of P(time + noise <= -1).

    Args:
        times: (E,) microseconds, in order.
        sd: standard deviation of the noise in microseconds, > 0.
    """
    early = times[: bisect_left(times, 40 * sd)]  # behind it that probability is below the smallest double
    return sum(math.erfc((time + 1) / (sd * math.sqrt(2))) for time in early.tolist()) / 2


def channel_shift(x: np.ndarray, how: str, seed: int, epoch: int, rows: list[int]) -> np.ndarray:
    """Channels moved up by one with probability 0.2, down by one with probability 0.2, in a circle.

    Args:
        x: (B, L, C).
        how: "batch" moves all sequences alike, "sample" each on its own, "none" no one.
        seed: of the run.
        epoch: the epoch.
        rows: (B,) numbers of the sequences; "sample" draws from each one's own, whatever else is in the batch.
    """
    if how == "none":
        return x
    if how == "batch":
        return np.roll(x, _shift(generator(seed, epoch, SHIFT, *rows)), axis=-1)
    steps = [_shift(generator(seed, epoch, SHIFT, row)) for row in rows]
    return np.stack([np.roll(sequence, step, axis=-1) for sequence, step in zip(x, steps, strict=True)])


def cutmix(x: np.ndarray, how: str, random: np.random.Generator) -> Mix:
    """Steps of a window, one for the whole batch, replaced by those of a random permutation of the batch.

    A mix that leaves a sequence without a spike is drawn again, at most 100 times; then nothing is mixed. Weights are
    counts of spikes: own remaining / (own remaining + pasted).

    Args:
        x: (B, L, C) spikes or counts of them.
        how: `window` of "published" or "corrected"; "none" mixes nothing.
        random: what is drawn from.

    Source: Huber et al., arXiv:2504.00719, and its code; after Yun et al., "CutMix", ICCV 2019.
    """
    batch, steps = x.shape[:2]
    spikes = np.zeros((batch, steps + 1), np.int64)  # before each step
    x.sum(-1, dtype=np.uint32).cumsum(1, dtype=np.int64, out=spikes[:, 1:])
    for _ in range(0 if how == "none" else RETRIES):
        kept, centre = random.uniform(), int(random.integers(steps))
        first, end = window(how, centre, int(steps * (1 - kept)), steps)
        partner = random.permutation(batch)
        inside = spikes[:, end] - spikes[:, first]
        own, pasted = spikes[:, -1] - inside, inside[partner]
        if (own + pasted).all():
            mixed = x.copy()
            mixed[:, first:end] = x[partner, first:end]
            return Mix(mixed, partner, (own / (own + pasted)).astype(np.float32), (first, end))
    return Mix(x, np.arange(batch), np.ones(batch, np.float32), (0, 0))


def window(how: str, centre: int, width: int, steps: int) -> tuple[int, int]:
    """The window of CutMix, cut off at both ends: first step and the one behind the last.

    Args:
        how: "corrected" has ``width`` steps around ``centre``. "published" is what the published code does: it has as
            many around *half* of ``centre``, and so never reaches the last step.
        centre: a step, 0 <= centre < steps.
        width: steps, 0 <= width <= steps.
        steps: of the sequences.
    """
    doubled = centre if how == "published" else 2 * centre
    return max(0, (doubled - width) // 2), min(steps, max(0, (doubled + width) // 2))


def _shift(random: np.random.Generator) -> int:
    drawn = random.uniform()
    return 1 if drawn < SHIFT_PROBABILITY else -1 if drawn < 2 * SHIFT_PROBABILITY else 0
