"""Arrays in .npy and .npz files from anywhere: sizes are compared with the file before memory is taken."""

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from sdn.runs.files import check_regular
from spikingssm.datasets.packed import check_expansion, one_line

__all__ = ["npz_names", "read_npy", "read_npz"]

LONGEST_HEADER = 10_000
"""Bytes of the description of an array; that of a plain one has 118."""


def read_npy(path: str | Path) -> np.ndarray:
    """The array in a .npy file; no pickled object is read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or another size than it announces.
    """
    path = Path(path)
    check_regular(path)
    try:
        with path.open("rb") as stream:
            return _array(stream, path.stat().st_size)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy's reader of headers raises what damaged text makes Python's parser raise
        raise ValueError(f"{path}: not a .npy file of plain numbers ({one_line(error)}); copy it again.") from None


def npz_names(path: str | Path) -> list[str]:
    """The names of the arrays in an .npz file that `read_npz` reads; at most 20."""
    with zipfile.ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy")[:40] for name in archive.namelist())[:20]


def read_npz(path: str | Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, each read to its checksum; no pickled object is read.

    Args:
        path: of the file.
        names: of the arrays to read, those that are there; None reads all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or sizes that it does not have.
    """
    path = Path(path)
    wanted = None if names is None else {f"{name}.npy" for name in names}
    name = "the list of arrays"
    check_regular(path)
    try:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise ValueError("one bare array, a .npy file")
            found, left = {}, 0
            with zipfile.ZipFile(file) as archive:
                for member in _members(archive, path.stat().st_size):
                    name = member.filename
                    left += member.file_size
                    check_expansion(left, path.stat().st_size)
                    with archive.open(member) as stream:  # which compares both places where its name stands
                        if wanted is None or name in wanted:
                            found[name.removesuffix(".npy")] = _array(stream, member.file_size)
            return found
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise what damaged bytes make them raise
        raise ValueError(f"{path}: not an .npz file of plain arrays ({name[:60]}: {one_line(error)}).") from None


def _members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members):
        raise ValueError("two arrays have the same name")
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its members overlap")
    return members


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The one array in a stream of ``size`` bytes, read to its end."""
    version = np.lib.format.read_magic(stream)
    readers: dict[Any, Any] = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, columns_first, dtype = readers[version](stream, max_header_size=LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError(
            "Object arrays are not read, since they can run code; pad rows to one length and save their lengths too"
        )
    count = math.prod(shape)
    if min(shape, default=1) < 0 or stream.tell() + count * dtype.itemsize != size:
        follow = max(0, size - stream.tell())
        raise ValueError(f"it announces {shape} of {dtype}, {count * dtype.itemsize} bytes, and {follow} follow")
    data = bytearray(count * dtype.itemsize)
    at = memoryview(data)
    while at and (came := stream.readinto(at)):  # type: ignore[attr-defined]
        at = at[came:]
    if at or stream.read(1):
        raise EOFError("cut short, or more than it announces")
    array = np.frombuffer(data, dtype, count)
    return array.reshape(shape[::-1]).T if columns_first else array.reshape(shape)
