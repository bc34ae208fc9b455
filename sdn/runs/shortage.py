"""A full disk and too little memory, told from bugs whatever they are raised as, and said in one line."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

__all__ = ["advised", "named", "shortage"]

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a file may not become that large here",
}
WRITERS = r"is the disk full\?|\d+ requested and \d+ written|No space left on device|File too large|Disk quota exceeded"
"""What libraries say of it where they raise no OSError with a number."""
LIBRARIES = r"inline_container|iostream error|\(os error \d+\)"
"""How writers of torch and safetensors say that they could not write."""
ALLOCATORS = r"can't allocate memory|not enough memory|out of memory|Cannot allocate memory|bad_alloc|start new thread"
WORKER = r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) ((?:is|was)? ?(?:killed by signal: \w+|exited unexpectedly[^.]*))"


def shortage(error: BaseException) -> str | None:
    """What an error says of a full disk or of short memory, in one line; None where it says something else.

    Args:
        error: an OSError of Python, a MemoryError of Python or NumPy, or a RuntimeError of torch.
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in FULL:
        named = error.filename if isinstance(error.filename, str) else ""
        name = re.sub(r"(^|/)\.([^/]+)\.\d+\.partial(?=$|/)", r"\1\2", named)
        return (
            f"{name}: could not be written, {FULL[error.errno]}"
            if name
            else f"a file could not be written, {FULL[error.errno]}"
        )
    if isinstance(error, OSError) and re.search(WRITERS, text):
        return text if "could not be written" in text else f"a file could not be written ({text})"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "not enough memory; free some, or ask for fewer rows"
    if isinstance(error, RuntimeError) and (worker := re.match(WORKER, text)):
        return f"a process that reads data {worker[1]}; if memory was short, lower data.num_workers or the batch size"
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and re.search(ALLOCATORS, text)):
        return None
    asked = re.search(r"tried to allocate (\d+) bytes", text)
    if asked:
        size = int(asked[1])
        amount = f"{size / 2**30:.3g} GiB" if size >= 2**29 else f"{size / 2**20:.3g} MiB"
        text = f"{amount} could not be had"
    return f"not enough memory{text and f' ({text[:160]})'}; free some, or ask for fewer rows or smaller batches"


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around what writes a file: an error says which, and what other libraries raise becomes an OSError too.

    Raises:
        OSError: the file could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None and re.search(WRITERS, str(error)) and os.fspath(path) not in str(error):
            raise OSError(f"{os.fspath(path)}: could not be written ({_short(error)}); is the disk full?") from None
        if error.errno is not None and error.filename is None:  # a write does not say what it wrote
            error.filename = os.fspath(path)
        raise
    except Exception as error:  # torch raises a RuntimeError, safetensors an error of its own
        if re.search(LIBRARIES, str(error)) is None:
            raise
        raise OSError(f"{os.fspath(path)}: could not be written ({_short(error)}); is the disk full?") from None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]


@contextlib.contextmanager
def advised(advice: Callable[[], str]) -> Iterator[None]:
    """Add a note to an error of a full disk or of short memory that passes: how to go on once there is room.

    Args:
        advice: gives the note, called when it is needed.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if shortage(error) is not None and not getattr(error, "__notes__", []):
            error.add_note(advice())
        raise
