"""Neurons from recordings: a known one gives its fields back, an unknown one is learned and judged on others."""

import pickle

import pytest
import torch
from loguru import logger
from recordings import at_one_ms, lif

import sdn
from sdn.dynamics.base import Dynamics, simulate
from sdn.recordings.data import Recording
from sdn.recordings.fitted import split_of
from sdn.recordings.known import fit_dynamics
from sdn.recordings.neuron import learned_neuron
from sdn.recordings.scores import best_level, score_spikes
from sdn.recordings.unknown import learn_neuron
from sdn.recordings.weights import Weights, forced, neuron_of, start


def train(*steps, length=40):
    """Spikes (1, length) at some steps."""
    out = torch.zeros(1, length, dtype=torch.bool)
    out[0, list(steps)] = True
    return out


# ---- Scores.
def test_each_spike_is_matched_once_and_within_the_tolerance():
    recorded = train(5, 20, 30)
    found = score_spikes(train(4, 5, 6, 22, 31), recorded)
    assert (found.precision, found.recall) == (2 / 5, 2 / 3)
    assert found.f1 == pytest.approx(4 / 8)
    assert score_spikes(train(4, 5, 6, 22, 31), recorded, 0).f1 == pytest.approx(2 / 8)
    assert score_spikes(train(4, 5, 6, 22, 31), recorded, 2).f1 == pytest.approx(6 / 8)
    assert found.agreement == pytest.approx(1 - 6 / 40)
    assert score_spikes(train(2, 3), train(1, 2)).f1 == 1


def test_explained_variance_is_of_counts_in_twenty_steps():
    recorded = torch.cat([train(1, 2, 3), train(25)], 1)  # counts 3 0 0 1
    assert score_spikes(recorded, recorded).explained_variance == 1
    moved = torch.cat([train(7, 8, 21), train(39)], 1)  # 2 1 0 1
    assert score_spikes(moved, recorded).explained_variance == pytest.approx(1 - 0.5 / 1.5)
    assert score_spikes(recorded & False, recorded).explained_variance == pytest.approx(0)
    assert score_spikes(recorded & False, recorded).f1 == 0
    with pytest.raises(ValueError, match=r"shapes \(1, 40\) and \(1, 80\)"):
        score_spikes(train(1), recorded)


def test_the_neuron_without_a_past_finds_the_level_that_makes_the_spikes():
    current = torch.randn(4, 500)
    assert score_spikes(current >= best_level(current, current > 1.3), current > 1.3).f1 > 0.95


# ---- A known neuron.
def test_a_recorded_lif_gives_back_decay_and_threshold_within_one_percent():
    recording = lif(0.9, 1.0, rows=8, length=800)
    assert 0.05 < recording.rate < 0.15
    found = fit_dynamics(sdn.LIF(0.5, 1.4), recording, ("decay", "threshold"), steps=40)
    assert found.dynamics.decay == pytest.approx(0.9, rel=0.01)
    assert found.dynamics.threshold == pytest.approx(1.0, rel=0.01)
    assert (found.scale, found.offset) == (1.0, 0.0)
    assert found.scores["held out"].f1 > 0.99 > found.without_past["held out"].f1 + 0.2
    assert "held out: F1" in str(found)
    layer = sdn.Neuron(found.dynamics, 1)
    spikes, _ = layer(found.inputs(recording.current).unsqueeze(-1))
    assert score_spikes(spikes[..., 0], recording.spikes).f1 > 0.99
    few = recording.rows([0, 1, 2, 3])
    wrong = fit_dynamics(sdn.LIF(0.5, 1.4), few, ("threshold",), steps=5)  # whose decay stays wrong
    assert wrong.scores["held out"].f1 < 0.9


