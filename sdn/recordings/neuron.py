"""A neuron of no known equation: K poles, driven by the current and by its own spikes, and a small static network."""

import dataclasses
import functools
import re
from collections import namedtuple
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdn.checks.arguments import check_count
from sdn.dynamics.base import Dynamics, Value
from sdn.dynamics.record import Field
from sdn.gradients import SpikeGradient, Triangle

__all__ = ["LearnedNeuron", "learned_neuron"]

MOST = 32
"""Poles and hidden units: their numbers are in one compiled loop."""


class LearnedNeuron(Dynamics):
    """What `sdn.learn_neuron` fits: a bank of poles that spikes may reset, read by a few units that integrate.

    Pole k keeps the complex number z_k, unit j the number y_j. With ``a_k = decay_k exp(i turn_k)``, at each step:
    ``p_k = a_k z_k``, ``h_j = hold_j y_j + tanh(bias_j + sum_k Re(conj(weight_jk) p_k))``,
    ``mem = sum_k Re(conj(direct_k) p_k) + sum_j out_j h_j``, ``spike = H(mem + drive input - threshold)``, and then
    ``z_k = (p_k + (1 - decay_k) input) (1 - reset_k spike) + kick_k spike``, ``y_j = h_j (1 - clear_j spike)``.
    With the spikes given, all steps are two scans, which is how it is trained. A LIF is one of them: one pole with
    ``turn 0, reset 1, kick 0``. A unit that holds makes the delay of a spike that is slow to rise.

    The classes with fields are made by `learned_neuron`, one for each number of poles and hidden units, since every
    number is a field, which `sdn.Neuron` can learn and a compiled loop reads without being compiled again.

    Source: linear filters with a static network, as in Burghi et al., PNAS 122, 2025; the spike's reset is ours.
    """

    poles: ClassVar[int]
    hidden: ClassVar[int]
    threshold: Value
    drive: Value

    default_spike: ClassVar[SpikeGradient] = Triangle()
    when_diverging: ClassVar[str] = "the decays are below 1, so look at the currents and at the weights"

    @property
    def gain(self) -> Value:
        """``drive``."""
        return self.drive

    def past(self, state: Any) -> Tensor:
        """What the poles of the steps before say through the network: (B, H)."""
        turned = self._turned(state)
        mem: Tensor = self._read("direct", "", turned)
        for j, unit in enumerate(self._units(state, turned)):
            mem = mem + self._at(f"out{j}") * unit
        return mem

    def advance(self, state: Any, current: Tensor, spike: Tensor) -> Any:
        """The poles after this step's current and spike: (B, H) in each field."""
        after: list[Tensor] = []
        turned = self._turned(state)
        for k, (real, imag) in enumerate(turned):
            keep = 1 - self._at(f"reset{k}") * spike
            after.append((real + (1 - self._at(f"decay{k}")) * current) * keep + self._at(f"kick{k}") * spike)
            after.append(imag * keep + self._at(f"kick_i{k}") * spike)
        for j, unit in enumerate(self._units(state, turned)):
            after.append(unit * (1 - self._at(f"clear{j}") * spike))
        return self.State(*after)

    def _at(self, name: str) -> Any:
        return getattr(self, name)

    def _turned(self, state: Any) -> list[tuple[Tensor, Tensor]]:
        """Each pole a step later, without input."""
        found = []
        for k in range(self.poles):
            turn, decay = torch.as_tensor(self._at(f"turn{k}")), self._at(f"decay{k}")
            cos, sin = decay * torch.cos(turn), decay * torch.sin(turn)
            real, imag = state[2 * k], state[2 * k + 1]
            found.append((cos * real - sin * imag, sin * real + cos * imag))
        return found

    def _units(self, state: Any, turned: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The hidden units of this step."""
        found = []
        for j in range(self.hidden):
            inside = self._read("weight", f"{j}_", turned) + self._at(f"bias{j}")
            found.append(self._at(f"hold{j}") * state[2 * self.poles + j] + torch.tanh(inside))
        return found

    def _read(self, name: str, prefix: str, turned: list[tuple[Tensor, Tensor]]) -> Any:
        """A weighted sum over real and imaginary parts."""
        return sum(
            self._at(f"{name}{prefix}{k}") * real + self._at(f"{name}_i{prefix}{k}") * imag
            for k, (real, imag) in enumerate(turned)
        )


@functools.cache
def learned_neuron(poles: int, hidden: int) -> type[LearnedNeuron]:
    """The class of a size, ``LearnedNeuron<poles>x<hidden>``; the same one for the same size.

    Args:
        poles: K, from 1 to 32.
        hidden: units of the static network, from 0 (it is linear then) to 32.

    Raises:
        ValueError: another size.
    """
    for name, count, least in (("poles", poles, 1), ("hidden", hidden, 0)):
        check_count("learned_neuron", name, count, least=least)
        if count > MOST:
            raise ValueError(f"learned_neuron: {name} must be at most {MOST}, got {count}.")
    fields = dict(_fields(poles, hidden))
    name = f"LearnedNeuron{poles}x{hidden}"
    names = [f"{part}{k}" for k in range(poles) for part in ("real", "imag")] + [f"unit{j}" for j in range(hidden)]
    state = namedtuple(f"{name}State", names)  # type: ignore[misc]
    factors = [*(f"decay{k}" for k in range(poles)), *(f"hold{j}" for j in range(hidden))]
    ranges = {name: Field("factor per step", 0, 1, closed=True) for name in factors}
    transforms = {field: _transform(field) for field in fields}
    space = {
        "State": state, "poles": poles, "hidden": hidden, "transforms": transforms, "ranges": ranges,
        "__module__": __name__, "__doc__": f"`LearnedNeuron` with {poles} poles and {hidden} hidden units.",
    }  # fmt: skip
    given = [(field, Value, dataclasses.field(default=value)) for field, value in fields.items()]
    made = dataclasses.make_dataclass(name, given, bases=(LearnedNeuron,), namespace=space, frozen=True, eq=False)
    made.__module__ = state.__module__ = __name__
    globals()[name], globals()[state.__name__] = made, state
    return made


def __getattr__(name: str) -> Any:
    """The class of a size, and its state, by their names: pickled neurons are found again."""
    size = re.fullmatch(r"LearnedNeuron(\d{1,2})x(\d{1,2})(State)?", name)
    if size is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made: Any = learned_neuron(int(size[1]), int(size[2]))
    return made.State if size[3] else made


def _fields(poles: int, hidden: int) -> list[tuple[str, float]]:
    """Names and defaults; a neuron of the defaults is a LIF on its first pole."""
    found = [("drive", 0.1), ("threshold", 1.0)]
    for k in range(poles):
        found += [(f"decay{k}", 0.9), (f"turn{k}", 0.0), (f"reset{k}", 1.0), (f"kick{k}", 0.0), (f"kick_i{k}", 0.0)]
        found += [(f"direct{k}", float(k == 0)), (f"direct_i{k}", 0.0)]
    for j in range(hidden):
        found += [(f"bias{j}", 0.0), (f"out{j}", 0.0), (f"hold{j}", 0.0), (f"clear{j}", 1.0)]
        found += [(f"{name}{j}_{k}", 0.0) for k in range(poles) for name in ("weight", "weight_i")]
    return found


def _transform(field: str) -> str:
    return "logit" if field.startswith(("decay", "reset", "hold", "clear")) else "none"
