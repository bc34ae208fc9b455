"""Find the run of an SDN that was finished last."""

import os
from pathlib import Path

from sdn.runs.files import read_json

__all__ = ["newest_run"]

PLACES = ("*", "*/*")
"""Where runs lie below the working folder: exp, demo/sdn, runs/NAME."""


def newest_run(root: str | Path = ".", variable: str = "SDN_RUN") -> Path:
    """The run folder of the SDN whose training ended last, by the time of its ``summary.json``.

    Args:
        root: the folder to look in, two levels deep.
        variable: of the environment; where it is set, it names the folder instead.

    Returns:
        the folder. One line on standard output says which one it is and how to choose another.

    Raises:
        FileNotFoundError: no finished run, or the named folder holds no checkpoint.
    """
    if named := os.environ.get(variable):
        if not _best(Path(named)).is_file():
            raise FileNotFoundError(f"{variable}={named}: no {_best(Path(named))}; name the folder of a trained SDN.")
        print(f"run: {named}, named by {variable}")
        return Path(named)
    ended = {path.parent: path.stat().st_mtime for place in PLACES for path in Path(root).glob(f"{place}/summary.json")}
    for folder in sorted(ended, key=lambda folder: (-ended[folder], str(folder))):
        if _best(folder).is_file() and _is_sdn(folder / "summary.json"):
            print(f"run: {folder}, finished last of those here; set {variable}=FOLDER to take another one")
            return folder
    raise FileNotFoundError(
        f"no finished run of an SDN in {Path(root).resolve()}; train one with `sdn train --save exp`, or set "
        f"{variable}=FOLDER."
    )


def _best(folder: Path) -> Path:
    return folder / "checkpoints" / "best.ckpt"


def _is_sdn(path: Path) -> bool:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"dynamics", "metrics"} <= set(found)
