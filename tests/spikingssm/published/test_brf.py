"""Published checkpoints in, the oracle's network out, and back; what is no such file is told in one line."""

import zipfile

import brf_oracle as oracle
import pytest
import torch
from helpers import assert_lively

from sdn import ALIF, BRF, LIF, RF
from spikingssm.measures.spikes import spikes_of
from spikingssm.models.rsnn import RSNN
from spikingssm.published.brf import rsnn_from_pt, rsnn_to_pt

GAINS = {"brf": (60.0, 8.0), "rf": (30.0, 8.0), "alif": (2.0, 2.0)}
every_neuron = pytest.mark.parametrize("neuron", GAINS)


def arrays_of(neuron="brf", **more):
    gain, recurrent = GAINS[neuron]
    return oracle.drawn(neuron, 4, 12, 6, gain=gain, recurrent=recurrent, **more)


@pytest.fixture
def file(tmp_path):
    """Writes arrays, changed by keyword, in the published layout, and gives the path."""

    def write(arrays=None, changes=None, without=(), outer=True):
        arrays = {**(arrays_of() if arrays is None else arrays), **(changes or {})}
        arrays = {k: v for k, v in arrays.items() if k not in without}
        optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()
        whole = {"epoch": 360, "loss": 0.25, "model_state_dict": arrays, "optimizer_state_dict": optimiser}
        torch.save(whole if outer else arrays, tmp_path / "published.pt")
        return tmp_path / "published.pt"

    return write


# ---- the same network
@every_neuron
@pytest.mark.parametrize("solver", ["fused", "loop"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_the_oracle_on_the_same_arrays_has_the_same_spikes_and_potentials(file, neuron, solver, bias):
    arrays, x = arrays_of(neuron, bias=bias), torch.randn(3, 200, 4, dtype=torch.float64)
    want = oracle.network(neuron, arrays, x)
    assert_lively(want.hidden.spikes)
    model = rsnn_from_pt(file(arrays), neuron, dtype=torch.float64, solver=solver)
    (spikes,) = spikes_of(model, x).values()
    assert torch.equal(spikes, want.hidden.spikes)
    assert torch.allclose(model(x)[0], want.potentials, rtol=0, atol=1e-12)
    for pool, potentials in (("last", want.potentials[:, -1]), ("mean", want.potentials.mean(1))):
        logits, _ = rsnn_from_pt(file(arrays), neuron, dtype=torch.float64, pool=pool)(x)
        assert torch.allclose(logits, potentials, rtol=0, atol=1e-12)


def test_the_same_file_is_another_network_as_rf_than_as_brf(file):
    """So that neither may be taken for the other; in the oracle too."""
    arrays, x = arrays_of("rf"), torch.randn(3, 200, 4, dtype=torch.float64)
    as_brf, as_rf = (rsnn_from_pt(file(arrays), neuron, dtype=torch.float64) for neuron in ("brf", "rf"))
    spikes = [next(iter(spikes_of(model, x).values())) for model in (as_brf, as_rf)]
    assert torch.equal(spikes[0], oracle.network("brf", arrays, x).hidden.spikes)
    assert torch.equal(spikes[1], oracle.network("rf", arrays, x).hidden.spikes)
    assert (spikes[0] != spikes[1]).double().mean() > 0.01


@pytest.mark.parametrize("neuron", ["brf", "rf"])
def test_another_dt_reaches_the_neuron(file, neuron):
    arrays, x = arrays_of(neuron), 3 * torch.randn(3, 200, 4, dtype=torch.float64)
    want = oracle.network(neuron, arrays, x, delta=0.004)
    assert_lively(want.hidden.spikes, 0.005)
    model = rsnn_from_pt(file(arrays), neuron, dt=0.004, dtype=torch.float64)
    assert torch.equal(next(iter(spikes_of(model, x).values())), want.hidden.spikes)
    assert rsnn_from_pt(file(arrays), neuron, dt=1e-5).layers[0].dynamics.dt == 1e-5


def test_signs_and_values_are_kept_as_they_are(file):
    arrays = arrays_of()
    assert (arrays["hidden.omega"] < 0).any()
    assert (arrays["hidden.b_offset"] < 0).any()
    brf, rf = (rsnn_from_pt(file(), neuron, dtype=torch.float64) for neuron in ("brf", "rf"))
    assert torch.equal(brf.layers[0].learned["omega"], arrays["hidden.omega"])
    assert torch.equal(brf.layers[0].learned["b_offset"], arrays["hidden.b_offset"])
    assert torch.equal(rf.layers[0].learned["damping"], arrays["hidden.b_offset"])
    assert torch.equal(brf.layers[0].weight, arrays["hidden.linear.weight"])
    assert all(p.dtype == torch.float32 for p in rsnn_from_pt(file(), "brf").parameters())


def test_other_spellings_of_the_same_arrays_give_the_same_model(file):
    plain = rsnn_from_pt(file(), "brf").state_dict()
    weight = arrays_of()["hidden.linear.weight"]
    for path in (
        file(outer=False),
        file({k: v.float() for k, v in arrays_of().items()}),
        file({k: torch.nn.Parameter(v) for k, v in arrays_of().items()}),
        file(changes={"hidden.linear.mask": torch.ones_like(weight)}),
        file(changes={"hidden.linear.mask": torch.ones_like(weight).bool()}),
    ):
        other = rsnn_from_pt(path, "brf").state_dict()
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[k], other[k]) for k in plain)


