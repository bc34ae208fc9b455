"""`spikingssm configs FOLDER`: the configurations as files of one's own, to change and to add to."""

import shlex
import shutil
from pathlib import Path

from spikingssm.experiments.config import CONFIGS, config_folder

__all__ = ["copy_configs"]


def copy_configs(folder: str | Path) -> str:
    """Copy all configurations into a new folder, whole or not at all.

    Returns:
        a line that says how to use them from any folder.

    Raises:
        FileExistsError: the folder is there already.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.partial"
    try:
        shutil.copytree(config_folder(), partial, dirs_exist_ok=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{folder}: set {CONFIGS}={shlex.quote(str(folder.absolute()))} to use it"
