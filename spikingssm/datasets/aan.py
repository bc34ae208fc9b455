"""Pairs of papers, letter by letter, linked by a citation or not: the task "Retrieval" of the Long Range Arena."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.datasets.base import SequenceData
from spikingssm.datasets.cache import cached, source_facts
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root
from spikingssm.datasets.tokens import PAD, arena_file, check_rows, parted, put

__all__ = ["aan"]

UNKNOWN, EOS, FIRST, VOCAB = 1, 2, 3, 98
"""Tokens: 0 is padding; the 95 printable ASCII characters follow from 3."""
PARTS = ("train", "val", "test")
FILES = tuple(f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test"))
RELEASED = (147_086, 18_090, 17_437)
COLUMNS = 5
_LABELS = {b"0": 0, b"0.0": 0, b"1": 1, b"1.0": 1}
_TABLE = bytes(c - ord(" ") + FIRST if ord(" ") <= c <= ord("~") else UNKNOWN for c in range(256))


def aan(
    root: str | Path | None = None,
    *,
    length: int = 4000,
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Pairs of papers as letters: tokens x (B, 2, L) with lengths (B, 2), class 1 where a citation links them.

    A document is cropped to L - 1 tokens; the end token follows. The released files spell documents in printable ASCII,
    as Python spells bytes (``b'...'``). They are read as they stand, as in the published experiments.

    Args:
        root: folder of ``new_aan_pairs.{train,eval,test}.tsv``, or one that the release was unpacked in. A line is
            label, two names and two documents between tabs; there is no header and no quoting.
        length: L, at least 2.
        generated: draw a stand-in: documents of two vocabularies, class 1 where both have the same.
        test_only: read the test file only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the order.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a line of other columns or another label, or an empty file.

    Source: Tay et al., "Long Range Arena", ICLR 2021, section 2.2.3, after Radev et al., "The ACL Anthology Network
    Corpus", 2009.
    """
    check_rows("aan", 1, length)
    if length < 2:
        raise ValueError(f"aan: length must be at least 2, a token and its end, got {length}.")
    if generated:
        refuse_root("aan", root)
        found, split = _draw(length), "drawn"
    elif root is None:
        raise FileNotFoundError(
            f"aan: there is no download of these files alone; set data.root to the folder that holds {FILES[0]}, "
            "tsv_data in lra_release.gz (storage.googleapis.com/long-range-arena/lra_release.gz)."
        )
    else:
        parts = [*zip(PARTS, FILES, strict=True)][-1 if test_only else 0 :]
        files = {part: arena_file("aan", root, "tsv_data", file) for part, file in parts}
        facts = {"version": 1, "length": length, "files": source_facts(*files.values())}
        found, split = cached("aan", facts, lambda: _prepare(files, length)), "as released"
    train, val, test = parted(found, PARTS)
    return SequenceData(
        "aan",
        train,
        test,
        val,
        d_output=2,
        vocab=VOCAB,
        seed=seed,
        split=split,
        full=val is not None and (len(train.x), len(val.x), len(test.x)) == RELEASED,
        generated=generated,
        test_only=val is None,
        **options,
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """Label and two documents of each line that is not blank.

    Raises:
        ValueError: not five columns, or a label other than 0 and 1.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            columns = line.rstrip(b"\r\n").split(b"\t")
            if columns == [b""]:
                continue
            if len(columns) != COLUMNS or columns[0] not in _LABELS:
                seen = f"{len(columns)} columns, the first {columns[0][:20]!r}"
                raise ValueError(
                    f"{path}: line {number} has {seen}; it must be label 0 or 1, two names and two documents between "
                    "tabs: copy the file again."
                )
            yield _LABELS[columns[0]], columns[3], columns[4]


def _prepare(files: dict[str, Path], length: int) -> dict[str, np.ndarray]:
    """Each file is read twice, to count and to fill, so that its text is never in memory as a whole."""
    made: dict[str, np.ndarray] = {}
    for part, path in files.items():
        count = sum(1 for _ in _lines(path))
        if not count:
            raise ValueError(f"{path}: the file is empty; copy it again.")
        check_rows(str(path), 2 * count, length)
        x, lengths, y = _rows(count, length)
        for number, (label, *documents) in enumerate(_lines(path)):
            y[number] = label
            for side, document in enumerate(documents):
                tokens = np.frombuffer(document[:length].translate(_TABLE), np.uint8)
                lengths[number, side] = put(x[number, side], tokens, EOS)
        made |= {f"x_{part}": x, f"y_{part}": y, f"lengths_{part}": lengths}
    return made


def _rows(count: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.full((count, 2, length), PAD, np.uint8)
    return x, np.empty((count, 2), np.int32), np.empty(count, np.int64)


def _draw(length: int) -> dict[str, np.ndarray]:
    """A document of one of two subjects holds the 12 letters of its subject three times as often as 12 others."""
    weights = np.ones((2, 24))
    weights[0, :12] = weights[1, 12:] = 3
    weights /= weights.sum(1, keepdims=True)
    made: dict[str, np.ndarray] = {}
    for start, (part, count) in enumerate(zip(PARTS, (TRAIN, TEST, TEST), strict=True)):
        random = np.random.default_rng(start)
        x, lengths, y = _rows(count, length)
        y[:] = random.permutation(np.arange(count) % 2)
        first = random.integers(2, size=count)
        for number, subjects in enumerate(zip(first, first ^ y ^ 1, strict=True)):
            for side, subject in enumerate(subjects):
                letters = random.choice(24, random.integers(length // 4, length), p=weights[subject])
                lengths[number, side] = put(x[number, side], letters + FIRST, EOS)
        made |= {f"x_{part}": x, f"y_{part}": y, f"lengths_{part}": lengths}
    return made
