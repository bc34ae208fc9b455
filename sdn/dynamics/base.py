"""What a neuron does in one step, and the plain loop over steps that every fast path is held against.

Every neuron here spikes as ``spike[t] = H(mem[t] + gain * input[t] - threshold)``, where ``mem[t]`` is all that the
past decides. A dynamics says how ``mem`` follows from the state, and how the state moves on.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import torch
from torch import Tensor

from sdn.checks.arguments import ArgumentError, FrozenValue, init_fields, not_a_value
from sdn.checks.currents import check_current
from sdn.checks.finite import Diverged, at_once, nothing
from sdn.checks.neurons import check_fields, check_finite, check_parameters, check_range, check_state
from sdn.checks.trees import as_tree
from sdn.checks.words import DYNAMICS_WORDS, Words
from sdn.dynamics.fields import as_field
from sdn.dynamics.parts import check_class
from sdn.dynamics.record import Field
from sdn.gradients import SpikeGradient, Triangle, check_gradient, spike

__all__ = ["Diverged", "Dynamics", "State", "Trajectory", "Value", "at_start", "check_dynamics", "simulate"]

Value = float | Tensor
"""A parameter of a dynamics: a plain number, or one value per channel as an (H,) tensor."""

State = tuple[Tensor, ...]
"""A NamedTuple of tensors (B, H); each dynamics has its own, ``Dynamics.State``."""


@as_tree
class Trajectory(NamedTuple):
    """What a neuron did: ``input``, ``mem`` and ``spike`` of one shape, and the ``state`` after the last step.

    From ``simulate``: (B, L, H) and spikes in the input's dtype. From ``generate``: (samples, L) and boolean spikes.
    """

    input: Tensor
    mem: Tensor
    spike: Tensor
    state: State | None = None


class Dynamics(FrozenValue):
    """One neuron model as a frozen value: make a frozen dataclass of it with `State`, `threshold`, `past`, `advance`.

    Two dynamics are equal when their `facts()` are. Fields take a number, or one per channel as an (H,) tensor, a NumPy
    array or a list, which become float64 tensors. The ranges of what is given as a tensor are not checked.
    """

    threshold: Any
    """Where the neuron fires; a field of the dataclass or a constant of the class."""
    State: ClassVar[Any]
    """NamedTuple class whose fields are (B, H) tensors."""
    fires_at_threshold: ClassVar[bool] = True
    """Whether a potential exactly at the threshold fires."""
    default_spike: ClassVar[SpikeGradient] = Triangle()
    """The spike gradient that goes with the model in its paper."""
    made_by_name: ClassVar[dict[str, Callable[[str], Any]]] = {}
    """How a name begins, and what makes the class of that name where it was not made yet."""
    transforms: ClassVar[dict[str, str]] = {"threshold": "log"}
    """Learnable fields and the transform (log, logit, abs, none) that keeps each in range."""
    scales_with_threshold: ClassVar[bool] = False
    """Whether threshold T on x equals threshold 1 on x / T (`mem` then scales by T)."""
    when_diverging: ClassVar[str] = "look at the weights and the currents, or lower the learning rate"
    """What to do about a state that became infinite."""
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that older files of facts do not have; they then have their defaults."""
    numbers: ClassVar[tuple[str, ...]] = ()
    """Fields that are one number for all neurons, such as the length of a step."""
    spellings: ClassVar[Words] = DYNAMICS_WORDS
    """Words of other libraries and where they are said here, see `Spelled`; a neuron adds its own."""
    default_std: ClassVar[float] = 1.0
    """Standard deviation of N(0, std) currents that makes this neuron fire at a sensible rate."""
    ranges: ClassVar[Mapping[str, Field]] = {}
    """Unit and range of every field that is a number; one outside is refused before ``__post_init__``."""
    word: ClassVar[str] = ""
    """Its name on a command line; the class in small letters where there is none."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "State" in cls.__dict__:
            as_tree(cls.State)
        for name in ("__eq__", "__hash__"):  # else a plain @dataclass(frozen=True) compares tensors one by one
            if name not in cls.__dict__:
                setattr(cls, name, getattr(cls, name))

    @property
    def operations(self) -> tuple[int, int] | None:
        """Multiplications and additions of one step, without what its parameters alone decide; None: count the graph.

        A comparison and a reset count as one addition each, a product with a spike as none.
        """
        return None

    def in_range(self, **hints: str) -> None:
        """Refuse a field that is a number outside its range; ``hints`` by field add to the error."""
        for name, known in self.ranges.items():
            hint = hints.get(name, known.hint)
            check_range(type(self).__name__, name, getattr(self, name), known.low, known.high, hint, known.closed)

    @property
    def gain(self) -> Value:
        """What one unit of input adds to the membrane at once."""
        return 1.0

    def distance(self, mem: Tensor, current: Tensor) -> Tensor:
        """How far the potential is above the threshold, ``mem + gain * current - threshold``, of their shape."""
        return mem + self.gain * current - self.threshold  # type: ignore[no-any-return]

    def fires(self, mem: Tensor, current: Tensor) -> Tensor:
        """Where the neuron spikes, by its own rule at equality: bool, of their shape."""
        v = self.distance(mem, current)
        return v >= 0 if self.fires_at_threshold else v > 0

    def past(self, state: Any) -> Tensor:
        """`mem`: what the state before this step contributes to the potential. State of (B, H) -> (B, H)."""
        raise NotImplementedError(f"{type(self).__name__} must define past(state) -> mem.")

    def rise(self, state: Any) -> Tensor | float:
        """By how much the threshold in force is above `threshold`, which `past` has subtracted: a number or (B, H).

        For pictures only. A neuron whose own spikes raise its threshold says here by how much.
        """
        return 0.0

    def advance(self, state: Any, current: Tensor, spike: Tensor) -> Any:
        """The state after this step, given its current and its spike, both (B, H)."""
        raise NotImplementedError(f"{type(self).__name__} must define advance(state, current, spike) -> state.")

    def initial_state(
        self, batch: int, channels: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Any:
        """The state at rest: zeros (batch, channels) in every field."""
        return self.State(*(torch.zeros(batch, channels, device=device, dtype=dtype) for _ in self.State._fields))

    def facts(self) -> dict[str, Any]:
        """The neuron as plain values: its class name and every field, tensors as lists. Readable by `from_facts`."""
        values = {name: getattr(self, name) for name in init_fields(self)}
        plain = {k: v.detach().cpu().tolist() if isinstance(v, Tensor) else v for k, v in values.items()}
        return {"name": type(self).__name__, **plain}

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Dynamics":
        """The dynamics that `facts` came from; your own class is found by its name once it is imported.

        Raises:
            ValueError: no dynamics has that name, several have, or its fields do not fit.
        """
        known = list(_subclasses(Dynamics))
        name = facts.get("name") if isinstance(facts, dict) else None
        named = [kind for kind in known if kind.__name__ == name]
        for beginning, make in Dynamics.made_by_name.items():
            if not named and isinstance(name, str) and name.startswith(beginning):
                with contextlib.suppress(AttributeError):
                    named = [make(name)]
        if not named:
            names = ", ".join(sorted({kind.__name__ for kind in known}))
            way = "Import yours first, in a command with --neurons FILE.py."
            raise ValueError(f"no dynamics is named {name!r}; known: {names}. {way}")
        given = {k: v for k, v in facts.items() if k != "name"}
        fitting = [k for k in named if {*init_fields(k)} - {*k.later} <= {*given} <= {*init_fields(k)}]
        if not fitting:
            raise ValueError(f"{name} has the fields {init_fields(named[-1])}, the facts have {list(given)}.")
        places = {f"{kind.__module__}.{kind.__qualname__}" for kind in fitting}
        if len(places) > 1:
            raise ValueError(f"several dynamics are named {name!r}: {', '.join(sorted(places))}; rename one.")
        values = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in given.items()}
        return fitting[-1](**values)  # a class that was written again, as in a notebook, is the newest

    def prepared(self) -> Self:
        """The same neuron with what a whole run needs of its fields computed once; solvers run this one."""
        return self

    def replace(self, **fields: Any) -> Self:
        """The same neuron with some fields changed."""
        return dataclasses.replace(self, **fields)  # type: ignore[type-var]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The same neuron with its tensor fields on that device and in that dtype."""
        moved = {n: v.to(device, dtype) for n in init_fields(self) if isinstance(v := getattr(self, n), Tensor)}
        return self.with_known(moved) if any(there is not getattr(self, n) for n, there in moved.items()) else self

    def detached(self) -> Self:
        """The same neuron with tensor fields that carry no gradient."""
        still = {n: v.detach() for n in init_fields(self) if isinstance(v := getattr(self, n), Tensor)}
        return self.with_known(still) if still else self

    def with_known(self, fields: Mapping[str, Value]) -> Self:
        """As `replace`, for values that need no second look, such as its tensors elsewhere: a part of every step."""
        if torch.compiler.is_compiling() or not _is_ours(type(self)):
            return self.replace(**fields)
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__)
        found.__dict__.update(fields)
        return found

    def _convert(self) -> list[str]:
        changed = super()._convert()
        self.in_range()
        return changed

    def _converted(self, name: str, value: Any) -> Any:
        return as_field(type(self), name, value)

    def _try(self, changed: list[str]) -> None:
        """Let the neuron judge the least and the largest number of a list by itself, as it judges a number."""
        for name in changed:
            if isinstance(value := getattr(self, name), Tensor):
                for extreme in {value.min().item(), value.max().item()}:
                    self.replace(**{name: extreme})

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to run: a dynamics is a value, a `Neuron` of it is the layer."""
        name = type(self).__name__
        raise ArgumentError(
            f"{name} says what a neuron does in a step; the layer is sdn.Neuron({name}(...), channels)."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dynamics) and self.facts() == other.facts()

    def __hash__(self) -> int:
        return hash(tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in self.facts().items()))


def simulate(
    dynamics: Dynamics,
    current: Tensor,
    state: State | None = None,
    *,
    spike_gradient: SpikeGradient | None = None,
    detach_reset: bool = True,
    detach_state: bool = False,
) -> Trajectory:
    """Run a neuron step by step: the reference for every solver.

    ``mem[t] = past(state)``, ``spike[t] = H(mem[t] + gain * input[t] - threshold)``, ``state = advance(...)``.

    Args:
        dynamics: the neuron; tensor fields are (H,).
        current: (B, L, H) input, float32 or float64, finite, L >= 1.
        state: state before the first step, (B, H) per field; None is rest.
        spike_gradient: slope used where the step has none; None is the dynamics' own.
        detach_reset: keep gradients from flowing through the spike into the state (the reset).
        detach_state: keep all gradients from flowing from one step to the next.

    Returns:
        Trajectory of (B, L, H) tensors and the state after the last step; gradients flow through all of them.

    Raises:
        ValueError: a current that is not (B, L, H), floating and finite, a state of another kind or shape, or a neuron
            that diverged.
    """
    check_dynamics("simulate", dynamics)
    check_current(type(dynamics).__name__, current)
    dynamics, state = at_start(dynamics, current, state)
    if spike_gradient is not None:
        check_gradient("simulate", "spike_gradient", spike_gradient)
    first = state
    gradient = dynamics.default_spike if spike_gradient is None else spike_gradient
    mems, spikes = [], []
    for now in current.unbind(1):
        state = _detached(state) if detach_state else state
        mem = dynamics.past(state)
        if not isinstance(mem, Tensor):
            raise ArgumentError(f"{type(dynamics).__name__}.past must return a tensor, got {type(mem).__name__}.")
        fired = spike(dynamics.distance(mem, now), gradient, dynamics.fires_at_threshold)
        state = dynamics.advance(state, now, fired.detach() if detach_reset else fired)
        if not isinstance(state, dynamics.State):
            who, kind = type(dynamics).__name__, dynamics.State.__name__
            raise ArgumentError(f"{who}.advance must return the next {kind}, got {type(state).__name__}.")
        mems.append(mem)
        spikes.append(fired)
    state = _detached(state) if detach_state else state
    check_finite(dynamics, state, current, first)
    return Trajectory(current, torch.stack(mems, 1), torch.stack(spikes, 1), state)


def _detached(state: State) -> State:
    return type(state)(*(value.detach() for value in state))


def at_start(dynamics: Dynamics, current: Tensor, state: State | None) -> tuple[Dynamics, State]:
    """The neuron in the current's dtype and on its device, and the state before the first step: that given, or rest."""
    batch, _, channels = current.shape
    check_fields(dynamics, channels)
    dynamics = dynamics.to(current.device, current.dtype)
    if state is None:
        state = dynamics.initial_state(batch, channels, current.device, current.dtype)
    check_state(dynamics, state, (batch, channels), current.shape[1])
    check_parameters(dynamics)
    return (dynamics if at_once(current) else _without_infinity(dynamics)).prepared(), state


