"""`simulate` against what can be written down without a loop: periods, powers, sums, boundaries."""

import math

import pytest
import torch
from helpers import assert_close, assert_lively, currents

from sdn import ALIF, BRF, LIF, RF, simulate


@pytest.mark.parametrize(
    ("decay", "drive", "threshold"), [(0.9, 0.2, 1.0), (0.5, 0.7, 1.2), (0.97, 0.1, 0.8), (0.0, 2, 1)]
)
def test_lif_period_under_a_constant_current(decay, drive, threshold):
    # h after n steps is drive (1 - decay^n) / (1 - decay); a hard reset starts the same count again.
    enough = 1 - threshold * (1 - decay) / drive
    period = max(1, math.ceil(math.log(enough) / math.log(decay))) if decay else 1
    out = simulate(LIF(decay, threshold), torch.full((1, 400, 1), float(drive), dtype=torch.float64))
    fired = out.spike.flatten().nonzero().flatten() + 1
    assert fired.tolist() == list(range(period, 401, period))
    assert period > 1 or decay == 0


def test_lif_decays_below_threshold():
    state = LIF.State(torch.tensor([[0.7, -3.0]], dtype=torch.float64))
    out = simulate(LIF(0.83, 1.0), torch.zeros(1, 50, 2, dtype=torch.float64), state)
    assert_close(out.mem[0], state.u * 0.83 ** torch.arange(1, 51, dtype=torch.float64)[:, None])
    assert out.spike.sum() == 0


def test_lif_without_reset_is_a_geometric_sum():
    x = currents(1.0, 2, 80, 1)
    out = simulate(LIF(0.6, 0.5, "none"), x)
    weights = torch.tensor([[0.6 ** (t - k) if k < t else 0.0 for k in range(80)] for t in range(80)], dtype=x.dtype)
    assert_lively(out.spike)
    assert_close(out.mem, torch.einsum("tk,bkh->bth", weights, x))


def test_rf_is_a_complex_power():
    rf, steps = RF(omega=12.0, damping=2.0, dt=0.02, threshold=0.5), torch.arange(1, 101)
    x, growth = currents(20.0, 2, 100, 1), complex(1 - 0.02 * 2.0, 0.02 * 12.0)
    start = RF.State(*torch.tensor([[[0.3], [-0.8]], [[1.1], [0.2]]], dtype=torch.float64))
    free = simulate(rf, torch.zeros_like(x), start)
    orbit = torch.complex(*start)[:, None] * torch.pow(torch.tensor(growth, dtype=torch.complex128), steps[:, None])
    assert_close(free.mem, orbit.real)
    assert_close(free.state.v, orbit[:, -1].imag)
    power = torch.tensor(
        [[growth ** (t - k) if k < t else 0j for k in range(100)] for t in range(100)], dtype=torch.complex128
    )
    driven = torch.einsum("tk,bkh->bth", power, 0.02 * x.to(torch.complex128))
    out = simulate(rf, x)
    assert_lively(out.spike)
    assert_close(out.mem, driven.real)


def test_brf_boundary_has_the_published_values_and_modulus_one():
    values = {5: -0.12508, 10: -0.50126, 15: -1.13140, 25: -3.17542, 50: -13.3975, 85: -47.3217, 100: -100}
    for omega, p in values.items():
        got = BRF(omega=float(omega), dt=0.01).boundary
        assert got == pytest.approx(p, rel=3e-5)
        assert abs(complex(1 + 0.01 * got, 0.01 * omega)) == pytest.approx(1, abs=1e-15)
    tensor = BRF(omega=torch.tensor([5.0, 85.0], dtype=torch.float64)).boundary
    assert torch.allclose(tensor, torch.tensor([-0.12508, -47.3217], dtype=torch.float64), rtol=3e-5)


