"""Nested operations on digits, ListOps: drawn by our own generator, or the Long Range Arena's released files."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.datasets.base import SequenceData
from spikingssm.datasets.cache import cached, source_facts
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root
from spikingssm.datasets.tokens import PAD, arena_file, check_rows, parted, put

__all__ = ["evaluate", "grow", "listops", "tokens_of"]

EOS, CLOSE, MIN, MAX, MED, SM, ZERO, VOCAB = 2, 3, 4, 5, 6, 7, 8, 18
"""Tokens: 0 is padding, 1 the published <unk>, which never occurs; digits from `ZERO`."""
SYMBOLS = {MIN: b"[MIN", MAX: b"[MAX", MED: b"[MED", SM: b"[SM", CLOSE: b"]"}
OPERATOR_CHANCE = 0.25
PARTS = ("train", "val", "test")
RELEASED = (96_000, 2_000, 2_000)
PUBLISHED = (500, 2_000, 10, 10)
TRIES, REPEATS = 100_000, 10_000
"""Attempts at one expression of a permitted length, and repeated expressions in a row, before we give up."""
COMPILED_FROM = 1000
"""With fewer rows the loops run as they stand, which takes less time than compiling them."""


def listops(
    root: str | Path | None = None,
    *,
    length: int = 2048,
    train_rows: int = RELEASED[0],
    val_rows: int = RELEASED[1],
    test_rows: int = RELEASED[2],
    min_length: int = 500,
    max_length: int = 2000,
    max_depth: int = 10,
    max_args: int = 10,
    generator_seed: int = 0,
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Expressions such as ``[MAX 2 9 [MIN 4 7 ] 0 ]``: tokens x (B, L) with lengths (B,), the value 0 to 9 as class.

    Operators are MIN, MAX, MED (the median, rounded down) and SM (the sum modulo 10). Parentheses are dropped, each
    symbol is one of 18 tokens, and the end token follows.

    Args:
        root: folder of the released ``basic_{train,val,test}.tsv``; None draws expressions of the published grammar
            once and keeps them. These are ours, not the released ones.
        length: L, at least max_length, so that no expression is cropped.
        train_rows: how many are drawn. All are different.
        val_rows: the same for the validation. They are drawn before the training rows, and do not depend on those.
        test_rows: the same for the test. They are drawn first.
        min_length: a drawn expression has more tokens.
        max_length: a drawn expression has fewer tokens.
        max_depth: levels of a drawn expression, at least 2; the last holds digits only.
        max_args: most arguments of an operator, at least 2.
        generator_seed: of the drawn expressions.
        generated: draw 256, 64 and 64 expressions of one operator and up to 8 digits; the other sizes are unused.
        test_only: read the test file only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the order.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: a file that is not in ``root``.
        ValueError: sizes that no expression fits, or a line that is not an expression and its value.

    Source: Nangia and Bowman, "ListOps", NAACL-SRW 2018 (arXiv 1804.06028); Tay et al., "Long Range Arena", ICLR 2021:
    an operator with chance 1/4, 2 to max_args arguments, lengths within 500 and 2,000, depth 10, equally likely.
    """
    rows, grammar = (train_rows, val_rows, test_rows), (min_length, max_length, max_depth, max_args)
    if generated:
        refuse_root("listops", root)
        rows, grammar = (TRAIN, TEST, TEST), (3, 11, 2, 8)
    if root is None:
        _check(length, rows, *grammar)
        facts = {"version": 1, "length": length, "rows": rows, "grammar": grammar, "seed": generator_seed}
        make = partial(_draw, length, rows, grammar, generator_seed)
        found = make() if generated else cached("listops", facts, make)
        split = f"drawn by our generator with seed {generator_seed}, not the released rows: "
        split += f"{min_length} to {max_length} tokens, depth {max_depth}, up to {max_args} arguments"
        split += " as published" if grammar == PUBLISHED else ""
    else:
        parts = PARTS[-1:] if test_only else PARTS
        files = [arena_file("listops", root, "listops-1000", f"basic_{part}.tsv") for part in parts]
        facts = {"version": 1, "length": length, "files": source_facts(*files)}
        found = cached("listops", facts, lambda: _prepare(dict(zip(parts, files, strict=True)), length))
        split = "as released"
    train, val, test = parted(found, PARTS)
    return SequenceData(
        "listops",
        train,
        test,
        val,
        d_output=10,
        vocab=VOCAB,
        seed=seed,
        split=split,
        full=root is not None and val is not None and (len(train.x), len(val.x), len(test.x)) == RELEASED,
        generated=generated,
        test_only=val is None,
        **options,
    )


