"""How raw data become what a network reads: plain values, which a run keeps so that it is of use without its data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdn.runs.files import read_json, write_json
from spikingssm.datasets.audio import PEAK, fitted, resampled
from spikingssm.datasets.binning import Binning

__all__ = ["FILE", "Audio", "Inputs", "Interface", "Numbers", "Spikes", "Tokens", "as_rows"]

FILE = "inputs.json"
"""File of a run folder that holds its `Interface`."""
VERSION = 1
LONGEST, MOST_CLASSES = 2**31, 2**24
"""Of steps and channels, and of classes."""
LONGEST_CLIP = 2**26
"""Samples, tokens or bins of a row."""
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
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"inputs: order must hold each of 0 to {len(self.order) - 1} once.")

    def __call__(self, x: Tensor) -> Tensor:
        """Stored rows -> what the network reads."""
        x = x.to(torch.float32)
        x = x / self.divide if self.divide != 1 else x
        if self.mean:
            x = (x - x.new_tensor(self.mean)) / x.new_tensor(self.std)
        return x * self.scale if self.scale != 1 else x

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
        sizes = {"hertz": (self.hertz, HIGHEST), "down": (self.down, HIGHEST), "length": (self.length, LONGEST_CLIP)}
        if not all(_is_count(value, most) for value, most in sizes.values()):
            raise ValueError(f"inputs: audio of {self.hertz} Hz / {self.down} in rows of {self.length} samples.")

    def __call__(self, x: Tensor) -> Tensor:
        """Stored samples int16 -> what the network reads."""
        return x.float() / (PEAK * self.scaling)

    def rows(self, x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Clips at ``hertz``, (T,), (N, T), (N, T, 1) or a list of (T,) -> rows (N, L, 1) int16, and their real steps.

        Samples are int16, or floats in [-1, 1].
        """
        padded, valid = as_rows(x, 1, lengths)
        samples = [_samples(row[: None if valid is None else valid[i], 0]) for i, row in enumerate(padded)]
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
        tokens = [np.frombuffer(text.encode(), np.uint8)[: self.length - 1] for text in texts]
        valid = np.array([len(row) + 1 for row in tokens])
        found = np.zeros((len(texts), int(valid.max())), np.uint8)
        for row, own in zip(found, tokens, strict=True):
            row[: len(own)] = np.where(own > self.end, own, ord(" "))
            row[len(own)] = self.end
        return found, valid


Inputs = Numbers | Audio | Spikes | Tokens
KINDS: dict[str, type[Inputs]] = {kind.kind: kind for kind in (Numbers, Audio, Spikes, Tokens)}


@dataclass(frozen=True)
class Interface:
    """What a network and its data have agreed on: sizes, names of the classes, and how raw data are read.

    Args:
        name: of the data set.
        length: steps of a row, as the network reads it.
        d_input: channels.
        d_output: classes, or numbers that are answered.
        inputs: raw data -> what the network reads; None where that is a function, which no file can hold.
        vocab: number of tokens, or None.
        pairs: whether a row is two sequences of tokens.
        stream: whether rows follow one another in one long stream.
        classes: their names, or None.
    """

    name: str
    length: int
    d_input: int
    d_output: int
    inputs: Inputs | None
    vocab: int | None = None
    pairs: bool = False
    stream: bool = False
    classes: tuple[str, ...] | None = None

    def class_name(self, number: int) -> str:
        """The name of a class; its number where none is known."""
        return str(number) if self.classes is None else self.classes[number]

    def write(self, folder: str | Path) -> None:
        """Write `FILE` into a run folder; nothing where ``inputs`` is None."""
        if self.inputs is None:
            return
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "inputs"}
        write_json(Path(folder) / FILE, {"version": VERSION, **content, self.inputs.kind: asdict(self.inputs)})

    @classmethod
    def read(cls, folder: str | Path) -> "Interface":
        """The interface in a run folder; nothing in the file is trusted.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file, or values out of range.
        """
        path = Path(folder) / FILE
        try:
            return _interface(read_json(path))
        except FileNotFoundError:
            raise
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"{path}: not what a run of ours keeps ({' '.join(str(error).split())[:120]}).") from None


