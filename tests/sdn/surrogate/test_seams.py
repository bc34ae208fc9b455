"""Seam networks: their features against a plain loop, folding, guesses at other chunks, training and its resume."""

import math

import pytest
import torch

import sdn
from sdn.dynamics.base import at_start
from sdn.ops.neuron.sequence import operands
from sdn.runs import folder as runs
from sdn.surrogate import running
from sdn.surrogate.making import trajectories
from sdn.surrogate.seam_training import SeamRecipe, Seams
from sdn.surrogate.seams import TAUS, ReducedSeamSDN, SeamSDN, features_of, modes
from sdn.surrogate.shooting import every, features, guess, starts_of
from sdn.surrogate.trajectory_files import TrajectoryFile

QUICK = SeamRecipe(epochs=3, steps_per_epoch=60, batch_size=512, rows=32)
LONGER = SeamRecipe(epochs=3, steps_per_epoch=300, batch_size=1024, rows=48)
SOFT = sdn.LIF(0.9, reset="soft")


def trained(dynamics, tmp_path, over=None, recipe=QUICK, family="mixture"):
    network = SeamSDN(len(dynamics.State._fields), len(over or {}))
    data = trajectories(dynamics, 48, 300, 1, over, family), trajectories(dynamics, 16, 300, 2, over, family)
    return network, sdn.fit(network, *data, run_dir=tmp_path / "run", recipe=recipe)


