"""Pathfinder and Path-X: are two dots the ends of one dashed contour? Our own images, or the Long Range Arena's."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from spikingssm.datasets.base import Rows, Selected, SequenceData
from spikingssm.datasets.cache import Pieces, cached, source_facts
from spikingssm.datasets.contours import BLOCK, SETTINGS, Setting, draw, render
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.numpy_files import read_npy
from spikingssm.datasets.packed import one_line
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root

__all__ = ["pathfinder"]

RELEASED = 200_000
PARTS = ("train", "val", "test")
FOLDERS = {6: "curv_baseline", 9: "curv_contour_length_9", 14: "curv_contour_length_14"}
"""The three difficulties of the release; the published results are those of 14."""
SPLIT_SEED = 42
LOG_EVERY = 10_000


def pathfinder(
    root: str | Path | None = None,
    *,
    resolution: int = 32,
    rows: int | None = None,
    contour_length: int = 14,
    distractors: int | None = None,
    generator_seed: int = 0,
    generated: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Images of dashed contours, pixel by pixel: x (B, resolution^2, 1) in [0, 1], class 1 if one joins the two dots.

    With 32 pixels it is Pathfinder, 1,024 steps; with 128 it is Path-X, 16,384 steps.

    Args:
        root: the released folder, with ``pathfinder32`` and ``pathfinder128``; None draws images of the published task
            once and keeps them. These are ours, not the released ones.
        resolution: 32 or 128.
        rows: images to draw, a multiple of 20: 80 % for training, 10 % each for validation and test, half of each part
            of either class. None is 200,000. Fewer rows are the first ones of more.
        contour_length: dashes of the two long contours; of the released images 6, 9 or 14.
        distractors: at most that many short contours in a drawn image; None is 5, and 8 with 128 pixels.
        generator_seed: of the drawn images.
        generated: draw 256, 64 and 64 easy images without distractors; contour_length is then unused.
        seed: of the order.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        FileNotFoundError: a folder or an image that is not in ``root``.
        ImportError: Pillow is not installed.
        ValueError: another resolution, rows that cannot be halved, contours that do not fit, options of drawn images
            together with ``root``, or files that are not those of the release.

    Source: Linsley, Kim, Veerabadran, Serre, arXiv 1805.08315; Tay et al., "Long Range Arena", ICLR 2021.
    """
    name = "pathx" if resolution == 128 else "pathfinder"
    if resolution not in SETTINGS:
        raise ValueError(f"{name}: resolution must be 32 or 128, got {resolution}.")
    if generated:
        refuse_root(name, root)
        # one contour where the label is 1 and two where it is 0: the brightness tells them apart
        setting = replace(SETTINGS[resolution], contour_length=6, distractors=0, lone=True)
        parts = [_stored(np.concatenate(list(_drawn(setting, 0, i, n)))) for i, n in enumerate((TRAIN, TEST, TEST))]
        split = "stand-in: each part drawn from numbers of its own"
    elif root is None:
        short = SETTINGS[resolution].distractors if distractors is None else distractors
        setting = replace(SETTINGS[resolution], contour_length=contour_length, distractors=short)
        parts = _own(name, setting, RELEASED if rows is None else rows, generator_seed)
        split = f"drawn by our generator with seed {generator_seed}, not the released images: contours of "
        split += f"{contour_length} dashes, up to {short} distractors"
    else:
        if rows is not None or distractors is not None:
            raise ValueError(
                f"{name}: rows={rows} and distractors={distractors} are for drawn images; with data.root set data.rows "
                "and data.distractors to null, and use limit_train and limit_eval."
            )
        parts = _released(name, Path(root), resolution, contour_length)
        split = f"80/10/10 of the released images with contours of {contour_length} dashes, shuffled with seed "
        split += f"{SPLIT_SEED} as in the published pipeline"
    return SequenceData(
        name,
        parts[0],
        parts[2],
        parts[1],
        d_output=2,
        inputs=Numbers(divide=255),  # as in the published pipeline, not centred
        seed=seed,
        split=split,
        full=root is not None and contour_length == 14 and sum(len(part.x) for part in parts) == RELEASED,
        generated=generated,
        **options,
    )


