"""Files of one's own data set: arrays, tables, and folders of one folder a class; rows and labels out."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spikingssm.datasets.audio import rate_of
from spikingssm.datasets.inputs import Audio, Numbers
from spikingssm.datasets.numpy_files import read_npz
from spikingssm.datasets.rows import as_rows
from spikingssm.datasets.sequences import SOUND, WORDS, files_below, read_csv, read_sequences, read_table, whole

__all__ = ["Found", "read_own"]

ARRAYS = ("x", "y", "lengths", "x_test", "y_test", "lengths_test")
FEWEST_STEPS = 20
"""Columns beside a label from which on a row of a table is taken for a sequence, and not for a step."""
OTHER = {
    ".mat": "found = scipy.io.loadmat(FILE); x, y = found['x'], found['y'].ravel()",
    ".h5": "with h5py.File(FILE) as file: x, y = file['x'][()], file['y'][()]",
    ".hdf5": "with h5py.File(FILE) as file: x, y = file['x'][()], file['y'][()]",
    ".npy": "x = np.load(FILE)",
    ".pt": "x, y = torch.load(FILE)",
}
"""How other kinds of files are opened."""


class Found(NamedTuple):
    """What stands in a file or a folder.

    Args:
        arrays: `ARRAYS` that are there: x (N, L, C), y (N,) or (N, L), numbers or names; lengths (N,).
        hertz: of sound, else None.
    """

    arrays: dict[str, np.ndarray]
    hertz: int | None = None


def read_own(path: str | Path, hertz: int | None = None, channels: int | None = None) -> Found:
    """The rows of somebody's own data.

    - ``.npz``: ``x``, ``y``, ``lengths``, and the same with ``_test``.
    - ``.csv`` with a first row of names, among them ``sequence`` and ``label``: a row a step, the others are channels.
      ``.csv`` without: a row a sequence of one channel, its label first.
    - a folder of one folder a class, each of ``.wav`` (or ``.flac``, ``.ogg``), ``.csv``, ``.npy`` or ``.npz`` files of
      one sequence. Where it holds ``train`` and ``test``, the classes lie in these.

    Args:
        path: of the file or the folder.
        hertz: samples a second that sound is brought to; None is the rate of the first file.
        channels: that sequences in files must have; None is those of the first file.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another kind of file, or one that cannot be read.
        ImportError: sound without soundfile.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "train").is_dir() and (path / "test").is_dir():
            train = _folder(path / "train", hertz, channels)
            test = _folder(path / "test", train.hertz, train.arrays["x"].shape[2])
            return Found({**train.arrays, **{f"{key}_test": value for key, value in test.arrays.items()}}, train.hertz)
        return _folder(path, hertz, channels)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; data.path takes an .npz file with x (N, L, C) and y (N,), a .csv, or a folder of "
            "one folder a class."
        )
    suffix = path.suffix.lower()
    if suffix in OTHER:
        raise ValueError(
            f"{path}: data.path takes .npz and .csv files and folders; convert it, e.g. {OTHER[suffix]}, then "
            "np.savez('data.npz', x=x, y=y)."
        )
    if suffix == ".csv":
        return Found(_table(path))
    try:
        return Found(read_npz(path, ARRAYS))
    except ValueError as error:
        raise ValueError(f"{' '.join(str(error).split()).rstrip('.')}; write it with np.savez.") from None


def _folder(path: Path, hertz: int | None, channels: int | None) -> Found:
    """A folder of one folder a class."""
    sounds = next(files_below(path, SOUND), None)
    rate = hertz
    if sounds is not None and rate is None:
        rate = rate_of(sounds.read_bytes(), sounds)
    inputs: Any = Numbers() if rate is None else Audio(rate, 1.0)
    found = read_sequences(path, inputs)
    if not isinstance(found.labels, list):
        raise ValueError(
            f"{path}: the files in it do not lie in one folder a class; make folders named as the classes are."
        )
    if rate is None:
        channels = channels or (found.x[0].shape[-1] if found.x[0].ndim > 1 else 1)
        x, lengths = as_rows(found.x, channels)
    else:
        x, lengths = as_rows(found.x, 1)
    assert lengths is not None
    arrays = {"x": x, "y": np.array(found.labels)}
    return Found(arrays if (lengths == x.shape[1]).all() else {**arrays, "lengths": lengths}, rate)


def _table(path: Path) -> dict[str, np.ndarray]:
    names, numbers = read_csv(path, texts=WORDS)
    if "sequence" in names and "label" in names:
        found = read_table(path)
        assert found.labels is not None
        return {"x": found.x, "y": np.asarray(found.labels), "lengths": np.asarray(found.lengths)}
    if "sequence" in names:
        raise ValueError(f"{path}: has a column named sequence and none named label; a row a step needs both.")
    if "label" in names and numbers.shape[1] > FEWEST_STEPS:  # a row a sequence, as a data frame is written
        label = names.index("label")
        steps = np.delete(numbers, label, 1).astype(np.float64)
        return {"x": steps[:, :, None], "y": whole(numbers[:, label])}
    if "label" in names:
        raise ValueError(
            f"{path}: {len(names) - 1} columns beside label and none named sequence; a row a step needs one, and a row "
            f"a sequence has {FEWEST_STEPS} steps or more."
        )
    if numbers.shape[1] < 3:
        raise ValueError(f"{path}: {numbers.shape[1]} columns; a row is a label and the steps of its sequence.")
    return {"x": numbers[:, 1:, None], "y": whole(numbers[:, 0])}
