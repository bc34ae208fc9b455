"""Sentiment of film reviews, letter by letter: the task "Text" of the Long Range Arena."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.cache import CACHE, cached, source_facts
from spikingssm.datasets.download import fetch
from spikingssm.datasets.inputs import Tokens
from spikingssm.datasets.known import are_published, source_of_test
from spikingssm.datasets.packed import tar_members
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root
from spikingssm.datasets.tokens import Characters, pad_rows, same_vocabulary

__all__ = ["imdb"]

# Address, md5 and the numbers of reviews as torchtext lists them, github.com/pytorch/text torchtext/datasets/imdb.py.
ADDRESS, ARCHIVE = "http://ai.stanford.edu/~amaas/data/sentiment/", "aclImdb_v1.tar.gz"
CHECKSUM = "md5:7c2ac02c03563afcf9b574c7e56c153a"
ARCHIVES = (ARCHIVE, "aclImdb_small.tar.xz")
SMALL = "ceab374bb530520be8ed636515fa131f270fb6204eba13b105cb040a854f8c44"
"""5,000 + 2,000 reviews of the release, as data/README.md lists them: aclImdb_small.tar.xz."""
RELEASED = {("train", 0): 12_500, ("train", 1): 12_500, ("test", 0): 12_500, ("test", 1): 12_500}

BYTES, BYTE_EOS = 256, 1
"""Level byte: a token is the byte itself; 0 is padding and 1 the end, which text does not hold."""
SPECIALS, UNKNOWN, CHAR_EOS = 3, 1, 2
"""Level char: padding, unknown, end, then characters by frequency."""
GENERATED_CHARS = 135
_REVIEW = re.compile(r"(?:^|/)(train|test)/(pos|neg)/(\d+)_(\d+)\.txt$")


class _Review(NamedTuple):
    part: str
    label: int
    number: int
    text: bytes


def imdb(
    root: str | Path | None = None,
    *,
    length: int = 4096,
    level: str = "byte",
    min_freq: int = 15,
    vocabulary: str | None = None,
    generated: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Film reviews as letters: tokens x (B, L) with lengths (B,), 2 classes, 1 positive and 0 negative.

    A review is cropped to L - 1 tokens; the end token follows. Validation is carved from the training reviews by the
    seed, where the published experiments validate on the test reviews.

    Args:
        root: folder that holds ``aclImdb/``, or that folder, or the archive, read in place, or the folder it lies in;
            None downloads the release (84 MB) once into ``dataset/cache/imdb``.
        length: L, at least 2.
        level: ``byte``: UTF-8 bytes, 256 tokens. ``char``: the characters of the training files as published, about
            135 tokens; what is rarer is unknown. The levels differ in rare characters only.
        min_freq: how often a character must occur in the training files; level char only.
        vocabulary: digest of the characters that the numbers stand for, as a run keeps it; other files are then
            refused where their characters are others. None takes those of the training files; level char only.
        generated: draw a stand-in; the class decides which letters are frequent.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: no reviews there, or none of a class.
        ValueError: an empty review, stars that contradict the folder, a damaged archive, or an unknown level.
        OSError: a download that failed.

    Source: Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011; Tay et al., "Long Range Arena", ICLR
    2021, section 2.2.2.
    """
    if level not in ("byte", "char"):
        raise ValueError(f"imdb: level must be byte or char, got {level!r}.")
    if length < 2:
        raise ValueError(f"imdb: length must be at least 2, a token and its end, got {length}.")
    published, words = True, "the official one"
    if generated:
        refuse_root("imdb", root)
        found = _draw(length, BYTES if level == "byte" else GENERATED_CHARS)
    else:
        source = _find(fetch(ADDRESS, ARCHIVE, CHECKSUM, CACHE / "imdb") if root is None else Path(root))
        if source.is_dir():  # there is no checksum of the unpacked reviews
            words = "as in test/pos and test/neg"
        else:
            published = are_published("imdb", {source: (CHECKSUM, SMALL)})
        facts = {"version": 2, "length": length, "level": level, "files": _state(source)}
        if level == "char":
            facts["min_freq"] = min_freq
        found = cached("imdb", facts, lambda: _prepare(source, length, level, min_freq))
    fitted = same_vocabulary("imdb", vocabulary, found) if level == "char" and not generated else {}
    train, test = (Rows(*(found[f"{key}_{part}"] for key in ("x", "y", "lengths"))) for part in ("train", "test"))
    counts = {(part, k): int((rows.y == k).sum()) for part, rows in (("train", train), ("test", test)) for k in (0, 1)}
    return SequenceData(
        "imdb",
        train,
        test,
        d_output=2,
        vocab=int(found["vocab"][0]),
        inputs=Tokens("bytes" if level == "byte" else "", BYTE_EOS, length),
        class_names=("negative", "positive"),
        seed=seed,
        split=f"test: {source_of_test(published, generated, words)}; validation: from the training reviews, by the "
        "seed (published: the test reviews)",
        published=published,
        full=counts == RELEASED,
        fitted=fitted,
        generated=generated,
        **options,
    )


