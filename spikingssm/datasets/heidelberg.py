"""Spike trains of single words in HDF5: the file format of the Heidelberg spiking data sets."""

import gzip
import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdn.files import writing
from spikingssm.datasets.cache import CACHE, Pieces, cached, source_facts

__all__ = ["UNITS", "Recordings", "map_recordings", "read_recordings", "write_recordings"]

UNITS = 700
"""Channels of the artificial cochlea."""
LATEST = 2**31
"""No event is this late, in microseconds (36 minutes)."""
LISTS = {"spikes/times": "fiu", "spikes/units": "iu"}
"""Lists, one a recording, and the kinds of their numbers."""
FIELDS = *LISTS, "labels"
EVENT = np.dtype([("time", "<i4"), ("unit", "<u2")])
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
        with _opened(path) as file:
            starts, labels, speakers = _table(path, file)
        events = Pieces((int(starts[-1]),), EVENT, _read_again(path))
        return {"starts": starts, "labels": labels, "speakers": speakers, "events": events}

    found = cached(f"events-{Path(path).name.split('.')[0]}", {"source": source_facts(path), "version": 2}, make)
    table = (np.array(found[key]) for key in ("starts", "labels", "speakers"))
    mapped = _Mapped(found["events"]["time"], found["events"]["unit"], *table)
    mapped.path = Path(path)
    return mapped


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
    h5py = _h5py()
    if recordings.labels.size and not 0 <= recordings.labels.min() <= recordings.labels.max() < len(label_names):
        raise ValueError(
            f"{path}: labels {recordings.labels.min()} to {recordings.labels.max()}, names for {len(label_names)}."
        )
    count = len(recordings.labels)
    with writing(path) as partial, h5py.File(partial, "w") as file:
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


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "recordings of spikes need h5py, in the extra `data`: pip install 'sdn-spikingssm[data]'."
        ) from error
    return h5py


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The open HDF5 file; what HDF5 says of damage comes out as one line."""
    h5py = _h5py()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; set data.root to the folder that holds it.")
    plain = _unpacked(Path(path))
    try:
        with h5py.File(plain, "r") as file:
            _check_layout(h5py, path, file)
            yield file
    except (OSError, RuntimeError) as error:
        says = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not an HDF5 file, or damaged ({says}); copy or download it again.") from None


def _check_layout(h5py: Any, path: str | Path, file: Any) -> None:
    names = [*FIELDS, *(["extra/speaker"] if "extra/speaker" in file else [])]
    if missing := [name for name in names if not isinstance(file.get(name), h5py.Dataset)]:
        raise ValueError(f"{path}: holds no {', '.join(missing)}; it must be a file such as shd_train.h5.")
    for name in names:
        try:
            kind = file[name].dtype
        except TypeError as error:  # a type that NumPy has not
            raise ValueError(
                f"{path}: {name} cannot be read ({error}); it must be a file such as shd_train.h5."
            ) from None
        if name in LISTS and (h5py.check_vlen_dtype(kind) is None or h5py.check_string_dtype(kind) is not None):
            raise ValueError(f"{path}: {name} must hold one list for each recording, got {kind}.")
        if name in LISTS and (of := np.dtype(h5py.check_vlen_dtype(kind))).kind not in LISTS[name]:
            wanted = "whole numbers" if LISTS[name] == "iu" else "numbers"
            raise ValueError(f"{path}: {name} must hold lists of {wanted}, got {of}; copy or download it again.")
        if file[name].ndim != 1:
            raise ValueError(f"{path}: {name} must have one axis, got {file[name].shape}; copy or download it again.")


def _unpacked(path: Path) -> Path:
    """The path of the file itself, unpacked into the cache where it is packed."""
    if path.suffix not in (".gz", ".zip"):
        return path
    key = hashlib.sha256(repr(source_facts(path)).encode()).hexdigest()[:16]
    plain = CACHE / f"unpacked-{key}-{path.stem}"
    if plain.is_file():
        return plain
    try:
        with writing(plain) as partial, partial.open("wb") as into, _stream(path) as packed:
            shutil.copyfileobj(packed, into, 2**20)
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({str(error)[:80]}); copy or download it again.") from None
    return plain


@contextmanager
def _stream(path: Path) -> Iterator[Any]:
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            yield packed
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).name == path.stem]
        if len(names) != 1:
            raise ValueError(f"{path}: holds no {path.stem}, but {', '.join(archive.namelist()[:3]) or 'nothing'}.")
        with archive.open(names[0]) as packed:
            yield packed


def _table(path: str | Path, file: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``starts``, ``labels`` and ``speakers`` of `Recordings`."""
    labels = file["labels"][()]
    speakers = file["extra/speaker"][()] if "extra/speaker" in file else np.full(len(labels), -1)
    counts = {name: len(file[name]) for name in FIELDS} | {"extra/speaker": len(speakers)}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"{path}: must hold as many of each, got {sizes}; copy or download it again.")
    if labels.dtype.kind not in "iu" or not len(labels):
        raise ValueError(f"{path}: labels must be integers, at least one, got {len(labels)} of {labels.dtype}.")
    if speakers.dtype.kind in "iu":
        speakers = speakers.astype(np.int64)
    else:
        names = speakers.tolist()
        speakers = np.array([name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names])
    lengths = np.fromiter((len(row) for rows in _read(file, "spikes/units") for row in rows), np.int64, len(labels))
    starts = np.concatenate([[0], lengths.cumsum()])
    return starts, labels.astype(np.int64), speakers


def _read(file: Any, name: str) -> Iterator[np.ndarray]:
    for first in range(0, len(file[name]), ROWS):
        yield file[name][first : first + ROWS]


def _read_again(path: str | Path) -> Iterator[np.ndarray]:
    with _opened(path) as file:
        yield from _events(path, file)


def _events(path: str | Path, file: Any) -> Iterator[np.ndarray]:
    """Events (e,) of `EVENT`, of `ROWS` recordings at a time, checked and in order."""
    for number, (times, units) in enumerate(zip(_read(file, "spikes/times"), _read(file, "spikes/units"), strict=True)):
        lengths = np.array([len(row) for row in units])
        row = np.repeat(number * ROWS + np.arange(len(units)), lengths)
        if differ := [i for i, (t, u) in enumerate(zip(times, units, strict=True)) if len(t) != len(u)]:
            at = differ[0]
            raise ValueError(
                f"{path}: recording {number * ROWS + at} has {len(times[at])} times and {len(units[at])} units; they "
                "must be equal; copy or download it again."
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
