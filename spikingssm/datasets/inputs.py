"""How raw data become what a network reads: plain values, which a run keeps so that it is of use without its data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from spikingssm.datasets.audio import LONGEST_SOUND, PEAK, fitted, resampled
from spikingssm.datasets.binning import Binning
from spikingssm.datasets.rows import as_rows

__all__ = ["Audio", "Inputs", "Numbers", "Spikes", "Tokens"]

LONGEST_CLIP = 2**20
"""Tokens or bins of a row."""
HIGHEST = 192_000
"""Samples a second of a recording at most."""


@dataclass(frozen=True)
class Numbers:
    """Numbers (N, L, C) -> ((x / divide - mean) / std) * scale, float32; steps that change nothing are left out.

    Args:
        divide: what x is divided by, > 0: 255 for pixels.
        mean: of each channel, behind the division; empty for none.
        std: of each channel, > 0; empty for none.
        scale: factor on what comes out, not 0.
        order: which step of the raw sequence comes at which place, (L,); None leaves them as they are. Stored rows are
            in this order already.

    Raises:
        ValueError: a value out of range.
    """

    kind: ClassVar[str] = "numbers"
    divide: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 1.0
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_numbers(self.divide, self.scale, self.mean, self.std)
        whole = self.order is None or all(type(place) is int for place in self.order)
        if self.order is not None and (not whole or sorted(self.order) != list(range(len(self.order)))):
            raise ValueError(f"inputs: order must hold each of 0 to {len(self.order) - 1} once.")

    def fits(self, length: int, channels: int) -> bool:
        """Whether rows of that many steps and channels can come of it."""
        return len(self.mean) in (0, channels) and (self.order is None or len(self.order) == length)

    def __call__(self, x: Tensor) -> Tensor:
        """Stored rows -> what the network reads."""
        x = x.to(torch.float32)
        x = x / self.divide if self.divide != 1 else x
        if self.mean:
            x = (x - x.new_tensor(self.mean)) / x.new_tensor(self.std)
        return x * self.scale if self.scale != 1 else x

    def units(self, rows: np.ndarray) -> np.ndarray:
        """Stored rows -> the same in the units of the data: as they are."""
        return rows

    def undone(self, channels: int) -> tuple[list[float], list[float]]:
        """Factor and offset of each channel that take what the network reads back to the units of the data."""
        mean, std = self.mean or (0.0,) * channels, self.std or (1.0,) * channels
        return [s * self.divide / self.scale for s in std], [m * self.divide for m in mean]

    def rows(self, x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw sequences -> stored rows (N, L, C), and the valid steps of each; see `as_rows`."""
        found, valid = as_rows(x, channels, lengths)
        if self.order is None:
            return found, valid
        if found.shape[1] != len(self.order):
            raise ValueError(f"x has {found.shape[1]} steps; this network reads {len(self.order)} of them in an order.")
        return found[:, list(self.order)], valid


