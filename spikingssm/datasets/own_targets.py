"""Targets of one's own data: numbers, sets of labels, or what comes next in x."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from spikingssm.datasets.base import Rows
from spikingssm.datasets.inputs import Audio, Inputs, Numbers
from spikingssm.datasets.targets import LabelTargets, Targets, ahead, scaled

__all__ = ["TARGETS", "kind_of", "target_names", "with_targets"]

TARGETS = ("classes", "numbers", "labels", "next")


def kind_of(targets: str | None) -> str:
    """What y is: one of `TARGETS`.

    Args:
        targets: what is asked for; None is classes.

    Raises:
        ValueError: another word.
    """
    if targets not in (None, *TARGETS):
        raise ValueError(f"arrays: targets must be null or one of {', '.join(TARGETS)}, got {targets!r}.")
    return targets or "classes"


def with_targets(
    path: str | Path,
    kind: str,
    train: Rows,
    test: Rows,
    inputs: Inputs,
    scaling: Mapping[str, Any] | None,
    horizon: int | None,
) -> tuple[Rows, Rows, Targets]:
    """Rows with what is asked for, and its scale.

    Args:
        path: of the file, for errors.
        kind: "numbers", "labels" or "next".
        train: rows with y (N, D) or (N, L, D), or (N, K).
        test: likewise.
        inputs: how x is read.
        scaling: found before, see `scaled`; None finds it in the training rows.
        horizon: steps ahead, for "next"; None is 1.

    Raises:
        ValueError: training and test rows of other shapes, or what `scaled` and `ahead` refuse.
    """
    horizon = 1 if horizon is None else horizon
    try:
        if kind == "next":
            if not isinstance(inputs, (Numbers, Audio)):
                raise ValueError("task=forecast is for numbers and sound.")
            train, test = (
                rows._replace(y=ahead(inputs.units(rows.x), horizon, rows.lengths)) for rows in (train, test)
            )
        shapes = [rows.y.shape[1:] if rows.y.ndim == 2 else ("steps", rows.y.shape[-1]) for rows in (train, test)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"y for training is {train.y.shape} and y for testing {test.y.shape}; both must be alike.")
        if kind == "labels":
            return train, test, LabelTargets()
        found = scaled(train.y, scaling, horizon if kind == "next" else 0)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _say_constant(path, train.y)
    return train, test, found


def target_names(path: str | Path, names: Any, count: int) -> tuple[str, ...] | None:
    """The names of the numbers or labels, where ``data.classes`` gives them.

    Raises:
        ValueError: not one for each.
    """
    if isinstance(names, int):
        names = None if names == count else [""] * names
    if names is not None and len(names) != count:
        raise ValueError(f"{path}: data.classes names {len(names)} and y has {count} a row; give one name for each.")
    return None if names is None else tuple(names)


def _say_constant(path: str | Path, y: np.ndarray) -> None:
    """Say which numbers never change, so that there is nothing to learn."""
    flat = y.reshape(-1, y.shape[-1])
    same = np.flatnonzero(np.nanmax(flat, 0) == np.nanmin(flat, 0))
    if same.size:
        which = "" if flat.shape[1] == 1 else f" number {', '.join(map(str, same[:6]))}"
        logger.warning(
            f"{path}: every training target{which} is {np.nanmax(flat[:, same[0]]):.6g}; there is nothing to learn"
        )
