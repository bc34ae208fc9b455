"""Sound at another rate, block after block: together what the whole recording would give."""

import math

import numpy as np

__all__ = ["Resampler"]

HALF = 10
"""Half of the filter of `scipy.signal.resample_poly`, in samples of the lower rate."""


class Resampler:
    """``scipy.signal.resample_poly`` for a stream: its blocks, one after the other, equal that of the whole.

    It keeps the samples that the filter still reaches, so memory does not grow. An output is given as soon as all
    samples that it needs are there: 10 samples of the lower rate later.

    Args:
        given: rate of what comes in, in Hz.
        wanted: rate of what goes out, in Hz.

    Raises:
        ValueError: a rate below 1.
    """

    def __init__(self, given: int, wanted: int) -> None:
        if min(given, wanted) < 1:
            raise ValueError(f"Resampler: rates must be at least 1 Hz, got {given} and {wanted}.")
        common = math.gcd(given, wanted)
        self.up, self.down = wanted // common, given // common
        self._half = HALF * max(self.up, self.down)
        self._kept = np.zeros(0)
        self._start = self._seen = self._made = 0
        """Number of the first sample kept, a multiple of ``down``; of samples that came; of those that went."""

    def __call__(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """The next samples.

        Args:
            block: (T,) float64, any number of samples, also none.
            last: the recording ends behind this block, in silence.

        Returns:
            (M,) float64; of a whole recording of N samples ceil(N up / down) in all.
        """
        if self.up == self.down:
            return block
        piece = np.concatenate([self._kept, block])
        self._seen += len(block)
        reached = self._seen * self.up - (0 if last else self._half)
        ready = max(0, -(-reached // self.down))
        first, made = self._start * self.up // self.down, self._made
        if ready <= made:
            self._kept = piece
            return np.zeros(0)
        from scipy.signal import resample_poly

        found: np.ndarray = resample_poly(piece, self.up, self.down)[made - first : ready - first]
        self._made = ready
        needed = max(0, ready * self.down - self._half) // self.up
        start = max(self._start, needed // self.down * self.down)
        self._kept, self._start = piece[start - self._start :].copy(), start
        return found
