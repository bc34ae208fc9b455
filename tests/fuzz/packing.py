"""Whole inputs in packed files, and small files that unpack to much."""

import functools
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["as_tar", "bombs", "npz_bomb", "numbers", "pack"]


def numbers(seed: int = 0) -> np.random.Generator:
    """Random numbers for whole inputs."""
    return np.random.default_rng(seed)


def pack(path: Path, kind: str) -> None:
    """Pack a file in place, as its name with the kind behind it."""
    data = path.read_bytes()
    packed = path.with_name(f"{path.name}.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(path.name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    else:
        packed.write_bytes(gzip.compress(data, mtime=0) if kind == "gz" else lzma.compress(data))
    path.unlink()


def as_tar(path: Path, kind: str, files: dict[str, bytes]) -> None:
    """Write files as a tar archive, packed or not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "xz": lzma.compress, "": bytes}
    path.write_bytes(packers[kind](buffer.getvalue()))


def bombs(name: str, kind: str) -> Callable[[random.Random, Path], None]:
    """A packed file that is small and unpacks to much."""

    def bomb(draw: random.Random, folder: Path) -> None:
        size = draw.choice([2**24, 2**28, 3 * 2**29])
        head = draw.choice([b"", b"\0\0\x08\x03" + struct.pack(">3I", size // 784, 28, 28)])
        packer = {"gz": lambda: _gzip_of(head, size), "xz": lambda: _xz_of(head, size)}[kind]
        (folder / name).write_bytes(packer())

    bomb.__name__ = f"bomb {name}"
    return bomb


def npz_bomb(name: str, key: str) -> Callable[[random.Random, Path], None]:
    """An array of zeros in an .npz file, small there and large in memory."""

    def bomb(draw: random.Random, folder: Path) -> None:
        (folder / name).write_bytes(_npz_of(key, draw.choice([2**26, 3 * 2**29])))

    bomb.__name__ = f"bomb {name}"
    return bomb


@functools.cache
def _npz_of(key: str, size: int) -> bytes:
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (size // 8, 1, 1)}
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{key}.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array_header_1_0(stream, header)
        for _ in range(size >> 22):
            stream.write(bytes(2**22))
    return file.getvalue()


def _gzip_of(head: bytes, size: int) -> bytes:
    """Zeros in a gzip file of many members, each packed once for all files."""
    return gzip.compress(head) + _zeros(gzip.compress) * (size >> 22)


def _xz_of(head: bytes, size: int) -> bytes:
    """Zeros in an xz file of many streams."""
    return lzma.compress(head) + _zeros(lzma.compress) * (size >> 22)


@functools.cache
def _zeros(packer: Callable[[bytes], bytes]) -> bytes:
    return packer(bytes(2**22))
