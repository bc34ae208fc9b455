"""What the compiler has written for a neuron."""

from typing import TYPE_CHECKING, Any

import torch

from sdn.checks.arguments import ArgumentError, shown
from sdn.compiler.programs import program_of, slope_of
from sdn.dynamics.base import Dynamics

if TYPE_CHECKING:
    from sdn.gradients import SpikeGradient

__all__ = ["source"]


def source(neuron: Any, dtype: torch.dtype = torch.float32) -> str:
    """The generated code of a neuron on the CPU: what it reads of its fields, its forward and its backward loop.

    The same texts are files in the cache folder, ``~/.cache/sdn/generated`` or ``SDN_CACHE_DIR``, where tracebacks and
    debuggers find them.

    Args:
        neuron: a `Neuron` or a dynamics.
        dtype: torch.float32 or torch.float64.

    Returns:
        Python source, one module after the other.

    Raises:
        ArgumentError: something else than a neuron.
        Refused: a neuron that cannot be compiled; the message names the operation and its line.
    """
    from sdn.ops.neuron import cpu  # which imports numba

    dynamics: Any = getattr(neuron, "dynamics", neuron)
    if not isinstance(dynamics, Dynamics) or isinstance(dynamics, type):
        raise ArgumentError(f"source: neuron must be a Neuron or a dynamics such as LIF(), got {shown(neuron)}.")
    gradient: SpikeGradient = getattr(neuron, "spike", dynamics.default_spike)
    found = program_of(dynamics)
    through = getattr(getattr(neuron, "solver", None), "detach_reset", True) is False
    key, _ = slope_of(gradient)
    forward = cpu.forward_module(found.key, False, dtype)
    backward = cpu.backward_module(found.key, key, through, False, True, dtype)
    inexact = f"up to the rounding of {', '.join(found.step.rounded)}" if found.step.rounded else "bit for bit"
    head = f"# Spikes and states equal those of sdn.simulate {inexact}.\n"
    return "\n\n".join([head, found.source, forward.__source__, backward.__source__])
