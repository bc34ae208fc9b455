"""Packed files are read to their checksums, and never to more than data can be."""

import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from spikingssm.datasets import packed
from spikingssm.datasets.hdf5 import opened
from spikingssm.datasets.matlab import check_mat
from spikingssm.datasets.numpy_files import read_npy, read_npz
from spikingssm.datasets.packed import read_packed, tar_members

DATA = bytes(np.random.default_rng(0).integers(0, 60, 200_000).astype(np.uint8))
PACK = {"gzip": gzip.compress, "xz": lzma.compress}


def refused(call, says, path):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_packed_file_comes_back_and_so_do_several_behind_each_other(tmp_path, pack) -> None:
    path = tmp_path / "a"
    path.write_bytes(pack(DATA))
    assert read_packed(path) == DATA
    path.write_bytes(pack(DATA) + pack(b"more"))
    assert read_packed(path) == DATA + b"more"
    path.write_bytes(DATA)
    assert read_packed(path) == DATA


def test_padding_between_xz_streams_is_passed_over(tmp_path) -> None:
    (tmp_path / "a").write_bytes(lzma.compress(DATA) + bytes(8) + lzma.compress(b"more") + bytes(4))
    assert read_packed(tmp_path / "a") == DATA + b"more"


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_what_is_cut_or_has_a_flipped_bit_is_refused(tmp_path, pack) -> None:
    path, whole = tmp_path / "a", pack(DATA)
    for data in (whole[:-1], whole[:-9], whole[: len(whole) // 2], whole + b"x" * 20):
        path.write_bytes(data)
        refused(lambda: read_packed(path), "damaged gzip or xz file", path)
    for at in np.random.default_rng(1).integers(10, len(whole), 40):
        data = bytearray(whole)
        data[at] ^= 1 << int(at) % 8
        path.write_bytes(data)
        refused(lambda: read_packed(path), "damaged gzip or xz file", path)


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path, pack, monkeypatch) -> None:
    monkeypatch.setattr(packed, "ALWAYS", 2**20)
    path = tmp_path / "a"
    path.write_bytes(pack(bytes(2**23)))
    refused(lambda: read_packed(path), "unpacks to more than 100 times", path)


def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**30}]
    path = tmp_path / "a"
    path.write_bytes(lzma.compress(b"a", filters=[{**filters[0], "dict_size": 2**20}]))
    assert read_packed(path) == b"a"
    path.write_bytes(lzma.compress(b"a", filters=filters))
    refused(lambda: read_packed(path), "[Mm]emory", path)


def tar(path, mode, files, change=lambda info: None):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))


FILES = {"a/1.txt": b"one" * 50, "b.bin": DATA, "a/2.txt": b"two" * 900}


@pytest.mark.parametrize("kind", ["", "gz", "xz"])
def test_members_come_in_one_pass_whatever_packs_them(tmp_path, kind) -> None:
    path = tmp_path / "a.tar"
    tar(path, f"w:{kind}", FILES)
    wanted = lambda name: name.endswith(".txt")  # noqa: E731
    assert list(tar_members(path, wanted)) == [(name, data) for name, data in FILES.items() if wanted(name)]
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1] if kind else whole[:5000], b"", b"text" * 300):
        path.write_bytes(data)
        refused(lambda: list(tar_members(path, wanted)), "not a whole tar archive", path)


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_flipped_bits_are_found_behind_the_last_member_too(tmp_path, kind) -> None:
    path = tmp_path / "a.tar"
    tar(path, f"w:{kind}", FILES)
    whole = path.read_bytes()
    for at in np.random.default_rng(2).integers(10, len(whole), 60):
        data = bytearray(whole)
        data[at] ^= 1 << int(at) % 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a whole tar archive"):
            list(tar_members(path, lambda name: name == "a/1.txt"))


def test_a_member_that_announces_more_than_there_is_is_refused(tmp_path) -> None:
    path = tmp_path / "a.tar"
    tar(path, "w", {"a": b"x" * 600})
    data = bytearray(path.read_bytes())
    info = tarfile.TarInfo("a")
    info.size = 2**34
    data[:512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(data)
    refused(lambda: list(tar_members(path, lambda _: True)), "announces 17179869184 bytes", path)
    tar(path, "w", {"a": b"x" * 600})
    with tarfile.open(path) as archive:
        sparse = archive.next()
    assert sparse.sparse is None, "an ordinary member has no map of holes"


# ---- arrays
def test_arrays_of_every_kind_come_back(tmp_path) -> None:
    arrays = {
        "x": np.arange(24.0).reshape(2, 3, 4), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "n": np.array(3.0),
        "e": np.zeros((0, 3)), "big": np.arange(3, dtype=">i4"), "text": np.array(["ab", "c"]), "b": np.array([True]),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
        assert read_npz(tmp_path / "a.npz", ("x", "none")).keys() == {"x"}
    np.save(tmp_path / "a.npy", arrays["f"])
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), arrays["f"])


def header(descr, shape):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


