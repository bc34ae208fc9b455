"""Recordings of spikes in HDF5: what comes back, and what is refused."""

import gzip
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from spikingssm.datasets import heidelberg
from spikingssm.datasets.heidelberg import Recordings, map_recordings, read_recordings, write_recordings

TIMES = [[0.25, 0.5, 0.75], [], [0.0, 1.25]]
UNITS = [[3, 0, 699], [], [12, 12]]
BOTH = pytest.mark.parametrize("read", [read_recordings, map_recordings])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def release(path, times=TIMES, units=UNITS, dtype=np.float16, unit=np.uint16, labels=(1, 0, 2), **more) -> Path:
    """A file in the layout of the release."""
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, dtype), ("units", units, unit)):
            data = file.create_dataset(f"spikes/{name}", (len(rows),), h5py.vlen_dtype(kind))
            for number, row in enumerate(rows):
                data[number] = np.array(row, kind)
        file["labels"] = np.array(labels, np.uint8)
        for name, value in ({"extra/speaker": np.array([5, 5, 7], np.uint16)} | more).items():
            file[name] = value
    return path


def some(count: int = 30, seed: int = 0) -> Recordings:
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 60, count)
    times = np.concatenate([np.sort(random.integers(0, 1_400_000, n)) for n in sizes])
    starts = np.concatenate([[0], sizes.cumsum()])
    labels, speakers = random.integers(0, 9, count), random.integers(-1, 4, count)
    return Recordings(times, random.integers(0, 700, len(times)).astype(np.uint16), starts, labels, speakers)


@BOTH
def test_a_file_of_the_release_is_read_event_by_event(tmp_path, read) -> None:
    found = read(release(tmp_path / "a.h5"))
    assert found.times.tolist() == [250_000, 500_000, 750_000, 0, 1_250_000]
    assert found.units.tolist() == [3, 0, 699, 12, 12]
    assert found.starts.tolist() == [0, 3, 3, 5]
    assert (found.labels.tolist(), found.speakers.tolist()) == ([1, 0, 2], [5, 5, 7])


@BOTH
def test_what_is_written_is_read_again(tmp_path, read, monkeypatch) -> None:
    monkeypatch.setattr(heidelberg, "ROWS", 7)  # so that recordings come in several pieces
    wanted = some()
    write_recordings(tmp_path / "deep" / "a.h5", wanted, [str(n) for n in range(9)])
    for field, back in zip(wanted, read(tmp_path / "deep" / "a.h5"), strict=True):
        np.testing.assert_array_equal(back, field)
    with h5py.File(tmp_path / "deep" / "a.h5") as file:
        assert [name.decode() for name in file["extra/keys"]] == [str(n) for n in range(9)]


