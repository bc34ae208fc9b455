"""Recorded clips: WAV files of a folder or an archive in, rows of 16-bit samples out."""

import io
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from sdn.runs.signals import held
from spikingssm.datasets.packed import tar_members

__all__ = [
    "PEAK",
    "files_in",
    "fitted",
    "folder_facts",
    "level",
    "rate_of",
    "read_sound",
    "read_wav",
    "resampled",
    "stacked",
    "tones",
]

OPEN = 2**32 - 2**16
"""Sizes from here on are no sizes: a header in a pipe is written before the samples are known."""
LONGEST_SOUND = 600
"""Seconds of a sound file of one's own."""
MOST = 2**33
"""Bytes of clips at most; Speech Commands at its full rate has 3.4 GB."""
PEAK = 2**15
"""One more than the largest 16-bit sample; samples / PEAK are in [-1, 1)."""


def read_wav(data: bytes, path: str | Path, rate: int) -> np.ndarray:
    """The samples (T,) int16 of a WAV file with one channel of 16 bits.

    Args:
        data: the bytes of the file.
        path: where they are from, for errors.
        rate: in Hz, that the file must have.

    Raises:
        ImportError: soundfile is not installed.
        ValueError: not a WAV file, cut short, without samples, or of another rate, width or number of channels.
    """
    soundfile = _soundfile()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError(f"{path}: starts with {data[:12]!r}, a WAV file with b'RIFF', its size and b'WAVE'.")
    data = _with_sizes(data, path)
    try:
        # an exception in a function that a C library calls is lost, and the clip is then cut short
        with held(), soundfile.SoundFile(io.BytesIO(data)) as file:
            found = (file.samplerate, file.channels, file.subtype)
            if found != (rate, 1, "PCM_16"):
                raise ValueError(
                    f"{path}: {found[0]} Hz, {found[1]} channel(s), {found[2]}, must be {rate} Hz, 1 channel, PCM_16; "
                    "convert it or take it out."
                )
            samples, there = file.read(dtype="int16"), file.frames
    except (soundfile.LibsndfileError, RuntimeError, TypeError, MemoryError) as error:
        reason = _reason(error)
        raise ValueError(f"{path}: not a readable WAV file ({reason}); copy or download it again.") from None
    if len(samples) != there:  # Ctrl-C in a notebook, say
        raise ValueError(f"{path}: only {len(samples)} of {there} samples could be read; read it again.")
    if not len(samples):
        raise ValueError(f"{path}: 0 samples, must be at least 1; take it out.")
    return cast(np.ndarray, samples)


def read_sound(data: bytes, path: str | Path, rate: int) -> np.ndarray:
    """The samples (T,) int16 of a sound file of any rate, width and number of channels, at ``rate`` Hz.

    A file of one channel of 16 bits at that rate is taken as it is. Else the channels are averaged, and another rate is
    filtered and resampled.

    Args:
        data: the bytes of a WAV, FLAC or Ogg file.
        path: where they are from, for errors.
        rate: in Hz.

    Raises:
        ImportError: soundfile is not installed.
        ValueError: not a readable sound file, without samples, or longer than `LONGEST_SOUND` seconds.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        data = _with_sizes(data, path)
    soundfile = _soundfile()
    try:
        with held(), soundfile.SoundFile(io.BytesIO(data)) as file:
            there, found = file.frames, file.samplerate
            if not 0 < there <= LONGEST_SOUND * found:
                raise ValueError(
                    f"{path}: {there} samples at {found} Hz, must be at least 1 and at most {LONGEST_SOUND} seconds; "
                    "cut it."
                )
            if (found, file.channels, file.subtype) == (rate, 1, "PCM_16"):
                return cast(np.ndarray, file.read(dtype="int16"))
            samples = file.read(dtype="float64", always_2d=True).mean(1)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, MemoryError) as error:
        reason = _reason(error)
        raise ValueError(f"{path}: not a readable sound file ({reason}); save it as WAV.") from None
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples)))
        raise ValueError(f"{path}: sample {first} is NaN or infinite; mend the file.")
    if found != rate:
        from scipy.signal import resample_poly

        common = math.gcd(found, rate)
        samples = resample_poly(samples, rate // common, found // common)
    return cast(np.ndarray, np.clip(np.rint(samples * PEAK), -PEAK, PEAK - 1).astype(np.int16))


def rate_of(data: bytes, path: str | Path) -> int:
    """The rate of a sound file in Hz.

    Raises:
        ValueError: not a readable sound file.
    """
    soundfile = _soundfile()
    try:
        return int(soundfile.info(io.BytesIO(data)).samplerate)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: not a readable sound file ({_reason(error)}).") from None


def _reason(error: BaseException) -> str:
    """What soundfile says, without the name that it makes up for bytes."""
    return re.sub(r"^Error opening <_io\.BytesIO[^>]*>: ", "", " ".join(str(error).split()))[:100]


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("audio needs the extra `data`: pip install 'sdn-spikingssm[data]'.") from error
    return soundfile


def _with_sizes(data: bytes, path: str | Path) -> bytes:
    """The file with the size that it has, where a program that wrote into a pipe left it open (ffmpeg does).

    Raises:
        ValueError: another size than the header announces.
    """
    announced, there = int.from_bytes(data[4:8], "little"), len(data) - 8
    if announced > there and announced < OPEN:
        raise ValueError(
            f"{path}: its header announces {8 + announced} bytes and there are {len(data)}; copy or download it again."
        )
    if announced < OPEN:
        return data
    at, changed = 12, bytearray(data)
    changed[4:8] = there.to_bytes(4, "little")
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data" and size >= OPEN:
            changed[at + 4 : at + 8] = (len(data) - at - 8).to_bytes(4, "little")
            break
        at += 8 + size + size % 2
    return bytes(changed)


def files_in(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of the wanted files below a folder, or of a tar archive in one pass; nothing is unpacked on disk.

    Args:
        source: a folder, or a ``.tar`` file, plain or packed with gzip or xz.
        wanted: whether to read the file with this path, relative to ``source``.

    Raises:
        ValueError: not a tar archive, or one that is damaged, cut short or packed tighter than data can be.
    """
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if wanted(name) and path.is_file():
                yield name, path.read_bytes()
        return
    yield from tar_members(source, wanted)


