"""Reading a neuron of another library: its class, its attributes or plain values, without importing the library."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, plain_number, shown
from sdn.checks.libraries import library_of
from sdn.dynamics.base import Value

__all__ = ["Makers", "is_own", "learned", "number", "read", "refuse", "unless"]

Makers = Mapping[str, Callable[..., Any]]
"""Class of the other library -> function of its name and of its values, by the keywords of the library."""


def read(
    who: str,
    given: Any,
    values: Mapping[str, Any],
    makers: Makers,
    *,
    elsewhere: Mapping[str, str],
    ignored: tuple[str, ...] = (),
    common: Mapping[str, Any] = MappingProxyType({}),
    attributes: Callable[[Any, str], Mapping[str, Any]] | None = None,
) -> tuple[str, dict[str, Any]]:
    """The class that is meant and its values by keyword; what is given by keyword goes before what an object says.

    Args:
        who: the function that was called.
        given: a neuron of the library, or the name of its class.
        values: given by keyword.
        makers: what can be held.
        elsewhere: class -> what to do about one that cannot be held.
        ignored: keywords that change no spike.
        common: further options of all classes.
        attributes: of an object, where they are not named like the keywords.

    Raises:
        ArgumentError: a class or a keyword that is not known, or a value that is missing.
    """
    if isinstance(given, type):
        raise ArgumentError(f"{who}: got the class {given.__name__}; pass a neuron, such as {given.__name__}(...).")
    name = given if isinstance(given, str) else type(given).__name__
    library = library_of(given)
    if library and who != f"from_{library}":
        raise ArgumentError(f"{who}: {name} is of {library}; write sdn.from_{library}(neuron).")
    if name not in makers:
        raise ArgumentError(f"{who}: {_unknown(given, name, makers, elsewhere)}.")
    parameters = inspect.signature(makers[name]).parameters
    known = {key: p for key, p in parameters.items() if p.kind == p.KEYWORD_ONLY}
    options = [*known, *common]
    found: dict[str, Any] = {}
    if not isinstance(given, str):
        try:
            found = dict(attributes(given, name)) if attributes else {}
        except AttributeError as error:
            way = f"give its values by keyword, {who}({name!r}, ...)"
            raise ArgumentError(f"{who}: this {name} has no attribute {error.name!r}; {way}.") from None
        found |= {key: getattr(given, key) for key in options if key not in found and hasattr(given, key)}
    _check_keywords(f"{who}: {name}", values, options, ignored)
    found |= {key: value for key, value in values.items() if key in options}
    if missing := [key for key, p in known.items() if p.default is p.empty and key not in found]:
        example = f'{who}("{name}", {", ".join(f"{key}=..." for key in missing)})'
        raise ArgumentError(f"{who}: {name} needs {' and '.join(missing)}; write {example}.")
    return name, found


def _check_keywords(who: str, values: Mapping[str, Any], known: list[str], ignored: tuple[str, ...]) -> None:
    for key in values:
        if key not in known and key not in ignored:
            close = difflib.get_close_matches(key, known, 1, 0.6)
            way = f"write {close[0]}={shown(values[key])}" if close else f"it takes {', '.join(known)}"
            raise ArgumentError(f"{who} has no {key!r}; {way}.")


def _unknown(given: Any, name: str, makers: Makers, elsewhere: Mapping[str, str]) -> str:
    if name in elsewhere:
        return f"{name} {elsewhere[name]}"
    bases = [] if isinstance(given, str) else [base.__name__ for base in type(given).__mro__[1:]]
    if base := next((base for base in bases if base in makers), None):
        return (
            f"{name} is a class of your own, and what it changes in {base} cannot be seen; write its step as an "
            f"sdn.Dynamics, or pass the name {base!r} and its values"
        )
    if isinstance(given, torch.nn.Module) and any(given.children()):
        return f"got a {name}, which holds other modules; pass its neurons one by one"
    if type(given).__module__.startswith("sdn."):
        return f"got the {name} of sdn, which is read already"
    close = difflib.get_close_matches(name, [*makers], 1, 0.6)
    way = f"did you mean {close[0]!r}? " if close else ""
    what = f"no neuron {name!r} is known" if isinstance(given, (str, torch.nn.Module)) else f"got {shown(given)}"
    return f"{what}; {way}it reads {', '.join(makers)}"


def number(who: str, name: str, value: Any) -> Value:
    """A value as a dynamics takes it: a number, or (H,) numbers without a gradient.

    A float32 number becomes the shortest decimal that stands for it, such as 0.9.

    Raises:
        ArgumentError: no number, NaN, or a tensor of more than one axis.
    """
    value = plain_number(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        if value.is_meta:
            raise ArgumentError(f"{who}: {name} is on the device meta and has no value; load the neuron first.")
        if value.is_complex() or (value.ndim > 1 and value.numel() > 1):
            raise ArgumentError(
                f"{who}: {name} has shape {tuple(value.shape)} and {value.dtype}; a neuron here takes one number, or "
                f"real numbers of shape (H,), one per channel: pass {name}={name}.flatten() and flatten its input."
            )
        value = value.detach()
        if value.isnan().any():
            raise ArgumentError(f"{who}: {name} must hold numbers, got NaN among {shown(value)}.")
        if value.numel() == 1:
            single = value.dtype == torch.float32
            return float(np.float32(value.item()).astype(str)) if single else float(value.item())
        several: Tensor = value.clone()
        return several
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentError(f"{who}: {name} must be a number or numbers of shape (H,), got {shown(value)}.")
    if math.isnan(value):
        raise ArgumentError(f"{who}: {name} must be a number, got NaN.")
    return float(value)


def is_own(gradient: Any) -> bool:
    """Whether a spike gradient is one as `sdn.Neuron` takes it, with a method ``slope``."""
    return callable(getattr(gradient, "slope", None))


def learned(**fields: Any) -> tuple[str, ...]:
    """The fields whose value, as the other library holds it, carries a gradient."""
    return tuple(field for field, value in fields.items() if isinstance(value, Tensor) and value.requires_grad)


def refuse(who: str, option: str, why: str, way: str) -> ArgumentError:
    """The error about an option that cannot be held: what was found, why not, and the way out."""
    return ArgumentError(f"{who}: {option} cannot be held: {why}. {way}.")


def unless(who: str, plain: bool, option: str, why: str, way: str) -> None:
    """Refuse an option that is not at the value where it does nothing."""
    if not plain:
        raise refuse(who, option, why, way)
