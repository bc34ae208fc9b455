"""CIFAR-10 read pixel by pixel, grey or in colour."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sdn.runs.files import check_regular
from spikingssm.datasets import standin
from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.cache import CACHE, cached, source_facts
from spikingssm.datasets.download import fetch
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.known import are_published, source_of_test
from spikingssm.datasets.numpy_files import read_npz
from spikingssm.datasets.packed import one_line, tar_members

__all__ = ["cifar", "read_batch", "to_grey"]

# The md5 sum that the authors print beside the archive on www.cs.toronto.edu/~kriz/cifar.html.
SITE, ARCHIVE = "https://www.cs.toronto.edu/~kriz/", "cifar-10-python.tar.gz"
CHECKSUM = "md5:c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
MD5 = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
}
"""Of the unpacked batches, as torchvision lists them (datasets/cifar.py)."""
PARTS = {
    "data_batch_1": "602add926e823f0a45fe9d3366e3930c49b9a7b54ef6b61f458f94280081d8e3",
    "test_batch": "b0151a150e5899f5e7549aca77b6c01314a1ef792220441941e3eed73bef6202",
}
"""2,000 training and 500 test images of the release, as data/README.md lists them."""
GREY_FILES = {
    "train.npz": "fa1d8f0f326b2213394bbeae2ee8b5e0827abbe1bccd35e9a2b4b667bb51f83f",
    "test.npz": "2635fbdfe42889c8438915e85b73a601b22fd4229fcebcde523771549ed8c364",
}
"""All images in grey, as data/README.md lists them."""
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GREY = (122.6 / 255,), (61 / 255,)
"""Mean and standard deviation of the published grey experiment."""
COLOUR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Mean and standard deviation of the training pixels, red, green, blue."""


