"""`sdn.fidelity`: right about an exact surrogate and about a useless one, for every form of a surrogate."""

import dataclasses
import json
import math

import matplotlib
import pytest
import torch

import sdn
from sdn.scoring.report import Family, fidelity
from sdn.surrogate.artifact import shipped_artifacts
from sdn.surrogate.seams import ReducedSeamSDN

matplotlib.use("Agg")
SMALL = {"rows": 16, "length": 256}


def shipped(name):
    return sdn.load_artifact(next(path for path in shipped_artifacts() if path.stem == name))


@pytest.fixture(scope="module")
def alif():
    return fidelity(sdn.ALIF(), rows=32, length=1024)


def test_a_surrogate_that_is_exact_has_perfect_scores():
    """RF has no reset, so that one correction of the seams is exact."""
    found = fidelity(shipped("rf"), families=["normal", "correlated"], **SMALL)
    for family in found.families.values():
        assert family.agreement == family.f1 == family.tolerant_f1 == family.precision == family.recall == 1
        assert family.auc > 0.999999
        assert family.explained_variance > 0.999999
        assert all(value == pytest.approx(1, abs=1e-9) for value in family.counts.values())
        assert family.time_error == 0
        assert 0.05 < family.rate < 0.6
        assert family.silent == pytest.approx(1 - family.rate)
    assert found.over_layers == [1, 1, 1, 1]
    assert set(found.over_length.values()) == {1}
    for cosine, norm in found.gradients.values():
        assert cosine > 0.9999
        assert norm == pytest.approx(1, abs=1e-3)


def test_a_surrogate_that_knows_nothing_is_not_worth_having(tmp_path):
    """One round from the state at rest, in chunks of four steps."""
    dynamics = sdn.LIF(0.99, reset="soft")
    network = ReducedSeamSDN(1, chunk=4)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    found = fidelity(network, dynamics, rounds=1, families=["normal"], everything=False, **SMALL)
    assert not found.families["normal"].is_worth_having
    assert "not worth having" in str(found)
    good = fidelity(shipped("lif-soft-decay-0.9"), families=["normal"], everything=False, **SMALL)
    assert good.families["normal"].is_worth_having
    assert "not worth having" not in str(good)


def test_numbers_are_those_of_a_plain_count(alif):
    """Agreement and the trivial predictors, counted again from the layers themselves."""
    dynamics = sdn.ALIF()
    x = sdn.surrogate.currents.currents(dynamics, "normal", 32, 1024, seed=4242).T.contiguous().unsqueeze(0)
    true = sdn.simulate(dynamics, x).spike
    ours = sdn.Neuron(dynamics, 32, solver="surrogate")(x)[0]
    family = alif.families["normal"]
    assert family.agreement == pytest.approx(float((true == ours).double().mean()), abs=1e-9)
    mem0 = dynamics.fires(torch.zeros_like(x), x)
    assert family.mem0 == pytest.approx(float((mem0 == (true > 0)).double().mean()), abs=1e-6)
    both = float((true * ours).sum())
    assert family.f1 == pytest.approx(2 * both / float(true.sum() + ours.sum()), abs=1e-9)
    assert 0.9 < family.f1 < 1 or 0.6 < family.f1 < 0.9


def test_what_is_looked_at(alif):
    assert [*alif.families] == [
        "normal", "driven", "wide", "correlated", "sparse", "sinusoid", "near-threshold",
    ]  # fmt: skip
    assert len(alif.over_time) == 4
    assert alif.over_time[0] < alif.over_time[-1]  # an adaptation remembers what went wrong
    assert [*alif.over_length] == [128, 4096]
    assert alif.over_layers == sorted(alif.over_layers, reverse=True)
    assert all(cosine > 0.98 for cosine, _ in alif.gradients.values())
    assert all(isinstance(family, Family) for family in alif.families.values())


def test_a_network_that_is_told_fields_is_judged_over_them():
    found = fidelity(shipped("lif-any-decay"), families=["normal"], **SMALL)
    assert [*found.over_fields["decay"]] == ["0.05", "0.275", "0.5", "0.725", "0.95"]
    assert all(value > 0.999 for value in found.over_fields["decay"].values())
    assert "agreement by decay" in str(found)


