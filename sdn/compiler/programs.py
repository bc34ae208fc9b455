"""Which program runs a neuron: recorded once for a class and its options, and found again by its key.

A key is plain text, so that an operator can take it: ``LIF{"reset": "hard"}`` and a digest of the step for a neuron of
`sdn`, with its module for one of your own. A program that was exported finds its neuron by it in another process.
"""

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.compiler import arithmetic
from sdn.compiler.affine import Affine, affine
from sdn.compiler.graph import Node, text_of
from sdn.compiler.neuron import WATCH, Derivative, Step, channels_of, derive, is_general, trace
from sdn.compiler.slopes import Slope, numbers_of, trace_slope
from sdn.compiler.sources import digest_of, module_of
from sdn.compiler.tape import Refused
from sdn.compiler.writing import Writer
from sdn.dynamics.base import Dynamics
from sdn.dynamics.fields import numeric_fields
from sdn.gradients import SpikeGradient

__all__ = [
    "PARAMETERS",
    "Call",
    "Program",
    "call_of",
    "check_compiled",
    "has_slope",
    "program",
    "program_of",
    "slope",
    "slope_of",
]

WAY = "write it with elementwise operations of torch, or use solver='loop'"


@dataclass(frozen=True, eq=False)
class Program:
    """A neuron as compiled code sees it."""

    key: str
    step: Step
    source: str
    """The file of the function in `PARAMETERS`."""

    derivative: Derivative
    recorded: Derivative
    """Its backward pass, and that where `mem` has a gradient too."""
    affine: Affine | None
    """Its linear parts. All is made at once, since inside an operator autograd is off."""
    is_general: bool
    """Whether it is the same for every number of channels and precision."""


PARAMETERS: dict[str, Callable[..., tuple[list[Any], list[Any]]]] = {}
"""From the fields of a neuron to rows and numbers, by key, where a graph finds it."""
SHAPES: dict[str, Callable[..., list[Any]]] = {}
"""The same from the fields of a spike gradient to its numbers."""
_PROGRAMS: dict[str, Program] = {}
_FOUND: dict[tuple[Any, ...], str] = {}
_TEXTS: dict[tuple[Any, ...], str] = {}
"""Keys by class and options; and by these and the text of a step."""
_SLOPES: dict[str, Slope] = {}
_NUMBERS: dict[Any, tuple[str, list[float]]] = {}
"""Key and numbers of the spike gradients of `sdn` that were asked for."""


def _constant(function: Callable[..., Any]) -> Any:
    """Let `torch.compile` call a function while it makes a graph, and keep what it returns.

    As `torch.compiler.assume_constant_result`, which imports the compiler, four seconds, where it is only mentioned.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def program_of(dynamics: Dynamics, like: Tensor | None = None, anew: bool = False) -> Program:
    """The program of a neuron.

    Args:
        dynamics: the neuron.
        like: (..., H), whose channels and dtype a tensor has that the neuron makes for itself.
        anew: record it again, since what its code reads outside of its fields may have changed.

    Raises:
        Refused: its step cannot be compiled; the message says which operation on which line, and the way out.
    """
    kind, options = type(dynamics), _options(dynamics)
    channels = channels_of(dynamics) if like is None else like.shape[-1]
    dtype = torch.get_default_dtype() if like is None else like.dtype
    general = kind, repr(options)
    special = (*general, channels, dtype)
    kept = all(_is_plain(value) for _, value in options)
    key = _FOUND.get(general) or _FOUND.get(special) if kept else None
    if key is not None and not anew:
        return _PROGRAMS[key]
    try:
        step = trace(dynamics, channels, dtype)
        text = *general, step.text
        if text in _TEXTS:
            made = _PROGRAMS[_TEXTS[text]]
        else:
            made = _made(kind, dict(options), step, is_general(dynamics, step, channels, dtype))
            _TEXTS[text] = made.key
            _PROGRAMS[made.key] = made
    except Refused as error:
        raise Refused(f"{error} and cannot be compiled; {WAY}.") from None
    except RuntimeError as error:
        if like is not None:
            raise
        name = kind.__name__
        raise Refused(
            f"{name} fails on a state of {channels} channels ({error}) and cannot be compiled; make a field of every "
            f"tensor that its step reads, or use solver='loop'."
        ) from None
    if step.constants:  # which may be others the next time
        return dataclasses.replace(made, step=dataclasses.replace(made.step, constants=step.constants))
    if kept and key != made.key:
        for place in [place for place in _FOUND if place[:2] == general]:
            del _FOUND[place]
        _FOUND[general if made.is_general else special] = made.key
    return made


def _is_plain(value: Any) -> bool:
    """Whether a value of an option can never be another one under the same text."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, Enum, torch.dtype))


