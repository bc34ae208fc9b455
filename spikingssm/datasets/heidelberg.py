"""Spike trains of single words in HDF5: the file format of the Heidelberg spiking data sets."""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdn.runs.files import writing
from spikingssm.datasets.cache import CACHE, Pieces, cached, source_facts
from spikingssm.datasets.hdf5 import Hdf5, h5py_module, opened, try_out
from spikingssm.datasets.packed import BLOCK, check_expansion, one_line, unpacked

__all__ = ["UNITS", "Recordings", "map_recordings", "read_recordings", "write_recordings"]

UNITS = 700
"""Channels of the artificial cochlea."""
LATEST = 2**31
"""No event is this late, in microseconds (36 minutes)."""
LISTS = {"spikes/times": "fiu", "spikes/units": "iu"}
"""Lists, one a recording, and the kinds of their numbers."""
FIELDS = *LISTS, "labels"
EVENT = np.dtype([("time", "<i4"), ("unit", "<u2")])
MOST_CLASSES = 10_000
ROWS = 512
"""Recordings read at a time."""


class Recordings(NamedTuple):
    """N recordings with E events altogether, one recording after another."""

    times: np.ndarray
    """(E,) integers, microseconds since the start of the recording, not falling within a recording."""
    units: np.ndarray
    """(E,) uint16, the channel, 0 <= unit < 700."""
    starts: np.ndarray
    """(N + 1,) int64: recording i is ``starts[i]:starts[i + 1]``; it may be empty."""
    labels: np.ndarray
    """(N,) int64."""
    speakers: np.ndarray
    """(N,) int64, -1 where not known; or names, as strings."""


class _Mapped(Recordings):
    """Recordings whose events are a memory map of the file at ``path``: pickled as the path, not as the events."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return map_recordings, (self.path,)


def are_known(speakers: np.ndarray) -> bool:
    """Whether each recording has a speaker."""
    return speakers.dtype.kind == "U" or bool(speakers.min() >= 0)


def read_recordings(path: str | Path) -> Recordings:
    """All recordings of a file, in memory.

    Times become whole microseconds, rounded down; events that are not in the order of time are sorted, and keep their
    order where times are equal.

    Args:
        path: an ``.h5`` file, or one packed as ``.h5.gz`` or ``.h5.zip``, which is unpacked once into `CACHE`.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: no such file.
        ValueError: not an HDF5 file, damaged, of another layout, or an event with an impossible time or unit.

    Source: Cramer et al., arXiv:1910.07407; compneuro.net/posts/2019-spiking-heidelberg-digits, "Data format".
    """
    try_out(path, lambda: _read_all(path))
    with _opened(path) as file:
        starts, labels, speakers = _table(path, file)
        events = np.empty(starts[-1], EVENT)
        at = 0
        for piece in _events(path, file):
            events[at : at + len(piece)] = piece
            at += len(piece)
    return Recordings(events["time"].astype(np.int64), events["unit"].copy(), starts, labels, speakers)


def map_recordings(path: str | Path) -> Recordings:
    """As `read_recordings`, with the events in a memory map: read once and kept in `CACHE`, 6 bytes an event."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; set data.root to the folder that holds it.")

    def make() -> dict[str, np.ndarray | Pieces]:
        try_out(path, lambda: _read_all(path))
        with _opened(path) as file:
            starts, labels, speakers = _table(path, file)
        events = Pieces((int(starts[-1]),), EVENT, _read_again(path))
        return {"starts": starts, "labels": labels, "speakers": speakers, "events": events}

    found = cached(f"events-{Path(path).name.split('.')[0]}", {"source": source_facts(path), "version": 2}, make)
    table = (np.array(found[key]) for key in ("starts", "labels", "speakers"))
    mapped = _Mapped(found["events"]["time"], found["events"]["unit"], *table)
    mapped.path = Path(path)
    return mapped


def _read_all(path: str | Path) -> None:
    with _opened(path) as file:
        _table(path, file)
        for _ in _events(path, file):
            pass


