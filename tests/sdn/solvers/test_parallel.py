"""What is particular to the parallel solver: chunks, linear repair, one scan, certificates, the bound on rounding."""

from dataclasses import dataclass
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from helpers import (
    BUILT_IN,
    CHANNELS,
    DYNAMICS,
    assert_close,
    assert_lively,
    currents,
    every_dtype,
    every_fused,
    examples,
    some_state,
)
from hypothesis import HealthCheck, given, settings

from sdn import ALIF, BRF, LIF, RF, ArcTan, Dynamics, Fused, Loop, Neuron, Parallel, Surrogate, Triangle, simulate
from sdn.compiler.programs import program_of, slope_of
from sdn.dynamics import HRF, IzhikevichRF
from sdn.ops.chunks.seams import HELD
from sdn.ops.neuron.sequence import operands
from sdn.solvers.chunks import Rows, follows, proof, run_in_chunks, run_rows
from sdn.solvers.linear import certain, distance_error, spikes_at
from sdn.solvers.linear import solve as solve_linear
from sdn.solvers.parallel import Certificate, solve


def _over(rows):
    return pytest.mark.parametrize(("dynamics", "std"), [pytest.param(d, s, id=n) for n, d, s in rows])


every_linear = _over([row for row in DYNAMICS if program_of(row[1]).affine is not None])
every_other = _over([row for row in DYNAMICS if program_of(row[1]).affine is None])


def exact(dynamics, x, state=None):
    return simulate(dynamics.to("cpu", x.dtype), x, state).spike


def rows_of(dynamics, x, state):
    """(1, L, n) currents and (1, n) states as `Rows`."""
    kernel, first, _ = operands(dynamics.to("cpu", x.dtype), x, state, dynamics.default_spike)
    return Rows(kernel, x, first)


@every_dtype
@every_linear
def test_known_spikes_leave_a_linear_recurrence(dynamics, std, dtype):
    x, state = currents(std, length=300, dtype=dtype), some_state(dynamics, dtype=dtype)
    dynamics = dynamics.to("cpu", dtype)
    truth = simulate(dynamics, x, state)
    assert_lively(truth.spike)
    kernel, first, _ = operands(dynamics, x, state, dynamics.default_spike)
    distance, states = solve_linear(kernel, x, first, truth.spike)
    assert_close(distance, dynamics.distance(truth.mem, x))
    assert_close(states[:, -1], torch.stack(truth.state, 1))
    middle = solve_linear(kernel, x, first, truth.spike, slice(99, None, 100)).states
    for i, length in enumerate((100, 200, 300)):
        assert_close(middle[:, i], torch.stack(simulate(dynamics, x[:, :length], state).state, 1))


@every_dtype
@every_linear
def test_the_bound_on_rounding_holds_and_is_not_idle(dynamics, std, dtype):
    """The loop against the linear solution in float64: the bound covers every step."""
    x, state = currents(std, length=500, dtype=dtype), some_state(dynamics, dtype=dtype)
    dynamics = dynamics.to("cpu", dtype)
    truth = simulate(dynamics, x, state)
    kernel, first, _ = operands(dynamics, x, state, dynamics.default_spike)
    bound = distance_error(kernel, x, first, truth.spike)
    wide = kernel._replace(fixed=kernel.fixed.double())
    ideal = solve_linear(wide, x.double(), first.double(), truth.spike.double()).distance
    looped = mem_of(kernel, x, first, dynamics)
    assert ((looped.double() - ideal).abs() <= bound).all()
    scale = ideal.abs().max()
    eps = torch.finfo(dtype).eps
    assert 0.05 * eps * scale < bound.mean() < 1e4 * eps * scale, "so wide that no row would ever be certified"


def mem_of(kernel, x, first, dynamics):
    """The distance to the threshold, as the loop rounds it."""
    return dynamics.distance(simulate(dynamics, x, dynamics.State(*first.unbind(1))).mem, x)