def test_alif_is_known_by_its_names(file):
    assert isinstance(rsnn_from_pt(file(arrays_of("alif"))).layers[0].dynamics, ALIF)


def test_one_bias_is_enough(file):
    x = torch.randn(2, 100, 4, dtype=torch.float64)
    for name in ("hidden.linear.bias", "out.linear.bias"):
        arrays = {k: v for k, v in arrays_of("alif", bias=True).items() if k != name}
        logits, _ = rsnn_from_pt(file(arrays), "alif", dtype=torch.float64)(x)
        assert torch.allclose(logits, oracle.network("alif", arrays, x).potentials, rtol=0, atol=1e-12)


def masked(share=0.4, seed=3):
    mask = (torch.rand(12, 16, generator=torch.Generator().manual_seed(seed)) > share).double()
    mask[:, :4] = 1
    return mask


@every_neuron
def test_a_mask_cuts_the_same_connections(file, neuron):
    arrays, x = arrays_of(neuron), torch.randn(3, 200, 4, dtype=torch.float64)
    arrays["hidden.linear.mask"] = masked()
    model = rsnn_from_pt(file(arrays), neuron, dtype=torch.float64)
    want = oracle.network(neuron, arrays, x)
    assert torch.equal(model.layers[0].mask, masked()[:, 4:])
    assert torch.equal(next(iter(spikes_of(model, x).values())), want.hidden.spikes)
    whole = rsnn_from_pt(file(arrays, without=["hidden.linear.mask"]), neuron, dtype=torch.float64)
    assert not torch.equal(next(iter(spikes_of(whole, x).values())), want.hidden.spikes)


# ---- back
@every_neuron
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("mask", [False, True], ids=["", "mask"])
def test_there_and_back_are_the_same_arrays(file, tmp_path, neuron, bias, mask):
    arrays = arrays_of(neuron, bias=bias) | ({"hidden.linear.mask": masked()} if mask else {})
    model = rsnn_from_pt(file(arrays), neuron, dtype=torch.float64)
    rsnn_to_pt(tmp_path / "back.pt", model, epoch=7, loss=0.5)
    found = torch.load(tmp_path / "back.pt", weights_only=True)
    assert found.keys() == {"epoch", "loss", "model_state_dict", "optimizer_state_dict"}
    assert (found["epoch"], found["loss"]) == (7, 0.5)
    assert found["model_state_dict"].keys() == arrays.keys()
    assert all(torch.equal(found["model_state_dict"][k], v) for k, v in arrays.items())
    again = rsnn_from_pt(tmp_path / "back.pt", neuron, dtype=torch.float64).state_dict()
    assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("neuron", "dynamics"), [("brf", BRF(dt=0.02)), ("rf", RF(4.0, 2.0)), ("alif", ALIF(7.0))])
