"""AEDAT 3.1, the format of event cameras' recordings."""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Events", "in_order", "read_aedat"]

# Event type, source, event size, offset of the time in it, overflows of times, capacity, events, valid events.
PACKET = struct.Struct("<hhiiiiii")
POLARITY_EVENT = 1


class Events(NamedTuple):
    """Events of a recording in the order of their times, each field (N,)."""

    t: np.ndarray
    """Time in microseconds."""
    x: np.ndarray
    """Column, from the left."""
    y: np.ndarray
    """Row, from the top."""
    p: np.ndarray
    """1 brighter, 0 darker."""


def read_aedat(path: str | Path, size: int) -> Events:
    """The polarity events of an AEDAT 3.1 file.

    Packets of other kinds are passed over. Where a packet counts fewer valid events than events, those without the
    valid mark are left out.

    Args:
        path: of the file.
        size: rows, and columns, of the sensor.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a packet that is cut off, or an event outside of the sensor.

    Source: docs.inivation.com, "AEDAT 3.1"; libcaer, ``events/polarity.h``.
    """
    data = Path(path).read_bytes()
    mark = data.find(b"#!END-HEADER")
    if not data.startswith(b"#!AER-DAT3.1") or mark < 0:
        raise ValueError(f"{path}: starts with {data[:12]!r}, an AEDAT 3.1 file with #!AER-DAT3.1 and a header.")
    at, words, times = data.find(b"\n", mark) + 1, [], []
    while at < len(data):
        start = at + PACKET.size
        kind, _, event_size, _, overflow, _, number, valid = PACKET.unpack_from(
            data[at:start].ljust(PACKET.size, b"\0")
        )
        end = start + number * event_size
        if (
            overflow < 0
            or valid < 0
            or number < 0
            or event_size < 1
            or end > len(data)
            or (kind == POLARITY_EVENT and event_size != 8)
        ):
            raise ValueError(f"{path}: damaged at byte {at:,} of {len(data):,}; copy or download it again.")
        if kind == POLARITY_EVENT:
            found = np.frombuffer(data, "<u4", 2 * number, start).reshape(number, 2)
            if valid < number:
                found = found[found[:, 0] & 1 == 1]
            words.append(found[:, 0])
            times.append(found[:, 1].astype(np.int64) + (overflow << 31))
        at = end
    if not words:
        raise ValueError(f"{path}: holds no polarity event; copy or download it again.")
    word = np.concatenate(words)
    return in_order(path, size, np.concatenate(times), word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1)


def in_order(path: str | Path, size: int, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> Events:
    """Events sorted by time.

    Args:
        path: where they come from, for errors.
        size: rows, and columns, of the sensor, up to 256.
        t: microseconds, (N,), as are columns ``x``, rows ``y`` and polarities ``p``.

    Raises:
        ValueError: an event outside of the sensor.
    """
    if len(t) and (min(x.min(), y.min(), p.min()) < 0 or max(x.max(), y.max()) >= size or p.max() > 1):
        raise ValueError(f"{path}: an event outside of {size} x {size} pixels and 2 polarities; copy it again.")
    order = np.argsort(t, kind="stable")
    return Events(t[order], *(field.astype(np.uint8)[order] for field in (x, y, p)))
