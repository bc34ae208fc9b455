"""Packages that only an export needs."""

import importlib
from typing import Any

__all__ = ["needed"]


def needed(*names: str) -> list[Any]:
    """Import packages of the extra ``export``.

    Raises:
        ImportError: one is missing; it says how to get it.
    """
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise ImportError(f"export: {name} is missing; pip install 'sdn-spikingssm[export]' brings it.") from None
    return found
