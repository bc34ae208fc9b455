"""Fewer bits, noise and lost spikes, each against a slow statement of its own."""

import contextlib
import math
from pathlib import Path

import pytest
import torch
from small_runs import recurrent_run

from sdn import ALIF, BRF, LIF, RF, simulate
from spikingssm.datasets import Batch
from spikingssm.experiments.evaluation import evaluate
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.readout import LeakyReadout
from spikingssm.layers.recurrent import Recurrent
from spikingssm.measures.spikes import record_spikes
from spikingssm.models import S5RF, SpikingSSM
from spikingssm.models.rsnn import RSNN
from spikingssm.studies import perturbations as do
from spikingssm.studies.common import generator, open_run
from spikingssm.studies.robustness import TESTS, csv_rows, figure, robustness, table

NEURONS = [BRF(20.0, 1.0), RF(8.0, 4.0), ALIF(6.0, 20.0)]
ids = [type(neuron).__name__ for neuron in NEURONS]


@pytest.fixture(scope="module", autouse=True)
def _at_root():
    with contextlib.chdir(Path(__file__).parents[3]):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return recurrent_run(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def found(trained):
    return robustness(trained, repeats=2, seed=5)


def by_hand(layer, x, keep):
    """A recurrent layer written out: each neuron by `simulate`, a step at a time, on what arrived a step before."""
    dynamics, arrived, states, fired = layer.current_dynamics(), torch.zeros(len(x), layer.channels).double(), None, []
    for t in range(x.shape[1]):
        current = layer.input(x[:, t]) + arrived @ layer.recurrent.weight.T
        out = simulate(dynamics, current.unsqueeze(1), states)
        states, arrived = out.state, out.spike[:, 0] * keep[:, t]
        fired.append(out.spike[:, 0])
    return torch.stack(fired, 1), states


@pytest.mark.parametrize("dynamics", NEURONS, ids=ids)
def test_a_lost_spike_reaches_nobody_but_its_own_neuron(dynamics):
    layer = Recurrent(3, dynamics, 6).double()
    if not isinstance(dynamics, ALIF):
        layer.recurrent.weight.data *= 100
    x, part = 150 * torch.randn(4, 50, 3, dtype=torch.float64) / (1 if not isinstance(dynamics, ALIF) else 100), 0.4
    keep = torch.rand(4, 50, 6, generator=generator(7)) >= part
    with torch.no_grad(), do.losing_spikes(layer, part, generator(7)):
        arrived, state = layer(x)
        wanted, neuron = by_hand(layer, x, keep)
        plain, _ = type(layer).forward(layer, x)
    assert 0.02 < wanted.mean() < 0.8
    assert torch.equal(arrived, wanted * keep)
    assert torch.equal(state.spike, arrived[:, -1])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(state.neuron, neuron, strict=True))
    assert not torch.equal(plain, wanted), "the recurrence must have missed the lost spikes"


@pytest.mark.parametrize("dynamics", NEURONS, ids=ids)
def test_nothing_lost_is_the_network_to_the_last_bit(dynamics):
    model = RSNN(3, 2, [7, 5], dynamics=dynamics)
    if not isinstance(dynamics, ALIF):
        model.layers[1].input.weight.data *= 300
    x = (150 if not isinstance(dynamics, ALIF) else 2) * torch.randn(4, 60, 3)
    with torch.no_grad(), record_spikes(model) as before:
        plain, _ = model(x)
    with torch.no_grad(), do.losing_spikes(model, 0.0, generator(0)), record_spikes(model) as after:
        same, _ = model(x)
    assert torch.equal(plain, same)
    assert before.spikes == after.spikes
    assert before.spikes["layers.1"] > 0
    with torch.no_grad(), do.losing_spikes(model, 1.0, generator(0)), record_spikes(model) as none:
        silent, _ = model(x)
    assert not silent.any()
    assert sum(none.spikes.values()) == 0
    assert "forward" not in vars(model.layers[0])
    assert torch.equal(model(x)[0], plain)


def test_layers_without_recurrence_lose_their_spikes_too():
    resonators = S5RF(3, 2, 8, num_blocks=2)
    resonators.layers[1].dense.weight.data *= 50
    for model in (resonators, SpikingSSM(3, 2, 4, 1, 4, dynamics=LIF(0.2, 0.3))):
        model.eval()
        x = 3 * torch.randn(5, 40, 3)
        with torch.no_grad(), record_spikes(model) as before:
            plain, _ = model(x)
        with torch.no_grad(), do.losing_spikes(model, 0.5, generator(1)), record_spikes(model) as after:
            lossy, _ = model(x)
        first = next(iter(before.spikes))
        assert after.spikes[first] == pytest.approx(before.spikes[first] / 2, rel=0.25)
        assert not torch.equal(plain, lossy)
        with torch.no_grad(), do.losing_spikes(model, 0.0, generator(1)):
            assert torch.equal(model(x)[0], plain)


