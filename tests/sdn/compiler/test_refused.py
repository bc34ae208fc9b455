"""What cannot be compiled is refused when the neuron is made: by operation, by line, with the way out."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

import sdn
from sdn import Dynamics, Neuron
from sdn.compiler.programs import program, program_of


class State(NamedTuple):
    u: torch.Tensor


@dataclass(frozen=True)
class Leaky(Dynamics):
    threshold: float = 1.0
    State = State

    def past(self, state):
        return 0.5 * state.u

    def advance(self, state, current, spike):
        return State((self.past(state) + current) * (1 - spike))


class Sums(Leaky):
    def past(self, state):
        return state.u.mean(dim=-1, keepdim=True) + 0 * state.u  # all channels


class Branches(Leaky):
    def past(self, state):
        if state.u.sum() > 0:
            return 0.5 * state.u
        return 0.2 * state.u


class Compares(Leaky):
    def past(self, state):
        return 0.5 * state.u if (state.u > 0).all() else state.u


class Reads(Leaky):
    def past(self, state):
        return state.u * state.u[0, 0].item()


class Writes(Leaky):
    def past(self, state):
        u = state.u.clone()
        u *= 0.5
        return u


class Draws(Leaky):
    def past(self, state):
        return 0.5 * state.u + torch.rand_like(state.u)


class DrawsByShape(Leaky):
    def past(self, state):
        return 0.5 * state.u + torch.rand(state.u.shape)


class Columns(Leaky):
    def past(self, state):
        return (0.5 * state.u).view(-1, 1).reshape(state.u.shape)


class Grows(Leaky):
    def advance(self, state, current, spike):
        return State(torch.cat([state.u, current], -1))


class Turns(Leaky):
    def past(self, state):
        return state.u.flip(-1)


class Rounds(Leaky):
    def past(self, state):
        return state.u.half().to(state.u.dtype)


class Complex(Leaky):
    def past(self, state):
        return torch.complex(state.u, state.u).abs()


class Sorted:
    def slope(self, v):
        return v.sort(-1)[0]


REFUSED = [
    (Sums, r"uses mean.*line \d+ of test_refused.py: return state.u.mean"),
    (Branches, r"uses sum|reads a number out of a tensor"),
    (Compares, r"uses all|reads a number out of a tensor"),
    (Reads, r"select|reads a number out of a tensor"),
    (Writes, r"changes a tensor in place \(mul_\).*line \d+ of test_refused.py: u \*= 0.5"),
    (Draws, r"draws random numbers \(rand_like\)"),
    (DrawsByShape, r"draws random numbers \(rand\).*line \d+ of test_refused.py: return 0.5 \* state.u \+ torch.rand"),
    (Columns, r"uses _?(unsafe_)?view to make shape \(2, 1\) of \(1, 2\)"),
    (Grows, r"uses cat"),
    (Turns, r"uses flip.*line \d+"),
    (Rounds, r"changes the precision from torch.float32 to torch.float16"),
    (Complex, r"uses complex"),
]


@pytest.mark.parametrize(("kind", "message"), REFUSED, ids=[kind.__name__ for kind, _ in REFUSED])
def test_a_step_that_is_not_elementwise_is_refused_by_name(kind, message):
    for make in (lambda: Neuron(kind(), 4), lambda: sdn.source(kind())):
        with pytest.raises(NotImplementedError, match=f"{kind.__name__} .*({message}).*use solver='loop'"):
            make()
    spikes, _ = Neuron(kind(), 4, solver="loop")(torch.randn(2, 3, 4)) if kind is not Grows else (torch.zeros(1), 0)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


def test_so_is_a_spike_gradient():
    with pytest.raises(NotImplementedError, match=r"Sorted uses sort.*use solver='loop'"):
        Neuron(Leaky(), 4, spike=Sorted())
    assert Neuron(Leaky(), 4, spike=Sorted(), solver="loop")(torch.randn(2, 3, 4))[0].shape == (2, 3, 4)


def test_a_branch_on_a_switch_is_none():
    @dataclass(frozen=True)
    class Switched(Leaky):
        fast: bool = True

        def past(self, state):
            return (0.2 if self.fast else 0.9) * state.u

    x = torch.randn(2, 40, 4)
    for fast in (True, False):
        neuron = Neuron(Switched(fast=fast), 4)
        assert torch.equal(neuron(x)[0], neuron.with_solver("loop")(x)[0])
    assert not torch.equal(Neuron(Switched(), 4)(x)[0], Neuron(Switched(fast=False), 4)(x)[0])


def test_generate_says_that_it_goes_step_by_step():
    with pytest.warns(UserWarning, match="Turns uses flip.*simulated step by step"):
        made = sdn.generate(Turns(), 4, 60, std=1.0)
    assert made.mem.shape == (4, 60)


def test_a_tensor_of_equal_numbers_is_a_number():
    class Filled(Leaky):
        def past(self, state):
            return torch.full(state.u.shape, 0.5) * state.u

    x = torch.randn(3, 40, 5)
    neuron = Neuron(Filled(), 5)
    assert torch.equal(neuron(x)[0], neuron.with_solver("loop")(x)[0])


class Fans(Leaky):
    """A gain that depends on how many channels there are, and one number where there is one channel."""

    def past(self, state):
        return torch.linspace(0.2, 0.9, state.u.shape[-1], dtype=state.u.dtype) * state.u


class Shares(Leaky):
    def past(self, state):
        return state.u / state.u.shape[-1]


class Exact(Leaky):
    def past(self, state):
        return torch.tensor(0.3, dtype=state.u.dtype) * state.u


@pytest.mark.parametrize("kind", [Fans, Shares, Exact])
def test_what_a_step_reads_of_its_shape_is_read_again(kind):
    for channels, dtype in ((1, torch.float32), (4, torch.float64), (2, torch.float64), (1, torch.float64)):
        x = torch.randn(3, 200, channels, dtype=torch.float64).to(dtype)
        neuron = Neuron(kind(), channels)
        want = neuron.with_solver("loop")(x)
        found = neuron(x)
        assert torch.equal(found[0], want[0])
        assert torch.equal(found[1].u, want[1].u)
        assert 0 < found[0].mean() < 1


class Sums2(Leaky):
    def past(self, state):
        return 0.4 * state.u * ((state.u > 0) + (state.u > 0.5)) + 0.2 * state.u  # 1 where both hold: conditions


class Stops(Leaky):
    def past(self, state):
        return 0.5 * state.u + 0.3 * state.u.detach()


class Turns2(Leaky):
    def past(self, state):
        return state.u * (0.5 if state.u.shape[-1] > 6 else 0.9)


class Lone(Leaky):
    def past(self, state):
        return state.u * (0.5 if state.u.shape[-1] == 1 else 0.9)


@pytest.mark.parametrize("kind", [Sums2, Stops, Turns2, Lone])
def test_what_is_compiled_is_the_loop_with_its_gradient(kind):
    for channels in (1, 4, 9):
        x = torch.randn(3, 100, channels, requires_grad=True)
        weight = torch.randn(3, 100, channels)
        neuron = Neuron(kind(), channels)
        (got, want) = (layer(x)[0] for layer in (neuron, neuron.with_solver("loop")))
        assert torch.equal(got, want)
        assert 0 < got.mean() < 1
        grads = [torch.autograd.grad((spikes * weight).sum(), x, retain_graph=True)[0] for spikes in (got, want)]
        assert torch.allclose(*grads, rtol=1e-4, atol=1e-5)


class Halves(Leaky):
    def past(self, state):
        return ((state.u > 0) * 0.3 + 0.5) * state.u  # 0.3 and 0.5 in torch's default precision


def test_another_precision_than_that_of_the_state_is_refused():
    neuron, x = Neuron(Halves(), 4), torch.randn(3, 50, 4)
    assert torch.equal(neuron(x)[0], neuron.with_solver("loop")(x)[0])
    with pytest.raises(NotImplementedError, match=r"computes in torch.float32 where the state is in torch.float64"):
        neuron(x.double())


class Whole(Leaky):
    def past(self, state):
        return (4 * state.u).int() / 4


class Lists(Leaky):
    def past(self, state):
        return state.u * 0.5 + torch.tensor(state.u.tolist(), dtype=state.u.dtype)


class Weighs(Leaky):
    def past(self, state):
        return torch.add(state.u, state.u, alpha=-0.3)


@pytest.mark.parametrize(
    ("kind", "message"), [(Whole, "makes whole numbers"), (Lists, "by another way than torch's"), (Weighs, "alpha")]
)
def test_what_would_be_lost_is_refused(kind, message):
    with pytest.raises(NotImplementedError, match=message):
        Neuron(kind(), 4)


KNOB = {"decay": 0.2}


class Knob(Leaky):
    def past(self, state):
        return KNOB["decay"] * state.u


class Setting:
    decay = 0.2


@dataclass(frozen=True)
class Set(Leaky):
    setting: Setting = Setting()  # noqa: RUF009

    def past(self, state):
        return self.setting.decay * state.u


def test_what_changed_outside_of_the_fields_is_seen(monkeypatch):
    x = torch.randn(3, 100, 4)
    for neuron in (Knob(), Set()):
        Neuron(neuron, 4)(x)
    monkeypatch.setitem(KNOB, "decay", 0.9)
    monkeypatch.setattr(Setting, "decay", 0.9)
    for neuron in (Knob(), Set()):
        layer = Neuron(neuron, 4)
        assert torch.equal(layer(x)[0], layer.with_solver("loop")(x)[0])


@dataclass(frozen=True)
class Typed(Leaky):
    mode: int = 1

    def past(self, state):
        return (0.2 if isinstance(self.mode, bool) else 0.9) * state.u


def test_options_that_are_equal_and_of_another_kind_are_told_apart():
    x = torch.randn(3, 100, 4)
    for mode in (1, True, 1.0):
        layer = Neuron(Typed(mode=mode), 4)
        assert torch.equal(layer(x)[0], layer.with_solver("loop")(x)[0])


class Crowds(Leaky):
    def past(self, state):
        return state.u / len(state.u)


def test_what_depends_on_the_batch_is_refused():
    with pytest.raises(NotImplementedError, match="Crowds reads the size of the batch"):
        Neuron(Crowds(), 4)


def test_a_program_from_a_file_finds_neurons_only():
    for key in ('os:system{"command": "touch x"}#0', 'LIF{"reset": "hard"}#0', "nowhere:Thing{}#0", "sdn:scan{}#0"):
        with pytest.raises(RuntimeError, match=r"cannot be found|is another one than when the program was made"):
            program(key)
    known = program_of(sdn.LIF(reset="soft"))
    assert program(known.key) is known
