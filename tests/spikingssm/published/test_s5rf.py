"""Published arrays in, the same network out, and back."""

import io
import os
import zipfile

import numpy as np
import pytest
import s5rf_oracle as oracle
import torch
from helpers import assert_close, assert_lively

from spikingssm.models.s5rf import S5RF
from spikingssm.published.s5rf import s5rf_from_npz, s5rf_to_npz

SIZES = (3, 8, 8, 8, 5)
ZOH = {"first_discretisation": "zoh"}


def arrays_of(seed=0, sizes=SIZES):
    return oracle.published_arrays(sizes, 2, seed=seed, gain=8.0)


@pytest.fixture
def file(tmp_path):
    """Writes arrays, changed by keyword (dots as __), and gives the path."""

    def write(changes=None, without=(), arrays=None):
        arrays = {**(arrays or arrays_of()), **(changes or {})}
        np.savez(tmp_path / "published.npz", **{k: v for k, v in arrays.items() if k not in without})
        return tmp_path / "published.npz"

    return write


@pytest.mark.parametrize("first", ["zoh", "dirac", "bilinear"])
@pytest.mark.parametrize("solver", ["fused", "parallel", "loop"])
def test_the_oracle_run_on_the_same_arrays_gives_the_same_logits(file, first, solver):
    model = s5rf_from_npz(file(), dtype=torch.float64, first_discretisation=first, solver=solver)
    x = torch.randn(4, 50, 3, dtype=torch.float64)
    want = oracle.network(oracle.as_leaves(arrays_of()), x, names=[first, "dirac", "dirac"])
    for spikes in want.spikes:
        assert_lively(spikes)
    assert_close(model(x)[0].detach(), want.logits.detach())


def test_options_reach_the_model(file):
    x = torch.randn(4, 50, 3, dtype=torch.float64)
    for ours, theirs in (
        ({"magnitude": True}, {"magnitude": True}),
        ({"refractory": 0.6}, {"rho": 0.6}),
        ({"skip": "none"}, {"skips": ()}),
    ):
        model = s5rf_from_npz(file(), dtype=torch.float64, **ZOH, **ours)
        want = oracle.network(oracle.as_leaves(arrays_of()), x, **theirs)
        assert_close(model(x)[0].detach(), want.logits.detach())


def test_other_spellings_of_the_same_arrays_give_the_same_model(file):
    arrays = arrays_of()
    plain = s5rf_from_npz(file(), **ZOH).state_dict()
    V = arrays["layers.0.V"]
    for changes in (
        {f"layers.{i}.log_eta": arrays[f"layers.{i}.log_eta"][:, None] for i in range(3)},
        {"layers.0.V": V[..., 0] + 1j * V[..., 1]},
        {"layers.0.V": (V[..., 0] + 1j * V[..., 1]).astype(np.complex64)},
        {k: v.astype(np.float32) for k, v in arrays.items()},
    ):
        other = s5rf_from_npz(file(changes), **ZOH).state_dict()
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[k], other[k]) for k in plain)
    kept = s5rf_from_npz(file(without=("layers.1.V", "layers.2.V")), **ZOH).state_dict()
    assert all(torch.equal(plain[k], kept[k]) for k in plain)


def test_numbers_keep_the_precision_that_is_asked_for(file):
    double = s5rf_from_npz(file(), dtype=torch.float64, **ZOH)
    np.testing.assert_array_equal(double.layers[1].neuron.omega.detach().numpy(), arrays_of()["layers.1.omega"])
    np.testing.assert_array_equal(double.readout.weight.detach().numpy(), arrays_of()["readout.W"][..., 0])
    assert all(p.dtype == torch.float32 for p in s5rf_from_npz(file(), **ZOH).parameters())


def test_the_dead_half_of_the_readout_changes_nothing(file):
    W = arrays_of()["readout.W"].copy()
    W[..., 1] = 7.0
    states = [s5rf_from_npz(file(c), **ZOH).state_dict() for c in (None, {"readout.W": W})]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def lively(layers, blocks, **options):
    model = S5RF(3, 4, 8, layers, num_blocks=blocks, eta_min=0.05, eta_max=0.5, **options).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.dense.weight.mul_(20)
    return model