def tokens_of(source: bytes) -> np.ndarray:
    """The tokens of an expression as text, uint8, without end token; 255 for what is no symbol.

    Args:
        source: symbols between blanks, as in the released files; parentheses are dropped.
    """
    for token, symbol in SYMBOLS.items():
        source = source.replace(symbol, bytes([token]))
    return np.frombuffer(source.translate(_TABLE, b" ()"), np.uint8)


_TABLE = bytes(c if CLOSE <= c <= SM else c - ord("0") + ZERO if chr(c) in "0123456789" else 255 for c in range(256))


def evaluate(tokens: np.ndarray) -> int:
    """The value of an expression, 0 to 9.

    Args:
        tokens: (n,) integers without end token.

    Raises:
        ValueError: brackets that do not match, an operator without arguments, or more than one value.
    """
    deepest, depth = 0, 0
    for token in tokens:
        depth += 1 if MIN <= token <= SM else -1 if token == CLOSE else 0
        deepest = max(deepest, depth)
    digits = np.zeros((deepest + 1, 10), np.int64)  # of each open operator: how often each digit is an argument
    operators = np.zeros(deepest + 1, np.int64)
    depth = 0
    for token in tokens:
        if token >= ZERO:
            digits[depth, token - ZERO] += 1
        elif token != CLOSE:
            depth += 1
            operators[depth] = token
            digits[depth] = 0
        else:
            arguments, low, high, total, seen = digits[depth].sum(), -1, -1, 0, 0
            if depth == 0 or arguments == 0:
                raise ValueError("an operator without arguments, or a bracket that closes nothing")
            smallest, largest = 9, 0
            for digit in range(10):
                count = digits[depth, digit]
                if count:
                    smallest, largest = min(smallest, digit), digit
                seen, total = seen + count, total + count * digit
                if low < 0 and 2 * seen >= arguments:  # the lower of the two in the middle
                    low = digit
                if high < 0 and 2 * seen > arguments:
                    high = digit
            operator = operators[depth]
            value = smallest
            if operator == MAX:
                value = largest
            elif operator == MED:
                value = (low + high) // 2
            elif operator == SM:
                value = total % 10
            depth -= 1
            digits[depth, value] += 1
    if depth != 0 or digits[0].sum() != 1:
        raise ValueError("not one value, or a bracket that is not closed")
    return int(np.argmax(digits[0]))


def grow(random: np.random.Generator, tries: int, out: np.ndarray, low: int, max_depth: int, max_args: int) -> int:
    """Draw expressions into ``out`` until one has more than ``low`` tokens and fits; its length, 0 if none did.

    Args:
        random: where the numbers come from.
        tries: how many to draw at most.
        out: (n,) integers; an expression fits if it has at most n tokens.
        low: the length that must be exceeded.
        max_depth: levels; the last holds digits only.
        max_args: an operator has 2 to max_args arguments, each number as likely.
    """
    missing = np.zeros(max_depth + 1, np.int64)  # arguments that each open operator still takes
    for _ in range(tries):
        size, depth = 0, 0
        while size < len(out):
            if depth + 1 < max_depth and random.random() < OPERATOR_CHANCE:
                depth += 1
                missing[depth] = 2 + int(random.random() * (max_args - 1))
                out[size] = MIN + int(random.random() * 4)
                size += 1
                continue
            out[size] = ZERO + int(random.random() * 10)
            size += 1
            missing[depth] -= 1
            while depth > 0 and missing[depth] == 0 and size < len(out):
                out[size] = CLOSE
                size, depth = size + 1, depth - 1
                missing[depth] -= 1
            if depth == 0:
                if size > low:
                    return size
                break
            if missing[depth] == 0:
                break  # no room for its bracket
    return 0


