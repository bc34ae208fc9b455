"""What token data sets share: vocabularies, characters as tokens, rows padded to one length, and where files lie."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from spikingssm.datasets.base import Rows

__all__ = [
    "PAD", "Characters", "arena_file", "check_rows", "pad_rows", "parted", "put", "ranked", "same_vocabulary",
    "token_dtype", "vocabulary_digest",
]  # fmt: skip

LONGEST, MOST = 2**20, 2**33
PAD = 0
"""The token that fills a row after its end."""

Token = TypeVar("Token", bound=str | bytes | int)


def ranked(counts: Mapping[Token, int], specials: Sequence[Token] = (), min_freq: int = 1) -> dict[Token, int]:
    """Token -> its number: the specials in the order given, then the most frequent first, ties by the token itself.

    Args:
        counts: token -> how often it occurs; specials in it are not listed twice.
        specials: tokens with fixed numbers.
        min_freq: rarer tokens are left out; specials never.

    Raises:
        ValueError: min_freq below 1.
    """
    if min_freq < 1:
        raise ValueError(f"min_freq must be at least 1, got {min_freq}.")
    kept = [token for token, count in counts.items() if count >= min_freq and token not in specials]
    order = [*specials, *sorted(kept, key=lambda token: (-counts[token], token))]
    return {token: number for number, token in enumerate(order)}


class Characters:
    """Unicode text -> token numbers, a character a token.

    Args:
        counts: character -> how often it occurs in the training text.
        specials: how many numbers stand before the first character; ``unknown`` is one of them.
        unknown: the number of every character that is not in the vocabulary.
        min_freq: rarer characters are unknown.
    """

    def __init__(self, counts: Mapping[str, int], *, specials: int, unknown: int, min_freq: int = 1) -> None:
        numbers = ranked(counts, min_freq=min_freq)
        self.digest = vocabulary_digest(numbers)
        self.unknown, self.size = unknown, specials + len(numbers)
        self.table = np.full(max(map(ord, numbers), default=0) + 2, unknown, np.int32)  # the last one: all above
        self.table[[ord(character) for character in numbers]] = specials + np.arange(len(numbers))

    def __len__(self) -> int:
        return self.size

    def __call__(self, text: str) -> np.ndarray:
        """The token numbers of ``text``, int32."""
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        return self.table[np.minimum(points, len(self.table) - 1)]


def vocabulary_digest(tokens: Iterable[str]) -> str:
    """16 hexadecimal digits of what stands for the numbers 0, 1, ..., to tell one vocabulary from another."""
    return hashlib.sha256("\0".join(tokens).encode(errors="surrogatepass")).hexdigest()[:16]


def same_vocabulary(name: str, wanted: str | None, found: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The vocabulary of prepared data, for `SequenceData.fitted`.

    Args:
        name: of the data set, for the error.
        wanted: its digest where the data must have a certain one, else None.
        found: with its digest under ``vocabulary``.

    Raises:
        ValueError: another one.
    """
    digest = str(found["vocabulary"])
    if wanted is not None and wanted != digest:
        raise ValueError(
            f"{name}: the training text of these files gives another vocabulary ({digest}) than that of the run "
            f"({str(wanted)[:16]}), so its tokens would be other words; set data.root to the files of the training."
        )
    return {"vocabulary": digest}


def check_rows(name: str, rows: int, length: int) -> None:
    """Refuse more token rows than fit into memory, before it is taken.

    Args:
        name: of the data set, or its file, for the error.
        rows: how many.
        length: tokens of each.

    Raises:
        ValueError: a length above 2^20, or more than 2^33 tokens.
    """
    if length > LONGEST or rows * length > MOST:
        raise ValueError(
            f"{name}: {rows} rows of data.length={length} are {rows * length} tokens; at most {LONGEST} tokens a row "
            f"and {MOST} in all are read, set data.length lower."
        )


def token_dtype(vocab: int) -> type[np.integer]:
    """The smallest integer type of torch and NumPy that holds tokens below ``vocab``."""
    return np.uint8 if vocab <= 2**8 else np.int16 if vocab <= 2**15 else np.int32


def put(row: np.ndarray, tokens: np.ndarray, eos: int) -> int:
    """Write ``tokens``, cropped to leave room for ``eos``, and ``eos`` to ``row``; the number of steps written."""
    kept = min(len(tokens), len(row) - 1)
    row[:kept] = tokens[:kept]
    row[kept] = eos
    return kept + 1


def pad_rows(
    rows: Iterable[np.ndarray], count: int, length: int, eos: int, vocab: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token sequences -> x (N, L) padded with `PAD`, and lengths (N,) with the end token.

    Args:
        rows: N sequences of token numbers, of any lengths.
        count: N.
        length: L; longer sequences lose their end, not the end token.
        eos: the end token.
        vocab: number of tokens, which decides the type of x.

    Raises:
        ValueError: a length below 2.
    """
    if length < 2:
        raise ValueError(f"data.length must be at least 2, a token and its end, got {length}.")
    check_rows("data", count, length)
    x, lengths = np.full((count, length), PAD, token_dtype(vocab)), np.empty(count, np.int32)
    for number, tokens in enumerate(rows):
        lengths[number] = put(x[number], tokens, eos)
    return x, lengths


def parted(found: Mapping[str, np.ndarray], parts: Sequence[str]) -> tuple[Rows, Rows | None, Rows]:
    """Training, validation and test rows out of arrays ``x_<part>``, ``y_<part>`` and ``lengths_<part>``.

    Args:
        found: arrays of all parts, or of the last one alone, which then stands for the training rows too.
        parts: the names of the three.
    """
    rows = [Rows(*(found[f"{key}_{part}"] for key in ("x", "y", "lengths"))) for part in parts if f"x_{part}" in found]
    return rows[0], rows[1] if len(rows) == 3 else None, rows[-1]


def arena_file(name: str, root: str | Path, folder: str, file: str) -> Path:
    """The path of a file of the Long Range Arena's release below ``root``.

    Args:
        name: of the data set, for the error.
        root: the folder of the file, or one that it stands in as unpacked from ``lra_release.gz``.
        folder: its folder in the release.
        file: its name.

    Raises:
        FileNotFoundError: it is not there.
    """
    for above in (".", folder, f"lra_release/{folder}", f"lra_release/lra_release/{folder}"):
        if (path := Path(root) / above / file).is_file():
            return path
    raise FileNotFoundError(
        f"{name}: no {file} in {root}; set data.root to the folder that holds it, {folder} in lra_release.gz "
        "(storage.googleapis.com/long-range-arena/lra_release.gz)."
    )
