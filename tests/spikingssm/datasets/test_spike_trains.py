"""Batches of spikes as functions of seed, epoch and rows; validation by speaker; no event lost unsaid."""

import pickle
import re

import numpy as np
import pytest
import torch
from loguru import logger
from scipy.stats import norm
from test_binning import by_loop, draw

from spikingssm.datasets import spike_trains
from spikingssm.datasets.augment import JITTER, MIX, cutmix, generator, time_jitter
from spikingssm.datasets.binning import Binning
from spikingssm.datasets.heidelberg import map_recordings, write_recordings
from spikingssm.datasets.order import EpochSampler, split_groups
from spikingssm.datasets.spike_trains import binned, spike_data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(seed: int = 0, **options):
    base = {"classes": 4, "binning": Binning(channels=7, steps=20), "batch_size": 6, "seed": seed}
    return spike_data("small", draw([40] * 50, 1), draw([30] * 8, 2), **base | options)


def epoch_of(data, epoch: int, first_batch: int = 0):
    data.first_epoch, data.first_batch = epoch, first_batch
    return list(data.train_dataloader())


AUGMENTED = {"jitter_us": 30_000.0, "channel_shift": "batch", "cutmix": "published"}


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True) if a is not None
    )


@pytest.mark.parametrize(
    "binning", [Binning(channels=7, steps=20), Binning(7, "fixed", 20, 40.0)], ids=["own", "fixed"]
)
def test_a_resumed_run_draws_what_it_would_have_drawn(binning) -> None:
    whole = epoch_of(small(binning=binning, **AUGMENTED), 5)
    assert len(whole) == 6
    data = small(binning=binning, **AUGMENTED)
    rows = list(EpochSampler(data.train_rows, 0, 5, batch_size=6))
    assert same([data.train_set.draw(rows[start : start + 6], 5) for start in range(0, 36, 6)], whole)
    assert same(epoch_of(small(binning=binning, **AUGMENTED), 5, 4), whole[4:])
    loader = small(binning=binning, **AUGMENTED).train_dataloader()
    loader.sampler.set_epoch(5)
    assert same(list(loader), whole)
    assert not same(epoch_of(small(binning=binning, **AUGMENTED), 6), whole)
    assert not same(epoch_of(small(binning=binning, seed=1, **AUGMENTED), 5), whole)


def test_worker_processes_draw_the_same_and_follow_the_epoch() -> None:
    loader = small(num_workers=2, **AUGMENTED).train_dataloader()
    for epoch in (3, 4):
        loader.sampler.set_epoch(epoch)
        assert same(list(loader), epoch_of(small(**AUGMENTED), epoch))


def test_a_row_is_jittered_alike_in_every_batch_and_otherwise_in_every_epoch() -> None:
    data = small(jitter_us=30_000.0)
    rows = [3, 8, 20, 1]
    drawn = data.train_set.draw(rows, 2)
    alone = [data.train_set.draw([row], 2) for row in reversed(rows)]
    assert torch.equal(torch.cat([batch.x for batch in reversed(alone)]), drawn.x)
    assert not torch.equal(data.train_set.draw(rows, 3).x, drawn.x)
    assert torch.equal(data.train_set.draw(rows, 3).y, drawn.y)


def test_a_training_batch_is_jittered_binned_mixed_and_shifted_in_this_order() -> None:
    recordings, binning = draw([40] * 50, 1), Binning(channels=7, steps=20)
    data = small(**AUGMENTED)
    rows = [4, 9, 13, 2, 30, 21]
    kept = split_groups("small", recordings.speakers, 0.1, 0)[0]
    frames = []
    for row in kept[rows]:
        events = slice(recordings.starts[row], recordings.starts[row + 1])
        noise = generator(0, 7, JITTER, int(row))
        times, units = time_jitter(recordings.times[events], recordings.units[events], 30_000.0, noise)
        order = np.argsort(times, kind="stable")
        frames.append(by_loop(binning, times[order].tolist(), units[order].tolist())[0] > 0)
    mix = cutmix(np.stack(frames).astype(np.uint8), "published", generator(0, 7, MIX, *kept[rows].tolist()))
    drawn = data.train_set.draw(rows, 7)
    fits = [s for s in (-1, 0, 1) if np.array_equal(np.roll(mix.x, s, -1), drawn.x.numpy())]
    assert len(fits) == 1
    labels = recordings.labels[kept[rows]]
    for row in range(6):
        wanted = np.zeros(4)
        wanted[labels[row]] += mix.weight[row]
        wanted[labels[mix.partner[row]]] += 1 - mix.weight[row]
        np.testing.assert_allclose(drawn.y[row], wanted, atol=1e-6)
    assert drawn.y.dtype == torch.float32


