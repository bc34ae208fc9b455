"""Networks that have a compiled step, with lively weights, and data for them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from own_neurons import AdEx, Trio
from torch import nn

import sdn
from spikingssm import RSNN, S5RF, SpikingSSM

BATCH, STEPS = 3, 150
SSM = {"d_model": 12, "n_layers": 2, "d_state": 6, "solver": "fused"}


def language(**more):
    return SpikingSSM(1, 9, **SSM, vocab=9, pool="each", **more)


NETWORKS = {
    "ssm": lambda: SpikingSSM(2, 4, **SSM),
    "ssm last, batch norm first": lambda: SpikingSSM(2, 4, **SSM, pool="last", norm="batch", prenorm=True),
    "ssm each, no norm, B": lambda: SpikingSSM(2, 4, **SSM, pool="each", norm="none", learn_b=True),
    "ssm published norm": lambda: SpikingSSM(2, 4, **SSM, norm_as_published=True),
    "ssm layer norm first": lambda: SpikingSSM(2, 4, **SSM, prenorm=True),
    "ssm frames": lambda: SpikingSSM(2, 4, **SSM, patch=5),
    "ssm tokens": lambda: SpikingSSM(1, 4, **SSM, vocab=7),
    "ssm language": language,
    "ssm of a surrogate": lambda: SpikingSSM(2, 4, **{**SSM, "solver": "surrogate"}),
    "ssm alif": lambda: SpikingSSM(2, 4, **SSM, dynamics=sdn.ALIF()),
    "ssm own neuron of three states": lambda: SpikingSSM(2, 4, **SSM, dynamics=Trio(), learn_threshold=False),
    "ssm own neuron with an exponential": lambda: SpikingSSM(2, 4, **SSM, dynamics=AdEx(), learn_threshold=False),
    "s5rf": lambda: S5RF(2, 4, 24, 3, num_blocks=2),
    "s5rf turned, all skips": lambda: S5RF(2, 4, 24, 3, num_blocks=4, first_discretisation="zoh", skip="all"),
    "s5rf magnitude, refractory": lambda: S5RF(2, 4, 16, 2, num_blocks=2, magnitude=True, refractory=0.9),
    "s5rf turned magnitude": lambda: S5RF(
        2, 4, 24, 1, num_blocks=4, first_discretisation="zoh", magnitude=True, discretisation="bilinear"
    ),
    "rsnn": lambda: RSNN(2, 4, 20),
    "rsnn each, two layers, bias": lambda: RSNN(2, 4, [12, 20], pool="each", bias=True, mask=0.3),
    "rsnn alif, last": lambda: RSNN(2, 4, 20, dynamics=sdn.ALIF(), pool="last"),
    "rsnn rf": lambda: RSNN(2, 4, 20, dynamics=sdn.RF(omega=8.0, threshold=0.02)),
}


class Clash(NamedTuple):
    x: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True, eq=False)
class Names(sdn.Dynamics):
    """Whose states are called as what generated code computes."""

    W: float = 0.6
    threshold: float = 1.0
    State = Clash

    def past(self, state):
        return self.W * state.x - 0.3 * state.rows

    def advance(self, state, current, spike):
        return Clash((self.past(state) + current) * (1 - spike), 0.9 * state.rows + spike)


NETWORKS["rsnn own neuron with names of ours"] = lambda: RSNN(2, 4, 20, dynamics=Names())


def made(name, seed=0):
    """A network with lively weights and statistics, and data for it."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    tokens = getattr(model, "vocab", None)
    x = torch.randn(BATCH, STEPS, 2) if tokens is None else torch.randint(tokens, (BATCH, STEPS))
    return model.eval(), x


def steps_of(model, x):
    """What a stream reads of x: (B, L, d_input), with frames (B, L / patch, patch d_input)."""
    patch = getattr(model, "patch", 1)
    return x.reshape(BATCH, x.shape[1] // patch, -1).numpy() if x.ndim == 3 else x.unsqueeze(-1).numpy()
