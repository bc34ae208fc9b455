"""Files of somebody's own sequences: arrays, tables and sound, one file or a folder of them, with labels or without."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdn.runs.files import check_regular
from spikingssm.datasets.audio import read_sound
from spikingssm.datasets.inputs import Audio, Inputs, Spikes, Tokens
from spikingssm.datasets.labels import IGNORED
from spikingssm.datasets.numpy_files import npz_names, read_npy, read_npz
from spikingssm.datasets.rows import as_rows

__all__ = ["SOUND", "WORDS", "Sequences", "each", "files_below", "read_csv", "read_sequences", "read_table", "whole"]

SOUND = (".wav", ".flac", ".ogg")
ARRAYS = (".npz", ".npy", ".csv")
WORDS = ("sequence", "label")
"""Columns of a table that are no channels, and may hold words."""
LARGEST_TEXT = 2**31
"""Bytes of a table or a text."""
MOST_FILES = 1_000_000


class Sequences(NamedTuple):
    """Sequences as they lie in files.

    Args:
        names: what each is called, (N,): its file, or its file and row.
        x: an array (N, L, C), or a list of N arrays or texts that may differ in length.
        lengths: (N,) valid steps of an array, or None.
        labels: (N,) or (N, L) numbers, or N names of classes, or None.
    """

    names: list[str]
    x: Any
    lengths: np.ndarray | None = None
    labels: np.ndarray | list[str] | None = None


def read_sequences(
    path: str | Path, inputs: Inputs, channels: int | None = None, refused: dict[str, str] | None = None
) -> Sequences:
    """The sequences in a file, or in all files below a folder.

    - ``.npz``: ``x`` (N, L, C) or (L, C); ``lengths`` (N,) and ``y`` where they are there. ``.npy``: x alone. For one
      channel, for sound and for tokens x may be (N, L) too.
    - ``.csv``: one sequence, or several, see `read_table`.
    - ``.wav``, ``.flac``, ``.ogg``: one clip, for networks that hear.
    - ``.txt``: one text, for networks that read bytes.
    - a folder: all of these below it. Where they lie in folders of its own, these are the names of the classes.

    Args:
        path: of the file or the folder.
        inputs: what the network takes.
        channels: how many it reads; None where that is not known.
        refused: file -> why, for files of a folder that cannot be read; None raises the first of them.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another kind of file than the network takes, or a damaged one.
        ImportError: sound without soundfile.
    """
    path = Path(path)
    if not path.is_dir():
        return _read(path, inputs, channels)
    files = list(files_below(path, _suffixes(inputs)))
    if not files:
        raise FileNotFoundError(f"{path}: no {', '.join(_suffixes(inputs))} below it, which this network reads.")
    read: dict[Path, Sequences] = {}
    for file in files:
        try:
            read[file] = _read(file, inputs, channels)
        except (ValueError, OSError) as error:
            if refused is None or len(refused) + 1 == len(files):
                raise
            refused[str(file)] = str(error)
    files, parts = list(read), list(read.values())
    rows: list[Any] = [row for part in parts for row in each(part)]
    names = [name for file, part in zip(files, parts, strict=True) for name in _named(file, path, part)]
    classes = [file.relative_to(path).parts[0] for file in files]
    sorted_out = all(len(file.relative_to(path).parts) > 1 for file in files)
    given = [part.labels for part in parts]
    labels: Any = None
    if all(label is not None for label in given):
        labels = np.concatenate([np.asarray(label) for label in given])
    elif sorted_out:
        labels = [name for name, part in zip(classes, parts, strict=True) for _ in range(len(part.names))]
    return Sequences(names, rows, None, labels)


def files_below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files of these kinds below a folder in the order of their names; hidden ones are left out."""
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count > MOST_FILES:
            raise ValueError(f"{folder}: more than {MOST_FILES} files; give a folder that holds the data alone.")
        if path.suffix.lower() in suffixes and path.name[0] != "." and path.is_file():
            yield path


def read_csv(path: str | Path, texts: Sequence[str] = ()) -> tuple[list[str], np.ndarray]:
    """The names of the columns (none without a first row of names), and the numbers (rows, columns) of a table.

    Args:
        path: of the file.
        texts: names of columns that may hold words; with one of them the table is an array of objects.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a cell that is no number, or rows of different lengths; it names the line.
    """
    path = Path(path)
    check_regular(path)
    if path.stat().st_size > LARGEST_TEXT:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, tables are read up to {LARGEST_TEXT}; use .npz.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, line) for number, line in enumerate(csv.reader(file), 1) if any(map(str.strip, line))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table of text ({' '.join(str(error).split())[:80]}).") from None
    named = lines and not any(map(_is_number, lines[0][1]))
    names = [cell.strip() for cell in lines[0][1]] if named else []
    names = [name.lower() if name.lower() in texts else name for name in names]  # Label is label
    lines = lines[1:] if names else lines
    if not lines:
        raise ValueError(f"{path}: no row of numbers in it.")
    width, rows = len(lines[0][1]), []
    words = {i for i, name in enumerate(names) if name in texts}
    way = f"; cells are parted by commas, and columns of words are named {' and '.join(texts)}" if texts else ""
    for number, line in lines:
        if len(line) != width:
            raise ValueError(f"{path}: line {number} has {len(line)} cells, the first has {width}.")
        if wrong := [c for i, c in enumerate(line) if i not in words and not _is_number(c)]:
            raise ValueError(f"{path}: line {number} has {wrong[0][:40]!r}, which is no number{way}.")
        rows.append([cell.strip() if i in words else float(cell) for i, cell in enumerate(line)])
    return names, np.array(rows, object if words else np.float64)