def _own(name: str, setting: Setting, rows: int, seed: int) -> list[Rows]:
    if rows < 20 or rows % 20:
        raise ValueError(f"{name}: rows must be a multiple of 20, so that each part can be halved, got {rows}.")
    if rows > 10 * RELEASED:
        raise ValueError(f"{name}: rows must be at most {10 * RELEASED}, ten times the released ones, got {rows}.")
    if not 2 <= setting.contour_length <= 100 or not 0 <= setting.distractors <= 100 or seed < 0:
        raise ValueError(
            f"{name}: contour_length must be from 2 to 100, distractors from 0 to 100, generator_seed at least 0, got "
            f"{setting.contour_length}, {setting.distractors} and {seed}."
        )
    sizes = dict(zip(PARTS, (rows * 8 // 10, rows // 10, rows // 10), strict=True))

    def make() -> dict[str, Pieces]:
        return {
            part: Pieces(
                (size, setting.resolution**2, 1), np.uint8, _logged(name, _drawn(setting, seed, i, size), size)
            )
            for i, (part, size) in enumerate(sizes.items())
        }

    found = cached(name, {"version": 1, "setting": asdict(setting), "rows": rows, "seed": seed}, make)
    return [_stored(found[part]) for part in PARTS]


def _drawn(setting: Setting, seed: int, stream: int, rows: int) -> Iterator[np.ndarray]:
    """The first ``rows`` images of a stream, in pieces (n, resolution^2, 1)."""
    for block in range(-(-rows // BLOCK)):
        yield render(setting, draw(setting, seed, stream, block))[: rows - block * BLOCK, :, None]


def _stored(x: np.ndarray) -> Rows:
    """Drawn images with their labels: odd ones have 1."""
    return Rows(x, np.arange(len(x)) % 2)


def _logged(name: str, pieces: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    done = 0
    for piece in pieces:
        if (done + len(piece)) // LOG_EVERY > done // LOG_EVERY:
            logger.info(f"{name}: {done + len(piece):,} of {rows:,} images")
        done += len(piece)
        yield piece


def _released(name: str, root: Path, resolution: int, contour_length: int) -> list[Rows]:
    """The parts of the released images: torch's shuffle of them in the order of the metadata, as published."""
    if contour_length not in FOLDERS:
        raise ValueError(f"{name}: released images have a contour_length of 6, 9 or 14, got {contour_length}.")
    home = _folder(name, root, f"pathfinder{resolution}", FOLDERS[contour_length])
    there = (path for path in (home / "metadata").glob("*.npy") if path.is_file())
    files = sorted(there, key=lambda path: (len(path.stem), path.stem))
    facts = {"version": 1, "resolution": resolution, "metadata": source_facts(*files)}

    def make() -> dict[str, Pieces]:
        paths, labels = zip(*(line for file in files for line in _metadata(home, file)), strict=True)
        bad: list[int] = []
        images = _logged(name, _pixels(name, list(paths), resolution, bad), len(paths))
        y = _labels(name, np.array(labels), [str(p) for p in paths], bad)  # runs after all images are there
        return {"x": Pieces((len(paths), resolution**2, 1), np.uint8, images), "y": Pieces((len(paths),), np.int64, y)}

    found = cached(name, facts, make)
    y = np.array(found["y"])
    good = np.flatnonzero(y >= 0)
    order = good[torch.randperm(len(good), generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()]
    held = len(good) // 10
    if not held:
        raise ValueError(f"{name}: {home} has {len(good)} readable images; at least 10 are needed for three parts.")
    train, val, test = np.split(order, [len(good) - 2 * held, len(good) - held])
    return [Rows(Selected(found["x"], part), y[part]) for part in (train, val, test)]


def _folder(name: str, root: Path, size: str, level: str) -> Path:
    if root.is_file():
        raise ValueError(
            f"{name}: {root} is a file; unpack it (tar -xzf FILE --wildcards '*{size}/{level}/*') and set data.root to "
            "the folder it makes."
        )
    # lra_release.gz has a second, outer pathfinder128; published pipelines read the inner one
    for above in (f"lra_release/lra_release/{size}", f"lra_release/{size}", size, "."):
        if any((root / above / level / "metadata").glob("*.npy")):
            return root / above / level
    if root.name == level and any((root / "metadata").glob("*.npy")):
        return root
    raise FileNotFoundError(
        f"{name}: no {size}/{level}/metadata/*.npy in {root}; set data.root to the folder that holds {size}, from "
        "lra_release.gz (storage.googleapis.com/long-range-arena/lra_release.gz), or data.root=null to draw images."
    )


def _metadata(home: Path, file: Path) -> Iterator[tuple[Path, int]]:
    """Path and label of each image. A line is: folder, file, number, label, and what the image was drawn with."""
    try:
        if file.read_bytes()[:6] == b"\x93NUMPY":
            lines = [[str(word) for word in line] for line in read_npy(file).astype(str)]
        else:
            lines = [line.split() for line in file.read_bytes().decode().splitlines() if line.strip()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: not the metadata of the release ({one_line(error)}); unpack it again.") from None
    if not lines:
        raise ValueError(f"{file}: no lines; unpack it again.")
    for number, line in enumerate(lines, 1):
        if len(line) < 4 or line[3] not in ("0", "1"):
            raise ValueError(
                f"{file}: line {number} is {' '.join(line)[:60]!r}, not folder, file, number, label 0 or 1."
            )
        if ".." in (*line[0].split("/"), *line[1].split("/")) or line[0].startswith("/") or line[1].startswith("/"):
            raise ValueError(f"{file}: line {number} names a file outside of {home}; unpack it again.")
        yield home / line[0] / line[1], int(line[3])


def _pixels(name: str, paths: list[Path], resolution: int, bad: list[int]) -> Iterator[np.ndarray]:
    """Images in pieces (n, resolution^2, 1); one that cannot be read is black and its number goes to ``bad``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"{name} images need the extra `data`: pip install 'sdn-spikingssm[data]'.") from error
    for start in range(0, len(paths), BLOCK):
        piece = np.zeros((len(paths[start : start + BLOCK]), resolution, resolution), np.uint8)
        for row, path in enumerate(paths[start : start + BLOCK]):
            if not path.is_file():
                raise FileNotFoundError(f"{name}: {path} is in the metadata and missing; unpack it again.")
            try:
                with Image.open(path) as image:
                    size = image.size
                    pixels = np.asarray(image.convert("L")) if size == (resolution, resolution) else None
            except Exception:  # Pillow raises what damaged bytes make its decoders raise
                bad.append(start + row)
                continue
            if pixels is None:
                raise ValueError(f"{path}: {size} pixels, data.resolution is {resolution}.")
            piece[row] = pixels
        yield piece.reshape(len(piece), -1, 1)


def _labels(name: str, labels: np.ndarray, paths: list[str], bad: list[int]) -> Iterator[np.ndarray]:
    """The labels, -1 for images that could not be read."""
    if bad:
        logger.warning(
            f"{name}: left out {len(bad)} of {len(labels)} images that cannot be read, first {paths[bad[0]]}"
        )
    labels[bad] = -1
    yield labels
