"""The configuration in a run folder: read without trusting it, and made to hold what the run needs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdn import Neuron, SpikingLayer, Surrogate
from sdn.runs.folder import load_checkpoint
from sdn.solvers import as_solver
from sdn.surrogate.artifact import copy_artifact
from spikingssm.experiments.builders import MODELS, TRUST, refused_target
from spikingssm.experiments.plain import read_yaml

__all__ = [
    "ARTIFACT",
    "FITTED",
    "WEIGHTS",
    "best_of",
    "check_sizes",
    "content_of",
    "keep_artifact",
    "keep_fitted",
    "same_solver",
    "solver_name",
    "start_from",
    "stored",
]

ARTIFACT = "artifact.safetensors"
WEIGHTS = "model.safetensors"
"""The weights of a run in a folder for a model hub, which has no checkpoint."""
SECTIONS = ("name", "seed", "data", "model", "task", "optim", "trainer", "resume", "run_dir", "threads")
BUILT = ("data", "model", "task")
FITTED = ("data.scaling", "data.vocabulary", "data.classes", "data.samples", "data.hertz", "data.target_scaling")
"""Keys that a run fills in where they are null: what its training rows gave."""
FLOOR, LAYERS = 4096, 64
"""Integers and layers that may be asked for whatever the weights are: without memory they are compared in no time."""
SWEEPS = 2**16
"""Rounds of a solver."""
PROCESSES = {"data.num_workers": 256, "trainer.devices": 256, "trainer.num_nodes": 4096, "threads": 4096}
"""What starts processes or threads, and the most of them that a run folder may ask for."""


def stored(run_dir: str | Path) -> DictConfig:
    """The configuration in a run folder, as plain values that name builders only.

    Raises:
        FileNotFoundError: no run there.
        ValueError: a file that cannot be read, or one that says more than a configuration of ours.
    """
    path = Path(run_dir) / "config.yaml"
    if (path.parent / "config.json").is_file() and not path.is_file():
        raise ValueError(f"{run_dir} is the run of an SDN; go on with `python train.py --resume {run_dir}`.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the folder of a run, such as runs/spikingssm-digits-0.")
    try:
        found = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{path}: not a readable configuration ({error}).") from None
    if (problem := _problem(found)) is not None:
        raise ValueError(f"{path}: {problem}.")
    if (target := refused_target(found)) is not None:
        raise ValueError(
            f"{path}: names {target!r}, which is not of this project's builders; a run folder may not call other code. "
            f"If it is yours, set {TRUST}={' '.join(target.split())} in the environment."
        )
    copy, solver = Path(run_dir) / ARTIFACT, found["model"].get("solver")
    if copy.is_file() and isinstance(solver, dict):
        solver["artifact"] = str(copy)
    return OmegaConf.create(found)


def _problem(found: dict[str, Any]) -> str | None:
    """What is wrong with the form of a configuration, or None."""
    mappings = (*BUILT, "optim", "trainer")
    missing = [key for key in SECTIONS if key not in found] or [k for k in mappings if not isinstance(found[k], dict)]
    if missing:
        return f"not the configuration of a run of ours, {missing[0]!r} is missing or no mapping"
    for section in ("checkpoint", "early_stop", "dead_neurons", "logger"):
        if not isinstance(found.get(section), dict | None):
            return f"{section} is {str(found[section])[:40]!r}, it must be a mapping"
    if unnamed := [section for section in BUILT if "_target_" not in found[section]]:
        return f"{unnamed[0]} has no _target_, which names what builds it"
    if not isinstance(found["name"], str) or not isinstance(found["run_dir"], str):
        return "name and run_dir must be text"
    for key, most in PROCESSES.items():
        section, _, name = key.rpartition(".")
        value = (found[section] if section else found).get(name)
        if isinstance(value, int) and value > most:
            return f"{key} is {value}, a run folder may ask for at most {most}"
    return None


def check_sizes(path: str | Path, config: DictConfig, weights: Any) -> bool:
    """Refuse sizes of a model that its stored weights cannot have, before memory is taken for them.

    Args:
        path: of the weights, for errors.
        config: of the run.
        weights: name -> tensor; anything else has no sizes.

    Returns:
        whether the model is one of ours, which can be built on the meta device first.

    Raises:
        ValueError: a number of layers above that of the tensors, or another integer above that of the numbers in them.
    """
    section: Any = OmegaConf.to_container(config.model)
    if section.get("_target_") not in MODELS:
        return False
    tensors = [v for v in weights.values() if isinstance(v, Tensor)] if isinstance(weights, Mapping) else []
    numbers = max(FLOOR, sum(math.prod(tensor.shape) for tensor in tensors))
    for where, value in _integers(section, "model"):
        layers = where == "model.n_layers" or where.endswith("#")
        most = SWEEPS if where.startswith("model.solver") else max(LAYERS, len(tensors)) if layers else numbers
        if value > most:
            what = "rounds" if most == SWEEPS else f"tensors of {path}" if layers else f"numbers of {path}"
            raise ValueError(f"{where.rstrip('#')} is {value}, more than the {most} {what}; give the whole run folder.")
    return True


def _integers(value: Any, where: str) -> Iterator[tuple[str, int]]:
    """Every integer below a value with its place, and the length of each list with its place and #."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _integers(inner, f"{where}.{name}")
    elif isinstance(value, list):
        yield f"{where}#", len(value)
        for inner in value:
            yield from _integers(inner, where)
    elif isinstance(value, int):
        yield where, value