@pytest.mark.parametrize("offset", [0.0, 1.7])
def test_brf_orbit_keeps_or_loses_its_modulus(offset):
    start = BRF.State(*torch.tensor([[[0.4]], [[0.5]], [[0.0]]], dtype=torch.float64))
    out = simulate(BRF(omega=30.0, b_offset=offset, dt=0.01), torch.zeros(1, 300, 1, dtype=torch.float64), start)
    factor = 1 - 2 * 0.01 * offset * math.sqrt(1 - 0.09) + (0.01 * offset) ** 2  # of the modulus squared, per step
    assert out.spike.sum() == 0
    assert math.hypot(*(s.item() for s in out.state[:2])) == pytest.approx(
        math.hypot(0.4, 0.5) * factor**150, rel=1e-12
    )


def test_brf_second_spike_needs_the_refraction_as_well():
    brf, big = BRF(omega=10.0, b_offset=1.0, gamma=0.9, dt=0.01), torch.tensor
    start = BRF.State(big([[0.0]]), big([[0.0]]), big([[1.0]]))
    for u, fires in ((1.99, 0.0), (2.01, 1.0)):
        assert simulate(brf, big([[[u / 0.01]]]), start).spike.item() == fires
    out = simulate(brf, big([[[150.0], [30.0]]]), None)  # u is 1.5 and then 1.77: above the threshold, below 2
    assert out.spike.flatten().tolist() == [1.0, 0.0]
    assert 1 < out.state.u.item() < 2
    assert out.state.q.item() == pytest.approx(0.9)


def test_alif_raises_its_threshold_and_subtracts_it():
    alif = ALIF(tau_m=5.0, tau_a=12.0, beta=0.7, threshold=0.3)
    out = simulate(alif, torch.full((1, 9, 1), 1e4, dtype=torch.float64))
    rho, alpha, u = math.exp(-1 / 12), math.exp(-1 / 5), 0.0
    assert out.spike.all()
    for t in range(9):  # firing at every step: a[t] = 1 - rho^t
        theta = 0.3 + 0.7 * (1 - rho**t)
        assert out.mem[0, t, 0].item() == pytest.approx(alpha * u - 0.7 * (1 - rho**t), rel=1e-12, abs=1e-12)
        u = alpha * u + (1 - alpha) * 1e4 - theta
    assert out.state.u.item() == pytest.approx(u, rel=1e-12)
    assert out.state.a.item() == pytest.approx(1 - rho**8, rel=1e-12)


@pytest.mark.parametrize("offset", [0.5, 8.0])
def test_brf_without_its_boundary_grows_or_fades_by_the_plain_modulus(offset):
    brf = BRF(omega=20.0, b_offset=offset, dt=0.01, threshold=1e6, divergence_boundary=False)
    start = BRF.State(*torch.tensor([[[0.4]], [[0.5]], [[0.0]]], dtype=torch.float64))
    out = simulate(brf, torch.zeros(1, 200, 1, dtype=torch.float64), start)
    modulus = math.hypot(1 - 0.01 * offset, 0.01 * 20)
    assert (modulus > 1) == (offset == 0.5), "one on each side of the boundary"
    radius = math.hypot(*(s.item() for s in out.state[:2]))
    assert radius == pytest.approx(math.hypot(0.4, 0.5) * modulus**200, rel=1e-11)


@pytest.mark.parametrize("smooth", [True, False])
def test_brf_loses_modulus_to_its_spikes_only_through_the_smooth_reset(smooth):
    brf = BRF(omega=30.0, b_offset=0.0, dt=0.01, threshold=0.5, smooth_reset=smooth)
    start = BRF.State(*torch.tensor([[[2.0]], [[0.0]], [[0.0]]], dtype=torch.float64))
    out = simulate(brf, torch.zeros(1, 40, 1, dtype=torch.float64), start)
    assert out.spike.sum() >= 2
    radius = math.hypot(*(s.item() for s in out.state[:2]))
    assert radius < 1.8 if smooth else radius == pytest.approx(2, rel=1e-12)


def test_brf_without_refraction_fires_at_every_step_above_the_threshold():
    big = torch.tensor([[[150.0], [30.0]]])  # u is 1.5 and then 1.77
    free = BRF(omega=10.0, b_offset=1.0, gamma=0.9, dt=0.01, refractory_period=False)
    for brf, spikes in ((free, [1.0, 1.0]), (free.replace(refractory_period=True), [1.0, 0.0])):
        assert simulate(brf, big).spike.flatten().tolist() == spikes
