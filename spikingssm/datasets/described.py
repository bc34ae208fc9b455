"""What a data set is like, in one line for the log: shape, rate, range, classes and their shares, or targets."""

import numpy as np
import torch

from spikingssm.datasets.base import IGNORED, SequenceData
from spikingssm.datasets.inputs import Audio, Spikes
from spikingssm.datasets.targets import LabelTargets

__all__ = ["described"]

LOOKED_AT, NAMED = 256, 8
"""Rows that the range is taken from, and classes that are listed."""


def described(data: SequenceData) -> str:
    """Shape, rate and range of what the network reads, and what the training rows ask for.

    That are the classes with their shares, the range of numbers, or the shares of labels.
    """
    rows, chosen = data.train_set.rows, data.train_rows
    if not len(chosen):
        rows, chosen = data.test_set.rows, data.test_rows
    some = chosen[torch.linspace(0, len(chosen) - 1, min(LOOKED_AT, len(chosen))).long()].tolist()
    parts = [_shape(data, None if rows.lengths is None else np.asarray(rows.lengths[some]))]
    if data.vocab is None:
        x = data.train_set.prepare(torch.as_tensor(rows.x[some])).float()
        size = f"{x.min():.3g} to {x.max():.3g}, mean {x.mean():.3g}, standard deviation {x.std(correction=0):.3g}"
        parts.append(f"the network reads {size}")
    if data.targets is not None:
        every = None if rows.lengths is None else np.asarray(rows.lengths)[chosen.numpy()]
        parts.append(_asked(data, np.asarray(rows.y[chosen.tolist()]), every))
    elif data.vocab is None or len(rows.y.shape) == 1:  # a text names none
        parts.append(_classes(data, np.asarray(rows.y[chosen.tolist()])))
    return "; ".join(part for part in parts if part)


def _shape(data: SequenceData, lengths: np.ndarray | None) -> str:
    channels = "tokens" if data.vocab is not None else f"{data.d_input} channel{'s' if data.d_input > 1 else ''}"
    hertz = f" at {data.inputs.hertz} Hz" if isinstance(data.inputs, (Audio, Spikes)) else ""
    real = "" if lengths is None else f", {lengths.min()} to {lengths.max()} of them real"
    return f"{len(data.train_rows)} training rows of {data.length} steps x {channels}{hertz}{real}"


def _asked(data: SequenceData, y: np.ndarray, lengths: np.ndarray | None) -> str:
    """Range, mean and deviation of the numbers that are asked for, or the shares of the labels."""
    if isinstance(data.targets, LabelTargets):
        each, order = y.mean(0), np.argsort(-y.mean(0), kind="stable")[:NAMED]
        shares = [f"{data.interface.class_name(int(k))} {100 * each[k]:.0f} %" for k in order]
        more = ", ..." if y.shape[1] > NAMED else ""
        return f"{y.shape[1]} labels: {', '.join(shares)}{more}; {y.sum(1).mean():.3g} a row"
    assert data.targets is not None
    if y.ndim == 3 and lengths is not None:
        y = y[np.arange(y.shape[1]) < lengths[:, None]]
    flat = y.reshape(-1, y.shape[-1]).astype(np.float64)
    steps = data.targets.horizon
    what = "targets at every step" if data.targets.steps else "targets"
    what = f"targets are x {steps} step{'s' if steps > 1 else ''} later" if steps else what
    said = [_range(column) for column in flat.T[:NAMED]]
    if len(said) > 1 or data.class_names:
        said = [f"{data.interface.class_name(i)} {each}" for i, each in enumerate(said)]
    missing = 0 if steps else np.isnan(flat).mean()
    tail = f"; {100 * missing:.3g} % of them are missing" if missing else ""
    return f"{what}: {', '.join(said)}{', ...' if flat.shape[1] > NAMED else ''}{tail}"


def _range(y: np.ndarray) -> str:
    real = y[~np.isnan(y)]
    if not real.size:
        return "none"
    places = 2 - int(np.floor(np.log10(real.std()))) if real.std() > 0 else 6  # as many as tell the values apart
    low, high, mean = (f"{round(float(v), places):.12g}" for v in (real.min(), real.max(), real.mean()))
    return f"{low} to {high} (mean {mean}, standard deviation {real.std():.3g})"


def _classes(data: SequenceData, y: np.ndarray) -> str:
    if y.dtype.kind not in "iu" or (data.vocab is not None and y.ndim > 1):
        return ""
    real = y[y != IGNORED]
    if not real.size:
        return ""
    counts = np.bincount(real.ravel(), minlength=data.d_output)
    order = np.argsort(-counts, kind="stable")[:NAMED]
    shares = [f"{data.interface.class_name(int(c))} {100 * counts[c] / real.size:.0f} %" for c in order if counts[c]]
    return f"{data.d_output} classes: {', '.join(shares)}{', ...' if np.count_nonzero(counts) > NAMED else ''}"
