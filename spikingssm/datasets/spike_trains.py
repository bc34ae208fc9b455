"""Spike trains as sequences of frames: recordings in, a data module with augmentation out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from loguru import logger

from spikingssm.datasets import augment
from spikingssm.datasets.base import Batch, Rows, Selected, SequenceData
from spikingssm.datasets.binning import Binning
from spikingssm.datasets.cache import Pieces, cached
from spikingssm.datasets.heidelberg import Recordings, are_known
from spikingssm.datasets.order import split_groups, split_rows

__all__ = ["binned", "in_words", "spike_data"]

WORTH_A_WARNING = 0.02
"""Part of all events, in no bin."""
NAMED = 6
"""Most speakers that are listed by name."""


@dataclass(frozen=True)
class _Binned:
    """Rows of `Rows.x`: the recordings ``chosen``, binned when they are drawn."""

    recordings: Recordings
    chosen: np.ndarray
    binning: Binning

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.chosen), self.binning.length, self.binning.channels

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.stack([self.binning.frame(*_events(self.recordings, row)) for row in self.chosen[rows]])


@dataclass(frozen=True)
class _Draw:
    """Training batches with augmentation: see `SequenceData`. Keys of the random numbers are numbers of recordings."""

    recordings: Recordings
    rows: Rows
    chosen: np.ndarray
    binning: Binning
    classes: int
    jitter_us: float
    shift: str
    mix: str
    seed: int

    def __call__(self, rows: list[int], epoch: int) -> Batch:
        numbers = self.chosen[rows].tolist()
        x, lengths = self._frames(rows, numbers, epoch)
        y = torch.as_tensor(self.rows.y[rows])
        if self.mix != "none":
            mix = augment.cutmix(x, self.mix, augment.generator(self.seed, epoch, augment.MIX, *numbers))
            own, other = (torch.nn.functional.one_hot(part, self.classes) for part in (y, y[mix.partner]))
            weight = torch.as_tensor(mix.weight)[:, None]
            x, y = mix.x, weight * own + (1 - weight) * other
            if lengths is not None:
                reach = np.minimum(lengths[mix.partner], mix.window[1])
                lengths = np.maximum(lengths, np.where(reach > mix.window[0], reach, 0))
        x = augment.channel_shift(x, self.shift, self.seed, epoch, numbers)
        return Batch(torch.as_tensor(x).float(), y, None if lengths is None else torch.as_tensor(lengths))

    def _frames(self, rows: list[int], numbers: list[int], epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames (B, length, channels) and their valid bins, jittered where that is asked for."""
        if not self.jitter_us:
            return np.asarray(self.rows.x[rows]), None if self.rows.lengths is None else self.rows.lengths[rows]
        frames = np.empty((len(rows), self.binning.length, self.binning.channels), self.binning.dtype)
        last = np.empty(len(rows), np.int64)
        for at, number in enumerate(
            numbers
        ):  # one by one, in the processor's cache: all at once takes half as long again
            random = augment.generator(self.seed, epoch, augment.JITTER, number)
            times, units = augment.time_jitter(*_events(self.recordings, number), self.jitter_us, random)
            frames[at], last[at] = self.binning.frame(times, units), times.max(initial=0)
        return frames, self.binning.valid(last)


def binned(name: str, recordings: Recordings, binning: Binning, source: Mapping[str, Any] | None = None) -> np.ndarray:
    """All recordings as frames (N, length, channels): a memory map from the cache, or in memory.

    Args:
        name: of the data set, for the folder in the cache.
        recordings: what to bin.
        binning: how.
        source: what the recordings come from, as plain values such as `source_facts`; None keeps nothing on disk.
    """
    rows = range(len(recordings.labels))
    frames = (binning.frame(*_events(recordings, row)) for row in rows)
    shape = (len(rows), binning.length, binning.channels)
    if source is None:
        return np.stack(list(frames)).reshape(shape)
    facts = {"source": dict(source), "binning": asdict(binning), "version": 1}
    return cached(f"bins-{name}", facts, lambda: {"x": Pieces(shape, binning.dtype, frames)})["x"]


