"""Coming from another library: its neuron as a dynamics that gives the same spikes, and notes on what differs.

None of the libraries is imported. `from_snntorch` and the others look at the class and the attributes of what they are
given, or take plain values.
"""

from sdn.migration.answer import Migrated
from sdn.migration.gradients import Exponential, FastSigmoid, Hat, Logistic, Rectangle, StraightThrough
from sdn.migration.norse import NorseLIF, from_norse
from sdn.migration.sinabs import from_sinabs
from sdn.migration.sinabs_steps import SinabsALIF, SinabsLIF
from sdn.migration.snntorch import from_snntorch
from sdn.migration.snntorch_steps import SnnTorchAlpha, SnnTorchLeaky, SnnTorchSynaptic
from sdn.migration.spikingjelly import from_spikingjelly
from sdn.migration.steps import EulerLIF, StrictEulerLIF

__all__ = [
    "EulerLIF", "Exponential", "FastSigmoid", "Hat", "Logistic", "Migrated", "NorseLIF", "Rectangle", "SinabsALIF",
    "SinabsLIF", "SnnTorchAlpha", "SnnTorchLeaky", "SnnTorchSynaptic", "StraightThrough", "StrictEulerLIF",
    "from_norse", "from_sinabs", "from_snntorch", "from_spikingjelly",
]  # fmt: skip