def cifar(
    root: str | Path | None = None,
    *,
    grey: bool = True,
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Sequential CIFAR-10: standardised pixels row by row, x (B, 1024, 1) grey or (B, 1024, 3), 10 classes.

    The test set is the official one; validation is carved from the training images by the seed.

    Args:
        root: the release, as its archive or unpacked in ``cifar-10-batches-py``, or a folder of grey images in
            ``train.npz`` and ``test.npz`` with x (N, 1024, 1) uint8 and y (N,); either the folder itself or the one
            above. None downloads the release once (163 MB) into ``dataset/cache/cifar``.
        grey: luma only, as published; False gives red, green and blue.
        generated: draw a stand-in of the same shape; no file is read.
        test_only: read the test files only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: nothing of that kind in ``root``, or a batch is missing.
        ValueError: a damaged file, arrays of another shape, or colour asked of grey files.
        OSError: a download that failed.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009 (no licence stated).
    """
    if generated:
        standin.refuse_root("cifar", root)
        train, test = standin.images(1024, 1 if grey else 3, 10)
        published = True
    else:
        train, test, published = _read(root, grey, test_only)
    return SequenceData(
        "cifar",
        train,
        test,
        d_output=10,
        inputs=Numbers(255, *(GREY if grey else COLOUR)),
        class_names=NAMES,
        seed=seed,
        split=f"test: {source_of_test(published, generated)}; validation: from the training images, by the seed; "
        f"pixels: {'grey' if grey else 'red, green, blue'}",
        published=published,
        full=(len(train.x), len(test.x)) == (50_000, 10_000),
        generated=generated,
        test_only=test_only,
        **options,
    )


def to_grey(x: np.ndarray) -> np.ndarray:
    """Luma of x (..., 3) uint8 -> (..., 1) uint8, rounded as Pillow's mode "L" does it.

    Source: ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, in 16 bits.
    """
    red, green, blue = (x[..., channel].astype(np.uint32) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)[..., None]


def read_batch(data: bytes, name: str | Path) -> Rows:
    """x (N, 1024, 3) uint8 and y (N,) of one pickled batch; nothing but arrays and plain containers is unpickled.

    Args:
        data: the file.
        name: of it, for errors.

    Raises:
        ValueError: another kind of file, or arrays of another shape.
    """
    try:
        found = _Batch(data).load()
        found = {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}
        x, y = found["data"].array(), _numbers(found["labels"])
    except Exception as error:  # damaged bytes can ask pickle for anything
        raise ValueError(f"{name}: not a CIFAR-10 batch ({one_line(error)}); copy or download it again.") from None
    if x.ndim != 2 or x.shape[1] != 3072 or not len(x):
        raise ValueError(f"{name}: data must be (N, 3072) bytes with N > 0, got {x.shape}.")
    return _checked(np.ascontiguousarray(x.reshape(-1, 3, 1024).transpose(0, 2, 1)), y, name)


class _Array:
    """What a pickle says of an array. NumPy's own reader would trust it and can crash."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.column_major, self.content = state

    def array(self) -> np.ndarray:
        """The array, if it is one of bytes, row by row."""
        if not isinstance(self.dtype, _Type) or self.dtype.code not in ("u1", b"u1") or self.column_major:
            raise ValueError("data is not an array of bytes")
        return np.frombuffer(self.content, np.uint8).reshape(self.shape)


class _Type:
    """What a pickle says of the numbers in an array."""

    def __init__(self, code: Any, *args: Any) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pass


def _numbers(labels: Any) -> np.ndarray:
    """A list of integers as an array; lists inside it could stand for any number of numbers."""
    if not isinstance(labels, (list, tuple)) or not all(type(label) is int for label in labels):
        raise ValueError("labels is no list of integers")
    return np.array(labels, np.int64)


class _Batch(pickle._Unpickler):
    """Refuses every name but those that arrays and bytes need: a pickle can otherwise run any code.

    The unpickler is the one in Python: that in C takes as much memory as a pickle's largest memo number asks for.
    """

    allowed = {
        "numpy.core.multiarray._reconstruct": _Array,
        "numpy._core.multiarray._reconstruct": _Array,
        "numpy.ndarray": _Array,
        "numpy.dtype": _Type,
    }

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.left = 4 * len(data)  # characters that may become bytes: the same text can be asked for over and over

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the object of that name."""
        if (full := f"{module}.{name}") == "_codecs.encode":
            return self.latin1
        if full not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {full}")
        return self.allowed[full]

    def latin1(self, text: str, encoding: str) -> bytes:
        """Bytes as Python 3 writes them in a protocol of Python 2."""
        self.left -= len(text)
        if encoding not in ("latin1", b"latin1") or self.left < 0:
            raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
        return text.encode("latin1")


def _read(root: str | Path | None, grey: bool, test_only: bool) -> tuple[Rows, Rows, bool]:
    """Training and test rows from whatever lies at ``root``, and whether they are published ones."""
    home = fetch(SITE, ARCHIVE, CHECKSUM, CACHE / "cifar") if root is None else Path(root)
    if (home / ARCHIVE).is_file() and not (home / FOLDER).is_dir():
        home = home / ARCHIVE
    if home.is_file():
        published = are_published("cifar", {home: CHECKSUM})
        found = cached("cifar", {"grey": grey, **source_facts(home)}, lambda: _unpack(home, grey))
        return Rows(found["x"], found["y"]), Rows(found["x_test"], found["y_test"]), published
    if (home / "train.npz").is_file() or (home / "test.npz").is_file():
        if not grey:
            raise ValueError(
                f"cifar: data.grey=false, and {home} holds grey images; set data.root to the folder of {FOLDER}."
            )
        grey_files = {home / name: known for name, known in GREY_FILES.items() if not test_only or name == "test.npz"}
        parts = [*map(_grey_rows, grey_files)]
        return parts[0], parts[-1], are_published("cifar", grey_files)
    folder = home / FOLDER if (home / FOLDER).is_dir() else home
    names = [name for name in TRAIN if (folder / name).is_file() and not test_only]
    if names and names != TRAIN[: len(names)]:
        gap = next(name for name in TRAIN if name not in names)
        raise FileNotFoundError(f"cifar: {names[-1]} is in {folder} and {gap} is not; copy or download it again.")
    if names and not (folder / "test_batch").is_file():
        raise FileNotFoundError(
            f"cifar: no test_batch in {folder}, which holds {names[-1]}; copy or download it again."
        )
    if not names and not (folder / "test_batch").is_file():
        raise FileNotFoundError(
            f"cifar: no {FOLDER}, {ARCHIVE} or train.npz in {home}; set data.root to the folder that holds one, or "
            "data.root=null to download."
        )
    wanted = [["test_batch"]] if test_only else [names or TRAIN[:1], ["test_batch"]]
    rows = [_batches(part, lambda name: _bytes(folder / name), grey, folder) for part in wanted]
    known = {name: (MD5[name], PARTS[name]) if name in PARTS else MD5[name] for name in (*names, "test_batch")}
    return rows[0], rows[-1], are_published("cifar", {folder / name: sums for name, sums in known.items()})


def _bytes(path: Path) -> bytes:
    check_regular(path)
    return path.read_bytes()


def _unpack(archive: Path, grey: bool) -> dict[str, np.ndarray]:
    """The release's archive -> x, y, x_test, y_test."""

    wanted = {f"{FOLDER}/{name}": name for name in (*TRAIN, "test_batch")}
    found = {wanted[name]: data for name, data in tar_members(archive, lambda name: name in wanted)}
    train, test = (_batches(part, found.__getitem__, grey, archive) for part in (TRAIN, ["test_batch"]))
    return {"x": train.x, "y": train.y, "x_test": test.x, "y_test": test.y}


def _batches(names: list[str], read: Callable[[str], bytes], grey: bool, place: Path) -> Rows:
    """The rows of batches in the given order."""
    parts = []
    for name in names:
        try:
            rows = read_batch(read(name), place / name)
        except (FileNotFoundError, KeyError):
            raise FileNotFoundError(f"cifar: no {name} in {place}; copy or download it again.") from None
        parts.append(rows._replace(x=to_grey(rows.x)) if grey else rows)
    return Rows(*(np.concatenate([rows[field] for rows in parts]) for field in (0, 1)))


def _grey_rows(path: Path) -> Rows:
    """The rows of an ``.npz`` file of grey images."""
    if not path.is_file():
        raise FileNotFoundError(f"cifar: no {path.name} in {path.parent}; train.npz and test.npz belong together.")
    try:
        found = read_npz(path, ("x", "y"))
        x, y = found["x"], found["y"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: not an .npz file of x and y ({one_line(error)}); copy it again.") from None
    if x.dtype != np.uint8 or x.shape[1:] != (1024, 1) or not len(x):
        raise ValueError(f"{path}: x must be (N, 1024, 1) bytes with N > 0, got {x.shape} {x.dtype}.")
    return _checked(x, y, path)


def _checked(x: np.ndarray, y: np.ndarray, name: str | Path) -> Rows:
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"{name}: labels must be {x.shape[:1]} integers from 0 to 9, got {y.shape} {y.dtype}.")
    if (wrong := np.flatnonzero((y < 0) | (y > 9))).size:
        raise ValueError(f"{name}: labels must be integers from 0 to 9, got {y[wrong[0]]} in row {wrong[0]}.")
    return Rows(x, y.astype(np.int64))