@pytest.mark.parametrize(("layers", "blocks"), [(2, 4), (1, 1), (3, 2)])
@pytest.mark.parametrize(
    "options",
    [ZOH, {}, {"discretisation": "zoh"}, {**ZOH, "spectrum": "random"}, {**ZOH, "refractory": 0.5, "skip": "all"}],
    ids=lambda options: "-".join(map(str, options.values())) or "dirac",
)
def test_there_and_back_is_the_same_model(tmp_path, layers, blocks, options):
    model = lively(layers, blocks, **options)
    s5rf_to_npz(tmp_path / "m.npz", model)
    back = s5rf_from_npz(tmp_path / "m.npz", **{"first_discretisation": None, **options})
    one, other = model.state_dict(), back.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)
    x = torch.randn(2, 30, 3)
    assert torch.equal(model(x)[0], back(x)[0])
    assert model(x)[0].abs().max() > 0


def test_what_is_written_has_the_published_names_and_shapes(tmp_path):
    model = lively(2, 2, **ZOH)
    s5rf_to_npz(tmp_path / "m.npz", model)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert {k: v.shape for k, v in arrays.items()} == {
        k: v.shape for k, v in oracle.published_arrays((3, 8, 8, 4), 2).items() if k != "layers.1.V"
    }
    assert not arrays["readout.W"][..., 1].any()
    x = torch.randn(2, 30, 3)
    want = oracle.network(oracle.as_leaves(arrays), x.double())
    assert_lively(want.spikes[-1])
    assert_close(model(x)[0].detach(), want.logits.detach(), factor=10)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    s5rf_to_npz(path, S5RF(3, 4, 8, 1, num_blocks=2))
    before = path.read_bytes()

    def halfway(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", halfway)
    with pytest.raises(OSError, match="no space"):
        s5rf_to_npz(path, S5RF(3, 4, 8, 1, num_blocks=2))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.npz"]  # noqa: PTH208


def raises_one_line(kind, match, path, **options):
    with pytest.raises(kind, match=match) as error:
        s5rf_from_npz(path, **options)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers.0.log_decay", 1e30), ("layers.1.log_decay", -1e30), ("layers.0.omega", 1e30),
        ("layers.2.log_eta", 9.0), ("layers.0.B_tilde", 1e30), ("readout.W", -1e12),
        ("readout.tau", 1e5), ("layers.0.V", 2.0),
    ],
)  # fmt: skip
def test_numbers_that_no_training_ends_with_are_refused(file, name, value):
    array = arrays_of()[name].copy()
    array.reshape(-1)[-1] = value
    raises_one_line(ValueError, rf"{name} is .* at .*, it must be from", file(changes={name: array}), **ZOH)


@pytest.mark.parametrize("name", sorted(set(arrays_of()) - {"layers.1.V", "layers.2.V"}))
def test_a_missing_array_is_named(file, name):
    raises_one_line(ValueError, rf"array {name.replace('.', '[.]')} .*missing", file(without=(name,)), **ZOH)


def test_a_missing_layer_is_named(file):
    path = file(without=[k for k in arrays_of() if k.startswith("layers.1.")])
    raises_one_line(ValueError, r"layers\.1\.B_tilde is missing", path)
    raises_one_line(ValueError, r"layers\.3\.B_tilde is missing", file({"layers.999999999.omega": np.zeros(8)}))


