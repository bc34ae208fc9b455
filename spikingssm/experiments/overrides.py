"""Overrides of a command line: read, and compared with the keys that there are."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sdn.runs.cli import shortened
from spikingssm.experiments.ending import quoted
from spikingssm.experiments.targets import takes

__all__ = ["check_key", "one_line", "parse"]

NULLABLE = (
    "threads", "weights", "resume", "data.root", "data.path", "data.test_path", "data.name", "data.classes",
    "data.limit_train", "data.limit_eval", "data.rows", "data.steps", "data.distractors", "data.scaling",
    "data.leave_out", "data.vocabulary", "model.spike", "model.cutoffs", "model.first_discretisation",
    "model.refractory", "task.unlabelled_as", "optim.slow_lr", "optim.ema", "optim.tbptt",
    "checkpoint.every_n_steps", "checkpoint.every_minutes", "early_stop.patience", "logger.wandb",
    "trainer.gradient_clip_val",
)  # fmt: skip
"""Keys that may be null, whatever an experiment or a tier sets them to."""
FREE = ("trainer.devices",)
"""Keys whose values may be of several kinds: a number, a list, auto."""
LISTS = {"model.d_model": "spikingssm.models.RSNN"}
"""Keys that take a number or a list of such numbers, and the target that does."""
ALIASES = {f"experiment=spikingssm/{published}": f"experiment=spikingssm/{ours}" for published, ours in (
    ("minst", "mnist"), ("pminst", "pmnist"),
)}  # fmt: skip
"""The published spellings of two experiments."""


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        ValueError: one that its grammar refuses; the line says what to write.
    """
    try:
        return OverridesParser.create().parse_overrides([ALIASES.get(text, text) for text in overrides])
    except (HydraException, RecursionError, ValueError) as error:  # ValueError: a number of too many digits
        raise ValueError(shortened(f"{one_line(error).split(' See https')[0]}; {_way_out(overrides)}")) from None


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


def check_key(base: DictConfig, override: Override) -> None:
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


def one_line(error: BaseException) -> str:
    """The text of an error in one line."""
    return " ".join(str(error).split())
