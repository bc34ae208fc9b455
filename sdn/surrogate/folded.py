"""The folded network written as shifts and small matrix products, for many networks or many channels side by side."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["depthwise", "first", "folded_forward", "mix"]


def folded_forward(
    weights: Mapping[str, Tensor], segments: Tensor, n_layers: int, dilation: int = 1, at_start: bool = False
) -> Tensor:
    """Predict what follows each history, for P networks at once.

    A step is ``dilation`` numbers long: D channels that lie side by side, (S, D) in memory, are a row of dilation D.

    Args:
        weights: the names of `ReducedSDN.state_dict`, each with a leading axis P.
        segments: (B, S * D), S steps of history and present.
        n_layers: of the networks.
        dilation: D.
        at_start: the segments begin K steps before rest: deeper layers then see zeros before it, as the padded network
            does, instead of using up history.

    Returns:
        (P, B, T * D): with ``at_start`` T = S - K, else T = S - R; entry t is `mem` of the step after as many steps.
    """
    h = first(segments, weights["spatial.0.weight"], weights["spatial.0.bias"], dilation)
    for i in range(n_layers):
        if i:
            taps = weights[f"spatial.{i}.weight"]
            h = pad(h, ((taps.shape[-1] - 1) * dilation, 0)) if at_start else h
            h = depthwise(h, taps, weights[f"spatial.{i}.bias"], dilation)
        h = torch.relu(h)
        h = torch.relu(mix(h, weights[f"feature.{i}.weight"], weights[f"feature.{i}.bias"], residual=True))
    return mix(h, weights["decoder.weight"], weights["decoder.bias"]).squeeze(1)


def first(segments: Tensor, weight: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """Dense 1 -> C convolution, newest current left out: (B, S), (P, C, 1, K) -> (P, C, B, S - K) for dilation 1."""
    members, channels, _, kernel = weight.shape
    length = segments.shape[1] - kernel * dilation
    taps = torch.stack([segments[:, k * dilation : k * dilation + length] for k in range(kernel)]).reshape(kernel, -1)
    out = torch.addmm(bias.reshape(-1, 1), weight.reshape(-1, kernel), taps)
    return out.reshape(members, channels, len(segments), length)


def depthwise(h: Tensor, weight: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """Depthwise convolution without padding: (P, C, B, S), (P, C, 1, K) -> (P, C, B, S - K + 1) for dilation 1."""
    kernel = weight.shape[-1]
    length = h.shape[-1] - (kernel - 1) * dilation
    taps = (h[..., k * dilation : k * dilation + length] * weight[..., k : k + 1] for k in range(kernel))
    return sum(taps, start=bias[..., None, None])


def mix(h: Tensor, weight: Tensor, bias: Tensor, residual: bool = False) -> Tensor:
    """1x1 convolution: (P, C, B, S), (P, D, C, 1) -> (P, D, B, S); with ``residual`` plus its input."""
    matrix = weight.squeeze(-1)
    if residual:
        matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    out = torch.baddbmm(bias.unsqueeze(-1), matrix, h.reshape(*h.shape[:2], -1))
    return out.reshape(*out.shape[:2], *h.shape[2:])
