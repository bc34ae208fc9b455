"""Networks that ship with the program, by their names."""

from pathlib import Path

import spikingssm

__all__ = ["folder_of", "shipped"]

FOLDER = Path(spikingssm.__file__).parent / "networks"


def shipped() -> list[str]:
    """The names of the networks that ship."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.yaml"))


def folder_of(run: str | Path) -> Path:
    """The folder of a run: the one that is named, or that of a network that ships, where no folder has its name.

    Raises:
        FileNotFoundError: neither; it lists what ships.
    """
    path = Path(run)
    if path.is_dir():
        return path
    if str(run) in shipped():
        return FOLDER / str(run)
    raise FileNotFoundError(f"{run}: no such run folder; the networks that ship are {', '.join(shipped()) or 'none'}.")
