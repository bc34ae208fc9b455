"""Weights of the classes in the training loss: given, or such that every class counts alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikingssm.datasets.base import IGNORED, SequenceData
from spikingssm.datasets.interface import Interface

__all__ = ["BALANCED", "as_tensor", "balanced", "check_weights", "weights_for"]

BALANCED = "balanced"


def check_weights(name: str, weights: Any) -> tuple[float, ...] | dict[str, float] | str | None:
    """The option ``class_weights`` of a task as it is kept: a word, a tuple, numbers by name, or None.

    Raises:
        ValueError: anything else than "balanced", numbers >= 0 that are not all 0, also by name, or None.
    """
    if weights is None or (isinstance(weights, str) and weights == BALANCED):
        return weights
    if isinstance(weights, Mapping) and weights and all(map(_is_weight, weights.values())) and any(weights.values()):
        return {str(name): float(weight) for name, weight in weights.items()}
    weights = weights.tolist() if isinstance(weights, (np.ndarray, Tensor)) else weights
    listed = isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) > 0
    if not listed or not all(_is_weight(w) for w in weights) or not any(weights):
        raise ValueError(
            f"{name}: class_weights must be {BALANCED}, numbers >= 0 by the names of the classes such as "
            "{run: 1, jump: 5}, a list in the order of the classes, or null, got "
            f"{weights!r:.80}."
        )
    return tuple(map(float, weights))


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def balanced(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """``N / (K n_c)`` for a class with n_c of N labels, K classes being there; 0 for one without a label.

    The mean weight over the labels is 1, so that the size of the loss stays as it is.

    Args:
        labels: of the training rows, any shape; `IGNORED` is none.
        classes: number of classes.
    """
    counts = np.bincount(labels[labels != IGNORED].ravel(), minlength=classes)
    there = np.count_nonzero(counts)
    return tuple(float(counts.sum() / (there * n)) if n else 0.0 for n in counts)


def weights_for(
    weights: tuple[float, ...] | Mapping[str, float] | str | None,
    interface: Interface,
    data: SequenceData | None,
    unlabelled_as: int | None = None,
    ignored: int = IGNORED,
) -> tuple[float, ...] | str | None:
    """The weights for some data; "balanced" is left where there are no training rows, of which the loss asks nothing.

    Args:
        weights: as `check_weights` gives it.
        interface: with the number of the classes and their names.
        data: with the training rows, or None.
        unlabelled_as: the class that steps without a label count as, or None.
        ignored: the label of steps without one.

    Raises:
        ValueError: another number of weights than classes, or other names.
    """
    classes = interface.d_output  # a number of a file, which may be any
    if isinstance(weights, Mapping):
        names = [interface.class_name(number) for number in range(min(classes, len(weights) + 1))]
        if sorted(weights) != sorted(names):
            raise ValueError(
                f"task.class_weights names {', '.join(weights)}, the classes are {_first(interface)}; give one for "
                "each."
            )
        return tuple(weights[name] for name in names)
    if isinstance(weights, tuple) and len(weights) != classes:
        raise ValueError(
            f"task.class_weights has {len(weights)} weights for {classes} classes; give one for each, in the order "
            f"{_first(interface)}."
        )
    if weights != BALANCED or data is None or not len(data.train_rows):
        return weights
    rows, chosen = data.train_set.rows, data.train_rows.tolist()
    y = np.asarray(rows.y[chosen])
    y = np.where((y == ignored) | (y == IGNORED), IGNORED if unlabelled_as is None else unlabelled_as, y)
    if y.ndim == 2 and rows.lengths is not None:
        y = y[np.arange(y.shape[1]) < np.asarray(rows.lengths[chosen])[:, None]]
    return balanced(y, classes)


def _first(interface: Interface, most: int = 12) -> str:
    """The names of the classes, or of the first of many."""
    names = [interface.class_name(number) for number in range(min(interface.d_output, most))]
    return ", ".join(names) + (", ..." if interface.d_output > most else "")


def as_tensor(name: str, weights: tuple[float, ...] | Mapping[str, float] | str | None, like: Tensor) -> Tensor | None:
    """The weights as cross entropy takes them, (C,) beside logits (..., C); None for none.

    Raises:
        ValueError: "balanced" where no training rows have been counted.
    """
    if isinstance(weights, (str, Mapping)):
        raise ValueError(
            f"{name}: class_weights={weights} needs the training rows; call spikingssm.tasks.told(task, "
            "data.interface, data) first, as train.py does."
        )
    return None if weights is None else torch.as_tensor(weights, dtype=like.dtype, device=like.device)