def read_table(path: str | Path, channels: int | None = None) -> Sequences:
    """The sequences in a ``.csv``: a row a step and a column a channel, of one sequence or of several.

    A column named ``sequence`` says which rows belong together, and one named ``label`` the class of a row; both may
    hold words. Several sequences are padded to one length; a label that is the same in all rows of each sequence is
    one a sequence. For one channel, several named columns without ``sequence`` are the steps of a sequence a row.

    Raises:
        FileNotFoundError, ValueError: as in `read_csv`, or rows of a sequence that do not follow one another.
    """
    path = Path(path)
    names, table = read_csv(path, texts=WORDS)
    places = [i for i in range(table.shape[1]) if not names or names[i] not in WORDS]
    if not places:
        raise ValueError(f"{path}: no column of numbers besides {' and '.join(names)}.")
    x = table[:, places].astype(np.float64)
    label = whole(table[:, names.index("label")]) if "label" in names else None
    if names and "sequence" not in names and channels == 1 and len(places) > 1:
        said = [f"{path.name}[{row}]" for row in range(len(x))]
        return Sequences(said, x[:, :, None], None, label)
    if "sequence" not in names:
        return Sequences([path.name], [x[None]])
    sequence = table[:, names.index("sequence")]
    starts = np.flatnonzero(np.concatenate([[True], sequence[1:] != sequence[:-1]]))
    if len(starts) != len(set(sequence.tolist())):
        raise ValueError(f"{path}: rows of one sequence must follow one another; sort the table by sequence.")
    parts = np.split(np.arange(len(table)), starts[1:])
    rows, lengths = as_rows([x[part] for part in parts], len(places))
    said = [f"{path.name}[{sequence[start]}]" for start in starts]
    if label is None or all(len(np.unique(label[part])) == 1 for part in parts):
        return Sequences(said, rows, lengths, None if label is None else label[starts])
    y = np.full(rows.shape[:2], "" if label.dtype.kind == "U" else IGNORED, label.dtype)
    for row, part in enumerate(parts):
        y[row, : len(part)] = label[part]
    return Sequences(said, rows, lengths, y)


def whole(values: np.ndarray) -> np.ndarray:
    """Labels: integers where all are whole numbers, else as they are; texts stay texts, also those of decimals."""
    if values.dtype.kind == "f" and _are_whole(values):
        return values.astype(np.int64)
    if values.dtype.kind in "OUS":
        texts = values.astype(str)
        try:
            numbers = texts.astype(np.float64)
        except ValueError:
            return texts
        return numbers.astype(np.int64) if _are_whole(numbers) else texts
    return values


def _read(path: Path, inputs: Inputs, channels: int | None) -> Sequences:
    """The sequences in one file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    suffix = path.suffix.lower()
    if suffix not in _suffixes(inputs):
        raise ValueError(f"{path}: this network reads {', '.join(_suffixes(inputs))}, got {suffix or 'no suffix'}.")
    if suffix in SOUND:
        assert isinstance(inputs, (Audio, Spikes))
        return Sequences([path.name], [read_sound(path.read_bytes(), path, inputs.hertz)])
    if suffix == ".txt":
        check_regular(path)
        return Sequences([path.name], [path.read_bytes()[:LARGEST_TEXT].decode(errors="replace")])
    if suffix == ".csv":
        return read_table(path, channels)
    found = {"x": read_npy(path)} if suffix == ".npy" else read_npz(path, ("x", "y", "lengths"))
    if "x" not in found:
        raise ValueError(f"{path}: no array named x; it holds {', '.join(npz_names(path)) or 'nothing'}.")
    x = found["x"]
    several = (
        x.ndim == 3 or "y" in found or "lengths" in found or (x.ndim == 2 and _are_rows(x.shape, inputs, channels))
    )
    names = [f"{path.name}[{row}]" for row in range(len(x))] if several else [path.name]
    return Sequences(names, x if several else x[None], found.get("lengths"), found.get("y"))


def _are_rows(shape: tuple[int, ...], inputs: Inputs, channels: int | None) -> bool:
    """Whether an array of two axes holds a sequence a row, not one sequence with its channels."""
    if isinstance(inputs, Spikes):
        return shape[1] != channels
    return isinstance(inputs, (Audio, Tokens)) or (channels == 1 and shape[1] != 1)


def each(part: Sequences) -> list[Any]:
    """The sequences of a part, each to its own end."""
    if part.lengths is None:
        return list(part.x)
    return [row[:n] for row, n in zip(part.x, part.lengths, strict=True)]


def _named(file: Path, folder: Path, part: Sequences) -> list[str]:
    inside = file.relative_to(folder).as_posix()
    return [inside + name.removeprefix(file.name) for name in part.names]


def _suffixes(inputs: Inputs) -> tuple[str, ...]:
    if isinstance(inputs, (Audio, Spikes)):
        return (*SOUND, ".npz", ".npy")
    return (".txt", ".npz", ".npy") if isinstance(inputs, Tokens) and inputs.text else ARRAYS


def _are_whole(numbers: np.ndarray) -> bool:
    return bool(np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
