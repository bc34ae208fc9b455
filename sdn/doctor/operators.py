"""Every compiled operator on a small input: what it gives and its gradients, on any device, in any precision."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sdn.dynamics import BUILT_IN, Dynamics
from sdn.neuron import Neuron
from sdn.ops.modes.operator import modes
from sdn.ops.recurrent.recurrent import recurrent
from sdn.ops.resonate.resonate import resonate
from sdn.ops.scan.operator import scan

__all__ = ["EXACT", "Operator", "operators"]

Operator = Callable[[str, torch.dtype, int, int], dict[str, Tensor]]
"""(device, dtype, steps, channels) -> outputs and gradients by name, those of a fixed drawn input."""
EXACT = "spikes"
"""Name of an output that must be equal on every device, bit for bit."""
BATCH, MODES, BLOCK, WIDE = 3, 8, 16, 48
BATCHES, FEW = (130, 300, 530), (12, 70)
"""Rows for which a recurrent layer is cut otherwise on a GPU, and the most steps and channels of so many."""


def operators() -> dict[str, Operator]:
    """All of them by name; a surrogate and the parallel solver stand for LIF."""
    lif = BUILT_IN["lif"]()
    found: dict[str, Operator] = {name: partial(_neuron, kind(), "fused") for name, kind in BUILT_IN.items()}
    found |= {"lif, parallel": partial(_neuron, lif, "parallel"), "lif, surrogate": partial(_neuron, lif, "surrogate")}
    found |= {"scan, real": partial(_scan, False), "scan, complex": partial(_scan, True), "modes": _modes}
    found["resonate"] = partial(_resonate, 0, None)
    found["resonate, refractory"] = partial(_resonate, 0, 0.9)
    found["resonate, rotation"] = partial(_resonate, BLOCK, None)
    found["resonate, wide rotation"] = partial(_resonate, WIDE, 0.9)
    found |= {f"recurrent {name}": partial(_recurrent, BUILT_IN[name](), BATCH) for name in ("alif", "rf", "brf")}
    found |= {f"recurrent brf, {batch} rows": partial(_recurrent, BUILT_IN["brf"](), batch) for batch in BATCHES}
    return found


def _drawn(*shape: int, device: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Normal numbers, the same on every device and, up to rounding, in every precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)


def _pulled(outputs: dict[str, Tensor], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, and the gradients of their weighted sum by the leaves."""
    total = torch.zeros((), dtype=torch.float64)
    for i, (_, value) in enumerate(sorted(outputs.items())):
        real = torch.view_as_real(value) if value.is_complex() else value
        weight = _drawn(*real.shape, device=str(real.device), dtype=real.dtype, seed=7 + i)
        total = total.to(real.device) + (real * weight).sum().double()
    grads = torch.autograd.grad(total, list(leaves.values()))
    found = {name: value.detach() for name, value in outputs.items()}
    return found | {f"gradient of {name}": grad for name, grad in zip(leaves, grads, strict=True)}


def _neuron(
    dynamics: Dynamics, solver: str, device: str, dtype: torch.dtype, length: int, channels: int
) -> dict[str, Tensor]:
    neuron = Neuron(dynamics, channels, solver=solver).to(device, dtype)
    current = _drawn(BATCH, length, channels, device=device, dtype=dtype) * dynamics.default_std  # (B, L, C)
    current.requires_grad_()
    spikes, _ = neuron(current)
    return _pulled({EXACT: spikes}, {"current": current})


def _scan(is_complex: bool, device: str, dtype: torch.dtype, length: int, channels: int) -> dict[str, Tensor]:
    b = _drawn(BATCH, length, channels, device=device, dtype=dtype)
    a = torch.full((channels,), 0.95, device=device, dtype=dtype)
    if is_complex:
        a, b = torch.polar(a, torch.ones_like(a)), torch.complex(b, b.flip(1))
    leaves = {"a": a.requires_grad_(), "b": b.requires_grad_()}
    return _pulled({"x": scan(a, b)}, leaves)


def _modes(device: str, dtype: torch.dtype, length: int, channels: int) -> dict[str, Tensor]:
    u = _drawn(BATCH, length, channels, device=device, dtype=dtype).requires_grad_()  # (B, L, H)
    phase = torch.linspace(0, math.pi / 2, MODES, device=device, dtype=dtype).expand(channels, MODES)
    A = torch.polar(torch.full_like(phase, 0.97), phase).requires_grad_()  # (H, N)
    B, C = (torch.polar(torch.full_like(phase, 0.3), sign * phase) for sign in (1, -1))
    D = torch.ones(channels, device=device, dtype=dtype)
    y, _ = modes(u, A, B, C, D)
    return _pulled({"y": y}, {"u": u, "A": A})


def _resonate(
    block: int, refractory: float | None, device: str, dtype: torch.dtype, length: int, channels: int
) -> dict[str, Tensor]:
    channels = channels if not block else block * math.ceil(channels / block)
    drive = _drawn(BATCH, length, 2 * channels, device=device, dtype=dtype).requires_grad_()  # (B, L, 2P)
    phase = torch.linspace(0.1, 1.5, channels, device=device, dtype=dtype)
    factor = torch.polar(torch.full_like(phase, 0.97), phase).requires_grad_()
    gain = torch.ones_like(factor) * 0.5
    rotation = torch.linalg.qr(torch.polar(torch.ones(block, block), _turns(block)))[0] if block else None
    rotation = None if rotation is None else rotation.to(device, factor.dtype)
    spikes, _ = resonate(drive, factor, gain, rotation=rotation, refractory=refractory)
    name = "nearly the spikes" if block else EXACT  # a rotation is summed in another order
    return _pulled({name: spikes}, {"drive": drive, "factor": factor})


def _turns(block: int) -> Tensor:
    return torch.arange(block)[:, None] * torch.arange(block) * (2 * math.pi / block)


def _recurrent(
    dynamics: Dynamics, batch: int, device: str, dtype: torch.dtype, length: int, channels: int
) -> dict[str, Tensor]:
    inputs = 4
    if batch > BATCH:
        length, channels = min(length, FEW[0]), min(channels, FEW[1])
    x = _drawn(batch, length, inputs, device=device, dtype=dtype).requires_grad_()  # (B, L, C)
    scale = dynamics.default_std / math.sqrt(inputs)
    weight = scale * _drawn(channels, inputs + channels, device=device, dtype=dtype, seed=1)  # (H, C + H)
    weight[:, inputs:] *= 0.3 / math.sqrt(channels)
    weight.requires_grad_()
    spikes, _ = recurrent(x, weight, dynamics)
    return _pulled({"nearly the spikes": spikes}, {"x": x, "weight": weight})