@st.composite
def hard_cases(draw):
    """Neurons, currents and states with potentials near the threshold: long, driven, and cut anywhere."""
    _, dynamics, std = draw(st.sampled_from([row for row in DYNAMICS if "channels" not in row[0]]))
    length, channels = draw(st.integers(1, 400)), draw(st.sampled_from([1, 4, 33]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = currents(std * draw(st.sampled_from([0.2, 1, 2])), 2, length, channels, dtype, draw(st.integers(0, 999)))
    x = x + std * draw(st.sampled_from([0.0, 0.3, 0.8]))
    if draw(st.booleans()):
        x = (x / std * 8).round() * std / 8  # potentials that are the same number again and again
    state = some_state(dynamics, 2, channels, dtype, draw(st.integers(0, 99)))
    options = {"chunk": draw(st.integers(1, 90)), "warm_up": draw(st.integers(0, 40))}
    return dynamics, x, state, Parallel(draw(st.integers(1, 20)), **options)


@settings(max_examples=examples(60, 500), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=hard_cases())
def test_a_certificate_is_true(case):
    """Every row that settled or is certified spikes as the loop does, before anything is handed over."""
    dynamics, x, state, solver = case
    flat = x.transpose(0, 1).reshape(1, x.shape[1], -1)
    rows = rows_of(dynamics, flat, dynamics.State(*(field.reshape(1, -1) for field in state)))
    spikes, final = run_rows(rows)
    found = run_in_chunks(rows, solver.chunk, solver.warm_up, solver.max_rounds)
    same = (found.spikes == spikes).all(1).squeeze(0)
    assert same[found.settled | (found.margin > 1)].all()
    assert torch.equal(found.final[..., found.settled], final[..., found.settled])
    near = found.margin > 1
    if near.any():
        assert_close(found.final[..., near], final[..., near], factor=10)
    got, last, certificate = solve(dynamics, x, state, solver=solver)
    assert torch.equal(got, exact(dynamics, x, state))
    assert certificate.settled + certificate.certified + certificate.handed_over == certificate.rows
    assert certificate.margin > 1
    if certificate.handed_over == certificate.rows:
        assert_close(torch.stack(last), torch.stack(simulate(dynamics.to("cpu", x.dtype), x, state).state))


@every_fused
def test_chunks_forget_wrong_guesses_or_say_so(dynamics, std):
    x, state = currents(std, length=201), some_state(dynamics)
    want, dynamics = exact(dynamics, x, state), dynamics.to("cpu", torch.float64)
    for chunk, warm_up in ((1000, 0), (50, 20), (7, 60), (7, 0)):
        each_settles_a_chunk = Parallel(-(-201 // chunk), chunk, warm_up)
        spikes, _, certificate = solve(dynamics, x, state, solver=each_settles_a_chunk)
        assert torch.equal(spikes, want)
        assert certificate.handed_over == 0
    assert solve(dynamics, x, state, solver=Parallel(1, chunk=1000))[2].rounds == 1
    few = solve(dynamics, x, state, solver=Parallel(1, 7, 0))
    assert torch.equal(few[0], want)
    assert few[2].rounds == 1


@pytest.mark.parametrize(("decay", "rounds"), [(0.125, 1), (0.5, 1), (0.9, 1), (0.99, 5)])
def test_settles_on_noise(decay, rounds):
    x = currents(1.0, 4, 1024, 64, torch.float32)
    spikes, _, certificate = solve(LIF(decay), x, solver=Parallel(chunk=128))
    assert torch.equal(spikes, exact(LIF(decay), x))
    assert_lively(spikes)
    assert certificate.rounds <= rounds
    assert certificate.settled + certificate.certified == certificate.rows == 256


REPAIRED = [
    ("brf", BRF(), 32, 10),
    ("brf-128", BRF(), 128, 6),
    ("hrf", HRF(), 32, 9),
    ("izhikevich", IzhikevichRF(), 32, 12),
    ("alif", ALIF(), 32, 25),
    ("lif-soft", LIF(0.99, reset="soft"), 32, 20),
]


@pytest.mark.parametrize(("dynamics", "chunk", "rounds"), [pytest.param(*row[1:], id=row[0]) for row in REPAIRED])
def test_neurons_that_forget_slowly_settle_by_repair(dynamics, chunk, rounds):
    x = currents(dynamics.default_std, 1, 1024, 64, torch.float32)
    spikes, _, certificate = solve(dynamics, x, solver=Parallel(chunk=chunk))
    assert torch.equal(spikes, exact(dynamics, x))
    assert_lively(spikes)
    assert certificate.rounds <= rounds
    assert certificate.handed_over == 0


@every_other
def test_neurons_that_are_not_linear_are_repaired_too(dynamics, std):
    x = currents(std, 1, 1024, CHANNELS, torch.float32)
    spikes, _, certificate = solve(dynamics, x, solver=Parallel(chunk=32, warm_up=32))
    assert torch.equal(spikes, exact(dynamics, x))
    assert certificate.rounds < 24
    assert certificate.settled == CHANNELS


def test_wrong_spikes_are_not_proved():
    x = currents(1.0, 1, 300, 40, torch.float32)
    rows = rows_of(LIF(0.6), x, LIF(0.6).initial_state(1, 40))
    spikes, last = run_rows(rows)
    wrong = spikes.clone()
    wrong[:, 200, ::2] = 1 - wrong[:, 200, ::2]
    margin, known = proof(rows, wrong, torch.zeros_like(last))
    assert (margin[::2] == 0).all()
    assert not known[..., ::2].any()
    assert (margin[1::2] > 1).any()
    assert_close(known[..., margin > 1], last[..., margin > 1])


def test_the_spike_follows_the_potential_after_a_soft_reset_only():
    x = currents(1.0, 1, 30, CHANNELS)
    soft = {
        name for name, dynamics, _ in BUILT_IN
        if follows(rows_of(dynamics, x, dynamics.initial_state(1, CHANNELS, "cpu", x.dtype))) != HELD
    }  # fmt: skip
    assert soft == {"lif-soft", "lif-soft-channels", "alif", "alif-channels"}
    rows = rows_of(LIF(0.5, reset="soft"), 2.0 + 0 * x, LIF(0.5).initial_state(1, CHANNELS, "cpu", x.dtype))
    assert follows(rows) == slope_of(Triangle(4.0))
    assert follows(rows._replace(x=0 * x)) == follows(rows._replace(x=x / 0)) == HELD


def test_a_spike_that_moves_no_state_takes_one_scan(monkeypatch):
    monkeypatch.setattr("sdn.solvers.parallel.run_in_chunks", lambda *_: pytest.fail("run in chunks"))
    for dynamics in (RF(17.0, 3.0, 0.012, 0.6), LIF(0.5, reset="none")):
        x = currents(dynamics.default_std, length=300, dtype=torch.float32)
        spikes, last, certificate = solve(dynamics, x)
        assert_lively(spikes)
        truth = simulate(dynamics.to("cpu", x.dtype), x)
        assert torch.equal(spikes, truth.spike)
        assert_close(torch.stack(last), torch.stack(truth.state))
        assert certificate.rounds == 1
        assert certificate.settled == 0
        assert certificate.certified == certificate.rows


def test_currents_near_the_threshold_are_handed_over():
    """Held just below the threshold, the phase of the spikes depends on all of the past."""
    x = torch.linspace(0.88, 0.999, 32).expand(1, 600, 32).contiguous()
    spikes, _, certificate = solve(LIF(0.125), x, solver=Parallel(max_rounds=3, chunk=50, warm_up=9))
    assert_lively(spikes)
    assert certificate.rounds == 3
    assert 0 < certificate.handed_over <= 32
    assert torch.equal(spikes, exact(LIF(0.125), x))


def test_a_potential_on_the_threshold_is_not_certified():
    x = torch.zeros(1, 40, 3, dtype=torch.float64)
    x[0, ::7, 0], x[0, ::7, 1], x[0, ::7, 2] = 1.0, 1.0 + 1e-14, 1.5
    spikes, _, certificate = solve(LIF(0.5, reset="none"), x)
    assert torch.equal(spikes, exact(LIF(0.5, reset="none"), x))
    assert certificate == Certificate(1, 3, 0, 2, 1, certificate.margin)


def test_a_wrong_certificate_would_be_noticed(monkeypatch):
    """Rows are handed over because of the bound: with hardly any, ties are decided by the scan's own rounding."""
    x = currents(25.0, 2, 4000, 40, torch.float32)
    handed = solve(RF(17.0, 3.0, 0.012, 0.6), x)[2].handed_over
    monkeypatch.setattr("sdn.solvers.linear.distance_error", lambda *_: torch.full((1, 1, 1), 1e-30))
    assert solve(RF(17.0, 3.0, 0.012, 0.6), x)[2].handed_over < handed


def test_a_resonator_whose_terms_cancel_is_not_certified_by_mistake():
    """With dt * damping near 1 the step adds two large numbers of opposite sign and keeps their rounding."""
    dynamics = RF(omega=0.5, damping=100.0, dt=0.01, threshold=1.0)
    draw = torch.Generator().manual_seed(0)
    big = 10.0 ** (3 + 2 * torch.rand(4000, generator=draw))
    x = torch.stack([big, 100 + 1e-3 * torch.randn(4000, generator=draw)]).reshape(1, 2, 4000)
    x[..., 0] = torch.tensor([11149.3955078125, 99.99948120117188])
    spikes, _, certificate = solve(dynamics, x)
    want = exact(dynamics, x)
    assert 0.2 < want[0, 1].mean() < 0.8
    assert torch.equal(spikes, want)
    assert certificate.handed_over > 0


@pytest.mark.parametrize("decay", [-0.95, -0.5])
def test_the_bound_is_one_for_any_sign(decay):
    """A tensor field is not checked, so a neuron can come with a negative decay."""
    x = currents(1.0, 4, 300, 40, torch.float32)
    dynamics = LIF(torch.full((40,), decay), reset="soft")
    kernel, first, _ = operands(dynamics, x, dynamics.initial_state(4, 40), dynamics.default_spike)
    spikes = exact(dynamics, x)
    assert (distance_error(kernel, x, first, spikes) > 0).all()
    assert torch.equal(spikes_at(kernel, solve_linear(kernel, x, first, spikes).distance), spikes)
    assert torch.equal(solve(dynamics, x)[0], spikes)


class RingState(NamedTuple):
    u: torch.Tensor
    v: torch.Tensor
    w: torch.Tensor


@dataclass(frozen=True, eq=False)
class Ring(Dynamics):
    """Three states that all need each other: linear, without a bound on its rounding."""

    threshold: float = 0.8

    State = RingState

    def past(self, state):
        return 0.6 * state.u - 0.3 * state.w

    def advance(self, state, current, spike):
        u = (self.past(state) + current) * (1 - spike)
        return RingState(u, 0.5 * state.v + 0.3 * state.u, 0.7 * state.w + 0.2 * state.v)


def test_without_a_bound_nothing_is_certified():
    x = currents(1.0, length=90, dtype=torch.float32).requires_grad_()
    grads = []
    for solver in (Loop(), Parallel(chunk=32, warm_up=0)):
        neuron = Neuron(Ring(), CHANNELS, solver=solver)
        assert_lively(neuron(x)[0].detach())
        grads.append(torch.autograd.grad(neuron(x)[0].sum(), x)[0])
    assert_close(*grads)
    certificate = solve(Ring(), x, solver=solver)[2]
    assert certificate.settled == 15
    kernel, first, _ = operands(Ring(), x, Ring().initial_state(3, CHANNELS), ArcTan())
    assert certain(kernel, x, first, torch.zeros_like(x)) is None


@every_other
def test_neurons_that_are_not_linear_learn_by_the_fused_solver(dynamics, std):
    """Nothing is refused; without gradients they run in chunks."""
    neuron = Neuron(dynamics, CHANNELS, solver=Parallel(chunk=16, warm_up=4))
    x = currents(std, length=90, dtype=torch.float32)
    with torch.no_grad():
        spikes, last = neuron(x)
    fused, ended = neuron.with_solver("fused")(x)
    assert torch.equal(spikes, fused)
    assert all(map(torch.equal, last, ended))
    learning = solve(dynamics, x.requires_grad_())
    assert learning[0].requires_grad
    assert learning[2] == Certificate(0, 15, 0, 0, 15, float("inf"))


def test_values_are_the_same_with_and_without_gradients():
    x, results = currents(50.0, length=300, dtype=torch.float32), []
    for detach in (True, False):
        for given_x in (x, x.clone().requires_grad_()):
            spikes, last = Parallel(chunk=64, detach_reset=detach).run(BRF(), given_x, None, BRF().default_spike)
            results.append(torch.stack([*last, spikes[:, -1]]).detach())
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("dynamics", [LIF(0.9), BRF()], ids=["lif", "brf"])
def test_gradients_are_those_of_the_fused_solver(dynamics):
    x = currents(dynamics.default_std, length=300).requires_grad_()
    grads = []
    for solver in (Fused(), Parallel(chunk=64)):
        spikes, _ = solver.run(dynamics, x, None, dynamics.default_spike)
        grads.append(torch.autograd.grad(spikes.square().sum(), x)[0])
    assert grads[0].any()
    assert_close(grads[1], grads[0])


def test_second_derivatives_are_the_loops():
    x, seconds = currents(1.0).requires_grad_(), []
    for solver in (Loop(), Parallel(chunk=32)):
        spikes, _ = solver.run(LIF(0.6), x, None, ArcTan())
        (first,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert seconds[0].any()
    assert_close(seconds[1], seconds[0])


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"integers max_rounds >= 1, chunk >= 1 and warm_up >= 0, got 0, 256 and 256"):
        Parallel(max_rounds=0)
    with pytest.raises(ValueError, match="no schemes to choose from, got 'rounds'; a neuron whose"):
        Parallel("rounds")
    with pytest.raises(ValueError, match="unexpected keyword argument 'scheme'; leave it out: a neuron whose spikes"):
        Parallel(scheme="chunks")
    with pytest.raises(ValueError, match="unexpected keyword argument 'guess'; leave it out: chunks make their own"):
        Parallel(guess=Surrogate())
