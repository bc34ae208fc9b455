"""The file of a surrogate is read once: what it holds later changes no neuron, and a neuron goes without it."""

import copy
import pickle
import zipfile

import pytest
import torch
from helpers import assert_lively, currents
from test_network import lively_sdn
from torch.testing import assert_close

import sdn
from sdn.surrogate.artifact import copy_artifact
from spikingssm import SpikingSSM

LIF = sdn.LIF(0.125)
MODEL = {"d_model": 4, "d_state": 4, "n_layers": 1}


def written(path, seed):
    sdn.save_artifact(path, sdn.reduce(lively_sdn(seed=seed)), LIF)
    return path


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "a.safetensors", 0)


def spikes(neuron, steps=64):
    got = neuron(currents(2.0, 2, steps, 3, torch.float32))[0]
    assert_lively(got)
    return got


def test_a_file_that_changed_or_went_changes_nothing(path):
    neuron = sdn.Neuron(LIF, 3, solver=sdn.Surrogate(path))
    want = spikes(neuron)
    written(path, 2)
    assert_close(spikes(neuron), want, rtol=0, atol=0)
    other = sdn.Neuron(LIF, 3, solver=sdn.Surrogate(str(path)))
    assert (spikes(other) != want).any()
    path.unlink()
    assert_close(spikes(neuron), want, rtol=0, atol=0)


def test_no_forward_opens_a_file(path, monkeypatch):
    neurons = [sdn.Neuron(LIF, 3, solver=solver) for solver in (sdn.Surrogate(path), sdn.Surrogate())]

    def refused(*_, **__):
        raise AssertionError("a file was opened")

    for name in ("builtins.open", "pathlib.Path.stat", "pathlib.Path.glob", "sdn.surrogate.artifact.load_artifact"):
        monkeypatch.setattr(name, refused)
    monkeypatch.setattr("sdn.solvers.matching.load_artifact", refused)
    for neuron in neurons:
        spikes(neuron)


@pytest.mark.parametrize("carried", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_has_the_network(path, carried):
    solver = sdn.Surrogate(path, refine=1)
    neuron, model = sdn.Neuron(LIF, 3, solver=solver), SpikingSSM(2, 3, **MODEL, solver=solver).eval()
    x = torch.randn(2, 9, 2)
    want, logits = spikes(neuron), model(x)
    path.unlink()
    assert carried(solver) == solver
    assert_close(spikes(carried(neuron)), want, rtol=0, atol=0)
    assert_close(carried(model)(x), logits, rtol=0, atol=0)


def test_a_whole_model_is_saved_with_its_network(path, tmp_path):
    neuron = sdn.Neuron(LIF, 3, solver=sdn.Surrogate(path))
    want = spikes(neuron)
    torch.save(neuron, tmp_path / "neuron.pt")
    path.unlink()
    assert_close(spikes(torch.load(tmp_path / "neuron.pt", weights_only=False)), want, rtol=0, atol=0)


def test_artifacts_are_known_by_their_digest(path, tmp_path):
    first, again = sdn.load_artifact(path), sdn.load_artifact(path)
    other = sdn.load_artifact(written(tmp_path / "b.safetensors", 1))
    assert first == again != other
    assert hash(first) == hash(again) != hash(other)
    assert sdn.Surrogate(path) == sdn.Surrogate(again) != sdn.Surrogate(other)
    assert first.digest[:12] in repr(sdn.Surrogate(first))
    assert str(tmp_path) not in repr(sdn.Surrogate(first))  # runs of several folders are one row of a report
    made, bare = sdn.Artifact(first.network, first.facts), sdn.Artifact(first.network)
    assert made != sdn.Artifact(first.network, first.facts)  # no digest: only itself
    assert made == made
    assert len({made, first, again, other}) == 3
    assert "sha256 unknown" in repr(bare)
    assert bare != "an artifact"


def test_a_copy_of_an_artifact_is_equal_to_it(path, tmp_path):
    read = sdn.load_artifact(path)
    path.unlink()
    kept = copy_artifact(tmp_path / "kept.safetensors", read)
    assert kept == read
    assert kept.facts == read.facts
    assert kept.path == tmp_path / "kept.safetensors"


def test_a_file_that_is_not_there_or_none_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors: no such artifact"):
        sdn.Surrogate(tmp_path / "gone.safetensors")
    (tmp_path / "rubbish").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match="rubbish: not a readable safetensors file"):
        sdn.Surrogate(tmp_path / "rubbish")


def test_the_published_archive_is_named_with_the_command_that_reads_it(tmp_path):
    path = tmp_path / "published net.pkl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(ValueError, match=r"`python -m sdn import '.*published net.pkl' 'published net'.safetensors`"):
        sdn.load_artifact(path)
