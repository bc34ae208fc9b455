"""Neuron models, one published equation per file, and the reference loop."""

from sdn.dynamics.alif import ALIF, ALIFState
from sdn.dynamics.base import Dynamics, State, Trajectory, Value, simulate
from sdn.dynamics.brf import BRF, BRFState
from sdn.dynamics.hrf import HRF, HRFState
from sdn.dynamics.izhikevich import IzhikevichRF, IzhikevichRFState
from sdn.dynamics.lif import LIF, LIFState
from sdn.dynamics.rf import RF, RFState

__all__ = [
    "ALIF", "BRF", "BUILT_IN", "HRF", "LIF", "RF", "ALIFState", "BRFState", "Dynamics", "HRFState", "IzhikevichRF",
    "IzhikevichRFState", "LIFState", "RFState", "State", "Trajectory", "Value", "simulate",
]  # fmt: skip

BUILT_IN: dict[str, type[Dynamics]] = {
    kind.word or name.lower(): kind
    for name, kind in sorted(globals().items())
    if isinstance(kind, type) and issubclass(kind, Dynamics) and kind is not Dynamics
}
"""Every neuron of this package by its name on a command line."""