def check_compiled(dynamics: Dynamics, gradient: SpikeGradient | None = None) -> None:
    """Refuse a neuron or a spike gradient that cannot be compiled: the error names the operation and its line.

    A neuron of your own is recorded anew, so that one that is made later sees what has changed outside of its fields.
    """
    program_of(dynamics, anew=not type(dynamics).__module__.startswith("sdn."))
    if gradient is not None:
        slope_of(gradient)


def program(key: str) -> Program:
    """The program of a key.

    Raises:
        RuntimeError: the neuron of a program that was made in another process is not there, or has changed.
    """
    if key not in _PROGRAMS:
        _resolve(key)
    return _PROGRAMS[key]


class Call(NamedTuple):
    """What a program needs of a neuron at each call, as constants of a graph; the function is ``PARAMETERS[key]``."""

    key: str
    fields: tuple[str, ...]
    watched: bool
    """Whether the state has the program's own field behind those of the neuron."""


def call_of(dynamics: Dynamics, like: Tensor) -> tuple[Call, list[Tensor]]:
    """How to call the program of a neuron, and the tensors of its code that are no field."""
    if torch.compiler.is_compiling():
        return _call_in_a_graph(type(dynamics), _options(dynamics)), []
    found = program_of(dynamics, like)
    return _call(found), [value.to(like) for value in found.step.constants.values()]


def _call(found: Program) -> Call:
    return Call(found.key, tuple(found.step.fields.values()), found.step.states[-1] == WATCH)


@_constant
def _call_in_a_graph(kind: type[Dynamics], options: tuple[tuple[str, Any], ...]) -> Call:
    key = _FOUND.get((kind, repr(options)))
    found = program_of(_typical(kind, dict(options))) if key is None else _PROGRAMS[key]
    if not found.is_general:
        name = kind.__name__
        raise NotImplementedError(
            f"{name} makes a tensor in its step, or a number that depends on how many channels there are or on the "
            f"precision, which torch.compile cannot take along; make it a field of {name}."
        )
    return _call(found)


def slope_of(gradient: SpikeGradient) -> tuple[str, list[float]]:
    """Key and numbers of a spike gradient.

    Raises:
        Refused: its slope cannot be compiled; the message says why.
    """
    if torch.compiler.is_compiling():
        kind: Any = type(gradient)
        if not kind.__module__.startswith("sdn."):
            key, numbers = _slope_in_a_graph(kind, _fields(gradient))
            return key, list(numbers)
        key, names = _known_slope(kind, tuple([(name, getattr(gradient, name)) for name in _switches(kind)]))
        return key, SHAPES[key](*[getattr(gradient, name) for name in names])
    return _slope_of(gradient)


def _slope_of(gradient: SpikeGradient) -> tuple[str, list[float]]:
    ours = type(gradient).__module__.startswith("sdn.")  # whose values are frozen and have a hash
    if ours and gradient in _NUMBERS:
        return _NUMBERS[gradient]
    try:
        found = trace_slope(gradient)
    except Refused as error:
        raise Refused(f"{error} and cannot be compiled; {WAY}.") from None
    key = f"{found.name}-{digest_of(text_of(found.slope))}"
    _SLOPES.setdefault(key, found)
    made = key, numbers_of(found, gradient)
    if ours:
        _NUMBERS[gradient] = made
    return made


@_constant
def _switches(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if isinstance(field.default, bool))


@_constant
def _known_slope(kind: Any, switches: tuple[tuple[str, bool], ...]) -> tuple[str, tuple[str, ...]]:
    """Key of a spike gradient of `sdn`, and the fields that ``SHAPES[key]`` makes its numbers of."""
    gradient = kind(**dict(switches))
    key, _ = _slope_of(gradient)
    names = tuple(name for name in _field_names(kind) if name not in dict(switches))
    text = _function("numbers", names, [*_SLOPES[key].numbers.values()])
    SHAPES[key] = module_of(f"{kind.__name__.lower()}-numbers", text).numbers
    return key, names


