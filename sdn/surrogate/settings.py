"""The flags of `python train.py --save exp`, and the settings that they come to."""

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from loguru import logger

from sdn.dynamics.lif import LIF
from sdn.runs.files import read_json
from sdn.surrogate.own_neurons import FLAG
from sdn.surrogate.recipe import Recipe
from sdn.surrogate.seam_training import SeamRecipe
from sdn.surrogate.trajectory_files import TrajectoryFile

__all__ = [
    "PUBLISHED_NAME", "RECIPES", "SEAM_SIZES", "SIZES", "SPLITS", "completed", "default_files", "parser", "read_config",
    "settings_of",
]  # fmt: skip

PUBLISHED_NAME = "{}-mem-T1024-N(0.0,1.0)-50000-tau_0.2.pt"
SPLITS = ("training", "test")
SIZES = {"d_model": 8, "kernel_size": 8, "n_layers": 1}
SEAM_SIZES = {"hidden": 6, "chunk": 32}
KINDS = ("pointwise", "seams")
RECIPES: dict[str, Any] = {"pointwise": Recipe, "seams": SeamRecipe}
PRESETS = ("best", "published")
POINTWISE_DECAY = 0.2
"""Up to this decay a LIF forgets within the window of a pointwise network."""


HELP = {
    "epochs": "validations and checkpoints", "steps_per_epoch": "optimiser steps between them",
    "batch_size": "crops in a minibatch", "crop": "predicted steps in a crop", "lr": "peak learning rate",
    "loss": "between predicted and exact membrane", "optimizer": "which one", "weight_decay": "of AdamW",
    "members": "networks trained side by side; the worse half is dropped at 40, 60 and 75 %%",
    "ema": "running average of the weights", "init": "random weights, or those written down for a lif",
    "norms": "frozen at the scale of the data, or live batch statistics",
    "seed": "of the weights and of the order of the data", "rows": "of the training file that are learned from",
}  # fmt: skip


def parser(program: str = "train.py") -> argparse.ArgumentParser:
    """The flags; the published ones keep their names and meaning. None means: the recipe's, or the resumed run's."""
    p = argparse.ArgumentParser(
        prog=program,
        description="Train a surrogate dynamic network: python train.py --save exp, or sdn train --save exp",
        epilog="A network is trained by python train.py experiment=spikingssm/digits, or spikingssm train "
        "experiment=spikingssm/digits. --cfg job behind it shows every key.",
    )
    p.add_argument(
        FLAG, metavar="FILE.py", help="a file that defines neurons of your own, whose trajectories these are"
    )
    place = p.add_mutually_exclusive_group()
    place.add_argument("-s", "--save", type=Path, help="run folder to write (default exp)")
    place.add_argument("-r", "--resume", type=Path, help="run folder to go on with, under its own settings")
    p.add_argument("--training", type=Path, help=f"default dataset/{PUBLISHED_NAME.format('training')}")
    p.add_argument("--test", type=Path, help=f"default dataset/{PUBLISHED_NAME.format('test')}")
    p.add_argument("--kind", choices=KINDS, help="of the network: the membrane at every step, or the state at seams "
                   f"(default pointwise for lif up to a decay of {POINTWISE_DECAY}, else seams)")  # fmt: skip
    p.add_argument("--preset", choices=PRESETS, help="where the settings start from (default best)")
    p.add_argument("--force", action="store_true", help="with --save: replace the run that is there")
    p.add_argument("--num_workers", type=int, default=0, help="processes that cut crops (default 0)")
    p.add_argument("--threads", type=int, default=1, help="compute threads (default 1: the tensors are small)")
    p.add_argument("--d_model", type=int, help="channels (default 8)")
    p.add_argument("-k", "--kernel_size", type=int, help="taps (default 8)")
    p.add_argument("--n_layers", type=int, help="layers (default 1)")
    p.add_argument("--hidden", type=int, help="seams: units of both inner layers (default 6)")
    p.add_argument("--chunk", type=int, help="seams: steps between two seams (default 32)")
    known = {field.name: field for recipe in (SeamRecipe, Recipe) for field in fields(recipe)}
    for field in known.values():
        kind: Any = type(field.default)
        choices = get_args(field.type) or None
        p.add_argument(
            f"--{field.name}", type=kind, choices=choices, help=f"{HELP[field.name]} ({_default(field.name)})"
        )
    return p


def _default(name: str) -> str:
    values = {kind: f.default for kind, recipe in RECIPES.items() for f in fields(recipe) if f.name == name}
    if len(values) == 1:
        kind, value = next(iter(values.items()))
        return f"{kind} only; default {value}"
    return f"default {values['pointwise']}, seams {values['seams']}"


def names_of(kind: str) -> dict[str, Any]:
    """The settings that belong to a kind of network, with their defaults; None where the recipe has one."""
    sizes = {"preset": "best", **SIZES} if kind == "pointwise" else SEAM_SIZES
    return {**dict.fromkeys(field.name for field in fields(RECIPES[kind])), **sizes}


