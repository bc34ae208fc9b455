"""Recorded clips: what a WAV file gives and what a wrong one says; resampling; archives read in place."""

import gzip
import io
import lzma
import tarfile

import numpy as np
import pytest
import soundfile
import torch

from spikingssm.datasets import Selected
from spikingssm.datasets.audio import (
    PEAK,
    files_in,
    fitted,
    folder_facts,
    level,
    read_sound,
    read_wav,
    resampled,
    stacked,
    tones,
)
from spikingssm.datasets.inputs import Audio


def wav(samples, rate: int = 8000, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples), rate, subtype=subtype, format=form)
    return buffer.getvalue()


def sine(frequency: float, rate: int, samples: int, amplitude: float = 8000.0) -> np.ndarray:
    return np.rint(amplitude * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)).astype(np.int16)


@pytest.mark.parametrize("sizes", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"])
def test_a_file_out_of_a_pipe_has_the_size_that_it_has(sizes) -> None:
    """Guards what testers met: ffmpeg cannot go back to write the sizes (kkroening/ffmpeg-python#118)."""
    samples = np.arange(-400, 400).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 8000, format="WAV", subtype="PCM_16")
    wav = bytearray(stream.getvalue())
    at = bytes(wav).find(b"data")
    wav[4:8] = wav[at + 4 : at + 8] = sizes
    if sizes[3] == 0xFF:
        np.testing.assert_array_equal(read_wav(bytes(wav), "piped.wav", 8000), samples)
    else:
        with pytest.raises(ValueError, match=r"piped\.wav: its header announces 2147483655 bytes"):
            read_wav(bytes(wav), "piped.wav", 8000)


def test_a_wav_gives_back_its_16_bit_samples() -> None:
    samples = np.array([0, 1, -1, PEAK - 1, -PEAK, 123], np.int16)
    read = read_wav(wav(samples), "a.wav", 8000)
    assert read.dtype == np.int16
    assert read.tolist() == samples.tolist()