def test_bits_are_counted_behind_the_point():
    x = torch.tensor([0.3, -0.3, 0.5, 1.24, 300.13])
    assert do.quantise(x, 1).tolist() == [0.5, -0.5, 0.5, 1.0, 300.0]
    assert do.quantise(x, 2).tolist() == [0.25, -0.25, 0.5, 1.25, 300.25]
    assert torch.equal(do.quantise(x, 32), x)
    y = torch.complex(x, 2 * x)
    assert torch.equal(do.quantise(y, 3), torch.complex(do.quantise(x, 3), do.quantise(2 * x, 3)))


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_parameters_and_factors_have_so_many_bits(bits):
    def rounded(value):
        return torch.round(value * 2**bits) / 2**bits

    tau = torch.tensor([3.3, 9.1, 40.7, 0.2])
    model = RSNN(3, 2, 4, dynamics=ALIF(), learn={"tau_m": tau, "tau_a": 2 * tau}, bias=True)
    found = do.quantised(model, bits)
    for name, value in model.state_dict().items():
        if name != "readout.tau":
            assert torch.equal(found.state_dict()[name], rounded(value)), name
    neuron = found.layers[0].current_dynamics()
    alpha, rho = (rounded(torch.exp(-1 / rounded(t))) for t in (tau, 2 * tau))
    assert torch.allclose(neuron.alpha, alpha, atol=1e-6)
    assert torch.allclose(neuron.rho, rho, atol=1e-6)
    assert not torch.allclose(alpha, torch.exp(-1 / tau), atol=1e-3)
    assert torch.allclose(found.readout.alpha, rounded(torch.exp(-1 / rounded(model.readout.tau).abs())), atol=1e-6)
    x = torch.randn(2, 30, 3)
    again = RSNN(3, 2, 4, dynamics=ALIF(), bias=True)
    again.load_state_dict({k: v for k, v in found.state_dict().items() if "learned" not in k})
    again.layers[0].dynamics = neuron  # a factor of 0 has the time constant 0, at which none may start
    assert torch.equal(found(x)[0], again(x)[0])
    assert torch.isfinite(found(x)[0]).all()


def test_the_factors_of_other_networks_have_so_many_bits():
    resonator = S5RF(3, 2, 8, num_blocks=2)
    found = do.quantised(resonator, 3)
    factor = found.layers[0].neuron.system()[0]
    assert torch.equal(8 * factor.real, torch.round(8 * factor.real))
    assert torch.equal(8 * factor.imag, torch.round(8 * factor.imag))
    alpha = torch.sigmoid(found.readout.tau)
    assert isinstance(found.readout, LeakyReadout)
    assert torch.allclose(8 * alpha, torch.round(8 * alpha), atol=1e-5)
    assert torch.isfinite(found(torch.randn(2, 9, 3))[0]).all()
    block = do.quantised(SpikingSSM(3, 2, 4, 1, 4, dynamics=LIF(0.3), solver="fused"), 2).blocks[0].layer
    assert block.neuron.current_dynamics().decay == 0.25
    surrogate = do.quantised(SpikingSSM(3, 2, 4, 1, 4), 2).eval()
    assert surrogate.blocks[0].layer.neuron.current_dynamics().decay == 0.125
    assert torch.isfinite(surrogate(torch.randn(2, 9, 3))[0]).all()
    kept = do.quantised(RSNN(3, 2, 4), 2).layers[0].current_dynamics()
    assert (kept.gamma, kept.dt) == (0.9, 0.01), "what BRF does not learn is not quantised"


def test_a_factor_of_one_forgets_nothing_and_hears_nothing():
    readout = do.quantised(torch.nn.Sequential(LeakyIntegrator(3, 2, 50.0, 0.0)), 1)[0]
    assert readout.alpha.tolist() == [1.0, 1.0]
    y, _ = readout(torch.ones(1, 5, 3), torch.full((1, 2), 0.5))
    assert torch.equal(y, torch.full((1, 5, 2), 0.5))


def test_noise_has_its_size_and_its_seed():
    batch = Batch(torch.full((40, 50, 3), 0.5), torch.zeros(40))
    noise = do.noisy_input(batch, 0.3, generator(0)).x - 0.5
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(do.noisy_input(batch, 0.0, generator(0)).x, batch.x)
    model = RSNN(3, 2, 40, learn={"omega": None}, bias=True)
    noisy = do.noisy_weights(model, 0.2, generator(0))
    for (name, old), new in zip(model.named_parameters(), noisy.parameters(), strict=True):
        assert torch.equal(old, new) == (old.ndim != 2), name
    ratio = noisy.layers[0].recurrent.weight / model.layers[0].recurrent.weight - 1
    assert ratio.std().item() == pytest.approx(0.2, rel=0.1)
    again = do.noisy_weights(model, 0.2, generator(0))
    assert torch.equal(again.readout.weight, noisy.readout.weight)


