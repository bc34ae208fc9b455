"""Speech Commands: which clip goes where, how it is scaled, and what a wrong folder says."""

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

from spikingssm.datasets.speech_commands import TEN_WORDS, WORDS, speech_commands

MODULE = import_module("spikingssm.datasets.speech_commands")
RATE = LENGTH = 16_000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, samples, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples, np.int16), rate, subtype="PCM_16")


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """Four clips of each of the ten words; the clip n of word k has the value 100 (k + 1) + n throughout."""
    root = tmp_path_factory.mktemp("speech_commands")
    release = root / "SpeechCommands" / "speech_commands_v0.02"
    for k, word in enumerate(TEN_WORDS):
        for n in range(4):
            write(release / word / f"abc{n}_nohash_0.wav", np.full(LENGTH - 1000 * (n == 3), 100 * (k + 1) + n))
    write(release / "_background_noise_" / "hum.wav", np.ones(20 * LENGTH))
    write(release / "zebra" / "abc0_nohash_0.wav", np.ones(LENGTH))
    (release / "testing_list.txt").write_text("".join(f"{word}/abc1_nohash_0.wav\n" for word in TEN_WORDS))
    (release / "validation_list.txt").write_text("".join(f"{word}/abc2_nohash_0.wav\r\n" for word in TEN_WORDS))
    return root


@pytest.fixture
def root(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "data"))


def release(root: Path) -> Path:
    return root / "SpeechCommands" / "speech_commands_v0.02"


def load(*args, **options):
    return speech_commands(*args, **{"batch_size": 20, **options})


def drawn(loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    assert all(batch.lengths is None for batch in batches)
    return torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])


