"""How surrogate networks are made: trajectories, network, training, reduction, fidelity."""

from typing import TYPE_CHECKING, NoReturn

from sdn.checks.words import NAMES

if not TYPE_CHECKING:  # which would take every name of the package for one that is missing

    def __getattr__(name: str) -> NoReturn:
        """Say where spike gradients are, which other libraries keep under this name."""
        way = f"; spike gradients are values such as {NAMES.get(name, 'sdn.ArcTan()')}" if name[:1].isupper() else ""
        raise AttributeError(f"module 'sdn.surrogate' has no attribute {name!r}{way}")
