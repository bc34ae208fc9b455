"""Arrays of one's own data -> rows, with their shapes, kinds and ranges checked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spikingssm.datasets.base import Rows
from spikingssm.datasets.labels import class_numbers
from spikingssm.datasets.numpy_files import npz_names
from spikingssm.datasets.own_labels import REGRESSION
from spikingssm.datasets.targets import LabelTargets, as_numbers

__all__ = ["checked_rows"]

MOST_CLASSES = 2**24


def checked_rows(
    found: dict[str, np.ndarray],
    path: str | Path,
    suffix: str,
    classes: Sequence[str] | None = None,
    kind: str = "classes",
) -> Rows:
    """Arrays of a file -> rows.

    Args:
        found: by name: x (N, L, C), y (N,) or (N, L), lengths (N,), with the suffix.
        path: of the file, for errors.
        suffix: "" or "_test".
        classes: their names, or None.
        kind: what y is: "classes", "numbers", "labels", or "next", which has none.

    Raises:
        ValueError: missing arrays, or arrays of another shape, kind or range.
    """
    wanted = [f"x{suffix}", f"y{suffix}"]
    if missing := [key for key in wanted if key not in found and not (kind == "next" and key[0] == "y")]:
        there = ", ".join(npz_names(path)) or "nothing"
        raise ValueError(
            f"{path}: no array named {' and '.join(missing)}; it holds {there}: write np.savez(..., x=, y=)."
        )
    x, y = found[wanted[0]], found.get(wanted[1], np.zeros(0))
    if classes is not None and y.dtype.kind in "iuU":
        try:
            y = class_numbers(y, classes, len(classes))
        except ValueError as error:
            raise ValueError(f"{path}: {wanted[1]}: {error}") from None
    lengths = found.get(f"lengths{suffix}")
    if x.ndim != 3 or not x.size:
        way = "each is at least 1, one channel is x[:, :, None]"
        if x.ndim > 3:
            way = f"x.reshape(N, L, -1) makes {int(np.prod(x.shape[2:]))} channels of the last axes"
        raise ValueError(f"{path}: {wanted[0]} must be (N, L, C), got {x.shape}; {way}.")
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{path}: {wanted[0]} must hold real numbers, got dtype {x.dtype}.")
    if kind == "classes" and y.dtype.kind not in "iu":
        way = _one_hot(x, y) or (f"; {REGRESSION}" if y.dtype.kind == "f" else "")
        raise ValueError(f"{path}: {wanted[1]} must hold integer labels or names, got {y.dtype}{way}.")
    if kind == "classes" and y.shape not in (x.shape[:1], x.shape[:2]):
        way = "; one column is y[:, 0]" if y.shape == (len(x), 1) else _one_hot(x, y)
        if y.shape == x.shape[1:2]:
            way = f"; if x is (L, N, C), steps first, save x.transpose(1, 0, 2), {len(y)} rows of {len(x)} steps"
        raise ValueError(f"{path}: {wanted[1]} must be {x.shape[:1]} or {x.shape[:2]} for this x, got {y.shape}{way}.")
    x = _native(path, wanted[0], x)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int(np.argmin(np.isfinite(x).all(axis=(1, 2))))
        raise ValueError(f"{path}: {wanted[0]} holds NaN or infinity, first in row {bad}; clean it first.")
    if lengths is not None and (
        lengths.shape != x.shape[:1]
        or lengths.dtype.kind not in "iu"
        or (len(lengths) and (lengths.min() < 1 or lengths.max() > x.shape[1]))
    ):
        raise ValueError(f"{path}: lengths{suffix} must be {x.shape[:1]} integers from 1 to {x.shape[1]}.")
    valid = None if lengths is None else lengths.astype(np.int64)
    if kind != "classes":
        return Rows(x, _asked(path, wanted[1], kind, y, x, valid), valid)
    if (wrong := np.argwhere((y < -MOST_CLASSES) | (y >= MOST_CLASSES))).size:
        raise ValueError(
            f"{path}: {wanted[1]} holds the label {y[tuple(wrong[0])]} in row {wrong[0][0]}, which is no number of a "
            "class."
        )
    return Rows(x, y.astype(np.int64), valid)


def _asked(
    path: str | Path, name: str, kind: str, y: np.ndarray, x: np.ndarray, lengths: np.ndarray | None
) -> np.ndarray:
    """Numbers (N, D) or (N, L, D), sets of labels (N, K), or a place for what comes next, (N, 1)."""
    if kind == "next":
        return np.zeros((len(x), 1))
    try:
        found = LabelTargets().rows(y, x) if kind == "labels" else as_numbers(y, x.shape)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).replace('y', name, 1)}") from None
    if found.ndim == 3 and lengths is not None:
        found = np.where(np.arange(x.shape[1])[:, None] < lengths[:, None, None], found, np.nan)
    return found


def _one_hot(x: np.ndarray, y: np.ndarray) -> str:
    """The way out where each row of y has a single 1."""
    is_one_hot = y.ndim == 2 and y.dtype.kind in "fiub" and len(y) == len(x) and (y.sum(1) == 1).all()
    return "; of one-hot rows save y.argmax(1)" if is_one_hot and np.isin(y, (0, 1)).all() else ""


def _native(path: str | Path, name: str, x: np.ndarray) -> np.ndarray:
    """Numbers as torch takes them: in this machine's order of bytes, and no longer than 64 bits."""
    if x.dtype.kind != "f" or x.dtype.itemsize <= 8:
        kinds = {"u2": np.int32, "u4": np.int64, "u8": np.float64}  # which torch has not, or in part
        kind = kinds.get(f"{x.dtype.kind}{x.dtype.itemsize}", x.dtype.newbyteorder("="))
        return x.astype(kind, copy=False)
    with np.errstate(over="ignore"):
        found = x.astype(np.float64)
    if (np.isinf(found) & np.isfinite(x)).any():
        raise ValueError(f"{path}: {name} holds numbers that 64 bits cannot hold, in {x.dtype}; scale it first.")
    return found
