"""`reduce`, `fold` and the artifact: the same function, whole files, nothing executed."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_network import every_size, lively_sdn

import sdn
from sdn import ALIF, LIF, SDN, Artifact, ReducedSDN, load_artifact, reduce, save_artifact
from sdn.surrogate.reduction import fold


@every_size
def test_reduce_is_the_same_function(d_model, kernel_size, n_layers):
    for seed in range(3):
        net = lively_sdn(d_model, kernel_size, n_layers, seed)
        x = 3 * torch.randn(8, 70, dtype=torch.float64)
        got, want = reduce(net)(x), net(x)
        assert want.std() > 1e-2
        assert (got - want).abs().max() < 1e-10
        assert (got[:, :1] - net(x[:, :1])).abs().max() < 1e-10


def test_reduce_takes_float32_networks_and_those_in_train_mode():
    net = SDN(n_layers=2)
    net(torch.randn(64, 100))  # moves the batch norms' statistics
    assert net.training
    before = {k: v.clone() for k, v in net.state_dict().items()}
    reduced = reduce(net)
    assert not reduced.training
    assert {p.dtype for p in reduced.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in reduced.parameters())
    assert net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    x = torch.randn(4, 60, dtype=torch.float64)
    assert (reduced(x) - net.double().eval()(x)).abs().max() < 1e-10
    with torch.no_grad():  # a copy, not a view
        kept = reduced.decoder.weight.clone()
        net.decoder.weight.zero_()
    assert torch.equal(reduced.decoder.weight, kept)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("axes", [(4,), (2, 2)], ids=str)
def test_fold_of_a_population_is_the_fold_of_each(n_layers, axes):
    members = [lively_sdn(4, 3, n_layers, seed).state_dict() for seed in range(4)]
    members = [{k: v for k, v in m.items() if v.is_floating_point()} for m in members]
    together = {k: torch.stack([m[k] for m in members]).unflatten(0, axes) for k in members[0]}
    folded = fold(together, n_layers)
    assert set(folded) == set(ReducedSDN(4, 3, n_layers).state_dict())
    for i, member in enumerate(members):
        for name, value in fold(member, n_layers).items():
            assert torch.allclose(folded[name].flatten(0, len(axes) - 1)[i], value, rtol=1e-14, atol=0)


def test_fold_is_differentiable():
    weights = {k: v for k, v in lively_sdn(2, 3).state_dict().items() if v.is_floating_point()}
    names = list(weights)

    def flat(*values):
        return tuple(fold(dict(zip(names, values, strict=True)), 1).values())

    assert torch.autograd.gradcheck(flat, tuple(v.clone().requires_grad_() for v in weights.values()))


# ---- artifacts
@pytest.mark.parametrize("dynamics", [LIF(0.3, 1.0, "soft"), ALIF(9.0), LIF(torch.tensor([0.1, 0.7]))], ids=str)
def test_save_then_load_returns_the_same(dynamics, tmp_path):
    path, reduced = tmp_path / "deep" / "net.safetensors", reduce(lively_sdn(5, 4, 2))
    saved = save_artifact(path, reduced, dynamics, {"agreement": 0.997}, seed=3, distribution={"mean": 0.0})
    loaded = load_artifact(str(path))
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]
    for artifact in (saved, loaded):
        assert artifact.dynamics == dynamics
        assert artifact.path == path
        assert artifact.facts["metrics"] == {"agreement": 0.997}
        assert (artifact.facts["seed"], artifact.facts["distribution"]) == (3, {"mean": 0.0})
        assert artifact.facts["versions"]["sdn"] == sdn.__version__
        assert (artifact.network.d_model, artifact.network.kernel_size, artifact.network.n_layers) == (5, 4, 2)
        assert not artifact.network.training
        assert not any(p.requires_grad for p in artifact.network.parameters())
        for name, value in reduced.state_dict().items():
            assert torch.equal(artifact.network.state_dict()[name], value.float())
    x = torch.randn(2, 30, dtype=torch.float64)
    assert torch.allclose(loaded.network(x.float()).double(), reduced(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def artifact_path(tmp_path):
    save_artifact(tmp_path / "net.safetensors", reduce(lively_sdn()), LIF(0.125))
    return tmp_path / "net.safetensors"


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def rewrite(path, change_facts=None, change_tensors=None, **header):
    tensors, known = load_file(path), header_of(path)
    facts = json.loads(known["facts"])
    (change_facts or (lambda _: None))(facts)
    (change_tensors or (lambda _: None))(tensors)
    save_file(tensors, path, metadata={**known, "facts": json.dumps(facts), **header})


def refused(path, message):
    with pytest.raises(ValueError, match=message) as error:
        load_artifact(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_untouched_rewrite_still_loads(artifact_path):
    rewrite(artifact_path)
    assert load_artifact(artifact_path).dynamics == LIF(0.125)


TAMPERED = {
    "another-format": (
        {"format": "other"},
        "expected format 'sdn-reduced' version '2' or '1', or 'sdn-seams' version '2', found 'other'",
    ),
    "another-version": ({"format_version": "3"}, "found 'sdn-reduced' version '3'"),
    "facts-not-json": ({"facts": "{"}, "facts and tensors do not fit together"),
    "facts-a-list": ({"facts": "[1]"}, "facts and tensors do not fit together"),
    "facts-null": ({"facts": "null"}, "facts and tensors do not fit together"),
    "no-dynamics": ({"change_facts": lambda f: f.pop("dynamics")}, "'dynamics'"),
    "dynamics-a-word": ({"change_facts": lambda f: f.update(dynamics="LIF")}, "no dynamics is named None"),
    "name-a-list": ({"change_facts": lambda f: f["dynamics"].update(name=[])}, "do not fit together"),
    "unknown-dynamics": ({"change_facts": lambda f: f["dynamics"].update(name="Foo")}, "no dynamics is named 'Foo'"),
    "unknown-field": ({"change_facts": lambda f: f["dynamics"].update(tau=2.0)}, "LIF has the fields"),
    "decay-out-of-range": ({"change_facts": lambda f: f["dynamics"].update(decay=1.5)}, "decay must be in"),
    "decay-nan": ({"change_facts": lambda f: f["dynamics"].update(decay=float("nan"))}, "decay must be in"),
    "decay-a-word": ({"change_facts": lambda f: f["dynamics"].update(decay="0.1")}, "do not fit together"),
    "other-width": ({"change_facts": lambda f: f.update(d_model=4)}, r"decoder.weight is \(1, 8, 1\) there"),
    "huge": ({"change_facts": lambda f: f.update(d_model=4096, kernel_size=4096)}, "do not fit together"),
    "deep": ({"change_facts": lambda f: f.update(n_layers=4096)}, "n_layers is 4096, and there are 6 tensors"),
    "facts-nested": ({"facts": "[" * 100_000}, "do not fit together"),
    "threshold-of-400-digits": (
        {"change_facts": lambda f: f["dynamics"].update(threshold=10**400)},
        "do not fit together",
    ),
    "other-weight": ({"change_tensors": lambda t: t["decoder.bias"].add_(1.0)}, "not those that it was written with"),
    "other-metrics": ({"change_facts": lambda f: f.update(metrics={"agreement": 1})}, "not those that it was written"),
    "no-digest": ({"digest": ""}, "not those that it was written with"),
    "no-layers": ({"change_facts": lambda f: f.update(n_layers=0)}, "do not fit together"),
    "negative-width": ({"change_facts": lambda f: f.update(d_model=-8)}, "do not fit together"),
    "fractional-width": ({"change_facts": lambda f: f.update(d_model=8.5)}, "do not fit together"),
    "missing-tensor": ({"change_tensors": lambda t: t.pop("decoder.bias")}, "decoder.bias"),
    "extra-tensor": ({"change_tensors": lambda t: t.update(more=torch.ones(2))}, "more"),
    "nan-weight": ({"change_tensors": lambda t: t["decoder.bias"].fill_(float("nan"))}, "NaN or infinite"),
    "infinite-weight": ({"change_tensors": lambda t: t["feature.0.weight"].fill_(float("inf"))}, "NaN or infinite"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_artifacts_are_refused_in_one_line(name, artifact_path):
    change, message = TAMPERED[name]
    rewrite(artifact_path, **change)
    refused(artifact_path, message)


def test_a_file_of_the_first_version_has_no_digest_and_says_so_once(artifact_path):
    rewrite(artifact_path, change_tensors=lambda t: t["decoder.bias"].add_(1.0), format_version="1")
    with pytest.warns(UserWarning, match="first version, which has no digest"):
        first = load_artifact(artifact_path)
    assert first.digest == load_artifact(artifact_path).digest != ""


def test_the_digest_is_that_of_what_the_file_holds(artifact_path, tmp_path):
    first = load_artifact(artifact_path)
    other = tmp_path / "copy.safetensors"
    other.write_bytes(artifact_path.read_bytes())
    assert load_artifact(other).digest == first.digest == header_of(artifact_path)["digest"]
    again = save_artifact(other, first.network, LIF(0.126))
    assert again.digest != first.digest


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_files_are_refused(keep, artifact_path):
    artifact_path.write_bytes(artifact_path.read_bytes()[:keep])
    refused(artifact_path, "not a readable safetensors file")


def test_safetensors_of_somebody_else_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    refused(path, "expected format 'sdn-reduced'")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_executed(tmp_path):
    fuse = tmp_path / "executed"
    plain, zipped = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    plain.write_bytes(pickle.dumps(Bomb(fuse)))
    torch.save({"decoder.weight": Bomb(fuse)}, zipped)
    refused(plain, "not a readable safetensors file")
    refused(zipped, "a zip archive, as the published network is")
    assert not fuse.exists()
    pickle.loads(plain.read_bytes())
    assert fuse.exists(), "the bomb is a dud: the test says nothing"


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such artifact"):
        load_artifact(tmp_path / "none.safetensors")


def test_weights_that_are_not_numbers_are_not_saved(artifact_path):
    before = artifact_path.read_bytes()
    reduced = reduce(lively_sdn())
    reduced.decoder.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite; it was not saved"):
        save_artifact(artifact_path, reduced, LIF())
    assert artifact_path.read_bytes() == before


def test_facts_that_cannot_be_written_leave_the_old_file(artifact_path):
    before = artifact_path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_artifact(artifact_path, reduce(lively_sdn()), LIF(), seed=torch.ones(1))
    assert artifact_path.read_bytes() == before
    assert [p.name for p in artifact_path.parent.iterdir()] == [artifact_path.name]


def test_what_is_reduced_already_is_refused():
    with pytest.raises(ValueError, match=r"takes an SDN or a SeamSDN, got Artifact; it is reduced already"):
        reduce(Artifact(reduce(lively_sdn(5, 4, 2)), {}))
