"""Speech Commands: one second of raw audio, one spoken word."""

from collections.abc import Iterator
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
from spikingssm.datasets.download import fetch
from spikingssm.datasets.inputs import Audio
from spikingssm.datasets.known import is_published, say_other
from spikingssm.datasets.standin import TEST, TRAIN, refuse_root

__all__ = ["TEN_WORDS", "WORDS", "speech_commands"]

NAME = "speech_commands"
# Address and sha256 as TensorFlow Datasets lists them (tensorflow/datasets, url_checksums/speech_commands.txt) and
# torchaudio too (datasets/speechcommands.py).
URL, ARCHIVE = "http://download.tensorflow.org/data/", "speech_commands_v0.02.tar.gz"
SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
SUBSET = "28f40530c26bc61ba9948ba992c4e861bfe31297a5f002a1c74cf745b6176b37"
"""3,184 clips of ten words, as data/README.md lists them: speech_commands_10x_subset.tar.xz."""
FOLDER = Path("dataset") / "cache" / NAME

RATE, LENGTH = 16_000, 16_000
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
# fmt: off
WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy",
    "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
)
# fmt: on
TEN_WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
PUBLISHED = {35: (84_843, 9_981, 11_005), 10: (30_769, 3_703, 4_074)}


def speech_commands(
    root: str | Path | None = None,
    *,
    classes: int = 35,
    rate: int = 1,
    scaling: float | None = None,
    generated: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """Speech Commands v0.02: x (B, 16000, 1), raw audio of one second at 16 kHz, 35 or 10 words.

    The release's lists name the validation and the test files; all others are for training. Samples are divided by
    2^15 and by one number for the whole data set; clips under a second end in zeros. Labels follow the alphabet.

    Args:
        root: folder of the word folders and the two lists, or the one or two above it
            (``SpeechCommands/speech_commands_v0.02``); or their ``.tar.gz`` or ``.tar.xz``, or the folder that holds
            that. None downloads the release.
        classes: 35, all words, or 10: `TEN_WORDS`.
        rate: 1 as recorded; 2 resamples every part to half the rate, (8000, 1), without aliases.
        scaling: what samples / 2^15 are divided by; None takes their root mean square over the training part as
            recorded, at every ``rate`` the same.
        generated: a drawn stand-in.
        seed: of the order.
        options: batch_size, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: soundfile or pooch is not installed.
        FileNotFoundError: no such folder or archive, or no lists in it.
        ValueError: an option out of range, words or a whole part missing, or a file that is not such a clip.
        OSError: a download that failed.

    Source: Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv:1804.03209, 2018
    (CC BY 4.0).
    """
    if generated:
        refuse_root(NAME, root)
    if classes not in PUBLISHED:
        raise ValueError(f"{NAME}: classes must be 35 or 10, got {classes}.")
    if not 1 <= rate <= 160:
        raise ValueError(f"{NAME}: rate must be at least 1 and at most 160 (1 is 16 kHz, 2 is 8 kHz), got {rate}.")
    if scaling is not None and not scaling > 0:
        raise ValueError(f"{NAME}: scaling must be above 0 or null for that of the training part, got {scaling}.")
    words = WORDS if classes == 35 else TEN_WORDS
    found = _generate(classes, rate) if generated else _load(root, words, rate)
    parts = {
        part: Rows(Selected(found["x"], found[part]), found["y"][found[part]]) for part in ("train", "val", "test")
    }
    published = generated or bool(found["published"])
    if not published and root is not None:
        say_other(NAME, _find(Path(root)))
    rule = "drawn" if generated else "as testing_list.txt and validation_list.txt say"
    rule = rule if published else f"{rule}, in files that are not the published ones"
    scale = scaling or level(NAME, found["energy"][found["train"]], len(found["train"]) * LENGTH)
    return SequenceData(
        NAME,
        parts["train"],
        parts["test"],
        parts["val"],
        d_output=classes,
        inputs=Audio(RATE, scale, rate, LENGTH, masked=False),
        class_names=words,
        seed=seed,
        split=f"{rule}; {RATE / rate:g} Hz, samples / 2^15 / {scale:.4g}",
        published=published,
        full=tuple(len(rows.x) for rows in parts.values()) == PUBLISHED[classes],
        fitted={"scaling": scale},
        generated=generated,
        **options,
    )


def _load(root: str | Path | None, words: tuple[str, ...], rate: int) -> dict[str, np.ndarray]:
    source = fetch(URL, ARCHIVE, SHA256, FOLDER) if root is None else _find(Path(root))

    def wanted(path: str) -> bool:
        name = PurePosixPath(path)
        word = name.parent.name
        return name.name in LISTS.values() or (name.suffix == ".wav" and name.name[0] != "." and word in words)

    facts = folder_facts(source, wanted) if source.is_dir() else source_facts(source)
    made = cached(
        NAME,
        {"source": facts, "words": words, "rate": rate, "version": 2},
        lambda: _read(source, words, rate, files_in(source, wanted)),
    )
    return {key: made[key][:, :, None] if key == "x" else made[key] for key in made}


def _find(root: Path) -> Path:
    """The folder with the lists, or the archive."""
    if root.is_file():
        return root
    folders = [root, root / "speech_commands_v0.02", root / "SpeechCommands" / "speech_commands_v0.02"]
    for folder in folders:
        here = [(folder / name).is_file() for name in LISTS.values()]
        if all(here):
            return folder
        if any(here) or (folder / WORDS[-2]).is_dir():
            missing = " and ".join(name for name, there in zip(LISTS.values(), here, strict=True) if not there)
            raise FileNotFoundError(
                f"{NAME}: no {missing} in {folder}; the lists of the release belong beside the words."
            )
    archives = sorted(
        p for p in root.glob("speech_commands*.t*") if p.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz"))
    )
    if len(archives) == 1:
        return archives[0]
    if archives:
        raise ValueError(f"{NAME}: {root} holds {', '.join(p.name for p in archives)}; set data.root to one of them.")
    raise FileNotFoundError(
        f"{NAME}: no testing_list.txt in {', '.join(map(str, folders))} and no speech_commands*.tar.gz or .tar.xz "
        "in the first; set data.root to the folder that holds it, or data.root=null to download."
    )


def _read(source: Path, words: tuple[str, ...], rate: int, files: Iterator[tuple[str, bytes]]) -> dict[str, np.ndarray]:
    """The arrays to keep: x (N, L) int16, y and energy (N,) as they come, and the row numbers of each part."""
    lists: dict[str, set[str]] = {}
    names: list[str] = []
    energy: list[float] = []

    def clips() -> Iterator[np.ndarray]:
        for path, data in files:
            name = PurePosixPath(path)
            if name.name in LISTS.values():
                lists[name.name] = set(data.decode(errors="replace").split())
                continue
            clip = read_wav(data, source / path, RATE)
            if len(clip) > LENGTH:
                raise ValueError(
                    f"{source / path}: {len(clip)} samples, must be at most {LENGTH}; cut it or take it out."
                )
            names.append(f"{name.parent.name}/{name.name}")
            energy.append(float(np.square(clip, dtype=np.float64).sum()))
            yield resampled(fitted(clip, LENGTH), rate)

    x = stacked(clips(), -(-LENGTH // rate))
    parts = _parts(source, words, names, lists)
    y = np.array([words.index(name.split("/")[0]) for name in names])
    known = source.is_dir() or is_published(source, (SHA256, SUBSET))  # there is no checksum of the unpacked clips
    return {"x": x, "y": y, "energy": np.array(energy), "published": np.array(known), **parts}


def _parts(source: Path, words: tuple[str, ...], names: list[str], lists: dict[str, set[str]]) -> dict[str, np.ndarray]:
    """Row numbers of each part, sorted by name: the same for a folder and for an archive of it."""
    if missing := [name for name in LISTS.values() if name not in lists]:
        raise FileNotFoundError(
            f"{NAME}: no {' and '.join(missing)} in {source}; the lists of the release belong in it."
        )
    absent = sorted(set(words) - {name.split("/")[0] for name in names})
    if absent and (words == TEN_WORDS or not names):
        raise ValueError(f"{NAME}: no clip of {', '.join(absent)} in {source}; data.classes={len(words)} needs them.")
    part_of = {name: part for part, listed in LISTS.items() for name in lists[listed]}
    order = sorted(range(len(names)), key=lambda row: names[row])
    parts = {
        part: np.array([row for row in order if part_of.get(names[row], "train") == part], np.int64)
        for part in ("train", "val", "test")
    }
    for part, rows in parts.items():
        if not len(rows):
            rule = f"is in {LISTS[part]}" if part in LISTS else "is in neither list"
            raise ValueError(f"{NAME}: none of the {len(names)} clips in {source} {rule}; copy the data set again.")
    return parts


def _generate(classes: int, rate: int) -> dict[str, np.ndarray]:
    """Clips of two tones; as many for validation as for the test."""
    ends = np.cumsum([TRAIN, TEST, TEST])
    x, y = tones(classes, [LENGTH] * int(ends[-1]), RATE, LENGTH)
    parts = dict(zip(("train", "val", "test"), np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    energy = np.square(x, dtype=np.float64).sum(1)
    return {"x": resampled(x, rate)[:, :, None], "y": y, "energy": energy, **parts}
