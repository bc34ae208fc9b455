"""Which rows are drawn, and in which order: pure functions of (seed, epoch)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

__all__ = ["EpochSampler", "InOrder", "limited", "split_rows"]


class EpochSampler(Sampler[int]):
    """A new order of ``rows`` each epoch, drawn from (seed, epoch) alone: a resumed run draws what it would have drawn.

    Args:
        rows: the row numbers to order.
        seed: of the run.
        epoch: the epoch that comes first; on resume Lightning calls `set_epoch` after loader processes have started.
    """

    def __init__(self, rows: Tensor, seed: int, epoch: int = 0) -> None:
        self.rows, self.seed, self.epoch = rows, seed, epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = _generator(self.seed, 1 + self.epoch)
        return iter(self.rows[torch.randperm(len(self.rows), generator=generator)].tolist())

    def __len__(self) -> int:
        return len(self.rows)


class InOrder(SequentialSampler):
    """The same rows in the same order every time; a SequentialSampler, so that Lightning knows it is not shuffled."""

    def __iter__(self) -> Iterator[int]:
        return iter(self.data_source.tolist())


def split_rows(name: str, rows: int, val_fraction: float | None, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers for training, shuffled, and for validation, by the seed.

    Args:
        name: of the data set, for errors.
        rows: how many there are.
        val_fraction: part held out, in (0, 1); None holds nothing out.
        seed: >= 0.

    Raises:
        ValueError: a negative seed, or a fraction that leaves one side empty.
    """
    if seed < 0:
        raise ValueError(f"{name}: seed must be >= 0, got {seed}.")
    order = torch.randperm(rows, generator=_generator(seed, 0))
    if val_fraction is None:
        return order, order[:0]
    held = round(rows * val_fraction)
    if not (0 < val_fraction < 1 and 0 < held < rows):
        raise ValueError(f"{name}: val_fraction must leave rows on both sides of {rows}, got {val_fraction}.")
    return order[held:], order[:held]


def limited(name: str, option: str, rows: Tensor, limit: int | None) -> Tensor:
    """The first ``limit`` rows, or all of them.

    Raises:
        ValueError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"{name}: {option} must be at least 1 or null for all {len(rows)} rows, got {limit}.")
    return rows[:limit]


def _generator(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each (seed, stream)."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
