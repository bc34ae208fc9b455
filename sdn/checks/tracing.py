"""What torch is doing with the code that runs: tracing it, transforming it, capturing it."""

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import Parameter
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["has_numbers", "transforming"]


def has_numbers(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor can be looked at: not in a graph, nor on the meta device or in `torch.func`."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or tensor.is_meta:
        return False
    if _in_functorch() or _is_recorded(tensor):
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def transforming() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work; never while a graph is traced."""
    return not torch.compiler.is_compiling() and (forward_ad._current_level >= 0 or _in_functorch())


def _in_functorch() -> bool:
    active = getattr(torch._C, "_are_functorch_transforms_active", None)  # torch's own test, without a public name
    return bool(active is not None and active())


def _is_recorded(tensor: Tensor) -> bool:
    """Whether a tensor has a shape only, or `make_fx` writes down what is done with it."""
    if type(tensor) in (Tensor, Parameter) and _get_current_dispatch_mode() is None:
        return False
    return isinstance(tensor, FakeTensor) or get_proxy_mode() is not None
