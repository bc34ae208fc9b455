"""SpikingSSM and its kin: layers, models, data and training of spiking networks on long sequences."""

from typing import TYPE_CHECKING, Any

from spikingssm.layers import S4D, S5, Recurrent, Residual, SpikingBlock
from spikingssm.metrics import record_spikes, spikes_of
from spikingssm.models import RSNN, S5RF, SpikingSSM

if TYPE_CHECKING:
    from spikingssm.experiment import evaluate, load, run

__all__ = [
    "RSNN", "S4D", "S5", "S5RF", "Recurrent", "Residual", "SpikingBlock", "SpikingSSM", "evaluate", "load",
    "record_spikes", "run", "spikes_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what needs the extra `train` when it is first asked for."""
    if name not in ("evaluate", "load", "run"):
        raise AttributeError(f"module 'spikingssm' has no attribute {name!r}")
    try:
        from spikingssm import experiment
    except ModuleNotFoundError as error:
        extra = "install the extra `train`: pip install 'sdn-spikingssm[train]'"
        raise ImportError(f"spikingssm.{name} needs the package {error.name}; {extra}.") from error
    return getattr(experiment, name)
