"""What is no file is refused before it is read: a device has no end, and nobody writes into a pipe."""

import os
import signal

import pytest

from sdn.runs.files import check_regular, read_json
from spikingssm.datasets import cifar
from spikingssm.datasets.hdf5 import try_out
from spikingssm.datasets.numpy_files import read_npy, read_npz


@pytest.mark.parametrize("read", [check_regular, read_json, read_npy, read_npz], ids=lambda read: read.__name__)
def test_a_device_is_refused(tmp_path, read) -> None:
    path = tmp_path / "a file"
    path.symlink_to(os.devnull)
    with pytest.raises(OSError, match="a file: a pipe or a device; give a file"):
        read(path)


def test_so_is_a_pipe(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe or a device"):
        check_regular(tmp_path / "pipe")
    check_regular(tmp_path)
    check_regular(tmp_path / "nothing")  # of which the reader speaks


def test_a_batch_of_cifar_must_be_a_file(tmp_path) -> None:
    (tmp_path / "test_batch").symlink_to(os.devnull)
    with pytest.raises(FileNotFoundError, match="cifar: no"):
        cifar(tmp_path)


def test_a_crash_of_a_library_is_an_error(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"x\.h5: damaged, the HDF5 library crashes on it \(SIGSEGV\)"):
        try_out("x.h5", lambda: os.kill(os.getpid(), signal.SIGSEGV))
    seen = tmp_path / "seen"
    assert try_out("x.h5", seen.touch) is None
    assert seen.exists()

    def wrong():
        raise ValueError("left for the reading that follows")

    assert try_out("x.h5", wrong) is None
