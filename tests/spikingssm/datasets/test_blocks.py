"""Streams of files, pipes and microphones are what `predict` reads of the same, and damaged ones are named."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from loguru import logger

from spikingssm.datasets import blocks as under_test
from spikingssm.datasets.blocks import (
    array_blocks,
    chunks_of,
    microphone_blocks,
    raw_blocks,
    sound_blocks,
    text_blocks,
)


def sound(seconds=0.3, rate=8000, channels=1):
    t = np.arange(int(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * (300 + 200 * c) * t) for c in range(channels)], 1)


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize(("name", "kind"), [("x.wav", "PCM_16"), ("x.wav", "FLOAT"), ("x.flac", "PCM_24")])
def test_a_sound_file_is_read_in_blocks(tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr(under_test, "SIZE", 100)
    soundfile.write(tmp_path / name, sound(rate=11_025, channels=2), 11_025, kind)
    rate, found = sound_blocks(tmp_path / name)
    found = [*found]
    assert rate == 11_025
    assert {len(block) for block in found[:-1]} == {100}
    whole = soundfile.read(tmp_path / name, dtype="float64")[0].mean(1)
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_a_wav_file_of_a_pipe_has_no_size_and_is_read(tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(), 8000)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    (tmp_path / "open.wav").write_bytes(data)
    _, found = sound_blocks(tmp_path / "open.wav")
    assert sum(map(len, found)) == 2400


def test_damaged_sound_is_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(), 8000)
    soundfile.write(tmp_path / "x.flac", np.random.default_rng(0).uniform(-1, 1, 60_000), 8000)
    whole = (tmp_path / "x.wav").read_bytes(), (tmp_path / "x.flac").read_bytes()
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    for name, data, says in (
        ("cut.wav", whole[0][:1000], "its header announces 4844 bytes and there are 1000"),
        ("words.wav", b"some words", "not a readable sound file"),
        ("cut.flac", whole[1][:70_000], "not a readable sound file|ends after"),
        ("none.wav", None, "0 samples"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: .*({says})"):
            [*sound_blocks(tmp_path / name)[1]]
    with pytest.raises(FileNotFoundError):
        sound_blocks(tmp_path / "away.wav")


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("kind", ["s16le", "f32le"])
def test_raw_samples_may_be_cut_anywhere(kind, size):
    x = sound(channels=2)
    data = (x * 2**15).astype("<i2").tobytes() if kind == "s16le" else x.astype("<f4").tobytes()
    found = np.concatenate([*raw_blocks(cut(data, size), kind, 2)])
    np.testing.assert_allclose(found, x.mean(1), atol=1e-4 if kind == "s16le" else 1e-7)
    assert found.dtype == np.float64


def test_what_is_left_of_a_sample_is_said_and_a_sound_file_is_seen():
    said = []
    sink = logger.add(said.append, format="{message}")
    found = [*raw_blocks([b"\x01\x00\x02"], "s16le")]
    logger.remove(sink)
    np.testing.assert_array_equal(np.concatenate(found), [2**-15])
    assert said == ["the stream ended within a sample: 1 of 2 bytes, left out\n"]
    for head, word in ((b"RIFF", "WAV"), (b"fLaC", "FLAC"), (b"OggS", "Ogg")):
        with pytest.raises(ValueError, match=f"begins as a {word} file does, and --format s16le is raw samples"):
            [*raw_blocks(cut(head + bytes(20), 3), "s16le")]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_text_may_be_cut_within_a_letter(size):
    data = "Größe 🎈, ".encode() + b"\xff\xc3"
    assert "".join(text_blocks(cut(data, size))) == data.decode(errors="replace")


def test_chunks_come_as_soon_as_they_are_there():
    class Pipe(io.RawIOBase):
        """Gives what came, and would wait for more."""

        came = [b"ab", b"cde", b""]

        def readable(self):
            return True

        def readinto(self, room):
            data = self.came.pop(0)
            room[: len(data)] = data
            return len(data)

    assert [*chunks_of(io.BufferedReader(Pipe()))] == [b"ab", b"cde"]


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_an_array_of_one_sequence_is_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(under_test, "SIZE", 4)
    path = tmp_path / f"x.{suffix}"

    def read(x, flat, channels):
        np.save(path, x) if suffix == "npy" else np.savez(path, x=x)
        return [*array_blocks(path, flat, channels)]

    x = np.arange(20.0).reshape(10, 2)
    for given in (x, x[None]):
        found = read(given, False, 2)
        assert [len(block) for block in found] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate(found), x)
    for given in (x[:, 0], x[:, :1], x[None, :, 0]):
        np.testing.assert_array_equal(np.concatenate(read(given, True, 1)), x[:, 0])
        np.testing.assert_array_equal(np.concatenate(read(given, False, 1)), x[:, :1])
    for given, channels in ((np.zeros((3, 10, 2)), 2), (np.zeros((10, 3)), 2), (np.zeros((3, 10)), 1)):
        with pytest.raises(ValueError, match=r"x has the shape .* a stream is one sequence"):
            read(given, False, channels)


def test_an_array_ends_where_its_length_says(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((1, 10, 2)), lengths=np.array([7]))
    assert sum(map(len, array_blocks(tmp_path / "x.npz", False, 2))) == 7
    np.savez(tmp_path / "z.npz", z=np.ones(3))
    with pytest.raises(ValueError, match="no array named x; it holds z"):
        array_blocks(tmp_path / "z.npz", False, 2)


class Microphones:
    """As the package sounddevice, with one device of 44100 Hz."""

    class PortAudioError(Exception):
        pass

    def __init__(self):
        self.opened, self.closed, self.unplugged = {}, False, False

    def query_devices(self, device, kind):
        if device == "away":
            raise ValueError("No input device matching 'away'")
        return {"default_samplerate": 44100.0}

    def InputStream(self, **options):
        if options["samplerate"] > 100_000:
            raise self.PortAudioError("Invalid sample rate")
        self.opened, outer = options, self

        class Stream(SimpleNamespace):
            def __enter__(self):
                return self

            def __exit__(self, *_):
                outer.closed = True

            def read(self, size):
                if outer.unplugged:
                    raise outer.PortAudioError("Device unavailable")
                return np.full((size, 1), 0.25, np.float32), True

        return Stream()


def test_a_microphone_is_read_as_it_hears(monkeypatch):
    stub, said = Microphones(), []
    monkeypatch.setitem(sys.modules, "sounddevice", stub)
    rate, found = microphone_blocks()
    assert rate == 44_100
    sink = logger.add(said.append, format="{message}")
    first, second = next(found), next(found)
    logger.remove(sink)
    assert said == ["the network is slower than the microphone: some sound was lost\n"]  # once
    assert first.shape == second.shape == (2205,)
    assert (first == 0.25).all()
    assert first.dtype == np.float64
    stub.unplugged = True
    with pytest.raises(OSError, match=r"the microphone has stopped \(Device unavailable\)"):
        next(found)
    assert stub.closed
    microphone_blocks(16_000, "2")
    assert (stub.opened["samplerate"], stub.opened["device"], stub.opened["channels"]) == (16_000, 2, 1)
    with pytest.raises(OSError, match=r"no microphone at 200000 Hz \(Invalid sample rate\)"):
        microphone_blocks(200_000)
    with pytest.raises(OSError, match=r"no microphone \(No input device matching 'away'\)"):
        microphone_blocks(None, "away")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ImportError, match=r"needs the extra `mic`: pip install 'sdn-spikingssm\[mic\]'"):
        microphone_blocks()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r"needs the extra `data`"):
        sound_blocks("x.wav")


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"cannot use PortAudio \(PortAudio library not found\); install it"):
        microphone_blocks()
