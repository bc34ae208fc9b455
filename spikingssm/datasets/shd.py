"""Spoken digits and speech commands as spikes of an artificial cochlea: SHD and SSC."""

from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.datasets.base import SequenceData
from spikingssm.datasets.binning import Binning
from spikingssm.datasets.cache import source_facts
from spikingssm.datasets.download import fetch
from spikingssm.datasets.heidelberg import UNITS, Recordings, are_known, map_recordings
from spikingssm.datasets.known import are_published, source_of_test
from spikingssm.datasets.spike_trains import in_words, spike_data
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root

__all__ = ["shd", "ssc"]

# Address and md5 as tonic lists them (neuromorphs/tonic, tonic/datasets/hsd.py).
URL = "https://zenkelab.org/datasets/"
MD5 = {
    "shd_train": "f3252aeb598ac776c1b526422d90eecb",
    "shd_test": "1503a5064faa34311c398fb0a1ed0a6f",
    "ssc_train": "d102be95e7144fcc0553d1f45ba94170",
    "ssc_valid": "b4eee3516a4a90dd0c71a6ac23a8ae43",
    "ssc_test": "a35ff1e9cffdd02a20eb850c17c37748",
}
CLASSES = {"shd": 20, "ssc": 35}
PUBLISHED = {
    "shd": {"train": 8_156, "test": 2_264},
    "ssc": {"train": 75_466, "test": 20_382, "val": 9_981},
}
FILE = {"train": "train", "test": "test", "val": "valid"}
SPLITS = "speakers", "random"
SUFFIXES = ".h5", ".h5.gz", ".h5.zip"
FOLDER = Path("dataset") / "cache"