def as_rows(x: Any, channels: int, lengths: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Sequences in any of the usual forms -> (N, L, C), and the valid steps of each row.

    Args:
        x: (N, L, C) or (L, C) numbers; for one channel also (N, L) or (L,); or a list of (L, C) or (L,), which may
            differ in length.
        channels: C of the network.
        lengths: (N,) valid steps, from 1 to L; None for all. Not with a list.

    Returns:
        rows (N, L, C), zeros behind the end of a list's shorter ones, and (N,) integers or None.

    Raises:
        ValueError: another shape, what is no number, NaN or infinity, or lengths out of range.
    """
    if isinstance(x, (list, tuple)):
        if not x:
            raise ValueError("x is an empty list; give at least one sequence.")
        if lengths is not None:
            raise ValueError("lengths goes with one array (N, L, C); a list of sequences has its own lengths.")
        parts = [as_rows(row, channels)[0] for row in x]
        if wrong := [i for i, part in enumerate(parts) if len(part) != 1]:
            raise ValueError(f"x[{wrong[0]}] must be one sequence (L, {channels}), got {np.shape(x[wrong[0]])}.")
        lengths = np.array([part.shape[1] for part in parts])
        found = np.zeros((len(parts), int(lengths.max()), channels), np.result_type(*parts))
        for row, part in zip(found, parts, strict=True):
            row[: part.shape[1]] = part[0]
        return found, lengths
    found = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"x must hold real numbers, got dtype {found.dtype}.")
    shape = found.shape
    if channels == 1 and found.ndim in (1, 2) and shape[-1:] != (1,):
        found = found.reshape(-1, shape[-1], 1)
    elif found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.shape[2] != channels or not found.size:
        turned = found.ndim == 3 and found.shape[1] == channels
        way = "; x.transpose(0, 2, 1) puts the channels last" if turned else ""
        raise ValueError(f"x must be (N, L, {channels}) for this network, got {shape}{way}.")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        bad = int(np.argmin(np.isfinite(found).all(axis=(1, 2))))
        raise ValueError(f"x holds NaN or infinity, first in row {bad}; clean it first.")
    return found, None if lengths is None else _valid(lengths, found.shape)


def _valid(lengths: Any, shape: tuple[int, ...]) -> np.ndarray:
    valid = lengths.cpu().numpy() if isinstance(lengths, Tensor) else np.asarray(lengths)
    if valid.shape != shape[:1] or valid.dtype.kind not in "iu" or valid.min() < 1 or valid.max() > shape[1]:
        raise ValueError(f"lengths must be ({shape[0]},) integers from 1 to {shape[1]}, got {valid!r:.80}.")
    return valid.astype(np.int64)


def _samples(clip: np.ndarray) -> np.ndarray:
    """Samples as int16: those of a file as they are, floats in [-1, 1] times 2^15."""
    if clip.dtype == np.int16:
        return clip
    if clip.dtype.kind != "f" or np.abs(clip).max() > 1:
        size = np.abs(clip.astype(np.float64)).max()
        raise ValueError(f"samples must be int16, or floats in [-1, 1]; got {clip.dtype} up to {size:.6g}.")
    return np.clip(np.rint(clip.astype(np.float64) * PEAK), -PEAK, PEAK - 1).astype(np.int16)


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _check_numbers(divide: float, scale: float, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
    numbers = (divide, scale, *mean, *std)
    if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
        raise ValueError("inputs: what x is divided, shifted and multiplied by must be finite numbers.")
    if divide <= 0 or scale == 0 or len(mean) != len(std) or any(s <= 0 for s in std):
        raise ValueError(f"inputs: divide={divide} and std must be above 0, and one mean for each std.")


def _interface(found: Mapping[str, Any]) -> Interface:
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']!r:.20}, this program reads {VERSION}")
    values = {f.name: found[f.name] for f in fields(Interface) if f.name != "inputs"}
    kind = next(name for name in (*KINDS, "") if name in found or not name)
    made: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in dict(found[kind]).items()}
    for key, most in (("length", LONGEST), ("d_input", LONGEST), ("d_output", MOST_CLASSES), ("vocab", LONGEST)):
        value = values[key]
        if not (value is None and key == "vocab") and (type(value) is not int or not 1 <= value < most):
            raise ValueError(f"{key} is {value!r:.40}")
    classes = values["classes"]
    if classes is not None and not (
        isinstance(classes, list) and len(classes) == values["d_output"] and all(isinstance(c, str) for c in classes)
    ):
        raise ValueError("classes must be one name for each output")
    if not isinstance(values["name"], str) or not all(type(values[key]) is bool for key in ("pairs", "stream")):
        raise ValueError("name must be text, pairs and stream true or false")
    values["classes"] = None if classes is None else tuple(classes)
    build: Any = KINDS[kind]
    return Interface(**values, inputs=build(**made))