def kind_of(file: TrajectoryFile) -> str:
    """The kind of network that suits the neuron of a file."""
    dynamics = file.dynamics
    if not isinstance(dynamics, LIF) or file.values or dynamics.reset != "hard":
        return "seams"
    return "pointwise" if float(dynamics.decay) <= POINTWISE_DECAY else "seams"


def completed(settings: dict[str, Any], file: TrajectoryFile) -> dict[str, Any]:
    """The settings with a kind, its sizes, and none that belong to the other kind.

    Raises:
        ValueError: a setting of the other kind.
    """
    kind = settings.get("kind") or kind_of(file)
    known = names_of(kind)
    given = {name for name in settings if name not in (*SPLITS, "data", "kind")}
    if foreign := sorted(given - {*known}):
        other = next(each for each in KINDS if each != kind)
        raise ValueError(
            f"--{foreign[0]} belongs to a {other} network, this one is {kind}; leave it out, or --kind {other}."
        )
    default = {name: value for name, value in known.items() if value is not None}
    return {"kind": kind} | default | {name: value for name, value in settings.items() if name != "kind"}


def settings_of(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The run folder and the settings: new ones from the flags, or those that the resumed run was started with."""
    names = [*SPLITS, "kind", *dict.fromkeys(name for kind in KINDS for name in names_of(kind))]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given |= {name: os.path.realpath(given[name]) for name in SPLITS if name in given}
    if args.resume is None:
        if len(alone := [s for s in SPLITS if s in given]) == 1:
            raise ValueError(f"--{alone[0]} needs --{'test' if alone == ['training'] else 'training'} beside it.")
        default = {} if set(SPLITS) <= set(given) else default_files("dataset")
        return args.save or Path("exp"), default | given
    if args.force:
        raise ValueError("--force goes with --save; --resume never replaces anything.")
    settings = read_config(args.resume / "config.json")
    moved = {name: given.pop(name) for name in SPLITS if name in given}  # files may move; what is in them may not
    if changed := {k: (settings.get(k), v) for k, v in given.items() if settings.get(k) != v}:
        shown = ", ".join(f"--{k} {now} (the run has {then})" for k, (then, now) in changed.items())
        raise ValueError(
            f"--resume goes on under the run's own settings; {shown} would change them. Use --save instead."
        )
    return args.resume, settings | moved


def default_files(folder: str | Path) -> dict[str, str]:
    """The published files; where there are none, the only pair of files in the folder."""
    folder = Path(folder)
    files = {split: folder / PUBLISHED_NAME.format(split) for split in SPLITS}
    if not any(path.is_file() for path in files.values()):
        found = {split: sorted(folder.glob(f"{split}-*.pt")) for split in SPLITS}
        numbers = [len(found[split]) for split in SPLITS]
        if numbers == [1, 1]:
            files = {split: found[split][0] for split in SPLITS}
            logger.info(f"{folder} holds one pair of files: " + ", ".join(path.name for path in files.values()))
        elif 0 in numbers and any(numbers):
            there, missing = SPLITS if numbers[0] else SPLITS[::-1]
            raise FileNotFoundError(
                f"{folder} holds {found[there][0].name} and no {missing} file; write one with `python generate.py "
                f"{folder} -n {missing}` and the flags of the other."
            )
        elif any(numbers):
            raise FileNotFoundError(
                f"{folder} holds {numbers[0]} training and {numbers[1]} test files; choose by --training and --test."
            )
    return {split: os.path.realpath(path) for split, path in files.items()}


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run, with every key and type checked."""
    if (path.parent / "config.yaml").is_file():
        raise ValueError(f"{path.parent} is the run of a network; go on with `python train.py resume={path.parent}`.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --resume takes the run folder of `sdn train --save`.")
    again = "start the run again with --save"
    try:
        settings = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: not readable JSON ({error}); {again}.") from None
    kind = settings.get("kind", "pointwise") if isinstance(settings, dict) else "pointwise"  # older runs have none
    if kind not in KINDS:
        raise ValueError(f"{path}: kind must be one of {KINDS}, got {kind!r:.60}; {again}.")
    sizes = {name: type(value) for name, value in names_of(kind).items() if value is not None}
    needed: dict[str, type] = {**dict.fromkeys(SPLITS, str), "data": dict, **sizes}
    known = needed | {f.name: type(f.default) for f in fields(RECIPES[kind])} | {"kind": str}
    if not isinstance(settings, dict) or set(needed) - set(settings) or set(settings) - set(known):
        found = str(sorted(settings))[:200] if isinstance(settings, dict) else type(settings).__name__
        raise ValueError(f"{path}: needs the keys {sorted(needed)} and may have a recipe's, found {found}; {again}.")
    for key, value in settings.items():
        if type(value) is not known[key]:
            raise ValueError(f"{path}: {key} must be of type {known[key].__name__}, got {value!r:.60}; {again}.")
    if kind == "pointwise" and settings["preset"] not in PRESETS:
        raise ValueError(f"{path}: preset must be one of {PRESETS}, got {settings['preset']!r:.60}; {again}.")
    return {"kind": kind, **settings}
