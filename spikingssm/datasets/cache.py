"""Prepared tensors on disk: what takes long to read is prepared once and then mapped into memory."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

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
    if not (home / _FACTS).is_file():
        partial = home.with_name(f".{home.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            logger.info(f"{name}: preparing {home} (once)")
            for key, array in make().items():
                _save(partial / f"{key}.npy", array)
            (partial / _FACTS).write_text(text + "\n")
            if not (home / _FACTS).is_file():  # another process may have been faster
                shutil.rmtree(home, ignore_errors=True)
                partial.replace(home)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(home.glob("*.npy"))}


def _save(path: Path, array: np.ndarray | Pieces) -> None:
    if not isinstance(array, Pieces):
        np.save(path, np.ascontiguousarray(array), allow_pickle=False)
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
    """Size and time of change of files, for the facts of `cached`: a changed file is read again."""
    return {str(Path(p).resolve()): [Path(p).stat().st_size, Path(p).stat().st_mtime_ns] for p in paths}
