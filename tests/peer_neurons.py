"""Stand-ins for the objects of other libraries, which the tests of migration read."""

from torch import nn


def stand_in(name, **attributes):
    """An object of a class of this name with these attributes, as a peer's module has them."""
    module = type(name, (nn.Module,), {})()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


class SingleSpike:
    """What a spike function of sinabs is: a class that is never made."""


def closure(name, **kept):
    """A function that keeps these values, made by a function of this name."""

    def of_one(value):
        return lambda x: (value, x)

    def of_none():
        return lambda x: x

    made = of_one(*kept.values()) if kept else of_none()
    made.__qualname__ = f"{name}.<locals>.inner"
    made.__code__ = made.__code__.replace(co_freevars=tuple(kept))
    return made
