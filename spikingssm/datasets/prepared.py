"""Raw blocks of a stream -> what a network reads, the same as of the whole sequence."""

from typing import Any

import numpy as np
import torch

from spikingssm.datasets.audio import PEAK
from spikingssm.datasets.inputs import Audio, Numbers, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.resampling import Resampler

__all__ = ["Prepared"]

MOST = 192_000
"""Samples or steps a second."""


class Prepared:
    """Prepares a stream block by block, as `TrainedModel.prepare` does a whole sequence; it keeps what must be kept.

    Args:
        interface: what the network reads.
        rate: samples a second of sound, or steps a second of other data; None is the network's own, if it has one.
        loud: samples beyond [-1, 1] are cut, as those of a sound file are; else they are refused.

    Attributes:
        rate: steps a second that the network reads, or None.

    Raises:
        ValueError: data that cannot be read in blocks, or a rate out of range.
    """

    def __init__(self, interface: Interface, rate: float | None = None, loud: bool = False) -> None:
        self._interface, self._loud = interface, loud
        inputs: Any = interface.inputs
        if interface.pairs:
            raise ValueError("this network compares two sequences, which are no stream; ask `predict`.")
        if isinstance(inputs, Numbers) and inputs.order is not None:
            raise ValueError(
                f"this network reads its {len(inputs.order)} steps in another order than they come, which needs all of "
                "them; ask `predict`."
            )
        if rate is not None and not 0 < rate <= MOST:
            raise ValueError(f"rate must be above 0 and at most {MOST} a second, got {rate:g}.")
        self.rate = rate
        self._first: Resampler | None = None
        if isinstance(inputs, Audio):
            given = inputs.hertz if rate is None else rate
            if given != int(given):
                raise ValueError(f"rate must be a whole number of samples a second, got {given:g}.")
            self._first, self._second = Resampler(int(given), inputs.hertz), Resampler(inputs.down, 1)
            self.rate = inputs.hertz / inputs.down
        self._seen = 0

    def __call__(self, block: Any) -> np.ndarray:
        """A raw block -> the steps that are ready, (n, C) float32; n may be 0.

        Args:
            block: (T,) samples, int16 or floats in [-1, 1]; (T, C) numbers, or (T,) for one channel; (T,) tokens; or a
                text, for a network that reads bytes.

        Raises:
            ValueError: another shape, what is no finite number, or no token of the network. Nothing has changed then.
        """
        inputs = self._interface.inputs
        if isinstance(block, str):
            if not isinstance(inputs, Tokens) or inputs.text != "bytes":
                raise ValueError("text is for networks that read bytes; this one reads numbers.")
            found = np.frombuffer(block.encode(), np.uint8)
            block = np.where(found > inputs.end, found, ord(" "))
        raw = np.asarray(block)
        if not raw.size:
            return self._nothing()
        ready = self._checked(raw)
        self._seen += len(raw)
        return self._heard(ready, False) if isinstance(inputs, Audio) else ready

    def end(self) -> np.ndarray:
        """The steps that remain at the end of the stream, (n, C) float32: the last of the sound, the end of a text."""
        inputs = self._interface.inputs
        if isinstance(inputs, Audio) and self._seen:
            return self._heard(np.zeros(0), True)
        if isinstance(inputs, Tokens) and inputs.text == "bytes":
            return np.full((1, 1), inputs.end, np.float32)
        return self._nothing()

    def _checked(self, raw: np.ndarray) -> np.ndarray:
        inputs, channels = self._interface.inputs, self._interface.d_input
        if raw.dtype.kind not in "fiub":
            raise ValueError(f"a block must hold real numbers, got dtype {raw.dtype}.")
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            bad = int(np.argmin(np.isfinite(raw.reshape(len(raw), -1)).all(1)))
            word = "sample" if isinstance(inputs, Audio) else "step"
            raise ValueError(f"{word} {self._seen + bad} of the stream is NaN or infinite.")
        if isinstance(inputs, Audio):
            return self._samples(raw)
        if isinstance(inputs, Tokens):
            return self._tokens(raw)
        assert isinstance(inputs, (Numbers, Spikes))
        raw = raw[:, None] if raw.ndim == 1 and channels == 1 else raw
        if raw.ndim != 2 or raw.shape[1] != channels:
            heard = isinstance(inputs, Spikes)
            way = "; it hears through a model of the ear, which needs the whole sound: ask `predict`" if heard else ""
            raise ValueError(f"a block must be (steps, {channels}) for this network, got {raw.shape}{way}.")
        return np.ascontiguousarray(inputs(torch.as_tensor(raw)).numpy())

    def _samples(self, raw: np.ndarray) -> np.ndarray:
        """Samples as float64 in [-1, 1]."""
        raw = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
        if raw.ndim != 1:
            raise ValueError(f"a block of sound must be (samples,), got {raw.shape}; average its channels.")
        if raw.dtype == np.int16:
            return raw / PEAK
        if raw.dtype.kind != "f" or (not self._loud and np.abs(raw).max() > 1):
            size = np.abs(raw.astype(np.float64)).max()
            raise ValueError(f"samples must be int16, or floats in [-1, 1]; got {raw.dtype} up to {size:.6g}.")
        return raw.astype(np.float64)

    def _tokens(self, raw: np.ndarray) -> np.ndarray:
        vocab = self._interface.vocab or 0
        raw = raw.reshape(-1) if raw.ndim == 2 and raw.shape[1] == 1 else raw
        if raw.ndim != 1 or raw.dtype.kind not in "iu":
            raise ValueError(f"a block must hold token numbers (steps,), got {raw.dtype} of shape {raw.shape}.")
        if raw.min() < 0 or raw.max() >= vocab:
            bad = int(np.argmax((raw < 0) | (raw >= vocab)))
            raise ValueError(f"step {self._seen + bad} is token {raw[bad]}; this network has 0 to {vocab - 1}.")
        return raw[:, None].astype(np.float32)

    def _heard(self, samples: np.ndarray, last: bool) -> np.ndarray:
        """Samples in [-1, 1] -> those at the network's rate; rounded to 16 bits at each rate, as in the training."""
        assert self._first is not None
        assert isinstance(self._interface.inputs, Audio)
        for resampler, scale in ((self._first, PEAK), (self._second, 1)):
            samples = np.clip(np.rint(resampler(samples, last) * scale), -PEAK, PEAK - 1)
        return self._interface.inputs(torch.as_tensor(samples.astype(np.int16))).numpy()[:, None]

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, self._interface.d_input if self._interface.vocab is None else 1), np.float32)
