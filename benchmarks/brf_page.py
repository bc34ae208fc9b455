"""The tables of suite ``brf``, and of its part of suite ``gpu``, on docs/benchmarks.md."""

from collections.abc import Callable
from typing import Any

from benchmarks.tables import Row, pivot, prose, times

__all__ = ["TABLES", "device"]


def steps(rows: list[Row]) -> str:
    """Milliseconds of a pass, and how many times the fused solver's that is (median of the ratios within rounds)."""

    def line(row: Row) -> str:
        return f"{row['size']}, {100 * row['rate']:.2g} % fire: {row['pass']}"

    def cell(row: Row) -> str:
        return f"{1e3 * row['seconds']:.3g} ({times(row['of']['fused'])})"

    return pivot(_of(rows, "steps"), line, lambda r: r["variant"], cell, "ms (x fused)")


def check(rows: list[Row]) -> str:
    """Spikes, flips and errors of every variant, one line each."""
    head = ("network", "variant", "spikes", "they differ in", "first at step", "gradients before it, error")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in _of(rows, "check"):
        network = f"{r['size']}, {100 * r['rate']:.2g} % fire, {r['dtype']}"
        first = "-" if r["first_flip"] is None else str(r["first_flip"])
        cells = (network, r["variant"], str(r["spikes"]), str(r["flips"]), first, f"{r['gradient_error']:.1e}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def recipe(rows: list[Row]) -> str:
    """The published training at the measured time of a step."""

    def line(row: Row) -> str:
        return f"{row['size']}: {row['epochs']} epochs of {row['steps']} steps"

    def cell(row: Row) -> str:
        return f"{row['minutes']:.3g} ({1e3 * row['step']:.3g} ms a step)"

    return pivot(_of(rows, "recipe"), line, lambda r: r["variant"], cell, "minutes, training steps alone")


def growth(rows: list[Row]) -> str:
    """The exponent p of time ~ L^p."""
    chosen = _of(rows, "growth")
    return pivot(
        chosen, lambda r: r["variant"], lambda r: r["passes"], lambda r: f"{r['exponent']:.2f}", "exponent in L"
    )


def memory(rows: list[Row]) -> str:
    """Peak memory of a training step beyond its inputs."""

    def line(row: Row) -> str:
        return f"{row['size']}: training step"

    return pivot(_of(rows, "memory"), line, lambda r: r["variant"], lambda r: f"{r['mebibytes']:.4g}", "MiB")


def peers(rows: list[Row]) -> str:
    """A recurrent layer of LIF here and in other libraries, and whether those compute the same."""

    def cell(row: Row) -> str:
        return f"{1e3 * row['seconds']:.3g} ({times(row['of']['fused'])})"

    chosen = _of(rows, "peers")
    table = pivot(chosen, lambda r: r["variant"], lambda r: r["pass"], cell, "ms (x fused)")
    facts = {r["variant"]: r for r in chosen if "flips" in r}
    said = [
        f"{name}: {r['flips']} of {r['spikes']} spikes differ, gradients by {r['gradient_error']:.1e}."
        + (f" Remark: {r['remark'].replace('; ', ', ')}." if r.get("remark") else "")
        for name, r in facts.items()
    ]
    return "\n".join([table, *(["", "Against the loop:", ""] if said else []), *(prose(one, "- ") for one in said)])


def device(rows: list[Row]) -> str:
    """Training steps on a CUDA device: ms on the clock and peak memory."""

    def cell(row: Row) -> str:
        memory = "" if row["gibibytes"] is None else f", {row['gibibytes']:.2f} GiB"
        return f"{1e3 * row['seconds']:.3g}{memory}"

    chosen: list[dict[str, Any]] = _of(rows, "brf")
    return pivot(chosen, lambda r: r["variant"], lambda r: r["size"], cell, "ms a training step, peak")


def _of(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["table"] == name]


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "brf": steps,
    "brf-recipe": recipe,
    "brf-memory": memory,
    "brf-growth": growth,
    "brf-check": check,
    "brf-peers": peers,
}
"""By their names on the page; the first carries the line that says where the numbers come from."""
