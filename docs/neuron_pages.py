"""The tables of docs/neurons/*.md, made of the neurons' own files: `python docs/neuron_pages.py` writes them anew.

`python docs/neuron_pages.py --check` writes nothing and ends with 1 where a page differs from the code.
"""

import argparse
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "neurons"
SEAMS = ROOT / "benchmarks" / "results" / "seams.json"
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from sdn.dynamics import BUILT_IN, Dynamics  # noqa: E402
from sdn.surrogate.zoo import ENTRIES  # noqa: E402


def card(kind: type[Dynamics]) -> str:
    """What a neuron costs and how it runs, a row a fact."""
    neuron, fields = kind(), kind.State._fields
    multiplications, additions = neuron.operations
    compared = "reaches" if kind.fires_at_threshold else "exceeds"
    names = ", ".join(f"`{field}`" for field in fields)
    rows = [
        ("name", f"`sdn.{kind.__name__}`; `{kind.word or kind.__name__.lower()}` on a command line"),
        ("state", f"{names}: {_of(len(fields), 'number')}, {4 * len(fields)} bytes a neuron in float32"),
        ("operations a step", f"{_of(multiplications, 'multiplication')}, {_of(additions, 'addition')}"),
        ("gain of the input", f"{neuron.gain:.4g}"),
        ("it fires where", f"its potential {compared} the threshold"),
        ("slope in the backward pass", f"`sdn.{type(neuron.default_spike).__name__}`, unless you pass another one"),
        (
            "currents that fit",
            f"normal, with a standard deviation of {neuron.default_std:g}: what `sdn.generate` draws",
        ),
        ("exact solvers", '`"fused"` (the default), `"parallel"`, `"loop"`'),
        ("approximate solver", '`"surrogate"`, see [its surrogate](#its-surrogate)'),
        ("source", documented(kind)[1]),
    ]
    return "".join(["| | |\n|---|---|\n", *(f"| {what} | {fact} |\n" for what, fact in rows)])


def fields(kind: type[Dynamics]) -> str:
    """The fields of a neuron: meaning, unit, range, default and how each is learned."""
    meanings, _ = documented(kind)
    lines = ["| field | meaning | unit | range | default | learned through |\n|---|---|---|---|---|---|\n"]
    for field in dataclasses.fields(kind):
        known = kind.ranges.get(field.name)
        unit, interval = (known.unit, known.interval.replace(" ", "&nbsp;")) if known else ("", "")
        learned = kind.transforms.get(field.name, "")
        cells = [f"`{field.name}`", meanings[field.name], unit, interval, f"`{field.default!r}`", learned]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def surrogates(kind: type[Dynamics]) -> str:
    """How good the surrogates are: agreement / F1 in percent, means of the trainings in the stored results."""
    found = json.loads(SEAMS.read_text())["neurons"]
    lines = ["| artifact | numbers | normal currents | worst family of currents |\n|---|---|---|---|\n"]
    for name in artifacts(kind):
        runs = [run for run in found.get(name, {}).values() if "C 8" in run]
        if not runs:
            continue
        by_family = {family: _mean([run["families"][family]["3"] for run in runs]) for family in runs[0]["families"]}
        worst = min(by_family, key=lambda family: by_family[family][1])
        cells = [f"`{name}`", str(runs[0]["numbers"]), _percent(by_family["normal"])]
        cells.append(_percent(by_family[worst]) + (f", {worst}" if by_family[worst][1] < 99.95 else ""))
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def artifacts(kind: type[Dynamics]) -> list[str]:
    """The names of the seam networks that ship for a neuron."""
    return [name for name, (dynamics, _) in ENTRIES.items() if type(dynamics) is kind]


def documented(kind: type[Dynamics]) -> tuple[dict[str, str], str]:
    """What the docstring of a neuron says of each field, and its source."""
    text = inspect.cleandoc(kind.__doc__ or "")
    _, _, after = text.partition("Args:\n")
    given, _, _ = after.partition("\n\n")
    said = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", given, re.M)
    meanings = {name: _plain(meaning).replace("; a number or (H,)", "") for name, meaning in said}
    source = re.search(r"^Source: ((?:.+\n?)+)", text, re.M)
    if source is None:
        raise ValueError(f"{kind.__name__}: its docstring has no line that begins with Source:")
    return meanings, _plain(source[1])


def blocks(kind: type[Dynamics]) -> Iterator[tuple[str, str]]:
    """The parts of a page that are made of the code, by their names."""
    yield "card", card(kind)
    yield "fields", fields(kind)
    yield "surrogates", surrogates(kind)


def written(word: str, page: str) -> str:
    """The page of a neuron with its parts made anew.

    Args:
        word: of the neuron, such as "lif".
        page: its Markdown.

    Raises:
        ValueError: a part that the page does not have.
    """
    for name, text in blocks(BUILT_IN[word]):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.S)
        if not pattern.search(page):
            raise ValueError(f"docs/neurons/{word}.md has no part <!-- {name} --> ... <!-- end {name} -->.")
        page = pattern.sub(lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", page)
    return page


def main() -> None:
    """Write the pages, or compare them with the code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a page differs")
    check = parser.parse_args().check
    old = []
    for word in BUILT_IN:
        path = PAGES / f"{word}.md"
        page = path.read_text()
        new = written(word, page)
        old += [path.name] if new != page else []
        if not check:
            path.write_text(new)
    if check and old:
        sys.exit(f"{', '.join(old)}: older than the code; run python docs/neuron_pages.py")


def _of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _plain(text: str) -> str:
    """Lines of a docstring as one cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").rstrip(".")


def _mean(pairs: list[list[float]]) -> tuple[float, float]:
    return mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)


def _percent(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f} / {pair[1]:.1f}"


if __name__ == "__main__":
    main()
