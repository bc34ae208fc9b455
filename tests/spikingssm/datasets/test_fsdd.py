"""Free Spoken Digit Dataset: which clip goes where, lengths, scale, and what wrong files say."""

import inspect
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from spikingssm.datasets.fsdd import fsdd
from spikingssm.datasets.known import ContentDigest

MODULE = import_module("spikingssm.datasets.fsdd")
RATE, SPEAKERS, INDICES = 8000, ("ann", "bob"), 8


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, samples, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples, np.int16), rate, subtype="PCM_16")


def value(digit: int, speaker: int, index: int) -> int:
    return 1000 * (digit + 1) + 100 * speaker + index


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """Ten digits, two speakers, eight indices; each clip has its own value throughout and 30 + 10 index samples."""
    root = tmp_path_factory.mktemp("fsdd")
    for digit in range(10):
        for s, speaker in enumerate(SPEAKERS):
            for index in range(INDICES):
                path = root / "recordings" / f"{digit}_{speaker}_{index}.wav"
                write(path, np.full(30 + 10 * index, value(digit, s, index)))
    return root


@pytest.fixture
def root(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "data"))


def drawn(loader) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batches = list(loader)
    return tuple(torch.cat([getattr(b, name) for b in batches]) for name in ("x", "y", "lengths"))


def rows(data) -> dict[str, torch.Tensor]:
    """The first sample of every row of each part, as written."""
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    return {part: torch.round(drawn(loader)[0][:, 0, 0] * 2**15).long() for part, loader in loaders.items()}


def test_the_official_split_tests_on_index_0_to_4(root) -> None:
    data = fsdd(root, scaling=1.0, batch_size=1)
    assert (len(data.train_rows), len(data.val_rows), len(data.test_rows)) == (54, 6, 100)
    found = rows(data)
    expected = {value(d, s, i) for d in range(10) for s in range(2) for i in range(INDICES)}
    assert set((found["test"] % 100).tolist()) == {0, 1, 2, 3, 4}
    trained = set(found["train"].tolist()) | set(found["val"].tolist())
    assert {v % 100 for v in trained} == {5, 6, 7}
    assert trained | set(found["test"].tolist()) == expected
    assert len(found["train"]) + len(found["val"]) == len(trained)
    other = rows(fsdd(root, scaling=1.0, batch_size=1, seed=1))
    assert torch.equal(other["test"], found["test"])
    assert set(other["val"].tolist()) != set(found["val"].tolist())