@_constant
def _slope_in_a_graph(kind: Any, fields: tuple[tuple[str, Any], ...]) -> tuple[str, tuple[float, ...]]:
    key, numbers = _slope_of(kind(**dict(fields)))
    return key, tuple(numbers)


def _fields(value: Any) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass, with which it can be made again."""
    return tuple([(name, getattr(value, name)) for name in _field_names(type(value))])


@_constant
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if field.init)


def has_slope(gradient: SpikeGradient) -> bool:
    """Whether a spike gradient can be compiled."""
    try:
        slope_of(gradient)
    except Refused:
        return False
    return True


def slope(key: str) -> Slope:
    """The spike gradient of a key."""
    if key not in _SLOPES:
        raise RuntimeError(f"no spike gradient {key} was made in this process; use it once before its backward pass.")
    return _SLOPES[key]


def _options(dynamics: Dynamics) -> tuple[tuple[str, Any], ...]:
    """Fields that are part of a program, with their values: switches, words, and what is no number."""
    kind = type(dynamics)
    given = [(name, getattr(dynamics, name)) for name in _not_single(kind)]
    free = _numeric(kind)
    return tuple([(name, value) for name, value in given if name not in free or not _is_number(value)])


@_constant
def _not_single(kind: type[Dynamics]) -> tuple[str, ...]:
    """All fields but those of a built-in neuron that are one number for all channels."""
    ours = kind.__module__.startswith("sdn.")
    return tuple(name for name in _field_names(kind) if not (ours and name in kind.numbers))


@_constant
def _numeric(kind: Any) -> tuple[str, ...]:
    """Fields that a program takes as they are, if they hold a number or a tensor."""
    return tuple(name for name in numeric_fields(kind) if name not in kind.numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)


def _typical(kind: Any, options: dict[str, Any]) -> Dynamics:
    """Some neuron of a class with these options."""
    required = [f.name for f in dataclasses.fields(kind) if f.init and f.default is dataclasses.MISSING]
    found: Dynamics = kind(**{**{name: 0.5 for name in required if name not in options}, **options})
    return found


def _made(kind: type[Dynamics], options: dict[str, Any], step: Step, is_everywhere: bool) -> Program:
    given = [*step.fields, *step.constants]
    body = _function("parameters", given, [*step.rows.values()], [*step.numbers.values()])
    text = f'"""{kind.__name__}: what its loop reads, from its fields. Generated; do not edit."""\n\n{body}'
    digest = digest_of(text, text_of(step.mem, step.distance, *step.after), repr(step.at_threshold))
    place = kind.__name__ if kind.__module__.startswith("sdn.") else f"{kind.__module__}:{kind.__qualname__}"
    key = f"{place}{json.dumps(options, default=repr)}#{digest}"
    PARAMETERS[key] = module_of(f"{kind.__name__.lower()}-parameters", text).parameters
    return Program(key, step, text, derive(step), derive(step, record=True), affine(step), is_everywhere)


def _function(name: str, given: Sequence[str], *results: Sequence[Node]) -> str:
    """A function of plain Python that returns lists of these nodes, one list or several."""
    writer = Writer("python", {leaf: leaf for leaf in given})
    texts = writer.write([node for nodes in results for node in nodes])
    parts = iter(texts)
    lists = ", ".join(f"[{', '.join(next(parts) for _ in nodes)}]" for nodes in results)
    body = "".join(f"    {line}\n" for line in [*writer.lines, f"return {lists}"])
    words = sorted(set(re.findall(r"\b\w+(?=\()", body)) & set(arithmetic.__all__))
    imports = f"from sdn.compiler.arithmetic import {', '.join(words)}\n\n\n" if words else ""
    return f"{imports}def {name}({', '.join(given)}):\n{body}"


def _resolve(key: str) -> None:
    """Find the neuron of a key among the classes that are there; a key may come from a file, so nothing is imported."""
    place, _, rest = key.partition("{")
    options, _, _ = rest.rpartition("#")
    module, _, name = place.rpartition(":")
    try:
        kind: Any = functools.reduce(getattr, name.split("."), sys.modules[module or "sdn"])
        if not (isinstance(kind, type) and issubclass(kind, Dynamics)):
            raise TypeError(f"{name} is no neuron")
        program_of(_typical(kind, json.loads("{" + options)))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise RuntimeError(f"the neuron {place} of a program cannot be found ({error}); import it first.") from None
    if key not in _PROGRAMS:
        raise RuntimeError(f"the neuron {place} is another one than when the program was made; export it anew.")