def test_validation_and_test_are_never_augmented() -> None:
    plain, augmented = small(), small(**AUGMENTED)
    for part in ("val_dataloader", "test_dataloader"):
        assert same(list(getattr(plain, part)()), list(getattr(augmented, part)()))
    assert plain.train_set.draw is None
    batch = next(iter(plain.train_dataloader()))
    assert (batch.x.dtype, batch.y.dtype, batch.lengths) == (torch.float32, torch.int64, None)
    assert set(batch.x.unique().tolist()) == {0, 1}


def test_lengths_of_fixed_bins_cover_every_event_of_a_batch() -> None:
    options = {"binning": Binning(7, "fixed", 20, 40.0, binary=False)}
    for augmentation in ({}, {"jitter_us": 5e4}, {"cutmix": "corrected"}, AUGMENTED):
        data = small(**options, **augmentation)
        for batch in [*data.train_dataloader(), *data.test_dataloader()]:
            last = [int(row.any(-1).nonzero().max()) + 1 for row in batch.x]
            assert all(length >= end for length, end in zip(batch.lengths.tolist(), last, strict=True))
            if not augmentation:
                assert batch.lengths.tolist() == last


def test_frames_in_the_cache_are_those_in_memory_and_are_made_once(tmp_path, monkeypatch) -> None:
    recordings, binning = draw([0, 30, 20], 4), Binning(channels=70, binary=False)
    wanted = binned("x", recordings, binning)
    assert wanted.sum() == 50 - sum(binning.lost(recordings.times[s]) for s in (slice(0, 30), slice(30, 50)))
    np.testing.assert_array_equal(binned("x", recordings, binning, {"a": 1}), wanted)
    assert len(list((tmp_path / "dataset/cache").glob("bins-x-*"))) == 1
    with monkeypatch.context() as once:
        once.setattr(Binning, "frame", None)
        np.testing.assert_array_equal(binned("x", recordings, binning, {"a": 1}), wanted)
    binned("x", recordings, Binning(channels=70), {"a": 1})
    assert len(list((tmp_path / "dataset/cache").glob("bins-x-*"))) == 2


def test_facts_count_events_those_lost_and_empty_recordings() -> None:
    binning = Binning(7, "fixed", 10, 40.0, binary=False)
    train, test = draw([40, 0, 25, 0, 3] * 6, 1, speakers=3), draw([9, 0], 2)
    data = spike_data("small", train, test, classes=4, binning=binning, batch_size=2)
    facts = data.facts()
    for part, loaded in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        inside = int(sum(batch.x.sum() for batch in loaded))
        assert facts["events"][part] == inside + facts["events_lost"][part]
    assert facts["events"]["train"] + facts["events"]["val"] == len(train.times)
    assert facts["events_lost"]["val"] + facts["events_lost"]["train"] == (train.times >= 400_000).sum() > 0
    assert facts["empty_recordings"]["train"] + facts["empty_recordings"]["val"] == 12
    assert facts["empty_recordings"]["test"] == 1
    jittered = spike_data("small", train, test, classes=4, binning=binning, batch_size=2, **AUGMENTED)
    said = jittered.facts()
    assert said.pop("events_jittered_away") == {"train": pytest.approx(dropped_on_average(data, train), abs=0.06)}
    assert said == facts
    assert all(torch.isfinite(batch.y).all() for batch in jittered.train_dataloader())


def test_bins_that_lose_many_events_are_warned_of() -> None:
    train, test = draw([40, 25] * 9, 1, speakers=3), draw([30, 30], 2)
    said: list[str] = []
    handler = logger.add(said.append, level="WARNING", format="{message}")
    try:
        for width in (1000.0, 4.0):  # all of the events, hardly any
            binning = Binning(7, "fixed", 10, width)
            spike_data("small", train, test, classes=4, binning=binning, batch_size=2)
            assert len(said) == (0 if width == 1000.0 else 3)
    finally:
        logger.remove(handler)
    assert "events are in none of the 10 fixed bins; raise data.steps or data.bin_ms" in said[0]


def dropped_on_average(data, train) -> float:
    """Events of the training recordings before 0 after the jitter of `AUGMENTED`."""
    kept = split_groups("small", train.speakers, 0.1, 0)[0]
    assert len(kept) == len(data.train_rows)
    times = np.concatenate([train.times[train.starts[row] : train.starts[row + 1]] for row in kept])
    return float(norm.cdf(-(times + 1) / 30_000.0).sum())


def test_speakers_are_on_one_side_and_about_the_fraction_is_held_out() -> None:
    held = set()
    for seed in range(12):
        speakers = np.random.default_rng(seed).integers(0, 10, 400)
        train, val = split_groups("x", speakers, 0.2, seed)
        assert sorted([*train, *val]) == list(range(400))
        assert not set(speakers[train]) & set(speakers[val])
        assert 50 < len(val) < 115
        held.add(tuple(sorted(set(speakers[val]))))
    assert len(held) > 6
    assert split_groups("x", np.array([0, 0, 0, 1, 1]), 0.1, 0)[1].tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"x: data.val_fraction must be between 0 and 1, such as 0.1, got None"):
        split_groups("x", np.array([0, 0, 0, 1, 1]), None, 0)
    for wrong in (0.0, 1.0, 0.99):
        with pytest.raises(ValueError, match="some of the 2 groups on both sides"):
            split_groups("x", np.array([0, 0, 0, 1, 1]), wrong, 0)


