"""Published files are known by their checksum: other files in the same form are not reported under their name."""

import gzip
import hashlib

import numpy as np
import pytest
from loguru import logger
from scipy.io import savemat
from test_datasets import idx, write_mnist
from test_ecg import content as ecg_content

from spikingssm.datasets import cifar, ecg, images, known, mnist


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What is logged as a warning, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(known, "_SAID", set())
    lines = []
    handler = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(handler)


def as_published(folder, monkeypatch, packed):
    """Take the files there for the published ones."""
    for name in images.FILES:
        path = folder / (name if packed else name.removesuffix(".gz"))
        table = images.FILES if packed else images.UNPACKED
        monkeypatch.setitem(table, name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("packed", [True, False])
def test_other_images_in_the_form_of_mnist_are_not_called_mnist(tmp_path, monkeypatch, said, packed) -> None:
    """Guards what testers met: Fashion-MNIST was reported as `mnist`, tested on the official test set."""
    write_mnist(tmp_path, 60, 20, packed=packed)
    for _ in range(2):
        facts = mnist(tmp_path, batch_size=4).facts()
    assert (facts["name"], facts["size"]) == ("mnist-like", "other")
    assert facts["split"].startswith("test: as in the files given, which are not the published ones; ")
    assert len(said) == 1, "once"
    assert "train-images-idx3-ubyte" in said[0]
    as_published(tmp_path, monkeypatch, packed)
    facts = mnist(tmp_path, batch_size=4).facts()
    assert (facts["name"], facts["size"]) == ("mnist", "subset")
    assert facts["split"].startswith("test: the official one; ")
    assert len(said) == 1


def test_one_file_of_four_is_enough_to_be_another_data_set(tmp_path, monkeypatch, said) -> None:
    write_mnist(tmp_path, 60, 20)
    as_published(tmp_path, monkeypatch, True)
    assert mnist(tmp_path, batch_size=4).name == "mnist"
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((np.arange(20) + 1) % 10)))
    assert mnist(tmp_path, batch_size=4).name == "mnist-like"
    assert "t10k-labels-idx1-ubyte.gz" in said[0]


def test_the_sums_of_unpacked_files_are_those_of_the_packed_ones() -> None:
    assert images.UNPACKED.keys() == images.FILES.keys()
    assert len({*images.UNPACKED.values(), *images.FILES.values()}) == 8


def test_a_changed_file_is_hashed_again(tmp_path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    assert known.is_published(path, digest)
    assert known.is_published(path, ("md5:" + "0" * 32, digest))
    assert known.is_published(path, f"md5:{hashlib.md5(b'one').hexdigest()}")
    path.write_bytes(b"other")
    assert not known.is_published(path, digest)


def test_ecg_and_cifar_are_compared_too(tmp_path, said) -> None:
    savemat(tmp_path / "QTDB_train.mat", ecg_content(8, 0))
    savemat(tmp_path / "QTDB_test.mat", ecg_content(3, 1))
    facts = ecg(tmp_path, batch_size=2).facts()
    assert (facts["name"], facts["size"]) == ("ecg-like", "other")
    assert facts["split"].startswith("test: as in the files given")
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", x=np.zeros((6, 1024, 1), np.uint8), y=np.arange(6) % 10)
    facts = cifar(tmp_path, batch_size=2).facts()
    assert (facts["name"], facts["size"]) == ("cifar-like", "other")
    assert "the official one" not in facts["split"]
    assert len(said) == 2
