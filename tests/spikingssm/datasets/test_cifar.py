"""Sequential CIFAR-10: the layouts it is read from, grey and colour, and what is refused."""

import io
import os
import pickle
import struct
import sys
import tarfile

import numpy as np
import pytest
import requests
import torch

from spikingssm.datasets.cifar import cifar, read_batch, to_grey

module = sys.modules["spikingssm.datasets.cifar"]  # the package has a function of that name


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def images(rows: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Planes (N, 3072) and labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (rows, 3072)).astype(np.uint8), random.integers(0, 10, rows).tolist()


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """The batch as Python 2 pickled it for the release: byte strings, and NumPy's old module names."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    array += (
        b"(" + number(1) + number(len(data)) + number(3072) + b"\x86" + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    )
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def python3_batch(data: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({b"data": data, b"labels": labels, b"batch_label": b"one"}, protocol=2)


def write_batches(folder, batches: int = 5, rows: int = 6, write=python3_batch) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate([*module.TRAIN[:batches], "test_batch"]):
        (folder / name).write_bytes(write(*images(rows, seed)))


def stored(data) -> torch.Tensor:
    """The training pixels as read, (N, 1024, C)."""
    return torch.as_tensor(np.array(data.train_set.rows.x))


@pytest.mark.parametrize("write", [python2_batch, python3_batch])
def test_a_batch_of_either_python_holds_its_pixels_channel_by_channel(write) -> None:
    data, labels = images(3, 0)
    rows = read_batch(write(data, labels), "batch")
    assert rows.y.tolist() == labels
    assert rows.x.shape == (3, 1024, 3)
    for pixel in (0, 31, 32, 1023):
        assert rows.x[2, pixel].tolist() == [data[2, channel * 1024 + pixel] for channel in range(3)]


def test_grey_is_pillows() -> None:
    image = pytest.importorskip("PIL.Image")
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    colours[0, :2] = [[0, 0, 0], [255, 255, 255]]
    np.testing.assert_array_equal(to_grey(colours)[..., 0], np.asarray(image.fromarray(colours).convert("L")))


@pytest.mark.parametrize("above", [True, False])
def test_batches_are_read_in_order_and_scaled_as_published(tmp_path, above) -> None:
    write_batches(tmp_path / "root" / module.FOLDER)
    root = tmp_path / "root" / ("" if above else module.FOLDER)
    colour, grey = cifar(root, grey=False, batch_size=4), cifar(root, batch_size=4)
    planes = np.concatenate([images(6, seed)[0] for seed in range(5)]).reshape(30, 3, 1024)
    np.testing.assert_array_equal(stored(colour), planes.transpose(0, 2, 1))
    assert (colour.d_input, grey.d_input, grey.length, grey.d_output) == (3, 1, 1024, 10)
    batch = next(iter(colour.test_dataloader()))
    first = images(6, 5)[0][:4].reshape(4, 3, 1024) / 255.0
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    expected = np.stack([(first[:, c] - mean[c]) / std[c] for c in range(3)], -1)
    np.testing.assert_allclose(batch.x, expected, atol=1e-5)
    expected = (stored(grey)[:1].double() - 122.6) / 61
    torch.testing.assert_close(grey.train_set.prepare(stored(grey)[:1]).double(), expected, atol=1e-5, rtol=0)
    assert grey.facts()["split"].endswith("pixels: grey")


def test_part_of_the_batches_is_a_subset(tmp_path) -> None:
    write_batches(tmp_path / module.FOLDER, batches=1)
    data = cifar(tmp_path, batch_size=2)
    assert data.facts()["size"] == "other"
    assert len(data.train_rows) + len(data.val_rows) == 6


@pytest.mark.parametrize("missing", [["data_batch_3"], ["data_batch_1"], ["data_batch_2", "data_batch_4"]])
def test_a_gap_among_the_batches_is_an_error(tmp_path, missing) -> None:
    write_batches(tmp_path / module.FOLDER)
    for name in missing:
        (tmp_path / module.FOLDER / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"data_batch_5 is in .* and {missing[0]} is not"):
        cifar(tmp_path)


def test_a_label_that_is_no_class_is_named_with_file_and_row(tmp_path) -> None:
    write_batches(tmp_path / module.FOLDER)
    x, _ = images(3, 0)
    for labels, says in (
        ([0, 10, 2], "data_batch_2: labels must be integers from 0 to 9, got 10 in row 1"),
        ([0, 1, -3], "data_batch_2: labels must be integers from 0 to 9, got -3 in row 2"),
        ([0, 1, 10**12], "got 1000000000000 in row 2"),
        ([0, 1.0, 2], "labels is no list of integers"),
        ([0, True, 2], "labels is no list of integers"),
        ([0, 1, 10**30], "data_batch_2: not a CIFAR-10 batch"),
    ):
        (tmp_path / module.FOLDER / "data_batch_2").write_bytes(python3_batch(x, labels))
        with pytest.raises(ValueError, match=says):
            cifar(tmp_path)


def test_pickles_that_take_memory_are_refused(tmp_path) -> None:
    x, y = images(3, 0)
    bomb = list(y)
    for _ in range(9):
        bomb = [bomb] * 10  # 3 * 10^9 numbers to an array
    with pytest.raises(ValueError, match="labels is no list of integers"):
        read_batch(python3_batch(x, bomb), "batch")
    memo = b"\x80\x02N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b"."  # memo number 2^31: 32 GB in C
    with pytest.raises(ValueError, match="not a CIFAR-10 batch"):
        read_batch(memo, "batch")
    text = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6
    again = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR0"
    with pytest.raises(ValueError, match=r"not a CIFAR-10 batch .*it asks for the encoding"):
        read_batch(b"\x80\x02" + text + b"q\x00" + again * 9 + b".", "batch")


def test_the_archive_is_read_in_place_and_once(tmp_path, monkeypatch) -> None:
    write_batches(tmp_path / "unpacked" / module.FOLDER, write=python2_batch)
    home = tmp_path / "release"
    home.mkdir()
    with tarfile.open(home / module.ARCHIVE, "w:gz") as tar:
        tar.add(tmp_path / "unpacked" / module.FOLDER, module.FOLDER)
    data = cifar(home, grey=False, batch_size=4)
    assert torch.equal(stored(data), stored(cifar(tmp_path / "unpacked", grey=False, batch_size=4)))
    monkeypatch.setattr(module, "read_batch", None)
    assert torch.equal(stored(cifar(home / module.ARCHIVE, grey=False, batch_size=4)), stored(data))


def test_a_damaged_archive_leaves_nothing(tmp_path) -> None:
    write_batches(tmp_path / module.FOLDER, batches=4)
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / module.FOLDER, module.FOLDER)
    with pytest.raises(FileNotFoundError, match=r"no data_batch_5 in .*a\.tar\.gz"):
        cifar(archive)
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match="damaged archive"):
            cifar(archive)
    assert list((tmp_path / "dataset" / "cache").iterdir()) == []


def test_grey_files_are_the_same_images(tmp_path) -> None:
    write_batches(tmp_path / module.FOLDER, batches=1)
    released = cifar(tmp_path, batch_size=2)
    for part, rows in (("train", released.train_set.rows), ("test", released.test_set.rows)):
        np.savez_compressed(tmp_path / f"{part}.npz", x=rows.x, y=rows.y)
    data = cifar(tmp_path, batch_size=2)
    assert torch.equal(stored(data), stored(released))
    with pytest.raises(ValueError, match=r"data\.grey=false, and .* holds grey images"):
        cifar(tmp_path, grey=False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"x": np.zeros((3, 1024, 1), np.uint8)}, "not an .npz file of x and y"),
        (
            {"x": np.zeros((3, 1024), np.uint8), "y": np.arange(3)},
            r"x must be \(N, 1024, 1\) bytes with N > 0, got \(3, 1024\)",
        ),
        ({"x": np.zeros((3, 1024, 1)), "y": np.arange(3)}, "got .* float64"),
        ({"x": np.zeros((3, 1024, 1), np.uint8), "y": np.arange(2)}, r"labels must be \(3,\)"),
        ({"x": np.zeros((3, 1024, 1), np.uint8), "y": np.array([0, 1, 10])}, "integers from 0 to 9"),
    ],
)
def test_grey_files_that_do_not_fit(tmp_path, content, says) -> None:
    np.savez(tmp_path / "train.npz", **content)
    with pytest.raises(ValueError, match=says):
        cifar(tmp_path)


def test_damaged_grey_files_are_named(tmp_path) -> None:
    np.savez_compressed(tmp_path / "train.npz", x=np.zeros((3, 1024, 1), np.uint8), y=np.arange(3))
    whole = (tmp_path / "train.npz").read_bytes()
    for content in (b"", b"PK", whole[:200], whole[:-1], whole[:60] + b"\xff" * 20 + whole[80:]):
        (tmp_path / "train.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.npz: not an \.npz file of x and y"):
            cifar(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no cifar-10-batches-py, .* set data\.root"):
        cifar(tmp_path)
    write_batches(tmp_path / module.FOLDER)
    path = tmp_path / module.FOLDER / "data_batch_3"
    whole = path.read_bytes()
    wrong = python3_batch(images(3, 0)[0][:, :100], [0, 1, 2])
    for content in (whole[:-100], b"", b"text", pickle.dumps({}), pickle.dumps([]), wrong):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"data_batch_3: (not a CIFAR-10 batch|data must be \(N, 3072\))"):
            cifar(tmp_path)
    path.write_bytes(python3_batch(*images(3, 0)).replace(b"labels", b"lebals"))
    with pytest.raises(ValueError, match="data_batch_3: not a CIFAR-10 batch \\('labels'\\)"):
        cifar(tmp_path)
    path.write_bytes(whole)
    (tmp_path / module.FOLDER / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match="no test_batch in"):
        cifar(tmp_path)
    (tmp_path / "test.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(FileNotFoundError, match=r"no train\.npz"):
        cifar(tmp_path)


class _Command:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_batch_cannot_run_code(tmp_path) -> None:
    harm = pickle.dumps({"data": _Command(tmp_path / "harm"), "labels": []})
    with pytest.raises(ValueError, match=r"it asks for posix\.mkdir|it asks for nt\.mkdir"):
        read_batch(harm, "batch")
    encoded = pickle.dumps({b"data": 1}, protocol=2).replace(b"latin1", b"rot-13")
    assert b"rot-13" in encoded
    with pytest.raises(ValueError, match="it asks for the encoding 'rot-13'"):
        read_batch(encoded, "batch")
    assert not (tmp_path / "harm").exists()
    assert pickle.load(io.BytesIO(harm))["data"] is None  # the same bytes do run code elsewhere
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("grey", [True, False])
def test_the_stand_in_has_the_shape_of_the_data(grey) -> None:
    facts = cifar(generated=True, grey=grey).facts()
    assert (facts["size"], facts["length"], facts["d_input"], facts["d_output"]) == (
        "generated",
        1024,
        1 + 2 * (not grey),
        10,
    )
    with pytest.raises(ValueError, match="both set; drop one"):
        cifar("somewhere", generated=True)


def test_a_failed_download_names_the_way_out(tmp_path, monkeypatch) -> None:
    def refuse(*args, **options):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(
        OSError, match=r"could not download .*www\.cs\.toronto\.edu/~kriz/cifar-10-python\.tar\.gz .*data\.root=FOLDER"
    ):
        cifar()
