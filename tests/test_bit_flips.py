"""Every single flipped bit in a file of our own is refused: 200 of 200 in each, drawn anew by a fixed seed."""

import random

import pytest
import torch
from test_network import lively_sdn

import sdn
from sdn.runs import load_checkpoint
from sdn.tensor_files import save_tensors
from spikingssm import RSNN
from spikingssm.checkpoints import rsnn_from_pt, rsnn_to_pt

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
    from sdn.surrogate.reduction import shipped_artifacts

    path = folder / "net.safetensors"
    path.write_bytes(shipped_artifacts()[0].read_bytes())
    return path, sdn.load_artifact


@pytest.mark.parametrize("make", [trajectory, checkpoint, published, artifact, shipped], ids=lambda make: make.__name__)
def test_every_flipped_bit_is_refused(tmp_path, make) -> None:
    path, read = make(tmp_path)
    whole, draw = path.read_bytes(), random.Random(2026)
    read(path)
    accepted, said = [], []
    for bit in draw.sample(range(8 * len(whole)), FLIPS):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read(path)
            accepted.append(bit)
        except ValueError as error:
            said.append(str(error))
    assert not accepted
    assert all(str(path) in text and "\n" not in text for text in said)