def test_a_neuron_that_is_no_fit_comes_with_a_warning():
    spikes = lif(0.9, 1.0, rows=4, length=200).spikes
    silent = Recording.of(torch.zeros(4, 200), spikes=spikes, dt=0.1, units={"current": "1"})
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    fit_dynamics(sdn.LIF(0.5), silent, ("decay",), steps=2)
    logger.remove(sink)
    assert "this is no fit: F1 0.00 on 'fitted', spikes in 0 % of the steps" in lines[0]
    assert "recording.resampled(1.0) has larger steps" in lines[0]


def test_the_scale_of_a_current_with_a_unit_is_learned_and_the_fit_is_the_same_again():
    plain = lif(0.9, 1.0, rows=6, length=1000)
    recording = Recording.of(300 * plain.current + 50, spikes=plain.spikes, dt=1.0, units={"current": "pA"})
    one, again = (fit_dynamics(sdn.LIF(0.7), recording, ("decay",), steps=60, seed=3) for _ in range(2))
    assert one.dynamics == again.dynamics
    assert (one.scale, one.offset, one.losses) == (again.scale, again.offset, again.losses)
    assert one.scale == pytest.approx(1 / 300, rel=0.05)
    assert one.offset == pytest.approx(-50 / 300, abs=0.03)
    assert one.scores["held out"].f1 > 0.95


def test_the_spike_gradient_alone_lowers_the_loss():
    recording = lif(0.9, 1.0, rows=4, length=500)
    losses = fit_dynamics(sdn.LIF(0.5, 1.4), recording, ("decay", "threshold"), steps=40).losses
    assert min(losses[:-1]) < 0.5 * losses[0]  # the last is that of the search


@pytest.mark.parametrize(
    ("dynamics", "learn", "words"),
    [
        (sdn.LIF(), ("tau",), r"LIF cannot learn 'tau'; its learnable fields are \['decay', 'threshold'\]"),
        (sdn.LIF(), "decay", r"write learn=\('decay',\)"),
        (sdn.LIF(torch.tensor([0.1, 0.2])), ("decay",), "decay of LIF is a tensor; a recording is of one neuron"),
        (sdn.LIF(0.0), ("decay",), "decay cannot be learned from 0"),
        (sdn.LIF(), (), "nothing to learn"),
        (sdn.LIF, ("decay",), "got the class LIF"),
    ],
)
def test_what_cannot_be_fitted_is_refused(dynamics, learn, words):
    with pytest.raises(ValueError, match=words):
        fit_dynamics(dynamics, lif(0.9, 1.0, rows=2, length=200), learn, steps=1)


def test_another_step_or_unit_is_refused_by_a_fitted_neuron():
    recording = lif(0.9, 1.0, rows=4, length=200)
    found = fit_dynamics(sdn.LIF(0.9), recording, ("decay",), steps=1)
    other = Recording.of(recording.current, spikes=recording.spikes, dt=0.5, units={"current": "1"})
    with pytest.raises(ValueError, match=r"fitted at 1 ms and in 1, the recording is at 0\.5 ms in 1"):
        found.score(other)


def test_held_out_sweeps_are_not_fitted():
    recording = at_one_ms("adex", 200, 2)
    fit, held = split_of(recording, None)
    assert set(held) == {"ramps"}
    assert "ramps" not in fit.families
    fit, held = split_of(recording, ("white", "pink"))
    assert (set(held), set(fit.families)) == ({"white", "pink"}, {"steps", "sinusoid", "ramps"})
    fit, held = split_of(recording.sweeps("pink"), None)
    assert len(fit) == 2
    assert held == {}
    with pytest.raises(ValueError, match="no sweep is of the family 'noise'"):
        split_of(recording, ("noise",))
    with pytest.raises(ValueError, match="no sweep is left"):
        split_of(recording, tuple(dict.fromkeys(recording.families)))
    with pytest.raises(ValueError, match=r"needs an sdn\.Recording"):
        split_of(recording.current, None)


# ---- An unknown neuron.
@pytest.fixture(scope="module")
def adex_fit():
    recording = at_one_ms("adex", 800, 4, seed=1)
    return recording, learn_neuron(recording, 3, 3, steps=160, held_out=("sinusoid", "ramps"))


