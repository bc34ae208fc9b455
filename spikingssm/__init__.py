"""SpikingSSM and its kin: layers, models, data and training of spiking networks on long sequences."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import sdn  # first: it answers signals while the command `spikingssm` imports torch
from sdn.checks.words import NAMES
from spikingssm.layers import S4D, S5, Recurrent, Residual, SpikingBlock
from spikingssm.measures.dead import dead_neurons
from spikingssm.measures.spikes import record_spikes, spikes_of
from spikingssm.models import RSNN, S5RF, SpikingSSM

if TYPE_CHECKING:
    from spikingssm.experiments.card import card
    from spikingssm.experiments.config import load, load_config
    from spikingssm.experiments.evaluation import evaluate
    from spikingssm.experiments.run import run
    from spikingssm.experiments.trained import load_model

__all__ = [
    "RSNN", "S4D", "S5", "S5RF", "Recurrent", "Residual", "SpikingBlock", "SpikingSSM", "card", "dead_neurons",
    "evaluate", "load", "load_config", "load_model", "record_spikes", "run", "spikes_of",
]  # fmt: skip


_NEED_TRAIN = {
    "card": "card", "evaluate": "evaluation", "load": "config", "load_config": "config", "load_model": "trained",
    "run": "run",
}  # fmt: skip
"""Names that need the extra `train`, and their modules."""


def __getattr__(name: str) -> Any:
    """Import what needs the extra `train` when it is first asked for."""
    if name not in _NEED_TRAIN:
        known = f"sdn.{name}" if name in sdn.__all__ else NAMES.get(name)
        way = f"; write {known}" if known else ""
        raise AttributeError(
            f"module 'spikingssm' has no attribute {name!r}{way}", name=name, obj=sys.modules[__name__]
        )
    try:
        module = importlib.import_module(f"spikingssm.experiments.{_NEED_TRAIN[name]}")
    except ModuleNotFoundError as error:
        extra = "install the extra `train`: pip install 'sdn-spikingssm[train]'"
        raise ImportError(f"spikingssm.{name} needs the package {error.name}; {extra}.") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    """The public names for completion, and the modules; what needs the extra `train` where that is installed."""
    inside = (name for name, value in globals().items() if getattr(value, "__name__", "") == f"{__name__}.{name}")
    modules = [name for name in inside if not name.startswith("_")]
    there = all(importlib.util.find_spec(package) is not None for package in ("lightning", "hydra"))
    return sorted({*modules, *__all__} - (set() if there else set(_NEED_TRAIN)))