def test_a_network_of_ours_whose_neurons_do_not_learn_is_written_with_their_values(tmp_path, neuron, dynamics):
    model = RSNN(4, 6, 12, dynamics=dynamics).double()
    rsnn_to_pt(tmp_path / "ours.pt", model)
    x = 60 * torch.randn(2, 50, 4, dtype=torch.float64)
    arrays = torch.load(tmp_path / "ours.pt", weights_only=True)["model_state_dict"]
    want = oracle.network(neuron, arrays, x, delta=getattr(dynamics, "dt", 0.01))
    assert torch.equal(next(iter(spikes_of(model, x).values())), want.hidden.spikes)
    assert_lively(want.hidden.spikes)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (torch.nn.Linear(2, 2), "an RSNN of one layer, got Linear"),
        (RSNN(4, 6, [8, 8]), "got 2 layers of it"),
        (RSNN(4, 6, 8, dynamics=LIF()), r"got LIF\("),
        (RSNN(4, 6, 8, dynamics=BRF(gamma=0.8)), r"no place for BRF\(.*gamma=0.8"),
        (RSNN(4, 6, 8, dynamics=BRF(smooth_reset=False)), "no place for BRF.*smooth_reset=False"),
        (RSNN(4, 6, 8, learn={"threshold": None}), "no place for threshold"),
        (RSNN(4, 6, 8, dynamics=ALIF(beta=0.5)), "no place for ALIF.*beta=0.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_file_has_no_place_for_is_not_written(tmp_path, model, says):
    with pytest.raises(ValueError, match=says) as caught:
        rsnn_to_pt(tmp_path / "m.pt", model)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.pt").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.pt"
    rsnn_to_pt(path, RSNN(4, 6, 8))
    before = path.read_bytes()

    def halfway(content, partial):
        partial.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", halfway)
    with pytest.raises(OSError, match="no space"):
        rsnn_to_pt(path, RSNN(4, 6, 8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


# ---- what is refused
class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refused(path, says, neuron="brf", kind=ValueError, **options):
    with pytest.raises(kind, match=says) as caught:
        rsnn_from_pt(path, neuron, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_nothing_in_the_file_is_executed(tmp_path):
    torch.save({"model_state_dict": Malicious(tmp_path / "ran")}, tmp_path / "bad.pt")
    refused(tmp_path / "bad.pt", "not a torch file of tensors and plain values alone")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_told(file, tmp_path):
    refused(tmp_path / "missing.pt", "no such file", kind=FileNotFoundError)
    refused(tmp_path, "no such file", kind=FileNotFoundError)
    (tmp_path / "text.pt").write_text("no zip")
    refused(tmp_path / "text.pt", "no torch zip file")
    torch.save(arrays_of(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt", "no torch zip file")
    path = file()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "no torch zip file, or one that is cut off")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(tmp_path / "other.pt", "not a torch file of tensors")
    torch.save([1, 2], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "holds a list")
    torch.save({"model_state_dict": {"a": 3}}, tmp_path / "number.pt")
    refused(tmp_path / "number.pt", "a is a int and no tensor")
    torch.save({"state_dict": arrays_of(), "epoch": 1}, tmp_path / "ours.pt")
    refused(tmp_path / "ours.pt", "state_dict is a dict and no tensor.*run folder")


def test_the_neuron_is_not_guessed(file):
    refused(file(), r"BRF and RF have the same names.*'brf' or 'rf'", neuron=None)
    refused(file(), "'brf' or 'rf' or 'alif', got 'lif'", neuron="lif")
    refused(file(), r"arrays of BRF or RF \(hidden.omega\), not of ALIF", neuron="alif")
    refused(file(arrays_of("alif")), r"arrays of ALIF \(hidden.tau_mem\), not of BRF", neuron="brf")
    refused(file(arrays_of("alif")), "not of RF", neuron="rf")


NEEDED = ["hidden.linear.weight", "hidden.omega", "hidden.b_offset", "out.linear.weight", "out.tau_mem"]


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_array_is_named(file, name):
    refused(file(without=[name]), f"array {name} is missing; a BRF network has hidden.linear.weight, hidden.omega")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("hidden.lnear.weight", torch.ones(1), "unknown array hidden.lnear.weight; known are"),
        ("hidden.tau_mem", torch.ones(12), "unknown array hidden.tau_mem"),
        ("hidden.omega", torch.ones(11), r"hidden.omega has shape \(11,\), it must be \(12,\) as .* \(12, 16\)"),
        ("hidden.omega", torch.ones(12, 1), r"hidden.omega has shape \(12, 1\)"),
        ("hidden.linear.weight", torch.ones(12, 12), r"shape \(12, 12\); it must be \(H, d_input \+ H\)"),
        ("hidden.linear.weight", torch.ones(12), r"shape \(12,\), it must have two axes"),
        ("out.linear.weight", torch.ones(6, 13), r"out.linear.weight has shape \(6, 13\), it must be \(6, 12\)"),
        ("out.linear.weight", torch.ones(0, 12), "it must have two axes, not empty"),
        ("out.tau_mem", torch.ones(5), r"out.tau_mem has shape \(5,\), it must be \(6,\)"),
        ("hidden.linear.mask", torch.ones(12, 12), r"hidden.linear.mask has shape \(12, 12\), it must be \(12, 16\)"),
        ("hidden.linear.mask", torch.full((12, 16), 0.5), "must hold 0 and 1"),
        ("hidden.linear.mask", torch.zeros(12, 16), "1 in the 4 columns of the inputs"),
        ("hidden.b_offset", torch.full((12,), torch.nan), r"hidden.b_offset .* is not finite at \(0,\): nan"),
        ("out.linear.weight", torch.ones(6, 12).cdouble(), "must hold plain numbers"),
        ("hidden.linear.weight", torch.ones(12, 16).to_sparse(), "sparse_coo tensor .* must hold plain numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_array_that_does_not_fit_is_named(file, name, value, says):
    refused(file(changes={name: value}), says)


def test_numbers_too_large_for_the_precision_are_told(file):
    omega = arrays_of()["out.tau_mem"] * 1e300
    refused(file(changes={"out.tau_mem": omega}), r"out.tau_mem .* is not finite at \(0,\)")


@pytest.mark.parametrize("neuron", ["brf", "rf"])
def test_a_frequency_beyond_the_step_names_the_neuron_and_the_way_out(file, neuron):
    omega = arrays_of()["hidden.omega"].clone()
    omega[7] = -125.0
    path = file(changes={"hidden.omega": omega})
    refused(
        path, r"neuron 7 has \|omega\| 125, with dt 0.01 no more than 1/dt = 100 .*lower dt to 0.008", neuron=neuron
    )
    assert rsnn_from_pt(path, neuron, dt=0.008).layers[0].learned["omega"][7] == -125


OUT_OF_RANGE = {
    "offset": ("brf", "hidden.b_offset", 1e30, "hidden.b_offset is 1e[+]30 at .*, it must be from -1e[+]09 to 1e[+]09"),
    "offset-unstable": ("brf", "hidden.b_offset", -201.0, "no more than 2/dt = 200 can be stable"),
    "omega": ("rf", "hidden.omega", 1e30, "hidden.omega is 1e[+]30"),
    "weight": ("brf", "hidden.linear.weight", -1e12, "hidden.linear.weight is -1e[+]12"),
    "readout-zero": ("brf", "out.tau_mem", 0.0, "out.tau_mem is 0 at .*, it must be from 0.001 to 1e[+]06"),
    "readout-negative": ("alif", "out.tau_mem", -5.0, "out.tau_mem is -5 at"),
    "membrane": ("alif", "hidden.tau_mem", -5.0, "hidden.tau_mem is -5 at"),
    "adaptation": ("alif", "hidden.tau_adp", 0.0, "hidden.tau_adp is 0 at"),
    "adaptation-large": ("alif", "hidden.tau_adp", 1e30, "hidden.tau_adp is 1e[+]30 at"),
}


@pytest.mark.parametrize(("neuron", "name", "value", "says"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_numbers_that_no_training_ends_with_are_refused(file, neuron, name, value, says):
    arrays = arrays_of(neuron)
    arrays[name].view(-1)[-1] = value
    refused(file(arrays), says, neuron=neuron)


def test_options_out_of_range(file):
    with pytest.raises(ValueError, match=r"dtype must be .* got torch\.float16"):
        rsnn_from_pt(file(), "brf", dtype=torch.float16)
    with pytest.raises(ValueError, match="dt must be > 0, got 0"):
        rsnn_from_pt(file(), "brf", dt=0.0)
    with pytest.raises(ValueError, match="pool must be one of"):
        rsnn_from_pt(file(), "brf", pool="max")
