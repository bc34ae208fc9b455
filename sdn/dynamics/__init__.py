"""Neuron models, one published equation per file, and the reference loop."""

from sdn.dynamics.alif import ALIF, ALIFState
from sdn.dynamics.base import Dynamics, State, Trajectory, Value, simulate
from sdn.dynamics.brf import BRF, BRFState
from sdn.dynamics.hrf import HRF, HRFState
from sdn.dynamics.izhikevich import IzhikevichRF, IzhikevichRFState
from sdn.dynamics.lif import LIF, LIFState
from sdn.dynamics.rf import RF, RFState

__all__ = [
    "ALIF", "BRF", "HRF", "LIF", "RF", "ALIFState", "BRFState", "Dynamics", "HRFState", "IzhikevichRF",
    "IzhikevichRFState", "LIFState", "RFState", "State", "Trajectory", "Value", "simulate",
]  # fmt: skip
