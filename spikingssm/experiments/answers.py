"""Answers that are numbers or sets of labels, as lines of text and as rows of a table."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spikingssm.datasets.interface import Interface
from spikingssm.datasets.sequences import Sequences
from spikingssm.datasets.targets import LabelTargets, NumberTargets
from spikingssm.experiments.trained import Prediction

__all__ = ["target_lines", "target_rows", "value_names"]


def value_names(interface: Interface) -> list[str]:
    """What each number is called: its name, or value."""
    if interface.classes is not None:
        return list(interface.classes)
    return ["value"] if interface.d_output == 1 else [f"value[{i}]" for i in range(interface.d_output)]


def target_lines(part: Sequences, answer: Prediction, interface: Interface) -> Iterator[str]:
    """A line a sequence, and how good they are where their targets are known."""
    width = max(map(len, part.names))
    known = _known(part, interface)
    sets = isinstance(interface.targets, LabelTargets)
    for row, name in enumerate(part.names):
        said = _set(answer, row) if sets else _numbers(_values(answer, row))
        mark = ""
        if known is not None and sets:
            right = (answer.labels[row].numpy() == known[row]).all()
            is_ = ", ".join(interface.class_name(int(k)) for k in np.flatnonzero(known[row])) or "none"
            mark = "" if right else f"  (is {is_})"
        elif known is not None and known.ndim == 2:
            mark = f"  (is {_numbers(known[row : row + 1])})"
        yield f"{name:<{width}}  {said}  {int(answer.spikes[row])} spikes{mark}"
    if known is not None:
        yield _together(answer, known, sets)


def target_rows(names: Sequence[str], answer: Prediction, interface: Interface) -> Iterator[list[Any]]:
    """A row a sequence, or a row a step; the spikes of a sequence stand in its last row."""
    for row, name in enumerate(names):
        spikes = int(answer.spikes[row])
        if isinstance(interface.targets, LabelTargets):
            assert answer.probabilities is not None
            assert answer.names is not None
            shares = (f"{p:.6f}" for p in answer.probabilities[row].tolist())
            yield [name, "", ";".join(answer.names[row]), *shares, spikes]
            continue
        values = _values(answer, row, interface.d_output)
        every = answer.labels.ndim == 3 or (answer.labels.ndim == 2 and interface.d_output == 1)
        for step, each in enumerate(values.tolist()):
            last = step == len(values) - 1
            yield [name, step if every else "", *(f"{v:.9g}" for v in each), spikes if last else ""]


def _values(answer: Prediction, row: int, outputs: int | None = None) -> np.ndarray:
    """Answers of one sequence as (steps, D), without those behind its end."""
    values = answer.labels[row].numpy()
    outputs = answer.logits.shape[-1] if outputs is None else outputs
    values = values.reshape(-1, outputs)
    real: np.ndarray = values[~np.isnan(values).all(1)]
    return real


def _numbers(values: np.ndarray) -> str:
    """The numbers of a sequence; of several steps their range and mean."""
    if len(values) == 1:
        return ", ".join(f"{v:.6g}" for v in values[0])
    parts = [f"{v.min():.6g} to {v.max():.6g}, mean {v.mean():.6g}" for v in values.T[:4]]
    return f"{len(values)} steps: {'; '.join(parts)}"


def _set(answer: Prediction, row: int) -> str:
    """The labels of a sequence with their probabilities."""
    assert answer.probabilities is not None
    assert answer.names is not None
    shares = answer.probabilities[row][answer.labels[row] == 1].tolist()
    told = [f"{name} {100 * share:.1f} %" for name, share in zip(answer.names[row], shares, strict=True)]
    return ", ".join(told) or "none"


def _known(part: Sequences, interface: Interface) -> np.ndarray | None:
    """The targets that a file holds; None where there are none, or other ones."""
    assert interface.targets is not None
    if part.labels is None or (isinstance(interface.targets, NumberTargets) and interface.targets.horizon):
        return None
    lengths = [len(row) for row in part.x]
    try:
        return interface.targets.rows(np.asarray(part.labels), np.empty((len(lengths), max(lengths), 0)))
    except ValueError:  # names of classes, say: the question is still answered
        return None


def _together(answer: Prediction, known: np.ndarray, sets: bool) -> str:
    if sets:
        right = answer.labels.numpy() == known
        return f"{int(right.all(1).sum())} of {len(known)} sets right, {100 * right.mean():.1f} % of all labels"
    away = np.abs(answer.labels.numpy().reshape(known.shape) - known)
    return f"mean absolute error {np.nanmean(away):.6g}, root of the mean square {np.sqrt(np.nanmean(away**2)):.6g}"