def test_a_label_without_a_name_is_not_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="labels 0 to 8, names for 3"):
        write_recordings(tmp_path / "a.h5", some(), ["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_half_precision_times_are_the_microseconds_of_their_exact_value(tmp_path) -> None:
    halves = np.sort(np.random.default_rng(1).uniform(0, 1.4, 200).astype(np.float16))
    found = read_recordings(release(tmp_path / "a.h5", [halves, [], []], [np.arange(200), [], []]))
    exact = [1_000_000 * value.as_integer_ratio()[0] // value.as_integer_ratio()[1] for value in halves]
    assert found.times.tolist() == [int(n) for n in exact]


@BOTH
def test_events_out_of_order_are_sorted_within_their_recording(tmp_path, read) -> None:
    found = read(release(tmp_path / "a.h5", [[0.5, 0.25, 0.5], [], [0.125, 0.0]], [[1, 2, 3], [], [4, 5]]))
    assert found.times.tolist() == [250_000, 500_000, 500_000, 0, 125_000]
    assert found.units.tolist() == [2, 1, 3, 5, 4]


def test_unknown_speakers_are_minus_one_and_names_are_kept(tmp_path) -> None:
    path = release(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["extra"]
    assert read_recordings(path).speakers.tolist() == [-1, -1, -1]
    named = release(tmp_path / "b.h5", **{"extra/speaker": np.array([b"ann", b"bob", b"ann"])})
    for read in (read_recordings, map_recordings):
        found = read(named)
        assert found.speakers.tolist() == ["ann", "bob", "ann"]
    write_recordings(tmp_path / "c.h5", found, "abc")
    assert read_recordings(tmp_path / "c.h5").speakers.tolist() == ["ann", "bob", "ann"]
    with h5py.File(named, "a") as file:
        del file["extra/speaker"]
        file.create_dataset("extra/speaker", data=["zoë", "ann", "ann"], dtype=h5py.string_dtype())
    assert map_recordings(named).speakers.tolist() == ["zoë", "ann", "ann"]


@BOTH
@pytest.mark.parametrize("packed", ["gz", "zip"])
def test_packed_files_are_unpacked_once(tmp_path, read, packed) -> None:
    plain = release(tmp_path / "a.h5")
    path = tmp_path / f"a.h5.{packed}"
    if packed == "gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, "a.h5")
    plain.unlink()
    for _ in range(2):
        assert read(path).units.tolist() == [3, 0, 699, 12, 12]
    unpacked = list((tmp_path / "dataset" / "cache").glob("unpacked-*"))
    assert len(unpacked) == 1
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"a.h5.{packed}: damaged"):
        read(path)
    assert list((tmp_path / "dataset" / "cache").glob("unpacked-*")) == unpacked


@BOTH
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"times": [[0.25, 0.5], [], [0.0, 1.25]]}, "recording 0 has 2 times and 3 units"),
        ({"times": [[0.25, 0.5, 0.75], [], [-0.5, 1.25]]}, "recording 2 has an event at -0.5 s"),
        ({"times": [[0.25, 0.5, 0.75], [], [float("nan"), 1.25]]}, "recording 2 has an event at nan s"),
        ({"times": [[0.25, 0.5, 0.75], [], [0.0, 5000.0]]}, "recording 2 has an event at 5000.0 s"),
        (
            {"units": [[3, 0, 700], [], [12, 12]]},
            "recording 0 has an event in the unit 700, units must be from 0 to 699; copy or",
        ),
        ({"units": [[3, 0, -1], [], [12, 12]], "unit": np.int32}, "recording 0 has an event in the unit -1,"),
        ({"units": [[3, 0, 9], [], [12, 900]]}, "recording 2 has an event in the unit 900,"),
        ({"unit": np.float32}, "spikes/units must hold lists of whole numbers, got float32; copy or"),
        ({"dtype": np.complex64}, "spikes/times must hold lists of numbers, got complex64; copy or"),
        ({"extra/speaker": np.zeros((3, 2), int)}, r"extra/speaker must have one axis, got \(3, 2\); copy or"),
        ({"labels": (1, 0)}, "spikes/times 3, spikes/units 3, labels 2"),
        ({"times": [], "units": [], "labels": (), "extra/speaker": np.zeros(0, int)}, "at least one, got 0"),
    ],
)
def test_impossible_events_are_named(tmp_path, read, change, says, monkeypatch) -> None:
    monkeypatch.setattr(heidelberg, "ROWS", 2)
    with pytest.raises(ValueError, match=says) as error:
        read(release(tmp_path / "a.h5", **change))
    assert "\n" not in str(error.value)


