"""Studies: one question each, asked of trained networks. Each is imported when it is first asked for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikingssm.studies.ablation import ablation
    from spikingssm.studies.convergence import convergence
    from spikingssm.studies.landscape import landscape
    from spikingssm.studies.robustness import robustness
    from spikingssm.studies.solver_swap import swap

__all__ = ["ablation", "convergence", "landscape", "robustness", "swap"]


def __getattr__(name: str) -> Any:
    """A study by its name; they need the extra `train`, the command line that lists them does not."""
    if name not in __all__:
        raise AttributeError(f"module 'spikingssm.studies' has no attribute {name!r}")
    module = importlib.import_module(f"spikingssm.studies.{'solver_swap' if name == 'swap' else name}")
    return globals().setdefault(name, getattr(module, name))
