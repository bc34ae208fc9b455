"""Texts, pairs of texts, lists of operations and drawn paths."""

from pathlib import Path
from typing import Any

import numpy as np

from fuzz.contents import rows
from fuzz.engine import Format
from fuzz.packing import as_tar, bombs, numbers
from spikingssm import datasets

__all__ = ["FORMATS"]


PATHS = "pathfinder32/curv_contour_length_14"


def _wiki(folder: Path) -> None:
    words = ["the", "a", "<unk>", "= =", "cat", "dog", "sat", "\n"]
    for seed, part in enumerate(("train", "valid", "test")):
        picked = numbers(seed).integers(0, len(words), 400)
        (folder / f"wiki.{part}.tokens").write_text(" ".join(words[n] for n in picked) + "\n")


def _aan(folder: Path) -> None:
    for seed, part in enumerate(("train", "eval", "test")):
        lines = []
        for n in range(6):
            documents = ["".join(chr(97 + c) for c in numbers(9 * seed + n + k).integers(0, 26, 30)) for k in (0, 50)]
            lines.append("\t".join([str(n % 2), "p", "q", *documents]))
        (folder / f"new_aan_pairs.{part}.tsv").write_text("\n".join(lines) + "\n")


def _reviews() -> dict[str, bytes]:
    return {
        f"aclImdb/{part}/{kind}/{n}_{stars}.txt": bytes(numbers(n + stars).integers(97, 123, 60).astype(np.uint8))
        for part in ("train", "test")
        for kind, stars in (("pos", 9), ("neg", 2))
        for n in range(4)
    }


def _imdb(folder: Path) -> None:
    for name, data in _reviews().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _listops(folder: Path) -> None:
    for part in ("train", "val", "test"):
        lines = ["Source\tTarget", *(f"( ( ( [MAX {n} ) {n + 1} ) ] )\t{n + 1}" for n in range(8))]
        (folder / f"basic_{part}.tsv").write_text("\n".join(lines) + "\n")


def _paths(folder: Path) -> None:
    from PIL import Image

    home = folder / "pathfinder32" / "curv_contour_length_14"
    (home / "metadata").mkdir(parents=True)
    (home / "imgs" / "0").mkdir(parents=True)
    lines = []
    for n in range(20):
        Image.fromarray(numbers(n).integers(0, 256, (32, 32)).astype(np.uint8)).save(home / "imgs" / "0" / f"{n}.png")
        lines.append(f"imgs/0 {n}.png {n} {n % 2} 0 0")
    (home / "metadata" / "0.npy").write_text("\n".join(lines) + "\n")


def _read_paths() -> Any:
    return rows(datasets.pathfinder(".", batch_size=2))


FORMATS = [
    Format(
        "wikitext", _wiki, lambda: rows(datasets.wikitext(".", length=16, batch_size=2)),
        ["wiki.train.tokens", "wiki.test.tokens"],
    ),
    Format("aan.tsv", _aan, lambda: rows(datasets.aan(".", length=20, batch_size=2)), ["new_aan_pairs.train.tsv"]),
    Format(
        "imdb", _imdb, lambda: rows(datasets.imdb(".", length=40, batch_size=2, level="char", min_freq=1)),
        ["aclImdb/train/pos/1_9.txt", "aclImdb/test/neg/2_2.txt"], share=0.5,
    ),
    Format(
        "imdb.tar.xz", lambda folder: as_tar(folder / "aclImdb_small.tar.xz", "xz", _reviews()),
        lambda: rows(datasets.imdb(".", length=40, batch_size=2)), ["aclImdb_small.tar.xz"], True,
        frauds=[bombs("aclImdb_small.tar.xz", "xz")],
    ),
    Format("listops.tsv", _listops, lambda: rows(datasets.listops(".", length=16, batch_size=2)), ["basic_train.tsv"]),
    Format("pathfinder.png", _paths, _read_paths, [f"{PATHS}/imgs/0/3.png", f"{PATHS}/metadata/0.npy"]),
]  # fmt: skip
