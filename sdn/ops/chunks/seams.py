"""States at the seams between chunks, corrected by what the chunks have shown."""

import torch
from torch import Tensor

from sdn.ops.chunks import operator as chunks

__all__ = ["HELD", "Slope", "closer"]

Slope = tuple[str, list[float]]
"""Key and numbers of the slope with which a spike follows the potential in the derivatives."""
HELD: Slope = ("", [])
"""Of a spike that is held there."""


def closer(
    starts: Tensor, ends: Tensor, derivatives: Tensor, own: int, least: Tensor | None = None, most: Tensor | None = None
) -> Tensor:
    """States before all chunks, (B, n, S, H), that close all gaps of a linear neuron.

    They are the states in which the chunks before ended, plus what the changes further back come to there. Behind seams
    that agree that is exactly nothing. A change that is no number is left out. Behind an end that is none the old start
    stays.

    Args:
        starts, ends: (B, n, S, H), of a run.
        derivatives: (B, n, D * D, H), of the ends by the starts.
        own: D, the fields of a state without the program's own.
        least: changes up to that size are left out; broadcast to (B, n - 1, D, H).
        most: larger ones are cut to that size.
    """
    gaps = (ends[:, :-1] - starts[:, 1:])[:, :, :own]
    change = chunks.carry(derivatives, gaps) - gaps
    if most is not None:
        change = torch.minimum(torch.maximum(change, -most), most)
    keep = change.isfinite() if least is None else change.isfinite() & (change.abs() > least)
    behind = torch.where(ends[:, :-1].isfinite(), ends[:, :-1], starts[:, 1:])
    moved = behind[:, :, :own] + torch.where(keep, change, 0)
    return torch.cat([starts[:, :1], torch.cat([moved, behind[:, :, own:]], 2)], 1)
