"""Sequences in any of the usual forms -> rows of one shape."""

from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["as_rows"]


def as_rows(x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Sequences in any of the usual forms -> (N, L, C), and the valid steps of each row.

    Args:
        x: (N, L, C) or (L, C) numbers; for one channel also (N, L) or (L,); or a list of (L, C) or (L,), which may
            differ in length.
        channels: C of the network.
        lengths: (N,) valid steps, from 1 to L; None for all. Not with a list.

    Returns:
        rows (N, L, C), zeros behind the end of a list's shorter ones, and (N,) integers or None.

    Raises:
        ValueError: another shape, what is no number, NaN or infinity, or lengths out of range.
    """
    if isinstance(x, (list, tuple)):
        if not x:
            raise ValueError("x is an empty list; give at least one sequence.")
        if lengths is not None:
            raise ValueError("lengths goes with one array (N, L, C); a list of sequences has its own lengths.")
        parts = [as_rows(row, channels)[0] for row in x]
        if wrong := [i for i, part in enumerate(parts) if len(part) != 1]:
            raise ValueError(f"x[{wrong[0]}] must be one sequence (L, {channels}), got {np.shape(x[wrong[0]])}.")
        lengths = np.array([part.shape[1] for part in parts])
        found = np.zeros((len(parts), int(lengths.max()), channels), np.result_type(*parts))
        for row, part in zip(found, parts, strict=True):
            row[: part.shape[1]] = part[0]
        return found, lengths
    found = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"x must hold real numbers, got dtype {found.dtype}.")
    shape = found.shape
    if channels == 1 and found.ndim in (1, 2) and shape[-1:] != (1,):
        found = found.reshape(-1, shape[-1], 1)
    elif found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.shape[2] != channels or not found.size:
        turned = found.ndim == 3 and found.shape[1] == channels
        way = "; x.transpose(0, 2, 1) puts the channels last" if turned else ""
        raise ValueError(f"x must be (N, L, {channels}) for this network, got {shape}{way}.")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        bad = int(np.argmin(np.isfinite(found).all(axis=(1, 2))))
        raise ValueError(f"x holds NaN or infinity, first in row {bad}; clean it first.")
    return found, None if lengths is None else _valid(lengths, found.shape)


def _valid(lengths: Any, shape: tuple[int, ...]) -> np.ndarray:
    valid = lengths.cpu().numpy() if isinstance(lengths, Tensor) else np.asarray(lengths)
    if valid.shape != shape[:1] or valid.dtype.kind not in "iu" or valid.min() < 1 or valid.max() > shape[1]:
        raise ValueError(f"lengths must be ({shape[0]},) integers from 1 to {shape[1]}, got {valid!r:.80}.")
    return valid.astype(np.int64)
