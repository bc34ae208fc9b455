"""What is known of a neuron's fields, in the neuron's own file: unit and range; and the table made of all of them."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Field", "table"]


class Field(NamedTuple):
    """Unit and range of a field that is a number."""

    unit: str
    low: float = 0.0
    high: float = math.inf
    closed: bool = False
    """Whether ``low`` itself is allowed; ``high`` never is."""
    hint: str = ""
    """What an error adds."""

    @property
    def interval(self) -> str:
        """The range as it is written in mathematics."""
        return f"{'[' if self.closed else '('}{self.low:g}, {self.high:g})"


def table(kinds: Iterable[Any]) -> str:
    """Neurons and their fields in Markdown, from their own files.

    Args:
        kinds: classes of dynamics whose fields have defaults.
    """
    rows = []
    costs = []
    for kind in kinds:
        neuron, name = kind(), f"`{kind.__name__}`"
        states, gradient = ", ".join(kind.State._fields), type(neuron.default_spike).__name__
        operations = ", ".join(map(str, neuron.operations))
        costs.append([name, states, f"{neuron.gain:.4g}", f"`{gradient}`", f"{neuron.default_std:g}", operations])
        for field in dataclasses.fields(kind):
            known = kind.ranges.get(field.name)
            unit, interval = (known.unit, known.interval) if known else ("", "")
            learned = kind.transforms.get(field.name, "")
            rows.append([name, f"`{field.name}`", unit, interval, f"`{field.default!r}`", learned])
            name = ""
    first = _markdown(["neuron", "field", "unit", "range", "default", "learned through"], rows)
    heads = ["neuron", "states", "gain", "spike gradient", "std of currents", "multiplications, additions a step"]
    return f"{first}\n{_markdown(heads, costs)}"


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