def test_labels_and_lengths_belong_to_their_clips(root) -> None:
    data = fsdd(root, length=80, scaling=1.0, batch_size=1)
    assert (data.length, data.d_input, data.d_output) == (80, 1, 10)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        x, y, lengths = drawn(loader)
        assert (x.dtype, y.dtype, lengths.dtype) == (torch.float32, torch.int64, torch.int64)
        first = torch.round(x[:, 0, 0] * 2**15).long()
        assert torch.equal(y, first // 1000 - 1)
        assert torch.equal(lengths, (30 + 10 * (first % 100)).clamp(max=80))
        valid = torch.arange(80) < lengths[:, None]
        assert torch.equal(x[:, :, 0] != 0, valid)
        assert torch.equal(x[:, :, 0], torch.where(valid, x[:, :1, 0], 0))


def test_a_speaker_left_out_is_the_test_set(root) -> None:
    data = fsdd(root, leave_out="bob", scaling=1.0, batch_size=1)
    found = rows(data)
    assert {part: set((v // 100 % 10).tolist()) for part, v in found.items()} == {"train": {0}, "val": {0}, "test": {1}}
    assert len(found["test"]) == 80
    assert "all of the speaker bob, not the official one" in data.facts()["split"]
    with pytest.raises(ValueError, match=r"leave_out must be null or one of ann, bob, got theo"):
        fsdd(root, leave_out="theo")


def test_the_scale_is_that_of_valid_samples_that_are_not_tested_on(root) -> None:
    data = fsdd(root, length=90, val_fraction=0.5, batch_size=1)
    parts = [drawn(loader) for loader in (data.train_dataloader(), data.val_dataloader())]
    energy = sum(float(x.double().square().sum()) for x, _, _ in parts)
    assert energy / sum(int(lengths.sum()) for _, _, lengths in parts) == pytest.approx(1, rel=1e-5)
    assert fsdd(root, length=90, val_fraction=0.1).split == data.split


def test_half_the_rate_halves_lengths_and_keeps_the_scale(root) -> None:
    time = np.arange(1001) / RATE
    for digit, frequency in {0: 500, 1: 3000}.items():
        write(root / "recordings" / f"{digit}_ann_0.wav", 9000 * np.sin(2 * np.pi * frequency * time))
    full, half = fsdd(root, length=1201), fsdd(root, length=1201, rate=2)
    assert (half.length, half.split) == (601, full.split.replace("8000 Hz", "4000 Hz"))
    (x, y, lengths), (slow, same, shorter) = (drawn(d.test_dataloader()) for d in (full, half))
    assert torch.equal(y, same)
    assert torch.equal(shorter, (lengths + 1) // 2)
    loud, inner = x.abs().max(), slice(50, 450)
    assert (slow[0] - x[0, ::2])[inner].abs().max() < 0.01 * loud
    high = int(((y == 1) & (lengths == 1001)).nonzero())
    assert slow[high][inner].abs().max() < 0.01 * loud
    assert x[high, ::2][inner].abs().max() > 0.5 * loud


def test_the_folder_its_parent_and_the_archive_give_the_same_rows(root, tmp_path) -> None:
    expected = drawn(fsdd(root).train_dataloader())
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "recordings.tar", "w") as archive:
        for path in sorted((root / "recordings").iterdir(), reverse=True):
            archive.add(path, f"recordings/{path.name}")
    for other in (root / "recordings", packed, packed / "recordings.tar"):
        for one, two in zip(drawn(fsdd(other).train_dataloader()), expected, strict=True):
            assert torch.equal(one, two), other


def test_only_3000_clips_are_the_full_set(root, monkeypatch) -> None:
    assert MODULE.PUBLISHED == 3000
    monkeypatch.setattr(MODULE, "PUBLISHED", 160)
    assert fsdd(root).facts()["size"] == "other"
    content = ContentDigest()
    for path in (root / "recordings").iterdir():
        content.add(path.name, path.read_bytes())
    monkeypatch.setattr(MODULE, "CONTENT", content.hexdigest())
    found = fsdd(root, length=7_999).facts()  # prepared anew: what was published is kept with the arrays
    assert (found["size"], found["name"]) == ("full", "fsdd")
    assert found["split"].startswith("test: index 0 to 4, the official one; ")


def change(root: Path, what: str) -> Path | None:
    """Break the data in one way; the root to give."""
    clips = root / "recordings"
    if what == "nothing":
        return None
    if what == "no root":
        return root / "nowhere"
    if what == "empty":
        shutil.rmtree(clips)
        clips.mkdir()
    elif what == "name":
        write(clips / "ten_ann_0.wav", np.ones(10))
    elif what == "rate":
        write(clips / "3_ann_4.wav", np.ones(10), 16_000)
    elif what == "stereo":
        write(clips / "3_ann_4.wav", np.ones((10, 2)))
    elif what == "silent":
        write(clips / "3_ann_4.wav", [])
    elif what == "bytes":
        (clips / "3_ann_4.wav").write_bytes(b"not a recording")
    elif what == "no test":
        for path in clips.glob("*_[0-4].wav"):
            path.unlink()
    elif what == "cut":
        with tarfile.open(root / "recordings.tar", "w") as archive:
            archive.add(clips, "recordings")
        shutil.rmtree(clips)
        data = (root / "recordings.tar").read_bytes()
        (root / "recordings.tar").write_bytes(data[: len(data) // 2])
    return root


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (
            "nothing",
            FileNotFoundError,
            r"no archive with a published checksum; clone github\.com/.* and set data\.root",
        ),
        ("no root", FileNotFoundError, r"no recordings/, recordings\.tar or \*\.wav in .*nowhere; set data\.root"),
        ("empty", ValueError, r"no \.wav file in .*recordings; set data\.root"),
        ("name", ValueError, r"ten_ann_0\.wav: not named \{digit\}_\{speaker\}_\{index\}\.wav; rename or remove it"),
        ("rate", ValueError, r"3_ann_4\.wav: 16000 Hz, .*must be 8000 Hz"),
        ("stereo", ValueError, r"3_ann_4\.wav: 8000 Hz, 2 channel\(s\), .*must be 8000 Hz, 1 channel"),
        ("silent", ValueError, r"3_ann_4\.wav: 0 samples, must be at least 1"),
        ("bytes", ValueError, r"3_ann_4\.wav: starts with b'not a record'"),
        ("cut", ValueError, r"recordings\.tar: not a whole tar archive"),
    ],
)
def test_wrong_data_says_what_and_where_in_one_line(root, tmp_path, what, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        fsdd(change(root, what))
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "dataset").rglob("*") if p.is_file()]  # nothing half written


def test_clips_of_one_part_only_are_refused(root) -> None:
    with pytest.raises(ValueError, match=r"0 of 60 clips are for testing \(test: index 0 to 4.*add the others"):
        fsdd(change(root, "no test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"rate": 0}, "rate must be at least 1, got 0"),
        ({"scaling": 0.0}, r"scaling must be above 0 .*, got 0\.0"),
        ({"root": "x"}, r"data\.root and data\.generated=true are both set; drop one"),
        ({"leave_out": "theo"}, "leave_out must be null or one of none, got theo"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        fsdd(generated=True, **options)


def test_the_stand_in_has_the_shapes_and_can_be_learned(tmp_path) -> None:
    data = fsdd(generated=True, batch_size=1)
    facts = data.facts()
    assert (facts["size"], facts["train"] + facts["val"], facts["test"]) == ("generated", 256, 64)
    assert (data.length, data.d_input, data.d_output) == (8000, 1, 10)
    x, y, lengths = drawn(data.train_dataloader())
    assert 2000 <= int(lengths.min()) < int(lengths.max()) <= 8000
    assert not x[torch.arange(8000) >= lengths[:, None]].any()
    test, labels, _ = drawn(data.test_dataloader())
    spectra = [torch.nn.functional.normalize(torch.fft.rfft(part[:, :, 0]).abs()) for part in (x, test)]
    means = torch.stack([spectra[0][y == k].mean(0) for k in range(10)])
    assert (torch.cdist(spectra[1], means).argmin(1) == labels).float().mean() > 0.9
    assert fsdd(generated=True, rate=2, length=101).length == 51
    assert not list(tmp_path.iterdir())  # no file was touched


def test_the_configuration_has_every_option_with_its_default() -> None:
    path = Path(__file__).parents[3] / "configs" / "dataset" / "fsdd.yaml"
    keys = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    own = {k: p.default for k, p in inspect.signature(fsdd).parameters.items() if k not in ("seed", "options")}
    common = {"batch_size", "val_fraction", "num_workers", "limit_train", "limit_eval", "seed", "_target_"}
    assert set(keys) == set(own) | common
    assert {k: keys[k] for k in own} == own
