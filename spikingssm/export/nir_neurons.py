"""The numbers of a neuron between a node of NIR, which is an equation in time, and a step of ours."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdn import LIF, Dynamics
from sdn.migration import EulerLIF, NorseLIF, SnnTorchSynaptic, StrictEulerLIF

__all__ = ["Clock", "Part", "Step", "cuba_of", "dynamics_of", "integrator_of", "node_of", "step_of"]

Array = np.ndarray[Any, Any]
LONG = 10_000
"""Steps of a time constant beyond which dt is likely in another unit."""
SAME = 1e-5
"""How far a gain may be from 1 to be 1: peers write R and tau in float32, and their product is 1 but for rounding."""


@dataclass(frozen=True)
class Clock:
    """How an equation in time becomes steps.

    Args:
        dt: length of a step, in the unit of the time constants of the file, > 0.
        step: "euler": ``decay = 1 - dt / tau``. "exact": ``decay = exp(-dt / tau)``.

    Raises:
        ValueError: a number or a word that is none of these.
    """

    dt: float = 1e-4
    step: str = "euler"

    def __post_init__(self) -> None:
        if not (isinstance(self.dt, (int, float)) and 0 < self.dt < float("inf")):
            raise ValueError(f"nir: dt must be a number > 0, got {self.dt!r}.")
        if self.step not in ("euler", "exact"):
            raise ValueError(f"nir: step must be 'euler' or 'exact', got {self.step!r}.")

    def tau(self, rate: Array) -> Array:
        """The time constant of a state that loses the share ``rate`` of itself in a step."""
        return self.dt / rate if self.step == "euler" else -self.dt / np.log1p(-rate)

    def rate(self, tau: Array) -> Array:
        """The share of itself that a state loses in a step, ``1 - decay``."""
        return self.dt / tau if self.step == "euler" else -np.expm1(-self.dt / tau)


@dataclass(frozen=True)
class Step:
    """A step of a leaky integrator that spikes and is then set to a value; all arrays (n,) float64, or numbers.

    ``v = (1 - rate) v + gain input``, a spike where v is above ``threshold``, and then ``v = reset``. All is counted
    from rest. With ``synapse`` the input goes through ``i = (1 - synapse) i + input`` before.

    Args:
        rate: share of the membrane that a step loses, in [0, 1]; 0 is integrate-and-fire.
        gain: what one unit of input adds to the membrane.
        threshold: > 0.
        reset: where a spike leaves the membrane.
        at_threshold: whether a membrane exactly at the threshold spikes.
        synapse: share of the current that a step loses, or None.
    """

    rate: Array
    gain: Array
    threshold: Array
    reset: Array
    at_threshold: bool
    synapse: Array | None = None


def step_of(dynamics: Dynamics, clock: Clock) -> Step | str:
    """The step of a neuron that NIR can hold, or why it cannot hold it."""
    if isinstance(dynamics, (LIF, EulerLIF)) and dynamics.reset != "hard":
        return f"its reset is {dynamics.reset!r}, and NIR resets to a value only; train it with reset='hard'"
    names, synapse = {
        LIF: (("decay", "gain", "threshold"), None),
        EulerLIF: (("rate", "gain", "threshold", "reset_to"), None),
        StrictEulerLIF: (("rate", "gain", "threshold", "reset_to"), None),
        NorseLIF: (("rate_mem", "gain", "threshold", "reset_to"), "rate_syn"),
        SnnTorchSynaptic: (("beta", "gain", "threshold"), "alpha"),
    }.get(type(dynamics), ((), None))
    delayed = isinstance(dynamics, SnnTorchSynaptic) and (dynamics.reset, dynamics.delayed) != ("zero", False)
    if not names or delayed:
        return _why(dynamics)
    rate, gain, threshold, *reset = (_numbers(getattr(dynamics, name)) for name in names)
    current = None if synapse is None else _numbers(getattr(dynamics, synapse))
    if isinstance(dynamics, (LIF, SnnTorchSynaptic)):  # whose fields are decays
        rate, current = 1 - rate, None if current is None else 1 - current
    step = Step(rate, gain, threshold, reset[0] if reset else _numbers(0.0), dynamics.fires_at_threshold, current)
    return step if (why := _no_constants(step, clock)) is None else why


def _no_constants(step: Step, clock: Clock) -> str | None:
    """Why a step has no time constants."""
    rates = [step.rate] if step.synapse is None else [step.rate, step.synapse]
    low, high = (f(np.array([f(each) for each in rates])) for f in (np.min, np.max))
    if low == 0 and (step.synapse is not None or step.rate.any()):
        return "some of its decays are 1, which is another node (IF) or none; make them smaller than 1"
    if high == 1 and clock.step == "exact":
        return "a decay of 0 is no exp(-dt/tau); use step='euler'"
    if not (step.gain > 0).all():
        return f"its input is multiplied by {_range(step.gain)}; a gain must be above 0"
    return None


def _why(dynamics: Dynamics) -> str:
    """What NIR is missing for a neuron."""
    why = "NIR has no node for it"
    for word, reason in REASONS.items():
        if word in {base.__name__ for base in type(dynamics).__mro__}:
            why = reason
    return f"the neuron {type(dynamics).__name__}: {why}; NIR holds LIF with a hard reset"


REASONS: Mapping[str, str] = {
    "ALIF": "NIR has no threshold that adapts",
    "RF": "NIR has no oscillator",
    "BRF": "NIR has neither an oscillator nor a refractory period",
    "HRF": "NIR has no oscillator",
    "IzhikevichRF": "NIR has no oscillator",
    "SnnTorchLeaky": "its reset comes a step after the spike",
    "SnnTorchSynaptic": "its reset subtracts, or comes a step after the spike",
    "SinabsLIF": "NIR has no lower bound and no reset that subtracts",
}


def _numbers(value: Any) -> Array:
    return np.asarray(value.detach().cpu().double() if isinstance(value, Tensor) else value, np.float64)


def node_of(step: Step, clock: Clock, n: int, unit_r: bool, nir: Any, metadata: dict[str, Any]) -> Any:
    """The node of ``n`` neurons: ``LIF``, ``IF`` where nothing leaks, ``CubaLIF`` with a synapse.

    Args:
        step: of the neurons.
        clock: how its numbers become time constants.
        n: neurons.
        unit_r: write R = 1, and the threshold in the unit that this makes of the membrane.
        nir: the package.
        metadata: for the node.

    """
    rate, gain, threshold, reset = (
        np.broadcast_to(each, n) for each in (step.rate, step.gain, step.threshold, step.reset)
    )
    leaks = bool((rate > 0).all())
    r = gain / rate if leaks else gain
    if unit_r:
        threshold, reset, r = threshold / r, reset / r, np.ones(n)
    found = threshold.astype(np.float32)
    if step.at_threshold:  # a float32 is above this one where it is at the threshold or above it
        found = np.nextafter(found, np.float32(-np.inf))
    if not leaks:
        return nir.IF(r=r, v_threshold=found, v_reset=reset.astype(np.float32), metadata=metadata)
    levels = {"v_threshold": found, "v_reset": reset.astype(np.float32), "v_leak": np.zeros(n, np.float32)}
    if step.synapse is None:
        return nir.LIF(tau=clock.tau(rate), r=r, **levels, metadata=metadata)
    synapse = np.broadcast_to(step.synapse, n)
    taus = {"tau_mem": clock.tau(rate), "tau_syn": clock.tau(synapse)}
    return nir.CubaLIF(**taus, r=r, w_in=1 / synapse, **levels, metadata=metadata)


class Part(NamedTuple):
    """A node that is read: what it is here, and its numbers."""

    kind: str
    """"map", "neuron" or "integrator"."""
    name: str
    size: int
    """Outputs."""
    value: Any
    """(weight, bias), a dynamics, or (rate, scale) of an integrator."""


def dynamics_of(node: Any, clock: Clock, n: int, jump: bool, told: Callable[[str, str], None]) -> Dynamics | None:
    """The neuron of a ``LIF`` or ``IF``; None where it is refused, which ``told(field, why)`` hears of.

    The gain of the input is ``R dt / tau`` (R with ``jump``, and for IF, whose R is taken per step). Where it is 1,
    and where it is ``dt / tau``, the neuron has it; else threshold and reset are divided by it.
    """
    leaky = hasattr(node, "tau")
    names = ("r", "v_threshold", "v_reset", *(("v_leak",) if leaky else ()))
    fields = _fields(node, names, ("tau",) if leaky else (), clock, n, told)
    if fields is None:
        return None
    rate, leak = fields.get("tau", np.zeros(n)), fields.get("v_leak", np.zeros(n))
    threshold, reset = fields["v_threshold"] - leak, fields["v_reset"] - leak
    gain = fields["r"] * rate if leaky and not jump else fields["r"]
    if not _levels(threshold, gain, "r", told):
        return None
    if leaky and _same(gain, rate) and not _same(gain, 1.0):
        return StrictEulerLIF(_plain(rate), _plain(threshold), "hard", True, _plain(reset))
    if not _same(gain, 1.0):
        threshold, reset = threshold / gain, reset / gain
    if leaky and not reset.any():  # ours fires at the threshold, a node above it
        above = np.nextafter(threshold.astype(np.float32), np.float32(np.inf))
        return LIF(_plain(1 - rate), _plain(above.astype(np.float64)))
    return StrictEulerLIF(_plain(rate), _plain(threshold), "hard", False, _plain(reset))


def cuba_of(node: Any, clock: Clock, n: int, jump: bool, told: Callable[[str, str], None]) -> Dynamics | None:
    """The neuron of a ``CubaLIF``, as `dynamics_of`. An input adds ``w_in dt / tau_syn`` (``w_in`` with ``jump``)."""
    names = ("r", "w_in", "v_leak", "v_threshold", "v_reset")
    fields = _fields(node, names, ("tau_mem", "tau_syn"), clock, n, told)
    if fields is None:
        return None
    mem, syn = fields["tau_mem"], fields["tau_syn"]
    threshold, reset = fields["v_threshold"] - fields["v_leak"], fields["v_reset"] - fields["v_leak"]
    into = fields["w_in"] * (1.0 if jump else syn)
    gain = into * fields["r"] * mem
    if not _levels(threshold, gain, "r, w_in", told):
        return None
    if not reset.any() and not (_same(into, 1.0) and _same(gain, mem)):
        threshold = threshold if _same(gain, 1.0) else threshold / gain
        return SnnTorchSynaptic(_plain(1 - syn), _plain(1 - mem), _plain(threshold), "zero", False)
    unit = np.ones(n) if _same(into, 1.0) and _same(gain, mem) else mem / gain
    return NorseLIF(_plain(mem), _plain(syn), _plain(threshold * unit), _plain(reset * unit))


def integrator_of(
    node: Any, clock: Clock, n: int, jump: bool, told: Callable[[str, str], None]
) -> tuple[Array, Array] | None:
    """Rate and what the weights before an ``LI`` are multiplied by, (n,) each; None where it is refused."""
    fields = _fields(node, ("r", "v_leak"), ("tau",), clock, n, told)
    if fields is None:
        return None
    rate, r, leak = (fields[name] for name in ("tau", "r", "v_leak"))
    if leak.any():
        told("v_leak", f"is {_range(leak)}; integrators here rest at 0")
    if (rate == 1).any():
        told("tau", "leaves nothing of a step for the next; such an LI is a Linear")
    if leak.any() or (rate == 1).any():
        return None
    return rate, r / rate if jump else r


def _same(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=SAME, atol=0))


def _levels(threshold: Array, gain: Array, fields: str, told: Callable[[str, str], None]) -> bool:
    if not (threshold > 0).all():
        told("v_threshold", f"is {_range(threshold)} above v_leak: the neuron would rest at or above its threshold")
    if not (gain > 0).all():
        told(fields, f"makes a gain of {_range(gain)}; a gain must be above 0")
    return bool((threshold > 0).all() and (gain > 0).all())


def _fields(
    node: Any, names: tuple[str, ...], taus: tuple[str, ...], clock: Clock, n: int, told: Callable[[str, str], None]
) -> dict[str, Array] | None:
    """Fields as they are, and time constants as the share that a step loses: (n,) each; None where one is refused."""
    found = {name: _field(node, name, n, told) for name in names}
    found |= {name: _rate(node, name, clock, n, told) for name in taus}
    kept = {name: each for name, each in found.items() if each is not None}
    return kept if len(kept) == len(found) else None


def _rate(node: Any, name: str, clock: Clock, n: int, told: Callable[[str, str], None]) -> Array | None:
    """``1 - decay``, (n,), of a field that is a time constant."""
    tau = _field(node, name, n, told)
    if tau is None:
        return None
    if not (tau > 0).all():
        told(name, f"is {_range(tau)}; a time constant must be above 0")
        return None
    rate = clock.rate(tau)
    if (rate > 1 + SAME).any():
        told(name, f"is {_range(tau)} and dt is {clock.dt:g}: Euler's step overshoots; give a smaller dt")
        return None
    if (1 - rate).astype(np.float32).max() == 1:
        told(name, f"is {_range(tau)} and dt is {clock.dt:g}: no leak is left in float32; give a larger dt")
        return None
    if (tau > LONG * clock.dt).any():
        steps = tau.max() / clock.dt
        warnings.warn(f"from_nir: a {name} is {steps:.3g} steps of dt={clock.dt:g}; is dt in its unit?", stacklevel=9)
    return np.minimum(rate, 1.0)


def _field(node: Any, name: str, n: int, told: Callable[[str, str], None]) -> Array | None:
    """A field as (n,) float64; one number stands for all neurons."""
    value = _numbers(getattr(node, name))
    if not np.isfinite(value).all():
        told(name, "holds NaN or infinity")
    elif value.size not in (1, n):
        told(name, f"has shape {value.shape}, and {n} values arrive at the node")
    else:
        return np.array(np.broadcast_to(value.reshape(-1), n))
    return None


def _plain(values: Array) -> float | Tensor:
    """One number where all are equal, with the last bits of a quotient rounded away; else a tensor."""
    if (values == values[0]).all():
        return float(f"{values[0]:.15g}")
    return torch.from_numpy(values)


def _range(values: Array) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"from {low:g} to {high:g}"
