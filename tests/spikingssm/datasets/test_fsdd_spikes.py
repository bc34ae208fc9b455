"""Spoken digits as spikes: which clip goes where, the files, the cache, and what wrong data says."""

import inspect
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from spikingssm.__main__ import main
from spikingssm.datasets.binning import Binning
from spikingssm.datasets.cochlea import Cochlea
from spikingssm.datasets.fsdd_spikes import fsdd_spikes, write_fsdd_spikes
from spikingssm.datasets.heidelberg import read_recordings
from spikingssm.datasets.known import ContentDigest

MODULE = import_module("spikingssm.datasets.fsdd_spikes")
RATE, SPEAKERS, INDICES = 8000, ("ann", "bob"), (0, 4, 5, 6)
DIGITS = range(10)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def sound(digit: int, speaker: int, index: int) -> np.ndarray:
    """A tone of its own for each clip."""
    time = np.arange(300 + 10 * index) / RATE
    return (9000 * np.sin(2 * np.pi * (200 + 300 * digit + 40 * speaker + 5 * index) * time)).astype(np.int16)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """Ten digits, two speakers, four indices."""
    root = tmp_path_factory.mktemp("spoken")
    (root / "recordings").mkdir()
    for digit in DIGITS:
        for number, speaker in enumerate(SPEAKERS):
            for index in INDICES:
                path = root / "recordings" / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, sound(digit, number, index), RATE, subtype="PCM_16")
    return root


@pytest.fixture(scope="session")
def expected() -> dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]:
    """(digit, speaker, index) -> times and units."""
    ear = Cochlea()
    return {key: ear(sound(*key)) for key in ((d, s, i) for d in DIGITS for s in range(2) for i in INDICES)}


@pytest.fixture
def root(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "data"))


def drawn(loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    return torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])


def keys_of(loader, expected, binning: Binning) -> list[tuple[int, int, int]]:
    """The clip that each row of a part is, found by its frame; the label must be its digit."""
    frames = {binning.frame(*events).tobytes(): key for key, events in expected.items()}
    assert len(frames) == len(expected)
    x, y = drawn(loader)
    found = [frames[row.numpy().astype(binning.dtype).tobytes()] for row in x]
    assert y.tolist() == [digit for digit, _, _ in found]
    return found


def test_every_clip_is_heard_once_and_the_official_split_tests_on_index_0_to_4(root, expected) -> None:
    data = fsdd_spikes(root, batch_size=1, val_fraction=0.25)
    assert (data.length, data.d_input, data.d_output) == (250, 140, 10)
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    found = {part: keys_of(loader, expected, Binning()) for part, loader in loaders.items()}
    assert {part: len(keys) for part, keys in found.items()} == {"train": 30, "val": 10, "test": 40}
    assert sorted(found["train"] + found["val"] + found["test"]) == sorted(expected)
    assert {index for _, _, index in found["test"]} == {0, 4}
    assert {index for _, _, index in found["train"] + found["val"]} == {5, 6}
    assert {speaker for _, speaker, _ in found["val"]} == {0, 1}  # single clips, not whole speakers
    other = fsdd_spikes(root, batch_size=1, val_fraction=0.25, seed=1)
    assert set(keys_of(other.val_dataloader(), expected, Binning())) != set(found["val"])
    facts = data.facts()
    assert (facts["name"], facts["size"]) == ("fsdd-spikes-like", "other")
    start = "test: index 0 to 4, as in the files given, which are not the published ones; validation: single training"
    assert facts["split"].startswith(start)
    events = {part: sum(len(expected[key][0]) for key in keys) for part, keys in found.items()}
    assert facts["events"] == events


