"""What a data set is like, in one line for the log: shape, rate, range, classes and their shares."""

import numpy as np
import torch

from spikingssm.datasets.base import IGNORED, SequenceData
from spikingssm.datasets.inputs import Audio, Spikes

__all__ = ["described"]

LOOKED_AT, NAMED = 256, 8
"""Rows that the range is taken from, and classes that are listed."""


def described(data: SequenceData) -> str:
    """Shape, rate and range of what the network reads, and the classes of the training rows with their shares."""
    rows, chosen = data.train_set.rows, data.train_rows
    if not len(chosen):
        rows, chosen = data.test_set.rows, data.test_rows
    some = chosen[torch.linspace(0, len(chosen) - 1, min(LOOKED_AT, len(chosen))).long()].tolist()
    parts = [_shape(data, None if rows.lengths is None else np.asarray(rows.lengths[some]))]
    if data.vocab is None:
        x = data.train_set.prepare(torch.as_tensor(rows.x[some])).float()
        size = f"{x.min():.3g} to {x.max():.3g}, mean {x.mean():.3g}, standard deviation {x.std(correction=0):.3g}"
        parts.append(f"the network reads {size}")
    if data.vocab is None or len(rows.y.shape) == 1:  # a text names none
        parts.append(_classes(data, np.asarray(rows.y[chosen.tolist()])))
    return "; ".join(part for part in parts if part)


def _shape(data: SequenceData, lengths: np.ndarray | None) -> str:
    channels = "tokens" if data.vocab is not None else f"{data.d_input} channel{'s' if data.d_input > 1 else ''}"
    hertz = f" at {data.inputs.hertz} Hz" if isinstance(data.inputs, (Audio, Spikes)) else ""
    real = "" if lengths is None else f", {lengths.min()} to {lengths.max()} of them real"
    return f"{len(data.train_rows)} training rows of {data.length} steps x {channels}{hertz}{real}"


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
