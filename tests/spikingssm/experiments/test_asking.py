"""Files that cannot be answered are named, and all others are answered; two axes mean what they do in Python."""

import csv

import numpy as np
import pytest
import soundfile
import torch
from loguru import logger

import spikingssm
from spikingssm.datasets.audio import tones
from spikingssm.datasets.inputs import Audio, Numbers, Spikes, Tokens
from spikingssm.datasets.sequences import read_sequences
from spikingssm.experiments.asking import MOST_REASONS, ask

NETWORK = "spoken-digits"


@pytest.fixture
def clips():
    return np.stack(tones(10, [4000] * 6, 8000, 4000)[0])


@pytest.fixture
def logged():
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lambda: "".join(lines)
    logger.remove(sink)


def asked(path, out=None):
    """The lines of the answers, and what is said at their end, "" for nothing."""
    lines, end = [], ""
    try:
        for line in ask(NETWORK, [path], None, 4, out):
            lines.append(line)
    except ValueError as error:
        end = str(error)
    return lines, end


def test_a_folder_is_answered_but_for_the_files_that_cannot_be_read(clips, tmp_path, logged):
    folder, table = tmp_path / "sounds", tmp_path / "answers.csv"
    folder.mkdir()
    for number, clip in enumerate(clips):
        soundfile.write(folder / f"{number}.wav", clip, 8000)
    whole, end = asked(folder)
    assert (len(whole), end) == (6, "")
    (folder / "bad.wav").write_bytes((folder / "0.wav").read_bytes()[:60])
    np.save(folder / "loud.npy", np.full(4000, 9.0))
    lines, end = asked(folder, table)
    assert (lines, end) == (whole, "not answered: 2 of 8; the reasons stand above.")
    assert "bad.wav: its header announces" in logged()
    assert "loud.npy: samples must be int16, or floats in [-1, 1]; got float64 up to 9." in logged()
    with table.open() as file:
        assert [row["sequence"] for row in csv.DictReader(file)] == [f"{number}.wav" for number in range(6)]
    with pytest.raises(ValueError, match=r"bad\.wav: its header announces"):
        list(ask(NETWORK, [folder / "bad.wav"], None, 4, None))
    two = ask(NETWORK, [folder / "bad.wav", folder / "1.wav"], None, 4, None)
    assert next(two) == whole[1]
    with pytest.raises(ValueError, match="not answered: 1 of 2"):
        next(two)


def test_rows_that_cannot_be_read_are_named_and_keep_no_other_from_its_label(clips, tmp_path, logged):
    x = clips.astype(np.float64) / 2**15
    x[2, 7] = np.nan
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(6))
    lines, end = asked(tmp_path / "x.npz")
    assert end == "not answered: 1 of 6; the reasons stand above."
    assert "x.npz[2]: x holds NaN or infinity; clean it first." in logged()
    names = spikingssm.load_model(NETWORK).predict(clips).names
    told = [line.split()[:2] for line in lines[:-1]]
    assert told == [[f"x.npz[{row}]", names[row]] for row in range(6) if row != 2]
    assert lines[-1] == f"{sum(int(names[row]) == row for row in range(6) if row != 2)} of 5 right"


def test_of_many_reasons_the_first_are_told(clips, tmp_path, logged):
    x = np.concatenate([clips / 2**15, np.full((MOST_REASONS + 3, 4000), np.inf)])
    np.savez(tmp_path / "x.npz", x=x, lengths=np.full(len(x), 4000))
    lines, end = asked(tmp_path / "x.npz")
    assert (len(lines), end) == (6, "not answered: 13 of 19; the first 10 reasons stand above.")
    assert logged().count("x holds NaN") == MOST_REASONS


def test_what_is_not_heard_is_said(clips, logged):
    model = spikingssm.load_model(NETWORK)
    long = np.concatenate([clips[0]] * 3)
    whole = model.predict(long)
    assert "reads the first 8000 samples (1 s), and not the rest of the 12000 given" in logged()
    assert torch.equal(whole.logits, model.predict(long[:8000]).logits)
    model.predict([long, clips[0]])
    assert "not the rest of 1 of 2 rows, up to 12000" in logged()


@pytest.mark.parametrize(
    ("inputs", "channels", "shape", "rows"),
    [
        (Audio(8000, 1.0), 1, (5, 4000), 5),
        (Numbers(), 1, (5, 30), 5),
        (Numbers(), 1, (30, 1), 1),
        (Numbers(), 3, (30, 3), 1),
        (Numbers(), None, (30, 3), 1),
        (Tokens(), 1, (5, 30), 5),
        (Spikes(8000, 140), 140, (5, 4000), 5),
        (Spikes(8000, 140), 140, (50, 140), 1),
    ],
)
def test_an_array_of_two_axes_is_rows_or_one_sequence(tmp_path, inputs, channels, shape, rows):
    np.savez(tmp_path / "x.npz", x=np.zeros(shape, np.int64))
    found = read_sequences(tmp_path / "x.npz", inputs, channels)
    assert len(found.names) == len(found.x) == rows


def test_two_axes_in_a_file_are_answered_as_in_python(clips, tmp_path):
    np.savez(tmp_path / "x.npz", x=clips)
    lines, end = asked(tmp_path / "x.npz")
    found = spikingssm.load_model(NETWORK).predict(clips)
    told = [(line.split()[1], line.split()[-2]) for line in lines]
    assert told == [(name, str(int(spikes))) for name, spikes in zip(found.names, found.spikes, strict=True)]
    assert end == ""
