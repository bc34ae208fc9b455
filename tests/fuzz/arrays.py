"""Arrays, images and prepared data."""

import hashlib
import json
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.contents import content, rows
from fuzz.edits import edited_npz
from fuzz.engine import Format
from fuzz.packing import as_tar, bombs, npz_bomb, numbers, pack
from spikingssm import datasets
from spikingssm.datasets.cache import cached
from spikingssm.datasets.images import FILES as IDX

__all__ = ["FORMATS"]


def _arrays(save: Callable[..., None]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        x = numbers().normal(size=(20, 6, 2)).astype(np.float32)
        save(folder / "a.npz", x=x, y=numbers(1).integers(0, 3, 20), lengths=numbers(2).integers(1, 7, 20))

    return build


def _read_arrays() -> Any:
    return rows(datasets.arrays("a.npz", batch_size=2))


def _idx(packed: bool) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for name in IDX:
            count = 12 if name.startswith("train") else 5
            array = numbers().integers(0, 256, (count, 28, 28)) if "images" in name else np.arange(count) % 10
            data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
            path = folder / name.removesuffix(".gz")
            path.write_bytes(data)
            if packed:
                pack(path, "gz")

    return build


def _read_idx() -> Any:
    return rows(datasets.mnist(".", batch_size=2))


def _sizes_of_idx(draw: random.Random, folder: Path) -> None:
    path = folder / draw.choice([name.removesuffix(".gz") for name in IDX])
    data = bytearray(path.read_bytes())
    data[3] = draw.choice([0, 1, 2, 3, 4, 255])
    data[4:8] = struct.pack(">I", draw.choice([0, 1, 2**31, 2**32 - 1, 12]))
    path.write_bytes(data)


def _batches(folder: Path, kind: str | None = None) -> None:
    names = ["data_batch_1", "data_batch_2", "test_batch"] if kind is None else [f"data_batch_{n}" for n in range(1, 6)]
    names = [*dict.fromkeys([*names, "test_batch"])]
    files = {
        name: pickle.dumps({b"labels": [1, 2, 9], b"data": numbers(i).integers(0, 256, (3, 3072)).astype(np.uint8)}, 2)
        for i, name in enumerate(names)
    }
    if kind is not None:
        as_tar(folder / "cifar-10-python.tar.gz", kind, {f"cifar-10-batches-py/{n}": d for n, d in files.items()})
        return
    (folder / "cifar-10-batches-py").mkdir()
    for name, data in files.items():
        (folder / "cifar-10-batches-py" / name).write_bytes(data)


def _edit_batch(draw: random.Random, folder: Path) -> None:
    path = folder / "cifar-10-batches-py" / draw.choice(["data_batch_1", "data_batch_2", "test_batch"])
    found = pickle.loads(path.read_bytes())
    bomb: Any = [1, 2, 9]
    for _ in range(9):
        bomb = [bomb] * 10
    wrong = [
        None,
        [],
        [1, 2],
        [1, 2, -3],
        [1, 2, 10**30],
        [1.0, 2.0, 3.0],
        "abc",
        np.arange(3),
        bomb,
        {1: 2},
        [1, 2, 10],
    ]
    data = found[b"data"]
    shapes = [data[:0], data[0], data.T.copy(), data.astype(float), data[:, :10], data.reshape(3, 3, 1024), None, [1]]
    way = draw.choice(["labels", "data", "remove", "twice"])
    if way == "remove":
        found.pop(draw.choice([*found]))
    elif way == "twice":
        found = [found, found]
    else:
        found[way.encode()] = draw.choice(wrong if way == "labels" else shapes)
    path.write_bytes(pickle.dumps(found, draw.choice([0, 1, 2, 3, 4, 5])))


def _grey(folder: Path) -> None:
    for part in ("train", "test"):
        x = numbers().integers(0, 256, (8, 1024, 1)).astype(np.uint8)
        np.savez_compressed(folder / f"{part}.npz", x=x, y=np.arange(8) % 10)


def _cache(folder: Path) -> None:
    _read_cache()


def _read_cache() -> Any:
    made = {"x": np.arange(600).reshape(20, 30), "y": np.arange(20) % 3, "word": np.array("a word")}
    found = content(cached("t", {"a": 1}, lambda: made))
    (home,) = Path("dataset/cache").glob("t-*")
    if home.name != "t-0":
        shutil.rmtree(home.parent / "t-0", ignore_errors=True)
    return found


CACHED = ["x.npy", "y.npy", "word.npy", "facts.json"]


def _cache_files() -> list[str]:
    """Names of the prepared files, which depend on the facts alone."""
    digest = hashlib.sha256(json.dumps({"a": 1}, sort_keys=True).encode()).hexdigest()[:16]
    return [f"dataset/cache/t-{digest}/{name}" for name in CACHED]


FORMATS = [
    Format("arrays.npz", _arrays(np.savez), _read_arrays, ["a.npz"], True, [edited_npz("a.npz")]),
    Format(
        "arrays-packed.npz", _arrays(np.savez_compressed), _read_arrays, ["a.npz"], True, [edited_npz("a.npz")],
        [npz_bomb("a.npz", "x")],
    ),
    Format("mnist.idx", _idx(False), _read_idx, [n.removesuffix(".gz") for n in IDX], False, [_sizes_of_idx]),
    Format("mnist.idx.gz", _idx(True), _read_idx, [*IDX], True, frauds=[bombs("train-images-idx3-ubyte.gz", "gz")]),
    Format(
        "cifar.pickle", _batches, lambda: rows(datasets.cifar(".", batch_size=2, val_fraction=0.4)),
        [f"cifar-10-batches-py/{n}" for n in ("data_batch_1", "data_batch_2", "test_batch")], False, [_edit_batch],
    ),
    Format(
        "cifar.tar.gz", lambda folder: _batches(folder, "gz"),
        lambda: rows(datasets.cifar(".", grey=False, batch_size=2)), ["cifar-10-python.tar.gz"], True,
        frauds=[bombs("cifar-10-python.tar.gz", "gz")],
    ),
    Format(
        "cifar-grey.npz", _grey, lambda: rows(datasets.cifar(".", batch_size=2)), ["train.npz", "test.npz"], True,
        [edited_npz("train.npz")],
    ),
    Format("cache", _cache, _read_cache, _cache_files(), True),
]  # fmt: skip