def spike_data(
    name: str,
    train: Recordings,
    test: Recordings,
    val: Recordings | None = None,
    *,
    classes: int,
    binning: Binning,
    jitter_us: float = 0.0,
    channel_shift: str | bool = False,
    cutmix: str | bool = False,
    by_speaker: bool = True,
    source: Mapping[str, Mapping[str, Any]] | None = None,
    val_fraction: float | None = 0.1,
    split: str = "test: as given",
    seed: int = 0,
    test_only: bool = False,
    **options: Any,
) -> SequenceData:
    """Recordings of spikes as sequences of frames: x (B, length, channels), with augmentation in training.

    Training batches are drawn in the order jitter, binning, CutMix, channel shift: pure functions of the seed, the
    epoch and the recordings. Without jitter frames are read from the cache; of jittered recordings those held out are
    binned once, in memory. `SequenceData.facts` says how many events each part has, how many lie in no bin, how many
    recordings are empty, and how many training events an epoch jitter drops on average.

    Args:
        name: of the data set.
        train: training recordings.
        test: test recordings.
        val: validation recordings; None holds some of the training recordings out: whole speakers, drawn by the seed,
            where all are known, else single recordings.
        classes: number of classes.
        binning: how events become frames.
        jitter_us: standard deviation of `time_jitter` in microseconds; 0 is none.
        channel_shift: "batch", "sample", or "none" or False: see `augment.channel_shift`.
        cutmix: "published", "corrected", or "none" or False: see `augment.cutmix`; labels are then probabilities.
        by_speaker: False holds single recordings out although speakers are known.
        source: part -> what its recordings come from, see `binned`; None keeps nothing in the cache.
        val_fraction: part of the training recordings held out, in (0, 1), about; unused where ``val`` is given.
        split: on where the test recordings come from; a sentence on the validation follows.
        seed: of the validation split, of the order and of the augmentation.
        test_only: there are test recordings only; ``train`` is unused, and nothing is trained or validated.
        options: batch_size, num_workers, limit_train, limit_eval, full, generated of `SequenceData`.

    Raises:
        ValueError: an option out of range, or a label that is no class.
    """
    if val is None and val_fraction is None:
        raise ValueError(f"{name}: data.val_fraction must be between 0 and 1, such as 0.1, got None.")
    shift, mix = str(channel_shift or "none"), str(cutmix or "none")
    if test_only:
        _check(name, {"test": test}, classes, jitter_us, shift, mix)
        return _test_data(name, test, binning, source, d_output=classes, seed=seed, split=split, **options)
    given = {"train": train, "test": test} | ({} if val is None else {"val": val})
    _check(name, given, classes, jitter_us, shift, mix)
    if val is None:
        kept, held, rule = _held_out(name, train.speakers, val_fraction, seed, by_speaker)
    else:
        kept, held, rule = np.arange(len(train.labels)), np.arange(len(val.labels)), "validation: as given"
    chosen = {"train": (train, kept), "val": (val or train, held), "test": (test, np.arange(len(test.labels)))}
    rows = {}
    for part, (recordings, numbers) in chosen.items():
        file = part if part in given else "train"
        if jitter_us and file == "train":  # bins of the file as it is are of no use in training
            x: Any = _Binned(recordings, numbers, binning)
            x = x if part == "train" else x[:]
        else:
            x = Selected(binned(f"{name}-{file}", recordings, binning, source and source[file]), numbers)
        rows[part] = Rows(x, recordings.labels[numbers], binning.valid(_last(recordings, numbers)))
    drawn = _Draw(train, rows["train"], kept, binning, classes, jitter_us, shift, mix, seed)
    return SequenceData(
        name,
        rows["train"],
        rows["test"],
        rows["val"],
        d_output=classes,
        seed=seed,
        split=f"{split}; {rule}",
        draw=drawn if jitter_us or shift != "none" or mix != "none" else None,
        notes=_notes({part: (*of, binning) for part, of in chosen.items()}, jitter_us),
        **options,
    )


