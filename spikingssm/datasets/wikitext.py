"""Language modelling on WikiText: one long stream of words or characters, cut into chunks."""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.datasets.base import IGNORED, Rows, SequenceData
from spikingssm.datasets.cache import cached, source_facts
from spikingssm.datasets.inputs import Tokens
from spikingssm.datasets.known import are_published
from spikingssm.datasets.standin import refuse_root
from spikingssm.datasets.tokens import Characters, check_rows, ranked, same_vocabulary, vocabulary_digest

__all__ = ["wikitext"]

# Tokens of train, validation and test with line ends, and types with <eos>: as in Merity et al. and Transformer-XL.
RELEASED = {
    "wikitext-103": (103_227_021, 217_646, 245_569, 267_735),
    "wikitext-2": (2_088_628, 217_646, 245_569, 33_278),
}
SHA256 = {
    "wiki.valid.tokens": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    "wiki.test.tokens": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
}
"""Of the two files that both versions share, as data/README.md lists them; of wiki.train.tokens we know none."""
EOS, UNK = "<eos>", "<unk>"
UNKNOWN_CHAR, CHAR_SPECIALS = 1, 2
"""Level char: 0 is padding, 1 every character that the training text does not hold."""
DRAWN_ROWS, DRAWN_TYPES, DRAWN_CHARS = (64, 8, 8), 64, 128