@pytest.mark.parametrize("name", ["layers.0.bias", "readout.V", "optimiser.step", "layers.-1.omega", "LAYERS.0.omega"])
def test_an_unknown_array_is_named(file, name):
    raises_one_line(ValueError, rf"unknown array {name}", file({name: np.zeros(8)}))


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("layers.0.B_tilde", (8, 3), "(P, d_input, 2)"),
        ("layers.0.B_tilde", (8, 3, 3), "(P, d_input, 2)"),
        ("layers.0.B_tilde", (8, 0, 2), "(P, d_input, 2)"),
        ("layers.1.B_tilde", (8, 3, 2), "(8, 8, 2)"),
        ("layers.2.B_tilde", (2, 8, 8), "(8, 8, 2)"),
        ("layers.1.omega", (4,), "(8,)"),
        ("layers.1.omega", (8, 1), "(8,)"),
        ("layers.1.log_decay", (), "(8,)"),
        ("layers.0.log_eta", (8, 2), "(8,)"),
        ("layers.0.V", (4, 4, 2), "(8, 8, 2)"),
        ("layers.2.V", (8, 8), "(8, 8, 2)"),
        ("readout.W", (5, 8), "(C, P, 2)"),
        ("readout.W", (5, 6, 2), "(5, 8, 2)"),
        ("readout.tau", (4,), "(5,)"),
    ],
)
def test_a_wrong_shape_is_named_with_the_right_one(file, name, shape, wanted):
    path = file({name: np.zeros(shape)})
    with pytest.raises(ValueError, match=name) as error:
        s5rf_from_npz(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(shape) in message
    assert wanted in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("name", ["layers.1.omega", "layers.0.V", "readout.W", "layers.2.B_tilde"])
def test_a_number_that_is_not_finite_is_named(file, bad, name):
    array = arrays_of()[name].copy()
    array.flat[3] = bad
    raises_one_line(ValueError, rf"{name}.*not finite.*{str(bad).replace('+', '[+]')}", file({name: array}))


@pytest.mark.parametrize(
    "array", [np.array(["a"] * 8), np.ones(8, dtype=bool), np.ones(8, dtype=complex)], ids=["text", "bool", "complex"]
)
def test_another_kind_of_number_is_refused(file, array):
    raises_one_line(ValueError, rf"layers.1.omega holds {array.dtype}", file({"layers.1.omega": array}))


def test_a_pickle_is_never_opened(file, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    raises_one_line(
        ValueError, "not an .npz file of plain arrays .layers.1.omega", file({"layers.1.omega": np.array([Trap()] * 8)})
    )
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_another_kind_is_refused(file, tmp_path):
    raises_one_line(FileNotFoundError, "no such file", tmp_path / "absent.npz")
    raises_one_line(FileNotFoundError, "no such file", tmp_path)
    other = tmp_path / "other.npz"
    for content in (b"", b"text\nmore", npy(np.zeros(3)), file().read_bytes()[:-40], file().read_bytes()[:300]):
        other.write_bytes(content)
        raises_one_line(ValueError, "not an .npz file of plain arrays", other)
    whole = bytearray(file().read_bytes())
    whole[500] ^= 255
    other.write_bytes(whole)
    raises_one_line(ValueError, "not an .npz file of plain arrays .layers.0.B_tilde", other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "words")
    raises_one_line(ValueError, "not an .npz file of plain arrays .readme.txt", other)
    with zipfile.ZipFile(other, "w"):
        pass
    raises_one_line(ValueError, r"layers\.0\.B_tilde is missing", other)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_options_that_contradict_the_arrays_are_refused(file):
    raises_one_line(ValueError, "d_model, n_layers", file(), d_model=8, n_layers=2)
    raises_one_line(ValueError, r"\(8, 8, 2\).*num_blocks=4", file(), num_blocks=4, **ZOH)
    raises_one_line(ValueError, r"\(8, 8, 2\).*num_blocks=3", file(), num_blocks=3, **ZOH)
    assert s5rf_from_npz(file(), num_blocks=2, **ZOH).layers[0].neuron.rotation.shape == (2, 4, 4)
    V = arrays_of()["layers.0.V"].copy()
    V[0, 7, 0] = 1.0  # outside the blocks: one block as large as all
    assert s5rf_from_npz(file({"layers.0.V": V}), **ZOH).layers[0].neuron.rotation.shape == (2, 8, 8)
    with pytest.raises((ValueError, NotImplementedError), match="fft"):
        s5rf_from_npz(file(), solver="fft", **ZOH)


def test_whether_a_rotation_is_used_must_be_said(file):
    raises_one_line(ValueError, r"layers\.0\.V \(8, 8, 2\).*first_discretisation='zoh'", file())
    assert s5rf_from_npz(file(), first_discretisation="dirac").layers[0].neuron.rotation is None
    assert s5rf_from_npz(file(), first_discretisation=None).layers[0].neuron.rotation is None
    both = [s5rf_from_npz(file(), first_discretisation=first, discretisation="zoh") for first in (None, "zoh")]
    assert torch.equal(*(model.layers[0].neuron.rotation for model in both))


def test_without_a_rotation_zoh_in_layer_0_is_refused_and_other_discretisations_are_not(file):
    path = file(without=[f"layers.{i}.V" for i in range(3)])
    raises_one_line(ValueError, r"layers\.0\.V \(8, 8, 2\) is missing.*first_discretisation", path, **ZOH)
    assert s5rf_from_npz(path, first_discretisation="dirac").layers[0].neuron.rotation is None


def test_what_is_no_network_no_option_and_no_precision_of_ours_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="must be an S5RF, got Linear"):
        s5rf_to_npz(tmp_path / "x.npz", torch.nn.Linear(1, 1))
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(ValueError, match=r"float32 or torch\.float64, got torch\.float16"):
        s5rf_from_npz(tmp_path / "x.npz", dtype=torch.float16)
    with pytest.raises(ValueError, match="'foo' is no option of S5RF"):
        s5rf_from_npz(tmp_path / "x.npz", foo=1)
