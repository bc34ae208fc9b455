"""The artifacts that ship stand for the neurons they name, as well as they say."""

import pytest

import sdn
from sdn.surrogate.artifact import shipped_artifacts

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
    with pytest.raises(ValueError, match=r"no shipped artifact stands for LIF\(decay=0.3.*shipped: LIF\(decay=0.125"):
        sdn.Neuron(sdn.LIF(0.3), 4, solver="surrogate")