def test_level_zero_and_all_bits_are_the_evaluation(trained, found):
    said = evaluate(trained)
    plain = {name: said[name] for name in ("loss", "accuracy", "accuracy_all", "spikes")}
    assert found["plain"] == plain
    assert plain["spikes"] > 1
    for row in found["rows"]:
        assert row["repeats"] == (1 if row["test"] == "bits" or row["level"] == 0 else 2)
        if row["level"] == 0 or (row["test"], row["level"]) == ("bits", 32):
            loose = row["test"] in ("deletion", "bits")  # rows are joined; the factors go through a logarithm
            assert row["mean"] == (pytest.approx(plain, rel=1e-5) if loose else plain)
            assert set(row["sd"].values()) == {None}
    assert [row["level"] for row in found["rows"]] == [level for levels in TESTS.values() for level in levels]


def test_mean_and_deviation_are_those_of_the_repeats(trained, found):
    subject, row = open_run(trained), next(r for r in found["rows"] if (r["test"], r["level"]) == ("deletion", 0.5))
    scores = []
    for repeat in range(2):
        with do.losing_spikes(subject.model, 0.5, generator(5, 2, 5, repeat)):
            scores.append(subject.score(together=True))
    for name, mean in row["mean"].items():
        one, two = (score[name] for score in scores)
        assert mean == pytest.approx((one + two) / 2)
        assert row["sd"][name] == pytest.approx(abs(one - two) / math.sqrt(2))
    assert scores[0] != scores[1]
    assert row["mean"]["spikes"] < 0.8 * found["plain"]["spikes"]


def test_joined_rows_score_as_single_batches_do(trained):
    subject = open_run(trained)
    assert len(list(subject._batches())) == 3
    assert len(list(subject._merged(subject.model))) == 1
    assert subject.score(together=True) == pytest.approx(subject.score(), rel=1e-6)


def test_the_same_seed_gives_the_same_numbers_whatever_else_is_tested(trained, found):
    again = robustness(trained, tests=["synaptic"], repeats=2, seed=5)["rows"]
    assert again == [row for row in found["rows"] if row["test"] == "synaptic"]
    other = robustness(trained, tests=["synaptic"], repeats=2, seed=6)["rows"]
    assert other[0] == again[0]
    assert other[5] != again[5]


def test_a_network_that_diverges_is_counted_and_left_out(trained, monkeypatch):
    real = do.noisy_weights

    def wild(model, strength, draw):
        found = real(model, strength, draw)
        if strength == 1.0 and torch.rand((), generator=draw) < 0.5:
            found.layers[0].input.weight.data *= 1e38
        return found

    monkeypatch.setattr(do, "noisy_weights", wild)
    result = robustness(trained, tests=["synaptic"], repeats=6)
    last = result["rows"][-1]
    assert 0 < last["diverged"] < 6
    assert math.isfinite(last["mean"]["loss"])
    assert f"({last['diverged']} diverged)" in table([result])


def test_another_error_is_no_divergence(trained, monkeypatch):
    def refuse(model, strength, draw):
        raise ValueError("no such thing")

    monkeypatch.setattr(do, "noisy_weights", refuse)
    with pytest.raises(ValueError, match="no such thing"):
        robustness(trained, tests=["synaptic"], repeats=1)


def test_tables_and_pictures_are_over_seeds(found, tmp_path):
    shifted = [{**row, "mean": {k: v + 0.1 for k, v in row["mean"].items()}} for row in found["rows"]]
    other = {**found, "seed": 1, "rows": shifted}
    lines = [line for line in table([found, other]).splitlines() if "| accuracy, %" in line]
    assert len(lines) == len(TESTS)
    assert lines[0].count("± 7.07") == 8
    assert "±" not in next(line for line in table([found]).splitlines() if "| accuracy, %" in line)
    figure([found, {**other, "name": "other"}], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert {"test", "level", "accuracy_mean", "accuracy_sd", "spikes_mean"} <= set(csv_rows(found)[0])


def test_mistakes_are_one_line(trained):
    with pytest.raises(ValueError, match="--tests are bits, noise, deletion, synaptic, got 'fire'"):
        robustness(trained, tests=["fire"])
    with pytest.raises(ValueError, match="needs --repeats >= 1 and --seed >= 0, got 0 and 0"):
        robustness(trained, repeats=0)