def _find(root: Path) -> Path:
    """The archive, or the folder that holds ``train`` and ``test``."""
    if root.is_file():
        return root
    for folder in (root, root / "aclImdb"):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder
    for path in (root / name for name in ARCHIVES):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"imdb: neither aclImdb/train and aclImdb/test nor {' or '.join(ARCHIVES)} in {root}; "
        "set data.root to the folder that holds one of them, or data.root=null to download."
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for part in ("train", "test") for path in folder.glob(f"{part}/*/*.txt") if path.is_file())


def _state(source: Path) -> str:
    """A digest of names, sizes and dates of all files read."""
    facts = source_facts(*([source] if source.is_file() else _files(source)))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _texts(source: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every text file, in any order; an archive is read once from start to end."""
    if source.is_dir():
        yield from ((path.as_posix(), path.read_bytes()) for path in _files(source))
        return
    yield from tar_members(source, lambda name: _REVIEW.search(name) is not None)


def _read(source: Path) -> list[_Review]:
    """All reviews in the order of part, label and number.

    Raises:
        ValueError: an empty review, or stars that contradict the folder.
        FileNotFoundError: none of some class.
    """
    reviews = []
    for path, text in _texts(source):
        if not (match := _REVIEW.search(path)):
            continue
        part, folder, number, stars = match.groups()
        if not text.strip():
            raise ValueError(f"imdb: {path} in {source} is empty; copy or download the data again.")
        if not (7 <= int(stars) <= 10 if folder == "pos" else 1 <= int(stars) <= 4):
            raise ValueError(f"imdb: {path} has {stars} stars; pos holds 7 to 10 and neg 1 to 4: move or remove it.")
        reviews.append(_Review(part, int(folder == "pos"), int(number), text))
    for part, label in RELEASED:
        if not any((review.part, review.label) == (part, label) for review in reviews):
            folder = f"{part}/{'pos' if label else 'neg'}"
            raise FileNotFoundError(f"imdb: no {folder}/ID_STARS.txt in {source}; set data.root to the whole release.")
    return sorted(reviews)


def _prepare(source: Path, length: int, level: str, min_freq: int) -> dict[str, np.ndarray]:
    reviews = _read(source)
    vocab, eos, encode, known = BYTES, BYTE_EOS, _byte_tokens, ""
    if level == "char":
        counts: Counter[str] = Counter()
        for review in reviews:
            if review.part == "train":
                counts.update(review.text.decode(errors="replace"))
        characters = Characters(counts, specials=SPECIALS, unknown=UNKNOWN, min_freq=min_freq)
        known = characters.digest
        vocab, eos, encode = len(characters), CHAR_EOS, lambda text: characters(text.decode(errors="replace"))
    made = {"vocab": np.array([vocab]), "vocabulary": np.array(known)}
    for part in ("train", "test"):
        chosen = [review for review in reviews if review.part == part]
        rows = (encode(review.text) for review in chosen)
        made[f"x_{part}"], made[f"lengths_{part}"] = pad_rows(rows, len(chosen), length, eos, vocab)
        made[f"y_{part}"] = np.array([review.label for review in chosen], np.int64)
    return made


def _byte_tokens(text: bytes) -> np.ndarray:
    tokens = np.frombuffer(text, np.uint8)
    return np.where(tokens > BYTE_EOS, tokens, ord(" "))  # the numbers of padding and end stay theirs


def _draw(length: int, vocab: int) -> dict[str, np.ndarray]:
    """A quarter of the letters is three times as frequent in one class, another quarter in the other."""
    first, eos = (ord("a"), BYTE_EOS) if vocab == BYTES else (SPECIALS, CHAR_EOS)
    weights = np.ones((2, 24))
    weights[0, :6] = weights[1, 6:12] = 3
    made = {"vocab": np.array([vocab])}
    for start, (part, count) in enumerate((("train", TRAIN), ("test", TEST))):
        random = np.random.default_rng(start)
        y = random.permutation(np.arange(count) % 2)
        sizes = random.integers(length // 4, length, count)
        rows = (first + random.choice(24, n, p=weights[k] / weights[k].sum()) for n, k in zip(sizes, y, strict=True))
        made[f"x_{part}"], made[f"lengths_{part}"] = pad_rows(rows, count, length, eos, vocab)
        made[f"y_{part}"] = y
    return made
