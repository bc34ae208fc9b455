"""Where a stream comes from goes with what the network reads, or the line says what does."""

import io

import numpy as np
import pytest
import soundfile

from spikingssm.datasets import sources
from spikingssm.datasets.inputs import Audio, Numbers, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.sources import Asked, open_source

HEARS = Interface("hears", 8000, 1, 4, Audio(8000, 0.1, 1, 8000))
READS = Interface("reads", 50, 2, 4, Numbers())
BYTES = Interface("bytes", 50, 1, 4, Tokens("bytes", 1, 50), vocab=256)
TOKENS = Interface("tokens", 50, 1, 4, Tokens(length=50), vocab=9)
EAR = Interface("ear", 50, 2, 4, Spikes(8000, 2, "fixed", 50))
KNOWN = {"hears": HEARS, "reads": READS, "bytes": BYTES, "tokens": TOKENS, "ear": EAR}


def files(folder):
    soundfile.write(folder / "x.wav", np.full(30, 0.5), 16_000)
    np.save(folder / "x.npy", np.full((3, 2), 2.0))
    (folder / "x.csv").write_text("a,b\n2,2\n2,2\n")
    (folder / "n.txt").write_text("2 2\n")
    (folder / "x.txt").write_text("words")
    (folder / "x.mp3").write_text("words")


def test_each_network_reads_its_kind_of_stream(tmp_path, monkeypatch):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "microphone_blocks", lambda *given: (44_100, iter([given])))
    for word, interface, data, asked, wanted in (
        ("x.wav", HEARS, b"", Asked(), (np.full(30, 0.5), 16_000, True, False)),
        ("x.npy", READS, b"", Asked(rate=5), (np.full((3, 2), 2.0), 5, False, False)),
        ("x.csv", READS, b"", Asked(), (np.full((2, 2), 2.0), None, False, False)),
        ("n.txt", READS, b"", Asked(), (np.full((1, 2), 2.0), None, False, False)),
        ("n.txt", TOKENS, b"", Asked(), (np.array([2, 2]), None, False, False)),
        ("x.txt", BYTES, b"", Asked(), ("words", None, False, False)),
        ("x.npy", EAR, b"", Asked(), (np.full((3, 2), 2.0), None, False, False)),
        ("-", HEARS, b"\x00\x40", Asked(), (np.array([0.5]), None, True, True)),
        ("-", HEARS, np.float32([0.5, 1]).tobytes(), Asked("f32le", 9, 2), (np.array([0.75]), 9, True, True)),
        ("-", HEARS, b"0.5\n0.25\n", Asked("lines"), (np.array([[0.5], [0.25]]), None, False, True)),
        ("-", READS, b"1,2\n", Asked(rate=7), (np.array([[1, 2]]), 7, False, True)),
        ("-", BYTES, b"words", Asked(), ("words", None, False, True)),
        ("-", BYTES, b"3 4", Asked("lines"), (np.array([3, 4]), None, False, True)),
        ("mic", HEARS, b"", Asked(rate=9, device="2"), ((9, "2"), 44_100, True, True)),
        ("mic", HEARS, b"", Asked(), ((None, None), 44_100, True, True)),
    ):
        found = open_source(word, interface, io.BytesIO(data), asked)
        [block] = found.blocks
        np.testing.assert_array_equal(block, wanted[0])
        assert (found.rate, found.loud, found.live) == wanted[1:]


REFUSED = [
    ("x.wav", "reads", Asked(), "x.wav: sound is for networks that hear; this one reads 2 numbers a step"),
    ("mic", "tokens", Asked(), "mic: sound is for networks that hear; this one reads tokens below 9"),
    ("x.wav", "ear", Asked(), "through a model of the ear, which needs .* or stream its frames, 2 numbers a step"),
    ("-", "tokens", Asked("text"), "text is for networks that read bytes; this one reads tokens below 9"),
    ("-", "hears", Asked("text"), "text is for networks that read bytes; this one reads sound"),
    ("x.mp3", "hears", Asked(), r"x.mp3: a stream is \.wav, .*, - or mic, got \.mp3"),
    ("x.wav", "hears", Asked(format="s16le"), "--format is for standard input; a file is known by its name"),
    ("x.wav", "hears", Asked(channels=2), "--channels is for raw samples of standard input"),
    ("x.wav", "hears", Asked(rate=8000), "--rate is for streams that do not say their rate; a sound file does"),
    ("x.wav", "hears", Asked(device="1"), "--device is for mic; leave it out"),
    ("x.npy", "reads", Asked(skip_bad=True), "--skip-bad is for lines of numbers; leave it out"),
    ("-", "hears", Asked(channels=0), "--channels must be at least 1, got 0"),
    ("-", "hears", Asked(rate=8000.5), r"--rate must be a whole number of samples a second, got 8000\.5"),
]


@pytest.mark.parametrize(("word", "network", "asked", "says"), REFUSED)
def test_what_does_not_go_together_is_refused(tmp_path, monkeypatch, word, network, asked, says):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        open_source(word, KNOWN[network], io.BytesIO(b""), asked)


def test_a_missing_file_says_what_else_there_is():
    with pytest.raises(FileNotFoundError, match=r"away\.wav: no such file; - is standard input, and mic a microphone"):
        open_source("away.wav", HEARS)
