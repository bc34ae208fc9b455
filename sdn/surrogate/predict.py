"""A reduced SDN over a whole batch of sequences, in pieces that fit the cache."""

import torch
from torch import Tensor

from sdn.surrogate.network import ReducedSDN

__all__ = ["predict"]


@torch.no_grad()
def predict(net: ReducedSDN, input: Tensor, block: int = 32768) -> Tensor:
    """``net`` over (B, L, H), channel by channel, without gradient: (B, L, H).

    Memory beyond input and output is bounded by the block, not by the sequence (the plain form takes 160 bytes an
    element). Equal to ``net`` on the rows (B*H, L) up to rounding.

    Args:
        net: the reduced network.
        input: (B, L, H).
        block: elements computed at a time.
    """
    batch, length, channels = input.shape
    rows = input.transpose(1, 2).reshape(batch * channels, length)
    if torch.compiler.is_compiling():
        return net(rows).reshape(batch, channels, length).transpose(1, 2)  # type: ignore[no-any-return]
    out, reach = torch.empty_like(rows), net.receptive_field
    wide = min(length, max(block, 8 * reach))
    tall = max(1, block // wide)
    for top in range(0, len(rows), tall):
        part = rows[top : top + tall]
        for left in range(0, length, wide):
            start = max(0, left - reach)
            out[top : top + tall, left : left + wide] = net(part[:, start : left + wide])[:, left - start :]
    return out.reshape(batch, channels, length).transpose(1, 2)
