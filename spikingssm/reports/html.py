"""``spikingssm report RUN... --html FILE``: runs as one HTML page that needs nothing else."""

import base64
import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from loguru import logger

from sdn import __version__
from sdn.runs.files import writing
from spikingssm.reports import html_tables
from spikingssm.reports.html_figures import colours, confusion, curves, sequence
from spikingssm.reports.html_opened import Opened, open_run
from spikingssm.reports.html_runs import Shown, collect

__all__ = ["OPENED", "check_place", "page", "write_page"]

PAGE = Path(__file__).parent / "page"
OPENED = 12
"""Networks that are opened unless another number is asked for."""
SMALL = 25
"""Classes up to which a confusion matrix is a table; a larger one is a picture."""
SECTIONS = (
    ("results", "Results"), ("chosen", "How chosen"), ("curves", "Curves"), ("rates", "Spike rates"),
    ("confusion", "Confusion"), ("inside", "One sequence"), ("fidelity", "Fidelity"), ("cards", "Cards"),
    ("differences", "Differences"),
)  # fmt: skip


def write_page(paths: Iterable[str | Path], file: str | Path, opened: int = OPENED) -> Path:
    """Show runs on one page: results, curves, spikes, mistakes, fidelity, and what differs between them.

    Args:
        paths: run folders and JSON files of results, as `spikingssm.reports.tables.report` takes them. Damaged ones
            stand on the page with the reason.
        file: is written whole or not at all; one that is there is replaced. Its folder is made.
        opened: the networks of the first so many runs are opened for what only they can tell. 0 opens none.

    Returns:
        the file.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: nothing to show, a file whose name does not end in .html, or one that stands in for a run.
        OSError: the file cannot be written.
    """
    places = [*map(Path, paths)]
    out = check_place(file, places)
    if opened < 0:
        raise ValueError(f"report: --open must be 0 or more networks, got {opened}.")
    text = page(collect(places), opened)
    with writing(out) as partial:
        partial.write_bytes(text.encode("utf-8", "replace"))
    logger.info(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, complete in itself; open it with a browser")
    return out


def check_place(file: str | Path, paths: Sequence[Path] = ()) -> Path:
    """Where a page may be written, asked before any time is spent.

    Raises:
        ValueError: the name does not end in .html or .htm, or is that of an input.
        IsADirectoryError: a folder.
    """
    out = Path(file)
    if out.is_dir():
        raise IsADirectoryError(f"--html {file}: is a folder; name a file in it, such as {out / 'report.html'}.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--html {file}: the name must end in .html, got {out.suffix or 'no ending'!r}.")
    if out.resolve() in [path.resolve() for path in paths]:
        raise ValueError(f"--html {file}: is one of the results to read; choose another file.")
    return out


def page(runs: Sequence[Shown], opened: int = OPENED) -> str:
    """The page of runs that `collect` gave, as text; ``opened`` as in `write_page`."""
    script, css = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((PAGE / "page.html").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    count = f"{len(runs)} runs" if len(runs) != 1 else runs[0].label
    return template.render(
        title=f"Results of {count}", made=time.strftime("%Y-%m-%d %H:%M"), version=__version__, sections=SECTIONS,
        script=script, css=css, digest=digest, missing=html_tables.MISSING, **_facts(runs, opened),
    ).lstrip()  # fmt: skip


def _facts(runs: Sequence[Shown], opened: int) -> dict[str, Any]:
    """What the template shows."""
    able = [run for run in runs if run.path.is_dir() and run.result is not None]
    asked = {run.label: _open(run) for run in able[:opened]}
    left = len(able) - len(asked)
    palette = colours(len(runs))
    return {
        "results": html_tables.results(runs),
        "beside": html_tables.beside(runs),
        "notes": html_tables.problems(runs),
        "chosen": html_tables.chosen(runs),
        "curves": curves(runs),
        "legend": [
            {"number": number, "colour": palette[number], "label": run.label}
            for number, run in enumerate(runs) if run.epochs
        ],
        "rates": html_tables.rates(runs),
        "confusions": _confusions(runs, asked),
        "inside": [_inside(number, label, found) for number, (label, found) in enumerate(asked.items())],
        "unopened": f"The networks of {left} more runs were not opened; --open {len(able)} opens all." if left else "",
        "fidelity": _fidelity(runs, asked),
        "cards": [found for run in runs if (found := html_tables.card(run)) is not None],
        "differences": html_tables.differences(runs),
        "commands": [{"label": run.label, "command": run.command} for run in runs],
    }  # fmt: skip


def _open(run: Shown) -> Opened:
    logger.info(f"{run.path}: opening the network")
    task = str(run.config.get("task._target_", ""))
    lacks = "Classification" in task and "by_class" not in run.test
    return open_run(run.path, classes=lacks)


def _inside(number: int, label: str, found: Opened) -> dict[str, Any]:
    pictures = [(layer.name, sequence(layer, f"inside{number}x{i}", label)) for i, layer in enumerate(found.layers)]
    return {"label": label, "problems": found.problems, "pictures": pictures}


def _confusions(runs: Sequence[Shown], asked: dict[str, Opened]) -> list[dict[str, Any]]:
    """The matrix of each run that has one: of its own test, or of the test just now."""
    found = []
    for number, run in enumerate(runs):
        matrix, how = html_tables.matrix(run.test.get("by_class")), ""
        if matrix is None and run.label in asked:
            matrix = html_tables.matrix(asked[run.label].by_class)
            how = f", tested again for this page on {asked[run.label].rows} rows"
        if matrix is not None:
            large = len(matrix.names) > SMALL
            picture = confusion(matrix, f"confusion{number}", run.label) if large else None
            found.append({"label": run.label, "how": how, "matrix": matrix, "picture": picture})
    return found


def _fidelity(runs: Sequence[Shown], asked: dict[str, Opened]) -> list[html_tables.Table]:
    """What the runs have measured, and what was measured just now."""
    rows: list[list[str | html_tables.Bar]] = []
    for label, found in asked.items():
        if found.agreement is not None:
            rows += html_tables.agreement(label, found.solver, found.agreement, found.rows)
    now = [html_tables.Table("Measured for this page", html_tables.AGREEMENT, rows)] if rows else []
    known = html_tables.swaps(runs)
    return [*([known] if known is not None else []), *now]
