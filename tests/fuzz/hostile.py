"""Pickles that run code, or take memory, in every file in which a pickle may stand."""

import io
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sdn
from fuzz.engine import Format
from sdn.runs.folder import load_checkpoint
from spikingssm import datasets
from spikingssm.datasets.images import _order
from spikingssm.published.brf import rsnn_from_pt
from spikingssm.published.s5rf import s5rf_from_npz

__all__ = ["FORMATS"]


class Gadget:
    """Calls something when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


def gadget(draw: random.Random, canary: Path) -> Any:
    """Something whose unpickling writes the canary, or takes memory."""
    touch = f"open({str(canary)!r}, 'w').close()"
    return draw.choice([
        Gadget(open, str(canary), "w"), Gadget(eval, touch), Gadget(exec, touch), Gadget(os.system, f"touch {canary}"),
        Gadget(os.mkdir, str(canary)), Gadget(bytearray, 10**11), Gadget(torch.Tensor, 10**10),
        Gadget(np.zeros, 10**10), Gadget(getattr, Gadget(open, str(canary), "w"), "close"),
        Gadget(torch.load, str(canary)),
        [Gadget(exec, touch)] * 3, {"state_dict": Gadget(exec, touch)}, (Gadget(eval, touch), 1),
    ])  # fmt: skip


def _raw(draw: random.Random) -> bytes:
    """Opcodes by hand."""
    codes = [
        b"\x80\x02cposix\nsystem\n(X\x05\x00\x00\x00touchtR.",
        b"cos\nsystem\n(S'touch CANARY'\ntR.",
        b"\x80\x02h\x05.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02(" + b"(" * 10_000 + b".",
        b"\x80\x02]" + b"]a" * 50 + b".",
        b"\x80\x02" + b"\x8d" + b"\xff" * 8 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02}(K\x01K\x02u" + b"0" * 20 + b".",
        b"(lp0\n" * 500 + b".",
        b"\x80\x02\x82\x01.",
        b"\x80\x02P1\n.",
        b"\x80\x02(i" + b"posix\nsystem\n.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"I" + b"9" * 5000 + b"\n.",
    ]
    return draw.choice(codes)


def _torch_zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/data/0", bytes(64))


def _plant(draw: random.Random, folder: Path) -> None:
    """Put a hostile pickle into one of the files."""
    canary = folder.parent.parent / "CANARY"
    data = pickle.dumps(gadget(draw, canary), draw.choice([0, 2, 4, 5])) if draw.random() < 0.7 else _raw(draw)
    name = (folder / "which").read_text()
    path = folder / name
    if name == "net.pt" or name == "best.ckpt" or name == "data.pt" or name == "order.pt":
        way = draw.choice(["zip", "bare", "tar", "legacy"])
        if way == "zip":
            _torch_zip(path, data)
        elif way == "bare":
            path.write_bytes(data)
        elif way == "tar":
            with tarfile.open(path, "w") as tar:
                for member in ("sys_info", "pickle", "storages", "tensors"):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        else:
            torch.save({"a": gadget(draw, canary)}, path, _use_new_zipfile_serialization=draw.random() < 0.5)
    elif name.endswith(".npz"):
        with zipfile.ZipFile(path, "w") as archive:
            for key in ("x", "y", "layers.0.omega", "../../escape"):
                out = io.BytesIO()
                np.lib.format.write_array(out, np.array([gadget(draw, canary)], object), allow_pickle=True)
                archive.writestr(f"{key}.npy", out.getvalue() if draw.random() < 0.6 else data)
    elif name.endswith(".npy"):
        np.save(path, np.array([gadget(draw, canary)] * 784, object), allow_pickle=True)
    else:
        (folder / "cifar-10-batches-py").mkdir(exist_ok=True)
        for part in ("data_batch_1", "test_batch"):
            (folder / "cifar-10-batches-py" / part).write_bytes(data)


def _place(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "which").write_text(name) and None


def _reader(read: Callable[[], Any]) -> Callable[[], Any]:
    """The whole input is a folder without the file: it is told apart by what is refused."""

    def reading() -> Any:
        if len(list(Path().iterdir())) == 1:
            return "whole"
        return str(type(read()))

    return reading


READERS: dict[str, Callable[[], Any]] = {
    "data.pt": lambda: sdn.load_trajectories("data.pt"),
    "best.ckpt": lambda: load_checkpoint("best.ckpt"),
    "net.pt": lambda: rsnn_from_pt("net.pt", "brf"),
    "order.pt": lambda: _order("order.pt", 0),
    "order.npy": lambda: _order("order.npy", 0),
    "a.npz": lambda: datasets.arrays("a.npz"),
    "net.npz": lambda: s5rf_from_npz("net.npz"),
    "cifar": lambda: datasets.cifar("."),
}
FORMATS = [
    Format(f"pickle in {name}", _place(name), _reader(read), edits=[_plant], share=0.6)
    for name, read in READERS.items()
]
