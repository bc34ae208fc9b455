"""Which program runs a neuron: recorded once for a class and its options, and found again by its key.

A key is plain text, so that an operator can take it: ``LIF{"reset": "hard"}`` and a digest of the step for a neuron of
`sdn`, with its module for one of your own. A program that was exported finds its neuron by it in another process.
"""

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdn.checks.arguments import ArgumentError, init_fields
from sdn.compiler.affine import Affine, affine
from sdn.compiler.graph import Node, ordered
from sdn.compiler.neuron import Derivative, Step, derive, trace
from sdn.compiler.slopes import Slope, numbers_of, trace_slope
from sdn.compiler.sources import digest_of, module_of
from sdn.compiler.tape import Refused
from sdn.compiler.writing import Writer
from sdn.dynamics.base import Dynamics
from sdn.dynamics.fields import numeric_fields
from sdn.gradients import SpikeGradient

__all__ = ["Program", "has_slope", "parameters_of", "program", "program_of", "slope", "slope_of"]

WAY = "write it with elementwise operations of torch, or use solver='loop'"


@dataclass(frozen=True, eq=False)
class Program:
    """A neuron as compiled code sees it."""

    key: str
    step: Step
    parameters: Callable[..., tuple[list[Any], list[Any]]]
    """From the fields to rows and numbers, in plain Python: the function that the generated file holds."""
    source: str
    """The file of that function."""

    derivative: Derivative
    recorded: Derivative
    """Its backward pass, and that where `mem` has a gradient too."""
    affine: Affine | None
    """Its linear parts. All is made at once, since inside an operator autograd is off."""

    @property
    def name(self) -> str:
        """A word for files: the class in small letters."""
        return self.step.name.lower()


_PROGRAMS: dict[str, Program] = {}
_FOUND: dict[tuple[Any, ...], str] = {}
_SLOPES: dict[str, Slope] = {}


def program_of(dynamics: Dynamics) -> Program:
    """The program of a neuron.

    Raises:
        Refused: its step cannot be compiled; the message says which operation on which line, and the way out.
    """
    kind = type(dynamics)
    options = tuple((name, getattr(dynamics, name)) for name in _options(kind, dynamics))
    try:
        key = _FOUND.get((kind, options))
    except TypeError:  # an option that has no hash
        key = None
    if key is not None:
        return _PROGRAMS[key]
    try:
        step = trace(dynamics)
    except Refused as error:
        raise Refused(f"{error} and cannot be compiled; {WAY}.") from None
    made = _made(kind, dict(options), step)
    known = _PROGRAMS.setdefault(made.key, made)
    if not step.constants:  # which may be others the next time
        try:
            _FOUND[kind, options] = made.key
        except TypeError:
            return made
        return known
    _PROGRAMS[made.key] = made
    return made


def program(key: str) -> Program:
    """The program of a key.

    Raises:
        RuntimeError: the neuron of a program that was made in another process is not there, or has changed.
    """
    if key not in _PROGRAMS:
        _resolve(key)
    return _PROGRAMS[key]


def parameters_of(found: Program, dynamics: Dynamics) -> tuple[list[Any], list[float]]:
    """Rows, one value or (H,) each, and numbers of this very neuron; gradients flow to its fields."""
    values = [getattr(dynamics, name) for name in found.step.fields]
    like = next((value for value in values if isinstance(value, Tensor)), None)
    constants = [value if like is None else value.to(like) for value in found.step.constants.values()]
    rows, numbers = found.parameters(*values, *constants)
    return rows, [float(number) for number in numbers]


def slope_of(gradient: SpikeGradient) -> tuple[str, list[float]]:
    """Key and numbers of a spike gradient.

    Raises:
        Refused: its slope cannot be compiled; the message says why.
    """
    try:
        found = trace_slope(gradient)
    except Refused as error:
        raise Refused(f"{error} and cannot be compiled; {WAY}.") from None
    key = f"{found.name}-{digest_of(_text(found.slope))}"
    _SLOPES.setdefault(key, found)
    return key, numbers_of(found, gradient)


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


