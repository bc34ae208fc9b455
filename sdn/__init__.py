"""Spiking neurons over long sequences: exact dynamics, surrogate dynamic networks, and layers that use either.

A *dynamics* says what a neuron does in one step, a *solver* how a whole sequence of steps is run, and a `Neuron` is the
two together as a module. See the README for the idea in twenty lines.
"""

from typing import Any

__version__ = "0.1.0"

from sdn.dynamics import ALIF, BRF, LIF, RF, Dynamics, Trajectory, simulate
from sdn.neuron import Neuron, normal, uniform
from sdn.solvers import Loop, Solver, Surrogate
from sdn.spike import ArcTan, DoubleGaussian, MultiGaussian, Sigmoid, SpikeGradient, Triangle, spike
from sdn.surrogate.network import SDN, ReducedSDN
from sdn.surrogate.reduction import Artifact, load_artifact, reduce, save_artifact

__all__ = [
    "ALIF", "BRF", "LIF", "RF", "SDN", "ArcTan", "Artifact", "DoubleGaussian", "Dynamics", "Loop", "MultiGaussian",
    "Neuron", "ReducedSDN", "Sigmoid", "Solver", "SpikeGradient", "Surrogate", "Trajectory", "Triangle",
    "load_artifact", "normal", "reduce", "save_artifact", "simulate", "spike", "uniform",
]  # fmt: skip
