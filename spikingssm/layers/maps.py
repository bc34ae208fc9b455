"""The weights of a map that a layer applies in its own way: as they are, or as the map itself makes them."""

import torch
from torch import Tensor, nn

from sdn.checks.watched import is_watched

__all__ = ["is_plain", "weight_of"]

_FORWARD = (nn.Linear.forward, nn.Embedding.forward)


def is_plain(module: nn.Module) -> bool:
    """Whether a linear map or a table computes with its attribute ``weight`` and nothing looks on.

    Pruning and weight norms by hooks renew that attribute when the map is called, quantised maps have none, and a hook
    of the user's wants to run.
    """
    return type(module).forward in _FORWARD and not is_watched(module)


def weight_of(module: nn.Module) -> Tensor:
    """The matrix (outputs, inputs) that a linear map applies, or the table (tokens, d) of an embedding.

    Of a map that is not plain it is what the map makes of the identity, so that its hooks run and see that.
    """
    weight = getattr(module, "weight", None)
    if is_plain(module) and isinstance(weight, Tensor):
        return weight
    if isinstance(module, nn.Embedding):
        return module(torch.arange(module.num_embeddings, device=_device(module)))  # type: ignore[no-any-return]
    dtype, device = _dtype(module), _device(module)
    size: int = module.in_features  # type: ignore[assignment]
    made: Tensor = module(torch.eye(size, dtype=dtype, device=device))
    bias = getattr(module, "bias", None)
    bias = bias() if callable(bias) else bias  # a method of a quantised map
    return (made if bias is None else made - bias).T


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)
