"""`simulate`, the reference of every solver, against references of its own."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from helpers import (
    CHANNELS,
    DYNAMICS,
    assert_close,
    assert_lively,
    assert_same_spikes,
    currents,
    every_dtype,
    every_dynamics,
    published_numpy,
    some_state,
)
from own_neurons import Graded, Izhikevich2003
from torch import Tensor

from sdn import ALIF, BRF, LIF, RF, Dynamics, Neuron, simulate
from sdn.dynamics import HRF, IzhikevichRF

OWN = [dynamics for _, dynamics, _ in DYNAMICS if isinstance(dynamics, Izhikevich2003)]
"""Neurons whose rest is not 0."""


@every_dtype
@every_dynamics
@pytest.mark.parametrize("length", [63, 1024])
def test_simulate_is_the_published_update(dynamics, std, length, dtype):
    x, state = currents(std, length=length, dtype=dtype), some_state(dynamics, dtype=dtype)
    out = simulate(dynamics, x, state)
    mem, spike, margin, last = published_numpy(dynamics, x, state)
    same = assert_same_spikes(out.spike, spike, margin)
    assert out.mem.dtype == out.spike.dtype == dtype
    assert_close(torch.where(same, out.mem, 0), torch.where(same, mem, 0), dtype)
    assert torch.equal(out.input, x)
    settled = same.all(1)
    for name, got, want in zip(dynamics.State._fields, out.state, last, strict=True):
        assert getattr(out.state, name).dtype == dtype
        assert_close(torch.where(settled, got, 0), torch.where(settled, want, 0), dtype)


@every_dynamics
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 1), (2, 2)])
def test_short_sequences_and_single_rows(dynamics, std, batch, length):
    x, state = currents(std, batch, length), some_state(dynamics, batch)
    out = simulate(dynamics, x, state)
    mem, spike, _, last = published_numpy(dynamics, x, state)
    assert torch.equal(out.spike, spike)
    assert_close(out.mem, mem)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(out.state, last, strict=True))


@every_dynamics
def test_no_state_is_zeros_and_strides_do_not_matter(dynamics, std):
    x = currents(std)
    rest = dynamics.initial_state(3, CHANNELS, dtype=x.dtype)
    assert not any(value.any() for value in rest) or dynamics in OWN
    strided = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    plain = simulate(dynamics, x)
    assert_lively(plain.spike)
    for other in (simulate(dynamics, x, rest), simulate(dynamics, strided)):
        assert torch.equal(plain.mem, other.mem)
        assert torch.equal(plain.spike, other.spike)
    assert dynamics.initial_state(3, CHANNELS, dtype=torch.float64)._fields == rest._fields


@every_dtype
@every_dynamics
def test_chunks_and_steps_equal_the_whole(dynamics, std, dtype):
    x, start = currents(std, dtype=dtype), some_state(dynamics, dtype=dtype)
    whole = simulate(dynamics, x, start)
    assert_lively(whole.spike)
    for sizes in ([20, 1, 42], [1] * 63):
        state, mems, spikes = start, [], []
        for chunk in x.split(sizes, 1):
            _, mem, spike, state = simulate(dynamics, chunk, state)
            mems.append(mem)
            spikes.append(spike)
        assert torch.equal(torch.cat(mems, 1), whole.mem)
        assert torch.equal(torch.cat(spikes, 1), whole.spike)
        assert all(torch.equal(a, b) for a, b in zip(state, whole.state, strict=True))


@every_dynamics
def test_mem_is_strictly_causal_and_decides_the_spike(dynamics, std):
    x, at = currents(std), 30
    out = simulate(dynamics, x)
    moved = x.clone()
    moved[:, at] += std
    other = simulate(dynamics, moved)
    assert torch.equal(out.mem[:, : at + 1], other.mem[:, : at + 1])
    assert torch.equal(out.spike[:, :at], other.spike[:, :at])
    assert (out.mem[:, at + 1] != other.mem[:, at + 1]).any(), "the change was lost: the equalities above say nothing"
    neuron = dynamics.to("cpu", x.dtype)
    v = out.mem + neuron.gain * x - neuron.threshold
    assert_lively(out.spike)
    assert torch.equal(out.spike, (v >= 0 if isinstance(dynamics, LIF) else v > 0).to(x.dtype))


_alpha = math.exp(-1 / 3.0)
TIES = [
    pytest.param(LIF(0.5, 1.0), (0.0,), [0.5, 0.75], [0.0, 1.0], id="lif"),
    pytest.param(LIF(0.5, 2.0, "soft"), (4.0,), [0.0, 2.0], [1.0, 1.0], id="lif-soft"),
    pytest.param(RF(1.0, 1.0, dt=0.25), (0.0, 0.0), [4.0], [0.0], id="rf"),
    pytest.param(BRF(1.0, 1.0, dt=0.25), (0.0, 0.0, 0.0), [4.0], [0.0], id="brf"),
    pytest.param(HRF(1.0, 1.0, dt=0.25), (0.0, 0.0, 0.0), [4.0], [0.0], id="hrf"),
    pytest.param(IzhikevichRF(1.0, 1.0, dt=0.25), (1.0, 1.0), [0.0], [0.0], id="izhikevich"),
    pytest.param(ALIF(3.0, beta=0.0, threshold=_alpha), (1.0, 0.0, 0.0), [0.0], [0.0], id="alif"),
]


@pytest.mark.parametrize(("dynamics", "state", "inputs", "spikes"), TIES)
def test_only_lif_fires_exactly_at_the_threshold(dynamics, state, inputs, spikes):
    state = dynamics.State(*(torch.tensor([[f]], dtype=torch.float64) for f in state))
    x = torch.tensor(inputs, dtype=torch.float64).reshape(1, -1, 1)
    out = simulate(dynamics, x, state)
    v = out.mem + dynamics.gain * x - dynamics.threshold
    assert v[0, -1, 0] == 0.0, "not a tie: the test is broken"
    assert out.spike.flatten().tolist() == spikes
    nudge = -1e-9 if isinstance(dynamics, LIF) else 1e-9
    if dynamics.gain == 0:  # only the state before can move this step's potential
        state = state._replace(u=state.u + nudge)
    else:
        x = torch.cat([x[:, :-1], x[:, -1:] + nudge], 1)
    assert simulate(dynamics, x, state).spike[0, -1].item() != spikes[-1]


@every_dynamics
def test_only_neurons_that_say_so_scale_with_their_threshold(dynamics, std):
    x = currents(std, length=200)
    low, high = dynamics.replace(threshold=dynamics.threshold * 4), dynamics
    scaled, plain = simulate(low, x * 4), simulate(high, x)  # a power of two: not even rounding differs
    assert_lively(plain.spike)
    relation = torch.equal(scaled.spike, plain.spike) and torch.equal(scaled.mem, plain.mem * 4)
    ablated = isinstance(dynamics, BRF) and not dynamics.refractory_period  # it scales as well, but does not say so
    assert relation == (dynamics.scales_with_threshold or ablated)
    assert dynamics.scales_with_threshold == isinstance(dynamics, (LIF, RF, Graded))


# ---- values, your own neuron, errors
@every_dynamics
def test_facts_round_trip_and_equality(dynamics, std):
    again = Dynamics.from_facts(dynamics.facts())
    assert type(again) is type(dynamics)
    assert again == dynamics
    assert hash(again) == hash(dynamics)
    for field in dynamics.transforms:
        other = dynamics.replace(**{field: getattr(dynamics, field) * 1.05})
        assert other != dynamics
    assert dynamics != dynamics.facts()


def test_facts_round_trip_in_float64():
    lif = LIF(torch.tensor([0.1, 0.7], dtype=torch.float64))
    assert Dynamics.from_facts(lif.facts()) == lif


def test_equal_neurons_have_equal_hashes():
    assert LIF(threshold=1) == LIF(threshold=1.0)
    assert hash(LIF(threshold=1)) == hash(LIF(threshold=1.0))


def test_from_facts_refuses_strangers():
    with pytest.raises(ValueError, match=r"no dynamics is named 'Lif'.*LIF"):
        Dynamics.from_facts({"name": "Lif"})
    with pytest.raises(ValueError, match=r"LIF has the fields"):
        Dynamics.from_facts({"name": "LIF", "decay": 0.2})


def _called(name, place, **members):
    members = {"__annotations__": {"threshold": float, **dict.fromkeys(members, float)}, "threshold": 1.0, **members}
    return dataclass(frozen=True, eq=False)(type(name, (Dynamics,), {**members, "__module__": place}))


def test_from_facts_knows_classes_of_the_same_name_apart():
    first, other = _called("Twin", "one"), _called("Twin", "two", decay=0.5)
    for kind in (first, other):
        assert type(Dynamics.from_facts(kind().facts())) is kind
    again = _called("Twin", "two", decay=0.5)  # as a cell of a notebook that is run again
    assert type(Dynamics.from_facts(other().facts())) is again
    third = _called("Twin", "three")
    with pytest.raises(ValueError, match=r"several dynamics are named 'Twin': one.Twin, three.Twin; rename one"):
        Dynamics.from_facts(third().facts())


def test_from_tau():
    assert LIF.from_tau(20).decay == pytest.approx(math.exp(-1 / 20))
    assert LIF.from_tau(20, "euler", threshold=2.0, reset="soft") == LIF(1 - 1 / 20, 2.0, "soft")


class CounterState(NamedTuple):
    n: Tensor


@dataclass(frozen=True, eq=False)
class EveryThird(Dynamics):
    """A user's own: fires whenever the running sum of its input passes the threshold, then starts over."""

    threshold: float = 3.0
    State = CounterState

    def past(self, state):
        return state.n

    def advance(self, state, current, spike):
        return CounterState((state.n + current) * (1 - spike))


