"""Images read pixel by pixel: sequential MNIST."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.download import fetch

__all__ = ["mnist", "read_idx"]

# torchvision's published mirror of the four original files. The md5 sums of the files with these sha256 sums are the
# ones that torchvision lists: f68b3c2d..., d53e105e..., 9fb629c4..., ec29112d... in this order.
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
CACHE = Path("dataset") / "cache" / "mnist"


def mnist(root: str | Path | None = None, *, permute: bool = False, seed: int = 0, **options: Any) -> SequenceData:
    """Sequential MNIST: x (B, 784, 1) in [0, 1], row by row, 10 classes.

    The test set is the official one; validation is carved from the 60,000 training images by the seed.

    Args:
        root: folder of the four files, packed or not, directly in it or in ``MNIST/raw`` or ``raw``; None downloads
            them once into ``dataset/cache/mnist``.
        permute: a fixed order of the pixels; only False so far.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        NotImplementedError: a permutation.
        FileNotFoundError: a file that is not in ``root``.
        ValueError: a file that is not the IDX file it should be.
        OSError: a download that failed.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", yann.lecun.com/exdb/mnist (CC BY-SA 3.0).
    """
    if permute is not False:
        raise NotImplementedError(f"mnist: permute must be False, got {permute!r}; permuted MNIST is not there yet.")
    parts = [read_idx(_find(name, root)) for name in FILES]
    train, test = (_rows(x, y, name) for x, y, name in ((*parts[:2], "train"), (*parts[2:], "t10k")))
    return SequenceData(
        "mnist",
        train,
        test,
        d_output=10,
        prepare=_scale,
        seed=seed,
        split="test: the official one; validation: from the training images, by the seed",
        full=(len(train.x), len(test.x)) == (60_000, 10_000),
        **options,
    )


def read_idx(path: str | Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    An IDX file is: two zero bytes, the type (8 for unsigned bytes), the number of axes, the size of each axis as a
    big-endian 32-bit integer, and the bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or more or fewer bytes than its header announces.
    """
    path = Path(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: damaged gzip file ({error}); copy or download it again.") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: starts with {data[:4].hex() or 'nothing'}, an IDX file of bytes with 000008.")
    axes, start = data[3], 4 + 4 * data[3]
    if not axes or len(data) < start:
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


def _rows(images: np.ndarray, labels: np.ndarray, part: str) -> Rows:
    """Images (N, 28, 28) and labels (N,) -> x (N, 784, 1), y (N,)."""
    if images.shape[1:] != (28, 28):
        raise ValueError(f"mnist: {part} images have the shape {images.shape}, not (N, 28, 28).")
    if labels.shape != (len(images),):
        raise ValueError(f"mnist: {part} has {len(images)} images and labels of shape {labels.shape}.")
    if len(labels) and labels.max() > 9:
        raise ValueError(f"mnist: {part} has the label {labels.max()}, labels are 0 to 9.")
    return Rows(images.reshape(len(images), 784, 1), labels.astype(np.int64))


def _scale(x: Tensor) -> Tensor:
    """Pixels 0..255 -> [0, 1]."""
    return x.to(torch.float32) / 255
