"""Prepared tensors on disk: what takes long to read is prepared once and then mapped into memory."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from sdn.runs.files import read_json, remove_stale, write_json
from sdn.runs.shortage import named

__all__ = ["CACHE", "Pieces", "cached", "source_facts"]

CACHE = Path("dataset") / "cache"
"""Below the current folder; it can be deleted at any time."""
_FACTS = "facts.json"


class Pieces(NamedTuple):
    """An array that is larger than memory: ``pieces`` one after another along its first axis, read once, in order."""

    shape: tuple[int, ...]
    dtype: Any
    pieces: Iterable[np.ndarray]


def cached(
    name: str,
    facts: Mapping[str, Any],
    make: Callable[[], Mapping[str, np.ndarray | Pieces]],
    *,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """The arrays that ``make`` gives, from disk where the same call made them before.

    A folder holds what its ``facts.json`` lists, with the digest of each array. One that does not is prepared anew.

    Args:
        name: of the data set, part of the folder's name.
        facts: everything that the arrays depend on, as plain values: options, and `source_facts` of the files. Other
            facts mean another folder.
        make: reads and prepares; called only where the arrays are not there yet. Its keys become file names, and are
            written in their order, `Pieces` as they come.
        folder: where cached folders stand; `CACHE` by default.

    Returns:
        read-only memory maps, name -> array. A killed call leaves nothing that a later one would take for whole.
    """
    text = json.dumps(dict(facts), sort_keys=True)
    home = (folder or CACHE) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    remove_stale(home.parent, f"{name}-*")
    found = None
    if home.is_dir():
        try:
            found = _checked(home, text)
        except ValueError as error:
            logger.warning(f"{name}: {home} cannot be trusted ({error}); it is prepared anew")
    if found is None:
        _prepare(name, home, text, make)
        found = _checked(home, text)
    return found


def _prepare(name: str, home: Path, text: str, make: Callable[[], Mapping[str, np.ndarray | Pieces]]) -> None:
    """Write the arrays beside their place, and move them there."""
    partial = home.with_name(f".{home.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        logger.info(f"{name}: preparing {home} (once)")
        made, arrays = make(), {}
        with named(home):
            for key, array in made.items():
                _save(partial / f"{key}.npy", array)
                arrays[key] = _entry(partial / f"{key}.npy")
            write_json(partial / _FACTS, {"facts": json.loads(text), "arrays": arrays})
        if not _is_whole(home, text):  # another process may have been faster
            shutil.rmtree(home, ignore_errors=True)
            with contextlib.suppress(OSError):  # it was there again in between
                partial.replace(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_whole(home: Path, text: str) -> bool:
    try:
        return home.is_dir() and bool(_checked(home, text) or True)
    except ValueError:
        return False


def _checked(home: Path, text: str) -> dict[str, np.ndarray]:
    """The arrays of a folder, mapped, if they are all there and as they were written.

    Raises:
        ValueError: what is wrong, without the name of the folder.
    """
    try:
        known = read_json(home / _FACTS)
    except (OSError, ValueError) as error:
        raise ValueError(f"its {_FACTS} cannot be read: {' '.join(str(error).split())[:80]}") from None
    listed = known.get("arrays") if isinstance(known, dict) else None
    if not isinstance(listed, dict) or known.get("facts") != json.loads(text):
        raise ValueError(f"its {_FACTS} lists no digests, as that of an earlier version")
    there = {path.stem for path in home.glob("*.npy")}
    if there != set(listed):
        raise ValueError(f"it holds {sorted(there)} and lists {sorted(listed)}"[:160])
    found = {}
    for key in sorted(listed):
        _check_array(home / f"{key}.npy", listed[key])
        found[key] = np.load(home / f"{key}.npy", mmap_mode="r", allow_pickle=False)
    return found


_VERIFIED: set[tuple[str, int, int, str]] = set()
"""Large files that were hashed in this process; a study opens the same data many times."""
LARGE = 2**26


def _check_array(path: Path, listed: Any) -> None:
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    state = path.stat()
    seen = (str(path.resolve()), state.st_size, state.st_mtime_ns, str(listed))
    if seen in _VERIFIED:
        return
    try:
        entry = _entry(path)
    except Exception as error:  # NumPy raises what damaged bytes make its reader of headers raise
        raise ValueError(f"{path.name} cannot be read: {' '.join(str(error).split())[:80]}") from None
    if entry != listed:
        raise ValueError(f"{path.name} is not what was written")
    if state.st_size > LARGE:
        _VERIFIED.add(seen)


def _entry(path: Path) -> dict[str, Any]:
    """What ``facts.json`` says of an array: kind, shape, bytes of the file, and its sha256 (about 1.5 GB/s)."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    kind, shape = np.lib.format.dtype_to_descr(array.dtype), list(array.shape)
    return {"dtype": json.loads(json.dumps(kind)), "shape": shape, "bytes": path.stat().st_size, "sha256": digest}


def _save(path: Path, array: np.ndarray | Pieces) -> None:
    if not isinstance(array, Pieces):
        np.save(path, np.ascontiguousarray(array) if np.ndim(array) else array, allow_pickle=False)
        return
    dtype, written = np.dtype(array.dtype), 0
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in array.pieces:
            file.write(np.ascontiguousarray(piece, dtype).data)
            written += piece.size
    if written != int(np.prod(array.shape)):
        raise ValueError(f"{path.name}: {written} numbers came for the shape {array.shape}.")


def source_facts(*paths: str | Path) -> dict[str, list[int]]:
    """Size and time of change of files, for the facts of `cached`: a changed file is read again.

    Raises:
        OSError: a file that is not there, or a link that leads nowhere.
    """
    states = {p: Path(p).stat() for p in paths}
    return {str(Path(p).resolve()): [state.st_size, state.st_mtime_ns] for p, state in states.items()}
