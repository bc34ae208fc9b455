"""Streams: sound, raw samples, lines of numbers and text, read block by block and prepared for a network."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.engine import Format
from fuzz.packing import numbers
from sdn.runs.files import check_regular
from spikingssm.datasets.inputs import Audio, Numbers, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.prepared import Prepared
from spikingssm.datasets.sources import Asked, open_source

__all__ = ["FORMATS"]

SOUND = Interface("sound", 800, 1, 2, Audio(8000, 0.1, 1, 800))
ROWS = Interface("rows", 50, 2, 2, Numbers())
TOKENS = Interface("tokens", 50, 1, 2, Tokens(length=50), vocab=300)
TEXT = Interface("text", 50, 1, 2, Tokens("bytes", 1, 50), vocab=256)
NAN = ("nan", "inf", "-inf", "1e999")


def _heard(name: str, interface: Interface, asked: Asked = Asked()) -> Any:  # noqa: B008
    """All steps that a network reads of a file, or of the same as standard input."""
    word = "-" if asked.format else name
    check_regular(name)  # the program itself reads whatever pipe it is given
    stdin = io.BytesIO(Path(name).read_bytes()) if word == "-" else None
    source = open_source(word, interface, stdin, asked)
    prepared = Prepared(interface, source.rate, source.loud)
    return np.concatenate([*map(prepared, source.blocks), prepared.end()])


def _wav(name: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        import soundfile

        clip = numbers(1).uniform(-0.5, 0.5, (3000, 2))
        soundfile.write(folder / name, clip, 11_025, "FLOAT" if name.endswith("wav") else "PCM_16")

    return build


def _lines(folder: Path) -> None:
    rows = numbers(2).standard_normal((60, 2)).round(3).tolist()
    (folder / "x.csv").write_text("left,right\n" + "\n".join(f"{a},{b}" for a, b in rows) + "\n")


def _bad_cell(draw: random.Random, folder: Path) -> None:
    """What is no finite number, or a cell too much."""
    lines = (folder / "x.csv").read_text().splitlines()
    row = draw.randrange(1, len(lines))
    lines[row] = draw.choice([*(f"{word},1" for word in NAN), "1", "1,2,3", ",", "1;2", "\0,1"])
    (folder / "x.csv").write_text("\n".join(lines))


def _header(draw: random.Random, folder: Path) -> None:
    """Another number in the head of a WAV file: its rate, its channels, its sizes."""
    data = bytearray((folder / "x.wav").read_bytes())
    at = draw.choice([4, 16, 20, 22, 24, 28, 32, 34, 40])
    data[at : at + 4] = draw.choice([0, 1, 3, 65535, 191_999, 2**31, 2**32 - 1]).to_bytes(4, "little")
    (folder / "x.wav").write_bytes(data)


FORMATS = [
    Format("stream.wav", _wav("x.wav"), lambda: _heard("x.wav", SOUND), ["x.wav"], edits=[_header]),
    Format("stream.flac", _wav("x.flac"), lambda: _heard("x.flac", SOUND), ["x.flac"]),
    Format("stream.csv", _lines, lambda: _heard("x.csv", ROWS), ["x.csv"], frauds=[_bad_cell]),
    Format(
        "stream of tokens", lambda folder: (folder / "x.txt").write_text("1 2 3\n299\n") and None,
        lambda: _heard("x.txt", TOKENS), ["x.txt"], share=0.5,
    ),
    Format(
        "stream of text", lambda folder: (folder / "x.txt").write_text("Größe und mehr") and None,
        lambda: _heard("x.txt", TEXT), ["x.txt"], share=0.5,
    ),
    Format(
        "stream of raw floats", lambda folder: (folder / "x").write_bytes(np.float32([0.5] * 80).tobytes()) and None,
        lambda: _heard("x", SOUND, Asked("f32le")), ["x"], share=0.5,
    ),
]  # fmt: skip