def test_the_lists_name_the_parts_and_the_rest_is_for_training(root) -> None:
    data = load(root, classes=10, scaling=1.0, batch_size=4)
    facts = data.facts()
    assert (facts["train"], facts["val"], facts["test"], facts["size"]) == (20, 10, 10, "subset")
    assert (data.length, data.d_input, data.d_output) == (16_000, 1, 10)
    for part, clips in {"train": {0, 3}, "val": {2}, "test": {1}}.items():
        x, y = drawn(getattr(data, f"{part}_dataloader")())
        assert (x.shape[1:], x.dtype, y.dtype) == ((16_000, 1), torch.float32, torch.int64)
        first = torch.round(x[:, 0, 0] * 2**15).long()
        assert set((first % 100).tolist()) == clips
        assert torch.equal(first // 100 - 1, y)
        assert set(y.tolist()) == set(range(10))


def test_a_short_clip_ends_in_zeros(root) -> None:
    x, _ = drawn(load(root, classes=10, batch_size=20).train_dataloader())
    short = x[x[:, -1, 0] == 0]
    assert len(short) == 10
    assert (short[:, :-1000] != 0).all()
    assert (short[:, -1000:] == 0).all()


def test_the_scale_is_that_of_the_training_part_alone(root) -> None:
    data = load(root, classes=10, batch_size=20)
    x, _ = drawn(data.train_dataloader())
    assert float(x.square().mean()) == pytest.approx(1, rel=1e-4)
    values = np.array([100 * (k + 1) + n for k in range(10) for n in (0, 3)], float)
    rms = np.sqrt((values**2 * np.tile([16_000, 15_000], 10)).sum() / (20 * LENGTH)) / 2**15
    assert f"samples / 2^15 / {rms:.4g}" in data.split
    test, _ = drawn(data.test_dataloader())
    assert float(test[0, 0, 0]) == pytest.approx(101 / 2**15 / rms, rel=1e-5)
    limited, _ = drawn(load(root, classes=10, limit_train=2, batch_size=2).test_dataloader())
    assert torch.equal(limited, test)


def test_half_the_rate_keeps_the_scale_and_drops_what_it_cannot_carry(root) -> None:
    time = np.arange(LENGTH) / RATE
    for word, frequency in {"yes": 1000, "no": 6000}.items():
        write(release(root) / word / "abc1_nohash_0.wav", 9000 * np.sin(2 * np.pi * frequency * time))
    full = load(root, classes=10)
    half = load(root, classes=10, rate=2)
    assert (half.length, half.split) == (8000, full.split.replace("16000 Hz", "8000 Hz"))
    x, y = drawn(full.test_dataloader())
    slow, same = drawn(half.test_dataloader())
    assert torch.equal(y, same)
    low, high = (int((y == TEN_WORDS.index(word)).nonzero()) for word in ("yes", "no"))
    inner, loud = slice(100, -100), x.abs().max()
    assert (slow[low] - x[low, ::2])[inner].abs().max() < 0.01 * loud
    assert slow[high][inner].abs().max() < 0.01 * loud
    assert x[high, ::2][inner].abs().max() > 0.5 * loud


def test_folders_and_archives_at_every_level_give_the_same_rows(root, tmp_path) -> None:
    expected = drawn(load(root, classes=10).train_dataloader())
    (tmp_path / "packed").mkdir()
    for name, inside in {"all.tar.gz": ".", "speech_commands_x.tar.xz": "SpeechCommands/speech_commands_v0.02"}.items():
        with tarfile.open(tmp_path / "packed" / name, f"w:{name[-2:]}") as archive:
            for path in sorted((p for p in release(root).rglob("*") if p.is_file()), reverse=True):
                archive.add(path, f"{inside}/{path.relative_to(release(root)).as_posix()}")
    roots = [root / "SpeechCommands", release(root), tmp_path / "packed" / "all.tar.gz", tmp_path / "packed"]
    for other in roots:
        x, y = drawn(load(other, classes=10).train_dataloader())
        assert torch.equal(x, expected[0]), other
        assert torch.equal(y, expected[1]), other


def test_all_35_words_have_the_labels_of_the_alphabet_and_few_of_them_are_a_subset(root) -> None:
    assert list(WORDS) == sorted(set(WORDS))
    assert (len(WORDS), set(TEN_WORDS) - set(WORDS)) == (35, set())
    data = load(root)
    assert (data.d_output, data.facts()["size"]) == (35, "subset")
    _, y = drawn(data.test_dataloader())
    assert sorted(WORDS[label] for label in y) == sorted(TEN_WORDS)


def test_only_the_published_numbers_of_clips_are_the_full_set(root, monkeypatch) -> None:
    monkeypatch.setattr(MODULE, "PUBLISHED", {35: (20, 10, 10), 10: (20, 10, 9)})
    assert load(root).facts()["size"] == "full"
    assert load(root, limit_eval=9).facts()["size"] == "subset"
    assert load(root, classes=10).facts()["size"] == "subset"


def test_a_second_call_reads_the_cache_and_a_changed_file_is_read_again(root, monkeypatch) -> None:
    load(root, classes=10)
    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "_read", lambda *_: pytest.fail("read again"))
        load(root, classes=10)
    write(release(root) / "yes" / "abc9_nohash_0.wav", np.full(LENGTH, 7))
    assert load(root, classes=10).facts()["train"] == 21


def test_without_a_root_the_published_archive_is_fetched_with_its_checksum(root, tmp_path, monkeypatch) -> None:
    asked = []

    def fetch(url: str, name: str, sha256: str, folder: Path) -> Path:
        asked.extend([url + name, sha256, str(folder)])
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(release(root), ".")
        return tmp_path / name

    monkeypatch.setattr(MODULE, "fetch", fetch)
    assert load(classes=10).facts()["test"] == 10
    assert asked[0] == "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
    assert len(bytes.fromhex(asked[1])) == 32
    assert Path(asked[2]) == Path("dataset/cache/speech_commands")