def _options(kind: type[Dynamics], dynamics: Dynamics) -> list[str]:
    """Fields that are part of a program: switches, words, and what is no number."""
    own = [name for name in init_fields(dynamics) if name not in kind.numbers or not kind.__module__.startswith("sdn.")]
    return [name for name in own if not _is_number(kind, name, getattr(dynamics, name))]


def _is_number(kind: type[Dynamics], name: str, value: Any) -> bool:
    """Whether a field is a number or a tensor of numbers, which a program takes as they are."""
    known = name in numeric_fields(kind) and name not in kind.numbers
    return known and isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)


def _made(kind: type[Dynamics], options: dict[str, Any], step: Step) -> Program:
    body = _parameters_text(step)
    text = f'"""{kind.__name__}: what its loop reads, from its fields. Generated; do not edit."""\n\n{body}'
    digest = digest_of(text, _text(step.mem, step.distance, *step.after), repr(step.at_threshold))
    place = kind.__name__ if kind.__module__.startswith("sdn.") else f"{kind.__module__}:{kind.__qualname__}"
    key = f"{place}{json.dumps(options, default=repr)}#{digest}"
    module = module_of(f"{kind.__name__.lower()}-parameters", text)
    return Program(key, step, module.parameters, text, derive(step), derive(step, record=True), affine(step))


def _parameters_text(step: Step) -> str:
    given = [*step.fields, *step.constants]
    own = {leaf: leaf for leaf in given}
    writer = Writer("python", {**own, **{f"{name}_": name for name in step.fields}})
    roots = writer.write([*step.rows.values(), *step.numbers.values()])
    rows, numbers = roots[: len(step.rows)], roots[len(step.rows) :]
    lines = "".join(f"    {line}\n" for line in writer.lines)
    used = sorted({op for node in ordered([*step.rows.values(), *step.numbers.values()]) for op in [node.op]})
    functions = [name for name in used if name in _FUNCTIONS]
    words = sorted(_FUNCTIONS[name] for name in functions)
    imports = f"from sdn.compiler.arithmetic import {', '.join(words)}\n\n\n" if words else ""
    return (
        f"{imports}def parameters({', '.join(given)}):\n{lines}    return [{', '.join(rows)}], [{', '.join(numbers)}]\n"
    )


def _text(*roots: Node) -> str:
    """Nodes as text that tells any two graphs apart."""
    place: dict[int, int] = {}
    lines = []
    for node in ordered(roots):
        place[id(node)] = len(place)
        own = node.name if node.op == "leaf" else repr(node.value) if node.is_constant else ""
        lines.append(f"{node.op} {own} {[place[id(arg)] for arg in node.args]}")
    return "; ".join([*lines, str([place[id(root)] for root in roots])])


def _resolve(key: str) -> None:
    place, _, rest = key.partition("{")
    options, _, _ = rest.rpartition("#")
    module, _, name = place.rpartition(":")
    try:
        kind: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module or "sdn"))
        given = json.loads("{" + options)
        required = [f.name for f in dataclasses.fields(kind) if f.init and f.default is dataclasses.MISSING]
        program_of(kind(**{**{n: 0.5 for n in required if n not in given}, **given}))
    except (ImportError, AttributeError, TypeError, ValueError, ArgumentError) as error:
        raise RuntimeError(
            f"the neuron {place} of a compiled program cannot be found ({error}); import it first."
        ) from None
    if key not in _PROGRAMS:
        raise RuntimeError(
            f"the neuron {place} is another one than when the program was made; export the program anew."
        )


_FUNCTIONS = {
    **{name: name for name in (
        "sqrt", "sign", "floor", "ceil", "trunc", "minimum", "maximum", "where", "real", "exp", "expm1", "log", "log1p",
        "sin", "cos", "tan", "tanh", "sigmoid", "erf", "atan", "sinh", "cosh", "power",
    )},
    "round": "round_even",
    "not": "not_",
}  # fmt: skip
