"""Images read pixel by pixel: sequential and permuted sequential MNIST."""

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sdn.runs.tensor_files import load_tensors
from spikingssm.datasets import standin
from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.download import fetch
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.known import are_published, source_of_test
from spikingssm.datasets.numpy_files import read_npy
from spikingssm.datasets.packed import one_line, read_packed

__all__ = ["bit_reversal", "mnist", "read_idx"]

# torchvision's published mirror of the four original files. The md5 sums of the files with these sha256 sums are the
# ones that torchvision lists: f68b3c2d..., d53e105e..., 9fb629c4..., ec29112d... in this order.
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
UNPACKED = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""sha256 of the unpacked bytes, computed from the four packed files with the sums above."""
CACHE = Path("dataset") / "cache" / "mnist"
ORDERS = ("none", "random", "bitreversal")


def mnist(
    root: str | Path | None = None,
    *,
    permute: str | bool = False,
    permute_seed: int = 0,
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Sequential MNIST: x (B, 784, 1) in [0, 1], row by row or in one permuted order for all images, 10 classes.

    The test set is the official one; validation is carved from the 60,000 training images by the seed. Files of other
    images in the same form are taken too; `SequenceData.facts` then does not call them MNIST.

    Args:
        root: folder of the four files, packed or not, directly in it or in ``MNIST/raw`` or ``raw``; None downloads
            them once into ``dataset/cache/mnist``.
        permute: the order of the pixels: False or "none", "random", "bitreversal" (`bit_reversal`), or a file of 784
            numbers, which pixel comes at which step: a tensor (.pt) or an array (.npy).
        permute_seed: of the random order, >= 0; apart from ``seed``, so that runs see the same task.
        generated: draw a stand-in of the same shape; no file is read.
        test_only: read the test files only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: a file that is not in ``root``, or that of the order.
        ValueError: an unknown order, a file of another one than of all 784 pixels, or of images that is no IDX file.
        OSError: a download that failed.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", yann.lecun.com/exdb/mnist (CC BY-SA 3.0).
    """
    order, said = _order(permute, permute_seed)
    published = True
    if generated:
        standin.refuse_root("mnist", root)
        train, test = standin.images(784, 1, 10)
    else:
        paths = {name: _find(name, root) for name in FILES if not test_only or name.startswith("t10k")}
        published = are_published("mnist", {path: (FILES[name], UNPACKED[name]) for name, path in paths.items()})
        parts = [read_idx(path) for path in paths.values()]
        test = _rows(parts[-2], parts[-1], "t10k")
        train = test if test_only else _rows(parts[0], parts[1], "train")
    if order is not None:
        train, test = (rows._replace(x=rows.x[:, order]) for rows in (train, test))
    return SequenceData(
        "mnist" if order is None else f"mnist-{permute if permute in ORDERS else 'permuted'}",
        train,
        test,
        d_output=10,
        inputs=Numbers(divide=255, order=None if order is None else tuple(order.tolist())),
        seed=seed,
        split=f"test: {source_of_test(published, generated)}; validation: from the training images, by the seed; "
        f"pixels: {said}",
        published=published,
        full=(len(train.x), len(test.x)) == (60_000, 10_000),
        generated=generated,
        test_only=test_only,
        **options,
    )


def bit_reversal(length: int) -> np.ndarray:
    """The numbers 0 .. length - 1 in the order of their reversed bits, (length,).

    For a length that is no power of two this is the bit reversal of the next one without the numbers that are too
    large: 5 -> 0, 4, 2, 1, 3. That is the order in which the published SpikingSSM experiment reads MNIST.

    Source: ``bitreversal_permutation`` of github.com/state-spaces/s4, ``src/dataloaders/utils/permutations.py``.
    """
    numbers = np.arange(length)
    reverse = np.zeros_like(numbers)
    for bit in range(max(length - 1, 0).bit_length()):
        reverse = 2 * reverse + (numbers >> bit & 1)
    return np.argsort(reverse)


