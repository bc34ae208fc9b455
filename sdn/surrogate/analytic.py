"""The weights of a surrogate network written down: a hard-reset LIF of small decay needs no training.

With the threshold at 1 and ``x_j = input[t-j]`` the LIF is ``mem[t] = d G(h_1)``, ``h_j = x_j + d G(h_{j+1})``, where
``G(h) = h`` below 1 and 0 from there on. Three ReLUs make a G whose jump is a ramp of width w about 1, from p to q:
``G(h) = h - (1 + K) relu(h - p) + K relu(h - q)``, ``p = 1 - w/2``, ``q = 1 + w/2``, ``K = p / w``, and the line h is
one ReLU more, or the difference of two. A network nests as many G as it can and ends in a line without resets, the
tail ``z_j = x_j + d x_{j+1} + d^2 x_{j+2} + ...``.

Source: the construction is ours. Of Shen et al., AAAI 2025 (arXiv 2408.14909) are the network and the neuron.
"""

import math
import re
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.checks.arguments import check_count
from sdn.dynamics.base import Dynamics, Value, check_dynamics
from sdn.dynamics.lif import LIF
from sdn.surrogate.network import SDN, ReducedSDN, of_weights

__all__ = ["analytic", "analytic_start"]

GATE = 128.0
"""Slope, times the width of a ramp, of a unit that silences others: they are off a few widths / GATE further on."""
CARRIED = 4.0
"""A current is carried as ``CARRIED - relu(CARRIED - x)``: above this many thresholds the neuron fires anyway."""
LOST = 1 / 256
"""Largest ``decay ** (G + 1)`` for G nested resets; at it some 99.96 % of the spikes are right."""
WIDTHS = (1e-4, 0.5)

Forms = Tensor
"""Affine forms, (rows, n + 1): n factors of what they read, oldest step or first unit first, and a constant."""
Layers = tuple[Forms, Forms, Forms, Tensor]
"""The first taps, those of later layers, the features of every layer, and the readout with its constant."""


def analytic(
    dynamics: Dynamics, d_model: int = 8, kernel_size: int = 8, n_layers: int = 1, width: float = 0.002
) -> ReducedSDN:
    """The surrogate of a hard-reset LIF, written down instead of trained.

    One layer nests three resets, see `_one_layer`; n > 1 layers nest n + 1, see `_layers`. Channels that are not needed
    are 0. Share of right spikes under N(0, 1) currents, over 2M steps (trained networks of 153 numbers: 99.994 %):

    ================  =======  ==========  =========
    sizes             numbers  decay .125  decay .2
    ================  =======  ==========  =========
    8, 8, 1 (here)    153      99.998 %    99.987 %
    5, 4, 2           116      99.998 %    99.986 %
    5, 4, 3           171      99.9994 %   99.996 %
    5, 4, 4           226      99.9996 %   99.998 %
    ================  =======  ==========  =========

    Args:
        dynamics: a `sdn.LIF` with a hard reset and one decay and threshold for all neurons. The largest decay is 0.25
            for one or two layers, 0.329 for three, 0.396 for four; at it 99.96 to 99.97 % are right.
        d_model: >= 8 for one layer, >= 5 for more.
        kernel_size: >= 4 for one layer, >= 3 for more; what is beyond 3 or 2 is the tail.
        n_layers: >= 1.
        width: w, in thresholds, 1e-4 to 0.5. Wider ramps are wrong more often, narrower ones have factors near 1 / w
            that round more; 0.001 to 0.002 is best in float32.

    Returns:
        ReducedSDN in float32, frozen, in eval mode. Keep it there: in half precision the ramps are lost.

    Raises:
        TypeError: no dynamics.
        ValueError: another neuron, another reset, a decay too large, or sizes or a width out of range.
    """
    decay, threshold = _neuron(dynamics, n_layers)
    _check_sizes(d_model, kernel_size, n_layers, width)
    made = _one_layer(kernel_size, decay, width) if n_layers == 1 else _layers(kernel_size, decay, width)
    sizes = {"d_model": d_model, "kernel_size": kernel_size, "n_layers": n_layers}
    weights = {name: value.float() for name, value in _named(made, threshold, d_model, n_layers).items()}
    return of_weights(ReducedSDN, sizes, weights)


