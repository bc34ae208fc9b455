"""What is asked for in place of a class: numbers, with the scale that the network learns them in, or sets of labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

__all__ = [
    "KINDS", "LabelTargets", "NumberTargets", "Targets", "ahead", "as_numbers", "as_plain", "from_plain", "scaled",
]  # fmt: skip

LONGEST = 2**31
"""Steps that a forecast may look ahead."""


@dataclass(frozen=True)
class NumberTargets:
    """Numbers, D of them a sequence or a step; the network learns (y - mean) / std.

    Args:
        mean: of each of the D numbers, in the units of the data.
        std: likewise, > 0.
        steps: whether every step has numbers of its own.
        horizon: of a forecast, how many steps later x is the target; 0 where the targets are given.

    Raises:
        ValueError: a value out of range.
    """

    kind: ClassVar[str] = "numbers"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    steps: bool = False
    horizon: int = 0

    def __post_init__(self) -> None:
        plain = all(isinstance(n, (int, float)) and math.isfinite(n) for n in (*self.mean, *self.std))
        if not plain or len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ValueError("targets: one finite mean and one std > 0 for each number that is asked for.")
        if type(self.steps) is not bool or type(self.horizon) is not int or not 0 <= self.horizon < LONGEST:
            raise ValueError(f"targets: steps {self.steps!r:.20} and horizon {self.horizon!r:.20}.")
        if self.horizon and not self.steps:
            raise ValueError("targets: a forecast has a target at every step.")

    @property
    def scaling(self) -> dict[str, list[float]]:
        """Mean and standard deviation, as `scaled` takes them."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def fits(self, outputs: int) -> bool:
        """Whether a network with that many outputs can answer."""
        return len(self.mean) == outputs

    def __call__(self, y: Tensor) -> Tensor:
        """Stored targets (..., D) in the units of the data -> what the network learns, float32."""
        y = y.double()
        return ((y - y.new_tensor(self.mean)) / y.new_tensor(self.std)).float()

    def own(self, answers: Tensor) -> Tensor:
        """Answers (..., D) of the network -> numbers in the units of the data, float64."""
        wide = answers.double()
        return wide * wide.new_tensor(self.std) + wide.new_tensor(self.mean)

    def rows(self, y: Any, x: np.ndarray) -> np.ndarray:
        """Given targets -> (N, D), or (N, L, D) for every step; see `as_numbers`.

        Args:
            y: as in `as_numbers`.
            x: stored rows (N, L, C).

        Raises:
            ValueError: another shape than the network was trained on.
        """
        found = as_numbers(y, x.shape)
        if found.ndim != 2 + self.steps or found.shape[-1] != len(self.mean):
            each = "a step" if self.steps else "a sequence"
            raise ValueError(
                f"y has the shape {np.shape(y)}; this network answers with {len(self.mean)} numbers {each}."
            )
        return found


@dataclass(frozen=True)
class LabelTargets:
    """Sets of labels: a sequence has any of K labels, or none."""

    kind: ClassVar[str] = "labels"
    steps: ClassVar[bool] = False

    def fits(self, outputs: int) -> bool:
        """Whether a network with that many outputs can answer."""
        return outputs >= 2

    def __call__(self, y: Tensor) -> Tensor:
        """Stored sets (B, K) of 0 and 1 -> float32."""
        return y.float()

    def rows(self, y: Any, x: np.ndarray) -> np.ndarray:
        """Given sets (N, K) of 0 and 1 -> uint8.

        Args:
            y: numbers or booleans.
            x: stored rows (N, L, C).

        Raises:
            ValueError: another shape, or other numbers than 0 and 1.
        """
        found = np.asarray(y)
        if found.ndim != 2 or len(found) != len(x) or found.shape[1] < 2:
            way = "; a single label is a classification of two classes" if found.shape[1:] in ((), (1,)) else ""
            raise ValueError(
                f"y must be ({len(x)}, K) with K >= 2 labels, each 0 or 1, for task=multilabel, got {found.shape}{way}."
            )
        if found.dtype.kind not in "fiub" or not np.isin(found, (0, 1)).all():
            strange = found.dtype if found.dtype.kind not in "fiub" else found[~np.isin(found, (0, 1))][0]
            raise ValueError(f"y must hold 0 and 1, whether a row has each label, for task=multilabel, got {strange}.")
        return found.astype(np.uint8)


Targets = NumberTargets | LabelTargets
KINDS: dict[str, type[Targets]] = {kind.kind: kind for kind in (NumberTargets, LabelTargets)}


