"""Whether stored weights are those of a module: names, shapes, kinds of numbers, and that they are numbers at all."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["misfit", "with_fixed"]

FIXED = "fixed"
"""Part of the names of buffers that hold what is given and not learned."""


def misfit(found: Mapping[str, Any], own: Mapping[str, Tensor]) -> str | None:
    """What tells stored weights from those of a module, in words; None where they can be loaded.

    Floating-point weights may be of another precision. All other kinds must be equal: a cast of integers, booleans or
    complex numbers would be another network.

    Args:
        found: stored, name -> tensor; other values are named.
        own: ``state_dict`` of the module, which may be on the meta device.
    """
    shapes = [{k: tuple(getattr(v, "shape", ())) for k, v in state.items()} for state in (found, own)]
    if differ := sorted((k for k in shapes[0] | shapes[1] if shapes[0].get(k) != shapes[1].get(k)), key=str):
        there, ours = (part.get(differ[0], "nothing") for part in shapes)
        return f"is of another model: {differ[0]} is {there} there and {ours} here ({len(differ)} differ)"
    for name, here in own.items():
        value: Any = found[name]
        if not isinstance(value, Tensor):
            return f"{name} is a {type(value).__name__} and no tensor"
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            kind = "quantised" if value.is_quantized else "meta" if value.is_meta else str(value.layout)
            return f"{name} is a {kind} tensor, it must hold plain numbers"
        if value.dtype != here.dtype and not (value.is_floating_point() and here.is_floating_point()):
            return f"{name} holds {value.dtype}, this model has {here.dtype}"
        if value.is_floating_point() or value.is_complex():
            plain = value if value.element_size() > 1 else value.float()  # float8 has no isfinite
            if not (finite := torch.isfinite(plain)).all():
                return f"{name} is NaN or infinite in {int((~finite).sum())} of {finite.numel()} places"
    return None


def with_fixed(found: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Stored weights with the buffers of fixed values that older files do not have, taken from the module.

    Args:
        found: stored, name -> tensor.
        own: ``state_dict`` of the module.
    """
    missing = {name: value for name, value in own.items() if FIXED in name.split(".") and name not in found}
    return {**found, **missing}