def analytic_start(
    dynamics: Dynamics, d_model: int = 8, kernel_size: int = 8, n_layers: int = 1, width: float = 0.002
) -> SDN:
    """The same function as a network to train: 193 parameters by default, and its norms do nothing.

    The norms do nothing while they are frozen, as in eval mode and by default in `sdn.Recipe`. In train mode they use
    the statistics of the batch, which makes another function. Training spoils steep ramps and sharpens wide ones: 1500
    steps of Adam at 1e-3 took a width of 0.002 from 99.998 % of the spikes to 99.90 %, and one of 0.1 from 99.977 % to
    99.985 %.

    Args:
        dynamics: as in `analytic`.
        d_model: as in `analytic`.
        kernel_size: as in `analytic`.
        n_layers: as in `analytic`.
        width: as in `analytic`.

    Returns:
        SDN in float32, in eval mode, parameters trainable. ``sdn.reduce`` of it is `analytic` to 1e-7 thresholds.

    Raises:
        TypeError, ValueError: as `analytic`.
    """
    written = analytic(dynamics, d_model, kernel_size, n_layers, width)
    start = SDN(d_model, kernel_size, n_layers)
    weights = start.state_dict()
    for name, value in written.state_dict().items():
        weights[re.sub(r"^(spatial|feature)\.(\d+)", r"\1_layers.\2.0", name)] = value
    weights["encoder.weight"] = torch.ones_like(weights["encoder.weight"])
    gamma, variance = _norm_of_one()
    for i, kind in product(range(n_layers), ("spatial_layers", "feature_layers")):
        weights[f"{kind}.{i}.1.weight"] = gamma.expand(d_model)
        weights[f"{kind}.{i}.1.running_var"] = variance.expand(d_model)
    start.load_state_dict(weights)
    return start.eval()