def best_of(run_dir: str | Path) -> Path:
    """The file with the best weights of a run: its checkpoint, or ``model.safetensors`` of a folder from a hub."""
    checkpoint, alone = Path(run_dir) / "checkpoints" / "best.ckpt", Path(run_dir) / WEIGHTS
    return alone if alone.is_file() and not checkpoint.is_file() else checkpoint


def content_of(path: str | Path) -> dict[str, Any]:
    """What a file of weights holds, as `load_checkpoint` gives it; one of safetensors has weights alone.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`.
    """
    if Path(path).suffix != ".safetensors":
        return load_checkpoint(path)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable file of safetensors ({error}); fetch it again.") from None
    return {"state_dict": {f"model.{name}": value for name, value in weights.items()}}


def start_from(config: DictConfig) -> Path:
    """The checkpoint that ``weights`` names; what its run found in its data goes on to data of the same kind.

    Args:
        config: of the new run; the keys of `FITTED` that are null there are filled in.

    Raises:
        FileNotFoundError: no such run or checkpoint.
        ValueError: a configuration there that cannot be read.
    """
    path = Path(str(config.weights))
    if path.is_dir():
        known = stored(path)
        for key in FITTED if known.data._target_ == config.data._target_ else ():
            if (value := OmegaConf.select(known, key)) is not None and OmegaConf.select(config, key) is None:
                OmegaConf.update(config, key, value, force_add=True)
        path = best_of(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={config.weights}: no {path}; give the folder of a trained run, or a .ckpt of one."
        )
    return path


def keep_fitted(config: DictConfig, fitted: Mapping[str, Any]) -> None:
    """Put what was found by looking at the training rows, such as the scale of the input, into the configuration.

    The run is then tested with the same on other data, at another rate and on a part of the rows.

    Args:
        config: of the run; changed.
        fitted: of `SequenceData`.
    """
    for key, value in fitted.items():
        OmegaConf.update(config, f"data.{key}", value, force_add=True)


def solver_name(neuron: SpikingLayer) -> str:
    """The solver of a neuron, as results name it: a surrogate with its artifact, the shipped one too."""
    solver = neuron.solver
    if isinstance(neuron, Neuron) and isinstance(solver, Surrogate):
        return str(replace(solver, artifact=solver.stands_for(neuron.dynamics)[1]))
    return str(solver)


def same_solver(run_dir: str | Path, known: Any, asked: Any) -> bool:
    """Whether a command line asks for the surrogate that a run has kept, see `keep_artifact`.

    Args:
        run_dir: of the run.
        known: ``model.solver`` in its folder.
        asked: the same of the command line: a word, or a mapping that names `sdn.Surrogate`.
    """
    copy = Path(run_dir) / ARTIFACT
    if not isinstance(known, Mapping) or known.get("_target_") != "sdn.Surrogate" or not copy.is_file():
        return False
    options = {field.name: field.default for field in fields(Surrogate) if field.init}
    if isinstance(asked, str):
        if not isinstance(as_solver(asked), Surrogate):
            return False
        wanted: dict[str, Any] = options
    elif isinstance(asked, Mapping) and asked.get("_target_") == "sdn.Surrogate":
        wanted = {**options, **{str(key): value for key, value in asked.items() if key != "_target_"}}
    else:
        return False
    if any(wanted[name] != known.get(name, options[name]) for name in options if name != "artifact"):
        return False
    path = wanted["artifact"]
    return path is None or (Path(path).is_file() and Path(path).read_bytes() == copy.read_bytes())


def keep_artifact(config: DictConfig, model: nn.Module, folder: Path) -> None:
    """Write the surrogate network that a model holds, a shipped one too, into its run folder, and name that one."""
    for part in model.modules():
        if isinstance(part, Neuron) and isinstance(part.solver, Surrogate):
            copy, artifact = folder / ARTIFACT, part.solver.stands_for(part.dynamics)[1]
            if artifact.path is None or artifact.path.resolve() != copy.resolve():
                copy_artifact(copy, artifact)
            options = {field.name: getattr(part.solver, field.name) for field in fields(part.solver) if field.init}
            named = {"_target_": "sdn.Surrogate", **options, "artifact": str(copy)}
            if "solver" in config.model or config.model._target_ in MODELS:
                OmegaConf.update(config, "model.solver", named, merge=False)
            return
