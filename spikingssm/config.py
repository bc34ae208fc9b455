"""Configurations out of ``configs/`` and overrides: with `launch` the only file that knows Hydra."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import spikingssm
from sdn.arguments import ArgumentError
from sdn.door import shortened
from sdn.shortage import shortage
from spikingssm.ending import quoted
from spikingssm.runfolder import FITTED, stored

__all__ = ["MOVABLE", "call", "has_recipes", "load", "parse", "takes"]

NULLABLE = (
    "threads", "weights", "resume", "data.root", "data.path", "data.test_path", "data.name", "data.classes",
    "data.limit_train", "data.limit_eval", "data.rows", "data.steps", "data.distractors", "data.scaling",
    "data.leave_out", "data.vocabulary", "model.spike", "model.cutoffs", "model.first_discretisation",
    "model.refractory", "task.unlabelled_as", "optim.slow_lr", "optim.ema", "optim.tbptt",
    "checkpoint.every_n_steps", "checkpoint.every_minutes", "early_stop.patience", "logger.wandb",
    "trainer.gradient_clip_val",
)  # fmt: skip
"""Keys that may be null, whatever an experiment or a tier sets them to."""
MOVABLE = (
    "data.root", "data.path", "data.test_path", "data.num_workers", "threads", "trainer.enable_progress_bar",
    "checkpoint.every_n_steps", "checkpoint.every_minutes", "logger.wandb",
)  # fmt: skip
"""Keys that may change on resume: where things lie and how fast they go, not what comes out."""
FREE = ("trainer.devices",)
"""Keys whose values may be of several kinds: a number, a list, auto."""
LISTS = {"model.d_model": "spikingssm.models.RSNN"}
"""Keys that take a number or a list of such numbers, and the target that does."""
ALIASES = {f"experiment=spikingssm/{published}": f"experiment=spikingssm/{ours}" for published, ours in (
    ("minst", "mnist"), ("pminst", "pmnist"),
)}  # fmt: skip
"""The published spellings of two experiments."""


WRONG = (TypeError, ArithmeticError, RuntimeError, LookupError, AttributeError, MemoryError)
"""What builders raise for arguments of another kind or size than they take."""


def load(overrides: Sequence[str]) -> DictConfig:
    """The configuration that overrides of ``configs/config.yaml`` give; with ``resume=FOLDER`` that of the run there.

    Args:
        overrides: in Hydra's grammar: ``experiment=spikingssm/digits``, ``+tier=smoke``, ``model.d_model=64``.

    Raises:
        ValueError: what Hydra cannot read, an unknown key or file, or overrides that a resumed run does not have.
        FileNotFoundError: no ``configs`` folder, or no run to resume.
    """
    if isinstance(overrides, str):
        raise ArgumentError(
            f"load takes a list of overrides, such as ['experiment=spikingssm/digits'], got the text {overrides!r}; a "
            "finished run is opened by spikingssm.evaluation.load_run."
        )
    parsed = parse(overrides)
    run = next((o.value() for o in parsed if o.key_or_group == "resume"), None)
    if run is None:
        return _compose(parsed)
    found, moved = stored(run), [o for o in parsed if o.key_or_group in MOVABLE]
    for override in moved:
        _check_key(found, override)
        OmegaConf.update(found, override.key_or_group, override.value(), force_add=True)
    asked = _compose([o for o in parsed if o not in moved])
    changed = [o.key_or_group for o in parsed if o.key_or_group != "resume" and o not in moved]
    old, new = (_leaves(OmegaConf.to_container(config, resolve=True)) for config in (found, asked))
    keys = [k for k in old | new if k not in ("resume", "run_dir", *(o.key_or_group for o in moved))]
    if not any(_is_group(_folder(), key) for key in changed):
        keys = [k for k in keys if any(f"{k}.".startswith(f"{key}.") for key in changed)]
    keys = [k for k in keys if not (k in FITTED and new.get(k) is None)]
    if differ := [k for k in keys if old.get(k) != new.get(k)]:
        first = f"{differ[0]}={old.get(differ[0])}, not {new.get(differ[0])}"
        more = f" (and {len(differ) - 1} more keys differ)" if len(differ) > 1 else ""
        raise ValueError(
            f"the run in resume={asked.resume} has {first}{more}; a resumed run keeps its configuration: leave the "
            "overrides out, or train a new run from its weights: the command of that run with the new values and "
            f"weights={quoted(run)} in place of resume=."
        )
    found.resume = asked.resume
    return found


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
        if (short := shortage(cause)) is not None:
            raise ValueError(f"{section}: {short}; its keys are the arguments of {node._target_}.") from cause
        if isinstance(cause, WRONG):
            raise ValueError(
                f"{section}: {_one_line(cause)}; its keys are the arguments of {node._target_}."
            ) from cause
        if "Error locating target" in str(error) or isinstance(cause, ImportError):
            raise ValueError(f"{section}: {_one_line(cause or error)}") from cause
        raise


def takes(node: DictConfig, argument: str) -> bool:
    """Whether the ``_target_`` of a section names this argument."""
    return argument in inspect.signature(get_method(str(node._target_))).parameters


def _compose(parsed: list[Override]) -> DictConfig:
    folder = _folder()
    groups = [o for o in parsed if _is_group(folder, o.key_or_group)]
    for override in groups:
        _check_file(folder, override.key_or_group, override.value())
    extra = _parts_of_recipe(folder, groups) + _parts_of_tier(folder, groups)
    parsed, groups = extra + parsed, extra + groups
    base = _hydra(folder, groups)
    for override in parsed:
        if override not in groups:
            _check_key(base, override)
    config = _hydra(folder, parsed)
    _check_taken(folder, config, parsed)
    for override in parsed:  # a new target takes the place of the old one; its arguments are not those of the new
        value = None if override.is_sweep_override() or override.is_delete() else override.value()
        if isinstance(value, dict) and "_target_" in value:
            OmegaConf.update(config, override.key_or_group, value, merge=False, force_add=True)
    return config


def _check_taken(folder: Path, config: DictConfig, parsed: list[Override]) -> None:
    """Refuse keys of an experiment or a tier that the data set, model or task chosen in its place does not take."""
    chosen = {o.key_or_group: o.value() for o in parsed}
    added = {o.key_or_group for o in parsed if o.is_add()}
    for group, section in (("dataset", "data"), ("model", "model"), ("task", "task")):
        file = folder / group / f"{chosen.get(group)}.yaml"
        if "experiment" not in chosen or group not in chosen or not file.is_file():
            continue
        own = OmegaConf.load(file)
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


def _parts_of_recipe(folder: Path, groups: list[Override]) -> list[Override]:
    """What an experiment says for the chosen model alone (``configs/recipe/<experiment>/<model>.yaml``)."""
    chosen = {o.key_or_group: o.value() for o in groups}
    experiment, model = chosen.get("experiment"), chosen.get("model")
    if not has_recipes(experiment):
        return []
    if model is None:
        defaults = OmegaConf.load(folder / "experiment" / f"{experiment}.yaml").defaults
        model = next(entry["override /model"] for entry in defaults if "override /model" in entry)
    there = sorted(path.stem for path in (folder / "recipe" / experiment).glob("*.yaml"))
    if model not in there:
        raise ValueError(f"experiment={experiment} has no recipe for model={model}; there are {', '.join(there)}.")
    return parse([f"+recipe/{experiment}={model}"])


def has_recipes(experiment: Any) -> bool:
    """Whether an experiment has a recipe for each of several models."""
    return bool(experiment) and (_folder() / "recipe" / str(experiment)).is_dir()


def _parts_of_tier(folder: Path, groups: list[Override]) -> list[Override]:
    """What a tier says of the chosen family (``configs/tier/<tier>/<family>.yaml``) and experiment, if it is there."""
    chosen = {o.key_or_group: o.value() for o in groups}
    tier, experiment = chosen.get("tier"), chosen.get("experiment") or "spikingssm/digits"
    parts = [experiment.split("/")[0], experiment] if tier else []
    found = [part for part in parts if (folder / "tier" / str(tier) / f"{part}.yaml").is_file()]
    return parse([f"+tier/{tier}=[{','.join(found)}]"] if found else [])


def _hydra(folder: Path, parsed: list[Override]) -> DictConfig:
    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            return compose("config", [o.input_line or "" for o in parsed])
    except (HydraException, OmegaConfBaseException, YAMLError, RecursionError, ValueError) as error:
        raise ValueError(shortened(_one_line(error))) from None


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        ValueError: one that its grammar refuses; the line says what to write.
    """
    try:
        return OverridesParser.create().parse_overrides([ALIASES.get(text, text) for text in overrides])
    except (HydraException, RecursionError, ValueError) as error:  # ValueError: a number of too many digits
        raise ValueError(shortened(f"{_one_line(error).split(' See https')[0]}; {_way_out(overrides)}")) from None


