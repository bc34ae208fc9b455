"""Files of tensors: sealed when written, and read without believing a byte of them."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from sdn.runs.seals import MARK
from sdn.runs.tensor_files import Damaged, digest, load_tensors, save_tensors

CONTENT = {"a": torch.arange(1000.0), "b": [1, 2.5, "word", None, (True, {"c": torch.tensor([1 + 2j])})]}


@pytest.fixture
def path(tmp_path):
    save_tensors(tmp_path / "x.pt", CONTENT)
    return tmp_path / "x.pt"


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def refused(path, says="."):
    with pytest.raises(Damaged, match=says) as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)


def test_what_is_written_is_read_by_us_by_torch_and_by_zip_tools(path):
    for mmap in (False, True):
        assert same(load_tensors(path, mmap=mmap), CONTENT)
        assert same(torch.load(path, mmap=mmap, weights_only=True), CONTENT)
    assert zipfile.ZipFile(path).testzip() is None
    assert zipfile.ZipFile(path).comment.startswith(MARK)
    assert [p.name for p in path.parent.iterdir()] == ["x.pt"]


def test_files_of_torch_itself_are_read_too(path):
    torch.save(CONTENT, path)
    assert same(load_tensors(path), CONTENT)


def test_one_more_byte_or_one_less_is_refused(path):
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"\0", b"\0" + whole, whole[1:], whole[: len(whole) // 2], b"", b"PK\x03\x04"):
        path.write_bytes(data)
        refused(path)
    torch.save(CONTENT, path)
    plain = path.read_bytes()
    for data in (plain + b"\0", plain[:-2] + b"\x03\0abc"):  # something behind it; a comment that is no seal
        path.write_bytes(data)
        refused(path, "does not end as a torch zip file does")


def test_flipped_numbers_in_a_file_without_a_seal_are_found_by_the_checksums(path):
    torch.save(CONTENT, path)
    whole = bytearray(path.read_bytes())
    at = whole.find(CONTENT["a"].numpy().tobytes()) + 123
    whole[at] ^= 1
    path.write_bytes(whole)
    refused(path, "checksum of x/data/0 does not fit")
    assert len(torch.load(path, weights_only=True)["a"]) == 1000, "torch would have read it"


def rebuilt(path, change=lambda name, data: data, **options):
    """The archive again, with members changed."""
    torch.save({"a": torch.arange(1000.0)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, change(name, data))


def test_packed_members_are_refused_before_they_are_unpacked(path):
    rebuilt(path, lambda n, d: bytes(10**8) if n.endswith("data/0") else d, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    refused(path, "is packed")


def test_sizes_that_the_file_does_not_have_are_refused(path):
    thousand, billion = b"M" + struct.pack("<H", 1000), b"\x8a\x05" + (10**10).to_bytes(5, "little")
    rebuilt(path, lambda n, d: d.replace(thousand, billion) if n.endswith("data.pkl") else d)
    for mmap in (False, True):
        with pytest.raises(Damaged):
            load_tensors(path, mmap=mmap)
    torch.save({"a": torch.zeros(1).expand(10**10)}, path)
    refused(path, "announces more than the")


def pickled(path, pickle_bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle_bytes)
        archive.writestr("x/version", "3\n")


def test_containers_that_hold_each_other_over_and_over_are_refused(path):
    bomb = [1] * 10  # 10^13 entries to somebody who walks them
    for _ in range(12):
        bomb = [bomb] * 10
    torch.save(bomb, path)
    refused(path, "over and over")
    loop = []
    loop.append(loop)
    torch.save(loop, path)
    refused(path, "over and over|inside each other")
    deep = []
    for _ in range(200):
        deep = [deep]
    torch.save(deep, path)
    refused(path, "inside each other")


class Gadget:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


def test_names_that_run_code_or_take_memory_are_refused_unread(path):
    for gadget in (
        Gadget(open, str(path.parent / "ran"), "w"),
        Gadget(bytearray, 10**12),
        Gadget(torch.Tensor, 10**12),
    ):
        torch.save({"a": gadget}, path)
        refused(path, "which is no plain value")
    assert not (path.parent / "ran").exists()


PICKLES = {
    "unknown memo": b"\x80\x02h\x05.", "pops nothing": b"\x80\x02u.", "python 2": b"\x80\x02}q\x00(", "empty": b"",
    "append to nothing": b"\x80\x02a.", "setitems": b"\x80\x02K\x01K\x02s.", "no stop": pickle.dumps({"a": 1})[:-1],
}  # fmt: skip


@pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES)
def test_damaged_pickles_are_one_line(path, data):
    pickled(path, data)
    refused(path)
    path.write_bytes(data + bytes(300))
    refused(path, "does not start as a torch zip file does")


def test_a_full_disk_is_an_os_error(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nframe #0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="is the disk full") as caught:
        save_tensors(path, CONTENT)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_the_digest_tells_names_kinds_shapes_and_numbers_apart():
    zeros = torch.zeros(4)
    different = [
        {"a": zeros}, {"b": zeros}, {"a": zeros.view(2, 2)}, {"a": zeros.int()}, {"a": zeros.double()}, {"a": -zeros},
        {"a": zeros, "b": zeros}, {"a": zeros[:3]}, {"a": zeros[:0]}, {}, {"a": zeros.bfloat16()}, {"a": zeros > 0},
        {"a": np.zeros(4, np.float32)}, {"a": np.zeros(4, ">f4")}, {"a": torch.tensor(0.0)},
    ]  # fmt: skip
    found = [digest(arrays) for arrays in different] + [digest({"a": zeros}, "text"), digest({"a": zeros}, "te", "xt")]
    assert len(set(found)) == len(found)
    strided = torch.arange(6.0).view(2, 3).T
    assert digest({"a": strided, "b": zeros}) == digest({"b": zeros, "a": strided.contiguous()})
    assert digest({"a": np.arange(6.0).reshape(2, 3).T}) == digest({"a": np.arange(6.0).reshape(2, 3).T.copy()})


def test_a_name_within_a_name_is_one_archive_only(path):
    """Two members of one name, or bytes before the first: readers differ in which they take."""
    torch.save(CONTENT, path)
    buffer = io.BytesIO(path.read_bytes())
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("x/data/0", bytes(4000))
    path.write_bytes(buffer.getvalue())
    refused(path, "same name|data.pkl")
