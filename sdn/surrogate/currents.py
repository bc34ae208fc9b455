"""Input currents to learn a neuron from and to judge it by: named families, all in units of its usual current."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sdn.dynamics.base import Dynamics, simulate
from sdn.ops.neuron.sequence import run_sequence
from sdn.ops.scan.operator import scan

__all__ = ["FAMILIES", "MIXTURE", "currents", "family_of", "rheobase"]

KEPT = 0.9
"""What a correlated current keeps of itself in a step."""
Make = Callable[[Dynamics, int, int, float, torch.Generator], Tensor]


def _noise(rows: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.empty(rows, length).normal_(generator=generator)


def _uniform(rows: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(rows, 1).uniform_(low, high, generator=generator)


def _normal(_: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    return std * _noise(rows, length, generator)


def _driven(_: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    return std * (_noise(rows, length, generator) + 0.5)


def _wide(_: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    return 2 * std * _noise(rows, length, generator)


def _correlated(_: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    e = _noise(rows, length, generator).T.unsqueeze(0)
    steps = torch.cat([e[:, :1], math.sqrt(1 - KEPT**2) * e[:, 1:]], 1)
    return std * scan(torch.tensor([KEPT]), steps)[0].T.contiguous()


def _sparse(_: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    there = torch.empty(rows, length).uniform_(generator=generator) < 0.1
    return torch.where(there, 3 * std * _noise(rows, length, generator), 0)


def _sinusoid(_: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    period = torch.exp(_uniform(rows, math.log(8), math.log(256), generator))
    phase = _uniform(rows, 0, 2 * math.pi, generator)
    waves = math.sqrt(2) * torch.sin(2 * math.pi * torch.arange(length) / period + phase)
    return std * (waves + 0.3 * _noise(rows, length, generator))


def _near_threshold(dynamics: Dynamics, rows: int, length: int, std: float, generator: torch.Generator) -> Tensor:
    level = rheobase(dynamics, std)
    around = _uniform(rows, 0.8, 1.2, generator) * level
    return around + 0.2 * std * _noise(rows, length, generator)


FAMILIES: Mapping[str, Make] = {
    "normal": _normal,
    "driven": _driven,
    "wide": _wide,
    "correlated": _correlated,
    "sparse": _sparse,
    "sinusoid": _sinusoid,
    "near-threshold": _near_threshold,
}
"""normal: independent, N(0, std). driven: the same with a mean of std / 2. wide: N(0, 2 std). correlated: keeps 0.9 of
itself in a step, with the variance of std. sparse: N(0, 3 std) at one step of ten, else 0. sinusoid: of power std^2,
with periods of 8 to 256 steps, and noise of 0.3 std. near-threshold: constant within 20 % of the `rheobase`, and noise
of 0.2 std."""
MIXTURE = {
    "normal": 7, "driven": 2, "wide": 2, "correlated": 2, "sparse": 1, "sinusoid": 1, "near-threshold": 1,
}  # fmt: skip
"""How many of 16 rows are of which family in a mixture."""


def currents(
    dynamics: Dynamics, family: str, rows: int, length: int, std: float | None = None, seed: int = 0
) -> Tensor:
    """Currents (rows, length) float32 of a family, or of "mixture": all of them side by side.

    Args:
        dynamics: the neuron, for its usual current and its rheobase.
        family: one of `FAMILIES`, or "mixture".
        rows, length: >= 1.
        std: scale of the currents; None is ``dynamics.default_std``.
        seed: the same seed gives the same currents.

    Raises:
        ValueError: an unknown family.
    """
    std = float(dynamics.default_std if std is None else std)
    generator = torch.Generator().manual_seed(seed)
    if family != "mixture":
        return family_of(family)(dynamics, rows, length, std, generator)
    kinds = [name for name, share in MIXTURE.items() for _ in range(share)]
    order = [kinds[(row * 7) % len(kinds)] for row in range(rows)]  # 7 and 16 share no factor: any 16 rows are all
    out = torch.empty(rows, length)
    for name in MIXTURE:
        places = torch.tensor([row for row, kind in enumerate(order) if kind == name], dtype=torch.int64)
        if len(places):
            out[places] = FAMILIES[name](dynamics, len(places), length, std, generator)
    return out


def family_of(name: str) -> Make:
    """What makes the currents of a family.

    Raises:
        ValueError: an unknown name.
    """
    if name not in FAMILIES:
        raise ValueError(f"the family of currents must be one of {[*FAMILIES, 'mixture']}, got {name!r}.")
    return FAMILIES[name]


def rheobase(dynamics: Dynamics, std: float) -> float:
    """The least constant current, from std / 64 to 4 std, that makes a neuron fire within 512 steps; else std."""
    levels = torch.exp2(torch.linspace(-6, 2, 65)) * std
    x = levels.expand(1, 512, -1).contiguous()
    with torch.no_grad():
        try:
            fired = run_sequence(dynamics, x).spike
        except NotImplementedError:
            fired = simulate(dynamics, x).spike
    there: Any = (fired[0] > 0).any(0).nonzero()
    return float(levels[there[0, 0]]) if len(there) else std