def write_recordings(path: str | Path, recordings: Recordings, label_names: Sequence[str]) -> None:
    """Write a file that `read_recordings` gives back as it was, whole or not at all.

    The layout is that of the release, without ``extra/meta_info``; times are float64, there float16, which cannot hold
    microseconds.

    Args:
        path: of the ``.h5`` file.
        recordings: what to write.
        label_names: the name of each label, kept in ``extra/keys``.

    Raises:
        ImportError: h5py is not installed.
        ValueError: a label without a name.
    """
    h5py = h5py_module()
    if recordings.labels.size and not 0 <= recordings.labels.min() <= recordings.labels.max() < len(label_names):
        raise ValueError(
            f"{path}: labels {recordings.labels.min()} to {recordings.labels.max()}, names for {len(label_names)}."
        )
    count = len(recordings.labels)
    # put together in memory: HDF5 crashes where a disk is full
    with writing(path) as partial, h5py.File(str(partial), "w", driver="core", backing_store=False) as file:
        times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float64))
        units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
        for row in range(count):
            events = slice(recordings.starts[row], recordings.starts[row + 1])
            times[row] = recordings.times[events] / 1e6
            units[row] = recordings.units[events]
        file["labels"] = recordings.labels.astype(np.uint16)
        named = recordings.speakers.dtype.kind == "U"
        file["extra/speaker"] = np.char.encode(recordings.speakers) if named else recordings.speakers.astype(np.int32)
        file["extra/keys"] = np.array([name.encode() for name in label_names])
        file.flush()
        partial.write_bytes(file.id.get_file_image())


@contextmanager
def _opened(path: str | Path) -> Iterator[Hdf5]:
    """The open HDF5 file, of the layout of the release."""
    h5py_module()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; set data.root to the folder that holds it.")
    with opened(path, _unpacked(Path(path))) as file:
        _check_layout(path, file)
        yield file


def _check_layout(path: str | Path, file: Hdf5) -> None:
    h5py = h5py_module()
    names = [*FIELDS, *(["extra/speaker"] if file.has("extra/speaker") else [])]
    if missing := [name for name in names if file.dataset(name) is None]:
        raise ValueError(f"{path}: holds no {', '.join(missing)}; it must be a file such as shd_train.h5.")
    for name in names:
        try:
            kind = file.dataset(name).dtype
        except Exception as error:  # a type that NumPy has not, or a damaged one
            raise ValueError(
                f"{path}: {name} cannot be read ({one_line(error)}); it must be a file such as shd_train.h5."
            ) from None
        if name in LISTS and (h5py.check_vlen_dtype(kind) is None or h5py.check_string_dtype(kind) is not None):
            raise ValueError(f"{path}: {name} must hold one list for each recording, got {kind}.")
        if name in LISTS and (of := np.dtype(h5py.check_vlen_dtype(kind))).kind not in LISTS[name]:
            wanted = "whole numbers" if LISTS[name] == "iu" else "numbers"
            raise ValueError(f"{path}: {name} must hold lists of {wanted}, got {of}; copy or download it again.")
        if len(shape := file.shape(name)) != 1:
            raise ValueError(f"{path}: {name} must have one axis, got {shape}; copy or download it again.")


def _unpacked(path: Path) -> Path:
    """The path of the file itself, unpacked into the cache where it is packed, and compared with its digest there."""
    if path.suffix not in (".gz", ".zip"):
        return path
    key = hashlib.sha256(repr(source_facts(path)).encode()).hexdigest()[:16]
    plain = CACHE / f"unpacked-{key}-{path.stem}"
    known = plain.with_name(f".{plain.name}.sha256")
    if plain.is_file() and known.is_file() and known.read_text() == _digest(plain):
        return plain
    try:
        with writing(plain) as partial, partial.open("wb") as into, _stream(path) as packed:
            shutil.copyfileobj(packed, into, BLOCK)
    except OSError as error:
        if error.errno is not None or isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: damaged ({one_line(error)}); copy or download it again.") from None
    except Exception as error:  # zipfile, gzip and zlib raise what damaged bytes make them raise
        raise ValueError(f"{path}: damaged ({one_line(error)}); copy or download it again.") from None
    with writing(known) as partial:
        partial.write_text(_digest(plain))
    return plain


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _stream(path: Path) -> Iterator[Any]:
    if path.suffix == ".gz":
        with unpacked(path) as packed:
            yield packed
        return
    with zipfile.ZipFile(path) as archive:
        found = [member for member in archive.infolist() if Path(member.filename).name == path.stem]
        if len(found) != 1:
            raise ValueError(f"holds no {path.stem}, but {', '.join(archive.namelist()[:3])[:100] or 'nothing'}")
        check_expansion(found[0].file_size, path.stat().st_size)
        with archive.open(found[0]) as packed:
            yield packed


