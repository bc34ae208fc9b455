"""The scores of a surrogate, against counting by hand."""

import pytest
import torch

import sdn
from sdn.surrogate.fidelity import Tally, fresh_scores


@pytest.fixture(scope="module")
def trajectories():
    return sdn.generate(sdn.LIF(0.5, 0.9), 300, 120, seed=2)


def by_hand(predicted, out, dynamics):
    """The definitions, written out in float64 without running sums."""
    error = (predicted - out.mem).abs().double()
    fired = predicted + out.input >= dynamics.threshold
    zero = out.input >= dynamics.threshold
    hit = (fired & out.spike).sum().item()
    return {
        "loss": error.mean(), "mae_mean": error.mean(), "mae_max": error.max(), "mae_std": error.std(),
        "agreement": (fired == out.spike).double().mean(),
        "precision": hit / fired.sum(), "recall": hit / out.spike.sum(),
        "f1": 2 * hit / (fired.sum() + out.spike.sum()), "spike_rate": out.spike.double().mean(),
        "trivial_agreement": (zero == out.spike).double().mean(), "steps": out.mem.numel(),
    }  # fmt: skip


def test_tally_over_uneven_batches_equals_the_definitions(trajectories):
    """Guards defect 19: the mean over batches was not weighted by their size."""
    dynamics = sdn.LIF(0.5, 0.9)
    predicted = trajectories.mem + 0.1 * torch.randn(300, 120)
    tally = Tally(dynamics)
    for rows in (slice(0, 1), slice(1, 200), slice(200, 300)):
        tally.add(predicted[rows], *(t[rows] for t in trajectories[:3]))
    found = tally.metrics()
    for name, value in by_hand(predicted, trajectories, dynamics).items():
        assert getattr(found, name) == pytest.approx(float(value), rel=1e-6), name
    assert 0.05 < found.spike_rate < 0.4
    assert 0.5 < found.f1 < 0.99


def test_the_exact_membrane_scores_one_and_zero_scores_the_trivial(trajectories):
    dynamics = sdn.LIF(0.5, 0.9)
    exact, zero = Tally(dynamics), Tally(dynamics)
    exact.add(trajectories.mem, *trajectories[:3])
    zero.add(torch.zeros_like(trajectories.mem), *trajectories[:3])
    assert exact.metrics().agreement == exact.metrics().f1 == 1.0
    assert exact.metrics().mae_max == 0.0
    assert zero.metrics().agreement == zero.metrics().trivial_agreement < 0.99
    assert zero.metrics().f1 == zero.metrics().trivial_f1


@pytest.mark.parametrize("dynamics", [sdn.RF(), sdn.BRF(), sdn.ALIF()], ids=str)
def test_gain_and_strict_firing_are_respected(dynamics):
    """Guards defect 4: the threshold was the constant 1."""
    out = sdn.generate(dynamics, 50, 300, seed=4)
    tally = Tally(dynamics)
    tally.add(out.mem, *out[:3])
    assert tally.metrics().agreement == 1.0
    assert 0.01 < tally.metrics().spike_rate < 0.5


def test_evaluate_scores_an_sdn_in_its_reduced_form(trajectories):
    network = sdn.SDN().eval()
    found = sdn.evaluate(network, trajectories, sdn.LIF(0.5, 0.9), loss="mse")
    with torch.no_grad():
        expected = torch.nn.functional.mse_loss(network(trajectories.input), trajectories.mem).item()
    assert found.loss == pytest.approx(expected, rel=1e-4)
    assert sdn.evaluate(sdn.reduce(network), trajectories, sdn.LIF(0.5, 0.9), loss="mse") == found


def test_fidelity_reports_every_distribution():
    """Guards defect 29: only N(0, 1) was ever looked at."""
    scores = fresh_scores(sdn.SDN().eval(), sdn.LIF(0.125), samples=20, length=50)
    assert list(scores) == ["N(0,1)", "N(0.5,1)", "N(0,2)", "N(0,3)", "N(1,1)"]
    assert scores["N(1,1)"].spike_rate > scores["N(0,1)"].spike_rate


def test_an_unknown_loss_is_refused(trajectories):
    with pytest.raises(ValueError, match=r"loss must be one of .* got 'huber'"):
        sdn.evaluate(sdn.SDN(), trajectories, sdn.LIF(0.5, 0.9), loss="huber")