def shd(
    root: str | Path | None = None,
    *,
    channels: int = 140,
    bins: str = "published",
    steps: int | None = None,
    bin_ms: float = 4.0,
    binary: bool = True,
    jitter_us: float = 100.0,
    channel_shift: str | bool = "batch",
    cutmix: str | bool = False,
    val_split: str = "speakers",
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Spiking Heidelberg Digits: x (B, 250, 140) spikes, 20 classes, the digits in German and in English.

    The test set is the official one, with two speakers that only it has; validation is all recordings of some training
    speakers, drawn by the seed. The defaults are those of the published S5-RF experiment; ``channels=700``,
    ``bins="brf"``, ``val_split="random"`` and no augmentation are the published balanced resonate-and-fire experiment.

    Args:
        root: folder of ``shd_train.h5`` and ``shd_test.h5``, or of them as ``.h5.gz`` or ``.h5.zip``, or the folder
            above ``SHD``. None downloads them.
        channels: see `Binning`, as are ``bins``, ``steps``, ``bin_ms`` and ``binary``.
        jitter_us: see `spike_data`, as are ``channel_shift`` and ``cutmix``: augmentation in training.
        val_split: "speakers" holds out whole speakers, "random" single recordings, by the seed.
        generated: draw a stand-in; no file is read.
        test_only: read the test file only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the validation split, of the order and of the augmentation.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: h5py or pooch is not installed.
        FileNotFoundError: no such folder, or a file that is not in it.
        ValueError: an option out of range, or a damaged or foreign file.
        OSError: a download that failed.

    Source: Cramer et al., "The Heidelberg Spiking Data Sets for the Systematic Evaluation of Spiking Neural Networks",
    arXiv:1910.07407; zenkelab.org/datasets (CC BY 4.0).
    """
    binning = Binning(channels, bins, steps, bin_ms, binary)
    augmentation = {"jitter_us": jitter_us, "channel_shift": channel_shift, "cutmix": cutmix}
    if val_split not in SPLITS:
        raise ValueError(f"shd: data.val_split must be one of {', '.join(SPLITS)}, got {val_split}.")
    by_speaker = val_split == "speakers"
    return _data(
        "shd", root, binning, generated, test_only, seed=seed, by_speaker=by_speaker, **augmentation, **options
    )


def ssc(
    root: str | Path | None = None,
    *,
    channels: int = 140,
    bins: str = "published",
    steps: int | None = None,
    bin_ms: float = 4.0,
    binary: bool = True,
    jitter_us: float = 100.0,
    channel_shift: str | bool = "batch",
    cutmix: str | bool = "published",
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Spiking Speech Commands: x (B, 250, 140) spikes, 35 words.

    The three parts are the official ones. The defaults are those of the published S5-RF experiment.

    Args:
        root: folder of ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``, or of them as ``.h5.gz`` or
            ``.h5.zip``, or the folder above ``SSC``. None downloads them.
        channels: see `Binning`, as are ``bins``, ``steps``, ``bin_ms`` and ``binary``.
        jitter_us: see `spike_data`, as are ``channel_shift`` and ``cutmix``: augmentation in training.
        generated: draw a stand-in; no file is read.
        test_only: read the test file only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the order and of the augmentation.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: h5py or pooch is not installed.
        FileNotFoundError: no such folder, or a file that is not in it.
        ValueError: an option out of range, or a damaged or foreign file.
        OSError: a download that failed.

    Source: as `shd`.
    """
    binning = Binning(channels, bins, steps, bin_ms, binary)
    augmentation = {"jitter_us": jitter_us, "channel_shift": channel_shift, "cutmix": cutmix}
    return _data("ssc", root, binning, generated, test_only, seed=seed, **augmentation, **options)


def _data(
    name: str, root: str | Path | None, binning: Binning, generated: bool, test_only: bool, **options: Any
) -> SequenceData:
    parts, source, published = ["test"] if test_only else list(PUBLISHED[name]), None, True
    if "val" in parts and options.get("val_fraction") is not None:
        raise ValueError(
            f"{name}: data.val_fraction={options['val_fraction']}, but validation is the file {name}_{FILE['val']}.h5; "
            "drop data.val_fraction."
        )
    if generated:
        refuse_root(name, root)
        found = {part: _drawn(CLASSES[name], number) for number, part in enumerate(PUBLISHED[name])}
        rule = "test: drawn"
    else:
        paths = {part: _find(name, part, root) for part in parts}
        found = {part: map_recordings(path) for part, path in paths.items()}
        source = {part: source_facts(path) for part, path in paths.items()}
        packed = {path: f"md5:{MD5[path.name.split('.')[0]]}" for path in paths.values() if path.suffix == ".zip"}
        published = are_published(name, packed)
        words = f"as in {paths['test'].name}" if len(packed) < len(paths) else source_of_test(published)
        rule = f"test: {words}" if test_only else _test_rule(words, found["train"].speakers, found["test"].speakers)
    full = {part: len(recordings.labels) for part, recordings in found.items()} == PUBLISHED[name]
    return spike_data(
        name,
        found["test" if test_only else "train"],
        found["test"],
        found.get("val"),
        classes=CLASSES[name],
        binning=binning,
        source=source,
        split=rule,
        published=published,
        full=full,
        generated=generated,
        test_only=test_only,
        **options,
    )


def _find(name: str, part: str, root: str | Path | None) -> Path:
    """The file of a part, downloaded where no root is given."""
    stem = f"{name}_{FILE[part]}"
    if root is None:
        return fetch(URL, f"{stem}.h5.zip", f"md5:{MD5[stem]}", FOLDER / name)
    for folder in (Path(root), Path(root) / name.upper()):
        for suffix in SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise FileNotFoundError(
        f"{name}: no {' or '.join(stem + suffix for suffix in SUFFIXES)} in {root}; set data.root to the folder that "
        "holds it, or data.root=null to download."
    )


def _test_rule(words: str, train: np.ndarray, test: np.ndarray) -> str:
    """Where the test set comes from, with the speakers that only it has. Checksums are known of the .h5.zip only."""
    if not (are_known(train) and are_known(test)) or (train.dtype.kind == "U") != (test.dtype.kind == "U"):
        return f"test: {words}"  # a name and a number cannot be compared
    only = np.setdiff1d(test, train)
    return f"test: {words}, with {in_words(only) if only.size else 'no speaker'} that training lacks"


def _drawn(classes: int, part: int) -> Recordings:
    """A stand-in: spikes around a channel that rises or falls at a pace and from a place of its class."""
    random = np.random.default_rng(part)
    count = TEST if part else TRAIN
    labels = random.permutation(np.arange(count) % classes)
    sizes = random.integers(400, 600, count)
    starts = np.concatenate([[0], sizes.cumsum()])
    row = np.repeat(np.arange(count), sizes)
    times = random.uniform(0, 1, len(row)) * random.integers(600_000, 1_000_000, count)[row]
    times = times[np.lexsort((times, row))].astype(np.int64)
    place = (labels + 0.5) / classes * UNITS
    pace = np.where(labels % 2, 1, -1) * 150
    units = (place[row] + pace[row] * (times / 1e6 - 0.5) + random.normal(0, 15, len(row))).clip(0, UNITS - 1)
    return Recordings(times, units.astype(np.uint16), starts, labels, random.permutation(np.arange(count) % 6))
