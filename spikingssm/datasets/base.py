"""A data module of sequences: stored rows in, loaders of batches out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spikingssm.datasets.order import EpochSampler, InOrder, limited, split_rows

__all__ = ["Batch", "Rows", "SequenceData"]


class Batch(NamedTuple):
    """Sequences ``x`` (B, L, C) float32, labels ``y`` (B,) or (B, L) int64, and ``lengths`` (B,) or None (all of L)."""

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None


class Rows(NamedTuple):
    """One part of a data set as stored: ``x`` (N, L, C), ``y`` (N,) or (N, L), ``lengths`` (N,) or None.

    Each is a tensor or anything with a length that takes a list of row numbers and gives an array, such as a NumPy
    array or a memory map: rows are read when they are drawn.
    """

    x: Any
    y: Any
    lengths: Any = None


class _Drawn(Dataset[Batch]):
    """Rows by number, a batch at a time."""

    def __init__(self, rows: Rows, prepare: Callable[[Tensor], Tensor]) -> None:
        self.rows, self.prepare = rows, prepare

    def __len__(self) -> int:
        return len(self.rows.x)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        x, y, lengths = (None if part is None else torch.as_tensor(part[indices]) for part in self.rows)
        assert x is not None
        assert y is not None
        return Batch(self.prepare(x), y.long(), None if lengths is None else lengths.long())


class SequenceData(lightning.LightningDataModule):
    """Train, validation and test loaders of `Batch` over stored rows.

    Validation is carved from the training rows by the seed, unless ``val`` is given. Training batches are all full: the
    rows left over in an epoch are dropped, and another order follows in the next.

    Args:
        name: of the data set.
        train: training rows, x (N, L, C).
        test: test rows, never used to choose anything.
        val: validation rows, where the data set has its own.
        d_output: number of classes.
        prepare: stored x of a batch -> (B, L, C) float32; the default casts.
        batch_size: sequences a batch.
        val_fraction: part of the training rows held out for validation, in (0, 1); unused where ``val`` is given.
        seed: of the validation split and of the order.
        num_workers: loader processes; 0 reads in the main process.
        limit_train: train on the first that many rows of the seeded shuffle only; `facts` then says subset.
        limit_eval: validate and test on that many rows only; `facts` then says subset.
        split: one sentence on where the parts come from.
        full: whether the rows are the complete published data set.

    Raises:
        ValueError: shapes that disagree, a fraction or a limit out of range, or a batch larger than the training rows.
    """

    def __init__(
        self,
        name: str,
        train: Rows,
        test: Rows,
        val: Rows | None = None,
        *,
        d_output: int,
        prepare: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
        limit_train: int | None = None,
        limit_eval: int | None = None,
        split: str = "as given",
        full: bool = True,
    ) -> None:
        super().__init__()
        _check_rows(name, train, test, val)
        self.name, self.split, self.first_epoch = name, split, 0
        self.length, self.d_input = (int(n) for n in train.x.shape[1:])
        self.d_output, self.seed, self.batch_size, self.num_workers = d_output, seed, batch_size, num_workers
        prepare = prepare or _to_float
        kept, held = split_rows(name, len(train.x), None if val is not None else val_fraction, seed)
        self.train_rows = limited(name, "limit_train", kept, limit_train)
        self.val_rows = limited(name, "limit_eval", held if val is None else torch.arange(len(val.x)), limit_eval)
        self.test_rows = limited(name, "limit_eval", torch.arange(len(test.x)), limit_eval)
        held_out = len(self.val_rows) + len(self.test_rows)
        self.full = (
            full and len(self.train_rows) == len(kept) and held_out == len(test.x) + len(held if val is None else val.x)
        )
        if not 1 <= batch_size <= len(self.train_rows):
            raise ValueError(
                f"{name}: batch_size must be from 1 to the {len(self.train_rows)} training rows, got {batch_size}."
            )
        self.train_set = _Drawn(train, prepare)
        self.val_set = self.train_set if val is None else _Drawn(val, prepare)
        self.test_set = _Drawn(test, prepare)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Full batches in the order of (seed, epoch)."""
        sampler = EpochSampler(self.train_rows, self.seed, self.first_epoch)
        return self._loader(self.train_set, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation row once."""
        return self._loader(self.val_set, InOrder(self.val_rows))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test row once."""
        return self._loader(self.test_set, InOrder(self.test_rows))

    def facts(self) -> dict[str, Any]:
        """What a result must say of its data: name, whether all of it, sizes of the parts, and how they were split."""
        size = "full" if self.full else "subset"
        sizes = {"train": len(self.train_rows), "val": len(self.val_rows), "test": len(self.test_rows)}
        shape = {"length": self.length, "d_input": self.d_input, "d_output": self.d_output}
        return {"name": self.name, "size": size, **sizes, **shape, "split": self.split, "seed": self.seed}

    def _loader(self, data: _Drawn, sampler: Sampler[int], drop_last: bool = False) -> DataLoader[Batch]:
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=_as_drawn,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # else every new iterator moves the global one
        )


def _as_drawn(batch: Batch) -> Batch:
    return batch


def _to_float(x: Tensor) -> Tensor:
    return x.float()


def _check_rows(name: str, train: Rows, test: Rows, val: Rows | None) -> None:
    for part, rows in {"train": train, "test": test, **({} if val is None else {"val": val})}.items():
        if len(rows.x.shape) != 3 or not len(rows.x):
            raise ValueError(f"{name}: x of {part} must be (N, L, C) with N > 0, got {tuple(rows.x.shape)}.")
        if len(rows.x) != len(rows.y) or (rows.lengths is not None and len(rows.lengths) != len(rows.x)):
            raise ValueError(f"{name}: {part} has {len(rows.x)} rows of x and {len(rows.y)} of y; they must be equal.")
        if tuple(rows.x.shape[2:]) != tuple(train.x.shape[2:]):
            raise ValueError(
                f"{name}: {part} has {rows.x.shape[2]} channels, train has {train.x.shape[2]}; they must be equal."
            )
