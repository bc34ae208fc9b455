"""What a configuration may hand to what it names, as the signatures of those say."""

import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

__all__ = ["fits", "is_list", "kinds", "takes", "type_of"]

SECTIONS = {
    "optim": "spikingssm.training.fit.SequenceModule",
    "trainer": "lightning.Trainer",
    "checkpoint": "spikingssm.training.callbacks.StepCheckpoint",
    "early_stop": "spikingssm.training.callbacks.EarlyStop",
    "dead_neurons": "spikingssm.training.monitor.DeadNeurons",
    "logger": "spikingssm.training.loggers.more_loggers",
}
"""Sections without a ``_target_`` -> what a run builds from their keys."""


def takes(node: DictConfig, argument: str) -> bool:
    """Whether the ``_target_`` of a section names this argument; one without a signature names none."""
    try:
        return argument in inspect.signature(_found(str(node._target_))).parameters
    except ValueError:
        return False


def type_of(config: DictConfig, key: str) -> Any:
    """The annotation of the argument that a dotted key is; Any where none is known."""
    section, _, name = key.rpartition(".")
    node = OmegaConf.select(config, section) if section else None
    target = (node.get("_target_") if isinstance(node, DictConfig) else None) or SECTIONS.get(section)
    if target is None:
        return Any
    try:
        return _arguments(str(target)).get(name, Any)
    except Exception:  # a target that is not there, or cannot be imported, of which what builds it speaks
        return Any


@cache
def _arguments(target: str) -> dict[str, Any]:
    """The annotation of each argument; where a function takes any others, also of those of what it returns."""
    call = _found(target)
    known = get_type_hints(call.__init__ if inspect.isclass(call) else call)
    others = known.pop("return", None)
    if inspect.isclass(others) and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(call).parameters.values()):
        known = {**get_type_hints(others.__init__), **known}
    return known


def _found(target: str) -> Any:
    """What a dotted name stands for: of a function and a module of one name, such as datasets.digits, the function."""
    module, _, name = target.rpartition(".")
    return pkgutil.resolve_name(f"{module}:{name}")


def kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows: those of a union, of the words of a literal, and without their brackets."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*map(kinds, get_args(annotation)))
    if origin is Literal:
        return {type(word) for word in get_args(annotation)}
    return {origin or annotation}


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value of a command line may be an argument: a mapping may be any object, which it builds."""
    found = kinds(annotation)
    if Any in found:
        return True
    if isinstance(value, list):
        parts = [get_args(a) or (Any,) for a in (annotation, *get_args(annotation)) if is_list(get_origin(a) or a)]
        return any(value and all(fits(part[0], inner) for inner in value) for part in parts)
    if isinstance(value, Mapping):
        return bool(found - {bool, int, float, str, type(None)})
    return type(value) in found or (type(value) is int and float in found)


def is_list(kind: Any) -> bool:
    """Whether a list of a command line may stand for this type."""
    return kind is tuple or (inspect.isclass(kind) and kind is not object and issubclass(list, kind))
