"""Configurations out of ``configs/`` and overrides: with `launch` and `overrides` all that knows Hydra."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import spikingssm
from sdn.checks.arguments import ArgumentError
from sdn.runs.cli import shortened
from sdn.runs.shortage import shortage
from spikingssm.experiments.ending import quoted
from spikingssm.experiments.overrides import check_key, one_line, parse
from spikingssm.experiments.plain import leaves
from spikingssm.experiments.runfolder import FITTED, same_solver, stored
from spikingssm.experiments.targets import takes

__all__ = ["AUTO", "MOVABLE", "call", "config_folder", "has_recipes", "load", "load_config"]

AUTO = "auto"
"""Value of ``resume`` that goes on with what is there in the run folder, and starts where nothing is."""

MOVABLE = (
    "data.root", "data.path", "data.test_path", "data.num_workers", "threads", "trainer.enable_progress_bar",
    "checkpoint.every_n_steps", "checkpoint.every_minutes", "logger.wandb",
)  # fmt: skip
"""Keys that may change on resume: where things lie and how fast they go, not what comes out."""
CONFIGS = "SPIKINGSSM_CONFIGS"
"""Variable of the environment that names a folder of configurations of one's own."""
UNNAMED = "unnamed"
"""Name of a run in ``configs/config.yaml``; data of one's own give theirs."""
WRONG = (TypeError, ArithmeticError, RuntimeError, LookupError, AttributeError, MemoryError)
"""What builders raise for arguments of another kind or size than they take."""


def load(overrides: Sequence[str]) -> DictConfig:
    """`load_config` under its older name; a trained network is opened by `spikingssm.load_model`."""
    return load_config(overrides)


