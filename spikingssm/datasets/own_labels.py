"""Labels of one's own data: how many classes they are, and whether they are classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from loguru import logger

from spikingssm.datasets.base import IGNORED, Rows

__all__ = ["check_kinds", "check_labels", "check_names", "count_classes", "say_missing"]

FEW_CLASSES = 10_000
REGRESSION = "numbers are for task=regression, or data.targets=numbers"


def check_kinds(path: str | Path, labels: Sequence[np.ndarray]) -> None:
    """Refuse whole numbers in one file and decimals in the other.

    Args:
        path: of the file, for errors.
        labels: y for training and y for testing.

    Raises:
        ValueError: it names both kinds.
    """
    kinds = {y.dtype.kind.replace("u", "i"): y.dtype for y in labels}
    if len(labels) == 2 and {"i", "f"} <= kinds.keys():
        raise ValueError(
            f"{path}: y for training holds {labels[0].dtype} and y for testing {labels[1].dtype}; whole numbers are "
            f"classes, so store both as integers; {REGRESSION}."
        )


def check_names(path: str | Path, labels: Sequence[np.ndarray]) -> None:
    """Refuse names that are decimals where more than half of the rows have one of their own.

    Args:
        path: of the file, for errors.
        labels: arrays of numbers or of text; "" is a step without a label.

    Raises:
        ValueError: it says how many they are.
    """
    texts = [text for y in labels if y.dtype.kind == "U" for text in y.ravel().tolist() if text]
    try:
        numbers = np.array(texts, np.float64)
    except ValueError:
        return
    different = len(set(texts))
    if 2 * different > len(texts) and (np.isfinite(numbers) & (numbers != np.rint(numbers))).any():
        raise ValueError(
            f"{path}: y must hold integer labels or names, got {different} different decimals in {len(texts)} labels; "
            f"{REGRESSION}."
        )


def say_missing(path: str | Path, train: np.ndarray, test: np.ndarray, test_only: bool) -> None:
    """Say which classes no training row shows, though there are outputs for them, or test rows."""
    missing = np.setdiff1d(np.arange(1 + max(train.max(), test.max())), train)
    if missing.size and not test_only:
        tested = (
            f", and {np.isin(test, missing).sum()} test labels are among them" if np.isin(missing, test).any() else ""
        )
        names = ", ".join(map(str, missing[:6])) + (", ..." if missing.size > 6 else "")
        logger.warning(f"{path}: no training row has the label {names} ({missing.size} of {missing[-1] + 1}){tested}")


def count_classes(path: str | Path, train: Rows, test: Rows) -> int:
    """The largest label + 1, over the training and the test rows."""
    known = 1 + max(int(train.y.max()), int(test.y.max()))
    if known > max(FEW_CLASSES, train.y.size):
        rows, y = ("train", train.y) if train.y.max() == known - 1 else ("test", test.y)
        row = int(np.argwhere(y == known - 1)[0][0])
        raise ValueError(
            f"{path}: {rows} has the label {known - 1} in row {row}, which would be {known} classes for {train.y.size} "
            "labels; number the classes from 0 on, or set data.classes."
        )
    return known


def check_labels(path: str | Path, part: str, y: np.ndarray, classes: int) -> None:
    """Refuse labels (N,) or (N, L) that are no class, in (N, L) but `IGNORED`.

    Args:
        path: of the file, for errors.
        part: "train" or "test".
        y: the labels.
        classes: how many there are.

    Raises:
        ValueError: it names the row.
    """
    real = y[y != IGNORED] if y.ndim == 2 else y
    if not real.size:
        raise ValueError(f"{path}: {part} has no label, {classes} classes take 0 to {classes - 1}; see data.classes.")
    wrong = np.argwhere(((y < 0) | (y >= classes)) & ~((y == IGNORED) & (y.ndim == 2)))
    if len(wrong):
        raise ValueError(
            f"{path}: {part} has labels from {real.min()} to {real.max()}, {classes} classes take 0 to {classes - 1} "
            f"(row {wrong[0][0]} has {y[tuple(wrong[0])]}); see data.classes."
        )