def wikitext(
    root: str | Path | None = None,
    *,
    version: str = "wikitext-103",
    length: int = 8192,
    level: str = "word",
    min_freq: int = 1,
    train_part: str = "train",
    val_fraction: float = 0.1,
    vocabulary: str | None = None,
    generated: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Consecutive chunks of a text: tokens x (B, L), the next token of each y (B, L), as many classes as types.

    A part is one stream of T tokens: x holds 0 to T-2 and y 1 to T-1, cut into rows of L without overlap. The last row
    is filled up with token 0, whose labels are -100. Validation and test rows follow one another in the order of the
    text (``stream``); training rows are shuffled, and each starts from an empty state.

    Level word: a line is split at white space and ended by ``<eos>``, empty lines too; no case is changed. Types are
    sorted by frequency in the training text after ``<eos>``, which is 0. Level char: the characters of the file,
    line ends too, sorted by frequency from 2; ``<unk>`` in the file is then five characters.

    Args:
        root: folder of ``wiki.{train,valid,test}.tokens``, or the folder above one that is named like the version.
        version: ``wikitext-103`` or ``wikitext-2``, which differ in the training file.
        length: L.
        level: ``word`` or ``char``.
        min_freq: rarer types of the training text are ``<unk>``.
        train_part: ``train``; or ``valid``: train on wiki.valid.tokens without its last rows, which validate, where
            there is no wiki.train.tokens. Vocabulary and perplexity are then not those of WikiText.
        val_fraction: part of the rows of wiki.valid.tokens held out with train_part valid; else unused.
        vocabulary: digest of the types that the numbers stand for, as a run keeps it; other files are then refused
            where their types are others. None takes those of the training text.
        generated: draw a stand-in: a noisy cycle through the first 64 types of the published vocabulary.
        seed: of the order.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: an unknown option, an empty file, one that is not UTF-8, or a text shorter than one row.

    Source: Merity et al., "Pointer Sentinel Mixture Models", ICLR 2017 (arXiv 1609.07843). Words as in Dai et al.,
    "Transformer-XL", ACL 2019 (arXiv 1901.02860).
    """
    for name, value, known in (
        ("version", version, tuple(RELEASED)),
        ("level", level, ("word", "char")),
        ("train_part", train_part, ("train", "valid")),
    ):
        if value not in known:
            raise ValueError(f"wikitext: {name} must be {' or '.join(known)}, got {value!r}.")
    if length < 1:
        raise ValueError(f"wikitext: length must be at least 1, got {length}.")
    check_rows("wikitext", 1, length)
    published, fitted = True, {}
    if generated:
        refuse_root("wikitext", root)
        streams, vocab = _draw(length), RELEASED[version][3] if level == "word" else DRAWN_CHARS
        split, full = "drawn", False
    else:
        files = _find(root, version, train_part)
        published = are_published("wikitext", {path: SHA256[path.name] for path in files if path.name in SHA256})
        facts = {"version": 2, "length": length, "level": level, "min_freq": min_freq, "files": source_facts(*files)}
        if train_part == "valid":
            facts["val_fraction"] = val_fraction
        streams = cached("wikitext", facts, lambda: _prepare(files, length, level, min_freq, val_fraction))
        fitted = same_vocabulary("wikitext", vocabulary, streams)
        vocab, outside, *sizes = (int(n) for n in streams["numbers"])
        split = _split(train_part, vocab, level, outside / sizes[2], published)
        full = (*sizes, vocab) == RELEASED[version]
    train, val, test = (_rows(streams[part], length) for part in ("train", "val", "test"))
    return SequenceData(
        version if generated or train_part == "train" else "wikitext",  # the versions share these two files
        train,
        test,
        val,
        d_output=vocab,
        vocab=vocab,
        inputs=Tokens(),
        seed=seed,
        split=split,
        published=published,
        full=full,
        fitted=fitted,
        generated=generated,
        stream=True,
        **options,
    )


def _split(train_part: str, vocab: int, level: str, outside: float, published: bool) -> str:
    kind = "words" if level == "word" else "characters"
    whose = "the official parts" if published else "the parts as in the files given, which are not the published ones"
    text = f"{whose}, in the order of the text"
    if train_part == "valid":
        text = (
            "train: wiki.valid.tokens without its last rows, which validate; test: wiki.test.tokens; "
            f"perplexity over {vocab} tokens is not comparable with WikiText's"
        )
    return f"{text}; {outside:.2%} of the test {kind} are outside the vocabulary" if outside else text


def _find(root: str | Path | None, version: str, train_part: str) -> list[Path]:
    """The files of the training, validation and test text; two files where training text is cut from validation's."""
    if root is None:
        raise FileNotFoundError(
            "wikitext: there is no download; set data.root to the folder that holds wiki.train.tokens, "
            f"wiki.valid.tokens and wiki.test.tokens of {version}."
        )
    folder = Path(root)
    if not any(folder.glob("wiki.*.tokens")) and (folder / version).is_dir():
        folder = folder / version
    parts = ["train", "valid", "test"] if train_part == "train" else ["valid", "test"]
    files = [folder / f"wiki.{part}.tokens" for part in parts]
    for path in files:
        if not path.is_file():
            way = "set data.root to the folder that holds it"
            if path.name == "wiki.train.tokens":
                way += ", or data.train_part=valid to train on wiki.valid.tokens"
            raise FileNotFoundError(f"wikitext: no {path.name} in {folder}; {way}.")
    return files


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends.

    Raises:
        ValueError: no text, or not UTF-8.
    """
    empty = True
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                empty = empty and not line.strip()
                yield line
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise ValueError(f"{path}: not UTF-8 ({error.reason} {wrong:#x}); copy or download it again.") from None
    if empty:
        raise ValueError(f"{path}: no text in it; copy or download it again.")


def _pieces(path: Path, level: str) -> Iterator[list[str] | str]:
    """The tokens of each line: words and <eos>, or characters."""
    for line in _lines(path):
        yield [*line.split(), EOS] if level == "word" else line


def _prepare(files: list[Path], length: int, level: str, min_freq: int, val_fraction: float) -> dict[str, np.ndarray]:
    """Streams of the parts, and the numbers: types, unknown test tokens, tokens of train, validation and test."""
    sources: list[Callable[[], Iterable[Sequence[str]]]] = [partial(_pieces, path, level) for path in files]
    if len(files) == 2:
        held = [token for piece in sources[0]() for token in piece]
        cut = _cut(files[0], len(held), length, val_fraction)
        sources[:1] = [lambda: [held[:cut]], lambda: [held[cut:]]]
    counts = _counts(sources[0]())
    encode, known = _words(counts, min_freq) if level == "word" else _characters(counts, min_freq)
    made, sizes = {}, []
    for part, path, source in zip(("train", "val", "test"), (files[0], files[-2], files[-1]), sources, strict=True):
        stream = array("i")
        for piece in source():
            stream.frombytes(np.asarray(encode(piece), np.int32).tobytes())
        if len(stream) <= length:
            raise ValueError(
                f"{path}: {part} has {len(stream)} tokens, one row of data.length={length} takes {length + 1}; "
                "set data.length lower."
            )
        sizes.append(len(stream))
        made[part] = _padded(np.frombuffer(stream, np.int32), length)
    outside = sum(count for token, count in _counts(sources[2]()).items() if token not in known)
    specials = 0 if level == "word" else CHAR_SPECIALS
    numbers = np.array([specials + len(known), outside, *sizes])
    return {**made, "numbers": numbers, "vocabulary": np.array(vocabulary_digest(known))}


def _counts(pieces: Iterable[Sequence[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for piece in pieces:
        counts.update(piece)
    return counts


def _words(counts: Counter[str], min_freq: int) -> tuple[Callable[[Sequence[str]], Sequence[int]], Collection[str]]:
    """Words -> their numbers, and the words that have one. <unk> is a word like others where the text holds it."""
    numbers = ranked(counts, (EOS,) if counts[UNK] >= min_freq else (EOS, UNK), min_freq)
    unknown = numbers[UNK]
    return (lambda words: [numbers.get(word, unknown) for word in words]), numbers.keys()


def _characters(counts: Counter[str], min_freq: int) -> tuple[Callable[[Sequence[str]], np.ndarray], Collection[str]]:
    characters = Characters(counts, specials=CHAR_SPECIALS, unknown=UNKNOWN_CHAR, min_freq=min_freq)
    return (lambda text: characters("".join(text))), ranked(counts, min_freq=min_freq).keys()


def _cut(path: Path, tokens: int, length: int, fraction: float) -> int:
    """Where validation starts: at the start of a row, so that the last ``fraction`` of the rows validates."""
    rows = tokens // length
    held = max(1, round(rows * fraction))
    if not 0 < fraction < 1 or held >= rows:
        raise ValueError(
            f"{path}: {tokens} tokens are {rows} rows of data.length={length}; data.val_fraction={fraction} must leave "
            "rows on both sides."
        )
    return (rows - held) * length


def _padded(tokens: np.ndarray, length: int) -> np.ndarray:
    """A stream filled up with `IGNORED` to whole rows of inputs and one more label."""
    rows = -(-(len(tokens) - 1) // length)
    return np.pad(tokens, (0, rows * length + 1 - len(tokens)), constant_values=IGNORED)


def _rows(stream: np.ndarray, length: int) -> Rows:
    """Two views of one stream: inputs, and the same a step later."""
    return Rows(stream[:-1].reshape(-1, length), stream[1:].reshape(-1, length))


def _draw(length: int) -> dict[str, np.ndarray]:
    """Of 64 types, the next is the last times 5 plus 3, but every fifth is drawn."""
    made = {}
    for start, (part, count) in enumerate(zip(("train", "val", "test"), DRAWN_ROWS, strict=True)):
        random = np.random.default_rng(start)
        drawn, fresh = random.integers(DRAWN_TYPES, size=count * length + 1), random.random(count * length + 1) < 0.2
        tokens = array("i", [0])
        for value, new in zip(drawn[1:].tolist(), fresh[1:].tolist(), strict=True):
            tokens.append(value if new else (5 * tokens[-1] + 3) % DRAWN_TYPES)
        made[part] = np.frombuffer(tokens, np.int32)
    return made
