"""Things of other libraries where one of ours is asked for, and the function that reads them."""

from typing import Any

from sdn.checks.words import LIBRARIES

__all__ = ["library_of", "migrated", "named_there"]


def library_of(value: Any) -> str | None:
    """The library that a value, a class or a function is from, if ``sdn.from_NAME`` reads its neurons."""
    module = getattr(
        value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value), "__module__", ""
    )
    name = str(module).partition(".")[0]
    return name if name in LIBRARIES else None


def named_there(value: Any) -> str:
    """What was given, by the name of its class or of the function that made it."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = value.__qualname__.partition(".")[0] if hasattr(value, "__qualname__") else type(value).__name__
    return f"a{'n' * (name[0] in 'AEIOaeio')} {name}"


def migrated(library: str, name: str) -> str:
    """What to write where a neuron or a spike gradient of another library was given."""
    if name == "dynamics":
        return f"sdn.from_{library}(neuron).neuron(channels), or sdn.from_{library}(neuron).dynamics"
    return f"spike=sdn.from_{library}(neuron).spike of a neuron that has it"
