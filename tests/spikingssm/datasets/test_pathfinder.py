"""Pathfinder: the drawn data set, and the reader against files like the released ones."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger

from spikingssm.datasets.cache import Pieces, cached
from spikingssm.datasets.contours import SETTINGS, draw, render
from spikingssm.datasets.pathfinder import pathfinder

module = importlib.import_module("spikingssm.datasets.pathfinder")
LEVEL = "pathfinder32/curv_contour_length_14"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_parts_are_balanced_distinct_and_decided_by_the_generator_seed_alone() -> None:
    setting = replace(SETTINGS[32], contour_length=6, distractors=0)
    data = pathfinder(rows=200, contour_length=6, distractors=0, generator_seed=5, batch_size=8, seed=3)
    parts = [part.rows for part in (data.train_set, data.val_set, data.test_set)]
    assert [len(rows.x) for rows in parts] == [160, 20, 20]
    assert [2 * rows.y.sum() for rows in parts] == [160, 20, 20]
    assert len({bytes(image) for rows in parts for image in rows.x}) == 200
    assert data.facts()["size"] == "subset"
    for rows, stream in zip(parts, range(3), strict=True):
        scenes = [draw(setting, 5, stream, number) for number in range(2)]
        images = np.concatenate([render(setting, one) for one in scenes])
        np.testing.assert_array_equal(rows.x[:, :, 0], images[: len(rows.x)])
        np.testing.assert_array_equal(rows.y, np.concatenate([one.labels for one in scenes])[: len(rows.x)])
    x, y, lengths = next(iter(data.val_dataloader()))
    assert (x.shape, x.dtype, lengths) == ((8, 1024, 1), torch.float32, None)
    np.testing.assert_allclose(x[:, :, 0], parts[1].x[:8, :, 0] / np.float32(255))
    assert y.tolist() == [0, 1] * 4


def test_images_are_drawn_once(monkeypatch) -> None:
    options = {"resolution": 128, "rows": 20, "contour_length": 6, "distractors": 0, "batch_size": 2}
    first = pathfinder(**options).train_set.rows.x
    monkeypatch.setattr(module, "draw", None)
    again = pathfinder(**options)
    assert (again.name, again.length) == ("pathx", 16384)
    np.testing.assert_array_equal(again.train_set.rows.x, first)
    with pytest.raises(TypeError):
        pathfinder(**options, generator_seed=1)


def test_progress_is_logged() -> None:
    heard: list[str] = []
    number = logger.add(heard.append, format="{message}")
    pieces = [np.zeros((6_000, 1)), np.zeros((6_000, 1)), np.zeros((9_000, 1))]
    assert len(list(module._logged("pathfinder", iter(pieces), 21_000))) == 3
    logger.remove(number)
    assert [line.strip() for line in heard] == [
        "pathfinder: 12,000 of 21,000 images",
        "pathfinder: 21,000 of 21,000 images",
    ]


def test_the_stand_in_is_easy_and_touches_no_file(tmp_path) -> None:
    data = pathfinder(generated=True)
    assert data.facts()["size"] == "generated"
    assert [len(part.rows.x) for part in (data.train_set, data.val_set, data.test_set)] == [256, 64, 64]
    rows = data.test_set.rows
    bright = np.asarray(rows.x, float).sum((1, 2))
    assert ((bright < np.median(bright)) == rows.y).mean() > 0.95
    assert not list(tmp_path.iterdir())


def release(root, lines: dict[int, list[str]], size: int = 32) -> dict[str, np.ndarray]:
    """Write images for lines of metadata, file number -> lines, and give them by path."""
    from PIL import Image

    random, images = np.random.default_rng(0), {}
    (root / "metadata").mkdir(parents=True)
    for number, rows in lines.items():
        (root / "metadata" / f"{number}.npy").write_text("".join(f"{row}\n" for row in rows))
        for row in rows:
            path = root / row.split()[0] / row.split()[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            images[str(path)] = random.integers(0, 256, (size, size), np.uint8)
            Image.fromarray(images[str(path)]).save(path)
    return images


def lines(*numbers: int) -> dict[int, list[str]]:
    """Ten lines a file in the form of the release."""
    return {n: [f"imgs/{n} sample_{i}.png {i} {(i + n) % 2} 1.0 14 4 2 0.5 1 1" for i in range(10)] for n in numbers}


@pytest.mark.parametrize(
    ("home", "root"),
    [
        (LEVEL, "."),
        (LEVEL, "pathfinder32"),
        (LEVEL, LEVEL),
        (f"lra_release/{LEVEL}", "."),
        (f"lra_release/lra_release/{LEVEL}", "."),
    ],
)
def test_released_images_are_read_in_the_published_order_and_split(tmp_path, home, root) -> None:
    images = release(tmp_path / home, lines(0, 2, 10))  # 10 after 2: by number
    data = pathfinder(tmp_path / root, batch_size=4)
    labels = [(i + n) % 2 for n in (0, 2, 10) for i in range(10)]
    everything = torch.utils.data.TensorDataset(torch.arange(30))
    parts = torch.utils.data.random_split(everything, [24, 3, 3], generator=torch.Generator().manual_seed(42))
    for part, found in zip(parts, (data.train_set, data.val_set, data.test_set), strict=True):
        wanted = np.stack(list(images.values()))[part.indices].reshape(len(part), 1024, 1)
        np.testing.assert_array_equal(found.rows.x[list(range(len(part)))], wanted)
        assert found.rows.y.tolist() == [labels[i] for i in part.indices]
    assert data.facts()["size"] == "subset"
    assert next(iter(data.test_dataloader())).x.max() <= 1


def test_metadata_may_be_an_array(tmp_path) -> None:
    release(tmp_path / LEVEL, lines(0, 1))
    texts = pathfinder(tmp_path, batch_size=4).train_set.rows
    for number, rows in lines(0, 1).items():
        np.save(tmp_path / LEVEL / "metadata" / f"{number}.npy", np.array([row.split() for row in rows]))
    arrays = pathfinder(tmp_path, batch_size=4).train_set.rows
    np.testing.assert_array_equal(arrays.x[list(range(16))], texts.x[list(range(16))])
    assert arrays.y.tolist() == texts.y.tolist()


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path) -> None:
    images = list(release(tmp_path / LEVEL, lines(0, 1)))
    heard: list[str] = []
    number = logger.add(heard.append, format="{message}")
    Path(images[3]).write_bytes(Path(images[3]).read_bytes()[:60])
    Path(images[12]).write_bytes(b"")
    data = pathfinder(tmp_path, batch_size=4)
    logger.remove(number)
    assert [len(part.rows.x) for part in (data.train_set, data.val_set, data.test_set)] == [16, 1, 1]
    assert all(part.rows.x[[0]].any() for part in (data.train_set, data.val_set, data.test_set))
    assert [line.strip() for line in heard if "left out" in line] == [
        f"pathfinder: left out 2 of 20 images that cannot be read, first {images[3]}"
    ]


def spoil(root, what: str) -> None:
    home = root / LEVEL
    if what == "missing":
        (home / "imgs/0/sample_4.png").unlink()
    elif what == "label":
        (home / "metadata/0.npy").write_text("imgs/0 sample_0.png 0 2\n")
    elif what == "binary":
        (home / "metadata/0.npy").write_bytes(b"\x93NUMPY\x01")
    elif what == "empty":
        (home / "metadata/0.npy").write_text("")


@pytest.mark.parametrize(
    ("what", "options", "error", "text"),
    [
        ("missing", {}, FileNotFoundError, "sample_4.png is in the metadata and missing"),
        ("label", {}, ValueError, "line 1 is 'imgs/0 sample_0.png 0 2', not folder"),
        ("binary", {}, ValueError, "0.npy: not the metadata"),
        ("empty", {}, ValueError, "0.npy: no lines"),
        ("", {"contour_length": 9}, FileNotFoundError, "no pathfinder32/curv_contour_length_9/metadata"),
        ("", {"contour_length": 8}, ValueError, "6, 9 or 14, got 8"),
        ("", {"resolution": 128}, FileNotFoundError, "no pathfinder128/curv_contour_length_14"),
        ("", {"rows": 40}, ValueError, "rows=40 and distractors=None"),
        ("", {"generated": True}, ValueError, "drop one"),
    ],
)
def test_a_wrong_release_is_an_error_of_one_line_and_leaves_nothing(tmp_path, what, options, error, text) -> None:
    release(tmp_path / LEVEL, lines(0, 1))
    spoil(tmp_path, what)
    with pytest.raises(error, match=re.escape(text)) as caught:
        pathfinder(tmp_path, batch_size=4, **options)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "dataset").rglob("*.npy"))


def test_images_of_another_size_are_an_error(tmp_path) -> None:
    release(tmp_path / LEVEL, lines(0), size=16)
    with pytest.raises(ValueError, match=r"\(16, 16\) pixels, data.resolution is 32"):
        pathfinder(tmp_path, batch_size=4)


def test_the_packed_archive_and_a_missing_pillow_say_what_to_do(tmp_path, monkeypatch) -> None:
    (tmp_path / "lra_release.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="unpack it"):
        pathfinder(tmp_path / "lra_release.gz")
    release(tmp_path / LEVEL, lines(0))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="extra `data`"):
        pathfinder(tmp_path, batch_size=4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resolution": 64}, "resolution must be 32 or 128, got 64"),
        ({"rows": 30}, "multiple of 20, so that each part can be halved, got 30"),
        ({"rows": 0}, "got 0"),
        ({"contour_length": 1, "rows": 20}, "got 1, 5 and 0"),
        ({"distractors": -1, "rows": 20}, "got 14, -1 and 0"),
        ({"contour_length": 40, "rows": 20}, "make contour_length smaller"),
    ],
)
def test_images_that_cannot_be_drawn_are_an_error(options, text) -> None:
    with pytest.raises(ValueError, match=text):
        pathfinder(**options)


def test_pieces_are_stored_as_they_come_and_counted() -> None:
    parts = [np.arange(6).reshape(3, 2), np.arange(6, 10).reshape(2, 2)]
    found = cached("p", {}, lambda: {"x": Pieces((5, 2), np.int16, iter(parts))})["x"]
    np.testing.assert_array_equal(found, np.arange(10, dtype=np.int16).reshape(5, 2))
    with pytest.raises(ValueError, match=r"10 numbers came for the shape \(6, 2\)"):
        cached("q", {}, lambda: {"x": Pieces((6, 2), np.int16, iter(parts))})
    assert [path.name.split("-")[0] for path in (Path("dataset/cache")).iterdir()] == ["p"]
