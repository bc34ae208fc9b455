"""A row of a report for a run that has no result: it diverged, was stopped, failed, was killed, or goes on."""

from pathlib import Path
from typing import Any

from loguru import logger

from sdn.runs.folder import read_metrics
from spikingssm.experiments.ending import state
from spikingssm.experiments.runfolder import stored

__all__ = ["is_begun", "unfinished"]


def is_begun(path: Path) -> bool:
    """Whether a path is the folder of a run, of a network or an SDN, that is not finished."""
    begun = any((path / name).is_file() for name in ("config.yaml", "config.json"))
    return begun and not (path / "summary.json").is_file()


def unfinished(folder: Path) -> list[str] | None:
    """The cells of the results table for such a folder; None for the run of an SDN, which the log says.

    Args:
        folder: see `is_begun`.
    """
    if not (folder / "config.yaml").is_file():
        logger.warning(f"{folder}: the run of an SDN that is not finished, left out")
        return None
    name, seed, most = _asked(folder)
    found = state(folder)
    said = f"**{found['how']}**" + (f": {found['reason']}" if found["reason"] else "")
    return [name, "", "", seed, f"{_epochs(folder)} of {most}", "", said, "", "", "", ""]


def _asked(folder: Path) -> tuple[str, str, str]:
    """Name, seed and epochs of a run; where its configuration cannot be read, the folder's name."""
    try:
        config: Any = stored(folder)
        name, seed, most = (str(value) for value in (config.name, config.seed, config.trainer.get("max_epochs")))
        second = (folder / "config.yaml").read_text().splitlines()[1]
    except (OSError, ValueError, IndexError):
        return folder.name, "?", "?"
    variant = second.removeprefix("# variant:").strip() if second.startswith("# variant:") else ""
    name = f"{name}, {variant}" if variant else name
    return "".join(c for c in name if c.isprintable())[:300], seed[:20], most[:20]


def _epochs(folder: Path) -> int:
    try:
        return len(read_metrics(folder / "metrics.csv"))
    except (OSError, ValueError):
        return 0
