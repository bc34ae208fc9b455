"""What a run keeps of its data: raw rows become what the loaders give, for every data set, and survive the file."""

import json

import numpy as np
import pytest
import soundfile
import torch

from spikingssm import datasets
from spikingssm.datasets.audio import PEAK, read_sound
from spikingssm.datasets.inputs import Audio, Numbers, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.rows import as_rows
from spikingssm.datasets.sequences import read_csv, read_sequences

DRAWN = {
    "aan": {"length": 64}, "cifar": {}, "dvs128gesture": {"slice_ms": 60, "frame_ms": 10}, "ecg": {},
    "fsdd": {"length": 500}, "fsdd_spikes": {}, "imdb": {"length": 64},
    "listops": {"length": 64, "train_rows": 40, "min_length": 10, "max_length": 40}, "mnist": {},
    "pathfinder": {"rows": 40}, "shd": {}, "speech_commands": {"classes": 10}, "ssc": {}, "wikitext": {"length": 32},
}  # fmt: skip


def made(name):
    return getattr(datasets, name)(generated=True, batch_size=4, limit_eval=6, **DRAWN[name])


@pytest.mark.parametrize("name", [*DRAWN, "permuted mnist", "digits"])
def test_every_data_set_keeps_how_it_is_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "digits":
        data = datasets.digits(batch_size=4, limit_eval=6)
    elif name == "permuted mnist":
        data = datasets.mnist(generated=True, permute="bitreversal", batch_size=4, limit_eval=6)
    else:
        data = made(name)
    data.interface.write(tmp_path)
    kept = Interface.read(tmp_path)
    assert kept == data.interface
    assert kept.d_output == (1 + data.train_set.rows.y[:].max() if name == "digits" else data.d_output)
    chosen = data.test_rows[: data.batch_size if not data.stream else 1].tolist()
    stored = data.test_set.rows.x[chosen]
    batch = next(iter(data.test_dataloader()))
    assert torch.equal(kept.inputs(torch.as_tensor(np.asarray(stored))), batch.x)
    assert batch.x.float().std() > 0


def test_numbers_are_divided_shifted_and_multiplied_in_this_order():
    x = torch.tensor([[[0.0, 255.0], [51.0, 102.0]]])
    found = Numbers(255, (0.5, 0.25), (2.0, 0.5), 3.0)(x)
    torch.testing.assert_close(found, torch.tensor([[[-0.75, 4.5], [-0.45, 0.9]]]))
    rows, lengths = Numbers(order=(2, 0, 1)).rows(np.arange(6.0).reshape(1, 3, 2), 2)
    assert rows.tolist() == [[[4, 5], [0, 1], [2, 3]]]
    assert lengths is None
    with pytest.raises(ValueError, match="x has 4 steps; this network reads 3"):
        Numbers(order=(2, 0, 1)).rows(np.zeros((1, 4, 2)), 2)


