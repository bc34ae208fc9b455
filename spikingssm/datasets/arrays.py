"""Your own data: sequences and labels in an `.npz` or `.csv` file, or a folder of one folder a class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.labels import class_names
from spikingssm.datasets.own import Found, read_own
from spikingssm.datasets.own_labels import check_kinds, check_labels, check_names, count_classes, say_missing
from spikingssm.datasets.own_rows import checked_rows
from spikingssm.datasets.own_targets import kind_of, target_names, with_targets
from spikingssm.datasets.scaling import check_scale, inputs_for, to_length
from spikingssm.datasets.targets import NumberTargets

__all__ = ["arrays"]


def arrays(
    path: str | Path | None = None,
    test_path: str | Path | None = None,
    *,
    name: str | None = None,
    classes: int | Sequence[str | int] | None = None,
    test_fraction: float = 0.1,
    scale: float | str = 1.0,
    scaling: Mapping[str, Any] | None = None,
    hertz: int | None = None,
    samples: int | None = None,
    targets: str | None = None,
    target_scaling: Mapping[str, Any] | None = None,
    horizon: int | None = None,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Sequences of one's own: ``x`` (N, L, C) numbers, ``y`` (N,) or (N, L) labels, which are integers or names.

    ``y`` may also be numbers that are asked for, of sequences (N,) or (N, D) or of steps (N, L) or (N, L, D), with NaN
    for a missing one; or sets of labels (N, K) of 0 and 1. ``targets`` says which.

    They lie in an ``.npz`` or ``.csv`` file, or in a folder of one folder a class, see `spikingssm.datasets.own`. The
    test rows are ``x`` and ``y`` of ``test_path``, else ``x_test`` and ``y_test`` of ``path``, else a fixed part of
    its rows. In (N, L) labels -100 marks a step without a label. ``lengths`` (N,), where present, are the valid steps.

    Args:
        path: the file of the training rows.
        test_path: the file of the test rows.
        name: of the data set in results; the file's name by default.
        classes: number of classes, or their names in the order of their numbers; by default the largest label + 1, or
            all names: whole numbers in their order, words in that of the alphabet, see `spikingssm.datasets.labels`.
            Of numbers and sets of labels, their names.
        test_fraction: part of the rows to test on, the same for every seed, where the files hold no test rows.
        scale: factor on x, > 0; what neurons without a norm in front need to fire, see docs/experiments.md. Bytes may
            be pixels, which take 1 / 255, or spikes, which take 1: they are left as they are, and the log says so.
            "standardise": minus the mean and by the standard deviation of each channel over the real steps of the
            training rows. "unit": divided by the largest size in the training rows. "auto": spikes, which are 0 and 1,
            as they are, and other numbers standardised.
        scaling: what "auto", "standardise" or "unit" has found, as a run keeps it: ``{mean, std}`` or ``{divide}``;
            None finds it in the training rows. It is used whatever ``scale`` is, and a number comes on top.
        hertz: samples a second that sound is brought to; None is the rate of the first file.
        samples: of a row of sound; None is the longest clip of the training.
        targets: what ``y`` is: "classes", "numbers", "labels", or "next": x itself ``horizon`` steps later, without y.
            None is classes; a run asks for what its task needs.
        target_scaling: mean and standard deviation of the numbers as a run keeps them, ``{mean, std}``; None finds them
            in the training rows.
        horizon: steps ahead, for "next"; None is 1, and a run asks for that of its task.
        test_only: read the test rows only, for `spikingssm.evaluate`: those of ``test_path``, else ``x_test`` and
            ``y_test`` of ``path``. There is nothing to train on then.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no path, not an ``.npz`` of plain arrays, missing arrays, or arrays of another shape, type or range.
    """
    if path is None:
        raise ValueError("arrays: no file given; set data.path=FILE.npz with x (N, L, C) and y (N,).")
    check_scale(scale)
    given: Any = classes
    if isinstance(given, (list, tuple)) and all(isinstance(each, (int, str)) for each in given):
        given = classes = [str(each) for each in given]
    listed = isinstance(given, (list, tuple)) and all(isinstance(each, str) for each in given)
    listed = listed and len(set(given)) == len(given)
    if classes is not None and not listed and (not isinstance(classes, int) or classes < 1):
        raise ValueError(f"arrays: classes must be an integer >= 2, a list of names, or null, got {classes!r:.200}.")
    found = _parts(path, test_path, test_fraction, test_only, hertz, classes, targets)
    train, test, names, asked = found.train, found.test, found.names, None
    known = _known(path, found, classes, test_only) if found.kind == "classes" else 0
    _check_bytes(path, train.x, test.x, scale)
    inputs, more = inputs_for(train, scale, scaling, found.hertz, samples)
    train, test = (to_length(inputs, rows) for rows in (train, test))
    if found.kind != "classes":
        train, test, asked = with_targets(path, found.kind, train, test, inputs, target_scaling, horizon)
        known = train.y.shape[-1]
        names = target_names(path, classes, known)
    if isinstance(asked, NumberTargets):
        more = {**more, "target_scaling": asked.scaling}
    return SequenceData(
        name or Path(path).stem,
        train,
        test,
        d_output=known,
        inputs=inputs,
        class_names=names,
        seed=seed,
        split=f"{found.rule}; validation: from the training rows, by the seed",
        fitted={**({"classes": list(names) if names else known} if names or asked is None else {}), **more},
        targets=asked,
        test_only=test_only,
        notes={"scale": scale} if scale != 1 or train.x.dtype == np.uint8 else {},
        **options,
    )