@BOTH
def test_foreign_and_damaged_files_are_named(tmp_path, read) -> None:
    path = tmp_path / "a.h5"
    whole = release(path).read_bytes()
    for content in (b"", b"not HDF5" * 100, whole[: len(whole) // 2], whole[:600]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.h5: not an HDF5 file, or damaged \(") as error:
            read(path)
        assert "\n" not in str(error.value)
    with h5py.File(path, "w") as file:
        file["labels"] = [1, 2]
        file["spikes/times/more"] = [1.0]
    with pytest.raises(ValueError, match=r"a.h5: holds no spikes/times, spikes/units; it must be a file such as"):
        read(path)
    with h5py.File(path, "w") as file:
        file["labels"] = [1, 2]
        file["spikes/times"], file["spikes/units"] = np.zeros((2, 4)), np.zeros((2, 4), int)
    with pytest.raises(ValueError, match="spikes/times must hold one list for each recording, got float64"):
        read(path)
    with pytest.raises(FileNotFoundError, match=r"no such file; set data.root"):
        read(tmp_path / "b.h5")


def test_a_file_cut_off_anywhere_is_a_value_error(tmp_path) -> None:
    path = tmp_path / "a.h5"
    whole = release(path).read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a.h5: not an HDF5 file, or damaged"):
            read_recordings(path)


def test_lists_without_an_end_are_refused(tmp_path) -> None:
    """libhdf5 would go from object to object of the heap for ever where the free rest of it has no size."""
    path = release(tmp_path / "a.h5")
    whole = path.read_bytes()
    heap = whole.index(b"GCOL\x01\0\0\0")
    (size,) = struct.unpack_from("<Q", whole, heap + 8)
    at = heap + 16
    while (found := struct.unpack_from("<H6xQ", whole, at))[0]:
        at += 16 + found[1] + -found[1] % 8
    for offset, number in ((at + 8, 0), (at + 8, 2**64 - 16), (at + 8, size), (heap + 8, 2**40), (heap + 8, 0)):
        damaged = bytearray(whole)
        struct.pack_into("<Q", damaged, offset, number)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a.h5: not an HDF5 file, or damaged \(a heap at byte \d+ "):
            read_recordings(path)


def test_lists_that_were_written_over_are_read(tmp_path) -> None:
    path = release(tmp_path / "a.h5")
    for _ in range(3):
        with h5py.File(path, "a") as file:
            del file["spikes/times"]
            data = file.create_dataset("spikes/times", (3,), h5py.vlen_dtype(np.float32))
            for length in (900, 0, 30):
                for row, times in enumerate(TIMES):
                    data[row] = np.array(times, np.float32)[:length]
    assert read_recordings(path).times.tolist() == [250_000, 500_000, 750_000, 0, 1_250_000]


def test_a_defect_of_the_reader_is_not_called_damage(tmp_path, monkeypatch) -> None:
    for defect in (KeyError("own"), TypeError("own")):

        def broken(*_, defect=defect):
            raise defect

        with monkeypatch.context() as changed:
            changed.setattr(heidelberg, "_table", broken)
            with pytest.raises(type(defect), match="own"):
                read_recordings(release(tmp_path / "a.h5"))


def test_a_file_of_strange_types_is_refused_in_one_line(tmp_path) -> None:
    path = release(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["labels"]
        h5py.h5d.create(file.id, b"labels", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))
    with pytest.raises(ValueError, match=r"a.h5: labels cannot be read \(No NumPy equivalent .*; it must be") as error:
        read_recordings(path)
    assert "\n" not in str(error.value)
    release(path)
    with h5py.File(path, "a") as file:
        del file["spikes/times"], file["extra/speaker"]
        file["spikes/times"] = ["a", "b", "c"]
        file["extra/speaker/more"] = [1.0]
    with pytest.raises(ValueError, match=r"a.h5: holds no extra/speaker;"):
        read_recordings(path)
    with h5py.File(path, "a") as file:
        del file["extra/speaker"]
    with pytest.raises(ValueError, match=r"spikes/times must hold one list for each recording, got object"):
        read_recordings(path)


def test_a_map_is_made_once_and_again_for_a_changed_file(tmp_path, monkeypatch) -> None:
    path = release(tmp_path / "a.h5")
    assert map_recordings(path).labels.tolist() == [1, 0, 2]
    with monkeypatch.context() as without:
        without.setattr(heidelberg, "_opened", None)
        assert map_recordings(path).units.tolist() == [3, 0, 699, 12, 12]
    release(path, labels=(4, 4, 4), more=np.zeros(9))
    assert map_recordings(path).labels.tolist() == [4, 4, 4]
