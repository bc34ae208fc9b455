"""YAML from somebody else as plain values: no aliases, no tags, nothing that is resolved later, nothing too large."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

__all__ = ["leaves", "read_yaml"]

LARGEST = 2**18
"""Bytes; the configuration of a run has 2,000."""
DEPTH = 30
SMALLEST, HIGHEST = -(2**63), 2**64 - 1
"""Integers of a configuration: seeds have up to 64 bits."""


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Nested mappings as one, from dotted key to value."""
    if not isinstance(value, dict):
        return {at: value}
    return {k: v for name, inner in value.items() for k, v in leaves(inner, f"{at}.{name}".lstrip(".")).items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as dicts, lists, text, numbers, booleans and None.

    Numbers are read as `omegaconf` reads them (``1e-3`` is one).

    Raises:
        OSError: the file cannot be read.
        ValueError: the reason in one line, without the name of the file.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size} bytes, a configuration has at most {LARGEST}")
    try:
        text = path.read_bytes().decode()
        _check_events(text)
        found: Any = OmegaConf.to_container(OmegaConf.create(text))
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(" ".join(str(error).split())[:160] or "it holds no mapping") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__} and no mapping")
    _check_plain(found, "")
    return found


def _check_events(text: str) -> None:
    """Look at the structure before anything is built: building is what aliases and nesting make expensive."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError(f"line {event.start_mark.line + 1} has an alias or an anchor (& or *), ours have none")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {event.start_mark.line + 1} has a tag (!), ours have none")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1} has more than {DEPTH} levels")


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str) or (name.startswith("_") and name != "_target_") or "${" in name:
                raise ValueError(f"{where or 'the top level'} has the key {str(name)[:60]!r}")
            _check_plain(inner, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, where)
    elif isinstance(value, str):
        if "${" in value or value == "???":
            raise ValueError(f"{where[:80]} is {value[:60]!r}, which stands for something else; ours hold plain values")
    elif isinstance(value, int) and not SMALLEST <= value <= HIGHEST:
        raise ValueError(f"{where[:80]} is an integer of {value.bit_length()} bits, it must have at most 64")
    elif value is not None and not isinstance(value, (int, float)):
        raise ValueError(f"{where[:80]} is a {type(value).__name__}, it must be text, a number, true, false or null")
