"""The artifacts that ship stand for the neurons they name, as well as they say."""

import pytest

import sdn
from sdn.surrogate.artifact import shipped_artifacts
from sdn.surrogate.making import scores
from sdn.surrogate.zoo import ENTRIES

SHIPPED = {0.125: 0.9999, 0.2: 0.9993}


@pytest.mark.parametrize(("decay", "agreement"), SHIPPED.items())
def test_a_shipped_artifact_is_as_good_as_it_says(decay, agreement):
    artifact = next(a for a in map(sdn.load_artifact, shipped_artifacts()) if a.dynamics == sdn.LIF(decay))
    assert sum(p.numel() for p in artifact.network.parameters()) == 153
    fresh = sdn.generate(sdn.LIF(decay), 4000, 1024, seed=77)
    found = sdn.evaluate(artifact.network, fresh, sdn.LIF(decay))
    stated = artifact.facts["metrics"]["test"]
    assert stated["agreement"] >= agreement
    assert found.agreement == pytest.approx(stated["agreement"], abs=3e-5)
    assert found.f1 == pytest.approx(stated["f1"], abs=1e-4)
    assert found.agreement > found.trivial_agreement + 0.01


def test_surrogate_is_there_without_a_path():
    """Guards defect 8: a network for decay 0.2 was used as one for 0.125."""
    for decay in SHIPPED:
        sdn.Neuron(sdn.LIF(decay), 4, learn={"threshold": 1.5}, solver="surrogate")
    with pytest.raises(ValueError, match=r"no shipped artifact stands for ALIF\(tau_m=7.*shipped: ALIF\(tau_m=20.0"):
        sdn.Neuron(sdn.ALIF(tau_m=7), 4, solver="surrogate")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_of_the_zoo_ships_and_is_as_good_as_it_says(name):
    dynamics, over = ENTRIES[name]
    artifact = next(found for found in map(sdn.load_artifact, shipped_artifacts()) if found.path.stem == name)
    assert artifact.dynamics == dynamics
    assert artifact.over == over
    assert artifact.path.stat().st_size < 50_000
    assert sum(value.numel() for value in artifact.tensors) + 2 * len(dynamics.State._fields) + 1 <= 189
    stated = artifact.facts["metrics"]["normal"]
    assert stated["agreement"] > stated["trivial_agreement"]
    found = scores(artifact.network, dynamics, over, families=["normal"], rows=32, length=1024, seed=5)["normal"]
    assert found.agreement == pytest.approx(stated["agreement"], abs=0.003)
    assert found.spike_rate > 0.01


def test_which_of_several_shipped_ones_is_taken():
    """The very neuron before one that is told its fields; one that is told where they are learned."""
    chosen = {
        "lif-decay-0.125": {}, "lif-decay-0.9": {}, "lif-any-decay": {"learn": {"decay": 0.3}},
    }  # fmt: skip
    for name, options in chosen.items():
        decay = 0.9 if name.endswith("0.9") else 0.125
        neuron = sdn.Neuron(sdn.LIF(decay), 4, solver="surrogate", **options)
        assert neuron.solver.stands_for(neuron.dynamics)[1].path.stem == name
    assert sdn.Surrogate().stands_for(sdn.LIF([0.3, 0.7]))[1].path.stem == "lif-any-decay"
    assert sdn.Surrogate().stands_for(sdn.LIF(0.77, reset="soft"))[1].path.stem == "lif-soft-any-decay"