class _Parts(NamedTuple):
    """Training and test rows, the test rows twice where they are all, and where they come from."""

    train: Rows
    test: Rows
    rule: str
    tested: str | Path
    names: tuple[str, ...] | None
    hertz: int | None
    kind: str


def _known(path: str | Path, found: _Parts, classes: Any, test_only: bool) -> int:
    """The number of classes; labels that are none of them are refused."""
    train, test, names = found.train, found.test, found.names
    known = len(names) if names else count_classes(path, train, test) if not isinstance(classes, int) else classes
    for file, part, rows in ((path, "train", train), (found.tested, "test", test)):
        check_labels(file, part, rows.y, known)
    say_missing(path, train.y, test.y, test_only)
    if known < 2:
        raise ValueError(
            f"{path}: every label is {names[0] if names else int(train.y.max())}, a network needs two classes or more "
            "to tell apart; add rows of another class, or set data.classes to their number."
        )
    return known


def _parts(
    path: str | Path,
    test_path: str | Path | None,
    test_fraction: float,
    test_only: bool,
    hertz: int | None,
    classes: Any,
    targets: str | None,
) -> _Parts:
    found = Found({}, hertz) if test_only and test_path is not None else read_own(path, hertz)
    rate = found.hertz
    other = None if test_path is None else read_own(test_path, rate)
    rate = rate or (None if other is None else other.hertz)
    labels = [part.arrays[key] for part in (found, other) if part for key in ("y", "y_test") if key in part.arrays]
    kind = kind_of(targets)
    if kind == "classes":
        check_kinds(path, labels)
    names = _names(path, labels, classes) if kind == "classes" else None
    train = None if test_only else checked_rows(found.arrays, path, "", names, kind)
    if train is not None:
        _say_axes(path, train.x.shape)
    if test_path is not None and other is not None:
        test, rule = checked_rows(other.arrays, test_path, "", names, kind), f"test: {Path(test_path).name}"
        return _Parts(train or test, test, rule, test_path, names, rate, kind)
    if train is None or "x_test" in found.arrays or "y_test" in found.arrays:
        rule = "test: the folder test" if Path(path).is_dir() else "test: x_test, y_test"
        test = checked_rows(found.arrays, path, "_test", names, kind)
        return _Parts(train or test, test, rule, path, names, rate, kind)
    train, test = _carve(train, test_fraction)
    return _Parts(train, test, f"test: a fixed {test_fraction:.0%} (seed 0)", path, names, rate, kind)


def _names(path: str | Path, labels: Sequence[np.ndarray], classes: Any) -> tuple[str, ...] | None:
    """The names of the classes, where labels or the setting are names."""
    if isinstance(classes, Sequence):
        return tuple(classes)
    check_names(path, labels)
    try:
        found = class_names(labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if found is not None and classes not in (None, len(found)):
        raise ValueError(
            f"{path}: the labels name {len(found)} classes and data.classes is {classes}; list all their names there."
        )
    return found


def _check_bytes(path: str | Path, train: np.ndarray, test: np.ndarray, scale: float | str) -> None:
    """Refuse bytes beside other numbers, and say of bytes that are no spikes that they are left as they are."""
    if (train.dtype == np.uint8) != (test.dtype == np.uint8):
        raise ValueError(
            f"{path}: x for training holds {train.dtype} and x for testing {test.dtype}; bytes and other numbers "
            "differ in scale: store both as the same kind."
        )
    if scale == 1 and train.dtype == np.uint8 and train.max() > 1:
        logger.warning(
            f"{path}: x holds bytes from {train.min()} to {train.max()}, left as they are; if they are pixels, set "
            "data.scale=0.00392156862745098, which is 1/255"
        )


def _say_axes(path: str | Path, shape: tuple[int, ...]) -> None:
    """Say in one line how axes are read where they may stand in the order of convolutions."""
    rows, steps, channels = shape
    if channels > steps:
        logger.warning(
            f"{path}: x {tuple(shape)} is read as {rows} rows of {steps} steps with {channels} channels; if it is "
            "(N, C, L), save x.transpose(0, 2, 1)"
        )


def _carve(rows: Rows, fraction: float) -> tuple[Rows, Rows]:
    """The rows without, and the rows of, a fixed test part."""
    order = np.random.default_rng(0).permutation(len(rows.x))
    tested = round(len(order) * fraction)
    if not 0 < tested < len(order):
        raise ValueError(f"arrays: test_fraction must leave rows on both sides of {len(order)}, got {fraction}.")
    pick = [Rows(*(None if a is None else a[index] for a in rows)) for index in (order[tested:], order[:tested])]
    return pick[0], pick[1]