def read_idx(path: str | Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    An IDX file is: two zero bytes, the type (8 for unsigned bytes), the number of axes, the size of each axis as a
    big-endian 32-bit integer, and the bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or more or fewer bytes than its header announces.
    """
    data = read_packed(path)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: starts with {data[:4].hex() or 'nothing'}, an IDX file of bytes with 000008.")
    axes, start = data[3], 4 + 4 * data[3]
    if not 1 <= axes <= 8 or len(data) < start:
        raise ValueError(f"{path}: the IDX header announces {axes} axes and ends after {len(data)} bytes.")
    shape = struct.unpack(f">{axes}I", data[4:start])
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count:
        raise ValueError(
            f"{path}: the IDX header announces {shape}, {count} bytes, and {len(data) - start} follow; "
            "copy or download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def _find(name: str, root: str | Path | None) -> Path:
    if root is None:
        return fetch(MIRROR, name, FILES[name], CACHE)
    folders = [Path(root), Path(root) / "MNIST" / "raw", Path(root) / "raw"]
    for path in (folder / found for folder in folders for found in (name, name.removesuffix(".gz"))):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"mnist: no {name} (or {name.removesuffix('.gz')}) in {', '.join(map(str, folders))}; "
        "set data.root to the folder that holds it, or data.root=null to download."
    )


def _order(permute: str | bool, permute_seed: int) -> tuple[np.ndarray | None, str]:
    """Step -> pixel, (784,) or None for row by row, and its name for the facts."""
    if permute is False or permute == "none":
        return None, "row by row"
    if permute == "bitreversal":
        return bit_reversal(784), "bit-reversal order"
    if isinstance(permute, str) and permute.endswith((".pt", ".npy")):
        order = _stored(Path(permute))
        digest = hashlib.sha256(order.tobytes()).hexdigest()
        return order, f"in the order of {Path(permute).name} (its sha256 begins with {digest[:16]})"
    if permute != "random":
        raise ValueError(
            f"mnist: data.permute must be false, none, random, bitreversal or a .pt or .npy file, got {permute!r}."
        )
    if permute_seed < 0:
        raise ValueError(f"mnist: data.permute_seed must be >= 0, got {permute_seed}.")
    return np.random.default_rng(permute_seed).permutation(784), f"random order (permute_seed {permute_seed})"


def _stored(path: Path) -> np.ndarray:
    """The order in a file: each of 0 .. 783 once, (784,) int64. Nothing in the file is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"mnist: data.permute={path} is no file; give a .pt or .npy with 784 pixel numbers.")
    try:
        found = read_npy(path) if path.suffix == ".npy" else load_tensors(path)
    except ValueError as error:
        raise ValueError(f"mnist: data.permute={path}: not a readable tensor or array ({one_line(error)}).") from None
    if isinstance(found, (Tensor, np.ndarray)) and tuple(found.shape) == (784,):
        order = np.asarray(found)
        if order.dtype.kind in "iu" and np.array_equal(np.sort(order), np.arange(784)):
            return order.astype(np.int64)
    shape = f"{found.dtype} of shape {tuple(found.shape)}" if hasattr(found, "dtype") else type(found).__name__
    raise ValueError(f"mnist: data.permute={path} must hold each of the integers 0 to 783 once, got {shape}.")


def _rows(images: np.ndarray, labels: np.ndarray, part: str) -> Rows:
    """Images (N, 28, 28) and labels (N,) -> x (N, 784, 1), y (N,)."""
    if images.shape[1:] != (28, 28):
        raise ValueError(f"mnist: {part} images have the shape {images.shape}, not (N, 28, 28).")
    if labels.shape != (len(images),):
        raise ValueError(f"mnist: {part} has {len(images)} images and labels of shape {labels.shape}.")
    if len(labels) and labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise ValueError(f"mnist: {part} has the label {labels[row]} in row {row}, labels are 0 to 9.")
    return Rows(images.reshape(len(images), 784, 1), labels.astype(np.int64))
