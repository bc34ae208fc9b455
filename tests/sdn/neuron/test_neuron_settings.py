"""What a neuron is told after it was made is looked at as before, and an artifact runs its own network."""

import copy
import dataclasses

import pytest
import torch

import sdn
from sdn.surrogate.artifact import shipped_artifacts
from spikingssm import Recurrent
from spikingssm.layers.s5 import ResonateAndFire


@pytest.fixture
def artifact():
    return next(a for a in map(sdn.load_artifact, shipped_artifacts()) if a.dynamics == sdn.LIF(0.125))


@pytest.fixture
def x():
    return torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(0))


def test_another_neuron_needs_another_surrogate(artifact, x) -> None:
    solver, other = sdn.Surrogate(artifact), sdn.LIF(0.9)
    neuron = sdn.Neuron(sdn.LIF(0.125), 8, solver=solver)
    before = neuron(x)[0]
    for set_it in (
        lambda: setattr(neuron, "dynamics", other),
        lambda: setattr(sdn.Neuron(other, 8), "solver", solver),
        lambda: sdn.Neuron(other, 8).with_solver(solver),
        lambda: sdn.Surrogate(artifact).run(other, x, None, sdn.Triangle()),
    ):
        with pytest.raises(ValueError, match=r"artifact was made for LIF\(decay=0.125.* this neuron is LIF\(decay=0.9"):
            set_it()
    assert neuron.dynamics == sdn.LIF(0.125)
    assert torch.equal(neuron(x)[0], before)
    assert 0.05 < before.mean() < 0.5
    neuron.dynamics = sdn.LIF(0.125, threshold=2.0)  # scales
    assert neuron(x)[0].mean() < before.mean()


def test_a_solver_may_be_set_by_its_word(x) -> None:
    neuron = sdn.Neuron(sdn.LIF(0.5), 8)
    fused = neuron(x)[0]
    neuron.solver = "loop"
    assert neuron.solver == sdn.Loop()
    assert torch.equal(neuron(x)[0], fused)
    with pytest.raises(ValueError, match="solver must be one of"):
        neuron.solver = "nothing"
    with pytest.raises(ValueError, match="no shipped artifact stands for HRF"):
        setattr(sdn.Neuron(sdn.LIF(0.2), 8, solver="surrogate"), "dynamics", sdn.HRF(omega=11))  # noqa: B010
    layer = Recurrent(3, sdn.LIF(0.5), 8)
    layer.solver = "loop"
    assert layer.solver == sdn.Loop(detach_reset=False)
    with pytest.raises(NotImplementedError, match="parallel"):
        layer.solver = "parallel"
    resonator = ResonateAndFire(8)
    resonator.solver = "parallel"
    with pytest.raises(NotImplementedError, match="surrogate"):
        resonator.solver = "surrogate"


def test_a_neuron_pickled_by_an_earlier_version_has_its_solver(x) -> None:
    neuron = sdn.Neuron(sdn.LIF(0.5), 8, solver="loop")
    state = dict(neuron.__dict__)
    state["solver"] = state.pop("_solver")
    old = sdn.Neuron.__new__(sdn.Neuron)
    old.__setstate__(state)
    assert old.solver == sdn.Loop()
    assert torch.equal(old(x)[0], neuron(x)[0])


def zeroed(network):
    network = copy.deepcopy(network)
    for weight in network.parameters():
        weight.data.zero_()
    return network


def test_a_changed_artifact_runs_its_own_network(artifact, x) -> None:
    """The digest of its file is no longer its own."""

    def run(given):
        return sdn.Neuron(sdn.LIF(0.125), 8, solver=sdn.Surrogate(given))(x)[0]

    before, want = run(artifact), (x >= 1).float()  # with a network that says 0 a spike is an input of 1
    assert not torch.equal(before, want)
    assert torch.equal(run(dataclasses.replace(artifact, network=zeroed(artifact.network))), want)
    changed = sdn.load_artifact(artifact.path)
    for weight in changed.network.parameters():
        weight.data.zero_()
    assert torch.equal(run(changed), want)
    assert sdn.Surrogate(changed) != sdn.Surrogate(artifact)
    assert torch.equal(run(artifact), before)


def test_an_artifact_that_is_changed_in_use_runs_as_it_is(artifact, x) -> None:
    mine = sdn.load_artifact(artifact.path)
    neuron = sdn.Neuron(sdn.LIF(0.125), 8, solver=sdn.Surrogate(mine))
    neuron(x)
    with torch.no_grad():
        for weight in mine.network.parameters():
            weight.zero_()
    assert torch.equal(neuron(x)[0], (x >= 1).float())
    assert not torch.equal(sdn.Neuron(sdn.LIF(0.125), 8, solver=sdn.Surrogate(artifact))(x)[0], (x >= 1).float())
