"""Free Spoken Digit Dataset: raw audio at 8 kHz, one spoken digit."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from spikingssm.datasets.audio import (
    files_in,
    fitted,
    folder_facts,
    level,
    read_wav,
    resampled,
    stacked,
    tones,
)
from spikingssm.datasets.base import Rows, Selected, SequenceData
from spikingssm.datasets.cache import cached, source_facts
from spikingssm.datasets.inputs import Audio
from spikingssm.datasets.known import ContentDigest, say_other, source_of_test
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root
from spikingssm.datasets.targets import ahead, scaled

__all__ = ["find_clips", "fsdd", "is_wav", "tested_clips"]

NAME, RATE, TESTED = "fsdd", 8_000, 5
LONGEST, LOWEST = 2**20, 80
"""Samples of a row, two minutes; and 100 Hz."""
PUBLISHED = 3_000
CONTENT = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
"""`ContentDigest` of the 3,000 files of commit 26eb9aaf76e81b692f806f9140c2d2777410d7a1, computed from the
``recordings.tar`` whose sha256 data/README.md lists (dc24800f...)."""
HOME = "github.com/Jakobovski/free-spoken-digit-dataset"
PATTERN = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")


def fsdd(
    root: str | Path | None = None,
    *,
    length: int = 8_000,
    rate: int = 1,
    leave_out: str | None = None,
    scaling: float | None = None,
    generated: bool = False,
    horizon: int | None = None,
    target_scaling: Mapping[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Free Spoken Digit Dataset: x (B, length, 1), raw audio at 8 kHz, 10 digits, ``lengths`` valid samples.

    The test set is the official one, index 0 to 4 of each speaker and digit; validation is carved from the other
    indices by the seed. Samples are divided by 2^15 and by one number for the whole data set.

    Args:
        root: folder ``recordings`` or the one above it, or ``recordings.tar``, or the folder that holds it.
        length: samples of a row at 8 kHz: longer clips lose their end, shorter ones end in zeros and are masked.
        rate: 1 as recorded; 2 resamples every part to half the rate, (length / 2, 1), without aliases.
        leave_out: a speaker: all of his or her clips are the test set, all other clips the training set.
        scaling: what samples / 2^15 are divided by; None takes their root mean square over the clips not tested on,
            as recorded, at every ``rate`` the same.
        generated: a drawn stand-in.
        horizon: of a forecast: the samples that many steps later are asked for, and not the digits. Its unit is the
            loudest sample that there can be.
        target_scaling: mean and standard deviation of these as a run keeps them; None finds them in the training rows.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: soundfile is not installed.
        FileNotFoundError: no root, or no recordings in it.
        ValueError: an option out of range, an unknown speaker, a strange file name, or a file that is not such a clip.

    Source: Jackson et al., "Free Spoken Digit Dataset", github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0).
    """
    if generated:
        refuse_root(NAME, root)
    for option, value, most in (("length", length, LONGEST), ("rate", rate, LOWEST)):
        if value < 1:
            raise ValueError(f"{NAME}: {option} must be at least 1, got {value}.")
        if value > most:
            raise ValueError(f"{NAME}: {option} must be at most {most}, got {value}.")
    if scaling is not None and not scaling > 0:
        raise ValueError(f"{NAME}: scaling must be above 0 or null for that of the training clips, got {scaling}.")
    found = _generate(length, rate) if generated else _load(root, length, rate)
    published = generated or bool(found["published"])
    if not published:
        say_other(NAME, find_clips(root))
    tested, rule = tested_clips(found, leave_out, published)
    rule = "test: drawn" if generated else rule
    train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
    scale = scaling or level(NAME, found["energy"][train], int(found["samples"][train].sum()))
    valid = -(-found["samples"] // rate)
    inputs, y, asked = Audio(RATE, scale, rate, length), found["y"], None
    if horizon is not None:
        y = ahead(inputs.units(found["x"]), horizon, valid)
        asked = scaled(y[train], target_scaling, horizon)
    return SequenceData(
        NAME,
        *(Rows(Selected(found["x"], rows), y[rows], valid[rows]) for rows in (train, test)),
        d_output=10 if asked is None else 1,
        inputs=inputs,
        targets=asked,
        seed=seed,
        split=f"{rule}; validation: from the others, by the seed; {RATE / rate:g} Hz, samples / 2^15 / {scale:.4g}",
        published=published,
        full=len(found["y"]) == PUBLISHED,
        fitted={"scaling": scale, **({} if asked is None else {"target_scaling": asked.scaling})},
        generated=generated,
        **options,
    )


def tested_clips(found: dict[str, np.ndarray], leave_out: str | None, published: bool) -> tuple[np.ndarray, str]:
    """Which clips (N,) are the test set, and the rule in words."""
    speakers = sorted(set(found["speaker"].tolist()))
    if leave_out is None:
        tested, rule = found["index"] < TESTED, f"test: index 0 to {TESTED - 1}, {source_of_test(published)}"
    elif leave_out in speakers:
        tested, rule = found["speaker"] == leave_out, f"test: all of the speaker {leave_out}, not the official one"
    else:
        raise ValueError(f"{NAME}: leave_out must be null or one of {', '.join(speakers)}, got {leave_out}.")
    if tested.all() or not tested.any():
        raise ValueError(
            f"{NAME}: {int(tested.sum())} of {len(tested)} clips are for testing ({rule}); add the others."
        )
    return tested, rule


def _load(root: str | Path | None, length: int, rate: int) -> dict[str, np.ndarray]:
    source = find_clips(root)
    facts = folder_facts(source, is_wav) if source.is_dir() else source_facts(source)
    made = cached(
        NAME,
        {"source": facts, "length": length, "rate": rate, "version": 2},
        lambda: _read(source, length, rate),
    )
    return {key: made[key][:, :, None] if key == "x" else np.asarray(made[key]) for key in made}


def find_clips(root: str | Path | None) -> Path:
    """The folder of the clips, or the archive."""
    if root is None:
        raise FileNotFoundError(
            f"{NAME}: no download, the release has no archive with a published checksum; clone {HOME} and set "
            "data.root to its folder, or data.generated=true for a stand-in."
        )
    root = Path(root)
    if root.is_file():
        return root
    if (root / "recordings").is_dir():
        return root / "recordings"
    if (root / "recordings.tar").is_file():
        return root / "recordings.tar"
    if any(root.glob("*.wav")):
        return root
    raise FileNotFoundError(
        f"{NAME}: no recordings/, recordings.tar or *.wav in {root}; set data.root to the folder of {HOME}."
    )


def is_wav(path: str) -> bool:
    """Whether a path is that of a clip: a ``.wav`` file that is not hidden."""
    name = PurePosixPath(path)
    return name.suffix == ".wav" and name.name[0] != "."


def _read(source: Path, length: int, rate: int) -> dict[str, np.ndarray]:
    """The arrays to keep, sorted by name: x (N, L) int16, y, index, speaker, samples at 8 kHz and their energy (N,)."""
    named: list[tuple[str, int, str, int, int, float]] = []
    content = ContentDigest()

    def clips() -> Iterator[np.ndarray]:
        for path, data in files_in(source, is_wav):
            name = PurePosixPath(path).name
            content.add(name, data)
            parts = PATTERN.fullmatch(name)
            if parts is None:
                raise ValueError(
                    f"{source / path}: not named {{digit}}_{{speaker}}_{{index}}.wav; rename or remove it."
                )
            clip = read_wav(data, source / path, RATE)[:length]
            energy = float(np.square(clip, dtype=np.float64).sum())
            named.append((name, int(parts[1]), parts[2], int(parts[3]), len(clip), energy))
            yield resampled(fitted(clip, length), rate)

    x = stacked(clips(), -(-length // rate))
    if not named:
        raise ValueError(f"{NAME}: no .wav file in {source}; set data.root to the folder of {HOME}.")
    order = sorted(range(len(named)), key=lambda row: named[row][0])
    _, y, speaker, index, samples, energy = zip(*(named[row] for row in order), strict=True)
    found = {"x": x[order], "y": np.array(y), "speaker": np.array(speaker), "index": np.array(index)}
    found["published"] = np.array(content.hexdigest() == CONTENT)
    return {**found, "samples": np.array(samples), "energy": np.array(energy)}


def _generate(length: int, rate: int) -> dict[str, np.ndarray]:
    """Clips of two tones, a quarter of the length to all of it."""
    rows = TRAIN + TEST
    samples = np.random.default_rng(1911).integers(max(1, length // 4), length + 1, rows)
    x, y = tones(10, samples.tolist(), RATE, length)
    found = {"x": resampled(x, rate)[:, :, None], "y": y, "speaker": np.array(["none"] * rows)}
    index = np.where(np.arange(rows) < TRAIN, TESTED, 0)
    return {**found, "index": index, "samples": samples, "energy": np.square(x, dtype=np.float64).sum(1)}