def test_a_speaker_left_out_is_the_whole_test_set(root, expected) -> None:
    data = fsdd_spikes(root, leave_out="bob", batch_size=1, bins="fixed", bin_ms=1.0, steps=50, channels=350)
    binning = Binning(350, "fixed", 50, 1.0)
    tested = keys_of(data.test_dataloader(), expected, binning)
    assert sorted(tested) == sorted(key for key in expected if key[1] == 1)
    trained = keys_of(data.train_dataloader(), expected, binning) + keys_of(data.val_dataloader(), expected, binning)
    assert sorted(trained) == sorted(key for key in expected if key[1] == 0)
    assert "all of the speaker bob, not the official one" in data.facts()["split"]
    plain = fsdd_spikes(root, batch_size=1, bins="fixed", bin_ms=1.0, steps=50, channels=350)  # not bob's bins
    assert {index for _, _, index in keys_of(plain.test_dataloader(), expected, binning)} == {0, 4}
    with pytest.raises(ValueError, match="leave_out must be null or one of ann, bob, got theo"):
        fsdd_spikes(root, leave_out="theo")


def test_clips_are_heard_again_only_where_they_changed(root, monkeypatch) -> None:
    heard = []
    plain = Cochlea.__call__
    monkeypatch.setattr(Cochlea, "__call__", lambda self, clip: heard.append(len(clip)) or plain(self, clip))
    fsdd_spikes(root)
    assert len(heard) == 80
    fsdd_spikes(root, channels=70, leave_out="ann", seed=3)
    assert len(heard) == 80
    soundfile.write(root / "recordings" / "3_ann_5.wav", sound(7, 0, 6)[:200], RATE, subtype="PCM_16")
    fsdd_spikes(root)
    assert (len(heard), 200 in heard[80:]) == (160, True)


