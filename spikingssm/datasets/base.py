"""A data module of sequences: stored rows in, loaders of batches out."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdn.checks.arguments import check_count
from spikingssm.datasets.fingerprint import fingerprint
from spikingssm.datasets.inputs import Inputs, Numbers, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.labels import IGNORED
from spikingssm.datasets.order import EpochSampler, limited, shared_batches, split_rows
from spikingssm.datasets.targets import Targets

__all__ = ["IGNORED", "Batch", "Rows", "Selected", "SequenceData"]

LABELS_AT_ONCE = 2**22


class Batch(NamedTuple):
    """Sequences ``x``, labels ``y`` (B,) or (B, L) int64, and ``lengths`` (B,) or None (all of L).

    Training batches of mixed sequences have ``y`` (B, classes) float32, the probability of each class. Numbers that are
    asked for are ``y`` (B, D) or (B, L, D) float32, standardised, NaN where there is none. Sets of labels are ``y``
    (B, K) float32 of 0 and 1. ``x`` is
    (B, L, C) float32, or tokens (B, L) int64, or pairs of token sequences (B, 2, L) with ``lengths`` (B, 2).
    """

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None


class Rows(NamedTuple):
    """One part of a data set as stored: ``x`` (N, L, C), ``y`` (N,) or (N, L), ``lengths`` (N,) or None.

    With `spikingssm.datasets.targets` ``y`` is numbers (N, D) or (N, L, D) in their own units, or labels (N, K).

    Tokens are ``x`` (N, L) integers; pairs of them (N, 2, L) with ``lengths`` (N, 2). Each is a tensor or anything with
    a length that takes a list of row numbers and gives an array, such as a NumPy array or a memory map: rows are read
    when they are drawn.
    """

    x: Any
    y: Any
    lengths: Any = None


class Selected:
    """The rows ``chosen`` of ``array``, read when they are drawn.

    Args:
        array: (N, ...), such as a memory map.
        chosen: (M,) row numbers; row i here is ``array[chosen[i]]``.
    """

    def __init__(self, array: np.ndarray, chosen: np.ndarray) -> None:
        self.array, self.chosen = array, chosen
        self.shape = (len(chosen), *array.shape[1:])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        found: np.ndarray = self.array[self.chosen[rows]]
        return found


class _Drawn(Dataset[Batch]):
    """Rows by number, a batch at a time; with ``draw`` by pairs (epoch, number), all of one epoch."""

    def __init__(
        self,
        rows: Rows,
        prepare: Callable[[Tensor], Tensor],
        draw: Callable[[list[int], int], Batch] | None = None,
        targets: Targets | None = None,
    ) -> None:
        self.rows, self.prepare, self.draw, self.targets = rows, prepare, draw, targets

    def __len__(self) -> int:
        return len(self.rows.x)

    def __getitem__(self, index: Any) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[Any]) -> Batch:
        if self.draw is not None:
            return self.draw([row for _, row in indices], indices[0][0])
        x, y, lengths = (None if part is None else torch.as_tensor(part[indices]) for part in self.rows)
        assert x is not None
        assert y is not None
        asked = y.long() if self.targets is None else self.targets(y)
        return Batch(self.prepare(x), asked, None if lengths is None else lengths.long())


class SequenceData(lightning.LightningDataModule):
    """Train, validation and test loaders of `Batch` over stored rows.

    Validation is carved from the training rows by the seed, unless ``val`` is given. Training batches are all full: the
    rows left over in an epoch are dropped, and another order follows in the next.

    Args:
        name: of the data set.
        train: training rows, x (N, L, C).
        test: test rows, never used to choose anything.
        val: validation rows, where the data set has its own.
        d_output: number of classes; for language models the size of the vocabulary.
        vocab: number of different tokens; x then holds tokens, 0 <= x < vocab, and the model embeds them.
        inputs: how raw data become stored rows, and these what the network reads, see `spikingssm.datasets.inputs`. A
            run keeps it. The default casts.
        prepare: stored x of a batch -> (B, L, C) float32, or tokens int64, in place of ``inputs``: a function, which a
            run cannot keep. Its network is then not opened without its data.
        class_names: one for each class; None for numbers.
        batch_size: sequences a batch.
        val_fraction: part of the training rows held out for validation, in (0, 1); unused where ``val`` is given.
        seed: of the validation split and of the order.
        num_workers: loader processes; 0 reads in the main process.
        limit_train: train on the first that many rows of the seeded shuffle only; `facts` then says subset.
        limit_eval: validate and test on that many rows only, a fixed draw (of a stream the first); `facts` then says
            subset.
        split: one sentence on where the parts come from.
        full: whether the rows are the complete published data set.
        published: False where a checksum says that the files are not the published ones; name and size in `facts` then
            say so.
        generated: whether the rows are a drawn stand-in for the data set of that name; `facts` then says generated.
        draw: (row numbers, epoch) -> a training batch as the model takes it, where training rows are drawn anew in each
            epoch: augmentation. A pure function of these and of the seed, so that a resumed run draws what it would
            have drawn; it runs in the loader's processes. By default training rows are read as the others are.
        notes: what `facts` says further, as plain values.
        fitted: options of the data that were found by looking at the training rows, key -> value, such as the scale of
            the input. A run keeps them, so that it is tested with the same on any data.
        stream: whether validation and test rows follow one another in one long stream. They then come one a batch, and
            the model's state is carried from each to the next.
        targets: what is asked for in place of classes, see `spikingssm.datasets.targets`; ``d_output`` is then how many
            numbers or labels. None for classes.
        test_only: whether there are test rows only; ``train`` is then the same rows, which give the shape, and nothing
            is trained or validated.

    Raises:
        ValueError: shapes that disagree, a label that is no class, a fraction or a limit out of range, or a batch
            larger than the training rows.
    """

    def __init__(
        self,
        name: str,
        train: Rows,
        test: Rows,
        val: Rows | None = None,
        *,
        d_output: int,
        vocab: int | None = None,
        inputs: Inputs | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
        limit_train: int | None = None,
        limit_eval: int | None = None,
        split: str = "as given",
        full: bool = True,
        published: bool = True,
        generated: bool = False,
        draw: Callable[[list[int], int], Batch] | None = None,
        notes: Mapping[str, Any] | None = None,
        fitted: Mapping[str, Any] | None = None,
        stream: bool = False,
        targets: Targets | None = None,
        test_only: bool = False,
    ) -> None:
        super().__init__()
        _check_rows(name, train, test, val, vocab)
        if targets is None:
            _check_labels(name, {"train": train, "test": test, "val": val}, d_output)
        self.name, self.split, self.notes = name if published else f"{name}-like", split, dict(notes or {})
        self.published, self.fitted = published, dict(fitted or {})
        self.first_epoch, self.first_batch = 0, 0  # where a resumed run goes on
        self.vocab, self.generated, self.stream, self.targets = vocab, generated, stream, targets
        self.length, self.d_input = map(int, train.x.shape[1:] if vocab is None else (train.x.shape[-1], 1))
        self.pairs = vocab is not None and len(train.x.shape) == 3
        self.d_output, self.seed, self.batch_size, self.num_workers = d_output, seed, batch_size, num_workers
        self.inputs = inputs or (None if prepare else Numbers() if vocab is None else Tokens())
        self.class_names = None if class_names is None else tuple(map(str, class_names))
        if self.class_names is not None and len(self.class_names) != d_output:
            raise ValueError(f"{name}: {len(self.class_names)} names for {d_output} classes; give one for each.")
        prepare = prepare or self.inputs
        assert prepare is not None
        whole = test_only or val is not None
        kept, held = split_rows(name, 0 if test_only else len(train.x), None if whole else val_fraction, seed)
        held = held if val is None else torch.arange(len(val.x))
        self.train_rows = kept if test_only else limited(name, "limit_train", kept, limit_train)
        self.val_rows = held if test_only else limited(name, "limit_eval", held, limit_eval, drawn=not stream)
        self.test_rows = limited(name, "limit_eval", torch.arange(len(test.x)), limit_eval, drawn=not stream)
        held_out = len(self.val_rows) + len(self.test_rows)
        self.full = full and published and len(self.train_rows) == len(kept) and held_out == len(test.x) + len(held)
        check_count(name, "num_workers", num_workers, least=0)
        if not 1 <= batch_size <= max(1, len(self.train_rows)) and not (test_only and batch_size >= 1):
            raise ValueError(
                f"{name}: batch_size must be from 1 to the {len(self.train_rows)} training rows, got {batch_size}; "
                "lower data.batch_size."
            )
        self.train_set = _Drawn(train, prepare, draw, targets)
        self.val_set = _Drawn(train if val is None else val, prepare, targets=targets)
        self.test_set = _Drawn(test, prepare, targets=targets)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Full batches in the order of (seed, epoch), of this process if there are several.

        Raises:
            ValueError: fewer training rows than one batch of every process.
        """
        rank, ranks = self._place()
        if self.batch_size * ranks > len(self.train_rows):
            raise ValueError(
                f"{self.name}: batches of {self.batch_size} on {ranks} devices need {self.batch_size * ranks} training "
                f"rows, there are {len(self.train_rows)}; lower data.batch_size or trainer.devices."
            )
        first = {"epoch": self.first_epoch, "skip": self.first_batch}
        place = {"batch_size": self.batch_size, "rank": rank, "ranks": ranks}
        tell = self.train_set.draw is not None
        sampler = EpochSampler(self.train_rows, self.seed, **first, **place, tell_epoch=tell)
        return self._loader(self.train_set, sampler=sampler, batch_size=self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation row once, over all processes; a stream is not cut: each process then runs all of it."""
        return self._loader(self.val_set, batch_sampler=self._shared(self.val_rows))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test row once, over all processes; a stream is not cut: each process then runs all of it."""
        return self._loader(self.test_set, batch_sampler=self._shared(self.test_rows))

    def facts(self) -> dict[str, Any]:
        """What a result must say of its data: name, whether all of it, sizes of the parts, and how they were split."""
        size = "generated" if self.generated else "full" if self.full else "subset" if self.published else "other"
        sizes = {"train": len(self.train_rows), "val": len(self.val_rows), "test": len(self.test_rows)}
        shape: dict[str, Any] = {"length": self.length, "d_input": self.d_input, "d_output": self.d_output}
        if self.vocab is not None:
            shape["vocab"] = self.vocab
        if self.targets is not None:
            shape["targets"] = self.targets.kind
        facts = {"name": self.name, "size": size, **sizes, **shape, "split": self.split, "seed": self.seed}
        return {**facts, **self.notes, **self.digests}

    @property
    def interface(self) -> Interface:
        """What a network must know of these data to be used without them."""
        sizes = {"length": self.length, "d_input": self.d_input, "d_output": self.d_output, "vocab": self.vocab}
        more = {"pairs": self.pairs, "stream": self.stream, "classes": self.class_names, "targets": self.targets}
        return Interface(name=self.name, inputs=self.inputs, **sizes, **more)  # type: ignore[arg-type]

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """A `fingerprint` of the test rows and, where there are any, of the training rows."""
        parts = {"test": self.test_set.rows} | ({"train": self.train_set.rows} if len(self.train_rows) else {})
        return {f"{part}_digest": fingerprint(rows.x, rows.y) for part, rows in parts.items()}

    def _place(self) -> tuple[int, int]:
        """This process among those of the training, and how many they are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _shared(self, rows: Tensor) -> list[list[int]]:
        return shared_batches(rows, 1) if self.stream else shared_batches(rows, self.batch_size, *self._place())

    def _loader(self, data: _Drawn, **batches: Any) -> DataLoader[Batch]:
        return DataLoader(
            data,
            **batches,
            collate_fn=_as_drawn,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # else every new iterator moves the global one
        )


def _as_drawn(batch: Any) -> Any:  # no list of rows: `_Drawn` gave a whole batch
    return batch


def _check_rows(name: str, train: Rows, test: Rows, val: Rows | None, vocab: int | None) -> None:
    wanted = "(N, L, C)" if vocab is None else "tokens (N, L) or (N, 2, L)"
    for part, rows in {"train": train, "test": test, **({} if val is None else {"val": val})}.items():
        shape = tuple(rows.x.shape)
        tokens = len(shape) == 2 or (len(shape) == 3 and shape[1] == 2)
        if (len(shape) != 3 if vocab is None else not tokens) or not len(rows.x):
            raise ValueError(f"{name}: x of {part} must be {wanted} with N > 0, got {shape}.")
        if len(rows.x) != len(rows.y) or (rows.lengths is not None and len(rows.lengths) != len(rows.x)):
            raise ValueError(f"{name}: {part} has {len(rows.x)} rows of x and {len(rows.y)} of y; they must be equal.")
        if vocab is None and tuple(rows.x.shape[2:]) != tuple(train.x.shape[2:]):
            raise ValueError(
                f"{name}: {part} has {rows.x.shape[2]} channels, train has {train.x.shape[2]}; they must be equal."
            )


def _check_labels(name: str, parts: Mapping[str, Rows | None], classes: int) -> None:
    """Refuse a label that is no class; labels that are read when they are drawn, and probabilities, are left alone."""
    for part, rows in parts.items():
        y = None if rows is None else rows.y
        if isinstance(y, Tensor):
            y = y.numpy() if y.device.type == "cpu" else None
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "iu" or not y.size:
            continue
        rows_at_once = max(1, LABELS_AT_ONCE * len(y) // y.size)
        for start in range(0, len(y), rows_at_once):
            block = y[start : start + rows_at_once]
            if block.min() >= 0 and block.max() < classes:
                continue
            wrong = np.argwhere(((block < 0) | (block >= classes)) & ~((block == IGNORED) & (y.ndim == 2)))
            if len(wrong):
                at = f"row {start + wrong[0][0]}" + (f", step {wrong[0][1]}" if y.ndim == 2 else "")
                raise ValueError(
                    f"{name}: {part} has the label {block[tuple(wrong[0])]} in {at}, {classes} classes take 0 to "
                    f"{classes - 1}."
                )
