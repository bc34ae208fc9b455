"""SHD and SSC: files, parts, defaults, and labels that are probabilities in training."""

import gzip
import importlib
import re
import shutil

import numpy as np
import pytest
import torch

from spikingssm.datasets import Batch, shd, ssc
from spikingssm.datasets.heidelberg import Recordings, write_recordings
from spikingssm.datasets.shd import FILE, PUBLISHED
from spikingssm.tasks import Classification


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def recordings(count: int, classes: int, seed: int, speakers) -> Recordings:
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, 800_000, (count, 50)), 1).reshape(-1)
    units = random.integers(0, 700, count * 50).astype(np.uint16)
    return Recordings(
        times, units, np.arange(count + 1) * 50, np.arange(count) % classes, random.choice(speakers, count)
    )


def write(root, name: str = "shd", classes: int = 20) -> None:
    names = [str(n) for n in range(classes)]
    for seed, part in enumerate(PUBLISHED[name]):
        speakers = [0, 1, 2, 3, 6, 7] if part != "test" else [0, 1, 4, 5]
        count = 80 if part == "train" else 40
        write_recordings(root / f"{name}_{FILE[part]}.h5", recordings(count, classes, seed, speakers), names)


@pytest.mark.parametrize("folder", ["", "SHD"])
@pytest.mark.parametrize("packed", [False, True])
def test_shd_is_found_where_people_keep_it(tmp_path, folder, packed) -> None:
    write(tmp_path / "data" / folder)
    if packed:
        for path in (tmp_path / "data" / folder).glob("*.h5"):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    data = shd(tmp_path / "data", batch_size=8)
    facts = data.facts()
    assert (facts["length"], facts["d_input"], facts["d_output"], facts["size"]) == (250, 140, 20, "subset")
    assert facts["train"] + facts["val"] == 80
    assert facts["test"] == 40
    assert "with the speakers 4, 5 that training lacks; validation: all recordings of the training" in facts["split"]
    batch = next(iter(data.train_dataloader()))
    assert (tuple(batch.x.shape), batch.y.dtype, batch.lengths) == ((8, 250, 140), torch.int64, None)


def test_ssc_has_validation_of_its_own_and_mixes_labels_in_training(tmp_path) -> None:
    write(tmp_path, "ssc", 35)
    data = ssc(tmp_path, batch_size=8)
    facts = data.facts()
    assert (facts["train"], facts["val"], facts["test"], facts["d_output"]) == (80, 40, 40, 35)
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert (tuple(train.y.shape), train.y.dtype, val.y.tolist()) == ((8, 35), torch.float32, list(range(8)))
    torch.testing.assert_close(train.y.sum(1), torch.ones(8))


