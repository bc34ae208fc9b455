"""Labels that are numbers or names -> numbers of classes, in one way for training, testing and asking."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from loguru import logger

__all__ = ["IGNORED", "class_names", "class_numbers"]

IGNORED = -100
"""The label of a step that has none."""


def class_names(labels: Sequence[np.ndarray]) -> tuple[str, ...] | None:
    """The names of the classes that occur: whole numbers in their order, words in that of the alphabet.

    Args:
        labels: arrays of any shape, of numbers or of text; "" is a step without a label.

    Returns:
        None where all labels are numbers.

    Raises:
        ValueError: words in one array and numbers in another, which nothing brings together.
    """
    named = {name for y in labels if y.dtype.kind == "U" for name in y.ravel().tolist()} - {""}
    if not named:
        return None
    numbers = {int(label) for y in labels if y.dtype.kind in "iu" for label in np.unique(y)} - {IGNORED}
    if all(map(_is_whole, named)):
        return tuple(map(str, sorted({int(name) for name in named} | numbers)))
    if numbers:
        raise ValueError(
            f"some labels are names such as {min(named)!r} and others numbers such as {min(numbers)}; use names in all "
            "files, or set data.classes to the list of names, which says their numbers."
        )
    return tuple(sorted(named))


def class_numbers(labels: Any, names: Sequence[str] | None, classes: int) -> np.ndarray:
    """The numbers of labels, of the same shape; steps without a label are `IGNORED`.

    A number among classes that are named by whole numbers is such a name; among others it is a number already.

    Args:
        labels: numbers or names.
        names: of the classes in their order, or None where they have none.
        classes: how many there are.

    Raises:
        ValueError: a class that there is not, or labels of another kind.
    """
    found = np.asarray(labels)
    by_name = names is not None and all(map(_is_whole, names))
    if found.dtype.kind in "iu" and not by_name:
        real = found[found != IGNORED] if found.ndim == 2 else found
        if real.size and (real.min() < 0 or real.max() >= classes):
            raise ValueError(
                f"labels are from {real.min()} to {real.max()}, {classes} classes take 0 to {classes - 1}."
            )
        if names is not None:
            shown = ", ".join(f"{place} {name}" for place, name in enumerate(names[:6]))
            logger.warning(f"labels are numbers and the classes have names; they are read as {shown}")
        return found.astype(np.int64)
    if found.dtype.kind not in "iuUS":
        raise ValueError(f"labels must be whole numbers or names of classes, got {found.dtype}.")
    known = [str(number) for number in range(classes)] if names is None else list(names)
    number = {name: place for place, name in enumerate(known)} | {"": IGNORED, str(IGNORED): IGNORED}
    texts = found.astype(str).ravel().tolist()
    if strange := sorted(set(texts) - set(number)):
        raise ValueError(f"there is no class {strange[0]!r}; the classes are {', '.join(known[:40])}.")
    return np.array([number[text] for text in texts], np.int64).reshape(found.shape)


def _is_whole(text: str) -> bool:
    """Whether a text is a whole number as it is usually written: 01 is a name."""
    return text.removeprefix("-").isdecimal() and len(text) < 20 and str(int(text)) == text