def test_the_averages_are_those_of_a_plain_loop():
    x = torch.randn(2, 24, 3, dtype=torch.float64)
    found = modes(x, 8)
    for k, tau in enumerate(TAUS):
        keep, y = math.exp(-1 / tau), torch.zeros(2, 3, dtype=torch.float64)
        for t in range(24):
            y = keep * y + (1 - keep) * x[:, t]
            if t % 8 == 7:
                torch.testing.assert_close(found[:, t // 8, k], y, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [SeamSDN, ReducedSeamSDN])
def test_numbers_and_sizes(kind):
    for states, conditions, most in ((1, 0, 115), (2, 0, 134), (3, 0, 153), (1, 2, 127)):
        network = kind(states, conditions)
        assert sum(p.numel() for p in network.parameters()) == most <= 189
        assert network.first.in_features == features_of(states, conditions)
    with pytest.raises(ValueError, match=r"chunk must be from 1 to 4096, got 0"):
        kind(1, chunk=0)
    with pytest.raises(ValueError, match=r"width must be a number >= 0, got -1"):
        kind(1, width=-1)


def test_reduction_folds_all_scales():
    network = SeamSDN(3, 1).initialise(3).double()
    for name, buffer in network.named_buffers():
        buffer.copy_(torch.rand_like(buffer) + 0.5)
        assert "std" in name or "mean" in name
    seen = torch.randn(4, 7, features_of(3, 1), 5, dtype=torch.float64)
    want = network(seen) * network.state_std[:, None]
    assert want.abs().max() > 1e-3
    torch.testing.assert_close(sdn.reduce(network)(seen), want, rtol=1e-10, atol=1e-12)


def ready(dynamics, x):
    made, state = at_start(dynamics, x, None)
    return operands(made, x, state, dynamics.default_spike)[:2]


def test_rounds_from_the_exact_states_stay_there():
    for dynamics in (sdn.LIF(0.9), sdn.ALIF(), sdn.BRF()):
        data = Seams(trajectories(dynamics, 8, 200, 4))
        kernel, _ = data.ready(data.x)
        exact = data.exact(data.x, 16)
        assert torch.equal(starts_of(None, kernel, data.x, exact, 16, 4), exact)


def test_as_many_rounds_as_chunks_are_exact():
    """After round k the first k chunks are right, whatever the network says."""
    for dynamics in (sdn.LIF(0.95), SOFT, sdn.ALIF(), sdn.BRF(), sdn.HRF(), sdn.IzhikevichRF()):
        network = ReducedSeamSDN(len(dynamics.State._fields), width=0.5)
        data = Seams(trajectories(dynamics, 8, 130, 5))
        kernel, first = data.ready(data.x)
        found = starts_of(network, kernel, data.x, guess(network, kernel, data.x, first), 32, 6)
        width = len(dynamics.State._fields)
        torch.testing.assert_close(found[:, :, :width], data.exact(data.x, 32), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wanted", [8, 16, 32, 64])
def test_other_chunks_start_from_states_of_the_same_run(wanted):
    dynamics = sdn.BRF()
    data = Seams(trajectories(dynamics, 6, 210, 6))
    kernel, _ = data.ready(data.x)
    exact = data.exact(data.x, 32)
    found = every(kernel, data.x, exact, 32, wanted)
    assert torch.equal(found, data.exact(data.x, wanted))


def test_features_know_nothing_of_what_comes_later():
    dynamics = sdn.ALIF()
    network = sdn.reduce(SeamSDN(3, width=0.1).initialise(0)).float()
    x = torch.randn(1, 128, 4)
    kernel, first = ready(dynamics, x)
    changed = x.clone()
    changed[:, 64:] += 3
    before, after = (features(network, kernel, each, first)[0] for each in (x, changed))
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2:], after[:, 2:])


def test_training_beats_no_network(tmp_path):
    network, history = trained(sdn.LIF(0.99), tmp_path, recipe=LONGER, family="correlated")
    assert len(history.rows) == 3
    assert history.best_loss == min(row["val/loss"] for row in history.rows)
    fresh = trajectories(sdn.LIF(0.99), 16, 600, 9, family="correlated")
    one, three = (sdn.evaluate(network, fresh, sdn.LIF(0.99), rounds=rounds) for rounds in (1, 3))
    with torch.no_grad():
        network.last.weight.zero_()
        network.last.bias.zero_()
    without = sdn.evaluate(network, fresh, sdn.LIF(0.99), rounds=1)
    assert three.agreement > one.agreement > without.agreement > 0.9
    assert three.agreement > 0.995 > three.trivial_agreement


def test_soft_resets_take_a_width_and_hard_ones_none(tmp_path):
    soft, _ = trained(sdn.LIF(0.99, reset="soft"), tmp_path / "soft")
    izhikevich, _ = trained(sdn.IzhikevichRF(), tmp_path / "izhikevich")
    assert soft.width > 0
    assert izhikevich.width == 0


def test_the_same_seed_is_the_same_network(tmp_path):
    one, two = (trained(sdn.LIF(0.8), tmp_path / name)[0] for name in "ab")
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_resume_is_bit_equal_to_never_stopping(tmp_path, monkeypatch):
    whole, _ = trained(sdn.ALIF(), tmp_path / "whole")
    build = running._trainer

    def with_stop(*given):
        trainer = build(*given)
        end = trainer.fit_loop.advance

        def advance():
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt
            end()

        trainer.fit_loop.advance = advance
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(running, "_trainer", with_stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            trained(sdn.ALIF(), tmp_path / "cut")
    assert runs.load_checkpoint(tmp_path / "cut/run/checkpoints/last.ckpt")["epoch"] == 1
    network = SeamSDN(3)
    data = trajectories(sdn.ALIF(), 48, 300, 1), trajectories(sdn.ALIF(), 16, 300, 2)
    sdn.fit(network, *data, run_dir=tmp_path / "cut/run", recipe=QUICK, resume=True)
    assert all(map(torch.equal, whole.state_dict().values(), network.state_dict().values()))


def test_short_rows_are_refused(tmp_path):
    data = trajectories(sdn.LIF(0.5), 4, 60, 1)
    with pytest.raises(
        ValueError, match=r"the rows have 60 steps; a seam network with chunks of 32 needs more than 64"
    ):
        sdn.fit(SeamSDN(1), data, data, run_dir=tmp_path)


def test_a_recipe_of_the_other_kind_is_refused(tmp_path):
    data = trajectories(sdn.LIF(0.5), 4, 100, 1)
    with pytest.raises(ValueError, match="the recipe of a SeamSDN is a SeamRecipe, got a Recipe"):
        sdn.fit(SeamSDN(1), data, data, run_dir=tmp_path, recipe=sdn.Recipe())


def test_a_network_told_the_decay_serves_all_of_them(tmp_path):
    over = {"decay": (0.2, 0.95)}
    network, _ = trained(sdn.LIF(0.5), tmp_path, over)
    artifact = sdn.save_artifact(tmp_path / "a.safetensors", sdn.reduce(network), sdn.LIF(0.5), over=over)
    assert artifact.over == over
    test = trajectories(sdn.LIF(0.5), 32, 500, 7, over)
    scores = sdn.evaluate(network, test, sdn.LIF(0.5))
    assert scores.agreement > 0.998 > scores.trivial_agreement
    neuron = sdn.Neuron(sdn.LIF(test.values["decay"]), 32, solver=sdn.Surrogate(artifact))
    x = test.input.T.contiguous().unsqueeze(0)
    spikes = neuron(x)[0]
    assert float((test.spike == spikes[0].T).float().mean()) > 0.998


def test_files_with_fields_of_their_own_are_checked(tmp_path):
    over = {"decay": (0.2, 0.95)}
    out = sdn.generate(sdn.LIF(0.5), 20, 100, seed=3, family="mixture", over=over)
    law = {"mean": 0.0, "std": 1.0, "seed": 3, "family": "mixture", "over": over}
    sdn.save_trajectories(tmp_path / "x.pt", out, sdn.LIF(0.5), **law)
    loaded = sdn.load_trajectories(tmp_path / "x.pt")
    assert isinstance(loaded, TrajectoryFile)
    again = sdn.Neuron(loaded.neurons, 20)(loaded.input.T.contiguous().unsqueeze(0))[0]
    assert torch.equal(again[0].T > 0, loaded.spike)
    sdn.save_trajectories(tmp_path / "y.pt", out, sdn.LIF(0.5), **law | {"seed": 4})
    with pytest.raises(ValueError, match=r"spikes that its mem and input do not give|differs from step"):
        sdn.load_trajectories(tmp_path / "y.pt")