def _way_out(overrides: Sequence[str]) -> str:
    """What to write in place of overrides that Hydra's grammar refuses."""
    for text in overrides:
        key, _, value = text.partition("=")
        if (strange := re.search(r"[^\x00-\x7f]", value)) and not re.match(r"""\s*["'\[{]""", value):
            return f'a value with a letter such as {strange[0]} stands in quotes of its own: "{key}={quoted(value)}".'
    return (
        "an override is key=value, e.g. model.d_model=64; a value with = ~ , ( ) : or a letter that is not of a to z "
        "stands in quotes of its own: \"data.root='/a,folder'\"."
    )


def _folder() -> Path:
    """``configs/`` beside the package, else that of the current folder."""
    places = [Path(spikingssm.__file__).parents[1] / "configs", Path.cwd() / "configs"]
    for folder in places:
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no config.yaml in {places[0]} or {places[1]}; run from a checkout of the project, which holds configs/."
    )


def _is_group(folder: Path, key: str) -> bool:
    """Whether a key is that of a folder of ``configs``, such as dataset or recipe/brf/ecg."""
    return re.fullmatch(r"[\w-]+(/[\w-]+)*", key) is not None and len(key) < 200 and (folder / key).is_dir()


def _check_file(folder: Path, group: str, value: Any) -> None:
    found = (folder / group).glob("*.yaml") if group == "tier" else (folder / group).rglob("*.yaml")
    there = sorted(str(p.relative_to(folder / group).with_suffix("")) for p in found)
    if value is not None and value not in there:
        raise ValueError(f"no {group} is named {value!r}; there are: {', '.join(there)}.")