TEN = np.arange(10, dtype=np.int16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"a\.wav: starts with b'', a WAV file with b'RIFF'"),
        (b"ID3 and then some more bytes", r"starts with b'ID3 and then', a WAV file with b'RIFF'"),
        (wav(TEN, form="FLAC"), r"starts with b'fLaC.*, a WAV file with b'RIFF'"),
        (wav(TEN)[:-6], r"its header announces 64 bytes and there are 58; copy or download it again"),
        (b"RIFF\x0c\0\0\0WAVEnothing\0", r"not a readable WAV file \(.+\); copy or download it again"),
        (wav(TEN, rate=44100), r"44100 Hz, 1 channel\(s\), PCM_16, must be 8000 Hz, 1 channel, PCM_16; convert it"),
        (wav(TEN.reshape(5, 2)), r"8000 Hz, 2 channel\(s\), PCM_16, must be 8000 Hz, 1 channel"),
        (wav(TEN / 10, subtype="FLOAT"), r"8000 Hz, 1 channel\(s\), FLOAT, must be .*PCM_16"),
        (wav(TEN[:0]), r"0 samples, must be at least 1; take it out"),
    ],
    ids=["empty", "mp3", "flac", "cut", "header-only", "rate", "stereo", "float", "silent"],
)
def test_a_wrong_wav_says_in_one_line_what_it_is_and_should_be(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_wav(data, "a.wav", 8000)
    assert str(caught.value).startswith("a.wav: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("frequency", "kept"), [(300, 1.0), (1000, 1.0), (3000, 1.0), (5000, 0.0), (6000, 0.0)])
def test_half_the_rate_keeps_tones_below_4_khz_and_folds_none_back(frequency: float, kept: float) -> None:
    tone = sine(frequency, 16_000, 4000)
    slow, stride = resampled(tone, 2), tone[::2]
    assert slow.shape == (2000,)
    inner = slice(100, -100)  # the ends of the clip are steps, and those are no tones
    error = np.abs(slow[inner].astype(float) - kept * stride[inner])
    assert error.max() < 0.02 * 8000
    if not kept:
        assert np.abs(stride[inner]).max() > 0.9 * 8000  # a plain stride lets it through at another frequency


def test_resampling_works_along_the_last_axis_and_rounds_the_length_up() -> None:
    rows = np.stack([sine(f, 8000, 1001) for f in (200, 700)])
    slow = resampled(rows, 2)
    assert (slow.dtype, slow.shape) == (np.int16, (2, 501))
    assert np.array_equal(slow[1], resampled(rows[1], 2))
    assert resampled(rows, 1) is rows
    square = np.where(np.arange(400) // 50 % 2, PEAK - 1, -PEAK).astype(np.int16)
    overshoot = resampled(square, 2)
    assert (overshoot.max(), overshoot.min()) == (PEAK - 1, -PEAK)  # held at the ends of the range, not wrapped
    assert not np.any(np.diff(np.sign(overshoot[5:20])))
    with pytest.raises(ValueError, match=r"rate must be at least 1 .* got 0"):
        resampled(rows, 0)


def test_clips_are_cut_at_the_end_and_padded_at_the_end() -> None:
    assert fitted(TEN, 4).tolist() == [0, 1, 2, 3]
    assert fitted(TEN[:3], 5).tolist() == [0, 1, 2, 0, 0]
    assert fitted(TEN, 10).tolist() == TEN.tolist()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    for name, data in {"b/2.wav": b"two", "a/1.wav": b"one" * 400, "note.txt": b"no", "c/.wav/x": b"no"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def packed(folder, mode: str):
    path = folder.parent / f"all.{mode or 'plain'}"
    with tarfile.open(path, f"w:{mode}") as archive:
        archive.add(folder, ".")
    return path


def is_wav(path: str) -> bool:
    return path.endswith(".wav")


def test_a_folder_and_its_archives_give_the_same_files(folder) -> None:
    expected = {"a/1.wav": b"one" * 400, "b/2.wav": b"two"}
    found = list(files_in(folder, is_wav))
    assert dict(found) == expected
    assert [name for name, _ in found] == sorted(expected)
    for mode in ("", "gz", "xz"):
        assert {name.removeprefix("./"): data for name, data in files_in(packed(folder, mode), is_wav)} == expected


@pytest.mark.parametrize("mode", ["", "gz", "xz"])
def test_an_archive_that_is_cut_anywhere_is_refused(folder, mode: str) -> None:
    path = packed(folder, mode)
    whole = path.read_bytes()
    unpacked = {"": bytes, "gz": gzip.decompress, "xz": lzma.decompress}[mode](whole)
    ends = [512 * n for n in range(1, len(unpacked.rstrip(b"\0")) // 512 + 1)] if not mode else []
    for end in [len(whole) // 3, len(whole) // 2, len(whole) - 20, *ends]:
        if not mode and not any(whole[end:]):
            continue  # only the zeros at the end are gone
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"not a whole tar archive \(.+\); copy or download it again"):
            list(files_in(path, is_wav))


def test_another_file_is_not_taken_for_an_archive(tmp_path) -> None:
    for data in (b"", b"PK\3\4 a zip file, say" * 100, gzip.compress(b"text" * 1000)):
        path = tmp_path / "x.tar"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.tar: not a whole tar archive") as caught:
            list(files_in(path, is_wav))
        assert "\n" not in str(caught.value)


def test_the_facts_of_a_folder_follow_its_files(folder) -> None:
    before = folder_facts(folder, is_wav)
    assert next(iter(before.values()))[:2] == [2, 1203]
    (folder / "note.txt").write_bytes(b"changed")
    assert folder_facts(folder, is_wav) == before
    (folder / "b/2.wav").write_bytes(b"three")
    assert folder_facts(folder, is_wav) != before


def test_stacked_clips_are_rows_and_selected_rows_are_drawn_by_number() -> None:
    rows = np.arange(12, dtype=np.int16).reshape(4, 3)
    x = stacked(iter(rows), 3)
    assert np.array_equal(x, rows)
    assert stacked(iter([]), 3).shape == (0, 3)
    some = Selected(x[:, :, None], np.array([3, 1, 2]))
    assert (len(some), some.shape) == (3, (3, 3, 1))
    assert some[[2, 0]][:, :, 0].tolist() == rows[[2, 3]].tolist()


def test_the_level_is_the_root_mean_square_and_divides_it_out() -> None:
    clips = np.stack([sine(100, 8000, 800, amplitude) for amplitude in (4000, 12_000)])
    energy = np.square(clips, dtype=np.float64).sum(1)
    rms = level("x", energy, clips.size)
    assert rms == pytest.approx(np.sqrt((4000**2 + 12_000**2) / 4) / PEAK, rel=1e-4)
    x = Audio(8000, rms)(torch.from_numpy(clips))
    assert x.dtype == torch.float32
    assert float(x.square().mean()) == pytest.approx(1, rel=1e-5)
    assert float(Audio(8000, rms)(torch.zeros(3, dtype=torch.int16)).abs().max()) == 0
    with pytest.raises(ValueError, match="x: all 1600 training samples are 0"):
        level("x", energy * 0, clips.size)


def test_stand_in_clips_end_where_they_should_and_their_tones_name_the_class() -> None:
    x, y = tones(10, [500, 1000] * 40, 8000, 1000)
    assert (x.dtype, x.shape) == (np.int16, (80, 1000))
    assert not x[::2, 500:].any()
    assert (x[:, :500] != 0).mean() > 0.99
    assert np.bincount(y).tolist() == [8] * 10
    loud = np.abs(np.fft.rfft(x[1::2], axis=1))  # 8 Hz a bin
    peaks = np.stack([loud[:, :112].argmax(1), 112 + loud[:, 112:].argmax(1)], 1)  # below and above 900 Hz
    of_class = [peaks[y[1::2] == k] for k in range(10)]
    assert all(np.ptp(found, axis=0).max() <= 2 for found in of_class)
    assert len({tuple(np.rint(found.mean(0) / 8)) for found in of_class}) == 10


def test_a_sound_that_holds_nan_is_refused() -> None:
    samples = np.zeros(100)
    samples[7] = np.nan
    with pytest.raises(ValueError, match=r"a\.wav: sample 7 is NaN or infinite; mend the file"):
        read_sound(wav(samples, subtype="FLOAT"), "a.wav", 8000)
