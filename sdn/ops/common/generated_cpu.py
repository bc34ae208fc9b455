"""Source for numba: the step, the pull and the slope of a neuron, in front of the loops that call them."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from sdn.compiler.graph import leaves
from sdn.compiler.neuron import WATCH
from sdn.compiler.programs import Program, slope
from sdn.compiler.sources import module_of
from sdn.compiler.tangents import leaf_of, moves, tangents
from sdn.compiler.writing import Writer
from sdn.ops.common.cpu import TINY, TINY_DOUBLE

__all__ = [
    "TAKEN", "WORDS",
    "assembled", "fires_text", "move_text", "pull_text", "scalars", "slope_text", "step_text", "written",
]  # fmt: skip

WORDS = ("exp", "exp_of_negative", "maximum", "minimum", "sigmoid", "sign", "tanh")
"""Operations that are functions of `sdn.ops.common.functions_cpu`."""
TINY_OF = {"float32": TINY, "float64": TINY_DOUBLE}
TAKEN = (
    "x j W F np math now after fixed block sums gs gm gv fires mems gmems shape numbers spike slope step pull move "
    "inline jit TINY"
)
"""Names of generated functions, which a state or a parameter may not have in them."""


def step_text(found: Program, record: bool = False) -> str:
    """``step`` of `sdn.ops.neuron.loops`; ``record`` where it writes mem."""
    step = found.step
    names, loads = _leaves(found, "now", len(step.states), "fixed", 0)
    writer = Writer("numba", {**names, "current": "x", "spike": "spike"})
    mem, distance = writer.write([step.mem, step.distance], step.after)
    early = [*writer.lines]
    writer.lines.clear()
    after = writer.write(step.after)
    body = [
        *loads, *early, *fires_text(found, distance), *writer.lines,
        *written("after", [*zip(step.states, after, strict=True)]),
        *([f"mems[j] = {mem}"] if record else []), "return fires",
    ]  # fmt: skip
    return _function("step", "numbers, x, now, after, fixed, mems, j, W", body)


def pull_text(found: Program, through_reset: bool, record: bool = False, learn: bool = True) -> str:
    """``pull`` of `sdn.ops.neuron.loops`; ``record`` where mem has a gradient, ``learn`` where parameters have."""
    step, back = found.step, found.recorded if record else found.derivative
    own = [name for name in step.states if name != WATCH]
    count = len(step.states)
    names, loads = _leaves(found, "now", count, "block", count)
    loads += [f"g_{name} = block[{_place(i)}]" for i, name in enumerate(own)]
    loads += ["gm = gmems[j]"] if record else []
    names |= {"current": "x", "spike": "spike", "slope": "gv", "membrane": "gm"}
    writer = Writer("numba", {**names, **{f"after_{name}": f"g_{name}" for name in own}})
    results = [back.current, *back.states, *back.rows]
    (distance,) = writer.write([step.distance], [back.reset, *results])
    early = [*writer.lines]
    writer.lines.clear()
    (reset,) = writer.write([back.reset], results) if through_reset else ("",)
    into = f"(gs + {reset})" if through_reset and not back.reset.is_constant else "gs"
    middle = [*writer.lines, f"gv = {into} * slope(shape, {distance})"]
    writer.lines.clear()
    current, *rest = writer.write(results)
    first = count + len(step.rows)
    body = [
        *loads, *early, *fires_text(found, distance), *middle, *writer.lines,
        *written("block", [*zip(own, rest, strict=False)]),
        *(f"block[{_place(first + i)}] += {text}" for i, text in enumerate(rest[len(own) :]) if learn),
        f"return {current}",
    ]  # fmt: skip
    return _function("pull", "numbers, shape, x, now, block, gs, gmems, j, W", body)


def move_text(found: Program, derivative: bool, follows: bool) -> str:
    """``move`` of `sdn.ops.chunks.loops`: ``derivative`` where it is carried on, ``follows`` as of `moves`."""
    step, back = found.step, found.derivative
    names, loads = _leaves(found, "now", len(step.states), "fixed", 0)
    names |= {"current": "x", "spike": "spike", "slope": "gv"}
    table = moves(step, tangents(step, back), follows) if derivative else ()
    size = len(table)
    places = {(i, d): f"block[{_place(i * size + d)}]" for i in range(size) for d in range(size)}
    filled = [(i, d) for i, d in places if i == d or not table[i][d].is_constant]
    before = {leaf_of(*place): place for place in places}
    used = {leaf.name for leaf in leaves([node for row in table for node in row])} & before.keys()
    loads += [f"{name} = {places[before[name]]}" for name in sorted(used)]
    names |= {name: name for name in used}
    entries = [table[i][d] for i, d in filled]
    writer = Writer("numba", names)
    (distance,) = writer.write([step.distance], [*step.after, *entries])
    early = [*writer.lines]
    writer.lines.clear()
    texts = writer.write([*step.after, *entries])
    states, changes = texts[: len(step.states)], texts[len(step.states) :]
    body = [
        *loads, *early, *fires_text(found, distance),
        *([f"gv = slope(shape, {distance})"] if follows and size else []), *writer.lines,
        *written("now", [*zip(step.states, states, strict=True)]),
    ]  # fmt: skip
    for place, text in zip(filled, changes, strict=True):
        name = f"n{place[0]}_{place[1]}"
        body += [f"{name} = {text}", f"{places[place]} = F(0.0) if abs({name}) < TINY else {name}"]
    return _function("move", "numbers, shape, x, now, fixed, block, j, W", [*body, "return fires"])


def slope_text(key: str) -> str:
    """``slope(shape, v)`` of a spike gradient."""
    found = slope(key)
    writer = Writer("numba", {"distance": "v", **{name: f"shape[{i}]" for i, name in enumerate(found.numbers)}})
    (text,) = writer.write([found.slope])
    return _function("slope", "shape, v", [*writer.lines, f"return {text}"])


def assembled(what: str, name: str, dtype: torch.dtype, texts: Sequence[str], functions: Sequence[Any]) -> Any:
    """The module of generated functions and of loops that call them.

    Args:
        what: of the file, such as "forward".
        name: of the neuron.
        dtype: of all arrays.
        texts: generated functions.
        functions: loops, whose own text stands behind them.
    """
    loops = [inspect.getsource(getattr(each, "py_func", each)) for each in functions]
    body = "\n\n".join([*texts, *loops])
    home = functions[0].__module__
    kind = str(dtype).removeprefix("torch.")
    head = f'"""{name}, {what} in {kind}: its step in front of the loops of {home}. Generated; do not edit."""\n'
    return module_of(f"{name.lower()}-{what}", f"{head}\n{_imports(home, kind, functions, body)}\n\n{body}")


def _imports(home: str, kind: str, functions: Sequence[Any], body: str) -> str:
    """What generated functions call, and what the loops of a module use, from that module."""
    stubs = {"step", "pull", "move", "slope", *(each.__name__ for each in functions)}
    used: set[str] = set()
    for each in functions:
        plain = getattr(each, "py_func", each)
        used |= {name for name in plain.__code__.co_names if name in plain.__globals__}
    used -= {*stubs, "np", "F"}
    names = ", ".join(sorted(used))
    own = f"from {home} import {names}\n" if names else ""
    called = set(re.findall(r"\b([a-z_0-9]+)\(", body)) & {*WORDS}
    words = ", ".join(sorted({"inline", *called} - used))
    tiny = f"\n\nTINY = F({TINY_OF[kind]!r})\n" if "TINY" in body else ""
    return (
        f"import math\n\nimport numpy as np\nfrom numpy import {kind} as F\n\nfrom sdn.ops.common.cpu import jit\n"
        f"from sdn.ops.common.functions_cpu import {words}\n{own}{tiny}"
    )


def _leaves(found: Program, states: str, count: int, rows: str, offset: int) -> tuple[dict[str, str], list[str]]:
    """Names of the leaves of a step, and the statements that read them."""
    step = found.step
    names = {name: name for name in (*step.states, *step.rows)}
    names |= {name: f"numbers[{i}]" for i, name in enumerate(step.numbers)}
    loads = [f"{name} = {states}[{_place(i)}]" for i, name in enumerate(step.states[:count])]
    loads += [f"{name} = {rows}[{_place(offset + i)}]" for i, name in enumerate(step.rows)]
    taken = {*TAKEN.split(), *WORDS}
    clash = {name: f"{name}_own" for name in names if name in taken}
    if clash:
        names |= clash
        loads = [f"{clash.get(left, left)} = {right}" for left, _, right in (load.partition(" = ") for load in loads)]
    return names, loads


def fires_text(found: Program, distance: str) -> list[str]:
    """Statements that decide from a distance to the threshold whether a neuron fires."""
    sign = ">=" if found.step.at_threshold else ">"
    return [f"fires = {distance} {sign} 0", "spike = F(1.0) if fires else F(0.0)"]


def written(array: str, states: Sequence[tuple[str, str]], place: str = "") -> Iterator[str]:
    """States into an array, 0 for those smaller than any normal number; the watch is 0 or NaN.

    Args:
        array: its name.
        states: name and text of each.
        place: of a field in the array, with ``{}`` for its number; "" is that of a block.
    """
    for i, (name, text) in enumerate(states):
        if name != WATCH and text != "spike":
            yield f"n{i} = {text}"
            text = f"F(0.0) if abs(n{i}) < TINY else n{i}"
        yield f"{array}[{place.format(i) if place else _place(i)}] = {text}"


def _place(field: int) -> str:
    return "j" if field == 0 else "W + j" if field == 1 else f"{field} * W + j"


def _function(name: str, arguments: str, body: Sequence[str]) -> str:
    return f"@inline\ndef {name}({arguments}):\n" + "".join(f"    {line}\n" for line in body)


def scalars(values: Sequence[float], dtype: torch.dtype) -> tuple[Any, ...]:
    """Plain numbers in the type of the arrays."""
    kind = np.float64 if dtype == torch.float64 else np.float32
    return tuple(kind(value) for value in values)
