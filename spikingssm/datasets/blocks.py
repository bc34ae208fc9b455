"""Streams as blocks: sound files, raw samples of a pipe, text, arrays and a microphone, in constant memory."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from loguru import logger

from sdn.runs.files import check_regular
from spikingssm.datasets.audio import OPEN, PEAK
from spikingssm.datasets.numpy_files import npz_names, read_npy, read_npz

__all__ = ["RAW", "array_blocks", "chunks_of", "microphone_blocks", "raw_blocks", "sound_blocks", "text_blocks"]

SIZE = 2**14
"""Samples, steps or bytes of a block at most."""
RAW: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
"""Formats of raw samples, by the names that ffmpeg, arecord and sox know."""
HEADS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"RF64": "WAV"}


def chunks_of(file: IO[bytes], size: int = 2 * SIZE) -> Iterator[bytes]:
    """What a file or a pipe gives, as soon as it is there, to its end."""
    read = getattr(file, "read1", file.read)
    while chunk := read(size):
        yield chunk


def sound_blocks(path: str | Path) -> tuple[int, Iterator[np.ndarray]]:
    """The rate of a sound file in Hz, and its samples (n,) float64, the mean of its channels, of any length.

    Raises:
        ImportError: soundfile is not installed.
        FileNotFoundError: no such file.
        ValueError: not a readable sound file, cut short, or without samples.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("audio needs the extra `data`: pip install 'sdn-spikingssm[data]'.") from error
    path = Path(path)
    _check_whole(path)
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise ValueError(_unreadable(path, error)) from None
    if not file.frames:
        file.close()
        raise ValueError(f"{path}: 0 samples; there is nothing to hear.")

    def blocks() -> Iterator[np.ndarray]:
        seen = 0
        with file:
            while seen < file.frames:
                try:
                    block = file.read(SIZE, dtype="float64", always_2d=True)
                except (soundfile.LibsndfileError, RuntimeError) as error:
                    raise ValueError(_unreadable(path, error)) from None
                if not len(block):
                    raise ValueError(f"{path}: ends after {seen} of {file.frames} samples; copy it again.")
                seen += len(block)
                yield block.mean(1)

    return int(file.samplerate), blocks()


def raw_blocks(chunks: Iterable[bytes], kind: str, channels: int = 1) -> Iterator[np.ndarray]:
    """Raw samples, channels in turn -> (n,) float64 in [-1, 1], the mean of the channels.

    Args:
        chunks: bytes, cut anywhere.
        kind: "s16le", 16-bit integers, or "f32le", floats; little endian.
        channels: of the recording.

    Raises:
        ValueError: bytes that begin as a sound file does.
    """
    dtype, rest, begun = RAW[kind], b"", False
    frame = channels * dtype.itemsize
    for chunk in chunks:
        rest += chunk
        if not begun and len(rest) < 4:
            continue
        if not begun and rest[:4] in HEADS:
            raise ValueError(
                f"standard input begins as a {HEADS[rest[:4]]} file does, and --format {kind} is raw samples; give the "
                f"file by its name, or pipe `ffmpeg -i FILE -f {kind} -ac 1 -ar RATE -`."
            )
        begun = True
        if whole := len(rest) // frame * frame:
            yield _mixed(np.frombuffer(rest[:whole], dtype), channels)
            rest = rest[whole:]
    if whole := len(rest) // frame * frame:
        yield _mixed(np.frombuffer(rest[:whole], dtype), channels)
    if left := len(rest) - whole:
        logger.warning(f"the stream ended within a sample: {left} of {frame} bytes, left out")


