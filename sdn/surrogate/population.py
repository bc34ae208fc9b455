"""Several SDNs side by side as one batched model: tiny networks cost overhead, so eight cost little more than one."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from sdn.surrogate.folded import depthwise, first, folded_forward, mix
from sdn.surrogate.network import SDN, receptive_field
from sdn.surrogate.reduction import fold

__all__ = ["Population"]


class Population(nn.Module):
    """P SDNs of one size, their weights stacked on a leading axis, and a running average of each.

    With frozen norms the forward pass folds the weights (differentiably, by `fold`) and runs the reduced network; live
    norms use the statistics of the batch, as `SDN` in train mode does.

    Args:
        members: P, >= 1.
        d_model, kernel_size, n_layers: as in `SDN`.
        live_norms: normalise by the batch and update running statistics, instead of keeping the norms frozen.
    """

    def __init__(self, members: int, d_model: int, kernel_size: int, n_layers: int, live_norms: bool = False) -> None:
        super().__init__()
        self.sizes = (d_model, kernel_size, n_layers)
        self.live_norms = live_norms
        self.weights, self.statistics, self.average = nn.ParameterDict(), nn.Module(), nn.Module()
        for name, value in SDN(*self.sizes).state_dict().items():
            if not value.is_floating_point():
                continue
            stacked = value.expand(members, *value.shape).clone()
            if "running" in name:
                self.statistics.register_buffer(_key(name), stacked)
            else:
                self.weights[_key(name)] = nn.Parameter(stacked)
                self.average.register_buffer(_key(name), stacked.clone())

    @property
    def members(self) -> int:
        """P, the networks still in the race."""
        return len(self.weights[_key("decoder.bias")])

    @property
    def receptive_field(self) -> int:
        """R of every member."""
        return receptive_field(self.sizes[1], self.sizes[2])

    def initialise(self, seed: int, memory: float, input_std: float) -> Self:
        """Draw the weights: taps that fade like ``memory ** lag``, and norms that take the input to unit scale.

        Args:
            seed: the same seed draws the same population.
            memory: how much of the past a step keeps, in [0, 1).
            input_std: standard deviation of the currents.
        """
        generator = torch.Generator().manual_seed(seed)
        channels, kernel, layers = self.sizes
        lag = torch.arange(kernel, 0, -1.0)
        scale = {"encoder.weight": 0.0, "decoder.weight": 0.1, "decoder.bias": 0.0}
        with torch.no_grad():
            for i in range(layers):
                scale |= {f"spatial_layers.{i}.0.bias": 0.5, f"feature_layers.{i}.0.bias": 0.1}
                scale |= {f"feature_layers.{i}.0.weight": 0.3 / math.sqrt(channels)}
                taps = self.weights[_key(f"spatial_layers.{i}.0.weight")]
                fading = 0.5 * memory ** (lag if i == 0 else lag - 1) + 0.3 / math.sqrt(kernel)
                taps.copy_(torch.randn(taps.shape, generator=generator) * fading)
            for name, factor in scale.items():
                weight = self.weights[_key(name)]
                weight.copy_(torch.randn(weight.shape, generator=generator) * factor)
            self.weights[_key("encoder.weight")].fill_(1.0)
            if not self.live_norms:
                self.statistics.get_buffer(_key("spatial_layers.0.1.running_var")).fill_(input_std**2)
            self.follow(0.0)
        return self

    def start_from(self, network: SDN) -> None:
        """Let every member have the weights and norms of a network of this size."""
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    key = _key(name)
                    (self.statistics.get_buffer(key) if "running" in name else self.weights[key]).copy_(value)
            self.follow(0.0)

    def forward(self, segments: Tensor, average: bool = False) -> Tensor:
        """Predict the membranes that follow each history.

        Args:
            segments: (B, R + T) currents.
            average: use the running averages (and frozen norms) instead of the weights.

        Returns:
            (P, B, T): entry t of a row is `mem` of the step after the first R + t currents.
        """
        weights = self.named(average)
        if self.live_norms and not average:
            return self._live(weights, segments)
        return folded_forward(fold(weights, self.sizes[2]), segments, self.sizes[2])

    def _live(self, weights: dict[str, Tensor], segments: Tensor) -> Tensor:
        kernel = weights["spatial_layers.0.0.weight"] * weights["encoder.weight"]
        h = first(segments, kernel, weights["spatial_layers.0.0.bias"])
        for i in range(self.sizes[2]):
            spatial, feature = f"spatial_layers.{i}", f"feature_layers.{i}"
            if i:
                h = depthwise(h, weights[f"{spatial}.0.weight"], weights[f"{spatial}.0.bias"])
            a = torch.relu(self._norm(h, weights, f"{spatial}.1"))
            mixed = mix(a, weights[f"{feature}.0.weight"], weights[f"{feature}.0.bias"])
            h = torch.relu(self._norm(mixed, weights, f"{feature}.1") + a)
        return mix(h, weights["decoder.weight"], weights["decoder.bias"]).squeeze(1)

    def _norm(self, h: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        gamma, beta = weights[f"{name}.weight"].reshape(-1), weights[f"{name}.bias"].reshape(-1)
        flat = h.reshape(1, gamma.numel(), -1)
        out = nn.functional.batch_norm(flat, mean.view(-1), var.view(-1), gamma, beta, training=self.training)
        return out.reshape(h.shape)

    @torch.no_grad()
    def follow(self, keep: float) -> None:
        """Move the averages: ``average = keep * average + (1 - keep) * weights``."""
        averages = [self.average.get_buffer(key) for key in self.weights]
        torch._foreach_lerp_(averages, [w.detach() for w in self.weights.values()], 1 - keep)

    @torch.no_grad()
    def keep(self, chosen: Tensor) -> None:
        """Drop every member but the chosen ones, given as indices (k,), in that order."""
        for key in list(self.weights):
            self.weights[key] = nn.Parameter(self.weights[key].detach()[chosen].clone())
        for holder in (self.statistics, self.average):
            for key, value in list(holder.named_buffers()):
                holder.register_buffer(key, value[chosen].clone())

    def named(self, average: bool = False) -> dict[str, Tensor]:
        """The stacked weights and statistics under the names of `SDN.state_dict`."""
        source = dict(self.average.named_buffers()) if average else dict(self.weights.items())
        return {_name(key): value for key, value in (source | dict(self.statistics.named_buffers())).items()}

    def member(self, index: int) -> SDN:
        """One network, from its averaged weights, in eval mode."""
        sdn = SDN(*self.sizes)
        weights = {name: value[index].detach().clone() for name, value in self.named(average=True).items()}
        sdn.load_state_dict(weights, strict=False)
        return sdn.eval()


def _key(name: str) -> str:
    return name.replace(".", "-")


def _name(key: str) -> str:
    return key.replace("-", ".")