def _table(path: str | Path, file: Hdf5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``starts``, ``labels`` and ``speakers`` of `Recordings`."""
    known = file.has("extra/speaker")
    counts = {name: file.shape(name)[0] for name in (*FIELDS, *(["extra/speaker"] if known else []))}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"{path}: must hold as many of each, got {sizes}; copy or download it again.")
    count = counts["labels"]
    labels = file.rows("labels", 0, count)
    speakers = file.rows("extra/speaker", 0, count) if known else np.full(count, -1)
    if labels.dtype.kind not in "iu" or not count:
        raise ValueError(f"{path}: labels must be integers, at least one, got {count} of {labels.dtype}.")
    if (wrong := np.flatnonzero((labels < 0) | (labels >= MOST_CLASSES))).size:
        raise ValueError(
            f"{path}: recording {wrong[0]} has the label {labels[wrong[0]]}, labels must be from 0 to "
            f"{MOST_CLASSES - 1}; copy or download it again."
        )
    if speakers.dtype.kind in "iu":
        speakers = speakers.astype(np.int64)
    else:
        names = speakers.tolist()
        speakers = np.array([_text(name) for name in names])
    lengths = np.fromiter((len(row) for rows in _read(file, "spikes/units") for row in rows), np.int64, count)
    starts = np.concatenate([[0], lengths.cumsum()])
    return starts, labels.astype(np.int64), speakers


def _text(name: Any) -> str:
    """A speaker's name, cut to what a name has: NumPy takes the room of the longest for each."""
    return (name.decode(errors="replace") if isinstance(name, bytes) else str(name))[:60]


def _read(file: Hdf5, name: str) -> Iterator[np.ndarray]:
    count, rows = file.shape(name)[0], file.at_once(ROWS)
    for first in range(0, count, rows):
        yield file.rows(name, first, min(first + rows, count))


def _read_again(path: str | Path) -> Iterator[np.ndarray]:
    with _opened(path) as file:
        yield from _events(path, file)


def _events(path: str | Path, file: Hdf5) -> Iterator[np.ndarray]:
    """Events (e,) of `EVENT`, of some recordings at a time, checked and in order."""
    at_once = file.at_once(ROWS)
    for number, (times, units) in enumerate(zip(_read(file, "spikes/times"), _read(file, "spikes/units"), strict=True)):
        lengths = np.array([len(row) for row in units])
        row = np.repeat(number * at_once + np.arange(len(units)), lengths)
        if differ := [i for i, (t, u) in enumerate(zip(times, units, strict=True)) if len(t) != len(u)]:
            at = differ[0]
            raise ValueError(
                f"{path}: recording {number * at_once + at} has {len(times[at])} times and {len(units[at])} units; "
                "they must be equal; copy or download it again."
            )
        seconds, unit = (np.concatenate(list(rows)) for rows in (times, units))
        # The smallest part of a microsecond keeps those that float64 seconds hold a little too low.
        micro = np.floor(seconds.astype(np.float64) * 1e6 + 1e-3)
        if (wrong := np.flatnonzero(~((seconds >= 0) & (micro < LATEST)))).size:
            raise ValueError(
                f"{path}: recording {row[wrong[0]]} has an event at {seconds[wrong[0]]} s, times must be from 0 to "
                f"{LATEST / 1e6:.0f} s; copy or download it again."
            )
        if (wrong := np.flatnonzero((unit < 0) | (unit >= UNITS))).size:
            raise ValueError(
                f"{path}: recording {row[wrong[0]]} has an event in the unit {unit[wrong[0]]}, units must be from 0 to "
                f"{UNITS - 1}; copy or download it again."
            )
        events = np.empty(len(micro), EVENT)
        events["time"], events["unit"] = micro, unit
        if (row[1:] == row[:-1])[np.diff(micro) < 0].any():
            events = events[np.lexsort((micro, row))]
        yield events
