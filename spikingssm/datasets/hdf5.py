"""HDF5 files from anywhere: what they announce is compared with the file, and nothing outside of it is read."""

import contextlib
import faulthandler
import math
import mmap
import os
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spikingssm.datasets.packed import ALWAYS, RATIO, one_line

__all__ = ["Hdf5", "h5py_module", "opened", "try_out"]

HEAP = b"GCOL\x01\0\0\0"
AT_ONCE = 2**29
"""Bytes of lists that may be read at once, if each were as long as the file."""
CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")
Found = TypeVar("Found")


def h5py_module() -> Any:
    """The package.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "recordings of spikes need h5py, in the extra `data`: pip install 'sdn-spikingssm[data]'."
        ) from error
    return h5py


@contextmanager
def opened(path: str | Path, plain: Path) -> Iterator["Hdf5"]:
    """The open file.

    Args:
        path: what the user gave, for errors.
        plain: of the file itself, where ``path`` is packed.

    Raises:
        ImportError: h5py is not installed.
        ValueError: not an HDF5 file, or damaged.
    """
    h5py = h5py_module()
    _asked(path, lambda: _check_heaps(plain))
    file = _asked(path, lambda: h5py.File(plain, "r"))
    try:
        yield Hdf5(path, file, plain.stat().st_size)
    finally:
        _asked(path, file.close)


def try_out(path: str | Path, read: Callable[[], Any]) -> None:
    """Read a file in a copy of this process first: there is damage that crashes libhdf5 itself.

    Args:
        path: for errors.
        read: reads all of it. What it raises is left for the reading that follows.

    Raises:
        ValueError: the copy crashed.
    """
    if not hasattr(os, "fork"):
        return
    import resource  # there is none where there is no fork

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of copies of processes with several threads
        copy = os.fork()
    if not copy:
        with contextlib.suppress(BaseException):
            faulthandler.disable()  # a crash has its own words
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            read()
        os._exit(0)
    try:
        _, status = os.waitpid(copy, 0)
    except BaseException:
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)
        raise
    if os.WIFSIGNALED(status) and (name := signal.Signals(os.WTERMSIG(status)).name) in CRASHES:
        raise ValueError(f"{path}: damaged, the HDF5 library crashes on it ({name}); copy or download it again.")


def _check_heaps(plain: Path) -> None:
    """Refuse a damaged heap of lists, in which libhdf5 would walk for ever: an object without size is no step.

    A collection has a head of 16 bytes (signature, version, size) and objects of a head of 16 bytes (number, ..., size)
    and their content in multiples of 8 bytes; number 0 is the free rest, whose size counts its head.

    Source: "HDF5 File Format Specification Version 3.0", III.E, Global Heap.
    """
    if not plain.stat().st_size:
        raise ValueError("it is empty")
    with plain.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(HEAP)
        while at >= 0:
            (size,) = struct.unpack_from("<Q", data, at + 8) if at + 16 <= len(data) else (0,)
            if not 16 <= size <= len(data) - at:
                raise ValueError(f"a heap at byte {at} announces {size} bytes")
            here, end = at + 16, at + size
            while end - here >= 16:
                number, length = struct.unpack_from("<H6xQ", data, here)
                step = length if number == 0 else 16 + length + -length % 8
                if not 16 <= step <= end - here:
                    raise ValueError(f"a heap at byte {at} has an object of {length} bytes")
                here += step
            at = data.find(HEAP, end)


class Hdf5:
    """Datasets of one axis by their names; whatever h5py says of damage comes out as a ValueError of one line."""

    def __init__(self, path: str | Path, file: Any, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.most = max(ALWAYS, RATIO * size)
        self.came: dict[str, int] = {}

    def has(self, name: str) -> bool:
        """Whether there is something of this name."""
        return bool(_asked(self.path, lambda: self._linked(name)))

    def dataset(self, name: str) -> Any:
        """The dataset of this name, None where there is none.

        Raises:
            ValueError: a link out of the file, content outside of the file, or more of it than the file can hold.
        """
        if not self.has(name):
            return None
        found = _asked(self.path, lambda: self.file.get(name))
        if not isinstance(found, h5py_module().Dataset):
            return None
        if _asked(self.path, lambda: found.is_virtual or found.id.get_create_plist().get_external_count()):
            raise ValueError(f"{self.path}: {name} lies in other files, which are not read; copy it into this one.")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the dataset, which must be no more than the file can hold.

        Raises:
            ValueError: it announces more.
        """
        shape = _asked(self.path, lambda: tuple(self.dataset(name).shape))
        width = _asked(self.path, lambda: self.dataset(name).id.get_type().get_size())
        if math.prod(shape) * width > self.most:
            raise ValueError(
                f"{self.path}: {name} announces {shape}, and the file has {self.size} bytes; copy it again."
            )
        return shape

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """A part of the dataset.

        Raises:
            ValueError: damaged, or lists that are longer together than the file can hold.
        """
        found: np.ndarray = _asked(self.path, lambda: self.dataset(name)[start:stop])
        if found.dtype == object:
            came = sum(row.nbytes for row in found if isinstance(row, np.ndarray))
            self.came[name] = self.came.get(name, 0) * (start > 0) + came
            if self.came[name] > self.most:
                raise ValueError(f"{self.path}: the lists of {name} are longer than the file; copy it again.")
        return found

    def at_once(self, rows: int) -> int:
        """How many lists to read at once, at most ``rows``: a list may be as long as the file."""
        return max(1, min(rows, AT_ONCE // max(1, self.size)))

    def _linked(self, name: str) -> bool:
        """Whether every part of the path is a hard link: others lead out of the file."""
        h5py, group = h5py_module(), self.file
        for part in name.split("/"):
            if not isinstance(group, h5py.Group) or not isinstance(
                link := group.get(part, getlink=True), h5py.HardLink
            ):
                if isinstance(group, h5py.Group) and link is not None:
                    raise ValueError(f"{name} is a link to another place")
                return False
            group = group.get(part)
        return group is not None


def _asked(path: str | Path, call: Callable[[], Found]) -> Found:
    try:
        return call()
    except Exception as error:  # h5py raises what damaged objects make HDF5 and NumPy raise
        if str(path) in str(error):
            raise
        raise ValueError(
            f"{path}: not an HDF5 file, or damaged ({one_line(error)}); copy or download it again."
        ) from None
