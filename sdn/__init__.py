"""Spiking neurons over long sequences: exact dynamics, surrogate dynamic networks, and layers that use either.

A *dynamics* says what a neuron does in one step, a *solver* how a whole sequence of steps is run, and a `Neuron` is the
two together as a module. See the README for the idea in twenty lines.
"""

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from sdn.checks.finite import immediate as immediate_checks
from sdn.checks.words import NAMES
from sdn.dynamics import ALIF, BRF, HRF, LIF, RF, Dynamics, IzhikevichRF, Trajectory, simulate
from sdn.gradients import ArcTan, DoubleGaussian, MultiGaussian, Sigmoid, SpikeGradient, Triangle, spike
from sdn.neuron import Neuron, SpikingLayer, normal, uniform
from sdn.ops.neuron.source import source
from sdn.ops.recurrent.recurrent import RecurrentState, recurrent
from sdn.ops.resonate.resonate import ResonatorState, resonate
from sdn.ops.scan.operator import scan
from sdn.sequential import Sequential, detach
from sdn.solvers import Certificate, Fused, Loop, Parallel, Solver, Surrogate
from sdn.surrogate.analytic import analytic, analytic_start
from sdn.surrogate.artifact import Artifact, load_artifact, save_artifact
from sdn.surrogate.network import SDN, ReducedSDN
from sdn.surrogate.reduction import reduce
from sdn.surrogate.seams import ReducedSeamSDN, SeamSDN

if TYPE_CHECKING:
    from sdn import plot as plot
    from sdn.recordings.data import Recording
    from sdn.recordings.files import load_recording
    from sdn.recordings.fitted import Fitted
    from sdn.recordings.known import fit_dynamics
    from sdn.recordings.unknown import learn_neuron
    from sdn.scoring.report import Fidelity, fidelity
    from sdn.surrogate.fidelity import Metrics, evaluate
    from sdn.surrogate.making import learn_surrogate
    from sdn.surrogate.recipe import Recipe
    from sdn.surrogate.seam_training import SeamRecipe
    from sdn.surrogate.training import History, fit, load_sdn
    from sdn.surrogate.trajectories import generate
    from sdn.surrogate.trajectory_files import TrajectoryFile, load_trajectories, save_trajectories

__all__ = [
    "ALIF", "BRF", "HRF", "LIF", "RF", "SDN", "ArcTan", "Artifact", "Certificate", "DoubleGaussian", "Dynamics",
    "Fidelity", "Fitted", "Fused", "History", "IzhikevichRF", "Loop", "Metrics", "MultiGaussian", "Neuron", "Parallel",
    "Recipe", "Recording", "RecurrentState", "ReducedSDN", "ReducedSeamSDN", "ResonatorState", "SeamRecipe", "SeamSDN",
    "Sequential", "Sigmoid", "Solver", "SpikeGradient", "SpikingLayer", "Surrogate", "Trajectory", "TrajectoryFile",
    "Triangle", "analytic", "analytic_start", "detach", "evaluate", "fidelity", "fit", "fit_dynamics", "generate",
    "immediate_checks", "learn_neuron", "learn_surrogate", "load_artifact", "load_recording", "load_sdn",
    "load_trajectories", "normal", "recurrent", "reduce", "resonate", "save_artifact", "save_trajectories", "scan",
    "simulate", "source", "spike", "uniform",
]  # fmt: skip

_LATER = {
    "Recording": "recordings.data",
    "load_recording": "recordings.files",
    "Fitted": "recordings.fitted",
    "fit_dynamics": "recordings.known",
    "learn_neuron": "recordings.unknown",
    **dict.fromkeys(("Metrics", "evaluate"), "surrogate.fidelity"),
    **dict.fromkeys(("Fidelity", "fidelity"), "scoring.report"),
    "generate": "surrogate.trajectories",
    **dict.fromkeys(("TrajectoryFile", "load_trajectories", "save_trajectories"), "surrogate.trajectory_files"),
    "Recipe": "surrogate.recipe",
    "SeamRecipe": "surrogate.seam_training",
    "learn_surrogate": "surrogate.making",
    **dict.fromkeys(("History", "fit", "load_sdn"), "surrogate.training"),
}
"""Names of what makes a surrogate, which a network does not need, and their modules."""
TRAINING = ("surrogate.training", "surrogate.making", "surrogate.seam_training")
"""Modules that need the extra `train`."""


def _learned(name: str) -> Any:
    """The class of a neuron that was learned from a recording, such as LearnedNeuron4x4."""
    return getattr(importlib.import_module("sdn.recordings.neuron"), name)


Dynamics.made_by_name["LearnedNeuron"] = _learned


def __getattr__(name: str) -> Any:
    """Import what makes surrogates when it is first asked for; some of it needs the extra `train`."""
    if name == "plot":
        return importlib.import_module("sdn.plot")
    if name not in _LATER:
        way = f"; write {NAMES[name]}" if name in NAMES else ""
        raise AttributeError(f"module 'sdn' has no attribute {name!r}{way}", name=name, obj=sys.modules[__name__])
    try:
        module = importlib.import_module(f"sdn.{_LATER[name]}")
    except ModuleNotFoundError as error:
        extra = "install the extra `train`: pip install 'sdn-spikingssm[train]'"
        raise ImportError(f"sdn.{name} needs the package {error.name}; {extra}.") from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    """The public names for completion, and the modules; what needs the extra `train` where that is installed."""
    inside = (name for name, value in globals().items() if getattr(value, "__name__", "") == f"{__name__}.{name}")
    modules = [name for name in inside if not name.startswith("_")]
    there = importlib.util.find_spec("lightning") is not None
    absent = {name for name, module in _LATER.items() if module in TRAINING and not there}
    return sorted({*modules, *__all__, "__version__", "plot"} - absent)
