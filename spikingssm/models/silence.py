"""A word from a network that answers with exact zeros, as one does in which nothing fires."""

import warnings

from torch import Tensor, nn

from sdn.checks.finite import at_once

__all__ = ["WARNED", "warn_if_silent"]

WARNED: set[str] = set()
"""Names of the classes that have said it in this process."""
STEPS = 10
"""Fewer are no sequence to judge by: a neuron at rest needs some to reach its threshold."""


def warn_if_silent(model: nn.Module, x: Tensor, output: Tensor, begins: bool) -> None:
    """Warn once a class and process where a sequence from rest gives an output of nothing but zeros.

    Looked at on the CPU only, and never while a graph is made, so that no device waits and no branch depends on data.

    Args:
        model: the network.
        x: (B, L, C), what it read.
        output: (B, C) or (B, L, C), what it answers.
        begins: whether the sequence started from rest.

    Warns:
        UserWarning: what is silent, the scale of the input, and the way out.
    """
    name = type(model).__name__
    if not begins or name in WARNED or not at_once(output) or x.shape[1] < STEPS:
        return
    out = output.detach()
    last = out if out.ndim == 2 else out[:, -1]  # what a leaky readout keeps of any spike before
    if last.any() or out.any() or not x.detach().any():
        return
    WARNED.add(name)
    warnings.warn(
        f"{name} returned exact zeros for {len(x)} rows of {x.shape[1]} steps: no spike reached its output. The "
        f"input has standard deviation {x.detach().float().std(correction=0):.3g}; multiply it by 10 or 30, or lower "
        "the threshold of the neurons. This is said once.",
        stacklevel=5,  # the line that calls the model, behind two of torch
    )