def load_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration that overrides of ``configs/config.yaml`` give; with ``resume=FOLDER`` that of the run there.

    ``resume=auto`` is ``resume=`` of the run folder where that holds a run to go on with, and nothing elsewhere.

    Args:
        overrides: in Hydra's grammar: ``experiment=spikingssm/digits``, ``+tier=smoke``, ``model.d_model=64``.

    Raises:
        ValueError: what Hydra cannot read, an unknown key or file, or overrides that a resumed run does not have.
        FileNotFoundError: no ``configs`` folder, or no run to resume.
    """
    if isinstance(overrides, str):
        raise ArgumentError(
            f"load_config takes a list of overrides, such as ['experiment=spikingssm/digits'], got the text "
            f"{overrides!r}; a trained network is opened by spikingssm.load_model({overrides!r})."
        )
    parsed = parse(overrides)
    runs = [o.value() for o in parsed if o.key_or_group == "resume"]
    if len(runs) > 1:
        raise ValueError(f"resume= is given {len(runs)} times, {' and '.join(map(str, runs))}; name one run.")
    run = runs[0] if runs else None
    if run is None:
        return _compose(parsed)
    run = str(run)  # a folder may have a number for its name
    if run == AUTO:
        return _begun_or_new([o for o in parsed if o.key_or_group != "resume"])
    found = stored(run)
    moved = [o for o in parsed if o.key_or_group in MOVABLE or _is_longer(found, o)]
    for override in moved:
        check_key(found, override, _nulls(config_folder()))
        OmegaConf.update(found, override.key_or_group, override.value(), force_add=True)
    asked = _compose([o for o in parsed if o not in moved])
    changed = [o.key_or_group for o in parsed if o.key_or_group != "resume" and o not in moved]
    old, new = (leaves(OmegaConf.to_container(config, resolve=True)) for config in (found, asked))
    old.setdefault("trainer.num_nodes", 1)  # an older run does not say it
    keys = [k for k in old | new if k not in ("resume", "run_dir", *(o.key_or_group for o in moved))]
    if not any(_is_group(config_folder(), key) for key in changed):
        keys = [k for k in keys if any(f"{k}.".startswith(f"{key}.") for key in changed)]
    filled = [key for key in FITTED if OmegaConf.select(asked, key) is None]
    keys = [k for k in keys if not any(f"{k}.".startswith(f"{key}.") for key in filled)]
    keys = [k for k in keys if k != "name" or asked.name != UNNAMED]  # it follows from data.path, which may move
    if same_solver(run, found.model.get("solver"), asked.model.get("solver")):
        keys = [k for k in keys if not k.startswith("model.solver")]
    if differ := [k for k in keys if old.get(k) != new.get(k)]:
        first = f"{differ[0]}={old.get(differ[0])}, not {new.get(differ[0])}"
        more = f" (and {len(differ) - 1} more keys differ)" if len(differ) > 1 else ""
        raise ValueError(
            f"the run in resume={asked.resume} has {first}{more}; a resumed run keeps its configuration but for more "
            "trainer.max_epochs: leave the overrides out, or train a new run from its weights: the command of that run "
            f"with the new values and weights={quoted(run)} in place of resume=."
        )
    found.resume = str(asked.resume)
    return found


def _begun_or_new(parsed: list[Override]) -> DictConfig:
    """The configuration to go on with where the run folder holds a run that can, else that of a new run."""
    config = _compose(parsed)
    folder = Path(str(config.run_dir))
    there = any((folder / name).is_file() for name in ("summary.json", "checkpoints/last.ckpt"))
    if not (there and (folder / "config.yaml").is_file()):
        return config
    return load_config([*(o.input_line or "" for o in parsed), f"resume={quoted(folder)}"])


def _is_longer(found: DictConfig, override: Override) -> bool:
    """Whether an override asks a run for more epochs than it has."""
    known, value = found.trainer.get("max_epochs"), override.value() if not override.is_delete() else None
    is_key = override.key_or_group == "trainer.max_epochs"
    return is_key and isinstance(value, int) and isinstance(known, int) and value > known


def call(section: str, node: DictConfig, **known: Any) -> Any:
    """Call the ``_target_`` of a section with its keys; errors of the user come out as they were raised.

    Args:
        section: its name, for errors.
        node: with ``_target_``, and arguments that may have their own.
        known: further arguments.

    Raises:
        ValueError: an unknown argument or target, or one of another kind; else whatever the target raises.
    """
    if not node.get("_target_"):
        raise ValueError(f"{section}: has no _target_, which names what builds it.")
    try:
        return instantiate(node, _convert_="all", **known)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ArgumentError):
            raise ValueError(shortened(f"{section}: {cause}")) from cause
        if isinstance(cause, (ValueError, OSError, NotImplementedError)):
            if type(cause) is ValueError:
                cause.args = (shortened(str(cause)),)
            raise cause from None
        if cause is not None and (short := shortage(cause)) is not None:
            raise ValueError(f"{section}: {short}; its keys are the arguments of {node._target_}.") from cause
        if isinstance(cause, WRONG):
            raise ValueError(f"{section}: {one_line(cause)}; its keys are the arguments of {node._target_}.") from cause
        if "Error locating target" in str(error) or isinstance(cause, ImportError):
            raise ValueError(f"{section}: {one_line(cause or error)}") from cause
        raise


def _compose(parsed: list[Override]) -> DictConfig:
    folder = config_folder()
    groups = [o for o in parsed if _is_group(folder, o.key_or_group)]
    for override in groups:
        _check_file(folder, override.key_or_group, override.value())
        if override.is_delete() and override.key_or_group in ("experiment", "model", "recipe", "tier"):
            raise ValueError(f"{override.input_line} takes away what others go by; choose another, or leave it out.")
    chosen = {o.key_or_group: o.value() for o in groups}
    if chosen.get("recipe") is not None and chosen.get("experiment") is not None:
        raise ValueError(
            f"recipe={chosen['recipe']} is for data of your own and experiment={chosen['experiment']} has its data; "
            "choose one of them."
        )
    recipes, model = _recipes(chosen.get("experiment")), chosen.get("model")
    if recipes and model is not None and model not in recipes:
        raise ValueError(
            f"experiment={chosen['experiment']} has no recipe for model={model}; there are {', '.join(recipes)}."
        )
    base = _hydra(folder, groups)
    for override in parsed:
        if override not in groups:
            check_key(base, override, _nulls(folder))
    config = _hydra(folder, parsed)
    _check_taken(folder, config, parsed)
    for override in parsed:  # a new target takes the place of the old one; its arguments are not those of the new
        value = None if override.is_sweep_override() or override.is_delete() else override.value()
        if isinstance(value, dict) and "_target_" in value:
            OmegaConf.update(config, override.key_or_group, value, merge=False, force_add=True)
    _drop_arguments(config, parsed)
    path = config.data.get("path")
    if path is not None and config.name == UNNAMED and "name" not in chosen:
        config.name = "-".join([Path(str(path)).stem, *([str(chosen["recipe"])] if chosen.get("recipe") else [])])
    return config


def _drop_arguments(config: DictConfig, parsed: list[Override]) -> None:
    """Leave out what only the task took whose place ``task._target_=NAME`` has taken; what was asked for stays."""
    asked = {o.key_or_group for o in parsed}
    if "task._target_" not in asked:
        return
    for key in [key for key in config.task if key != "_target_" and f"task.{key}" not in asked]:
        try:
            is_taken = takes(config.task, str(key))
        except Exception:  # a target that is not there, of which what builds it speaks
            return
        if not is_taken:
            with open_dict(config.task):
                del config.task[key]


def _check_taken(folder: Path, config: DictConfig, parsed: list[Override]) -> None:
    """Refuse keys of an experiment or a tier that the data set, model or task chosen in its place does not take."""
    chosen = {o.key_or_group: o.value() for o in parsed}
    added = {o.key_or_group for o in parsed if o.is_add()}
    for group, section in (("dataset", "data"), ("model", "model"), ("task", "task")):
        if "experiment" not in chosen or not isinstance(chosen.get(group), str):
            continue
        own = _hydra(folder, [o for o in parsed if o.key_or_group == group])[section]
        foreign = [key for key in config[section] if key not in own and f"{section}.{key}" not in added]
        if foreign and config[section].get("_target_") == own.get("_target_"):
            keys, drop = (
                ", ".join(f"{section}.{key}" for key in foreign),
                " ".join(f"'~{section}.{k}'" for k in foreign),
            )
            asked = f"experiment={chosen['experiment']}{' +tier=' + str(chosen['tier']) if 'tier' in chosen else ''}"
            what = "it" if len(foreign) == 1 else "them"
            raise ValueError(
                f"{asked} sets {keys}, which {group}={chosen[group]} does not take; drop {what} with {drop}."
            )


def _recipes(experiment: Any) -> list[str]:
    """The networks that an experiment has a recipe for, where it is for several (``configs/tables/network.yaml``)."""
    rows = (row.rpartition("/") for row in _tables(config_folder())["network"])
    return sorted(model for name, _, model in rows if name == experiment)


def has_recipes(experiment: Any) -> bool:
    """Whether an experiment has a recipe for each of several models."""
    return bool(_recipes(experiment))


@cache
def _tables(folder: Path) -> dict[str, list[str]]:
    """Tell Hydra of ``configs/tables``: a file is a group and each of its keys an option.

    Returns:
        group -> its options.
    """
    tables = {}
    for path in sorted((folder / "tables").glob("*.yaml")):
        table: Any = OmegaConf.load(path)
        for key in table:
            group, _, option = f"{path.stem}/{key}".rpartition("/")
            ConfigStore.instance().store(option, table[key], group, package="_global_")
        tables[path.stem] = list(map(str, table))
    return tables


@cache
def _nulls(folder: Path) -> set[str]:
    """The keys that are null in ``configs/config.yaml``, and may be it where an experiment or a tier sets them."""
    content = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    return {key for key, value in leaves(content).items() if value is None}


def _hydra(folder: Path, parsed: list[Override]) -> DictConfig:
    lines = [re.sub(r"^\+(tier|recipe)=", r"\1=", o.input_line or "") for o in parsed]  # config.yaml has both: no +
    try:
        _tables(folder)
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            return compose("config", lines)
    except (HydraException, OmegaConfBaseException, YAMLError, RecursionError, ValueError) as error:
        raise ValueError(shortened(one_line(error))) from None


def config_folder() -> Path:
    """The folder that ``SPIKINGSSM_CONFIGS`` names, else that of the package, else that of the checkout.

    In the variable ~ is the home folder.

    Raises:
        FileNotFoundError: none of them has a ``config.yaml``.
    """
    if named := os.environ.get(CONFIGS):
        folder = Path(os.path.expanduser(named))  # noqa: PTH111 - leaves ~ of nobody as it is
        if not (folder / "config.yaml").is_file():
            raise FileNotFoundError(
                f"{CONFIGS}={named}: no config.yaml there; `spikingssm configs FOLDER` writes a folder to start from."
            )
        return folder
    places = [Path(spikingssm.__file__).with_name("configs"), Path(spikingssm.__file__).parents[1] / "configs"]
    for folder in places:
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no config.yaml in {places[0]} or {places[1]}; install the package anew, or set {CONFIGS}=FOLDER."
    )


def _is_group(folder: Path, key: str) -> bool:
    """Whether a key is that of a folder of ``configs``, such as dataset, or of a file of ``configs/tables``."""
    named = re.fullmatch(r"[\w-]+(/[\w-]+)*", key) is not None and len(key) < 200 and key != "tables"
    return key in _tables(folder) or (named and (folder / key).is_dir())


def _check_file(folder: Path, group: str, value: Any) -> None:
    found = (str(p.relative_to(folder / group).with_suffix("")) for p in (folder / group).rglob("*.yaml"))
    there = sorted(_tables(folder).get(group) or found)
    if value is not None and value not in there:
        raise ValueError(f"no {group} is named {value!r}; there are: {', '.join(there)}.")
