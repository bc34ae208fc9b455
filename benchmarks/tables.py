"""Markdown tables from rows of results."""

import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["Row", "pivot", "prose", "times"]

Row = dict[str, Any]


def pivot(
    rows: list[Row], line: Callable[[Row], str], column: Callable[[Row], str], cell: Callable[[Row], str], head: str
) -> str:
    """A Markdown table: one line and one column per value that occurs, in the order of their appearance."""
    lines, columns = list(dict.fromkeys(map(line, rows))), list(dict.fromkeys(map(column, rows)))
    cells = {(line(row), column(row)): cell(row) for row in rows}
    found = [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(found + [f"| {n} | {' | '.join(cells.get((n, c), '') for c in columns)} |" for n in lines])


def prose(text: str, mark: str = "") -> str:
    """Words of a page in lines of at most 100 characters, as an item of a list where there is a mark such as ``- ``."""
    indent = " " * len(mark)
    return textwrap.fill(f"{mark}{text}", 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def times(ratio: float) -> str:
    """A ratio in words: ``2.41x``."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"