def test_the_usual_forms_of_sequences_are_taken():
    x = np.arange(12.0).reshape(2, 3, 2)
    for given, channels, wanted in (
        (x, 2, x),
        (x[0], 2, x[:1]),
        (x[..., 0], 1, x[..., :1]),
        (x[0, :, 0], 1, x[:1, :, :1]),
        (x[0, :, :1], 1, x[:1, :, :1]),
        (torch.tensor(x), 2, x),
    ):
        rows, lengths = as_rows(given, channels)
        assert np.array_equal(rows, wanted)
        assert lengths is None
    rows, lengths = as_rows([x[0], x[1, :1]], 2)
    assert lengths.tolist() == [3, 1]
    assert np.array_equal(rows[1], [[6, 7], [0, 0], [0, 0]])
    assert as_rows(x, 2, [3, 1])[1].tolist() == [3, 1]
    for given, channels, lengths, words in (
        (np.zeros((2, 2, 3)), 2, None, "puts the channels last"),
        (np.zeros((2, 3, 4)), 2, None, r"must be \(N, L, 2\)"),
        ([], 2, None, "empty list"),
        (x, 2, [0, 1], r"integers from 1 to 3"),
        (x, 2, [1, 4], r"integers from 1 to 3"),
        ([x[0]], 2, [1], "its own lengths"),
        ([x], 2, None, r"x\[0\] must be one sequence"),
        (np.full((1, 2, 2), np.inf), 2, None, "NaN or infinity, first in row 0"),
        (np.array([["a"]]), 1, None, "real numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            as_rows(given, channels, lengths)


def digits_on_disk(folder, count=6):
    """Clips of two tones, named as those of the Free Spoken Digit Dataset, and a folder a class of the same."""
    draw = np.random.default_rng(3)
    for number in range(2 * count):
        samples = draw.integers(900, 1500)
        tone = 3000 * np.sin(np.arange(samples) * (0.2 + 0.1 * (number % 2))) + draw.normal(0, 200, samples)
        name = f"{number % 2}_ann_{number}.wav"
        for path in (folder / "flat" / name, folder / "sorted" / str(number % 2) / name):
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.rint(tone).astype(np.int16), 8000, subtype="PCM_16")
    return folder


@pytest.mark.parametrize("kind", ["fsdd", "fsdd at half the rate", "fsdd_spikes"])
def test_clips_on_disk_become_the_rows_of_the_data_set(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = digits_on_disk(tmp_path)
    if kind == "fsdd_spikes":
        data = datasets.fsdd_spikes(folder / "flat", batch_size=2)
    else:
        data = datasets.fsdd(folder / "flat", length=1200, rate=2 if "half" in kind else 1, batch_size=2)
    found = read_sequences(folder / "sorted", data.inputs)
    assert found.labels == [name.split("/")[0] for name in found.names]
    x, lengths = data.inputs.rows(found.x, data.d_input, found.lengths)
    clips = {name.split("/")[1]: row for row, name in enumerate(found.names)}
    for number, index in enumerate(np.flatnonzero([int(name.split("_")[2][:-4]) < 5 for name in sorted(clips)])):
        row = clips[sorted(clips)[index]]
        assert np.array_equal(x[row], np.asarray(data.test_set.rows.x[[number]])[0])
        if lengths is not None:
            assert lengths[row] == data.test_set.rows.lengths[number]
    assert x.std() > 0


def test_sound_of_another_rate_width_and_number_of_channels_is_brought_to_the_one_wanted(tmp_path):
    steps = np.arange(16_000)
    tone = 0.4 * np.sin(2 * np.pi * 440 / 16_000 * steps)
    high = 0.4 * np.sin(2 * np.pi * 6000 / 16_000 * steps)  # too high for 8,000 Hz: it must not come back as 2,000
    soundfile.write(tmp_path / "a.wav", np.stack([tone + high, tone], 1), 16_000, subtype="FLOAT")
    found = read_sound((tmp_path / "a.wav").read_bytes(), "a.wav", 8000)
    wanted = 0.4 * PEAK * np.sin(2 * np.pi * 440 / 8000 * np.arange(8000))
    assert found.dtype == np.int16
    assert found.shape == (8000,)
    assert np.abs(found[200:-200] - wanted[200:-200]).max() < 200  # of 13,107
    with pytest.raises(ValueError, match="not a readable sound file"):
        read_sound(b"OggS and nothing", "b.ogg", 8000)
    floats = np.clip(tone[None], -1, 1)
    x, lengths = Audio(16_000, 0.1, length=16_000).rows(floats, 1)
    assert np.array_equal(x[0, :, 0], np.rint(floats[0] * PEAK).astype(np.int16))
    assert lengths.tolist() == [16_000]
    with pytest.raises(ValueError, match=r"floats in \[-1, 1\]; got float64 up to 3"):
        Audio(16_000, 0.1).rows(np.full((1, 5), 3.0), 1)


def test_text_becomes_bytes_and_an_end():
    inputs = Tokens("bytes", 1, 6)
    x, lengths = inputs.rows(["ab", "longer than that"], 1)
    assert lengths.tolist() == [3, 6]
    assert x.tolist() == [[97, 98, 1, 0, 0, 0], [*b"longe", 1]]
    with pytest.raises(ValueError, match="keeps no vocabulary"):
        Tokens().rows("ab", 1)


def test_tables_and_folders_of_them(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.csv").write_text("u,v\n1,2\n3,4\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.csv").write_text("5,6\n")
    found = read_sequences(tmp_path, Numbers())
    assert found.names == ["a/one.csv", "b/two.csv"]
    assert found.labels == ["a", "b"]
    rows, lengths = Numbers().rows(found.x, 2)
    assert rows.tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]
    assert lengths.tolist() == [2, 1]
    assert read_csv(tmp_path / "a" / "one.csv")[0] == ["u", "v"]
    (tmp_path / "several.csv").write_text("sequence,u,v\nfirst,1,2\nfirst,3,4\nlast,5,6\n")
    several = read_sequences(tmp_path / "several.csv", Numbers())
    assert several.names == ["several.csv[first]", "several.csv[last]"]
    assert several.labels is None
    assert Numbers().rows(several.x, 2, several.lengths)[1].tolist() == [2, 1]
    (tmp_path / "wide.csv").write_text("7,1,2,3,4\n")  # a label and the steps of one channel: no sequence of it
    with pytest.raises(ValueError, match=r"must be \(N, L, 1\) for this network, got \(1, 1, 5\)"):
        Numbers().rows(read_sequences(tmp_path / "wide.csv", Numbers()).x, 1)
    (tmp_path / "several.csv").unlink()
    (tmp_path / "wide.csv").unlink()
    for text, words in (
        ("1,2\n3\n", "line 2 has 1 cells, the first has 2"),
        ("1,2\n3,x\n", "line 2 has 'x', which is no number"),
        ("u,v\n", "no row of numbers"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=words):
            read_csv(tmp_path / "bad.csv")
    (tmp_path / "c.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"reads .npz, .npy, .csv, got .wav"):
        read_sequences(tmp_path / "c.wav", Numbers())
    with pytest.raises(FileNotFoundError, match=r"no \.txt"):
        read_sequences(tmp_path / "a", Tokens("bytes"))


def test_a_hostile_or_a_damaged_file_is_refused(tmp_path):
    good = Interface("own", 24, 2, 3, Numbers(scale=2.0), classes=("a", "b", "c"))
    good.write(tmp_path)
    assert Interface.read(tmp_path) == good
    content = json.loads((tmp_path / "inputs.json").read_text())
    changes = [
        {"version": 2}, {"length": 2**40}, {"length": 1.5}, {"d_input": 0}, {"d_output": 2}, {"classes": ["a"] * 4},
        {"classes": [1, 2, 3]}, {"name": 3}, {"pairs": 1}, {"vocab": -1}, {"numbers": {"scale": 0.0}},
        {"numbers": {"divide": -1.0}}, {"numbers": {"order": [0, 0]}}, {"numbers": {"other": 1}},
        {"numbers": {"scale": "x"}}, {"numbers": {"scale": 1e400}},
        {"numbers": {"mean": [0.0] * 3, "std": [1.0] * 3}}, {"numbers": {"order": [1, 0]}},
        {"numbers": {"order": [1.0 * i for i in range(24)]}}, {"numbers": {"order": [True, False]}, "length": 2},
    ]  # fmt: skip
    for change in changes:
        (tmp_path / "inputs.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=r"inputs\.json"):
            Interface.read(tmp_path)
    for inputs in (Audio(8000, 0.1, 2, 400), Spikes(8000, steps=20), Tokens("bytes", 1, 64)):
        sizes = {"audio": (200, 1), "spikes": (20, 140), "tokens": (64, 1)}[inputs.kind]
        Interface("own", *sizes, 3, inputs).write(tmp_path)
        content = json.loads((tmp_path / "inputs.json").read_text())
        assert Interface.read(tmp_path).inputs == inputs
        for change in ({"length": sizes[0] + 1}, {"d_input": sizes[1] + 1}):
            (tmp_path / "inputs.json").write_text(json.dumps({**content, **change}))
            with pytest.raises(ValueError, match="of another size"):
                Interface.read(tmp_path)
    for text in ("[]", "3", "{}", "{", '{"version": 1, "numbers": 3}'):
        (tmp_path / "inputs.json").write_text(text)
        with pytest.raises(ValueError, match=r"inputs\.json"):
            Interface.read(tmp_path)
    for wrong in (lambda: Audio(0, 1.0), lambda: Audio(8000, 0.0), lambda: Spikes(100), lambda: Tokens("words")):
        with pytest.raises(ValueError, match="inputs: "):
            wrong()