def check_dynamics(who: str, dynamics: Any) -> None:
    """Refuse what is no value of a neuron, such as the class LIF, the word "lif" or a layer.

    Raises:
        ArgumentError: another kind of thing; the sentence says what to write.
    """
    if isinstance(dynamics, Dynamics):
        check_class(type(dynamics))
        return
    if isinstance(getattr(dynamics, "dynamics", None), Dynamics):
        kind, way = type(dynamics).__name__, "write found.neuron(channels), or found.dynamics"
        raise ArgumentError(f"{who}: dynamics must be a neuron, such as sdn.LIF(), got a {kind}, which has one; {way}.")
    public = [kind for kind in _subclasses(Dynamics) if kind.__module__.startswith("sdn.dynamics.")]
    words = {kind.__name__.lower(): f"sdn.{kind.__name__}()" for kind in public}
    foreign = {"leaky": "sdn.LIF(decay=0.9)", "lifnode": "sdn.LIF.from_tau(2.0)", "bhrf": "sdn.HRF()"}
    fits = isinstance(dynamics, type) and issubclass(dynamics, Dynamics) and dynamics is not Dynamics
    raise ArgumentError(not_a_value(who, "dynamics", dynamics, "a neuron", "sdn.LIF()", fits, words | foreign))


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("sdn.")


def _without_infinity(dynamics: Dynamics) -> Dynamics:
    """The neuron with NaN for infinite fields, of which its equation could make a plausible number."""
    fields = {name: value for name in init_fields(dynamics) if isinstance(value := getattr(dynamics, name), Tensor)}
    return dynamics.replace(**{name: value + nothing(value) for name, value in fields.items()}) if fields else dynamics


def _subclasses(base: type[Dynamics]) -> Iterator[type[Dynamics]]:
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)
