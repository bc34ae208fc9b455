"""How a network does class by class: recall, precision, F1 and who is taken for whom."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["MOST", "by_class", "confusion_text"]

MOST = 100
"""Classes up to which a test keeps who was taken for whom."""


def by_class(matrix: Tensor, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Scores of a confusion matrix.

    Args:
        matrix: (C, C) counts; row: the true class, column: the answer.
        names: of the classes; None for their numbers.

    Returns:
        ``balanced_accuracy``, the mean recall, and ``f1``, the mean F1, over the classes that occur; ``recall``,
        ``precision``, ``f1_of`` and ``rows`` by the name of the class (None for a recall or precision of no row), and
        ``confusion``, the counts.
    """
    counts = matrix.double().cpu()
    right, true, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    recall, precision = right / true, right / said
    f1 = 2 * right / (true + said)
    there = true > 0
    known = [str(i) for i in range(len(counts))] if names is None else list(names)
    return {
        "balanced_accuracy": float(recall[there].mean()) if there.any() else None,
        "f1": float(f1[there].mean()) if there.any() else None,
        "recall": dict(zip(known, _plain(recall), strict=True)),
        "precision": dict(zip(known, _plain(precision), strict=True)),
        "f1_of": dict(zip(known, _plain(f1), strict=True)),
        "rows": dict(zip(known, true.long().tolist(), strict=True)),
        "confusion": counts.long().tolist(),
    }


def confusion_text(found: Mapping[str, Any]) -> str:
    """What `by_class` gives as two tables of text: the scores of each class, and the true classes by the answers."""
    names = list(found["recall"])
    rows = [["class", "rows", "recall", "precision", "F1"]]
    for name in names:
        scores = [found[key][name] for key in ("recall", "precision", "f1_of")]
        rows.append([name, str(found["rows"][name]), *("-" if s is None else f"{100 * s:.1f} %" for s in scores)])
    short = [name[:10] for name in names]
    matrix = [["true \\ answer", *short]]
    matrix += [[name, *map(str, row)] for name, row in zip(names, found["confusion"], strict=True)]
    return f"{_aligned(rows)}\n\n{_aligned(matrix)}"


def _plain(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.to(torch.float64).tolist()]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )
