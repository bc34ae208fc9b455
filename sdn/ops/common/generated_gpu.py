"""Source for Triton: the step, the pull and the slope of a neuron, and kernels written out for its states.

A kernel stands in its module as a function that never runs as it is: a template, in which some words stand for names.

- ``s_STATE`` in a line: the line is written once for each state, ``s_u = ...``, ``s_v = ...``; `STATE` alone is the
  number of the state.
- ``*s_STATE`` in a line: all of them, with commas between.
- `STATES` is how many there are.

So for `PARAMETER`, what is read per channel, for ``NUMBER``, what is one number for all, and for ``SHAPE``, the numbers
of the spike gradient. `OWN` are the states of the neuron without the program's watch, ``INPUT`` these and PARAMETER.
"""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from sdn.compiler import programs
from sdn.compiler.graph import Node, carries, leaves, ordered
from sdn.compiler.neuron import WATCH
from sdn.compiler.operations import OPERATIONS
from sdn.compiler.programs import Program
from sdn.compiler.sources import module_of
from sdn.compiler.writing import Writer
from sdn.ops.common.functions_gpu import FUNCTIONS

__all__ = [
    "OWN", "PARAMETER", "PARAMETERS", "STATE", "STATES", "assembled", "d_OWN", "d_PARAMETER", "pull", "pull_text",
    "slope", "slope_text", "slope_words", "step", "step_text", "words_of",
]  # fmt: skip

STATE = OWN = PARAMETER = STATES = PARAMETERS = d_OWN = d_PARAMETER = 0
"""Words of the templates that Python would look for elsewhere; ``*d_INPUT`` assigns the last two."""
WORD = re.compile(r"\b((?:\w+_)?)(STATE|OWN|PARAMETER|NUMBER|SHAPE|INPUT)\b")
TAKEN = re.compile(r"[tk]\d+|(next|g|n)_.*|x|gs|gm|gv|tl|triton|mem|distance|fires|spike|slope|normal|spike_of")
"""Names of generated functions, which a state or a parameter of a neuron may not have in them."""


def step(x: Any, *rest: Any) -> Any:
    """One step: ``step(x, *s_STATE, *p_PARAMETER, *c_NUMBER)``, in a backward pass with OWN for STATE.

    Returns:
        the spike, which is NaN where a number of the neuron is NaN or infinite; mem; and the states after the step.
    """
    raise AssertionError("generated")


def pull(x: Any, *rest: Any) -> Any:
    """One step backward: ``pull(x, gs, gm, *g_OWN, *s_OWN, *p_PARAMETER, *c_NUMBER, *n_SHAPE)``.

    From ``gs``, ``gm`` and ``g_OWN``, the gradients of the spike, of mem and of the states after the step.

    Returns:
        the gradients of the current, of the states before the step, and of the parameters.
    """
    raise AssertionError("generated")


def slope(x: Any, *shape: Any) -> Any:
    """The slope of a spike gradient at the distance x: ``slope(x, *n_SHAPE)``."""
    raise AssertionError("generated")


def step_text(found: Program, watch: bool) -> str:
    """`step` of a neuron, with the program's watch or without."""
    graph, names = found.step, _names(found)
    states = [*graph.states] if watch else _own(found)
    after = [*graph.after[: len(states)]]
    roots = [graph.mem, *after]
    writer = Writer("triton", {**names, "current": "x", "spike": "spike"})
    lines = [*_constants(writer, [graph.distance, *roots]), *_fires(found, writer, roots)]
    mem, *texts = (_wide(found, node, text) for node, text in zip(roots, writer.write(roots), strict=True))
    lines += [*writer.lines, f"mem = {mem}"]
    lines += [f"next_{name} = {_kept(name, text)}" for name, text in zip(states, texts, strict=True)]
    lines += [f"return spike_of(fires, {_seen(found, names) if watch else 'distance'}), mem, {_all('next_', states)}"]
    given = ["x", *(names[name] for name in (*states, *graph.rows, *graph.numbers))]
    return _function("step", given, "The spike, mem and the states after a step.", lines)


def pull_text(found: Program, gradient: str, through_reset: bool, record: bool) -> str:
    """`pull` of a neuron; ``gm`` is used where mem is recorded."""
    graph, back, names, own = found.step, found.recorded if record else found.derivative, _names(found), _own(found)
    shape = [f"n_{number}" for number in slope_words(gradient)["SHAPE"]]
    results = [back.current, *back.states, *back.rows]
    through = [back.reset] if through_reset and not back.reset.is_constant else []
    writer = Writer(
        "triton",
        {**names, "current": "x", "spike": "spike", "slope": "gv", "membrane": "gm"}
        | {f"after_{name}": f"g_{name}" for name in own},
    )
    lines = _constants(writer, [graph.distance, *through, *results])
    lines += _fires(found, writer, [*through, *results])
    reset = " + ".join(["gs", *writer.write(through, results)])
    lines += [*writer.lines, f"gv = {f'({reset})' if through else reset} * slope({_all('', ['distance', *shape])})"]
    writer.lines.clear()
    current, *rest = writer.write(results)
    rest[: len(own)] = [f"normal({text})" for text in rest[: len(own)]]
    lines += [*writer.lines, "return (", *(f"    {text}," for text in (current, *rest)), ")"]
    given = ["x", "gs", "gm", *(f"g_{name}" for name in own)]
    given += [*(names[name] for name in (*own, *graph.rows, *graph.numbers)), *shape]
    text = "Gradients of the current, of the states before the step and of the parameters."
    return _function("pull", given, text, lines)


def slope_text(key: str) -> str:
    """`slope` of a spike gradient."""
    found = programs.slope(key)
    writer = Writer("triton", {"distance": "x", **{name: name for name in found.numbers}})
    lines = _constants(writer, [found.slope])
    (text,) = writer.write([found.slope])
    given = ["x", *found.numbers]
    return _function("slope", given, f"{found.name}, at the distance x.", [*lines, *writer.lines, f"return {text}"])


def assembled(
    what: str, name: str, texts: Sequence[str], functions: Sequence[Any], words: dict[str, Sequence[str]]
) -> Any:
    """The module of generated functions and of kernels that call them.

    Args:
        what: of the file, such as "forward".
        name: of the neuron.
        texts: generated functions.
        functions: templates, kernels and what they call.
        words: names that STATE, OWN, PARAMETER, NUMBER and SHAPE stand for.
    """
    plain = [getattr(each, "fn", each) for each in functions]
    home = plain[0].__module__
    body = "\n\n".join([*texts, *(_filled(inspect.getsource(each), words) for each in plain)])
    own = {"step", "pull", "slope", *(each.__name__ for each in plain)}
    used = {n for each in plain for n in (*each.__code__.co_names, "RUNTIME") if n in each.__globals__ and n in body}
    used = {n for n in used - own - {"tl", "triton"} if re.search(rf"\b{n}\b", body)}
    generated = set(re.findall(r"\b\w+(?=\()", "".join(texts)))
    imports = {
        "sdn.ops.common.functions_gpu": generated & FUNCTIONS,
        "sdn.ops.common.tiles_gpu": (generated & {"normal", "spike_of"}) - used,
        home: used,
    }
    lines = [f"from {place} import {', '.join(sorted(some))}" for place, some in imports.items() if some]
    head = f'"""{name}, {what}: its own functions in front of the kernels of {home}. Generated; do not edit."""'
    text = "\n".join([head, "", "import triton", "import triton.language as tl", "", *lines, "", "", body])
    return module_of(f"{name.lower()}-{what}-gpu", text)


def words_of(found: Program, gradient: str | None = None) -> dict[str, Sequence[str]]:
    """Names for the templates, of a neuron and of its spike gradient."""
    graph, own = found.step, _own(found)
    words = {"STATE": graph.states, "OWN": own, "INPUT": [*own, *graph.rows]}
    words |= {"PARAMETER": [*graph.rows], "NUMBER": [*graph.numbers]}
    return words if gradient is None else words | slope_words(gradient)


def slope_words(gradient: str) -> dict[str, Sequence[str]]:
    """Names for the templates, of a spike gradient alone."""
    return {"SHAPE": [str(i) for i in range(len(programs.slope(gradient).numbers))]}


# ---- Functions.
def _own(found: Program) -> list[str]:
    return [name for name in found.step.states if name != WATCH]


def _names(found: Program) -> dict[str, str]:
    """Names of states, rows and numbers in generated functions."""
    graph = found.step
    own = (*graph.states, *graph.rows, *graph.numbers)
    return {name: f"{name}_own" if TAKEN.fullmatch(name) or name in FUNCTIONS else name for name in own}


def _constants(writer: Writer, roots: Sequence[Node]) -> list[str]:
    """Tiles for the numbers that stand alone or in a function: two of them would have no type."""
    nodes = ordered(roots)
    called = [node for node in nodes if node.op in OPERATIONS and OPERATIONS[node.op].triton.endswith(")")]
    found = {id(n): n for n in (*(arg for node in called for arg in node.args), *roots) if n.is_constant}
    lines = []
    for place, node in enumerate(node for node in found.values() if node.kind == "real"):
        lines.append(f"k{place} = tl.full(x.shape, {node.value!r}, x.dtype)".replace("inf", 'float("inf")'))
        writer.name(node, f"k{place}")
    return lines


def _fires(found: Program, writer: Writer, later: Sequence[Node]) -> list[str]:
    """Statements up to the spike, as far as what comes later uses it."""
    graph = found.step
    (text,) = writer.write([graph.distance], later)
    lines = [*writer.lines, f"distance = {text}", f"fires = distance {'>=' if graph.at_threshold else '>'} 0"]
    writer.lines.clear()
    writer.name(graph.distance, "distance")
    used = any(leaf.name == "spike" for leaf in leaves(later))
    return [*lines, "spike = real(fires, x)"] if used else lines


def _seen(found: Program, names: dict[str, str]) -> str:
    """A number that is finite where those of the neuron are: the distance, and what it does not show by itself."""
    graph, shown = found.step, carries(found.step.distance)
    states = dict(zip(graph.states, graph.after, strict=True))
    late = [name for name, node in states.items() if name not in shown or "current" in carries(node) - shown]
    first, *terms = [f"next_{WATCH}"] if WATCH in states else ["distance", *(f"next_{name}" for name in late)]
    terms += [names[name] for name in graph.rows if name not in shown]
    return " + ".join([first, *(f"({term} - {term})" for term in terms)])


def _wide(found: Program, node: Node, text: str) -> str:
    """A root that is one value per channel, as a tile like the others."""
    single = node.name in found.step.rows or node.name in found.step.numbers
    return f"tl.broadcast_to({text}, x.shape)" if node.op == "leaf" and single else text


def _kept(name: str, text: str) -> str:
    return text if name == WATCH else f"normal({text})"


def _all(prefix: str, names: Sequence[str]) -> str:
    return ", ".join(f"{prefix}{name}" for name in names)


def _function(name: str, arguments: Sequence[str], text: str, body: Sequence[str]) -> str:
    lines = "".join(f"    {line}\n" for line in (f'"""{text}"""', *body))
    return f"@triton.jit\ndef {name}({', '.join(arguments)}):\n{lines}"


# ---- Templates.
def _filled(text: str, words: dict[str, Sequence[str]]) -> str:
    """A template with its words written out."""
    text = re.sub(r"  # (type|fmt|noqa)\b.*", "", text)
    for count in ("STATE", "PARAMETER"):
        text = re.sub(rf"\b{count}S\b", str(len(words.get(count, ()))), text)
    lines = [each for line in text.splitlines() for each in _written(line, words)]
    for place in range(len(lines) - 1, 0, -1):  # a block of lines that were written no time at all
        before, line = lines[place - 1], lines[place]
        if before.endswith(":") and line.strip() and _indent(line) <= _indent(before) and not before.startswith(")"):
            lines.insert(place, " " * (_indent(before) + 4) + "pass")
    return "\n".join(lines) + "\n"


def _written(line: str, words: dict[str, Sequence[str]]) -> list[str]:
    listed = re.sub(rf"\*{WORD.pattern}", lambda m: _all(m[1], words[m[2]]) or "\0", line)
    listed = re.sub(r", \0|\0, |\0", "", listed)
    word = WORD.search(listed)
    if word is None:
        return [listed] if listed.strip(" ,") or not line.strip() else []
    names = words[word[2]]
    return [re.sub(rf"\b{word[2]}\b", str(i), re.sub(rf"_{word[2]}\b", f"_{n}", listed)) for i, n in enumerate(names)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