def _check(length: int, rows: tuple[int, ...], low: int, high: int, max_depth: int, max_args: int) -> None:
    if min(rows) < 1:
        raise ValueError(f"listops: train_rows, val_rows and test_rows must be at least 1, got {rows}.")
    if not 2 <= max_depth <= 1000 or not 2 <= max_args <= 1000:
        raise ValueError(f"listops: max_depth and max_args must be from 2 to 1000, got {max_depth} and {max_args}.")
    check_rows("listops", sum(rows), length)
    if length < high:
        raise ValueError(f"listops: length must be at least max_length={high}, got {length}; set data.max_length too.")
    longest = 1
    for _ in range(max_depth - 1):
        longest = min(2 + max_args * longest, high)
    if not 0 <= low < min(longest, high - 1):
        raise ValueError(
            f"listops: no expression has more than min_length={low} and fewer than max_length={high} tokens with "
            f"max_depth={max_depth} and max_args={max_args}."
        )


def _draw(length: int, rows: tuple[int, ...], grammar: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Different expressions, rows of test first, then of validation and training."""
    low, high, max_depth, max_args = grammar
    draw, value = _loops(sum(rows))
    random, expression = np.random.default_rng(seed), np.zeros(high - 1, np.uint8)

    def different() -> Iterator[np.ndarray]:
        known: set[bytes] = set()
        repeats = 0
        while size := draw(random, TRIES, expression, low, max_depth, max_args):
            digest = hashlib.blake2b(expression[:size].tobytes(), digest_size=16).digest()
            repeats = repeats + 1 if digest in known else 0
            if repeats == REPEATS:
                break
            if not repeats:
                known.add(digest)
                yield expression[:size]
        raise ValueError(
            f"listops: found {len(known)} different expressions of more than {low} and fewer than {high} tokens with "
            f"max_depth={max_depth} and max_args={max_args}, {sum(rows)} are asked for; widen the lengths."
        )

    made: dict[str, np.ndarray] = {}
    source = different()
    for part, count in reversed(list(zip(PARTS, rows, strict=True))):
        x, lengths = np.full((count, length), PAD, np.uint8), np.empty(count, np.int32)
        y = np.empty(count, np.int64)
        for number, tokens in zip(range(count), source, strict=False):
            lengths[number], y[number] = put(x[number], tokens, EOS), value(tokens)
        made |= {f"x_{part}": x, f"y_{part}": y, f"lengths_{part}": lengths}
    return made


def _loops(rows: int) -> tuple[Callable[..., int], Callable[[np.ndarray], int]]:
    """`grow` and `evaluate`, compiled where it pays."""
    if rows < COMPILED_FROM:
        return grow, evaluate
    import numba

    return numba.njit(grow), numba.njit(evaluate)


def _prepare(files: dict[str, Path], length: int) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for part, path in files.items():
        with path.open("rb") as file:
            check_rows(str(path), sum(1 for _ in file), length)
        x, y, lengths = zip(*_lines(path, length), strict=True)
        made |= {f"x_{part}": np.stack(x), f"y_{part}": np.array(y), f"lengths_{part}": np.array(lengths, np.int32)}
    return made


def _lines(path: Path, length: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Row, value and length of each line.

    Raises:
        ValueError: another header, a line that is not an expression and a digit, one that is too long, or none.
    """
    with path.open("rb") as file:
        if (header := file.readline().split()) != [b"Source", b"Target"]:
            raise ValueError(f"{path}: the first line must be Source and Target, got {b' '.join(header)[:60]!r}.")
        number = 1
        for number, line in enumerate(file, 2):
            source, _, target = line.rstrip(b"\r\n").partition(b"\t")
            tokens = tokens_of(source)
            if not len(tokens) or tokens.max() == 255 or not (len(target) == 1 and target.isdigit()):
                raise ValueError(f"{path}: line {number} is not an expression, a tab and a digit; copy the file again.")
            if len(tokens) >= length:
                raise ValueError(
                    f"{path}: line {number} has {len(tokens)} symbols, data.length={length} takes {length - 1}; "
                    "a cropped expression has no value: set data.length higher."
                )
            row = np.full(length, PAD, np.uint8)
            yield row, int(target), put(row, tokens, EOS)
        if number == 1:
            raise ValueError(f"{path}: no line after the first; copy the file again.")