def change(root: Path, what: str) -> Path:
    """Break the data in one way; the root to give."""
    home = release(root)
    clip = home / "left" / "abc0_nohash_0.wav"
    if what == "no root":
        return root / "nowhere"
    if what in ("no word", "no words"):
        for word in TEN_WORDS if what == "no words" else ("go", "up"):
            shutil.rmtree(home / word)
    elif what == "one list":
        (home / "testing_list.txt").unlink()
    elif what == "no lists":
        for path in home.glob("*.txt"):
            path.unlink()
    elif what == "empty list":
        (home / "validation_list.txt").write_text("")
    elif what == "long":
        write(clip, np.ones(16_001))
    elif what == "rate":
        write(clip, np.ones(100), 8000)
    elif what == "bytes":
        clip.write_bytes(b"not a recording")
    elif what.endswith("archive"):
        with tarfile.open(root / "speech_commands.tar.gz", "w:gz") as archive:
            archive.add(home, "x", filter=lambda member: None if member.name.endswith("list.txt") else member)
        shutil.rmtree(root / "SpeechCommands")
        if what == "cut archive":
            data = (root / "speech_commands.tar.gz").read_bytes()
            (root / "speech_commands.tar.gz").write_bytes(data[: len(data) // 2])
        if what == "second archive":
            shutil.copy(root / "speech_commands.tar.gz", root / "speech_commands_v0.01.tar.gz")
    return root


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (
            "no root",
            FileNotFoundError,
            r"no testing_list\.txt in .*nowhere.*set data\.root to the folder that holds it",
        ),
        ("no word", ValueError, r"no clip of go, up in .*; data\.classes=10 needs them"),
        ("no words", ValueError, r"no clip of down, go, .*yes in"),
        ("one list", FileNotFoundError, r"no testing_list\.txt in .*v0\.02; the lists of the release belong"),
        ("no lists", FileNotFoundError, r"no validation_list\.txt and testing_list\.txt in"),
        ("empty list", ValueError, r"none of the 40 clips in .* is in validation_list\.txt; copy the data set again"),
        ("long", ValueError, r"left/abc0_nohash_0\.wav: 16001 samples, must be at most 16000; cut it"),
        ("rate", ValueError, r"left/abc0_nohash_0\.wav: 8000 Hz, .*must be 16000 Hz"),
        ("bytes", ValueError, r"left/abc0_nohash_0\.wav: starts with b'not a record'"),
        ("bare archive", FileNotFoundError, r"no validation_list\.txt and testing_list\.txt in .*tar\.gz"),
        ("cut archive", ValueError, r"speech_commands\.tar\.gz: not a whole tar archive"),
        (
            "second archive",
            ValueError,
            r"holds speech_commands\.tar\.gz, speech_commands_v0\.01\.tar\.gz; set data\.root",
        ),
    ],
)
def test_wrong_data_says_what_and_where_in_one_line(root, tmp_path, what, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        load(change(root, what), classes=10)
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "dataset").rglob("*") if p.is_file()]  # nothing half written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 12}, "classes must be 35 or 10, got 12"),
        ({"rate": 0}, "rate must be at least 1 .*, got 0"),
        ({"scaling": -1.0}, r"scaling must be above 0 .*, got -1\.0"),
        ({"root": "x"}, r"data\.root and data\.generated=true are both set; drop one"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        speech_commands(generated=True, **options)


def test_the_stand_in_has_the_shapes_and_can_be_learned(tmp_path) -> None:
    data = speech_commands(generated=True, batch_size=64)
    facts = data.facts()
    assert (facts["size"], facts["train"], facts["val"], facts["test"]) == ("generated", 256, 64, 64)
    assert (data.length, data.d_input, data.d_output) == (16_000, 1, 35)
    x, y = drawn(data.train_dataloader())
    test, labels = drawn(data.test_dataloader())
    assert not torch.equal(test[0], x[0])
    spectra = [torch.fft.rfft(part[:, :, 0]).abs()[:, :4000] for part in (x, test)]
    means = torch.stack([spectra[0][y == k].mean(0) for k in range(35)])
    assert (torch.cdist(spectra[1], means).argmin(1) == labels).float().mean() > 0.9
    assert speech_commands(generated=True, rate=2).length == 8000
    assert not list(tmp_path.iterdir())  # no file was touched


def test_the_configuration_has_every_option_with_its_default() -> None:
    path = Path(__file__).parents[3] / "configs" / "dataset" / "speech_commands.yaml"
    keys = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    own = {
        k: p.default for k, p in inspect.signature(speech_commands).parameters.items() if k not in ("seed", "options")
    }
    common = {"batch_size", "val_fraction", "num_workers", "limit_train", "limit_eval", "seed", "_target_"}
    assert set(keys) == set(own) | common
    assert {k: keys[k] for k in own} == own
