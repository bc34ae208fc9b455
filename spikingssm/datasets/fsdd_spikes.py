"""Real speech as spikes: the Free Spoken Digit Dataset heard by a model of the inner ear."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from spikingssm.datasets.audio import files_in, folder_facts, read_wav, tones
from spikingssm.datasets.base import SequenceData
from spikingssm.datasets.binning import Binning
from spikingssm.datasets.cache import cached, source_facts
from spikingssm.datasets.cochlea import Cochlea
from spikingssm.datasets.fsdd import CONTENT, HOME, PATTERN, PUBLISHED, RATE, TESTED, find_clips, is_wav, tested_clips
from spikingssm.datasets.heidelberg import UNITS, Recordings, map_recordings, write_recordings
from spikingssm.datasets.inputs import Spikes
from spikingssm.datasets.known import ContentDigest, say_other
from spikingssm.datasets.spike_trains import spike_data
from spikingssm.datasets.standin import refuse_root

__all__ = ["fsdd_spikes", "write_fsdd_spikes"]

NAME = "fsdd-spikes"
FILES = {"train": "fsdd_train.h5", "test": "fsdd_test.h5"}
DIGITS = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"
DRAWN = {"train": 60, "test": 20}
"""Clips of the stand-in: each is heard, which takes about 10 ms."""


def fsdd_spikes(
    root: str | Path | None = None,
    *,
    channels: int = 140,
    bins: str = "published",
    steps: int | None = None,
    bin_ms: float = 4.0,
    binary: bool = True,
    jitter_us: float = 0.0,
    channel_shift: str | bool = False,
    cutmix: str | bool = False,
    leave_out: str | None = None,
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Spoken digits as spikes of a `Cochlea`: x (B, 250, 140) spikes, 10 classes, bins as published for SHD.

    The clips are heard once, about 0.05 s each on one core, and the spikes kept in the cache. The test set is the
    official one, index 0 to 4 of each speaker and digit; validation is single clips of the others, drawn by the seed.
    Speakers are numbered in the order of their names.

    Args:
        root: of the recorded clips, as for `fsdd`; or the folder of ``fsdd_train.h5`` and ``fsdd_test.h5``, which
            `write_fsdd_spikes` writes.
        channels: see `Binning`, as are ``bins``, ``steps``, ``bin_ms`` and ``binary``.
        jitter_us: see `spike_data`, as are ``channel_shift`` and ``cutmix``: augmentation in training.
        leave_out: a speaker: all of his or her clips are the test set, all other clips the training set.
        generated: clips of two tones that name the class, through the same cochlea; no file is read.
        test_only: read ``fsdd_test.h5`` only, for `spikingssm.evaluate`; recorded clips are always read whole.
        seed: of the validation split, of the order and of the augmentation.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: soundfile or h5py is not installed.
        FileNotFoundError: no root, no recordings in it, or one of the two files only.
        ValueError: an option out of range, an unknown speaker, a strange file name, or a file that is not such a clip.

    Source: Jackson et al., "Free Spoken Digit Dataset", github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0).
    """
    binning, published = Binning(channels, bins, steps, bin_ms, binary), True
    if generated:
        refuse_root(NAME, root)
        parts, source, rule = _drawn(leave_out), None, "test: drawn"
    elif root is not None and any((Path(root) / file).is_file() for file in FILES.values()):
        parts, source, rule = _read(Path(root), leave_out, test_only)
    else:
        found, facts = _heard(root)
        if not (published := bool(found["published"])):
            say_other(NAME, find_clips(root))
        tested, rule = tested_clips(found, leave_out, published)
        parts = _parted(found, tested)
        source = {part: {**facts, "part": part, "leave_out": leave_out} for part in parts}
    return spike_data(
        NAME,
        parts.get("train", parts["test"]),
        parts["test"],
        classes=len(DIGITS),
        class_names=DIGITS,
        inputs=Spikes(RATE, channels, bins, steps, float(bin_ms), binary),
        binning=binning,
        jitter_us=jitter_us,
        channel_shift=channel_shift,
        cutmix=cutmix,
        by_speaker=False,
        source=source,
        split=rule,
        seed=seed,
        published=published,
        full=sum(len(part.labels) for part in parts.values()) == PUBLISHED,
        generated=generated,
        test_only="train" not in parts,
        **options,
    )


def write_fsdd_spikes(root: str | Path, out: str | Path) -> dict[Path, Recordings]:
    """Write ``fsdd_train.h5`` and ``fsdd_test.h5``, the official split, in the layout of SHD.

    Args:
        root: of the recorded clips, as for `fsdd`.
        out: folder of the files, made where it is not there.

    Returns:
        path -> what was written there.

    Raises:
        ImportError: soundfile or h5py is not installed.
        FileNotFoundError: no recordings in ``root``.
        ValueError: a strange file name, a file that is not such a clip, or clips of one part only.
    """
    found, _ = _heard(root)
    parts = _parted(found, tested_clips(found, None, True)[0])
    for part, recordings in parts.items():
        write_recordings(Path(out) / FILES[part], recordings, DIGITS)
    return {Path(out) / FILES[part]: recordings for part, recordings in parts.items()}