HEADERS = {
    "huge": header("<f4", "(1000000000000, 8, 1)"), "negative": header("<f4", "(-3, 8)"),
    "object": header("|O", "(3,)"),
    "many-axes": header("<f4", "(" + "1, " * 70 + ")"), "wide": header("|V1000000000", "(10000000,)"),
    "no-width": header("|S0", "(1000000000000000000,)"), "deep": header("<f4", "(" * 3000 + ")" * 3000),
    "long": header("<f4", "(" + "1, " * 10_000 + ")"), "words": header("<f4", "('a',)"),
    "no-dtype": header("x", "(3,)"),
    "version": b"\x93NUMPY\x09\x00" + bytes(200), "nothing": b"", "text": b"text", "cut": header("<f4", "(3,)")[:40],
    "digits": header("<f4", "(" + "9" * 5000 + ",)"), "behind": header("<f4", "(2,)") + bytes(9),
}  # fmt: skip


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_headers_that_do_not_fit_their_file_are_refused(tmp_path, data) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    refused(lambda: read_npy(path), r"not a \.npy file of plain numbers", path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
    refused(lambda: read_npz(tmp_path / "a.npz"), r"not an \.npz file of plain arrays \(x\.npy", tmp_path / "a.npz")


def test_an_npz_that_is_damaged_packed_too_tightly_or_ambiguous_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(40, 12)))
    whole = path.read_bytes()
    for at in range(60, len(whole), 97):
        data = bytearray(whole)
        data[at] ^= 4
        path.write_bytes(data)
        try:
            assert read_npz(path)["x"].shape == (40, 12), "a bit of a time stamp changes nothing"
        except (ValueError, KeyError) as error:
            assert "\n" not in str(error)  # noqa: PT017
    np.savez_compressed(path, x=np.zeros(2**22))
    assert read_npz(path)["x"].shape == (2**22,)
    monkeypatch.setattr(packed, "ALWAYS", 2**20)
    refused(lambda: read_npz(path), "unpacks to more than 100 times", path)
    monkeypatch.undo()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header("<f8", "(1,)") + bytes(8))
        archive.writestr("y.npy", header("<f8", "(1,)") + bytes(8))
    path.write_bytes(path.read_bytes().replace(b"y.npy", b"z.npy", 1))  # where it stands before its numbers alone
    refused(lambda: read_npz(path, ("x",)), r"y\.npy: File name in directory .* differ", path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header("<f8", "(1,)") + bytes(8))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", header("<f8", "(1,)") + bytes(8))
    refused(lambda: read_npz(path), "two arrays have the same name", path)


# ---- MATLAB
def test_matlab_files_are_looked_through(tmp_path) -> None:
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    for packed_elements in (False, True):
        plain = {"x": np.zeros((3, 4, 5), np.int16), "y": np.ones((3, 4)), "s": "word"}
        savemat(path, plain, do_compression=packed_elements)
        check_mat(path, ("x", "y"))
        savemat(path, {**plain, "y": np.array([1, [2]], object)}, do_compression=packed_elements)
        with pytest.raises(ValueError, match="y is of class 1, it must hold real numbers"):
            check_mat(path, ("x", "y"))
        savemat(path, {**plain, "y": np.ones(3) * 1j}, do_compression=packed_elements)
        with pytest.raises(ValueError, match="y is of class"):
            check_mat(path, ("x", "y"))
    savemat(path, {"x": np.zeros(2**23, np.uint8), "y": np.zeros(2**23, np.uint8)}, do_compression=True)
    check_mat(path, ("x", "y"))


def test_a_matlab_bomb_and_sizes_that_are_not_there_are_refused(tmp_path, monkeypatch) -> None:
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    savemat(path, {"x": np.zeros(2**22, np.uint8)}, do_compression=True)
    monkeypatch.setattr(packed, "ALWAYS", 2**20)
    with pytest.raises(ValueError, match="unpacks to more than 100 times"):
        check_mat(path, ("x",))
    savemat(path, {"x": np.zeros((3, 4))})
    data = bytearray(path.read_bytes())
    at = data.index((3).to_bytes(4, "little") + (4).to_bytes(4, "little"))
    data[at : at + 4] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x announces \[1000000000, 4\]"):
        check_mat(path, ("x",))
    for content in (data[:200], b"MATLAB 5.0 MAT-file" + bytes(200), b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cut short|announces|does not start"):
            check_mat(path, ("x",))


# ---- HDF5
def test_hdf5_that_leads_elsewhere_or_announces_more_than_there_is_is_refused(tmp_path) -> None:
    import h5py

    path, other = tmp_path / "a.h5", tmp_path / "secret"
    other.write_bytes(bytes(range(80)))
    with h5py.File(path, "w") as file:
        file["real"] = np.arange(10)
        file["group/real"] = np.arange(10)
        file["soft"] = h5py.SoftLink("/real")
        file["outside"] = h5py.ExternalLink(str(other), "/real")
        file.create_dataset("raw", (10,), np.int64, external=[(str(other), 0, 80)])
        file.create_dataset("never", (10**12,), np.int64, chunks=(1024,))
        layout = h5py.VirtualLayout((10,), np.int64)
        layout[:] = h5py.VirtualSource(str(other), "x", (10,))
        file.create_virtual_dataset("virtual", layout)
    with opened(path, path) as file:
        assert file.shape("real") == file.shape("group/real") == (10,)
        assert file.rows("group/real", 2, 5).tolist() == [2, 3, 4]
        assert not file.has("nothing")
        assert file.dataset("group") is None
        for name, says in {
            "soft": "is a link to another place", "outside": "is a link to another place", "never": "announces",
            "raw": "lies in other files", "virtual": "lies in other files",
        }.items():  # fmt: skip
            refused(lambda name=name: file.shape(name), says, path)


def test_lists_that_are_longer_together_than_the_file_are_refused(tmp_path, monkeypatch) -> None:
    import h5py

    from spikingssm.datasets import hdf5

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (50,), h5py.vlen_dtype(np.int64))
        for row in range(50):
            data[row] = np.arange(1000)
    with opened(path, path) as file:
        assert len(file.rows("x", 0, 50)) == 50
        assert file.at_once(512) == 512
        file.most = 50 * 8000 - 1
        file.rows("x", 0, 25)
        refused(lambda: file.rows("x", 25, 50), "the lists of x are longer than the file", path)
        monkeypatch.setattr(hdf5, "AT_ONCE", 10)
        assert file.at_once(512) == 1