def test_every_form_of_a_surrogate_is_the_same_surrogate():
    dynamics, artifact = sdn.LIF(0.125), shipped("lif-decay-0.125")
    forms = [
        fidelity(artifact, families=["wide"], everything=False, **SMALL),
        fidelity(artifact.path, families=["wide"], everything=False, **SMALL),
        fidelity(str(artifact.path), families=["wide"], everything=False, **SMALL),
        fidelity(dynamics, families=["wide"], everything=False, **SMALL),
        fidelity(artifact.network, dynamics, families=["wide"], everything=False, **SMALL),
        fidelity(sdn.Neuron(dynamics, 3, solver="surrogate"), families=["wide"], everything=False, **SMALL),
    ]
    assert all(each.families == forms[0].families for each in forms)
    assert 0.999 < forms[0].families["wide"].agreement <= 1


def test_as_json_and_as_a_picture(alif, tmp_path):
    text = json.dumps(alif.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["families"]["normal"]["agreement"] == alif.families["normal"].agreement
    figure = alif.plot()
    assert len(figure.axes) == 3
    figure.savefig(tmp_path / "x.png")


def test_what_cannot_be_said_is_none_in_json():
    silent = fidelity(shipped("rf"), families=["near-threshold"], rows=2, length=64, everything=False)
    plain = silent.to_dict()["families"]["near-threshold"]
    assert silent.families["near-threshold"].rate == 0 or plain["f1"] is not None
    assert not any(isinstance(value, float) and math.isnan(value) for value in plain.values())


def test_one_value_of_a_range_is_judged_by_itself():
    one, other = (fidelity(sdn.LIF(decay), families=["normal"], everything=False, **SMALL) for decay in (0.07, 0.94))
    assert one.families["normal"].rate > 1.5 * other.families["normal"].rate
    layer = sdn.Neuron(sdn.LIF([0.07, 0.94]), 2, solver="surrogate")
    both = fidelity(layer, families=["normal"], **SMALL).families["normal"]
    rates = [each.families["normal"].rate for each in (one, other)]
    assert both.rate == pytest.approx(sum(rates) / 2, rel=0.15)


def test_currents_come_in_units_of_the_threshold():
    plain = fidelity(sdn.LIF(0.9), families=["normal"], everything=False, **SMALL)
    large = fidelity(sdn.LIF(0.9, threshold=128.0), families=["normal"], everything=False, **SMALL)
    assert plain.families["normal"].rate == large.families["normal"].rate > 0.02
    assert plain.families["normal"].agreement == large.families["normal"].agreement


def test_a_family_without_spikes_says_nothing():
    found = fidelity(shipped("rf"), families=["normal"], everything=False, **SMALL)
    silent = dataclasses.replace(found.families["normal"], rate=0.0)
    assert not silent.is_worth_having
    assert "no spikes: says nothing" in str(dataclasses.replace(found, families={"normal": silent}))


REFUSED = [
    (lambda: fidelity(ReducedSeamSDN(1)), "does not say what neuron it stands for; pass dynamics"),
    (lambda: fidelity(sdn.Neuron(sdn.LIF(), 3)), "runs by Fused.*which is exact; give one with a surrogate"),
    (lambda: fidelity("none.safetensors"), "no such artifact"),
    (lambda: fidelity(3), "takes an artifact, its path, a network"),
    (lambda: fidelity(sdn.LIF(0.125), families=["loud"]), "family of currents must be one of"),
    (lambda: fidelity(sdn.LIF(0.125), rows=1), "rows must be"),
    (lambda: fidelity(sdn.ALIF(), chunk=0), "chunk must be an integer >= 1, got 0"),
    (lambda: fidelity(sdn.ALIF(tau_m=3.0)), "no shipped artifact stands for ALIF"),
    (lambda: fidelity(shipped("rf"), sdn.BRF()), "artifact was made for RF"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refusals(call, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call()
