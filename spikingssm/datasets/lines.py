"""Lines of numbers from a pipe or a table, block after block, in constant memory."""

import csv
import math
from collections.abc import Iterable, Iterator

import numpy as np
from loguru import logger

__all__ = ["LineReader"]

LONGEST = 2**20
"""Bytes of a line."""
MOST_REASONS = 10
"""How many lines that were left out are named."""
LABEL, SEQUENCE = "label", "sequence"
"""Columns of a table that are no channels."""


class _Bad(ValueError):
    """A line that cannot be read."""


class LineReader:
    """Lines of numbers -> blocks; a line is a step, its cells parted by commas or blanks.

    Empty lines are left out. The first line may hold names; columns called label and sequence are then no channels.

    Args:
        name: of the stream, for errors.
        channels: numbers a line; for tokens any number a line.
        vocab: number of tokens where the numbers are tokens, else None.
        skip_bad: leave lines out that cannot be read, with a warning; else the first one ends the stream.

    Attributes:
        bad: lines left out so far.
    """

    def __init__(self, name: str, channels: int, vocab: int | None = None, skip_bad: bool = False) -> None:
        self.name, self.channels, self.vocab, self.skip_bad = name, channels, vocab, skip_bad
        self.bad = 0
        self._number = self._width = 0
        self._places: list[int] | None = None
        self._begun, self._sequence = False, -1
        self._first = ""

    def blocks(self, chunks: Iterable[bytes]) -> Iterator[np.ndarray]:
        """Blocks (n, channels) float64, or tokens (n,) int64; a block comes as soon as its lines are there.

        Args:
            chunks: bytes, cut anywhere.

        Raises:
            ValueError: a line that cannot be read; it names the line, and all lines before it came first.
        """
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST:
                raise ValueError(f"{self.name}: line {self._number + 1} has more than {LONGEST} bytes; a step a line.")
            yield from self._block(lines)
        yield from self._block([rest])

    def _block(self, lines: list[bytes]) -> Iterator[np.ndarray]:
        rows: list[list[float]] = []
        wrong: ValueError | None = None
        for line in lines:
            self._number += 1
            try:
                if row := self._row(line):
                    rows.append(row)
            except ValueError as error:
                if not (self.skip_bad and isinstance(error, _Bad)):
                    wrong = error
                    break
                self._left_out(error)
        if rows and self.vocab is None:
            yield np.array(rows, np.float64)
        elif rows:
            yield np.array([token for row in rows for token in row], np.int64)
        if wrong is not None:
            raise ValueError(str(wrong))

    def _row(self, line: bytes) -> list[float]:
        """The numbers of a line; none of an empty one, or of the names of columns."""
        text = line.decode("utf-8", "replace").removeprefix("\ufeff" if self._number == 1 else "").strip()
        if not text:
            return []
        cells = self._cells(text)
        if not self._begun:
            self._begun = True
            if not any(map(_is_number, cells)):
                return self._named(cells)
        if self._places is not None:
            cells = self._picked(cells)
        if self.vocab is None and len(cells) != self.channels:
            raise _Bad(f"{self._place} has {len(cells)} numbers, this network reads {self.channels} a step.")
        return [self._value(cell) for cell in cells]

    def _cells(self, text: str) -> list[str]:
        if "," not in text and '"' not in text:
            return text.split()
        try:
            return [cell.strip() for cell in next(csv.reader([text]))]
        except csv.Error:
            raise _Bad(f"{self._place} is no row of a table: {text[:40]!r}.") from None

    def _named(self, cells: list[str]) -> list[float]:
        names = [cell.lower() for cell in cells]
        self._width = len(names)
        self._places = [i for i, name in enumerate(names) if name not in (LABEL, SEQUENCE)]
        self._sequence = names.index(SEQUENCE) if SEQUENCE in names else -1
        if self.vocab is None and len(self._places) != self.channels:
            raise ValueError(
                f"{self._place} names {len(self._places)} channels ({', '.join(cells)[:80]}), this network reads "
                f"{self.channels} a step."
            )
        return []

    def _picked(self, cells: list[str]) -> list[str]:
        """The cells of the channels, of one sequence."""
        assert self._places is not None
        if len(cells) != self._width:
            raise _Bad(f"{self._place} has {len(cells)} cells for {self._width} columns.")
        if self._sequence >= 0:
            self._first = self._first or cells[self._sequence]
            if cells[self._sequence] != self._first:
                raise ValueError(
                    f"{self._place} begins another sequence, {cells[self._sequence][:40]}, and a stream is one; ask "
                    "`predict`, which answers for each."
                )
        return [cells[place] for place in self._places]

    def _value(self, cell: str) -> float:
        if not _is_number(cell):
            raise _Bad(f"{self._place} has {cell[:40]!r}, which is no number.")
        value = float(cell)
        if not math.isfinite(value):
            raise _Bad(f"{self._place} has {cell[:40]!r}; a network reads finite numbers only.")
        if self.vocab is not None and not (value == int(value) and 0 <= value < self.vocab):
            raise _Bad(f"{self._place} has {cell[:40]!r}; tokens of this network are 0 to {self.vocab - 1}.")
        return value

    def _left_out(self, error: _Bad) -> None:
        self.bad += 1
        if self.bad <= MOST_REASONS:
            logger.warning(f"left out: {error}")
        if self.bad == MOST_REASONS:
            logger.warning("further lines that are left out are only counted")

    @property
    def _place(self) -> str:
        return f"{self.name}: line {self._number}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
