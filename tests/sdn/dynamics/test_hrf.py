"""The harmonic resonate-and-fire neuron against its characteristic polynomial, its boundaries and its refraction."""

import math

import numpy as np
import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents

from sdn import Loop, Neuron, generate, simulate
from sdn.dynamics import HRF

QUIET = 1e9  # a threshold that nothing reaches


def free_run(hrf, u, v, steps):
    """u at steps 1..steps without input (steps,), in float64."""
    start = HRF.State(*(torch.tensor([[f]], dtype=torch.float64) for f in (u, v, 0.0)))
    out = simulate(hrf, torch.zeros(1, steps, 1, dtype=torch.float64), start)
    assert out.spike.sum() == 0
    return out.mem.flatten()


def step_matrix(omega, damping, dt):
    """(v, u) -> (v, u) of one step without input, semi-implicit, from the two lines of the update."""
    position = np.array([[1.0, dt], [0.0, 1.0]])  # v first
    velocity = np.array([[1.0, 0.0], [-dt * omega**2, 1.0 - 2 * dt * damping]])  # then u, with the new v
    return velocity @ position


def radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize(("boundary", "damping"), [("published", 0.01 * 30**2 / 2), ("consistent", 0.0)])
def test_free_ringing_has_the_frequency_and_the_decay_of_the_roots(boundary, damping):
    # u[t+1] = trace u[t] - det u[t-1], whose solution is r^t (A cos(phi t) + B sin(phi t))
    omega, offset, dt = 30.0, 1.5, 0.01
    b = damping + offset
    det, trace = 1 - 2 * dt * b, 2 - 2 * dt * b - (dt * omega) ** 2
    r, phi = math.sqrt(det), math.acos(trace / (2 * math.sqrt(det)))
    u = free_run(HRF(omega, offset, dt=dt, threshold=QUIET, boundary=boundary), 0.7, -0.01, 200)
    t = torch.arange(1, 201, dtype=torch.float64)
    a = 0.7
    first = a * (1 - 2 * dt * b - (dt * omega) ** 2) + dt * omega**2 * 0.01
    s = (first / r - a * math.cos(phi)) / math.sin(phi)
    assert_close(u, r**t * (a * torch.cos(phi * t) + s * torch.sin(phi * t)))
    assert phi / dt == pytest.approx(math.sqrt(omega**2 - b**2), rel=0.05), "near the continuous oscillator's frequency"
    assert math.log(r) / dt == pytest.approx(-b, rel=0.1), "and near its decay"


def test_consistent_boundary_keeps_the_ringing_for_ever():
    hrf = HRF(omega=40.0, b_offset=0.0, dt=0.01, threshold=QUIET, boundary="consistent")
    u = free_run(hrf, 1.0, 0.0, 4000).abs()
    assert u[-1000:].max().item() == pytest.approx(u[:1000].max().item(), rel=1e-3)
    assert u[-1000:].max() > 0.9
    assert hrf.boundary_damping == 0


def test_published_boundary_follows_dt_and_is_that_of_the_explicit_scheme():
    for dt in (0.01, 0.004):
        b = HRF(omega=50.0, b_offset=0.0, dt=dt).boundary_damping
        assert b == pytest.approx(dt * 50.0**2 / 2)
        explicit = np.array([[1.0, dt], [-dt * 50.0**2, 1.0 - 2 * dt * b]])  # both lines from the old values
        assert radius(explicit) == pytest.approx(1, abs=1e-12)
        assert radius(step_matrix(50.0, b, dt)) < 1 - dt, "the step that is computed is damped there"
    assert HRF(omega=50.0, b_offset=0.0, dt=0.01).boundary_damping == pytest.approx(0.005 * 50.0**2)
    tensor = HRF(omega=torch.tensor([10.0, 50.0])).boundary_damping
    assert torch.allclose(tensor, torch.tensor([0.5, 12.5]))


@pytest.mark.parametrize("boundary", ["published", "consistent"])
def test_plain_numbers_are_refused_exactly_where_the_spectral_radius_exceeds_one(boundary):
    draw, dt = np.random.default_rng(0), 0.01
    seen = {True: 0, False: 0}
    for omega, offset in zip(draw.uniform(1, 220, 400), draw.uniform(0, 120, 400), strict=True):
        damping = offset + (dt * omega**2 / 2 if boundary == "published" else 0)
        grows = radius(step_matrix(omega, damping, dt)) > 1 + 1e-12
        seen[grows] += 1
        if grows:
            with pytest.raises(ValueError, match=r"HRF: omega .* diverges: .*lower omega, b_offset or dt"):
                HRF(omega, offset, dt=dt, boundary=boundary)
        else:
            HRF(omega, offset, dt=dt, boundary=boundary)
    assert min(seen.values()) > 50


def test_between_spikes_an_impulse_is_what_the_matrix_makes_of_it():
    hrf, x = HRF(omega=25.0, b_offset=2.0, threshold=QUIET), torch.zeros(1, 50, 1, dtype=torch.float64)
    x[0, 0] = 3.0
    out = simulate(hrf, x)
    step = step_matrix(25.0, 0.01 * 25.0**2 / 2 + 2.0, 0.01)
    want = [(np.linalg.matrix_power(step, t) @ [0.0, 0.03])[1] for t in range(50)]
    assert_close((out.mem + hrf.gain * x).flatten(), torch.tensor(want))


def test_a_spike_damps_and_raises_the_threshold():
    hrf, value = HRF(omega=10.0, b_offset=1.0, gamma=0.9, dt=0.01), lambda x: torch.tensor([[x]], dtype=torch.float64)
    start = HRF.State(value(0.0), value(0.0), value(1.0))
    for u, fires in ((1.99, 0.0), (2.01, 1.0)):
        assert simulate(hrf, value([u / 0.01]), start).spike.item() == fires
    at_rest, after = (HRF.State(value(0.5), value(0.0), value(q)) for q in (0.0, 1.0))
    still = torch.zeros(1, 1, 1, dtype=torch.float64)
    u_rest, u_after = (simulate(hrf, still, s).state.u.item() for s in (at_rest, after))
    assert u_rest - u_after == pytest.approx(2 * 0.01 * 1.0 * 0.5)


@pytest.mark.parametrize("boundary", ["published", "consistent"])
def test_the_default_currents_make_it_fire_at_a_sensible_rate(boundary):
    assert_lively(generate(HRF(boundary=boundary), 100, 256).spike, 0.03, 0.2)  # and without a warning


def test_it_runs_under_the_loop_and_learns_there():
    neuron = Neuron(HRF(), CHANNELS, learn={"omega": 20.0, "b_offset": None, "gamma": None}, solver=Loop(False))
    spikes, state = neuron(currents(100.0, dtype=torch.float32))
    assert_lively(spikes)
    (spikes.sum() + state.u.sum()).backward()
    assert all(p.grad.abs().min() > 0 for p in neuron.learned.values())