def named(root, train: list[str], test: list[str]) -> None:
    """Files with these speakers, as many recordings of each."""
    for part, names, seed in (("train", train, 0), ("test", test, 1)):
        speakers = np.array(names * (40 // len(names) + 1))[:40]
        found = recordings(40, 20, seed, [0])._replace(speakers=speakers)
        write_recordings(root / f"shd_{part}.h5", found, [str(n) for n in range(20)])


def test_validation_can_be_single_recordings(tmp_path) -> None:
    """Recordings are known by their frames, made here one event at a time."""
    write(tmp_path)
    known, speaker_of = recordings(80, 20, 0, [0, 1, 2, 3, 6, 7]), {}
    for number in range(80):
        frame = torch.zeros(250, 700)
        for event in range(50 * number, 50 * number + 50):
            if known.units[event]:
                frame[-(-int(known.times[event]) // 4000), 700 - int(known.units[event])] = 1
        speaker_of[frame.numpy().tobytes()] = int(known.speakers[number])
    options = {"channels": 700, "bins": "brf", "jitter_us": 0.0, "channel_shift": False, "batch_size": 4, "seed": 1}
    found = {}
    for val_split in ("speakers", "random"):
        data = shd(tmp_path, val_split=val_split, **options)
        parts = (data.train_set, data.train_rows), (data.val_set, data.val_rows)
        found[val_split] = [[speaker_of[part[i].x[0].numpy().tobytes()] for i in rows.tolist()] for part, rows in parts]
    assert not set(found["speakers"][0]) & set(found["speakers"][1])
    assert set(found["random"][1]) <= set(found["random"][0])
    assert [len(part) for part in found["random"]] == [72, 8]
    assert data.facts()["split"].endswith("; validation: single training recordings, by the seed")
    with pytest.raises(ValueError, match=r"shd: data\.val_split must be one of speakers, random, got rows"):
        shd(tmp_path, val_split="rows")


def test_speakers_are_compared_by_name_and_named_where_they_are_few(tmp_path) -> None:
    named(tmp_path, ["bob", "zoe"], ["alice", "ann", "bob"])
    split = shd(tmp_path, batch_size=4).facts()["split"]
    assert split.startswith("test: as in shd_test.h5, with the speakers alice, ann that training lacks; ")
    assert re.search("validation: all recordings of the training speaker (bob|zoe), by the seed$", split)
    named(tmp_path, ["bob", "zoe"], ["bob", "zoe"])
    assert "with no speaker that training lacks" in shd(tmp_path, batch_size=4).facts()["split"]
    named(tmp_path, ["bob", "zoe"], [f"s{n:02}" for n in range(30)])
    assert (
        "with 30 speakers (such as s00, s01, s02) that training lacks" in shd(tmp_path, batch_size=4).facts()["split"]
    )


def test_names_and_numbers_of_speakers_are_not_compared(tmp_path) -> None:
    named(tmp_path, ["bob", "zoe"], ["bob"])
    write_recordings(tmp_path / "shd_test.h5", recordings(40, 20, 1, [0, 1]), [str(n) for n in range(20)])
    assert shd(tmp_path, batch_size=4).facts()["split"].startswith("test: as in shd_test.h5; validation: all")


def test_a_fraction_for_validation_is_refused_where_it_has_no_use(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"ssc: data.val_fraction=0.3, but validation is the file ssc_valid.h5; drop"):
        ssc(generated=True, val_fraction=0.3)
    assert ssc(generated=True, batch_size=4, val_fraction=None).facts()["val"] == 64
    with pytest.raises(ValueError, match=r"shd: data.val_fraction must be between 0 and 1, such as 0.1, got None"):
        shd(generated=True, val_fraction=None)


def test_the_complete_release_is_full(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    monkeypatch.setitem(PUBLISHED, "shd", {"train": 80, "test": 40})
    assert shd(tmp_path, batch_size=4).facts()["size"] == "full"


def test_a_missing_file_and_a_file_of_the_other_set_are_named(tmp_path) -> None:
    write(tmp_path, "ssc", 35)
    (tmp_path / "ssc_valid.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"ssc: no ssc_valid.h5 or ssc_valid.h5.gz or .* set data.root"):
        ssc(tmp_path)
    for part in ("train", "test"):
        shutil.copy(tmp_path / f"ssc_{part}.h5", tmp_path / f"shd_{part}.h5")
    with pytest.raises(ValueError, match=r"shd: labels of train are 0 to 34, must be from 0 to 19; set data.root"):
        shd(tmp_path, batch_size=4)
    with pytest.raises(ValueError, match=r"data.root and data.generated=true are both set"):
        shd(tmp_path, generated=True)


def test_without_a_folder_the_release_is_downloaded(monkeypatch) -> None:
    asked = []

    def fetch(*what):
        asked.append(what)
        raise OSError("no connection")

    monkeypatch.setattr(importlib.import_module("spikingssm.datasets.shd"), "fetch", fetch)
    with pytest.raises(OSError, match="no connection"):
        shd()
    assert asked[0][:3] == (
        "https://zenkelab.org/datasets/", "shd_train.h5.zip", "md5:f3252aeb598ac776c1b526422d90eecb",
    )  # fmt: skip


@pytest.mark.parametrize(("make", "classes"), [(shd, 20), (ssc, 35)])
def test_the_stand_in_has_the_shape_and_can_be_told_apart(make, classes) -> None:
    data = make(generated=True, batch_size=64, jitter_us=0.0, channel_shift=False, cutmix=False)
    assert data.facts()["size"] == "generated"
    assert (data.length, data.d_input, data.d_output) == (250, 140, classes)

    def profile(loader):
        batches = list(loader)
        x = torch.cat([b.x for b in batches])
        return x.view(len(x), 5, 50, 140).sum(2).flatten(1), torch.cat([b.y for b in batches])

    (x, y), (test_x, test_y) = profile(data.train_dataloader()), profile(data.test_dataloader())
    means = torch.stack([x[y == c].mean(0) for c in range(classes)])
    assert (torch.cdist(test_x, means).argmin(1) == test_y).float().mean() > 0.8


def test_probabilities_as_labels_are_judged_by_cross_entropy_and_their_largest() -> None:
    logits, y = torch.randn(6, 5), torch.rand(6, 5).softmax(1)
    model = lambda x, state, lengths: (logits, None)  # noqa: E731
    outcome = Classification().run(model, Batch(torch.zeros(6, 3, 1), y))
    by_hand = -sum(float(y[i, c] * logits[i].log_softmax(0)[c]) for i in range(6) for c in range(5)) / 6
    assert outcome.loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert outcome.count == 6
    assert torch.equal(outcome.updates["accuracy"][1], y.argmax(1))
    smooth = Classification(label_smoothing=0.2)
    mixed = 0.8 * by_hand - 0.2 * logits.log_softmax(1).mean().item()
    assert smooth.loss(logits, y).item() == pytest.approx(mixed, rel=1e-5)
    assert smooth.loss(logits, y, training=False).item() == pytest.approx(by_hand, rel=1e-5)
    one_hot = torch.nn.functional.one_hot(torch.arange(5), 5).float()
    torch.testing.assert_close(smooth.loss(logits[:5], one_hot), smooth.loss(logits[:5], torch.arange(5)))
    for wrong in (torch.zeros(6, 4), torch.zeros(6, 5, dtype=torch.long)):
        with pytest.raises(ValueError, match="labels of every step need"):
            Classification().scored(logits, Batch(torch.zeros(6, 3, 1), wrong))
