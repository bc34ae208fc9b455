"""Answers at every step -> one for the sequence."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_skip", "counted", "pooled"]


def check_skip(name: str, skip: Any, steps: int | None = None) -> None:
    """Refuse a number of skipped steps that is none, or that leaves nothing.

    Args:
        name: of the task, for errors.
        skip: steps that are left out.
        steps: of the shortest sequence, or None.

    Raises:
        ValueError: it is no integer >= 0, or not below ``steps``.
    """
    if steps is None and not (isinstance(skip, int) and skip >= 0):
        raise ValueError(f"{name}: skip must be an integer >= 0, got {skip!r}.")
    if steps is not None and skip >= steps:
        raise ValueError(f"{name}: skip={skip} leaves nothing of a sequence of {steps} steps; lower task.skip.")


def counted(steps: int, lengths: Tensor | None, skip: int, device: torch.device) -> Tensor:
    """Which steps count: those behind the first ``skip``, before the end of their sequence, (B, L) or (1, L).

    Args:
        steps: L.
        lengths: (B,) valid steps; None is all.
        skip: first steps that do not count.
        device: of the answer.
    """
    step = torch.arange(steps, device=device)[None]  # (1, L)
    behind = step >= skip
    return behind if lengths is None else behind & (step < lengths[:, None])


def pooled(name: str, logits: Tensor, lengths: Tensor | None, skip: int = 0) -> Tensor:
    """Means over the steps that count, (B, L, C) -> (B, C), in float32 or better.

    Args:
        name: of the task, for errors.
        logits: of every step.
        lengths: (B,) valid steps; None is all.
        skip: first steps that do not count.

    Raises:
        ValueError: a skip that leaves nothing of a sequence.
    """
    check_skip(name, skip, logits.shape[1] if lengths is None else int(lengths.min()))
    logits = logits[:, skip:].to(torch.promote_types(logits.dtype, torch.float32))
    if lengths is None:
        return logits.mean(1)
    recorded = counted(skip + logits.shape[1], lengths, skip, logits.device)[:, skip:]
    return logits.masked_fill(~recorded[..., None], 0.0).sum(1) / (lengths[:, None] - skip)
