"""What is particular to the parallel solver: its two schemes, its certificate, its bound on rounding, hand-over."""

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents, every_dtype, every_fused, some_state

from sdn import BRF, LIF, RF, ArcTan, Fused, Loop, Parallel, Surrogate, simulate
from sdn.ops.neuron.operands import operands
from sdn.solvers.chunks import run_in_chunks
from sdn.solvers.linear import distance_error
from sdn.solvers.linear import solve as solve_linear
from sdn.solvers.parallel import Certificate, solve

SCHEMES = ["chunks", "rounds"]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def exact(dynamics, x, state=None):
    return simulate(dynamics.to("cpu", x.dtype), x, state).spike


@every_dtype
@every_fused
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


@pytest.mark.parametrize("sequential", [True, False], ids=["in order", "tree"])
@every_fused
def test_the_bound_on_rounding_holds_and_is_not_idle(dynamics, std, sequential):
    """The scan in float32, in order or as a tree, against the loop in float32: the bound covers every step."""
    x, state = currents(std, length=500, dtype=torch.float32), some_state(dynamics, dtype=torch.float32)
    dynamics = dynamics.to("cpu", torch.float32)
    truth = simulate(dynamics, x, state)
    kernel, first, _ = operands(dynamics, x, state, dynamics.default_spike)
    bound = distance_error(kernel, x, first, truth.spike, sequential)
    wide = kernel._replace(fixed=kernel.fixed.double())
    ideal = solve_linear(wide, x.double(), first.double(), truth.spike.double()).distance
    for rounded in (dynamics.distance(truth.mem, x), solve_linear(kernel, x, first, truth.spike).distance):
        assert ((rounded - ideal).abs() <= bound).all()
    scale = ideal.abs().max()
    assert 1e-8 * scale < bound.mean() < 1e-3 * scale, "so wide that no row would ever be certified"


@every_scheme
@pytest.mark.parametrize(("decay", "rounds"), [(0.125, 6), (0.5, 12), (0.9, 28), (0.99, 36)])
def test_settles_on_noise(decay, rounds, scheme):
    x = currents(1.0, 4, 1024, 64, torch.float32)
    dynamics = LIF(decay)
    spikes, _, certificate = solve(dynamics, x, solver=Parallel(scheme, chunk=128, warm_up=32))
    assert torch.equal(spikes, exact(dynamics, x))
    assert_lively(spikes)
    assert certificate.rounds <= rounds
    assert certificate.settled == certificate.rows == 256
    assert certificate.certified + certificate.handed_over == 256
    assert certificate.certified > 240
    assert certificate.margin > 1


@every_scheme
def test_currents_near_the_threshold_are_handed_over(scheme):
    """Held just below the threshold, the phase of the spikes depends on all of the past."""
    x = torch.linspace(0.88, 0.999, 32).expand(1, 600, 32).contiguous()
    dynamics = LIF(0.125)
    spikes, _, certificate = solve(dynamics, x, solver=Parallel(scheme, max_rounds=3, chunk=50, warm_up=9))
    assert_lively(spikes)
    assert certificate.rounds == 3
    assert 0 < certificate.handed_over == 32 - certificate.certified
    assert torch.equal(spikes, exact(dynamics, x))


def test_a_potential_on_the_threshold_is_not_certified():
    x = torch.zeros(1, 40, 3, dtype=torch.float64)
    x[0, ::7, 0], x[0, ::7, 1], x[0, ::7, 2] = 1.0, 1.0 + 1e-14, 1.5
    spikes, _, certificate = solve(LIF(0.5), x, solver=Parallel("rounds"))
    assert torch.equal(spikes, exact(LIF(0.5), x))
    assert certificate == Certificate(certificate.rounds, 3, 3, 2, 1, certificate.margin)


def test_a_wrong_certificate_would_be_noticed(monkeypatch):
    """Rows are handed over because of the bound: with a bound of zero, ties are decided by the scan's own rounding."""
    x = currents(25.0, 2, 400, 40, torch.float32)
    handed = solve(RF(17.0, 3.0, 0.012, 0.6), x)[2].handed_over
    monkeypatch.setattr("sdn.solvers.parallel.distance_error", lambda *a, **k: torch.full((1, 1, 1), 1e-30))
    assert solve(RF(17.0, 3.0, 0.012, 0.6), x)[2].handed_over < handed


def test_rf_takes_one_round_and_a_good_guess_saves_rounds():
    x = currents(25.0, length=300)
    assert solve(RF(17.0, 3.0, 0.012, 0.6), x)[2].rounds == 2, "one to solve, one to confirm"
    x = currents(1.0, 8, 1024, CHANNELS, torch.float32)
    plain = solve(LIF(0.125), x, solver=Parallel("rounds"))
    guided = solve(LIF(0.125), x, solver=Parallel("rounds", guess=Surrogate()))
    assert torch.equal(plain[0], guided[0])
    assert guided[2].rounds < plain[2].rounds


@every_fused
def test_chunks_forget_wrong_guesses_or_say_so(dynamics, std):
    x, state = currents(std, length=201), some_state(dynamics)
    dynamics = dynamics.to("cpu", torch.float64)
    kernel, first, _ = operands(dynamics, x, state, dynamics.default_spike)
    want = exact(dynamics, x, state)
    for chunk, warm_up in ((1000, 0), (50, 0), (50, 20), (7, 60)):
        found = run_in_chunks(kernel, x, first, chunk, warm_up, max_rounds=40)
        assert found.settled.all()
        assert torch.equal(found.spikes, want)
        few = run_in_chunks(kernel, x, first, chunk, warm_up, max_rounds=2)
        right = (few.spikes == want).all(1)
        assert (right | ~few.settled).all(), "a row that settled is exact"
    assert run_in_chunks(kernel, x, first, 7, 0, max_rounds=1).settled.sum() < 15


@every_scheme
@pytest.mark.parametrize("dynamics", [LIF(0.9), BRF()], ids=["lif", "brf"])
def test_gradients_of_the_schemes_are_one(dynamics, scheme):
    x = currents(50.0 if isinstance(dynamics, BRF) else 1.0, length=300).requires_grad_()
    grads = []
    for solver in (Fused(), Parallel(scheme, chunk=64)):
        spikes, _ = solver.run(dynamics, x, None, dynamics.default_spike)
        grads.append(torch.autograd.grad(spikes.square().sum(), x)[0])
    assert grads[0].any()
    assert_close(grads[1], grads[0])


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="scheme must be 'chunks', 'rounds' or None, got 'tree'"):
        Parallel("tree")
    with pytest.raises(ValueError, match=r"integers max_rounds >= 1, chunk >= 1 and warm_up >= 0, got 0, 256 and 64"):
        Parallel(max_rounds=0)
    with pytest.raises(ValueError, match="chunks make their own guess"):
        Parallel("chunks", guess=Surrogate())


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
    bound = distance_error(kernel, x, first, spikes, True)
    assert (bound > 0).all()
    assert torch.equal(solve(dynamics, x, solver=Parallel("rounds"))[0], spikes)


@every_scheme
def test_second_derivatives_are_the_loops(scheme):
    x, seconds = currents(1.0).requires_grad_(), []
    for solver in (Loop(), Parallel(scheme, chunk=32)):
        spikes, _ = solver.run(LIF(0.6), x, None, ArcTan())
        (first,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert seconds[0].any()
    assert_close(seconds[1], seconds[0])
