"""Damage to bytes, as a function of a random generator."""

import os
import random
from collections.abc import Callable
from pathlib import Path

__all__ = ["DAMAGES", "damage", "flip_bit", "special"]


def flip_bit(draw: random.Random, data: bytes) -> bytes:
    """One bit, anywhere."""
    changed = bytearray(data)
    at = draw.randrange(8 * len(data))
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def _flip_bytes(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 2, 8, 64])):
        changed[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(changed)


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def _cut_out(draw: random.Random, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:start] + data[stop:]


def _insert(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.choice([1, 2, 4, 8, 100])) + data[at:]


def _zero(draw: random.Random, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:start] + bytes(stop - start) + data[stop:]


def _ones(draw: random.Random, data: bytes) -> bytes:
    start = draw.randrange(len(data))
    width = draw.choice([1, 2, 4, 8])
    return data[:start] + b"\xff" * width + data[start + width :]


def _repeat(draw: random.Random, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:stop] + data[start:stop] * draw.choice([1, 3, 50]) + data[stop:]


def _number(draw: random.Random, data: bytes) -> bytes:
    """A number at the edge of its kind where a size may stand."""
    width = draw.choice([1, 2, 4, 8])
    value = draw.choice([0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 2 ** (4 * width)])
    start = draw.randrange(len(data))
    return data[:start] + value.to_bytes(width, draw.choice(["little", "big"])) + data[start + width :]


def _head(draw: random.Random, data: bytes) -> bytes:
    """As `_flip_bytes`, in the first bytes, where formats describe themselves."""
    size = min(len(data), 200)
    return _flip_bytes(draw, data[:size]) + data[size:]


def _swap(draw: random.Random, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    at = draw.randrange(len(data))
    return data[:at] + data[start:stop] + data[at + stop - start :]


def _nothing(draw: random.Random, data: bytes) -> bytes:
    return draw.choice([b"", b"\0", b"\0" * 1000, draw.randbytes(500), b"PK\x03\x04", b"\x1f\x8b\x08", b"\x80\x02"])


DAMAGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes": _flip_bytes, "cut": _cut, "cut-out": _cut_out, "insert": _insert, "zero": _zero, "ones": _ones,
    "repeat": _repeat, "number": _number, "head": _head, "swap": _swap, "nothing": _nothing,
}  # fmt: skip


def damage(draw: random.Random, data: bytes) -> tuple[str, bytes]:
    """The name of a damage, and the damaged bytes, which differ."""
    while True:
        name = draw.choice([*DAMAGES])
        changed = DAMAGES[name](draw, data)
        if changed != data:
            return name, changed


def _span(draw: random.Random, data: bytes) -> tuple[int, int]:
    start = draw.randrange(len(data))
    return start, min(len(data), start + draw.choice([1, 4, 16, 64, 512, 4096]))


def special(draw: random.Random, path: Path) -> str:
    """Put something that is no file where a file was; its name."""
    way = draw.choice(["pipe", "device", "loop", "folder", "nothing"])
    path.unlink()
    if way == "pipe":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way != "nothing":
        path.symlink_to("/dev/zero" if way == "device" else path.name)
    return way
