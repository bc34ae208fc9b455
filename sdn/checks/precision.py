"""Full precision inside of a layer, whatever the loop around it computes in."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

__all__ = ["in_full_precision"]


def in_full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of a tensor; none where there is nothing to switch off.

    `torch.export` can write a context into a graph, but not read it back from a file.
    """
    device = "cpu" if like.is_meta else like.device.type
    if not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
