"""Your own data: sequences and labels in one `.npz` file."""

import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from torch import Tensor

from spikingssm.datasets.base import IGNORED, Rows, SequenceData

__all__ = ["arrays"]


def arrays(
    path: str | Path | None = None,
    test_path: str | Path | None = None,
    *,
    name: str | None = None,
    classes: int | None = None,
    test_fraction: float = 0.1,
    scale: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Sequences from ``.npz`` files: ``x`` (N, L, C) numbers, ``y`` (N,) or (N, L) integer labels.

    The test rows are ``x`` and ``y`` of ``test_path``, else ``x_test`` and ``y_test`` of ``path``, else a fixed part of
    its rows. In (N, L) labels -100 marks a step without a label. ``lengths`` (N,), where present, are the valid steps.

    Args:
        path: the file of the training rows.
        test_path: the file of the test rows.
        name: of the data set in results; the file's name by default.
        classes: number of classes; the largest label + 1 by default.
        test_fraction: part of the rows to test on, the same for every seed, where the files hold no test rows.
        scale: factor on x, > 0; what neurons without a norm in front need to fire, see docs/experiments.md.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no path, not an ``.npz`` of plain arrays, missing arrays, or arrays of another shape, type or range.
    """
    if path is None:
        raise ValueError("arrays: no file given; set data.path=FILE.npz with x (N, L, C) and y (N,).")
    if not (isinstance(scale, (int, float)) and 0 < scale < float("inf")):
        raise ValueError(f"arrays: scale must be a number > 0, got {scale!r}.")
    found = _load(Path(path))
    train = _rows(found, path, "")
    _say_axes(path, train.x.shape)
    if test_path is not None:
        test, rule = _rows(_load(Path(test_path)), test_path, ""), f"test: {Path(test_path).name}"
    elif "x_test" in found or "y_test" in found:
        test, rule = _rows(found, path, "_test"), "test: x_test, y_test"
    else:
        train, test = _carve(train, test_fraction)
        rule = f"test: a fixed {test_fraction:.0%} (seed 0)"
    classes = classes if classes is not None else 1 + int(max(train.y.max(), test.y.max()))
    for part, rows in (("train", train), ("test", test)):
        _check_labels(path, part, rows.y, classes)
    if scale != 1:
        options |= {"prepare": functools.partial(_scaled, scale=scale), "notes": {"scale": scale}}
    return SequenceData(
        name or Path(path).stem,
        train,
        test,
        d_output=classes,
        seed=seed,
        split=f"{rule}; validation: from the training rows, by the seed",
        **options,
    )


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x.float() * scale


def _say_axes(path: str | Path, shape: tuple[int, ...]) -> None:
    """Say in one line how axes are read where they may stand in the order of convolutions."""
    rows, steps, channels = shape
    if channels > steps:
        logger.info(
            f"{path}: x {tuple(shape)} is read as {rows} rows of {steps} steps with {channels} channels; if it is "
            "(N, C, L), save x.transpose(0, 2, 1)"
        )


def _load(path: Path) -> dict[str, np.ndarray]:
    """Every array of an ``.npz`` file; no pickled object is read."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; data.path takes an .npz file with x (N, L, C) and y (N,).")
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("one bare array")
            return {key: found[key] for key in found.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{path}: not an .npz file of plain arrays ({reason}); write it with np.savez.") from None


def _rows(found: dict[str, np.ndarray], path: str | Path, suffix: str) -> Rows:
    wanted = [f"x{suffix}", f"y{suffix}"]
    if missing := [key for key in wanted if key not in found]:
        raise ValueError(f"{path}: no array named {' and '.join(missing)}; it holds {sorted(found)}.")
    x, y = (found[key] for key in wanted)
    lengths = found.get(f"lengths{suffix}")
    if x.ndim != 3:
        way = "one channel is x[:, :, None]"
        if x.ndim > 3:
            way = f"x.reshape(N, L, -1) makes {int(np.prod(x.shape[2:]))} channels of the last axes"
        raise ValueError(f"{path}: {wanted[0]} must be (N, L, C), got {x.shape}; {way}.")
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{path}: {wanted[0]} must hold real numbers, got dtype {x.dtype}.")
    if y.dtype.kind not in "iu":
        raise ValueError(f"{path}: {wanted[1]} must hold integer labels, got dtype {y.dtype}.")
    if y.shape not in (x.shape[:1], x.shape[:2]):
        raise ValueError(f"{path}: {wanted[1]} must be {x.shape[:1]} or {x.shape[:2]} for this x, got {y.shape}.")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int(np.argmin(np.isfinite(x).all(axis=(1, 2))))
        raise ValueError(f"{path}: {wanted[0]} holds NaN or infinity, first in row {bad}; clean it first.")
    if lengths is not None and (
        lengths.shape != x.shape[:1]
        or lengths.dtype.kind not in "iu"
        or (len(lengths) and (lengths.min() < 1 or lengths.max() > x.shape[1]))
    ):
        raise ValueError(f"{path}: lengths{suffix} must be {x.shape[:1]} integers from 1 to {x.shape[1]}.")
    return Rows(x, y.astype(np.int64), lengths)


def _check_labels(path: str | Path, part: str, y: np.ndarray, classes: int) -> None:
    real = y[y != IGNORED] if y.ndim == 2 else y
    if not real.size or real.min() < 0 or real.max() >= classes:
        seen = f"labels from {real.min()} to {real.max()}" if real.size else "no label"
        raise ValueError(f"{path}: {part} has {seen}, {classes} classes take 0 to {classes - 1}; see data.classes.")


def _carve(rows: Rows, fraction: float) -> tuple[Rows, Rows]:
    """The rows without, and the rows of, a fixed test part."""
    order = np.random.default_rng(0).permutation(len(rows.x))
    tested = round(len(order) * fraction)
    if not 0 < tested < len(order):
        raise ValueError(f"arrays: test_fraction must leave rows on both sides of {len(order)}, got {fraction}.")
    pick = [Rows(*(None if a is None else a[index] for a in rows)) for index in (order[tested:], order[:tested])]
    return pick[0], pick[1]