def _heard(root: str | Path | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All clips as spikes, sorted by name, from the cache or heard now; and the facts that they depend on."""
    source, cochlea = find_clips(root), Cochlea(channels=UNITS, rate=RATE)
    files = folder_facts(source, is_wav) if source.is_dir() else source_facts(source)
    facts = {"source": files, "cochlea": asdict(cochlea), "version": 2}
    return cached(NAME, facts, lambda: _hear(source, cochlea)), facts


def _hear(source: Path, cochlea: Cochlea) -> dict[str, np.ndarray]:
    """times (E,) int32, units (E,), starts (N + 1,), and y, speaker (a name) and index (N,)."""
    content = ContentDigest()
    clips = sorted(_clips(source, content), key=lambda clip: clip[0])
    if not clips:
        raise ValueError(f"{NAME}: no .wav file in {source}; set data.root to the folder of {HOME}.")
    _, y, speaker, index, sounds = zip(*clips, strict=True)
    known = np.array(content.hexdigest() == CONTENT)
    table = {"y": np.array(y), "speaker": np.array(speaker), "index": np.array(index), "published": known}
    return {**_spikes(sounds, cochlea), **table}


def _clips(source: Path, content: ContentDigest) -> Iterator[tuple[str, int, str, int, np.ndarray]]:
    """File name, digit, speaker, index and samples (T,) of each clip, counted into the digest."""
    for path, data in files_in(source, is_wav):
        name = PurePosixPath(path).name
        content.add(name, data)
        parts = PATTERN.fullmatch(name)
        if parts is None:
            raise ValueError(f"{source / path}: not named {{digit}}_{{speaker}}_{{index}}.wav; rename or remove it.")
        yield name, int(parts[1]), parts[2], int(parts[3]), read_wav(data, source / path, RATE)


def _spikes(clips: tuple[np.ndarray, ...], cochlea: Cochlea) -> dict[str, np.ndarray]:
    times, units = zip(*(cochlea(clip) for clip in clips), strict=True)
    starts = np.concatenate([[0], np.cumsum([len(of) for of in times])])
    return {"times": np.concatenate(times).astype(np.int32), "units": np.concatenate(units), "starts": starts}


def _parted(found: dict[str, np.ndarray], tested: np.ndarray) -> dict[str, Recordings]:
    """Training and test recordings, copied, from all of them and which (N,) are for testing."""
    speakers = np.unique(found["speaker"], return_inverse=True)[1]
    sizes = np.diff(found["starts"])
    parts = {}
    for part, chosen in (("train", ~tested), ("test", tested)):
        events = np.repeat(chosen, sizes)
        starts = np.concatenate([[0], sizes[chosen].cumsum()])
        of_events = found["times"][events], found["units"][events]
        parts[part] = Recordings(*of_events, starts, np.asarray(found["y"])[chosen], speakers[chosen])
    return parts


def _read(root: Path, leave_out: str | None, test_only: bool) -> tuple[dict[str, Recordings], dict[str, Any], str]:
    if leave_out is not None:
        raise ValueError(
            f"{NAME}: data.leave_out={leave_out}, but the files in {root} have the official split and no names of "
            f"speakers; set data.root to the recorded clips, the folder of {HOME}."
        )
    paths = {part: root / file for part, file in FILES.items() if part == "test" or not test_only}
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{NAME}: no {path.name} beside the other file in {root}; write both with "
                "`python -m spikingssm cochlea FOLDER_OF_FSDD --out FOLDER`."
            )
    rule = f"test: as in {FILES['test']}"
    parts = {part: map_recordings(path) for part, path in paths.items()}
    return parts, {part: source_facts(path) for part, path in paths.items()}, rule


def _drawn(leave_out: str | None) -> dict[str, Recordings]:
    """Clips of two tones, 1/16 to 1/8 s."""
    rows = sum(DRAWN.values())
    samples = np.random.default_rng(1910).integers(RATE // 16, RATE // 8, rows)
    x, y = tones(len(DIGITS), samples.tolist(), RATE, RATE // 8)
    index = np.where(np.arange(rows) < DRAWN["train"], TESTED, 0)
    found = {"y": y, "speaker": np.array(["none"] * rows), "index": index}
    tested, _ = tested_clips(found, leave_out, True)
    clips = tuple(clip[:n] for clip, n in zip(x, samples, strict=True))
    return _parted({**found, **_spikes(clips, Cochlea(channels=UNITS, rate=RATE))}, tested)
