"""The functions of a generated file that are computed once per channel: on plain numbers in double, else by torch.

A field that is a number stays one, as in the step by step loop, so that what is computed from it has the same bits.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "atan", "ceil", "cos", "cosh", "divide", "erf", "exp", "expm1", "floor", "log", "log1p", "maximum", "minimum",
    "not_", "power", "real", "round_even", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc", "where",
]  # fmt: skip


def _either(plain: Callable[[float], float], tensors: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    return lambda x: tensors(x) if isinstance(x, Tensor) else float(plain(x))


exp, expm1 = _either(math.exp, torch.exp), _either(math.expm1, torch.expm1)
log, log1p = _either(math.log, torch.log), _either(math.log1p, torch.log1p)
sin, cos, tan = _either(math.sin, torch.sin), _either(math.cos, torch.cos), _either(math.tan, torch.tan)
sinh, cosh, tanh = _either(math.sinh, torch.sinh), _either(math.cosh, torch.cosh), _either(math.tanh, torch.tanh)
atan, erf, sqrt = _either(math.atan, torch.atan), _either(math.erf, torch.erf), _either(math.sqrt, torch.sqrt)
floor, ceil = _either(math.floor, torch.floor), _either(math.ceil, torch.ceil)
trunc, round_even = _either(math.trunc, torch.trunc), _either(round, torch.round)
sign = _either(lambda x: (x > 0) - (x < 0), torch.sign)
sigmoid = _either(lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0, torch.sigmoid)


def real(condition: Any, like: Any) -> Any:
    """1 where it holds, else 0, in the dtype of what it was found from."""
    if not isinstance(condition, Tensor):
        return float(condition)
    return condition.to(like.dtype if isinstance(like, Tensor) else torch.get_default_dtype())


def divide(a: Any, b: Any) -> Any:
    """``a / b``, rounded once: torch makes ``number / tensor`` of a reciprocal and a product."""
    if isinstance(b, Tensor) and not isinstance(a, Tensor):
        return torch.full((), a, dtype=b.dtype, device=b.device) / b
    return a / b


def not_(condition: Any) -> Any:
    """The opposite."""
    return ~condition if isinstance(condition, Tensor) else not condition


def where(condition: Any, a: Any, b: Any, like: Any) -> Any:
    """``a`` where the condition holds, else ``b``, in the dtype of what the condition was found from."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    if not isinstance(a, Tensor) and not isinstance(b, Tensor) and isinstance(like, Tensor):
        a = torch.full((), a, dtype=like.dtype, device=like.device)
    return torch.where(condition, a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller one; NaN where one is."""
    return _extreme(torch.clamp_max, torch.minimum, min, a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger one; NaN where one is."""
    return _extreme(torch.clamp_min, torch.maximum, max, a, b)


def _extreme(bounded: Any, of_two: Any, plain: Any, a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return of_two(a, b)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return bounded(a, b) if isinstance(a, Tensor) else bounded(b, a)
    return plain(a, b)


def power(a: Any, b: Any) -> Any:
    """``a`` to the power ``b``."""
    return torch.pow(a, b) if isinstance(a, Tensor) or isinstance(b, Tensor) else float(a**b)
