"""What a configuration may hand to what it names."""

import inspect

from hydra.utils import get_method
from omegaconf import DictConfig

__all__ = ["takes"]


def takes(node: DictConfig, argument: str) -> bool:
    """Whether the ``_target_`` of a section names this argument."""
    return argument in inspect.signature(get_method(str(node._target_))).parameters