def test_a_neuron_of_your_own_runs_everywhere():
    x = torch.ones(2, 9, 4)
    assert simulate(EveryThird(), x).spike[0, :, 0].tolist() == [0, 0, 1] * 3
    spikes, state = Neuron(EveryThird(2.0), 4, learn={"threshold": None}, solver="loop")(x)
    assert spikes[1, :, 2].tolist() == [0, 1] * 4 + [0]
    assert state.n.shape == (2, 4)
    assert Dynamics.from_facts(EveryThird(7.0).facts()) == EveryThird(7.0)


ERRORS = [
    (lambda: LIF(decay=20.0), r"LIF: decay must be in \[0, 1\), got 20.0.*LIF.from_tau"),
    (lambda: LIF(decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
    (lambda: LIF(decay=math.nan), r"decay must be in \[0, 1\), got nan"),
    (lambda: LIF(threshold=0.0), r"threshold must be in \(0, inf\), got 0.0"),
    (lambda: LIF(reset="zero"), r"'hard', 'soft' or 'none', got 'zero'"),
    (lambda: LIF.from_tau(0.5, "euler"), r"LIF.from_tau: tau must be in \[1, inf\), got 0.5"),
    (lambda: LIF.from_tau(20, "zoh"), r"'exp' or 'euler', got 'zoh'"),
    (lambda: ALIF(tau_m=0.0), r"ALIF: tau_m must be in \(0, inf\), got 0.0"),
    (lambda: BRF(omega=101.0), r"BRF: omega must be at most 1/dt = 100, got 101.0"),
    (lambda: BRF(gamma=1.0), r"BRF: gamma must be in \[0, 1\), got 1.0"),
    (lambda: HRF(omega=116.0, b_offset=0.0), r"HRF: omega 116.0 with b_offset 0.0 and dt 0.01 diverges: dt b is 0.67"),
    (lambda: HRF(boundary="none"), r"HRF: boundary must be 'published' or 'consistent', got 'none'"),
    (lambda: IzhikevichRF(omega=30.0), r"IzhikevichRF: omega 30.0 with damping 1.0 and dt 0.01 grows by 1.03"),
    (lambda: IzhikevichRF(threshold=0.9), r"a reset leaves 0.99 = 1 - dt damping.*threshold 0.9.*raise the threshold"),
    (lambda: RF(omega=30.0, damping=1.0), r"RF: omega 30.0 with damping 1.0 and dt 0.01 grows by 1.03"),
    (lambda: simulate(LIF(), torch.ones(2, 3)), r"LIF: current must be \(batch, length, channels\).*\(2, 3\)"),
    (lambda: simulate(LIF(), torch.ones(7)), r"LIF: current must be \(batch, length, channels\).*\(7,\).*unsqueeze"),
    (lambda: simulate(LIF(), torch.ones(2, 0, 3)), r"length >= 1, got shape \(2, 0, 3\)"),
    (lambda: simulate(LIF(), torch.ones(2, 3, 4, dtype=torch.int64)), r"floating-point tensor, got torch.int64"),
    (lambda: simulate(LIF(), torch.full((2, 3, 4), math.nan)), r"24 of 24 currents are NaN or infinite"),
    (lambda: simulate(LIF(), torch.tensor([[[1.0], [math.inf]]])), r"1 of 2 currents are NaN or infinite"),
    (
        lambda: simulate(LIF(), torch.ones(2, 3, 4), LIF.State(torch.ones(1, 4))),
        r"field 'u' has shape \(1, 4\).*\(2, 4\)",
    ),
]


@pytest.mark.parametrize(("make", "message"), ERRORS, ids=[m for _, m in ERRORS])
def test_errors_say_what_is_wrong(make, message):
    """Guards defect 2: a (T,) input was meant to be reshaped, and the result thrown away."""
    with pytest.raises(ValueError, match=message):
        make()


def test_large_but_finite_currents_pass():
    assert simulate(LIF(), torch.full((1, 4, 4), 3e38)).spike.all()
