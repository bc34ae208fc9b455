"""The surrogate dynamic network: input currents in, the membrane for all steps at once out."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sdn.runs.weights import misfit

__all__ = ["SDN", "ReducedSDN", "of_weights", "receptive_field"]


def receptive_field(kernel_size: int, n_layers: int) -> int:
    """How many past steps the output sees: ``kernel_size``, and ``kernel_size - 1`` more per further layer."""
    return n_layers * kernel_size - (n_layers - 1)


class SDN(nn.Module):
    """A tiny causal network that predicts `mem[t]` from ``input[t-R] .. input[t-1]``: (N, L) -> (N, L).

    Encoder 1 -> C; then per layer a depthwise convolution, batch norm, ReLU, and a 1x1 convolution, batch norm, the
    layer's input added, ReLU; decoder C -> 1. The first layer is padded by the kernel size and loses the newest step,
    so the output is *strictly* causal; R = ``receptive_field``. 193 parameters by default.

    Args:
        d_model: C, >= 1.
        kernel_size: taps of each depthwise convolution, >= 1.
        n_layers: >= 1.

    Raises:
        ValueError: a size below 1.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909), section "Surrogate dynamic network". The names of the
    parameters are theirs, so that published checkpoints can be read.
    """

    def __init__(self, d_model: int = 8, kernel_size: int = 8, n_layers: int = 1) -> None:
        super().__init__()
        _check_sizes("SDN", d_model=d_model, kernel_size=kernel_size, n_layers=n_layers)
        self.d_model, self.kernel_size, self.n_layers = d_model, kernel_size, n_layers
        self.encoder = nn.Conv1d(1, d_model, 1, bias=False)
        self.spatial_layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(d_model, d_model, kernel_size, groups=d_model), nn.BatchNorm1d(d_model))
            for _ in range(n_layers)
        )
        self.feature_layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(d_model, d_model, 1), nn.BatchNorm1d(d_model)) for _ in range(n_layers)
        )
        self.decoder = nn.Conv1d(d_model, 1, 1)

    @property
    def receptive_field(self) -> int:
        """R, the number of past steps the output depends on."""
        return receptive_field(self.kernel_size, self.n_layers)

    def forward(self, input: Tensor) -> Tensor:
        """(N, L) currents -> (N, L) membranes; only the channel axis is squeezed, so N = 1 and L = 1 stay."""
        h = pad(self.encoder(_rows("SDN", input).unsqueeze(1)), (self.kernel_size, -1))
        for i, (spatial, feature) in enumerate(zip(self.spatial_layers, self.feature_layers, strict=True)):
            a = torch.relu(spatial(h if i == 0 else pad(h, (self.kernel_size - 1, 0))))
            h = torch.relu(feature(a) + a)
        out: Tensor = self.decoder(h).squeeze(1)
        return out


class ReducedSDN(nn.Module):
    """An SDN with its encoder fused and its norms folded: the same function in 153 frozen parameters by default.

    Made by `sdn.reduce`. The first convolution is dense, 1 -> C; no batch norm is left, so train and eval are the same.
    It can be exported with `torch.export`.

    Args:
        d_model: as in `SDN`.
        kernel_size: as in `SDN`.
        n_layers: as in `SDN`.
    """

    def __init__(self, d_model: int = 8, kernel_size: int = 8, n_layers: int = 1) -> None:
        super().__init__()
        _check_sizes("ReducedSDN", d_model=d_model, kernel_size=kernel_size, n_layers=n_layers)
        self.d_model, self.kernel_size, self.n_layers = d_model, kernel_size, n_layers
        first = nn.Conv1d(1, d_model, kernel_size)
        rest = [nn.Conv1d(d_model, d_model, kernel_size, groups=d_model) for _ in range(n_layers - 1)]
        self.spatial = nn.ModuleList([first, *rest])
        self.feature = nn.ModuleList(nn.Conv1d(d_model, d_model, 1) for _ in range(n_layers))
        self.decoder = nn.Conv1d(d_model, 1, 1)
        self.requires_grad_(False)

    @property
    def receptive_field(self) -> int:
        """R, the number of past steps the output depends on."""
        return receptive_field(self.kernel_size, self.n_layers)

    def forward(self, input: Tensor) -> Tensor:
        """(N, L) currents -> (N, L) membranes."""
        h = pad(_rows("ReducedSDN", input).unsqueeze(1), (self.kernel_size, -1))
        for i, (spatial, feature) in enumerate(zip(self.spatial, self.feature, strict=True)):
            a = torch.relu(spatial(h if i == 0 else pad(h, (self.kernel_size - 1, 0))))
            h = torch.relu(feature(a) + a)
        out: Tensor = self.decoder(h).squeeze(1)
        return out


Network = TypeVar("Network", bound=nn.Module)


def of_weights(kind: type[Network], sizes: Mapping[str, Any], weights: Mapping[str, Any]) -> Network:
    """The network of these sizes with these weights, in eval mode.

    Args:
        kind: `SDN`, `ReducedSDN`, or those of seams.
        sizes: its arguments; no memory is taken for sizes that the weights do not have.
        weights: name -> tensor.

    Raises:
        ValueError, TypeError: sizes that are none, or weights that are not those of such a network.
    """
    layers = sizes.get("n_layers")
    if isinstance(layers, int) and layers > len(weights):
        raise ValueError(f"n_layers is {layers}, and there are {len(weights)} tensors")
    with torch.device("meta"):
        problem = misfit(weights, kind(**sizes).state_dict())
    if problem is not None:
        raise ValueError(problem)
    network = kind(**sizes)
    network.load_state_dict(dict(weights))
    return network.eval()


def _check_sizes(who: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
            raise ValueError(f"{who}: {name} must be an integer from 1 to 4096, got {value}.")


def _rows(who: str, input: Tensor) -> Tensor:
    if input.ndim != 2 or input.shape[1] == 0:
        raise ValueError(f"{who}: input must be (N, L) with L >= 1, got {tuple(input.shape)}; use reshape(-1, L).")
    return input
