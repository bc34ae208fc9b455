"""Files that are whole or absent: everything is written under a temporary name and renamed."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdn.runs.shortage import named

__all__ = ["check_regular", "read_json", "remove_stale", "versions", "write_json", "writing"]

LARGEST_JSON = 2**24
"""Bytes; the summary of a run has 3,000."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any failure.

    The folder is created. A reader sees the old file or the new one, never a half: the data is flushed before the
    rename. A killed process leaves only ``.<name>.<pid>.partial``, which the next write to ``path`` removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path.parent, _glob_escape(path.name))
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with named(path):
            yield partial
            os.umask(mask := os.umask(0))
            partial.chmod(0o666 & ~mask)  # some writers make private files
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove what killed processes have left of files or folders that they were writing.

    Args:
        folder: where they lie.
        pattern: of the names that were to be; ``.<name>.<pid>.partial`` of a process that lives is left.
    """
    for stale in folder.glob(f".{pattern}.*.partial"):
        if _alive(stale):
            continue
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # a folder that may be read only
                stale.unlink()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write plain values as indented JSON, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the reason in one line, without the name of the file: no JSON, nested too deeply, or too large.
    """
    check_regular(path)
    if (size := Path(path).stat().st_size) > LARGEST_JSON:
        raise ValueError(f"it has {size} bytes, at most {LARGEST_JSON} are read")
    try:
        return json.loads(Path(path).read_bytes())
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())[:120]) from None


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a pipe or a device, which may have no end, or nobody who writes to it.

    Raises:
        OSError: something is there, and it is neither a file, nor a folder, nor a link to one.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(f"{path}: a pipe or a device; give a file.")


def versions() -> dict[str, str]:
    """The versions a result depends on, as plain strings: sdn, torch, python."""
    import platform

    import torch

    import sdn

    return {"sdn": sdn.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _glob_escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(partial: Path) -> bool:
    pid = partial.name.split(".")[-2]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
