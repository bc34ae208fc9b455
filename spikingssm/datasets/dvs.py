"""Hand gestures before an event camera: DVS128 Gesture as rows of frames."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.datasets import standin
from spikingssm.datasets.aedat import Events, in_order, read_aedat
from spikingssm.datasets.base import Rows, Selected, SequenceData
from spikingssm.datasets.cache import cached, source_facts
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.numpy_files import read_npy
from spikingssm.datasets.order import split_rows

__all__ = ["dvs128gesture", "to_frames"]

CLASSES, SENSOR, SIZE = 11, 128, 64
RECORDINGS = {"train": 98, "test": 24}
"""Lines of the release's trials_to_train.txt and trials_to_test.txt."""
LATEST_MS = 2**40
LONGEST_US = 100_000_000
"""No gesture is longer, in microseconds; those of the release last about 6 s."""
MOST_DRAWN = 200
"""Frames of a stand-in; the published slices have 68."""
SLACK_US = 1_000_000
"""How much later than the last event of a recording a gesture may end."""
SCALE = 19.0
"""What the published experiment divides training frames by; it divides test frames by 18.5."""
NUMPY_COPY = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}
FIELDS = "class", "startTime_usec", "endTime_usec"


def dvs128gesture(
    root: str | Path | None = None,
    *,
    slice_ms: int = 1700,
    frame_ms: int = 25,
    val_fraction: float = 0.1,
    generated: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """DVS128 Gesture: x (B, slice_ms / frame_ms * 64, 64), the rows of event-count frames in turn, 11 classes.

    A labelled gesture is cut into slices, a slice into frames of 128 x 128 counts for each polarity; what does not fill
    a slice is dropped. Frames are max-pooled 2 x 2, averaged over polarity and divided by 19. The test set is the
    official one, of other users; validation is all slices of some training users, drawn by the seed.

    Args:
        root: folder of the release, with ``trials_to_train.txt``, or of the NumPy copy that tonic downloads, with
            ``ibmGestureTrain``; or the folder above ``DvsGesture`` or ``DVSGesture``.
        slice_ms: length of a slice in milliseconds, a multiple of ``frame_ms``.
        frame_ms: length of a frame in milliseconds.
        val_fraction: part of the training users held out, in (0, 1).
        generated: draw a stand-in of the same shape; no file is read.
        seed: of the validation split and of the order.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: no ``root``, or a file that is not in it.
        ValueError: lengths that do not fit, or a damaged file.

    Source: Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017;
    research.ibm.com/interactive/dvsgesture (CC BY 4.0).
    """
    if not 1 <= slice_ms <= LONGEST_US // 1000 or frame_ms < 1 or slice_ms % frame_ms:
        raise ValueError(
            f"dvs128gesture: data.slice_ms must be a multiple of data.frame_ms and at most {LONGEST_US // 1000}, got "
            f"{slice_ms} and {frame_ms}."
        )
    steps = slice_ms // frame_ms
    if generated:
        standin.refuse_root("dvs128gesture", root)
        if steps > MOST_DRAWN:
            raise ValueError(
                f"dvs128gesture: a stand-in has at most {MOST_DRAWN} frames a slice, got {steps}; raise data.frame_ms."
            )
        train, test = standin.bars(steps, SIZE, CLASSES)
        users, full = np.arange(len(train.x)) % 8, False
    else:
        train, test, users, full = _read(root, steps, frame_ms)
    names = np.unique(users)
    kept, held = (names[rows.numpy()] for rows in split_rows("dvs128gesture", len(names), val_fraction, seed))
    return SequenceData(
        "dvs128gesture",
        _of_users(train, users, kept),
        test,
        _of_users(train, users, held),
        d_output=CLASSES,
        inputs=Numbers(divide=2 * SCALE),  # counts of two polarities -> their mean / 19
        seed=seed,
        split=f"test: {'drawn' if generated else 'the recordings for testing, of other users'}; validation: the "
        f"{len(held)} of {len(names)} training users {', '.join(map(str, sorted(held)))}, by the seed; slices of "
        f"{slice_ms} ms",
        full=full,
        generated=generated,
        **options,
    )


def to_frames(events: Events, start: int, end: int, steps: int, frame_us: int) -> np.ndarray:
    """Slices of frames of events: 2 x 2 max-pooled counts, summed over polarity, (slices, steps * 64, 64).

    Args:
        events: of the recording.
        start: first microsecond.
        end: the microsecond behind the last one; what does not fill a slice before it is dropped.
        steps: frames a slice.
        frame_us: length of a frame in microseconds.

    Raises:
        ValueError: an end that lies more than a slice, and a second, behind the last event; or more than 100 s.
    """
    last = int(events.t[-1]) if len(events.t) else 0
    if start < 0 or end - start > LONGEST_US or (end > start and end - last > max(steps * frame_us, SLACK_US)):
        raise ValueError(
            f"a gesture from {start} to {end} microseconds, and the last event is at {last}; it must end with the "
            f"events, and last at most {LONGEST_US} microseconds"
        )
    slices = max(0, end - start) // (steps * frame_us)
    rows = np.zeros((slices, steps * SIZE, SIZE), np.int32)
    for number, begin in enumerate(range(start, start + slices * steps * frame_us, steps * frame_us)):
        part = slice(*np.searchsorted(events.t, (begin, begin + steps * frame_us)))
        t, x, y, p = (field[part].astype(np.int64) for field in events)
        cell = (((t - begin) // frame_us * 2 + p) * SENSOR + y) * SENSOR + x
        counts = np.bincount(cell, minlength=steps * 2 * SENSOR * SENSOR)
        pooled = counts.reshape(steps, 2, SIZE, 2, SIZE, 2).max((3, 5))
        rows[number] = pooled.sum(1).reshape(steps * SIZE, SIZE)
    return rows.astype(np.uint8 if rows.max(initial=0) < 256 else np.int32)


def _read(root: str | Path | None, steps: int, frame_ms: int) -> tuple[Rows, Rows, np.ndarray, bool]:
    """Training and test rows, the user of each training row, and whether all recordings are there."""
    if root is None:
        raise FileNotFoundError(
            "dvs128gesture: is only given out by hand; get DvsGesture.tar.gz from research.ibm.com/interactive/"
            "dvsgesture, unpack it and set data.root to its folder."
        )
    parts = _recordings(Path(root))
    sources = [path for part in parts.values() for recording in part for path in _files(recording)]

    def make() -> dict[str, np.ndarray]:
        found = {}
        for part, recordings in parts.items():
            slices = [(x, label, int(r.stem[4:6])) for r in recordings for x, label in _slices(r, steps, frame_ms)]
            if not sum(len(x) for x, *_ in slices):
                raise ValueError(f"dvs128gesture: no gesture of {steps * frame_ms} ms in {part}; lower data.slice_ms.")
            found[f"x_{part}"] = np.concatenate([x for x, *_ in slices])
            for column, name in enumerate(("y", "user"), 1):
                found[f"{name}_{part}"] = np.repeat([s[column] for s in slices], [len(s[0]) for s in slices])
        return found

    arrays = cached("dvs128gesture", {"steps": steps, "frame_ms": frame_ms, **source_facts(*sources)}, make)
    train, test = (Rows(arrays[f"x_{part}"], np.asarray(arrays[f"y_{part}"])) for part in parts)
    full = {part: len(recordings) for part, recordings in parts.items()} == RECORDINGS
    return train, test, np.asarray(arrays["user_train"]), full


def _recordings(root: Path) -> dict[str, list[Path]]:
    """Part -> its recordings: ``.aedat`` files of the release, or folders of the NumPy copy."""
    for home in (root, root / "DvsGesture", root / "DVSGesture"):
        if (home / "trials_to_train.txt").is_file():
            return {part: _listed(home / f"trials_to_{part}.txt") for part in RECORDINGS}
        if (home / NUMPY_COPY["train"]).is_dir():
            return {part: _folders(home / name) for part, name in NUMPY_COPY.items()}
    raise FileNotFoundError(
        f"dvs128gesture: no trials_to_train.txt and no {NUMPY_COPY['train']} in {root}; set data.root to the folder "
        "that holds the unpacked DvsGesture.tar.gz."
    )


def _folders(home: Path) -> list[Path]:
    if found := sorted(home.glob("user[0-9][0-9]_*")):
        return found
    raise FileNotFoundError(f"dvs128gesture: no folder user01_fluorescent or the like in {home}; unpack it again.")


def _listed(path: Path) -> list[Path]:
    if not path.is_file():
        raise FileNotFoundError(f"dvs128gesture: no {path.name} in {path.parent}; unpack DvsGesture.tar.gz again.")
    try:
        recordings = [path.parent / name for name in path.read_text().split()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a list of recordings ({error.reason}); unpack it again.") from None
    if wrong := [r.name for r in recordings if not (r.name.startswith("user") and r.stem[4:6].isdecimal())]:
        raise ValueError(f"{path}: recordings are named userNN_light.aedat, got {wrong[0]}.")
    return recordings


def _files(recording: Path) -> list[Path]:
    """The files of a recording."""
    if recording.is_dir():
        return sorted(recording.glob("*.npy"), key=lambda path: path.stem.zfill(2))
    files = [recording, recording.with_name(f"{recording.stem}_labels.csv")]
    if missing := [path.name for path in files if not path.is_file()]:
        raise FileNotFoundError(
            f"dvs128gesture: no {missing[0]} in {recording.parent}; unpack DvsGesture.tar.gz again, or strike it from "
            "trials_to_train.txt or trials_to_test.txt."
        )
    return files


def _slices(recording: Path, steps: int, frame_ms: int) -> Iterator[tuple[np.ndarray, int]]:
    """Frames and class of each gesture of a recording."""
    if recording.is_dir():
        for path in _files(recording):
            events = _load(path)
            span = int(events.t[0]), int(events.t[-1]) + 1
            yield _frames(path, events, *span, steps, 1000 * frame_ms), int(path.stem)
        return
    events = read_aedat(recording, SENSOR)
    table = recording.with_name(f"{recording.stem}_labels.csv")
    for label, start, end in _labels(table):
        yield _frames(table, events, start, end, steps, 1000 * frame_ms), label


def _frames(path: Path, events: Events, *span: int) -> np.ndarray:
    """`to_frames`, with the name of the file in its error."""
    try:
        return to_frames(events, *span)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; copy it again.") from None


def _load(path: Path) -> Events:
    """One gesture of the NumPy copy: columns x, y, polarity, and time in milliseconds."""
    found = read_npy(path)
    if found.ndim != 2 or found.shape[1] != 4 or not len(found) or not path.stem.isdecimal():
        raise ValueError(f"{path}: must be CLASS.npy with events (N, 4), N > 0, got {found.shape}.")
    if int(path.stem) >= CLASSES:
        raise ValueError(f"{path}: is of the class {path.stem}, classes are 0 to {CLASSES - 1}.")
    if found.dtype.kind not in "iuf" or not (np.abs(found.astype(np.float64)) < LATEST_MS).all():
        raise ValueError(f"{path}: must hold numbers, times in milliseconds below {LATEST_MS}; copy it again.")
    x, y, p, t = found.astype(np.int64).T
    return in_order(path, SENSOR, 1000 * t, x, y, p)


def _labels(path: Path) -> list[tuple[int, int, int]]:
    """Class 0 to 10, first microsecond and the one behind the last, of each gesture in a recording, in order.

    A gesture ends at the latest where the next begins: in the release, one of user22_led ends too late.
    """
    try:
        with path.open(newline="") as lines:
            found = [tuple(int(row[key]) for key in FIELDS) for row in csv.DictReader(lines)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: must be a table of {', '.join(FIELDS)}, integers ({error!r:.100}).") from None
    if wrong := [time for _, *times in found for time in times if not 0 <= time < 1000 * LATEST_MS]:
        raise ValueError(f"{path}: has the time {str(wrong[0])[:30]}, times are in microseconds from 0.")
    found.sort(key=lambda row: row[1])
    if wrong := [label for label, *_ in found if not 1 <= label <= CLASSES]:
        raise ValueError(f"{path}: has the class {str(wrong[0])[:30]}, classes are 1 to {CLASSES}.")
    if not found:
        raise ValueError(f"{path}: holds no gesture; unpack DvsGesture.tar.gz again.")
    limits = [start for _, start, _ in found[1:]] + [found[-1][2]]
    return [(label - 1, start, min(end, limit)) for (label, start, end), limit in zip(found, limits, strict=True)]


def _of_users(rows: Rows, users: np.ndarray, names: np.ndarray) -> Rows:
    picked = np.flatnonzero(np.isin(users, names))
    return Rows(Selected(rows.x, picked), rows.y[picked])
