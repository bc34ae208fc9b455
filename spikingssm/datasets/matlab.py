"""MATLAB files of version 5 from anywhere: looked through before scipy reads them, which believes their sizes."""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from spikingssm.datasets.packed import BLOCK, check_expansion

__all__ = ["check_mat"]

HEADER = 128
PACKED, MATRIX, NUMERIC = 15, 14, range(6, 16)
"""Kinds of elements, and the classes of matrices that hold plain numbers; others hold matrices that hold matrices."""


def check_mat(path: Path, names: Collection[str]) -> None:
    """Look through a MATLAB 5 file: each element fits into the file, what is packed unpacks to its checksum.

    Args:
        path: of the file.
        names: of the matrices that will be read; they must hold plain numbers.

    Raises:
        ValueError: another kind of file, a size that it does not have, or a matrix of another kind.
        zlib.error: a damaged element.
    """
    data, came = path.read_bytes(), 0
    if data[:19] != b"MATLAB 5.0 MAT-file" or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it does not start as a MATLAB 5.0 MAT-file")
    order = "<" if data[126:128] == b"IM" else ">"
    at = HEADER
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError("an element is cut short")
        kind, size = struct.unpack(f"{order}II", data[at : at + 8])
        element = memoryview(data)[at + 8 : at + 8 + size]
        if len(element) != size:
            raise ValueError(f"an element announces {size} bytes, and {len(element)} follow")
        if kind == PACKED:
            head = b""
            for block in _unpacked(element):
                came += len(block)
                check_expansion(came, len(data))
                head = head + block if len(head) < BLOCK else head
            _check_matrix(head[:BLOCK], order, names)
        elif kind == MATRIX:
            _check_matrix(bytes(data[at : at + 8]) + bytes(element[:BLOCK]), order, names)
        at += 8 + size
        at += -at % 8 if kind != PACKED else 0


def _unpacked(element: memoryview) -> Iterator[bytes]:
    """What a packed element holds, in pieces."""
    decoder, rest = zlib.decompressobj(), bytes(element)
    while not decoder.eof:
        block = decoder.decompress(rest, BLOCK)
        rest = decoder.unconsumed_tail
        if not block and not rest:
            raise ValueError("a packed element is cut short")
        yield block


def _check_matrix(head: bytes, order: str, names: Collection[str]) -> None:
    """Refuse a matrix of one of these names that is none of plain numbers, or larger than its element."""
    kind, size, _, flags_size, flags, _ = struct.unpack(f"{order}IIIIII", head[:24])
    if kind != MATRIX or flags_size != 8:
        return
    at, dims = _element(head, 24, order)
    at, name = _element(head, at, order)
    if name.decode("latin1") not in names:
        return
    if flags & 0xFF not in NUMERIC or flags & 0x800:
        raise ValueError(f"{name.decode('latin1')} is of class {flags & 0xFF}, it must hold real numbers")
    shape = np.frombuffer(dims, f"{order}i4").tolist()
    if min(shape, default=0) < 1 or math.prod(shape) > size:
        raise ValueError(f"{name.decode('latin1')} announces {shape}, and its element has {size} bytes")


def _element(head: bytes, at: int, order: str) -> tuple[int, bytes]:
    """Where the next element starts, and the content of this one, which may stand in its own tag."""
    kind, size = struct.unpack(f"{order}II", head[at : at + 8])
    if kind >> 16:
        return at + 8, head[at + 4 : at + 4 + (kind >> 16)]
    return at + 8 + size + -size % 8, head[at + 8 : at + 8 + size]