def test_an_adex_is_learned_better_than_without_a_past_and_than_silence(adex_fit):
    _, found = adex_fit
    assert set(found.scores) == {"fitted", "sinusoid", "ramps"}
    for name in ("fitted", "sinusoid"):
        score = found.scores[name]
        assert 0.005 < score.rate < 0.05
        assert score.f1 > found.without_past[name].f1 + 0.15, name
        assert score.explained_variance > 0.3, name
    assert found.losses[-1] < 0.7 * found.losses[0]


def test_a_learned_neuron_is_a_neuron_like_any_other(adex_fit):
    recording, found = adex_fit
    current = found.inputs(recording.current[:3]).unsqueeze(-1)
    fused, _ = sdn.Neuron(found.dynamics, 1)(current)
    slow, _ = sdn.Neuron(found.dynamics, 1, solver="loop")(current)
    assert fused.sum() > 10
    assert score_spikes(fused[..., 0], slow[..., 0], 0).f1 > 0.97  # tanh is rounded otherwise
    assert torch.equal(fused[..., 0] > 0, found.spikes(recording)[:3])
    assert Dynamics.from_facts(found.dynamics.facts()) == found.dynamics
    assert pickle.loads(pickle.dumps(found.dynamics)) == found.dynamics
    half, state = sdn.Neuron(found.dynamics, 1)(current[:, :300])
    rest, _ = sdn.Neuron(found.dynamics, 1)(current[:, 300:], state)
    assert torch.equal(torch.cat([half, rest], 1), fused)


def test_given_spikes_the_scan_is_the_loop():
    generator = torch.Generator().manual_seed(1)
    w = start(3, 4, generator)._replace(drive=torch.tensor(1.0), kick=torch.randn(3, 2, generator=generator))
    x = 1.5 * torch.randn(2, 60, generator=generator, dtype=torch.float64)
    neuron = neuron_of(w)
    out = simulate(neuron, x.unsqueeze(-1))
    assert 0.02 < out.spike.mean() < 0.5
    distance = forced(Weights(*(value.double() for value in w)), x, out.spike[..., 0])
    torch.testing.assert_close(distance, neuron.distance(out.mem, out.input)[..., 0], rtol=0, atol=1e-5)


def test_the_default_learned_neuron_is_a_lif():
    """One pole with a full reset: ``z = decay z + (1 - decay) x`` is the membrane of a LIF times 1 - decay."""
    neuron = learned_neuron(1, 0)(decay0=0.9, drive=0.1)
    x = 0.12 + 0.35 * torch.randn(3, 200, 2)
    ours, theirs = simulate(neuron, x.double()), simulate(sdn.LIF(0.9, 10.0), x.double())
    assert ours.spike.sum() == theirs.spike.sum() == 0
    x = 10 * x
    ours, theirs = simulate(neuron, x.double()), simulate(sdn.LIF(0.9, 10.0), x.double())
    assert ours.spike.sum() > 20
    assert torch.equal(ours.spike, theirs.spike)


def test_sizes_are_classes_of_their_own_and_wrong_ones_are_refused():
    assert learned_neuron(2, 3) is learned_neuron(2, 3)
    assert learned_neuron(2, 3).__name__ == "LearnedNeuron2x3"
    assert len(learned_neuron(2, 3).State._fields) == 7
    for poles, hidden, words in ((0, 1, "poles must be at least 1"), (1, 33, "hidden must be at most 32, got 33")):
        with pytest.raises(ValueError, match=words):
            learned_neuron(poles, hidden)
    with pytest.raises(ValueError, match=r"decay0 must be in \[0, 1\), got 1.2"):
        learned_neuron(1, 1)(decay0=1.2)


def test_the_same_seed_learns_the_same_neuron():
    recording = at_one_ms("adex", 300, 2, seed=2)
    one, again, other = (learn_neuron(recording, 2, 2, steps=30, seed=seed) for seed in (1, 1, 2))
    assert one.dynamics == again.dynamics
    assert one.dynamics != other.dynamics