def _check_key(base: DictConfig, override: Override) -> None:
    """Refuse a key that does not exist, and a word where a number stands."""
    node, at = base, "the top level"
    path = override.key_or_group.split(".")
    for depth, part in enumerate(path):
        open_ended = override.is_add() and depth > 0
        if open_ended or not isinstance(node, DictConfig):
            return
        if part not in node:
            way = _addable(node, override, part)
            raise ValueError(
                f"unknown key {override.key_or_group!r}; {at} has the keys {', '.join(map(str, node))}{way}."
            )
        node, at = node._get_node(part), ".".join(path[: depth + 1])
        if not isinstance(node, DictConfig):
            break
    if override.is_sweep_override() or override.is_delete():
        return
    old, new = OmegaConf.select(base, override.key_or_group), override.value()
    if (new is None and override.key_or_group in NULLABLE) or override.key_or_group in FREE:
        return
    section = override.key_or_group.rpartition(".")[0]
    listed = LISTS.get(override.key_or_group, "") == OmegaConf.select(base, f"{section}._target_")
    parts = new if listed and isinstance(new, list) and new else [new]
    if problem := next(filter(None, (_misfit(old, part) for part in parts)), None):
        more = " or a list of them" if listed else ""
        raise ValueError(f"{override.key_or_group} takes {problem}{more}, got {new!r}.")


def _addable(node: DictConfig, override: Override, part: str) -> str:
    """How to give an argument that the file leaves at its default."""
    try:
        known = part == override.key_or_group.rpartition(".")[2] and takes(node, part)
    except Exception:  # no target, or one that is not there, of which another check speaks
        return ""
    return f"; add it with +{override.input_line}" if known else ""


def _misfit(old: Any, new: Any) -> str | None:
    """What a key with the value ``old`` takes, where ``new`` is not that; a key without a value takes anything."""
    if isinstance(new, str) and "${" in new:
        return None
    if isinstance(old, DictConfig):
        return None if isinstance(new, dict) else "a mapping such as {_target_: ..., key: value}"
    if isinstance(old, bool):
        return None if isinstance(new, bool) else f"true or false ({old} here)"
    if isinstance(old, int):
        return None if isinstance(new, int) and not isinstance(new, bool) else f"a whole number such as {old}"
    if isinstance(old, float):
        return None if isinstance(new, (int, float)) and not isinstance(new, bool) else f"a number such as {old}"
    return None


def _leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Nested mappings as one, from dotted key to value."""
    if not isinstance(value, dict):
        return {at: value}
    return {k: v for name, inner in value.items() for k, v in _leaves(inner, f"{at}.{name}".lstrip(".")).items()}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