def as_numbers(y: Any, shape: Sequence[int]) -> np.ndarray:
    """Targets as numbers, (N, D) of sequences or (N, L, D) of steps, floating-point; NaN is a missing one.

    Args:
        y: (N,) or (N, D) of sequences, (N, L) or (N, L, D) of steps. (N, L) is always one number a step. Texts are
            read, and "" is missing.
        shape: of x, (N, L, C).

    Raises:
        ValueError: another shape, infinity, no number at all, or what is none.
    """
    found, (rows, steps) = _read(np.asarray(y)), shape[:2]
    if found.dtype.kind not in "fiub":
        raise ValueError(f"y must hold numbers for task=regression, got {found.dtype}; task=classification has names.")
    of_steps = found.ndim == 3 or (found.ndim == 2 and found.shape[1] == steps > 1)
    if not 1 <= found.ndim <= 3 or len(found) != rows or not found.size or (of_steps and found.shape[1] != steps):
        raise ValueError(
            f"y must be ({rows},) or ({rows}, D) for sequences, or ({rows}, {steps}) or ({rows}, {steps}, D) for every "
            f"step, got {found.shape}."
        )
    if found.ndim == 1 or (of_steps and found.ndim == 2):
        found = found[..., None]
    if found.dtype.kind != "f" or found.dtype.itemsize not in (4, 8):
        found = found.astype(np.float64)
    found = found.astype(found.dtype.newbyteorder("="), copy=False)
    if np.isinf(found).any():
        row = int(np.argwhere(np.isinf(found))[0][0])
        raise ValueError(f"y holds infinity, first in row {row}; NaN marks a missing target.")
    if np.isnan(found).all():
        raise ValueError("y holds no number, every target is missing (NaN).")
    return found


def _read(y: np.ndarray) -> np.ndarray:
    """Texts as the numbers that they write, NaN for ""; as they are where one is none."""
    if y.dtype.kind != "U":
        return y
    try:
        return np.where(np.char.strip(y) == "", "nan", y).astype(np.float64)
    except ValueError:
        return y


def ahead(x: np.ndarray, horizon: int, lengths: np.ndarray | None = None) -> np.ndarray:
    """The numbers ``horizon`` steps later: (N, L, C) -> (N, L, C), NaN where the row has ended by then.

    Args:
        x: rows, in the units of the data.
        horizon: steps, from 1 to below the longest row.
        lengths: (N,) valid steps; None is all.

    Raises:
        ValueError: a horizon that leaves no step.
    """
    longest = x.shape[1] if lengths is None else int(lengths.max())
    if not (type(horizon) is int and 1 <= horizon < longest):
        raise ValueError(
            f"horizon must be an integer from 1 to {longest - 1}, below the {longest} steps of the longest row, got "
            f"{horizon!r}; see task.horizon."
        )
    y = np.full(x.shape, np.nan, x.dtype if x.dtype in (np.float32, np.float64) else np.float64)
    y[:, :-horizon] = x[:, horizon:]
    if lengths is not None:
        y[np.arange(x.shape[1]) >= np.asarray(lengths)[:, None] - horizon] = np.nan
    return y


def scaled(y: np.ndarray, scaling: Mapping[str, Any] | None = None, horizon: int = 0) -> NumberTargets:
    """Targets with the mean and the standard deviation of training rows.

    Args:
        y: (N, D) or (N, L, D), NaN where there is none.
        scaling: ``{mean, std}``, lists of D, found before; None finds it in y. Equal numbers have std 1.
        horizon: see `NumberTargets`.

    Raises:
        ValueError: a scaling of another size, a number that no training row has, or targets that are too large.
    """
    flat = y.reshape(-1, y.shape[-1])
    if scaling is not None:
        if set(scaling) != {"mean", "std"} or not all(isinstance(v, (list, tuple)) for v in scaling.values()):
            raise ValueError(f"target_scaling must be {{mean, std}}, got {dict(scaling)!s:.80}.")
        found = NumberTargets(tuple(scaling["mean"]), tuple(scaling["std"]), y.ndim == 3, horizon)
        if not found.fits(flat.shape[1]):
            raise ValueError(f"target_scaling has {len(found.mean)} means for {flat.shape[1]} targets.")
        return found
    if (empty := np.isnan(flat).all(0)).any():
        raise ValueError(f"no training row has the target {int(np.argmax(empty))}, all are missing (NaN).")
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.asarray(np.nanmean(flat, 0, dtype=np.float64))
        std = np.sqrt(np.nanmean(np.square(flat - mean), 0))
    if not (np.isfinite(mean) & np.isfinite(std)).all():
        largest = f"{np.nanmax(np.abs(flat)):.3g}"
        raise ValueError(
            f"y reaches {largest} in size, and 64 bits cannot hold the squares that a standard deviation needs; divide "
            f"y by {largest} first."
        )
    std = np.where(std > 1e-12 * np.abs(mean), std, 1.0)  # below that it is rounding
    return NumberTargets(tuple(mean.tolist()), tuple(std.tolist()), y.ndim == 3, horizon)


def as_plain(targets: Targets) -> dict[str, Any]:
    """Targets as a file holds them."""
    return {"kind": targets.kind, **asdict(targets)}


def from_plain(found: Mapping[str, Any]) -> Targets:
    """What `as_plain` gave.

    Raises:
        ValueError, TypeError, KeyError: other content.
    """
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in dict(found).items()}
    build: Any = KINDS[values.pop("kind")]
    made: Targets = build(**values)
    return made