def folder_facts(folder: Path, wanted: Callable[[str], bool]) -> dict[str, list[int]]:
    """Number, bytes and newest time of change of the wanted files below a folder, for the facts of `cached`."""
    found = [p.stat() for p in folder.rglob("*") if wanted(p.relative_to(folder).as_posix()) and p.is_file()]
    newest = max((s.st_mtime_ns for s in found), default=0)
    return {str(folder.resolve()): [len(found), sum(s.st_size for s in found), newest]}


def fitted(clip: np.ndarray, length: int) -> np.ndarray:
    """The first ``length`` samples of a clip (T,), with zeros after its end where it is shorter."""
    return np.pad(clip[:length], (0, max(0, length - len(clip))))


def resampled(clips: np.ndarray, down: int) -> np.ndarray:
    """Clips (..., T) int16 at a ``down``-th of their rate, (..., ceil(T / down)) int16.

    What the lower rate cannot carry is filtered out first: a plain stride would fold it onto lower frequencies.

    Raises:
        ValueError: a factor below 1.
    """
    if down < 1:
        raise ValueError(f"rate must be at least 1 (1 is the recorded rate, 2 half of it), got {down}.")
    if down == 1:
        return clips
    from scipy.signal import resample_poly

    slow = resample_poly(clips.astype(np.float64), 1, down, axis=-1)
    found: np.ndarray = np.clip(np.rint(slow), -PEAK, PEAK - 1).astype(np.int16)
    return found


def stacked(clips: Iterable[np.ndarray], length: int) -> np.ndarray:
    """Clips (length,) int16 as the rows of one array (N, length), through a file: a large set is never in memory.

    Raises:
        ValueError: more than 8 GiB of them.
    """
    with tempfile.TemporaryFile() as spool:
        for clip in clips:
            if spool.tell() > MOST:
                raise ValueError(f"clips of {length} samples are more than {MOST} bytes; set data.length lower.")
            spool.write(clip.astype(np.int16, copy=False).tobytes())
        spool.flush()
        if not spool.tell():
            return np.zeros((0, length), np.int16)
        return np.memmap(spool, np.int16, "r").reshape(-1, length)


def level(name: str, energy: np.ndarray, samples: int) -> float:
    """Root mean square of samples / PEAK, from the ``energy`` (N,) of clips: the sums of their squared int16 samples.

    Raises:
        ValueError: nothing but silence.
    """
    if not energy.sum() > 0:
        raise ValueError(f"{name}: all {samples} training samples are 0; set data.root to recorded clips.")
    return math.sqrt(float(energy.sum()) / samples) / PEAK


def tones(classes: int, lengths: Sequence[int], rate: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Stand-in clips (N, length) int16 and classes (N,): two tones that name the class, as on a telephone, in noise.

    Args:
        classes: number of classes, spread evenly.
        lengths: (N,) samples of each clip, from 1 to ``length``; zeros follow.
        rate: in Hz.
        length: of the rows.
    """
    rng = np.random.default_rng(1963)
    side = math.ceil(math.sqrt(classes))
    low, high = np.geomspace(250, 800, side), np.geomspace(1000, 3000, side)
    y = rng.permutation(np.arange(len(lengths)) % classes)
    x = np.zeros((len(lengths), length), np.int16)
    for row, (n, label) in enumerate(zip(lengths, y, strict=True)):
        pair = np.array([low[label // side], high[label % side]])[:, None]
        phase, loud = rng.uniform(0, 2 * np.pi, (2, 1)), rng.uniform(0.5, 1, (2, 1))
        clip = (loud * np.sin(2 * np.pi * pair * np.arange(n) / rate + phase)).sum(0) + rng.normal(0, 0.3, n)
        x[row, :n] = np.rint(0.1 * PEAK * clip)
    return x, y.astype(np.int64)
