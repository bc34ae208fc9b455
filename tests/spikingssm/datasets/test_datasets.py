"""Data modules: what is drawn, from where, and what a wrong file says."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger

from spikingssm.datasets import Batch, EpochSampler, Rows, SequenceData, arrays, digits, mnist, read_idx
from spikingssm.datasets.images import FILES


def small(rows: int = 40, **options) -> SequenceData:
    x = np.arange(rows * 6, dtype=np.float32).reshape(rows, 3, 2)
    return SequenceData("small", Rows(x, np.arange(rows) % 4), Rows(x[:8], np.zeros(8, int)), d_output=4, **options)


def first_values(loader) -> list[float]:
    return [value for batch in loader for value in batch.x[:, 0, 0].tolist()]


def test_digits_are_sequences_of_64_steps() -> None:
    data = digits(batch_size=16)
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, Batch)
    assert batch.x.shape == (16, 64, 1)
    assert (batch.x.dtype, batch.y.dtype, batch.lengths) == (torch.float32, torch.int64, None)
    assert (data.d_input, data.d_output, data.length) == (1, 10, 64)
    x = torch.cat([b.x for b in data.test_dataloader()])
    assert (x.min(), x.max()) == (0, 1)
    facts = data.facts()
    assert facts["size"] == "full"
    assert facts["train"] + facts["val"] + facts["test"] == 1797


def test_the_parts_of_digits_are_disjoint_and_the_test_part_is_fixed() -> None:
    one, other = digits(seed=1, batch_size=1), digits(seed=2, batch_size=1)
    assert set(one.train_rows.tolist()) & set(one.val_rows.tolist()) == set()
    assert len(one.train_rows) + len(one.val_rows) == len(one.train_set)
    assert one.val_rows.tolist() != other.val_rows.tolist()
    assert torch.equal(*(torch.cat([b.x for b in d.test_dataloader()]) for d in (one, other)))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    """Guards defect 20: the order was not seeded."""
    loaders = [small(batch_size=5, seed=3).train_dataloader() for _ in range(2)]
    epochs = [first_values(loaders[0]) for _ in range(2)]
    assert epochs[0] == epochs[1] == first_values(loaders[1])
    loaders[0].sampler.set_epoch(7)
    seventh = first_values(loaders[0])
    assert seventh != epochs[0]
    assert sorted(seventh) != seventh
    fresh = EpochSampler(torch.arange(36), 3)
    fresh.set_epoch(7)
    assert sorted(fresh) == list(range(36))
    assert first_values(small(batch_size=5, seed=4).train_dataloader()) != epochs[0]


def test_train_drops_the_ragged_batch_and_evaluation_does_not() -> None:
    data = small(rows=43, batch_size=8)
    assert [len(b.x) for b in data.train_dataloader()] == [8] * 4
    assert sum(len(b.x) for b in data.val_dataloader()) == 4
    assert sum(len(b.x) for b in data.test_dataloader()) == 8


def test_limits_are_reported_as_a_subset() -> None:
    whole, part = small(batch_size=4, seed=5), small(batch_size=4, seed=5, limit_train=12, limit_eval=3)
    assert whole.facts()["size"] == "full"
    assert part.facts()["size"] == "subset"
    assert part.train_rows.tolist() == whole.train_rows.tolist()[:12]
    assert (len(part.val_rows), len(part.test_rows)) == (3, 3)
    assert small(batch_size=4, full=False).facts()["size"] == "subset"


def test_workers_lengths_and_own_validation_rows() -> None:
    x, y = torch.zeros(6, 4, 1), torch.zeros(6, 4, dtype=torch.long)
    rows = Rows(x, y, torch.tensor([4, 3, 2, 1, 4, 4]))
    data = SequenceData("own", rows, rows, val=rows, d_output=2, batch_size=3, num_workers=1)
    batches = list(data.val_dataloader())
    assert torch.equal(torch.cat([b.lengths for b in batches]), rows.lengths)
    assert len(data.train_rows) == len(data.val_rows) == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 37}, "36 training rows, got 37"),
        ({"val_fraction": 0.0}, "both sides of 40, got 0.0"),
        ({"limit_train": 0}, "at least 1 or null"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_options_out_of_range(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        small(**options)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, train: int = 30, test: int = 10, packed: bool = True) -> None:
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name in FILES:
        n = train if name.startswith("train") else test
        array = random.integers(0, 256, (n, 28, 28)) if "images" in name else np.arange(n) % 10
        path = root / (name if packed else name.removesuffix(".gz"))
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))


@pytest.mark.parametrize(("folder", "packed"), [("", True), ("MNIST/raw", False), ("raw", True)])
def test_mnist_is_found_where_people_keep_it(tmp_path, folder, packed) -> None:
    write_mnist(tmp_path / folder, packed=packed)
    data = mnist(tmp_path, batch_size=4)
    batch = next(iter(data.test_dataloader()))
    assert batch.x.shape == (4, 784, 1)
    assert batch.y.tolist() == [0, 1, 2, 3]
    assert batch.x.max() <= 1
    assert data.facts()["size"] == "other"


def test_a_limit_of_rows_sorted_by_class_meets_every_class_and_is_fixed() -> None:
    x, y = np.zeros((200, 3, 1), np.float32), np.arange(200) // 20
    halves = [SequenceData("sorted", Rows(x, y), Rows(x, y), d_output=10, limit_eval=60, seed=s) for s in (0, 1)]
    for data in halves:
        assert len(data.test_rows) == 60
        assert data.test_rows.tolist() == sorted({*data.test_rows.tolist()})
        assert set(y[data.test_rows]) == set(range(10))
    assert torch.equal(halves[0].test_rows, halves[1].test_rows)


def test_idx_round_trip_and_damage(tmp_path) -> None:
    array = np.random.default_rng(1).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    path = tmp_path / "a"
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(path), array)
    whole = gzip.compress(idx(array))
    damaged = {
        "damaged gzip": whole[:-9],
        "60 bytes, and 59 follow": idx(array)[:-1],
        "60 bytes, and 61 follow": idx(array) + b"x",
        "starts with 504b0304": b"PK\x03\x04 a zip file",
        "starts with nothing": b"",
        "announces 3 axes": idx(array)[:9],
    }
    for says, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=says):
            read_idx(path)


def test_mnist_errors_say_what_to_do(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no train-images.*set data\.root"):
        mnist(tmp_path)
    with pytest.raises(
        ValueError, match=r"permute must be false, none, random, bitreversal or a \.pt or \.npy file, got True"
    ):
        mnist(tmp_path, permute=True)
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(29) % 10))
    with pytest.raises(ValueError, match="30 images and labels of shape"):
        mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(30)))
    with pytest.raises(ValueError, match="the label 10 in row 10, labels are 0 to 9"):
        mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((30, 27, 28))))
    with pytest.raises(ValueError, match="not \\(N, 28, 28\\)"):
        mnist(tmp_path)


def test_a_failed_download_names_the_way_out(tmp_path, monkeypatch) -> None:
    import requests

    def refuse(*args, **options):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(OSError, match=r"could not download .*ossci.*data\.root=FOLDER"):
        mnist()


def npz(path: Path, **arrays_) -> Path:
    np.savez(path, **arrays_)
    return path


X = np.random.default_rng(2).normal(size=(30, 7, 2)).astype(np.float32)
Y = np.arange(30) % 3


def test_arrays_from_one_file_two_files_or_carved(tmp_path) -> None:
    one = npz(tmp_path / "one.npz", x=X, y=Y, x_test=X[:5], y_test=Y[:5])
    two = npz(tmp_path / "two.npz", x=X[:6], y=Y[:6])
    assert (arrays(one, batch_size=4).facts()["test"], arrays(one, two, batch_size=4).facts()["test"]) == (5, 6)
    carved = arrays(two, test_fraction=0.34, batch_size=1, val_fraction=0.25)
    assert (carved.facts()["train"], carved.facts()["val"], carved.facts()["test"]) == (3, 1, 2)
    assert (carved.d_input, carved.d_output, carved.length, carved.name) == (2, 3, 7, "two")
    steps = npz(tmp_path / "steps.npz", x=X, y=np.where(X[..., 0] > 0, 1, -100), lengths=np.full(30, 5))
    batch = next(iter(arrays(steps, classes=2, batch_size=4).train_dataloader()))
    assert batch.y.shape == (4, 7)
    assert batch.lengths.tolist() == [5] * 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"x": X}, "no array named y; it holds x: write"),
        ({"data": X, "labels": Y}, "no array named x and y; it holds data, labels: write"),
        ({"x": X, "y": Y[:7]}, r"got \(7,\); if x is \(L, N, C\).* save x.transpose\(1, 0, 2\), 7 rows of 30 steps"),
        ({"x": X, "y": Y[:, None]}, r"got \(30, 1\); one column is y\[:, 0\]"),
        ({"x": X, "y": np.eye(3, dtype=int)[Y]}, r"got \(30, 3\); of one-hot rows save y.argmax\(1\)"),
        ({"x": X, "y": np.eye(3)[Y]}, r"got float64; of one-hot rows save y.argmax\(1\)"),
        ({"x": X[:, :, 0], "y": Y}, r"x must be \(N, L, C\), got \(30, 7\)"),
        ({"x": X.astype(complex), "y": Y}, "real numbers, got dtype complex128"),
        ({"x": X, "y": Y.astype(float)}, "integer labels or names, got float64"),
        ({"x": X, "y": Y[:9]}, r"y must be \(30,\) or \(30, 7\) for this x, got \(9,\)"),
        ({"x": np.where(X[4, 2, 1] == X, np.nan, X), "y": Y}, "NaN or infinity, first in row 4"),
        ({"x": X, "y": Y - 1}, "labels from -1 to 1"),
        ({"x": X, "y": Y, "lengths": np.full(30, 8)}, r"lengths must be \(30,\) integers from 1 to 7"),
        ({"x": X, "y": Y, "x_test": X}, "no array named y_test"),
        ({"x": np.array([object()]), "y": Y}, "their lengths too\\); write it with np.savez"),
    ],
)
def test_arrays_say_what_does_not_fit(tmp_path, content, says) -> None:
    with pytest.raises(ValueError, match=says):
        arrays(npz(tmp_path / "a.npz", **content), batch_size=4)


def test_arrays_refuse_other_files(tmp_path) -> None:
    with pytest.raises(ValueError, match="no file given"):
        arrays()
    with pytest.raises(FileNotFoundError, match="no such file"):
        arrays(tmp_path / "none.npz")
    np.save(tmp_path / "bare.npy", X)
    for data in ((tmp_path / "bare.npy").read_bytes(), b"text", b"PK\x03\x04", b""):
        (tmp_path / "b.npz").write_bytes(data)
        with pytest.raises(ValueError, match=r"not an \.npz file"):
            arrays(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="labels from 0 to 2, 2 classes take 0 to 1"):
        arrays(npz(tmp_path / "c.npz", x=X, y=Y), classes=2, batch_size=4)


def test_numbers_of_other_machines_are_converted(tmp_path) -> None:
    """Guards what testers met: files from FITS, MATLAB and Fortran ended in torch's error without the file's name."""
    kinds = [">f4", ">f8", np.longdouble, np.float16, ">i2", ">i8", np.uint16, np.uint32, np.uint64, bool, np.int8]
    for kind in kinds:
        x = (10 * np.abs(X)).astype(kind)
        data = arrays(npz(tmp_path / "a.npz", x=x, y=Y.astype(">i8"), lengths=np.full(30, 5, ">u2")), batch_size=4)
        batch = data.train_set[0]
        assert batch.x.dtype == torch.float32
        stored = np.concatenate([data.train_set.rows.x, data.test_set.rows.x]).astype(np.float64)
        assert sorted(stored.ravel().tolist()) == sorted(x.astype(np.float64).ravel().tolist()), kind
    with pytest.raises(ValueError, match=r"a\.npz: x holds numbers that 64 bits cannot hold"):
        arrays(npz(tmp_path / "a.npz", x=np.longdouble("1e400") * np.ones((30, 7, 2), np.longdouble), y=Y))


def test_labels_that_no_training_row_shows_are_named(tmp_path) -> None:
    told = []
    handler = logger.add(told.append, format="{message}")
    arrays(npz(tmp_path / "a.npz", x=X, y=10 * Y, x_test=X[:3], y_test=np.array([0, 5, 10])), batch_size=4)
    arrays(npz(tmp_path / "b.npz", x=X, y=Y), batch_size=4)
    logger.remove(handler)
    assert len(told) == 1
    assert "no training row has the label 1, 2, 3, 4, 5, 6, ... (18 of 20), and 1 test labels are among them" in told[0]


def test_one_class_alone_is_refused_with_the_file(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"a\.npz: every label is 0, a network needs two classes or more"):
        arrays(npz(tmp_path / "a.npz", x=X, y=0 * Y))
    assert arrays(npz(tmp_path / "a.npz", x=X, y=0 * Y), classes=2, batch_size=4).d_output == 2


def test_a_label_that_is_none_is_named_with_its_row(tmp_path) -> None:
    for value, says in (
        (10**12, r"a\.npz: y holds the label 1000000000000 in row 7, which is no number of a class"),
        (-(10**12), r"y holds the label -1000000000000 in row 7"),
        (100_000, r"train has the label 100000 in row \d+, which would be 100001 classes for 27 labels"),
        (-3, r"labels from -3 to 2, 3 classes take 0 to 2 \(row \d+ has -3\)"),
    ):
        y = Y.copy()
        y[7] = value
        with pytest.raises(ValueError, match=says):
            arrays(npz(tmp_path / "a.npz", x=X, y=y))
    steps = np.where(X[..., 0] > 0, 1, -100)
    steps[7, 3] = 5
    with pytest.raises(ValueError, match=r"labels from 1 to 5, 2 classes take 0 to 1 \(row \d+ has 5\)"):
        arrays(npz(tmp_path / "a.npz", x=X, y=steps), classes=2)


def test_other_kinds_of_files_say_how_to_convert(tmp_path) -> None:
    for name, says in {
        "a.mat": "scipy.io.loadmat",
        "a.h5": "h5py.File",
        "a.npy": "np.load",
    }.items():
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError, match=rf"{name}: data.path takes \.npz and .* convert it, e.g. .*{says}"):
            arrays(tmp_path / name)


def test_bytes_are_left_as_they_are_and_it_is_said(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 7, 2)).astype(np.uint8)
    path, said = npz(tmp_path / "a.npz", x=pixels, y=Y), []
    handler = logger.add(said.append, level="WARNING", format="{message}")
    try:
        plain, scaled = arrays(path, batch_size=4), arrays(path, scale=1 / 255, batch_size=4)
        arrays(npz(tmp_path / "b.npz", x=pixels > 9, y=Y), batch_size=4)
        arrays(npz(tmp_path / "b.npz", x=(pixels > 9).astype(np.uint8), y=Y), batch_size=4)
    finally:
        logger.remove(handler)
    assert [line.count("set data.scale=0.0039215") for line in said] == [1], "once, and not for spikes of 0 and 1"
    assert torch.allclose(plain.train_set[0].x / 255, scaled.train_set[0].x)
    assert (plain.facts()["scale"], scaled.facts()["scale"]) == (1.0, 1 / 255)
    for wrong in (0, -1, float("nan"), float("inf"), "x"):
        with pytest.raises(ValueError, match="scale must be a number > 0"):
            arrays(path, scale=wrong)
    with pytest.raises(ValueError, match="x for training holds uint8 and x for testing float32"):
        arrays(path, npz(tmp_path / "c.npz", x=X, y=Y))


def test_empty_axes_and_wrong_classes_are_refused(tmp_path) -> None:
    for shape in ((0, 7, 2), (30, 0, 2), (30, 7, 0)):
        with pytest.raises(ValueError, match="each is at least 1"):
            arrays(npz(tmp_path / "a.npz", x=np.zeros(shape), y=np.zeros(shape[0], int)))
    for classes in ("x", 1.5, 0, -1):
        with pytest.raises(ValueError, match="classes must be an integer >= 2"):
            arrays(npz(tmp_path / "a.npz", x=X, y=Y), classes=classes)


def test_labels_of_any_data_set_are_looked_at_when_it_is_made() -> None:
    x, y = torch.zeros(6, 4, 1), torch.arange(6) % 2
    for rows, says in (
        (Rows(x, torch.tensor([0, 1, 5, 0, 1, 0])), "own: train has the label 5 in row 2, 2 classes take 0 to 1"),
        (Rows(x, np.array([0, 1, 0, -3, 1, 0])), "own: train has the label -3 in row 3"),
        (Rows(x, np.array([0, 1, 0, -100, 1, 0])), "own: train has the label -100 in row 3"),
        (Rows(x, torch.tensor([[0, 1, -100, 7]] * 6)), "own: train has the label 7 in row 0, step 3"),
    ):
        with pytest.raises(ValueError, match=says):
            SequenceData("own", rows, Rows(x, y), d_output=2)
    with pytest.raises(ValueError, match="own: val has the label 2 in row 1"):
        SequenceData("own", Rows(x, y), Rows(x, y), Rows(x, y + torch.tensor([0, 1, 0, 0, 0, 0])), d_output=2)
    SequenceData("own", Rows(x, torch.tensor([[0, 1, -100, 1]] * 6)), Rows(x, y), d_output=2, batch_size=2)
