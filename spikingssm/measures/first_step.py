"""One training step of each model on small drawn data, on any device: what `sdn doctor --gpu` compares with the CPU."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from spikingssm.models import RSNN, S5RF, SpikingSSM

__all__ = ["Step", "steps"]

Step = Callable[[str], tuple[float, dict[str, Tensor]]]
"""device -> loss, and gradients by the name of the parameter."""
BATCH, LENGTH, CHANNELS, CLASSES = 4, 96, 5, 3


def steps() -> dict[str, Step]:
    """The models by name, small."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "SpikingSSM": lambda: SpikingSSM(CHANNELS, CLASSES, d_model=32, n_layers=2, dropout=0.0, solver="fused"),
        "S5RF": lambda: S5RF(CHANNELS, CLASSES, 32, 2),
        "RSNN": lambda: RSNN(CHANNELS, CLASSES, 32, pool="last"),
    }
    return {name: partial(_step, make) for name, make in makers.items()}


def _step(make: Callable[[], nn.Module], device: str) -> tuple[float, dict[str, Tensor]]:
    """The same start on every device: weights and data are drawn on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().to(device)
        x = torch.randn(BATCH, LENGTH, CHANNELS).to(device)  # (B, L, C)
        labels = torch.randint(CLASSES, (BATCH,)).to(device)
    logits, _ = model(x)
    loss = nn.functional.cross_entropy(logits, labels)
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return loss.item(), {n: g for n, g in zip(weights, grads, strict=True) if g is not None}
