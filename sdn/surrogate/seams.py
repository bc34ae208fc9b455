"""The seam network: a guess of a neuron's state every few steps, from which the neuron itself runs on in pieces."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from sdn.compiler.programs import slope_of
from sdn.gradients import Triangle
from sdn.ops.scan.operator import scan

__all__ = ["TAUS", "ReducedSeamSDN", "SeamSDN", "features_of", "modes", "reduce_seams"]

TAUS = (4.0, 16.0, 64.0, 256.0)
"""Time constants, in steps, of the averages that a seam network sees."""
LARGEST = 4096


def features_of(states: int, conditions: int = 0) -> int:
    """How many numbers a seam network sees: two guesses of each field, averages of current and spikes, conditions."""
    return 2 * states + 2 * len(TAUS) + conditions


class _Seams(nn.Module):
    """What both forms share: three linear layers, and what is known of the neuron without any training."""

    state_mean: Tensor
    state_std: Tensor

    def __init__(self, states: int, conditions: int = 0, hidden: int = 6, chunk: int = 32, width: float = 0.0) -> None:
        super().__init__()
        for name, value, least in (("states", states, 1), ("conditions", conditions, 0), ("hidden", hidden, 1),
                                   ("chunk", chunk, 1)):  # fmt: skip
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
                raise ValueError(f"{type(self).__name__}: {name} must be from {least} to {LARGEST}, got {value!r}.")
        if not isinstance(width, (int, float)) or not 0 <= width < math.inf:
            raise ValueError(f"{type(self).__name__}: width must be a number >= 0, got {width!r}.")
        self.states, self.conditions, self.hidden = states, conditions, hidden
        self.chunk, self.width = chunk, float(width)
        self.first = nn.Linear(features_of(states, conditions), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, states)
        self.register_buffer("state_mean", torch.zeros(states))
        self.register_buffer("state_std", torch.ones(states))

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments that it was made with."""
        return {name: getattr(self, name) for name in ("states", "conditions", "hidden", "chunk", "width")}

    def _layers(self, features: Tensor) -> Tensor:
        h = features
        for layer in (self.first, self.second):
            h = torch.relu(torch.matmul(layer.weight.to(h), h) + layer.bias.to(h)[:, None])
        return torch.matmul(self.last.weight.to(h), h) + self.last.bias.to(h)[:, None]


class SeamSDN(_Seams):
    """A network of 115 to 153 numbers that corrects a guess of a neuron's state, while it is trained.

    Every ``chunk`` steps there is a *seam*. From the mean state at all seams the exact neuron runs up to the next one,
    all at once; its linear response mends what does not fit (see `sdn.surrogate.shooting`). The network sees, of the
    seam, the mended state and the one before it was mended, and of the current and of these spikes four averages over
    4 to 256 steps. It says by how much the mended state is wrong. Three linear layers with ReLU between them.

    Args:
        states: fields of the neuron's state, S.
        conditions: fields of the neuron that it is told, see `sdn.fit`.
        hidden: units of both inner layers.
        chunk: steps between two seams.
        width: of the triangle with which a spike follows the potential when seams are mended; 0 holds the spikes.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, states: int, conditions: int = 0, hidden: int = 6, chunk: int = 32, width: float = 0.0) -> None:
        super().__init__(states, conditions, hidden, chunk, width)
        count = features_of(states, conditions)
        self.register_buffer("feature_mean", torch.zeros(count))
        self.register_buffer("feature_std", torch.ones(count))

    def initialise(self, seed: int) -> "SeamSDN":
        """Draw the weights; the correction starts near zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in (self.first, self.second, self.last):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            self.last.weight *= 0.1
            self.last.bias.zero_()
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., F, H) -> the correction of each field in units of its standard deviation, (..., S, H)."""
        return self._layers((features - self.feature_mean[:, None]) / self.feature_std[:, None])


class ReducedSeamSDN(_Seams):
    """A seam network with all scales folded into its weights, frozen. Made by `sdn.reduce`; arguments as there."""

    def __init__(self, states: int, conditions: int = 0, hidden: int = 6, chunk: int = 32, width: float = 0.0) -> None:
        super().__init__(states, conditions, hidden, chunk, width)
        self.requires_grad_(False)
        self.slope: tuple[str, list[float]] = slope_of(Triangle(self.width)) if self.width else ("", [])

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., F, H) -> the correction of each field, in its own unit, (..., S, H)."""
        return self._layers(features)


def reduce_seams(network: SeamSDN) -> ReducedSeamSDN:
    """The same function with the scales of features and states folded into the first and the last layer, in float64."""
    wide = {name: value.detach().double().cpu() for name, value in network.state_dict().items()}
    mean, std, scale = wide.pop("feature_mean"), wide.pop("feature_std"), wide["state_std"]
    wide["first.weight"] = wide["first.weight"] / std
    wide["first.bias"] = wide["first.bias"] - wide["first.weight"] @ mean
    wide["last.weight"] = wide["last.weight"] * scale[:, None]
    wide["last.bias"] = wide["last.bias"] * scale
    reduced = ReducedSeamSDN(**network.sizes).double()
    reduced.load_state_dict(wide)
    return reduced.eval()


def modes(x: Tensor, chunk: int) -> Tensor:
    """Averages of a signal up to the end of each chunk, over the past with the weights ``exp(-lag / tau)``.

    Args:
        x: (B, m * chunk, H).
        chunk: steps of a chunk.

    Returns:
        (B, m, 4, H), one for each of `TAUS`.
    """
    batch, length, channels = x.shape
    count, kinds = length // chunk, len(TAUS)
    keep = torch.exp(-1 / torch.tensor(TAUS, dtype=x.dtype, device=x.device))
    lags = torch.arange(chunk - 1, -1, -1, dtype=x.dtype, device=x.device)
    weights = (1 - keep)[:, None] * keep[:, None] ** lags
    parts = torch.matmul(weights, x.reshape(batch, count, chunk, channels))
    factor = (keep**chunk).repeat_interleave(channels)
    return scan(factor, parts.reshape(batch, count, kinds * channels)).reshape(batch, count, kinds, channels)