def _norm_of_one(eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Gamma and variance in float32, near 1, with ``gamma / sqrt(variance + eps) = 1`` to 1e-10.

    Gamma 1 and variance ``1 - eps`` are rounded to 1e-8, which steep ramps make 1e-5.
    """
    gamma = 1 + torch.arange(4096, dtype=torch.float64) * 2.0**-23
    variance = (gamma**2 - eps).float()
    best = (gamma / torch.sqrt(variance.double() + eps) - 1).abs().argmin()
    return gamma[best].float(), variance[best]


def _named(made: Layers, threshold: float, d_model: int, n_layers: int) -> dict[str, Tensor]:
    """The forms as the float64 weights of a ReducedSDN, in a scale of the threshold and filled up with zeros."""
    first, later, mix, read = made
    rows = len(mix)
    spare = d_model - rows
    weights = {}
    for i in range(n_layers):
        taps = pad(later if i else first, (0, 0, 0, spare))
        weights[f"spatial.{i}.weight"] = taps[:, None, :-1] / (1.0 if i else threshold)
        weights[f"spatial.{i}.bias"] = taps[:, -1]
        beside = mix[:, :-1] - torch.eye(rows, dtype=mix.dtype)  # the network adds what the layer reads
        weights[f"feature.{i}.weight"] = pad(beside, (0, spare, 0, spare)).unsqueeze(-1)
        weights[f"feature.{i}.bias"] = pad(mix[:, -1], (0, spare))
    weights["decoder.weight"] = threshold * pad(read[:-1], (0, spare)).reshape(1, d_model, 1)
    weights["decoder.bias"] = threshold * read[-1:]
    return weights


def _one_layer(kernel_size: int, d: float, width: float) -> Layers:
    """Three nested G in two times eight ReLUs: taps (8, K + 1), features (8, 9), readout (9,).

    ``h_3`` is the tail z_3, and z_2 and G(z_3) make h_2, which is exact in the units of the first ReLU. ``z_2 >= h_2``
    always, so z_2 splits the steps, and a unit of slope ``GATE / w`` silences what belongs to the other side:

    - ``z_2 < 1``: step t-2 did not fire, so ``mem = d G(x_1 + d h_2)``: units 0 to 2.
    - ``z_2 > 1``, and it fired: ``mem = d G(x_1)``: unit 3.
    - ``z_2 > 1``, and it did not, because step t-3 did. As above ``d h_2`` is added where ``x_1 < 1`` (units 4, 5), and
      all is taken away where ``x_1 + d h_2 > 1`` (units 6, 7). There ``G(z_3)`` is 0, so that is ``x_1 + d x_2 > 1``.
      What is taken away is between 1 and ``1 + d``; its middle is used, which errs by up to ``d^2 / 2`` in some
      steps of ten thousand.
    """
    p, q, k = _ramp(width)
    *taps, one = torch.eye(kernel_size + 1, dtype=torch.float64)
    x1, x2, z2, z3 = taps[-1], taps[-2], _tail(taps[:-1], d), _tail(taps[:-2], d)
    below, above = p * one - x1, x1 - p * one
    first = [below, above, x1 - q * one, one - z2, z2 - one, z3 - p * one, z3 - q * one, one - x1 - d * x2]
    *a, one = torch.eye(len(first) + 1, dtype=torch.float64)
    after_x1 = p * one - a[0] - k * a[1] + k * a[2]
    h2 = one - a[3] + a[4] - d * ((1 + k) * a[5] - k * a[6])
    h1 = p * one - a[0] + a[1] + d * h2
    gate = GATE / width
    calm, fired = gate * a[4], gate * a[3]
    added = fired + gate * a[1]
    flipped = added + gate * a[7]
    mix = [p * one - h1 - calm, h1 - p * one - calm, h1 - q * one - calm, p * one - after_x1 - fired]
    mix += [edge * one - h2 - gates for gates in (added, flipped) for edge in (q, p)]
    middle = (1 + d / 2) / width
    read = d * torch.tensor([-1, -k, k, -1, d * k, -d * (1 + k), -middle, middle, p], dtype=torch.float64)
    return torch.stack(first), torch.empty(0), torch.stack(mix), read


def _layers(kernel_size: int, d: float, width: float) -> Layers:
    """One G more with every layer, in five units: taps twice (5, K + 1), features (5, 6), readout (6,).

    Unit 0 carries x_1, the others G: ``relu(h), relu(-h), relu(h - p), relu(h - q)``, all 0 at rest, as is the padding.
    A layer makes ``h' = x_1 + d G(h)`` of them, h first being z_2. The next layer looks at h' one step earlier.
    """
    p, q, k = _ramp(width)
    *taps, one = torch.eye(kernel_size + 1, dtype=torch.float64)
    first = torch.stack([CARRIED * one - taps[-1], *_pieces(_tail(taps[:-1], d), one, p, q)])
    later = torch.stack([taps[-1], *[taps[-2]] * 4])
    *a, one = torch.eye(len(first) + 1, dtype=torch.float64)
    after = a[1] - a[2] - (1 + k) * a[3] + k * a[4]
    mix = torch.stack([a[0], *_pieces(CARRIED * one - a[0] + d * after, one, p, q)])
    return first, later, mix, d * after


def _ramp(width: float) -> tuple[float, float, float]:
    """p, q and K: where the ramp begins and ends, and how steep it is."""
    return 1 - width / 2, 1 + width / 2, (1 - width / 2) / width


def _tail(taps: list[Tensor], d: float) -> Tensor:
    """The newest of these steps, d times the one before it, and so on: (K + 1,)."""
    return torch.stack([d**i * tap for i, tap in enumerate(reversed(taps))]).sum(0)


def _pieces(h: Tensor, one: Tensor, p: float, q: float) -> list[Tensor]:
    return [h, -h, h - p * one, h - q * one]


def _neuron(dynamics: Dynamics, n_layers: int) -> tuple[float, float]:
    """Decay and threshold of a neuron that can be written down."""
    check_dynamics("analytic", dynamics)
    if type(dynamics) is not LIF:
        raise ValueError(f"analytic: only sdn.LIF can be written down, got {dynamics}; train one with sdn.fit.")
    if dynamics.reset != "hard":
        raise ValueError(f'analytic: only reset="hard" can be written down, got {dynamics}; train one with sdn.fit.')
    check_count("analytic", "n_layers", n_layers)
    decay, threshold = _number("decay", dynamics.decay), _number("threshold", dynamics.threshold)
    LIF(decay, threshold)  # which says what is out of range: a tensor was not looked at
    resets = max(3, n_layers + 1)
    if decay ** (resets + 1) > LOST:
        most = math.floor(1000 * LOST ** (1 / (resets + 1))) / 1000
        needed = math.ceil(-math.log(LOST) / -math.log(decay)) - 2
        deeper = f"write down n_layers={needed} with d_model=5, or " if needed <= 8 else ""
        raise ValueError(
            f"analytic: decay is {decay:g}, at most {most:.3f} with n_layers={n_layers}: "
            f"more of the past counts than is written down; {deeper}train one with sdn.fit."
        )
    return decay, threshold


def _number(name: str, value: Value) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(
            f"analytic: {name} has {value.numel()} values, and a network stands for one neuron; write down one each."
        )
    return float(value)


def _check_sizes(d_model: int, kernel_size: int, n_layers: int, width: float) -> None:
    least, taps = (8, 4) if n_layers == 1 else (5, 3)
    for name, value, low in (("d_model", d_model, least), ("kernel_size", kernel_size, taps)):
        if not isinstance(value, int) or value < low:
            raise ValueError(f"analytic: {name} must be at least {low} for n_layers={n_layers}, got {value!r}.")
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        raise ValueError(f"analytic: width must be from {WIDTHS[0]:g} to {WIDTHS[1]:g} thresholds, got {width}.")
