"""Every single flipped bit in a file of our own is refused: 200 of 200 in each, drawn anew by a fixed seed."""

import gzip
import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from fuzz.packing import as_tar
from test_network import lively_sdn

import sdn
from sdn.runs.folder import load_checkpoint
from sdn.runs.tensor_files import save_tensors
from spikingssm import RSNN
from spikingssm.datasets import cifar, imdb
from spikingssm.published.brf import rsnn_from_pt, rsnn_to_pt

FLIPS = 200


def trajectory(folder):
    path = folder / "data.pt"
    sdn.save_trajectories(path, sdn.generate(sdn.LIF(0.3), 20, 64, seed=5), sdn.LIF(0.3), mean=0, std=1, seed=5)
    return path, sdn.load_trajectories


def checkpoint(folder):
    state = {"w": torch.randn(40, 40), "b": torch.zeros(9, dtype=torch.int64)}
    save_tensors(folder / "last.ckpt", {"epoch": 3, "state_dict": state, "callbacks": {"a": {"path": "x/y"}}})
    return folder / "last.ckpt", load_checkpoint


def published(folder):
    dynamics = sdn.BRF(omega=10.0, b_offset=1.0, dt=0.01)
    model = RSNN(3, 4, 8, dynamics=dynamics, learn={"omega": None, "b_offset": None}, solver="loop", pool="each")
    rsnn_to_pt(folder / "net.pt", model)
    return folder / "net.pt", lambda path: rsnn_from_pt(path, "brf")


def artifact(folder):
    path = folder / "net.safetensors"
    sdn.save_artifact(path, sdn.reduce(lively_sdn()), sdn.LIF(0.125), {"agreement": 0.9}, command="python train.py")
    return path, sdn.load_artifact


def shipped(folder):
    from sdn.surrogate.artifact import shipped_artifacts

    path = folder / "net.safetensors"
    path.write_bytes(shipped_artifacts()[0].read_bytes())
    return path, sdn.load_artifact


def archive(path, files):
    """A .tar.gz without the name of the file in its header, which no checksum covers."""
    as_tar(path, "gz", files)
    return path


def pixels(folder):
    draw = np.random.default_rng(0)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    batch = lambda: {b"labels": [3, 1, 2], b"data": draw.integers(0, 256, (3, 3072)).astype(np.uint8)}  # noqa: E731
    files = {f"cifar-10-batches-py/{name}": pickle.dumps(batch(), 2) for name in names}
    return archive(folder / "cifar-10-python.tar.gz", files), lambda path: cifar(path, batch_size=2)


def letters(folder):
    draw = np.random.default_rng(0)
    places = itertools.product(("train", "test"), (("pos", 9), ("neg", 2)), range(5))
    files = {
        f"aclImdb/{part}/{kind}/{n}_{stars}.txt": bytes(draw.integers(97, 123, 300).astype(np.uint8))
        for part, (kind, stars), n in places
    }
    return archive(folder / "aclImdb_v1.tar.gz", files), lambda path: imdb(path, length=300, batch_size=2)


MAKERS = [trajectory, checkpoint, published, artifact, shipped, pixels, letters]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_every_flipped_bit_is_refused(tmp_path, monkeypatch, make) -> None:
    monkeypatch.chdir(tmp_path)
    path, read = make(tmp_path)
    whole, draw = path.read_bytes(), random.Random(2026)
    first = 80 if path.suffix == ".gz" else 0  # the header of gzip holds a time, and nothing that could be compared
    read(path)
    accepted, said = [], []
    for bit in draw.sample(range(first, 8 * len(whole)), FLIPS):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read(path)
            if path.suffix != ".gz" or gzip.decompress(damaged) != gzip.decompress(whole):
                accepted.append(bit)  # deflate has bits that change nothing: the code of a byte that does not occur
        except ValueError as error:
            said.append(str(error))
    assert not accepted
    assert len(said) >= FLIPS - 2
    assert all(str(path) in text and "\n" not in text for text in said)