def text_blocks(chunks: Iterable[bytes]) -> Iterator[str]:
    """Text of bytes cut anywhere, also within a letter; what is no UTF-8 is marked, as `predict` does it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        if text := decoder.decode(chunk):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def array_blocks(path: str | Path, flat: bool, channels: int) -> Iterator[np.ndarray]:
    """The one sequence in an .npz (its array x) or .npy file; such a file is read whole.

    Args:
        path: of the file.
        flat: whether a step is one number without an axis of its own: samples, or tokens.
        channels: of the network.

    Returns:
        blocks (n,) of samples or tokens, else (n, channels).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, one without x, or several sequences.
    """
    path = Path(path)
    found = {"x": read_npy(path)} if path.suffix.lower() == ".npy" else read_npz(path, ("x", "lengths"))
    if "x" not in found:
        raise ValueError(f"{path}: no array named x; it holds {', '.join(npz_names(path)) or 'nothing'}.")
    x = found["x"]
    shape = x.shape
    x = x[0] if x.ndim == 3 and len(x) == 1 else x
    if (flat or channels == 1) and x.ndim == 2 and 1 in x.shape:
        x = x.reshape(-1)
    wanted = 1 if flat else 2
    x = x[:, None] if x.ndim == 1 and channels == 1 and not flat else x
    if x.ndim != wanted or (not flat and x.shape[1] != channels) or not x.size:
        one = "(steps,)" if flat else f"(steps, {channels})"
        raise ValueError(
            f"{path}: x has the shape {shape}, and a stream is one sequence {one}; save one row, or ask `predict`, "
            "which answers for each."
        )
    if "lengths" in found and found["lengths"].size == 1:
        x = x[: int(found["lengths"].reshape(-1)[0])]
    return (x[at : at + SIZE] for at in range(0, len(x), SIZE))


def microphone_blocks(rate: int | None = None, device: str | None = None) -> tuple[int, Iterator[np.ndarray]]:
    """The rate of a microphone in Hz, and what it hears, (n,) float64 in [-1, 1], a twentieth of a second a block.

    Args:
        rate: to record at; None is the device's own.
        device: its number, or a part of its name; None is the default of the system.

    Raises:
        ImportError: sounddevice is not installed, or finds no PortAudio.
        OSError: no microphone, none that records at this rate, or one that was unplugged.
    """
    sounddevice = _sounddevice()
    which = int(device) if device is not None and device.isdigit() else device
    try:
        rate = int(sounddevice.query_devices(which, "input")["default_samplerate"]) if rate is None else rate
        stream = sounddevice.InputStream(samplerate=rate, device=which, channels=1, dtype="float32")
    except (sounddevice.PortAudioError, ValueError) as error:
        at = "" if rate is None else f" at {rate} Hz"
        raise OSError(f"no microphone{at} ({str(error)[:100]}); `python -m sounddevice` lists devices.") from None
    size, found = max(1, rate // 20), rate

    def blocks() -> Iterator[np.ndarray]:
        lost = False
        with stream:
            while True:
                try:
                    heard, overflowed = stream.read(size)
                except sounddevice.PortAudioError as error:
                    raise OSError(f"the microphone has stopped ({str(error)[:100]}); plug it in again.") from None
                if overflowed and not lost:
                    lost = True
                    logger.warning("the network is slower than the microphone: some sound was lost")
                yield np.asarray(heard, np.float64).mean(1)

    return found, blocks()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ImportError("a microphone needs the extra `mic`: pip install 'sdn-spikingssm[mic]'.") from error
    except OSError as error:  # the library that it calls
        raise ImportError(
            f"sounddevice cannot use PortAudio ({str(error)[:80]}); install it, such as by `apt install libportaudio2`."
        ) from error
    return sounddevice


def _mixed(samples: np.ndarray, channels: int) -> np.ndarray:
    wide = samples.astype(np.float64) / (PEAK if samples.dtype.kind == "i" else 1)
    mixed: np.ndarray = wide.reshape(-1, channels).mean(1)
    return mixed


def _check_whole(path: Path) -> None:
    """Refuse a WAV file that is shorter than its header says."""
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(12)
    announced, there = int.from_bytes(head[4:8], "little"), path.stat().st_size - 8
    if head[:4] == b"RIFF" and there < announced < OPEN:
        raise ValueError(
            f"{path}: its header announces {8 + announced} bytes and there are {8 + there}; copy or download it again."
        )


def _unreadable(path: Path, error: BaseException) -> str:
    reason = " ".join(str(error).split()).rpartition(f"{str(path)!r}: ")[2][:100]
    return f"{path}: not a readable sound file ({reason}); save it as WAV."
