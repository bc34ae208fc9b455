"""The configuration in a run folder: read without trusting it, and made to hold what the run needs."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdn import load_artifact
from sdn.files import writing

__all__ = ["keep_artifact", "stored"]

ARTIFACT = "artifact.safetensors"
PUBLIC = ("sdn", "spikingssm", "spikingssm.models", "spikingssm.layers", "spikingssm.datasets", "spikingssm.tasks")
TRUST = "SDN_TRUST_TARGETS"
SECTIONS = ("name", "seed", "data", "model", "task", "optim", "trainer", "resume", "run_dir", "threads")


def stored(run_dir: str | Path) -> DictConfig:
    """The configuration in a run folder.

    Raises:
        FileNotFoundError: no run there.
        ValueError: a file that cannot be read.
    """
    path = Path(run_dir) / "config.yaml"
    if (path.parent / "config.json").is_file():
        raise ValueError(f"{run_dir} is the run of an SDN; go on with `python train.py --resume {run_dir}`.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the folder of a run, such as runs/spikingssm-digits-0.")
    try:
        found = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{path}: not a readable configuration ({' '.join(str(error).split())}).") from None
    missing = [key for key in SECTIONS if not isinstance(found, DictConfig) or key not in found]
    sections = ("data", "model", "task", "optim", "trainer")
    missing = missing or [key for key in sections if not isinstance(found[key], DictConfig)]
    if missing:
        raise ValueError(f"{path}: not the configuration of a run of ours, {missing[0]!r} is missing or no mapping.")
    for target in _targets(OmegaConf.to_container(found)):
        if not _is_ours(target):
            raise ValueError(
                f"{path}: names {target!r}, which is not of this project; a run folder may not call other code. If it "
                f"is yours, set {TRUST}={target} in the environment."
            )
    copy = Path(run_dir) / ARTIFACT
    if copy.is_file() and isinstance(found.model.get("solver"), DictConfig):
        found.model.solver.artifact = str(copy)
    return found


def keep_artifact(config: DictConfig, folder: Path) -> None:
    """Copy the surrogate network that a configuration names into the run folder, and name the copy instead.

    Raises:
        FileNotFoundError, ValueError: no readable artifact there.
    """
    solver = config.model.get("solver")
    if not isinstance(solver, DictConfig) or solver.get("artifact") is None:
        return
    source, copy = Path(solver.artifact), folder / ARTIFACT
    load_artifact(source)
    if source.resolve() != copy.resolve():
        with writing(copy) as partial:
            partial.write_bytes(source.read_bytes())
    solver.artifact = str(copy)


def _targets(value: Any) -> Iterator[str]:
    """Every ``_target_`` below a value."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _targets(inner)


def _is_ours(target: str) -> bool:
    """Whether a dotted name is a public name of this project, or one that the user trusts."""
    if target in os.environ.get(TRUST, "").split(","):
        return True
    module, _, name = target.rpartition(".")
    public = module in PUBLIC and importlib.import_module(module)
    return bool(public) and name in public.__all__
