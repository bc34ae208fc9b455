"""What a page of results knows of each run before any network is opened: what its folder or its JSON file holds."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from sdn.runs.files import read_json
from sdn.runs.folder import read_metrics
from spikingssm.experiments.config import config_folder
from spikingssm.experiments.plain import read_yaml
from spikingssm.experiments.runfolder import FITTED
from spikingssm.experiments.unfinished import is_begun, unfinished
from spikingssm.reports.tables import alike, load_results

__all__ = ["Shown", "clean", "collect", "grouped", "published"]

SEED_ONLY = {"seed", "data.seed", "run_dir", "resume", *FITTED}
"""Keys of a configuration that may differ between seeds of one experiment; their beginnings count."""


@dataclass
class Shown:
    """One run, or one JSON file of results.

    Args:
        path: as it was given.
        label: a short name of its own on the page.
        result: its ``summary.json``, or None.
        cells: of the results table, for a run without a result.
        problem: why nothing of it can be read, "" if it can.
        epochs: rows of its ``metrics.csv``, by epoch.
        config: its configuration as ``section.key`` -> value, without the place of the run folder.
        command: that began it, "" where nobody kept it.
        card: what ``card.json`` holds, or None.
        swaps: results of ``study solver-swap``.
        notes: what could not be read of it, a line each.
    """

    path: Path
    label: str = ""
    result: dict[str, Any] | None = None
    cells: list[str] | None = None
    problem: str = ""
    epochs: list[dict[str, float]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    card: Any = None
    swaps: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def test(self) -> dict[str, Any]:
        """The test of its result, empty where there is none."""
        return self.result["test"] if self.result is not None else {}

    @property
    def seed(self) -> int:
        """Of its result, 0 where there is none."""
        return int(self.result["seed"]) if self.result is not None else 0


def collect(paths: Iterable[str | Path]) -> list[Shown]:
    """Look at run folders and JSON files of results, in the order given; a path that comes again is left out.

    What is damaged stands in `Shown.problem` or `Shown.notes`. Runs and results of SDNs, and folders without a run, are
    left out, which the log says.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: nothing to show; the reason of the first damaged one.
    """
    places = list(dict.fromkeys(map(Path, paths)))
    for path in places:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; give run folders, or JSON files of results.")
    found = [one for path in places if (one := _folder(path) if path.is_dir() else _file(path)) is not None]
    if not any(one.result or one.cells or one.swaps for one in found):
        damaged = next((one.problem for one in found if one.problem), "")
        raise ValueError(damaged or "report: no run of a network among these; give run folders or their summary.json.")
    _name(found)
    return found


def grouped(runs: Sequence[Shown]) -> list[list[Shown]]:
    """Runs with a result: those that differ in the seed only stand together, in the order of their seeds."""
    groups: dict[str, list[Shown]] = {}
    for run in runs:
        if run.result is not None:
            kept = {key: value for key, value in run.config.items() if not _of_the_seed(key)}
            key = json.dumps([alike(run.result), sorted(kept.items())], default=str)
            groups.setdefault(key, []).append(run)
    return [sorted(group, key=lambda run: run.seed) for group in groups.values()]


def published(command: str) -> str:
    """What the configuration of an experiment says of published results, in its own words; "" where it says nothing.

    Args:
        command: of a run, with ``experiment=NAME`` in it.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    names = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("experiment=")]
    if not names or not re.fullmatch(r"[\w-]+(/[\w-]+)*", names[-1], re.ASCII):
        return ""
    try:
        lines = (config_folder() / "experiment" / f"{names[-1]}.yaml").read_text().splitlines()
    except (OSError, ValueError):
        return ""
    said = [line.removeprefix("#").strip() for line in lines[:3] if line.startswith("#") and "@package" not in line]
    return clean(said[1]) if len(said) > 1 else ""


def clean(text: Any, most: int = 300) -> str:
    """A text of somebody else in one line that can be shown and written: nothing that is not printable."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text)[:most]).strip()


def _of_the_seed(key: str) -> bool:
    return any(f"{key}.".startswith(f"{known}.") for known in SEED_ONLY)


def _file(path: Path) -> Shown | None:
    """A JSON file; None for a result that the page does not show."""
    shown = Shown(path)
    try:
        [found] = load_results([path])
    except (ValueError, OSError) as error:
        shown.problem = clean(error)
        return shown
    if found.get("study") == "solver-swap":
        shown.swaps = [found]
    elif "test" in found:
        shown.result, shown.command = found, clean(found.get("command", ""), 4000)
    else:
        logger.warning(f"{path}: no run of a network, left out")
        return None
    return shown


def _folder(path: Path) -> Shown | None:
    """A run folder; None for one that the page does not show."""
    shown = Shown(path)
    if is_begun(path):
        shown.cells = unfinished(path)
        if shown.cells is None:
            return None
        shown.cells = [clean(cell.replace("**", "")) for cell in shown.cells]
    elif (path / "summary.json").is_file():
        try:
            [found] = load_results([path])
        except (ValueError, OSError) as error:
            shown.problem = clean(error)
            return shown
        if "test" not in found:
            logger.warning(f"{path}: no run of a network, left out")
            return None
        shown.result, shown.command = found, clean(found.get("command", ""), 4000)
    else:
        logger.warning(f"{path}: no run, left out")
        return None
    _read_more(shown)
    return shown


def _read_more(shown: Shown) -> None:
    """The files of a run folder beside its result; each may be missing or damaged."""
    path = shown.path
    try:
        shown.epochs = sorted(read_metrics(path / "metrics.csv"), key=lambda row: row["epoch"])
    except (ValueError, OSError) as error:
        shown.notes.append(clean(error))
    try:
        if (path / "config.yaml").is_file():
            shown.config = _flat(read_yaml(path / "config.yaml"))
            shown.command = shown.command or _first_line(path / "config.yaml")
    except (ValueError, OSError) as error:
        shown.notes.append(clean(f"{path / 'config.yaml'}: {error}"))
    try:
        if (path / "card.json").is_file():
            shown.card = read_json(path / "card.json")
    except (ValueError, OSError) as error:
        shown.notes.append(clean(f"{path / 'card.json'}: {error}"))
    try:
        if (path / "solver-swap.json").is_file():
            found = load_results([path / "solver-swap.json"])
            shown.swaps = [result for result in found if result.get("study") == "solver-swap"]
    except (ValueError, OSError) as error:
        shown.notes.append(clean(error))


def _first_line(path: Path) -> str:
    line = path.read_text(errors="replace").partition("\n")[0]
    return clean(line.removeprefix("# "), 4000) if line.startswith("# ") else ""


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """``section.key`` -> value; the run's own folder is cut off paths in it, so that two runs may be compared."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    folder = flat.get("run_dir") if not before else None
    if isinstance(folder, str) and folder:
        for key, value in flat.items():
            if isinstance(value, str) and key != "run_dir" and value.startswith(f"{folder}/"):
                flat[key] = value.removeprefix(f"{folder}/")
    return flat


def _name(runs: Sequence[Shown]) -> None:
    """Give each run a label of its own: the name of its folder or file, with the folder around it if need be."""
    whole = [run.path.resolve() for run in runs]
    names = [clean(path.name if path.is_dir() else path.stem, 80) or "run" for path in whole]
    taken: set[str] = set()
    for run, path, name in zip(runs, whole, names, strict=True):
        label = f"{clean(path.parent.name, 80)}/{name}" if names.count(name) > 1 else name
        number, run.label = 2, label
        while run.label in taken:
            run.label, number = f"{label} ({number})", number + 1
        taken.add(run.label)
