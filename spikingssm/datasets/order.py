"""Which rows are drawn, in which order and by which process: pure functions of (seed, epoch)."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "limited", "shared_batches", "split_groups", "split_rows"]


class EpochSampler(Sampler[Any]):
    """A new order of ``rows`` each epoch, drawn from (seed, epoch) alone: a resumed run draws what it would have drawn.

    With several processes, batch k of all of them together holds the rows of batch k of one process whose batches are
    ``ranks`` times as large; rows that fill no such batch are left out of the epoch.

    Args:
        rows: the row numbers to order.
        seed: of the run.
        epoch: the epoch that comes first; on resume Lightning calls `set_epoch` after loader processes have started.
        batch_size: rows a batch of one process.
        rank: which process this is, 0 <= rank < ranks.
        ranks: how many there are.
        skip: batches of the first epoch that were trained before; their rows are not drawn.
        tell_epoch: give pairs (epoch, row number), for rows that are drawn anew in each epoch.
    """

    def __init__(
        self,
        rows: Tensor,
        seed: int,
        epoch: int = 0,
        *,
        batch_size: int = 1,
        rank: int = 0,
        ranks: int = 1,
        skip: int = 0,
        tell_epoch: bool = False,
    ) -> None:
        self.rows, self.seed, self.epoch = rows, seed, epoch
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        self._skip, self._tell_epoch = {epoch: skip}, tell_epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        order = self.rows[torch.randperm(len(self.rows), generator=_generator(self.seed, 1 + self.epoch))]
        batches = order[: len(self) * self.ranks].view(-1, self.ranks, self.batch_size)[:, self.rank]
        rows = batches[self._skip.get(self.epoch, 0) :].flatten().tolist()
        return iter([(self.epoch, row) for row in rows] if self._tell_epoch else rows)

    def __len__(self) -> int:
        """Rows that this process draws in a whole epoch."""
        return len(self.rows) // (self.batch_size * self.ranks) * self.batch_size


def shared_batches(rows: Tensor, batch_size: int, rank: int = 0, ranks: int = 1) -> list[list[int]]:
    """The batches of one process, so that all processes together take every row once, in equally many batches each.

    Equally many, since a sharded model talks to the others in every batch. Where that cannot be (fewer rows than
    processes; single rows that do not divide) every process takes all rows, which leaves every mean over rows as it is.

    Args:
        rows: row numbers in their order.
        batch_size: most rows a batch.
        rank: which process this is, 0 <= rank < ranks.
        ranks: how many there are.
    """
    batches = math.ceil(len(rows) / (ranks * batch_size))
    if ranks == 1 or len(rows) // ranks < batches:
        return [part.tolist() for part in torch.split(rows, batch_size)]
    return [part.tolist() for part in rows[rank::ranks].tensor_split(batches)]


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


def split_groups(name: str, groups: np.ndarray, val_fraction: float | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for validation, in order, so that no group has rows on both sides.

    Groups are met in an order drawn by the seed; one is held out where that brings the part held out nearer to
    ``val_fraction``, and the smallest where none does.

    Args:
        name: of the data set, for errors.
        groups: (N,) the group of each row, such as its speaker.
        val_fraction: part of the rows held out, in (0, 1), about; None is refused.
        seed: >= 0.

    Raises:
        ValueError: a negative seed, or a fraction that is None or leaves one side empty.
    """
    if seed < 0:
        raise ValueError(f"{name}: seed must be >= 0, got {seed}.")
    if val_fraction is None:
        raise ValueError(f"{name}: data.val_fraction must be between 0 and 1, such as 0.1, got None.")
    names, sizes = np.unique(groups, return_counts=True)
    wanted, taken, held = val_fraction * len(groups), 0, []
    for group in torch.randperm(len(names), generator=_generator(seed, 0)).tolist():
        if abs(taken + sizes[group] - wanted) < abs(taken - wanted):
            held.append(group)
            taken += sizes[group]
    held = held or [int(sizes.argmin())]
    if not 0 < val_fraction < 1 or len(held) == len(names):
        raise ValueError(
            f"{name}: val_fraction must leave some of the {len(names)} groups on both sides, got {val_fraction}."
        )
    out = np.isin(groups, names[held])
    return np.flatnonzero(~out), np.flatnonzero(out)


def limited(name: str, option: str, rows: Tensor, limit: int | None, drawn: bool = False) -> Tensor:
    """The first ``limit`` rows, or all of them.

    Args:
        name: of the data set, for errors.
        option: the name of the limit, for errors.
        rows: row numbers.
        limit: how many; None is all.
        drawn: take a fixed draw in the order of the rows instead: the rows of a file may be sorted by class.

    Raises:
        ValueError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"{name}: {option} must be at least 1 or null for all {len(rows)} rows, got {limit}.")
    if drawn and limit is not None:
        return rows[torch.randperm(len(rows), generator=_generator(0, 0))[:limit].sort().values]
    return rows[:limit]


def _generator(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each (seed, stream)."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