def test_recordings_are_held_out_one_by_one_where_speakers_are_not_known() -> None:
    options = {"classes": 4, "binning": Binning(channels=7, steps=20), "batch_size": 4, "val_fraction": 0.3}
    for speakers, more, why in (
        (0, {}, "speakers are not known"),
        (1, {}, "there is one speaker"),
        (5, {"by_speaker": False}, "by the seed"),
    ):
        train = draw([12] * 40, 1, speakers=speakers)
        data = spike_data("x", train, draw([9], 2), **options, **more)
        assert data.facts()["split"].endswith(why)
        assert "single training recordings" in data.facts()["split"]
        assert (len(data.train_rows), len(data.val_rows)) == (28, 12)
    known = spike_data("x", draw([12] * 40, 1), draw([9], 2), **options)
    assert "all recordings of the training speaker" in known.facts()["split"]


def test_speakers_are_named_where_they_are_few_and_may_be_names() -> None:
    options = {"classes": 4, "binning": Binning(channels=7, steps=20), "batch_size": 4}
    train = draw([12] * 40, 1, speakers=40)
    many = spike_data("x", train, draw([9], 2), val_fraction=0.5, **options).facts()["split"]
    assert re.search(r"all recordings of 20 training speakers \(such as \d+, \d+, \d+\), by the seed$", many)
    names = np.array(["zoe", "ann", "bob", "eve"])[train.speakers % 4]
    data = spike_data("x", train._replace(speakers=names), draw([9], 2), val_fraction=0.25, **options)
    (held,) = re.findall(r"all recordings of the training speaker (\w+), by the seed$", data.facts()["split"])
    assert sorted(data.val_set.rows.y.tolist()) == sorted(train.labels[names == held].tolist())


def test_a_map_of_a_file_gives_the_same_batches(tmp_path) -> None:
    train, test = draw([40] * 50, 1), draw([30] * 8, 2)
    for part, recordings in (("train", train), ("test", test)):
        write_recordings(tmp_path / f"{part}.h5", recordings, list("abcd"))
    mapped = spike_data(
        "small", map_recordings("train.h5"), map_recordings("test.h5"), source={"train": {"f": 1}, "test": {"f": 2}},
        classes=4, binning=Binning(channels=7, steps=20), batch_size=6, **AUGMENTED,
    )  # fmt: skip
    assert same(epoch_of(mapped, 1), epoch_of(small(**AUGMENTED), 1))
    assert same(list(mapped.test_dataloader()), list(small().test_dataloader()))
    assert not isinstance(pickle.loads(pickle.dumps(train)).times, np.memmap)
    draws = pickle.dumps(mapped.train_set.draw)  # as a loader process gets it that is not forked
    assert len(draws) < mapped.train_set.draw.recordings.times.size
    again = pickle.loads(draws)
    assert isinstance(again.recordings.times, np.memmap)
    assert same([again([3, 1, 7], 2)], [mapped.train_set.draw([3, 1, 7], 2)])


def test_held_out_rows_of_jittered_recordings_are_binned_once(monkeypatch) -> None:
    data, plain = small(**AUGMENTED), small()
    first = list(data.val_dataloader())
    monkeypatch.setattr(Binning, "frame", None)
    assert same(list(data.val_dataloader()), first)
    assert same(first, list(plain.val_dataloader()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"jitter_us": -1.0}, r"data.jitter_us must be at least 0 microseconds, got -1.0"),
        ({"channel_shift": "row"}, r"data.channel_shift must be one of none, batch, sample, got row"),
        ({"cutmix": True}, r"data.cutmix must be one of none, published, corrected, got True"),
        ({"classes": 3}, "labels of train are 0 to 3, must be from 0 to 2"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"val_fraction": None}, "data.val_fraction must be between 0 and 1, such as 0.1, got None"),
        ({"val_fraction": None, "by_speaker": False}, "data.val_fraction must be between 0 and 1"),
    ],
)
def test_options_out_of_range(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        small(**options)


def test_what_is_not_drawn_anew_is_not_jittered(monkeypatch) -> None:
    monkeypatch.setattr(spike_trains.augment, "time_jitter", None)
    batch = small(cutmix="corrected", channel_shift="sample").train_set.draw([0, 1, 2], 0)
    assert batch.y.shape == (3, 4)
    torch.testing.assert_close(batch.y.sum(1), torch.ones(3))
