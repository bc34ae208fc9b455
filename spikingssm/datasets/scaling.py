"""The size of the numbers of one's own data: a factor, or what the training rows give."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spikingssm.datasets.audio import fitted, level
from spikingssm.datasets.base import Rows
from spikingssm.datasets.inputs import Audio, Inputs, Numbers

__all__ = ["SCALES", "check_scale", "inputs_for", "to_length"]

SCALES = ("auto", "standardise", "unit")


def check_scale(scale: Any) -> None:
    """Refuse what is no scale.

    Raises:
        ValueError: neither a number > 0 nor one of `SCALES`.
    """
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if scale not in SCALES and not (is_number and 0 < float(scale) < math.inf):
        raise ValueError(
            f"arrays: scale must be a number > 0, {', '.join(SCALES[:-1])} or {SCALES[-1]}, got {scale!r}."
        )


def inputs_for(
    train: Rows, scale: float | str, scaling: Mapping[str, Any] | None, hertz: int | None, samples: int | None
) -> tuple[Inputs, dict[str, Any]]:
    """How x becomes what the network reads, and what was found for that in the training rows.

    Args:
        train: the training rows.
        scale: a number, or one of `SCALES`.
        scaling: what was found before, see `spikingssm.datasets.arrays`; None looks at the rows.
        hertz: of sound, else None.
        samples: of a row of sound; None is the longest clip.

    Returns:
        the inputs, and the settings ``scaling``, ``samples`` and ``hertz`` that give the same for other rows.

    Raises:
        ValueError: settings that do not fit the rows.
    """
    lengths = np.full(len(train.x), train.x.shape[1]) if train.lengths is None else train.lengths
    factor = 1.0 if isinstance(scale, str) else scale
    if hertz is not None:
        if scaling is None:
            energy = np.square(train.x, dtype=np.float64).sum((1, 2))
            scaling = {"divide": level("arrays", energy, int(lengths.sum()))}
        rows = int(lengths.max()) if samples is None else samples
        kept = {"scaling": dict(scaling), "samples": rows, "hertz": hertz}
        return Audio(hertz, float(scaling["divide"]) / factor, 1, rows), kept
    if samples is not None:
        raise ValueError(f"arrays: samples is for folders of sound, got {samples}; leave data.samples out.")
    if scaling is None and not isinstance(scale, str):
        return Numbers(scale=factor), {}
    if scaling is None and scale == "auto" and np.isin(train.x, (0, 1)).all():
        scaling = {"divide": 1.0}
    if scaling is None:
        real = np.concatenate([row[:n].reshape(n, -1) for row, n in zip(train.x, lengths, strict=True)])
        if scale == "unit":
            scaling = {"divide": float(np.abs(real).max()) or 1.0}
        else:
            mean, std = real.mean(0, dtype=np.float64), real.std(0, dtype=np.float64)
            scaling = {"mean": mean.tolist(), "std": np.where(std > 0, std, 1.0).tolist()}
    numbers = {key: tuple(value) if isinstance(value, Sequence) else value for key, value in scaling.items()}
    if set(numbers) not in ({"mean", "std"}, {"divide"}):
        raise ValueError(f"arrays: scaling must be {{mean, std}} or {{divide}}, got {dict(scaling)}.")
    channels = train.x.shape[2]
    if "mean" in numbers and {len(numbers["mean"]), len(numbers["std"])} != {channels}:
        raise ValueError(f"arrays: scaling has {len(numbers['mean'])} means for {channels} channels.")
    made: Any = Numbers
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in numbers.items()}
    return made(**numbers, scale=factor), {"scaling": kept}


def to_length(inputs: Inputs, rows: Rows) -> Rows:
    """Rows of sound at the length that the network reads; others as they are."""
    if not isinstance(inputs, Audio):
        return rows
    lengths = np.full(len(rows.x), rows.x.shape[1]) if rows.lengths is None else rows.lengths
    x = np.stack([fitted(row[:n, 0], inputs.length) for row, n in zip(rows.x, lengths, strict=True)])
    return Rows(x[:, :, None], rows.y, np.minimum(lengths, inputs.length))