@dataclass(frozen=True)
class Audio:
    """Sound -> samples / 2^15 / scaling, float32, at a ``down``-th of ``hertz``, in rows of one length.

    Args:
        hertz: samples a second of the recordings that were trained on.
        scaling: what samples / 2^15 are divided by, > 0.
        down: 1 as recorded; 2 reads half of the samples a second, without aliases.
        length: samples of a row at ``hertz``; a longer clip loses its end, a shorter one ends in zeros.
        masked: whether the network is told how many samples of a row are real.

    Raises:
        ValueError: a value out of range.
    """

    kind: ClassVar[str] = "audio"
    hertz: int
    scaling: float
    down: int = 1
    length: int = 16_000
    masked: bool = True

    def __post_init__(self) -> None:
        _check_numbers(self.scaling, 1.0)
        sizes = {
            "hertz": (self.hertz, HIGHEST),
            "down": (self.down, HIGHEST),
            "length": (self.length, LONGEST_SOUND * HIGHEST),
        }
        if not all(_is_count(value, most) for value, most in sizes.values()):
            raise ValueError(f"inputs: audio of {self.hertz} Hz / {self.down} in rows of {self.length} samples.")

    def fits(self, length: int, channels: int) -> bool:
        """Whether rows of that many steps and channels can come of it."""
        return channels == 1 and -(-self.length // self.down) == length

    def __call__(self, x: Tensor) -> Tensor:
        """Stored samples int16 -> what the network reads."""
        return x.float() / (PEAK * self.scaling)

    def units(self, rows: np.ndarray) -> np.ndarray:
        """Stored samples -> the same as part of the loudest sample that there can be, float32."""
        return np.asarray(rows, np.float32) / PEAK

    def undone(self, channels: int) -> tuple[list[float], list[float]]:
        """Factor and offset that take what the network reads back to those units."""
        return [self.scaling] * channels, [0.0] * channels

    def rows(self, x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Clips at ``hertz``, (T,), (N, T), (N, T, 1) or a list of (T,) -> rows (N, L, 1) int16, and their real steps.

        Samples are int16, or floats in [-1, 1].
        """
        padded, valid = as_rows(x, 1, lengths)
        samples = [_samples(row[: None if valid is None else valid[i], 0]) for i, row in enumerate(padded)]
        _say_cut([len(clip) for clip in samples], self.length, f"samples ({self.length / self.hertz:g} s)")
        found = np.stack([resampled(fitted(clip, self.length), self.down) for clip in samples])[:, :, None]
        real = np.array([-(-min(len(clip), self.length) // self.down) for clip in samples])
        return found, real if self.masked else None


@dataclass(frozen=True)
class Spikes:
    """Sound -> spikes of a `Cochlea` in time bins, as `spikingssm.datasets.fsdd_spikes` makes them.

    Args:
        hertz: samples a second that the model of the ear hears.
        channels: see `Binning`, as are the others.

    Raises:
        ValueError: a value out of range.
    """

    kind: ClassVar[str] = "spikes"
    hertz: int
    channels: int = 140
    bins: str = "published"
    steps: int | None = None
    bin_ms: float = 4.0
    binary: bool = True

    def __post_init__(self) -> None:
        if not (_is_count(self.steps or 1, LONGEST_CLIP) and _is_count(self.channels, LONGEST_CLIP)):
            raise ValueError(f"inputs: spikes of {self.channels} channels in {self.steps} bins.")
        if not (_is_count(self.hertz, HIGHEST) and self.hertz >= 4_000):
            raise ValueError(f"inputs: a model of the ear hears 4000 to {HIGHEST} samples a second, got {self.hertz}.")
        self._binning()

    def fits(self, length: int, channels: int) -> bool:
        """Whether rows of that many steps and channels can come of it."""
        return self.channels == channels and self._binning().length == length

    def __call__(self, x: Tensor) -> Tensor:
        """Stored frames -> what the network reads."""
        return x.float()

    def rows(self, x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Clips at ``hertz`` as `Audio` takes them, or frames (N, L, C) -> frames (N, L, C), and their real bins."""
        from spikingssm.datasets.cochlea import Cochlea
        from spikingssm.datasets.heidelberg import UNITS

        shape = getattr(x, "shape", None)
        if shape is not None and len(shape) >= 2 and shape[-1] == channels:
            return as_rows(x, channels, lengths)
        padded, valid = as_rows(x, 1, lengths)
        ear, binning = Cochlea(channels=UNITS, rate=self.hertz), self._binning()
        heard = [ear(_samples(row[: None if valid is None else valid[i], 0])) for i, row in enumerate(padded)]
        frames = np.stack([binning.frame(times, units) for times, units in heard])
        return frames, binning.valid(np.array([times.max(initial=0) for times, _ in heard]))

    def _binning(self) -> Binning:
        return Binning(self.channels, self.bins, self.steps, self.bin_ms, self.binary)


@dataclass(frozen=True)
class Tokens:
    """Token numbers (N, L), or pairs of sequences (N, 2, L), as they are; text where a byte is a token.

    Args:
        text: "bytes" where text is read byte by byte, or "" where only numbers are.
        end: the token behind the text, with "bytes".
        length: most tokens of a row, with the end.

    Raises:
        ValueError: a value out of range.
    """

    kind: ClassVar[str] = "tokens"
    text: str = ""
    end: int = 1
    length: int = 4_096

    def __post_init__(self) -> None:
        sizes = _is_count(self.length, LONGEST_CLIP) and _is_count(self.end + 1, 256)
        if self.text not in ("", "bytes") or not sizes or self.length < 2:
            raise ValueError(f"inputs: tokens of text {self.text!r} that ends in {self.end}, {self.length} a row.")

    def fits(self, length: int, channels: int) -> bool:
        """Whether rows of that many steps and channels can come of it."""
        return channels == 1 and (not self.text or self.length == length)

    def __call__(self, x: Tensor) -> Tensor:
        """Stored tokens -> what the network reads; 0 where a row of a stream is filled up."""
        return x.long().clamp(min=0)

    def rows(self, x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Token numbers, or a text or several, -> tokens (N, L) or (N, 2, L), and the valid ones of each row."""
        if isinstance(x, str) or (isinstance(x, (list, tuple)) and x and all(isinstance(row, str) for row in x)):
            return self._encoded([x] if isinstance(x, str) else list(x))
        found = np.asarray(x)
        found = found[None] if found.ndim == 1 else found
        if found.ndim not in (2, 3) or found.dtype.kind not in "iu" or not found.size:
            raise ValueError(f"x must hold token numbers (N, L), got {found.dtype} of shape {found.shape}.")
        return found, None if lengths is None else np.asarray(lengths).astype(np.int64)

    def _encoded(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self.text != "bytes":
            raise ValueError("this network keeps no vocabulary; give token numbers (N, L) as its data set makes them.")
        whole = [np.frombuffer(text.encode(), np.uint8) for text in texts]
        _say_cut([len(row) for row in whole], self.length - 1, "bytes")
        tokens = [row[: self.length - 1] for row in whole]
        valid = np.array([len(row) + 1 for row in tokens])
        found = np.zeros((len(texts), int(valid.max())), np.uint8)
        for row, own in zip(found, tokens, strict=True):
            row[: len(own)] = np.where(own > self.end, own, ord(" "))
            row[len(own)] = self.end
        return found, valid


Inputs = Numbers | Audio | Spikes | Tokens


def _samples(clip: np.ndarray) -> np.ndarray:
    """Samples as int16: those of a file as they are, floats in [-1, 1] times 2^15."""
    if clip.dtype == np.int16:
        return clip
    if clip.dtype.kind != "f" or np.abs(clip).max() > 1:
        size = np.abs(clip.astype(np.float64)).max()
        raise ValueError(f"samples must be int16, or floats in [-1, 1]; got {clip.dtype} up to {size:.6g}.")
    return np.clip(np.rint(clip.astype(np.float64) * PEAK), -PEAK, PEAK - 1).astype(np.int16)


def _say_cut(sizes: Sequence[int], most: int, unit: str) -> None:
    """Warn of rows that are longer than the network reads."""
    if (longer := [size for size in sizes if size > most]) and len(sizes) == 1:
        logger.warning(f"the network reads the first {most} {unit}, and not the rest of the {longer[0]} given")
    elif longer:
        logger.warning(
            f"the network reads the first {most} {unit} of a row, and not the rest of {len(longer)} of {len(sizes)} "
            f"rows, up to {max(longer)}"
        )


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _check_numbers(divide: float, scale: float, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
    numbers = (divide, scale, *mean, *std)
    if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
        raise ValueError("inputs: what x is divided, shifted and multiplied by must be finite numbers.")
    if divide <= 0 or scale == 0 or len(mean) != len(std) or any(s <= 0 for s in std):
        raise ValueError(f"inputs: divide={divide} and std must be above 0, and one mean for each std.")