def _test_data(
    name: str,
    test: Recordings,
    binning: Binning,
    source: Mapping[str, Mapping[str, Any]] | None,
    **options: Any,
) -> SequenceData:
    numbers = np.arange(len(test.labels))
    x = binned(f"{name}-test", test, binning, source and source["test"])
    rows = Rows(Selected(x, numbers), test.labels, binning.valid(_last(test, numbers)))
    notes = _notes({"test": (test, numbers, binning)}, 0)
    return SequenceData(name, rows, rows, notes=notes, test_only=True, **options)


def _check(name: str, given: Mapping[str, Recordings], classes: int, jitter_us: float, shift: str, mix: str) -> None:
    for option, value, known in (("channel_shift", shift, augment.SHIFTS), ("cutmix", mix, augment.CUTMIX)):
        if value not in known:
            raise ValueError(f"{name}: data.{option} must be one of {', '.join(known)}, got {value}.")
    if not 0 <= jitter_us < float("inf"):
        raise ValueError(f"{name}: data.jitter_us must be at least 0 microseconds, got {jitter_us}.")
    for part, recordings in given.items():
        if recordings.labels.min() < 0 or recordings.labels.max() >= classes:
            span = f"{recordings.labels.min()} to {recordings.labels.max()}"
            raise ValueError(
                f"{name}: labels of {part} are {span}, must be from 0 to {classes - 1}; set data.root to the folder "
                f"of {name}."
            )


def _held_out(
    name: str, speakers: np.ndarray, val_fraction: float | None, seed: int, by_speaker: bool
) -> tuple[np.ndarray, np.ndarray, str]:
    """Numbers of the recordings to train on, of those held out, and the rule in words."""
    known = are_known(speakers)
    if by_speaker and known and len(np.unique(speakers)) > 1:
        kept, held = split_groups(name, speakers, val_fraction, seed)
        whose = in_words(np.unique(speakers[held]), "training ")
        return kept, held, f"validation: all recordings of {whose}, by the seed"
    why = "" if not by_speaker else ", there is one speaker" if known else ", speakers are not known"
    kept, held = (np.sort(part.numpy()) for part in split_rows(name, len(speakers), val_fraction, seed))
    return kept, held, f"validation: single training recordings, by the seed{why}"


def in_words(speakers: np.ndarray, kind: str = "") -> str:
    """All of the different ``speakers`` (S,), S > 0, or the first of them where they are many."""
    names = [str(name) for name in speakers.tolist()]
    if len(names) > NAMED:
        return f"{len(names)} {kind}speakers (such as {', '.join(names[:3])})"
    return f"the {kind}speaker{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _notes(
    parts: Mapping[str, tuple[Recordings, np.ndarray, Binning]], jitter_us: float
) -> dict[str, dict[str, int | float]]:
    """Part -> its events, those of them in no bin, its recordings without events, and what jitter drops."""
    notes: dict[str, dict[str, int | float]] = {"events": {}, "events_lost": {}, "empty_recordings": {}}
    for part, (recordings, numbers, binning) in parts.items():
        sizes = np.diff(recordings.starts)[numbers]
        lost = sum(binning.lost(*_events(recordings, number)) for number in numbers)
        for note, count in zip(notes.values(), (sizes.sum(), lost, (sizes == 0).sum()), strict=True):
            note[part] = int(count)
        if lost > WORTH_A_WARNING * sizes.sum():
            where = f"none of the {binning.length} {binning.bins} bins; raise data.steps or data.bin_ms"
            logger.warning(f"{part}: {lost} of {sizes.sum()} events are in {where}")
    if jitter_us:
        train, numbers, _ = parts["train"]
        dropped = sum(augment.expected_dropped(_events(train, number)[0], jitter_us) for number in numbers)
        notes["events_jittered_away"] = {"train": round(dropped, 1)}
    return notes


def _last(recordings: Recordings, numbers: np.ndarray) -> np.ndarray:
    """Time of the last event of each recording, 0 where there is none."""
    last = np.zeros(len(numbers), np.int64)
    some = np.diff(recordings.starts)[numbers] > 0
    last[some] = recordings.times[recordings.starts[numbers[some] + 1] - 1]
    return last


def _events(recordings: Recordings, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and units of one recording."""
    events = slice(recordings.starts[number], recordings.starts[number + 1])
    return recordings.times[events], recordings.units[events]
