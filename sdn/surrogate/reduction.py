"""From a trained SDN to the small network that ships: encoder fused, norms folded."""

from collections.abc import Mapping
from typing import Any, overload

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError
from sdn.surrogate.network import SDN, ReducedSDN
from sdn.surrogate.seams import ReducedSeamSDN, SeamSDN, reduce_seams

__all__ = ["fold", "reduce"]


@overload
def reduce(sdn: SDN) -> ReducedSDN: ...


@overload
def reduce(sdn: SeamSDN) -> ReducedSeamSDN: ...


def reduce(sdn: SDN | SeamSDN) -> ReducedSDN | ReducedSeamSDN:
    """The same function as ``sdn.eval()`` with the encoder fused and the batch norms folded.

    Of a `SeamSDN` the scales of its features and of the states are folded.

    Args:
        sdn: a trained network; it is not changed.

    Returns:
        ReducedSDN in float64, frozen; equal to ``sdn.double().eval()`` to 1e-10. Cast it with ``.float()`` to use it.
        ReducedSeamSDN for a `SeamSDN`.

    Source: Shen et al., AAAI 2025 (arXiv 2408.14909); batch-norm folding as in Jacob et al. 2018 (arXiv 1712.05877).
    """
    if isinstance(sdn, SeamSDN):
        return reduce_seams(sdn)
    given: Any = sdn
    if not isinstance(given, SDN):
        kind = type(sdn).__name__
        way = "it is reduced already, as artifact.network" if kind == "Artifact" else "sdn.load_sdn(FILE)[0] is one"
        raise ArgumentError(f"reduce: takes an SDN or a SeamSDN, got {kind}; {way}.")
    weights = {name: value.detach().double() for name, value in sdn.state_dict().items() if value.is_floating_point()}
    reduced = ReducedSDN(sdn.d_model, sdn.kernel_size, sdn.n_layers).double()
    reduced.load_state_dict({k: v.cpu() for k, v in fold(weights, sdn.n_layers).items()})
    return reduced.eval()


def fold(weights: Mapping[str, Tensor], n_layers: int, eps: float = 1e-5) -> dict[str, Tensor]:
    """Fold an SDN's weights into those of a ReducedSDN, differentiably.

    A norm after a convolution scales its weight by ``g = gamma / sqrt(var + eps)`` and turns its bias b into
    ``(b - mean) g + beta``; the encoder, which has no bias, scales the first kernel, zero padding included.

    Args:
        weights: the names and shapes of `SDN.state_dict`, with any number of leading axes in common (a population).
        n_layers: the SDN's.
        eps: the norms'.

    Returns:
        The names and shapes of `ReducedSDN.state_dict`, with the same leading axes.
    """
    out = {"decoder.weight": weights["decoder.weight"], "decoder.bias": weights["decoder.bias"]}
    for i in range(n_layers):
        for ours, theirs in (("spatial", "spatial_layers"), ("feature", "feature_layers")):
            conv, norm = f"{theirs}.{i}.0", f"{theirs}.{i}.1"
            g = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + eps)
            centred = weights[f"{conv}.bias"] - weights[f"{norm}.running_mean"]
            out[f"{ours}.{i}.weight"] = weights[f"{conv}.weight"] * g[..., None, None]
            out[f"{ours}.{i}.bias"] = centred * g + weights[f"{norm}.bias"]
    out["spatial.0.weight"] = out["spatial.0.weight"] * weights["encoder.weight"]
    return out
