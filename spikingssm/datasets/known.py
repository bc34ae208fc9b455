"""Published files are known by their checksum, wherever they lie: a name and a shape do not say what a file holds."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from loguru import logger

__all__ = ["ContentDigest", "are_published", "is_published", "say_other", "source_of_test"]

_DIGESTS: dict[tuple[str, int, int, str], str] = {}
_SAID: set[tuple[str, str]] = set()


def are_published(name: str, files: Mapping[Path, str | Sequence[str]]) -> bool:
    """Whether each file has a published checksum; the first that has none is named in the log, once.

    Args:
        name: of the data set, for the log.
        files: path -> what `is_published` takes.
    """
    for path, known in files.items():
        if not is_published(path, known):
            say_other(name, path)
            return False
    return True


def is_published(path: Path, known: str | Sequence[str]) -> bool:
    """Whether a file has a published checksum.

    It is hashed at 0.7 (md5) to 1.5 GB/s (sha256), and not again in this process while its size and time are the same.

    Args:
        path: of the file.
        known: the checksum of the published file, or of each form of it: a sha256 digest, or ``md5:`` and one.
    """
    sums = [known] if isinstance(known, str) else known
    return any(_digest(path, "md5" if s.startswith("md5:") else "sha256") == s.removeprefix("md5:") for s in sums)


class ContentDigest:
    """The sha256 of many files, however they are packed: of the lines ``name sha256``, sorted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, data: bytes) -> None:
        """Count a file in."""
        self.lines.append(f"{name} {hashlib.sha256(data).hexdigest()}\n")

    def hexdigest(self) -> str:
        """Of the files so far."""
        return hashlib.sha256("".join(sorted(self.lines)).encode()).hexdigest()


def say_other(name: str, path: Path) -> None:
    """Say once in the log that results on a file are those of other data."""
    if (name, str(path)) not in _SAID:
        _SAID.add((name, str(path)))
        logger.warning(
            f"{name}: {path} is not what was published (by its checksum); results are reported as those of other data"
        )


def source_of_test(published: bool, generated: bool = False, words: str = "the official one") -> str:
    """Where the test rows come from, for the facts of a data set."""
    return "drawn" if generated else words if published else "as in the files given, which are not the published ones"


def _digest(path: Path, kind: str) -> str:
    state = path.stat()
    key = str(path.resolve()), state.st_size, state.st_mtime_ns, kind
    if key not in _DIGESTS:
        with path.open("rb") as file:
            _DIGESTS[key] = hashlib.file_digest(file, kind).hexdigest()
    return _DIGESTS[key]