def test_the_command_writes_files_with_every_spike_that_give_the_same_data(
    root, tmp_path, expected, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", ["spikingssm", "cochlea", str(root), "--out", str(tmp_path / "out")])
    main()
    said = capsys.readouterr().out.splitlines()
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["fsdd_test.h5", "fsdd_train.h5"]
    for line, part, indices in zip(said, ("train", "test"), ((5, 6), (0, 4)), strict=True):
        path = tmp_path / "out" / f"fsdd_{part}.h5"
        found = read_recordings(path)
        wanted = sorted(key for key in expected if key[2] in indices)  # in the order of the file names
        assert line == f"{path}: {len(wanted)} recordings, {len(found.times)} spikes"
        assert list(zip(found.labels.tolist(), found.speakers.tolist(), strict=True)) == [key[:2] for key in wanted]
        for number, key in enumerate(wanted):
            events = slice(found.starts[number], found.starts[number + 1])
            assert np.array_equal(found.times[events], expected[key][0])
            assert np.array_equal(found.units[events], expected[key][1])
    one, two = fsdd_spikes(root, batch_size=8), fsdd_spikes(tmp_path / "out", batch_size=8)
    facts = [data.facts() for data in (one, two)]
    assert facts[1]["split"].startswith("test: as in fsdd_test.h5; ")
    assert all(facts[0][key] == facts[1][key] for key in facts[0].keys() - {"name", "size", "split"})
    for x, y in zip(drawn(one.train_dataloader()), drawn(two.train_dataloader()), strict=True):
        assert torch.equal(x, y)
    with pytest.raises(ValueError, match=r"leave_out=bob, but the files in .* no names of speakers; set data\.root to"):
        fsdd_spikes(tmp_path / "out", leave_out="bob")


@pytest.mark.parametrize("missing", ["fsdd_train.h5", "fsdd_test.h5"])
def test_one_of_the_two_files_alone_names_the_other(tmp_path, missing) -> None:
    (other,) = {"fsdd_train.h5", "fsdd_test.h5"} - {missing}
    (tmp_path / other).touch()
    with pytest.raises(
        FileNotFoundError, match=rf"no {missing} beside the other file in .*; write both with"
    ) as caught:
        fsdd_spikes(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_3000_clips_are_the_full_set(root, monkeypatch) -> None:
    assert MODULE.PUBLISHED == 3000
    monkeypatch.setattr(MODULE, "PUBLISHED", 80)
    assert fsdd_spikes(root).facts()["size"] == "other"
    content = ContentDigest()
    for path in (root / "recordings").iterdir():
        content.add(path.name, path.read_bytes())
    monkeypatch.setattr(MODULE, "CONTENT", content.hexdigest())
    shutil.rmtree("dataset")
    facts = fsdd_spikes(root).facts()
    assert facts["size"] == "full"
    assert facts["split"].startswith("test: index 0 to 4, the official one; ")


def test_training_is_augmented_and_nothing_else(root) -> None:
    plain = fsdd_spikes(root, batch_size=4)
    mixed = fsdd_spikes(root, batch_size=4, jitter_us=2000.0, channel_shift="sample", cutmix="corrected")
    assert mixed.train_rows.tolist() == plain.train_rows.tolist()
    assert next(iter(mixed.train_dataloader())).y.shape == (4, 10)
    assert not torch.equal(next(iter(mixed.train_dataloader())).x, next(iter(plain.train_dataloader())).x)
    assert torch.equal(drawn(mixed.test_dataloader())[0], drawn(plain.test_dataloader())[0])


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (
            "nothing",
            FileNotFoundError,
            r"no archive with a published checksum; clone github\.com/.* and set data\.root",
        ),
        ("nowhere", FileNotFoundError, r"no recordings/, recordings\.tar or \*\.wav in .*nowhere; set data\.root"),
        ("empty", ValueError, r"no \.wav file in .*recordings; set data\.root"),
        ("name", ValueError, r"ten_ann_0\.wav: not named \{digit\}_\{speaker\}_\{index\}\.wav; rename or remove it"),
        ("rate", ValueError, r"3_ann_4\.wav: 16000 Hz, .*must be 8000 Hz"),
        ("no test", ValueError, r"0 of 40 clips are for testing \(test: index 0 to 4.*add the others"),
    ],
)
@pytest.mark.parametrize("how", ["read", "written"])
def test_wrong_data_says_what_and_where_in_one_line(root, tmp_path, what, error, message, how) -> None:
    clips = root / "recordings"
    if what == "empty":
        shutil.rmtree(clips)
        clips.mkdir()
    elif what == "name":
        shutil.copy(clips / "3_ann_4.wav", clips / "ten_ann_0.wav")
    elif what == "rate":
        soundfile.write(clips / "3_ann_4.wav", sound(3, 0, 4), 16_000, subtype="PCM_16")
    elif what == "no test":
        for path in clips.glob("*_[0-4].wav"):
            path.unlink()
    given = {"nothing": None, "nowhere": root / "nowhere"}.get(what, root)
    with pytest.raises(error, match=message) as caught:
        fsdd_spikes(given) if how == "read" else write_fsdd_spikes(given, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert what == "no test" or not [p for p in (tmp_path / "dataset").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 99}, "channels must divide 700"),
        ({"bins": "free"}, "bins must be one of published, fixed, brf, got free"),
        ({"cutmix": "mixed"}, "cutmix must be one of .*, got mixed"),
        ({"root": "x"}, r"data\.root and data\.generated=true are both set; drop one"),
        ({"leave_out": "theo"}, "leave_out must be null or one of none, got theo"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        fsdd_spikes(generated=True, **options)


def test_the_stand_in_can_be_told_apart(tmp_path) -> None:
    data = fsdd_spikes(generated=True, batch_size=1)
    facts = data.facts()
    assert (facts["size"], facts["train"] + facts["val"], facts["test"]) == ("generated", 60, 20)
    assert (data.length, data.d_input, data.d_output) == (250, 140, 10)
    (x, y), (test, labels) = drawn(data.train_dataloader()), drawn(data.test_dataloader())
    means = torch.stack([x[y == digit].sum(1).mean(0) for digit in DIGITS])
    assert (torch.cdist(test.sum(1), means).argmin(1) == labels).float().mean() > 0.6
    assert not list(tmp_path.iterdir())  # no file was touched


def test_the_configuration_has_every_option_with_its_default() -> None:
    path = Path(__file__).parents[3] / "configs" / "dataset" / "fsdd_spikes.yaml"
    keys = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    own = {
        k: p.default
        for k, p in inspect.signature(fsdd_spikes).parameters.items()
        if k not in ("seed", "options", "test_only")
    }
    common = {"batch_size", "val_fraction", "num_workers", "limit_train", "limit_eval", "seed", "_target_"}
    assert set(keys) == set(own) | common
    off = {"channel_shift": "none", "cutmix": "none"}  # in words, where the function also takes False
    assert {k: keys[k] for k in own} == own | off
    assert {own[k] for k in off} == {False}
