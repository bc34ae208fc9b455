"""A neuron of the user's own that lacks a part, or answers with something else, is told so in one sentence."""

import dataclasses
from typing import NamedTuple

import pytest
import torch

import sdn


class State(NamedTuple):
    u: torch.Tensor


class Bare(sdn.Dynamics):
    pass


@dataclasses.dataclass(frozen=True)
class Stateless(sdn.Dynamics):
    threshold: float = 1.0


@dataclasses.dataclass(frozen=True)
class Whole(sdn.Dynamics):
    threshold: float = 1.0
    State = State

    def past(self, state):
        return 0.5 * state.u

    def advance(self, state, current, spike):
        return State(0.5 * state.u + current - spike)


class Inherited(Whole):
    """A subclass needs no decorator where it has no fields of its own."""


@dataclasses.dataclass(frozen=True)
class WithoutThreshold(sdn.Dynamics):
    State = State


class Forgetful(Whole):
    def advance(self, state, current, spike):
        return 0.5 * state.u + current


class Pair(Whole):
    def past(self, state):
        return (state.u, 0)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Bare, "Bare: write @dataclasses.dataclass"),
        (Stateless, "Stateless: needs State, the NamedTuple"),
        (WithoutThreshold, "WithoutThreshold: needs a threshold"),
        (Forgetful, "Forgetful.advance must return the next State, got Tensor"),
        (Pair, "Pair.past must return a tensor, got tuple"),
    ],
)
def test_a_missing_part_is_named(kind, says) -> None:
    x = torch.randn(1, 4, 3)
    for call in (lambda: sdn.Neuron(kind(), 3, solver="loop")(x), lambda: sdn.simulate(kind(), x)):
        with pytest.raises(ValueError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Whole, Inherited])
def test_a_whole_one_runs(kind) -> None:
    spikes = sdn.Neuron(kind(), 3, solver="loop")(2 * torch.randn(1, 40, 3))[0]
    assert 0.05 < spikes.mean() < 0.9
