"""Overrides of a command line: read, and compared with the keys that there are."""

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sdn.runs.cli import shortened
from spikingssm.experiments.ending import in_quotes
from spikingssm.experiments.targets import fits, is_list, kinds, takes, type_of

__all__ = ["check_key", "one_line", "parse"]

ALIASES = {f"experiment=spikingssm/{published}": f"experiment=spikingssm/{ours}" for published, ours in (
    ("minst", "mnist"), ("pminst", "pmnist"),
)}  # fmt: skip
"""The published spellings of two experiments."""
HABITS = {
    "lr": "optim.lr", "learning_rate": "optim.lr", "wd": "optim.weight_decay", "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs", "n_epochs": "trainer.max_epochs", "bs": "data.batch_size",
    "batch": "data.batch_size", "file": "data.path", "hidden_size": "model.d_model", "hidden": "model.d_model",
    "layers": "model.n_layers", "num_layers": "model.n_layers", "gpus": "trainer.devices",
    "device": "trainer.accelerator", "out": "run_dir", "output_dir": "run_dir", "save_dir": "run_dir",
}  # fmt: skip
"""What other programs call a key of ours."""


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        ValueError: one that its grammar refuses; the line says what to write.
    """
    try:
        return OverridesParser.create().parse_overrides([_renamed(text) for text in overrides])
    except (HydraException, RecursionError, ValueError) as error:  # ValueError: a number of too many digits
        raise ValueError(shortened(f"{one_line(error).split(' See https')[0]}; {_way_out(overrides)}")) from None


def _renamed(text: str) -> str:
    """An override under our name for it; a path with a ``=``, as run folders of variants have, in quotes."""
    if place := re.fullmatch(
        r"(resume|init_from|weights|run_dir|data\.(?:root|path|test_path))=(?!\s)([^'\"\[{$,]*=[^'\",]*)", text
    ):
        text = f"{place[1]}={in_quotes(place[2])}"
    return ALIASES.get(text, f"weights={text.removeprefix('init_from=')}" if text.startswith("init_from=") else text)


def _way_out(overrides: Sequence[str]) -> str:
    """What to write in place of overrides that Hydra's grammar refuses."""
    for text in overrides:
        key, _, value = text.partition("=")
        if (strange := re.search(r"[^\x00-\x7f]", value)) and not re.match(r"""\s*["'\[{]""", value):
            return (
                f'a value with a letter such as {strange[0]} stands in quotes of its own: "{key}={in_quotes(value)}".'
            )
    return (
        "an override is key=value, e.g. model.d_model=64; a value with = ~ , ( ) : or a letter that is not of a to z "
        "stands in quotes of its own: \"data.root='/a,folder'\"."
    )


def check_key(base: DictConfig, override: Override, nullable: Collection[str] = ()) -> None:
    """Refuse a key that does not exist, and a value of another kind than what is built from it takes.

    Args:
        base: the configuration without the override.
        override: ``key=value``.
        nullable: further keys that may be null: a run reads them itself.

    Raises:
        ValueError: which keys there are, or what the key takes.
    """
    node: Any = base
    at, path = "the top level", override.key_or_group.split(".")
    for depth, part in enumerate(path):
        open_ended = override.is_add() and depth > 0
        if open_ended or not isinstance(node, DictConfig):
            return
        if part not in node:
            way = _addable(node, override, part) or _meant(base, override)
            raise ValueError(
                f"unknown key {override.key_or_group!r}; {at} has the keys {', '.join(map(str, node))}{way}"
            )
        node, at = node._get_node(part), ".".join(path[: depth + 1])
        if not isinstance(node, DictConfig):
            break
    if override.is_sweep_override() or override.is_delete():
        return
    key, new = override.key_or_group, override.value()
    problem = _misfit(type_of(base, key), OmegaConf.select(base, key), new)
    if problem and not (new is None and key in nullable):
        raise ValueError(f"{key} takes {problem}, got {new!r}.")


def _addable(node: DictConfig, override: Override, part: str) -> str:
    """How to give an argument that the file leaves at its default."""
    try:
        known = part == override.key_or_group.rpartition(".")[2] and takes(node, part)
    except Exception:  # no target, or one that is not there, of which another check speaks
        return ""
    return f"; add it with +{override.input_line}." if known else ""


def _meant(base: DictConfig, override: Override) -> str:
    """Which key an unknown one stands for: of the same last name, of another program's name, or of a near one."""
    key, _, value = (override.input_line or "").lstrip("+~").partition("=")
    if key in ("data.path", "data.test_path"):
        return f"; dataset=arrays {key}={value} reads a file of your own, as does recipe=s5rf (or brf, spikingssm)."
    name, known = key.rpartition(".")[2].lower(), _dotted(base)
    same = [found for found in known if found.rpartition(".")[2] == name]
    habit = [found for found in [HABITS.get(name, "")] if found in known]
    near = difflib.get_close_matches(key, known, 1, 0.7) if "." in key else []
    near += difflib.get_close_matches(name, [found.rpartition(".")[2] for found in known], 1, 0.7)
    far = [found for close in near for found in known if found == close or found.rpartition(".")[2] == close]
    found = next(iter([*same, *habit, *far]), None)
    return "." if found is None else f"; did you mean {found}={value}?"


def _dotted(node: DictConfig, at: str = "") -> list[str]:
    """The keys of a configuration, those of its sections with a dot; sections themselves are none."""
    found: list[str] = []
    for key in map(str, node):
        inner = node._get_node(key)
        found += _dotted(inner, f"{at}{key}.") if isinstance(inner, DictConfig) and not inner._is_none() else [at + key]
    return [key for key in found if not key.endswith("_target_")]


def _misfit(annotation: Any, old: Any, new: Any) -> str | None:
    """What an argument takes, where ``new`` is not that.

    Args:
        annotation: of the argument; Any is what the old value is.
        old: its value, the example of the answer. Without one, and for text and objects, what is built speaks.
        new: the value of the command line.
    """
    if Any in kinds(annotation):
        annotation = next((kind for kind in (bool, int, float, DictConfig) if isinstance(old, kind)), Any)
    found = kinds(annotation)
    if (isinstance(new, str) and "${" in new) or str in found or fits(annotation, new):
        return None
    such = f" such as {old}" if isinstance(old, (int, float)) else ""
    if isinstance(old, DictConfig):
        what = "a mapping such as {_target_: ..., key: value}"
    elif bool in found:
        what = f"true or false{f' ({old} here)' if isinstance(old, bool) else ''}"
    elif float in found or int in found:
        what = f"a {'' if float in found else 'whole '}number{such}"
    else:
        return None
    more = [" or a list of them"] if any(map(is_list, found)) else []
    return "".join([what, *more, *([" or null"] if type(None) in found else [])])


def one_line(error: BaseException) -> str:
    """The text of an error in one line."""
    return " ".join(str(error).split())
