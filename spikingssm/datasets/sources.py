"""Where a stream comes from: a file by its name, standard input or a microphone."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from sdn.runs.files import check_regular
from spikingssm.datasets.blocks import (
    RAW,
    array_blocks,
    chunks_of,
    microphone_blocks,
    raw_blocks,
    sound_blocks,
    text_blocks,
)
from spikingssm.datasets.inputs import Audio, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.lines import LineReader
from spikingssm.datasets.sequences import SOUND

__all__ = ["FORMATS", "MICROPHONE", "STDIN", "Asked", "Source", "open_source"]

STDIN, MICROPHONE = "-", "mic"
FORMATS = (*RAW, "lines", "text")
"""What standard input may hold."""


class Source(NamedTuple):
    """A stream as raw blocks.

    Args:
        blocks: as `spikingssm.datasets.prepared.Prepared` takes them.
        rate: samples of sound a second, or steps a second; None where it is the network's own, or unknown.
        loud: whether samples beyond [-1, 1] are cut.
        lines: the reader of the lines, if it reads lines: it counts the bad ones.
        live: whether data come at their own pace.
    """

    blocks: Iterator[Any]
    rate: float | None = None
    loud: bool = False
    lines: LineReader | None = None
    live: bool = False


class Asked(NamedTuple):
    """Options of the command line; None where one was not given."""

    format: str | None = None
    rate: float | None = None
    channels: int | None = None
    device: str | None = None
    skip_bad: bool = False


def open_source(word: str, interface: Interface, stdin: IO[bytes] | None = None, asked: Asked = Asked()) -> Source:  # noqa: B008
    """Open a stream for a network.

    Args:
        word: a file ``.wav .flac .ogg .npz .npy .csv .txt``, ``-`` for standard input, ``mic`` for a microphone.
        interface: what the network reads.
        stdin: standard input, as bytes.
        asked: the options.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of stream than the network reads, or an option that does not go with it.
        ImportError, OSError: see `spikingssm.datasets.blocks`.
    """
    kind = _kind(word, interface, asked)
    _check(word, kind, interface, asked)
    if kind == "mic":
        rate, blocks = microphone_blocks(None if asked.rate is None else int(asked.rate), asked.device)
        return Source(blocks, rate, loud=True, live=True)
    if kind == "sound":
        rate, blocks = sound_blocks(word)
        return Source(blocks, rate, loud=True)
    if kind == "array":
        flat = isinstance(interface.inputs, (Audio, Tokens))
        return Source(array_blocks(word, flat, interface.d_input), asked.rate)
    if word == STDIN:
        assert stdin is not None
        chunks = chunks_of(stdin)
    else:
        chunks = _chunks(Path(word))
    live = word == STDIN
    if kind in RAW:
        return Source(raw_blocks(chunks, kind, asked.channels or 1), asked.rate, loud=True, live=live)
    if kind == "text":
        return Source(text_blocks(chunks), asked.rate, live=live)
    vocab = interface.vocab if isinstance(interface.inputs, Tokens) else None
    reader = LineReader("standard input" if live else word, interface.d_input, vocab, asked.skip_bad)
    return Source(reader.blocks(chunks), asked.rate, lines=reader, live=live)


def _kind(word: str, interface: Interface, asked: Asked) -> str:
    """What is read: mic, sound, array, lines, text, or a format of raw samples."""
    inputs = interface.inputs
    text = isinstance(inputs, Tokens) and inputs.text == "bytes"
    if word == STDIN:
        return asked.format or ("s16le" if isinstance(inputs, Audio) else "text" if text else "lines")
    if word == MICROPHONE:
        return "mic"
    kinds = {**dict.fromkeys(SOUND, "sound"), ".npz": "array", ".npy": "array", ".csv": "lines"}
    kinds[".txt"] = "text" if text else "lines"
    suffix = Path(word).suffix.lower()
    if not Path(word).is_file():
        raise FileNotFoundError(f"{word}: no such file; - is standard input, and mic a microphone.")
    if suffix not in kinds:
        raise ValueError(f"{word}: a stream is {', '.join(kinds)}, - or mic, got {suffix or 'no suffix'}.")
    return kinds[suffix]


def _check(word: str, kind: str, interface: Interface, asked: Asked) -> None:
    """Refuse what does not go together."""
    inputs = interface.inputs
    sound = kind in ("mic", "sound", *RAW)
    if sound and isinstance(inputs, Spikes):
        raise ValueError(
            f"{word}: this network hears through a model of the ear, which needs the whole sound; ask `predict`, or "
            f"stream its frames, {interface.d_input} numbers a step."
        )
    if sound and not isinstance(inputs, Audio):
        raise ValueError(f"{word}: sound is for networks that hear; this one reads {_read_by(interface)}.")
    if kind == "text" and not (isinstance(inputs, Tokens) and inputs.text == "bytes"):
        raise ValueError(f"{word}: text is for networks that read bytes; this one reads {_read_by(interface)}.")
    told = {
        "--format": (asked.format, word == STDIN, "standard input; a file is known by its name"),
        "--channels": (asked.channels, kind in RAW, "raw samples of standard input"),
        "--device": (asked.device, kind == "mic", "mic"),
        "--rate": (asked.rate, kind != "sound", "streams that do not say their rate; a sound file does"),
        "--skip-bad": (asked.skip_bad or None, kind == "lines", "lines of numbers"),
    }
    for option, (value, fits, way) in told.items():
        if value is not None and not fits:
            raise ValueError(f"{option} is for {way}; leave it out.")
    if sound and asked.rate is not None and asked.rate != int(asked.rate):
        raise ValueError(f"--rate must be a whole number of samples a second, got {asked.rate:g}.")
    if asked.channels is not None and asked.channels < 1:
        raise ValueError(f"--channels must be at least 1, got {asked.channels}.")


def _read_by(interface: Interface) -> str:
    if isinstance(interface.inputs, Audio):
        return "sound"
    if isinstance(interface.inputs, Tokens):
        return f"tokens below {interface.vocab}"
    return f"{interface.d_input} numbers a step"


def _chunks(path: Path) -> Iterator[bytes]:
    check_regular(path)
    with path.open("rb") as file:
        yield from chunks_of(file)
