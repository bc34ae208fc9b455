"""What the optimiser is told: groups of parameters, and the learning rate over the steps."""

import math
from typing import Any

from torch import nn

from sdn import Neuron
from spikingssm.models.base import parameters_named

__all__ = ["SLOW_LR", "parameter_groups", "warmup_cosine"]

SLOW_LR = 1e-3
"""Highest learning rate of a module's ``slow_parameters`` where none is given."""
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    decay_threshold: bool = False,
    slow_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Every parameter in one of three groups: slow, not decayed, decayed.

    Slow: what a module names in ``slow_parameters``, at ``slow_lr`` and not decayed. Not decayed: biases, the
    parameters of norms, what a module names in ``plain_parameters`` (C and D of a state space layer), what neurons
    learn (decay would pull a log threshold towards 1). Decayed: the rest.

    Args:
        model: any module.
        lr: learning rate, > 0.
        weight_decay: of the decayed group, >= 0.
        decay_threshold: put what neurons learn into the decayed group, as the published code does.
        slow_lr: learning rate of the slow group, > 0; None is ``min(lr, 1e-3)``.

    Returns:
        groups for an optimiser, with names; empty ones left out.
    """
    slow, plain = set(), set()
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        slow |= {id(own[name]) for name in parameters_named(module, "slow_parameters") if name in own}
        plain |= {id(own[name]) for name in parameters_named(module, "plain_parameters") if name in own}
        if isinstance(module, _NORMS):
            plain |= {id(parameter) for parameter in own.values()}
        if isinstance(module, Neuron) and not decay_threshold:
            plain |= {id(parameter) for parameter in module.learned.values()}
        plain |= {id(parameter) for name, parameter in own.items() if name.endswith("bias")}
    groups = {
        "slow": {"lr": min(lr, SLOW_LR) if slow_lr is None else slow_lr, "weight_decay": 0.0},
        "plain": {"lr": lr, "weight_decay": 0.0},
        "decayed": {"lr": lr, "weight_decay": weight_decay},
    }
    found: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = "slow" if id(parameter) in slow else "plain" if id(parameter) in plain else "decayed"
            found[kind].append(parameter)
    return [{"name": name, "params": found[name], **options} for name, options in groups.items() if found[name]]


def warmup_cosine(step: int, warm: int, total: int) -> float:
    """Factor on the learning rate: linear up to 1 in ``warm`` steps, then half a cosine, 0 at ``total`` and behind it.

    Where we differ from the published code: it ran on past its end and rose again, since its total was written down
    and not counted.
    """
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
