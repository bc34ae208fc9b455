"""`python -m benchmarks.page`: the tables and plots of docs/benchmarks.md, made from benchmarks/results/*.json.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; what is between is replaced, the words around it
are written by hand. A table whose results are not there is left as it is.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import brf_page
from benchmarks.record import RESULTS
from benchmarks.tables import Row, pivot, prose, times
from sdn.runs.files import writing

__all__ = ["TABLES", "main", "render"]

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Rewrite the page's tables and draw its plots."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    text = render(page.read_text(), found)
    with writing(page) as partial:
        partial.write_text(text)
    from benchmarks.plots import draw

    for path in draw(found, page.parent):
        print(f"wrote {path}")
    print(f"wrote {page}")


def render(text: str, found: dict[str, Any]) -> str:
    """The page's text with every table whose suite was measured."""

    def table(match: re.Match[str]) -> str:
        name = match.group(1)
        suite, make = TABLES[name]
        if suite not in found:
            return match.group(0)
        inside = make(found[suite]["rows"])
        if name == next(first for first, (of, _) in TABLES.items() if of == suite):
            inside += f"\n\n{source(found[suite])}"
        return f"<!-- table {name} -->\n{inside}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->\n(.*?)<!-- end -->", table, text, flags=re.DOTALL)


def source(result: dict[str, Any]) -> str:
    """Where a table's numbers come from: command, day and commit, then the machine, then the versions."""
    facts = result["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    commit = (facts["commit"] or "no commit")[:9]
    return prose(
        f"*`python -m benchmarks {result['suite']}`, {facts['date'][:10]}, {commit}. {facts['processor']}, "
        f"{facts['threads']} thread, load {facts['load'][0] if facts['load'] else '?'}. {versions}.*"
    )


def _table(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["table"] == name]


def _shape(row: Row) -> str:
    return "x".join(map(str, row["shape"]))


def _ns(*references: str) -> Callable[[Row], str]:
    """Nanoseconds per element, and how many times a reference's that is."""

    def cell(row: Row) -> str:
        ratios = [times(row["of"][ref]) for ref in references if ref in row["of"]]
        return f"{row['ns']:.3g}" + (f" ({', '.join(ratios)})" if ratios else "")

    return cell


def _bars(rows: list[Row]) -> str:
    cell, rows = _ns("relu"), _table(rows, "bars")
    table = pivot(rows, lambda r: r["variant"], lambda r: f"L={r['shape'][1]} {r['pass']}", cell, "ns/element (x relu)")
    facts = {r["variant"]: r for r in rows if "equal dynamics" in r}
    checks = [
        f"{name}: equal dynamics {row['equal dynamics']}, equal gradient {row['equal gradient']}."
        + (f" Remark: {row['remark'].replace('; ', ', ')}." if "remark" in row else "")
        for name, row in facts.items()
    ]
    return "\n".join([table, *(["", "Peers:", ""] if checks else []), *(prose(check, "- ") for check in checks)])


def _faster(rows: list[Row]) -> str:
    """How many times faster the fused solver is than each of the others."""
    fused = {(r["shape"][1], r["pass"]): r for r in _table(rows, "bars") if r["variant"] == "fused"}
    others = [r for r in _table(rows, "bars") if r["variant"] != "fused" and (r["shape"][1], r["pass"]) in fused]

    def cell(row: Row) -> str:
        return times(row["seconds"] / fused[row["shape"][1], row["pass"]]["seconds"])

    return pivot(others, lambda r: r["variant"], lambda r: f"L={r['shape'][1]} {r['pass']}", cell, "time / fused")


def _sweep(name: str, axis: Callable[[Row], str], head: str) -> Callable[[list[Row]], str]:
    def make(rows: list[Row]) -> str:
        chosen = [row for row in _table(rows, name) if row["pass"] == "fwd+bwd"]
        return pivot(chosen, lambda r: r["variant"], axis, lambda r: f"{1e3 * r['seconds']:.3g}", head)

    return make


def _growth(rows: list[Row]) -> str:
    chosen = _table(rows, "growth")
    return pivot(chosen, _line, lambda r: r["passes"], lambda r: f"{r['exponent']:.2f}", "exponent in L")


def _line(row: Row) -> str:
    return ", ".join(row[k] for k in ("part", "variant") if k in row)


def _kinds(rows: list[Row]) -> str:
    chosen = [row for row in _table(rows, "kinds") if row["variant"] != "relu"]
    return pivot(chosen, lambda r: r["neuron"], lambda r: f"{r['variant']} {r['pass']}", _ns("relu"), "ns (x relu)")


def _memory(rows: list[Row]) -> str:
    chosen = _table(rows, "memory")
    return pivot(
        chosen,
        lambda r: r["variant"],
        lambda r: r["passes"],
        lambda r: f"{r['bytes_per_element']:.2f}",
        "bytes/element",
    )


def _scans(rows: list[Row]) -> str:
    def column(row: Row) -> str:
        return f"{row['dtype']}, {row['factors']}, {_shape(row)} {row['pass']}"

    return pivot(_table(rows, "scans"), column, lambda r: r["variant"], _ns(), "ns/element")


def _s4d(rows: list[Row]) -> str:
    chosen = [row for row in rows if row["table"] in ("kernel", "layer")]

    def cell(row: Row) -> str:
        least = min(row["of"].values(), default=1.0)
        faster = f" ({times(1 / least)})" if least != 1 else ""
        return f"{1e3 * row['seconds']:.4g}" + faster + (f", error {row['error']:.1e}" if "error" in row else "")

    return pivot(
        chosen,
        lambda r: f"{r['table']}: {r['variant']}",
        lambda r: f"L={r['shape'][1]} {r['pass']}",
        cell,
        "ms (x faster than naive)",
    )


def _surrogate(rows: list[Row]) -> str:
    return pivot(
        _table(rows, "surrogate"),
        lambda r: r["variant"],
        lambda r: f"{r['rows']} rows, L={r['shape'][1]} {r['pass']}",
        _ns("exact, fused"),
        "ns/element (x exact, fused)",
    )


def _model(rows: list[Row], head: str = "neuron") -> str:
    fused = {r["size"]: r["seconds"] for r in _table(rows, "steps") if r["variant"] == "fused"}
    lines: list[Row] = []
    for row in rows:
        size = row.get("size")
        if row["table"] == "steps":
            ratio = f" ({times(row['seconds'] / fused[size])})" if size in fused else ""
            lines.append({**row, "column": f"{size}: step, s", "cell": f"{row['seconds']:.3g}{ratio}"})
        elif row["table"] == "neuron alone":
            lines.append({**row, "column": f"{size}: one layer of neurons, s", "cell": f"{row['seconds']:.3g}"})
        elif row["table"] == "share":
            lines.append({**row, "column": f"{size}: neurons' share", "cell": f"{100 * row['share']:.0f} %"})
        elif row["table"] == "memory":
            lines.append({**row, "column": f"{size}: peak, GiB", "cell": f"{row['gibibytes']:.2f}"})
    lines.sort(key=lambda r: str(r["column"]))
    return pivot(lines, lambda r: r["variant"], lambda r: r["column"], lambda r: r["cell"], head)


def _experiments(rows: list[Row]) -> str:
    """Seconds of a step of the published batch, by neuron; what was scaled up from fewer sequences is marked."""
    first = {r["experiment"]: r["of_published_batch"] for r in reversed(rows) if r["variant"] == "fused"}

    def cell(row: Row) -> str:
        seconds = row["of_published_batch"]
        ratio = f" ({times(seconds / first[row['experiment']])})" if row["experiment"] in first else ""
        memory = f", {row['gibibytes']:.1f} GiB" if row.get("gibibytes") else ""
        return f"{seconds:.3g}{ratio}{memory}"

    def line(row: Row) -> str:
        scaled = f", scaled from {row['measured']}" if row["measured"] != row["batch"] else ""
        return f"{row['experiment']}: L={row['length']}, batch {row['batch']}{scaled}"

    return pivot(rows, line, lambda r: r["variant"], cell, "s a step (x fused)")


def _projection(name: str) -> Callable[[list[Row]], str]:
    def make(rows: list[Row]) -> str:
        found = (row for row in _table(rows, name) if "hours" in row)
        head = "| size | solver | steps x epochs | hours, training steps alone |\n|---|---|---|---|"
        lines = (f"| {r['size']} | {r['variant']} | {r['steps']} x {r['epochs']} | {r['hours']:.3g} |" for r in found)
        return "\n".join([head, *lines])

    return make


def _parallel(rows: list[Row]) -> str:
    shown = ("rounds", "rows", "settled", "certified", "handed_over", "margin", "equal", "rate", "seconds", "fused")
    rows = _table(rows, "parallel")
    lines = [{**row, "part": part, "value": row[part]} for row in rows for part in shown]
    return pivot(
        lines,
        lambda r: f"{r['neuron']}, {r['currents']}, {r['scheme']}",
        lambda r: r["part"],
        lambda r: f"{r['value']:.3g}" if isinstance(r["value"], float) else str(r["value"]),
        _shape(rows[0]),
    )


def _buffers(rows: list[Row]) -> str:
    return pivot(rows, lambda r: r["variant"], lambda r: f"L={r['shape'][1]} {r['pass']}", _ns("relu"), "ns (x relu)")


def _threads(rows: list[Row]) -> str:
    return pivot(rows, lambda r: r["variant"], lambda r: r["pass"], lambda r: f"{1e3 * r['seconds']:.3g}", "ms, wall")


def _startup(rows: list[Row]) -> str:
    parts = ("torch", "sdn", "first", "second", "beyond_torch")
    lines = [{**row, "part": part, "value": row[part]} for row in rows for part in parts]
    return pivot(
        lines, lambda r: f"{r['solver']}, {r['cache']}", lambda r: r["part"], lambda r: f"{r['value']:.3g}", "CPU s"
    )


def _gpu(rows: list[Row]) -> str:
    chosen = [row for row in rows if "both" in row]
    return pivot(
        chosen,
        lambda r: f"{r['table']}: {r['variant']}",
        lambda r: f"{r.get('rows', '')} x {r.get('length', _shape(r) if 'shape' in r else '')}",
        lambda r: f"{r['forward']:.3g} / {r['both']:.3g}",
        "ms, fwd / fwd+bwd",
    )


TABLES: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "bars": ("neurons", _bars),
    "faster": ("neurons", _faster),
    "rows": ("neurons", _sweep("rows", lambda r: str(r["rows"]), "ms by rows, L=1024, fwd+bwd")),
    "lengths": ("neurons", _sweep("lengths", lambda r: str(r["shape"][1]), "ms by L, 256 rows, fwd+bwd")),
    "growth": ("neurons", _growth),
    "kinds": ("neurons", _kinds),
    "memory": ("neurons", _memory),
    "buffers": ("buffers", _buffers),
    "threads": ("threads", _threads),
    "parallel": ("parallel", _parallel),
    "scans": ("scans", _scans),
    "scans-growth": ("scans", _growth),
    "scans-memory": ("scans", _memory),
    "s4d": ("s4d", _s4d),
    "s4d-growth": ("s4d", _growth),
    "s5rf": ("s5rf", lambda rows: _model(rows, "variant")),
    "s5rf-parts": ("s5rf", _sweep("parts", lambda r: r["size"], "ms, fwd+bwd")),
    "s5rf-growth": ("s5rf", _growth),
    "s5rf-epochs": ("s5rf", _projection("epochs")),
    **{name: ("brf", make) for name, make in brf_page.TABLES.items()},
    "surrogate": ("surrogate", _surrogate),
    "surrogate-memory": ("surrogate", _memory),
    "model": ("model", _model),
    "experiments": ("experiments", _experiments),
    "startup": ("startup", _startup),
    "gpu": ("gpu", _gpu),
    "gpu-s5rf": ("gpu", lambda rows: _model([{**r, "table": "steps"} for r in _table(rows, "s5rf")], "solver")),
    "gpu-s5rf-epochs": ("gpu", _projection("s5rf")),
    "gpu-brf": ("gpu", brf_page.device),
}

if __name__ == "__main__":
    main()
