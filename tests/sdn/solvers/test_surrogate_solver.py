"""`Surrogate`: the reduced network run by hand, streaming, export, sharing, refusals."""

import copy
import subprocess
import sys

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents
from test_network import lively_sdn

from sdn import ALIF, BRF, LIF, RF, Neuron, ReducedSDN, Surrogate, Triangle, reduce, save_artifact

NEURON = LIF(decay=0.3, threshold=1.0, reset="soft")


def make_artifact(tmp_path, dynamics=NEURON, n_layers=1, seed=0, name="net"):
    """Random weights, with mem centred and as large as the currents, so that it decides many spikes."""
    net = reduce(lively_sdn(n_layers=n_layers, seed=seed))
    mem = net(currents(2.0, 40, 100, 1)[..., 0])
    net.decoder.weight.div_(mem.std())
    net.decoder.bias.sub_(mem.mean()).div_(mem.std())
    return save_artifact(tmp_path / f"{name}.safetensors", net, dynamics)


@pytest.fixture
def artifact(tmp_path):
    return make_artifact(tmp_path)


def by_hand(artifact, x, threshold=1.0):
    """mem (B, L, H): the reduced network in x's dtype on every channel of every sample, one row after another."""
    net = copy.deepcopy(artifact.network).to(x.dtype)
    mem = torch.empty_like(x)
    for b in range(x.shape[0]):
        for h in range(x.shape[2]):
            mem[b, :, h] = net(x[b, :, h].detach()[None] / threshold)[0] * threshold
    return mem


# ---- the network on rows
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(3, 63, CHANNELS), (1, 1, 1), (1, 300, 1), (4, 1, 7)], ids=str)
def test_it_is_the_reduced_network_on_rows(tmp_path, shape, dtype, n_layers):
    """Guards defect 25: float64 currents failed."""
    artifact = make_artifact(tmp_path, n_layers=n_layers)
    x = currents(2.0, *shape, dtype=dtype)
    spikes, state = Neuron(NEURON, shape[2], solver=Surrogate(artifact))(x)
    v = by_hand(artifact, x) + x - 1.0
    assert v.abs().min() > 1e-5, "too close to a tie for rounding"
    assert torch.equal(spikes, (v >= 0).to(dtype))
    assert spikes.dtype == state[0].dtype == dtype
    if x.numel() > 100:
        assert_lively(spikes)
        assert not torch.equal(spikes, (x >= 1).to(dtype)), "mem decided nothing"


def test_non_contiguous_currents(artifact):
    """Guards defect 25: view() failed on strides."""
    neuron, x = Neuron(NEURON, CHANNELS, solver=Surrogate(artifact)), currents(2.0)
    strided = x.permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not strided.is_contiguous()
    assert_lively(neuron(x)[0])
    assert torch.equal(neuron(strided)[0], neuron(x)[0])
    assert torch.autograd.grad(neuron(strided)[0].sum(), strided)[0].shape == x.shape


def test_gradient_only_through_the_input_of_the_same_step(artifact):
    x = currents(1.0).requires_grad_()
    spikes, _ = Neuron(NEURON, CHANNELS, spike=Triangle(2.0), solver=Surrogate(artifact))(x)
    slope = Triangle(2.0).slope((by_hand(artifact, x) + x - 1.0).detach())
    weights = torch.randn_like(x)
    (grad,) = torch.autograd.grad((weights * spikes).sum(), x, retain_graph=True)
    assert_close(grad, weights * slope)
    (one,) = torch.autograd.grad(spikes[:, 30].sum(), x)
    assert (one[:, 30] != 0).any()
    one[:, 30] = 0
    assert (one == 0).all(), "a gradient ran through time"


# ---- thresholds
@pytest.mark.parametrize("threshold", [0.6, 1.4])
@pytest.mark.parametrize("dynamics", [NEURON, RF(dt=0.1, omega=4.0, damping=5.0)], ids=["lif", "rf"])
def test_threshold_by_rescaling(tmp_path, dynamics, threshold):
    artifact, x, gain = make_artifact(tmp_path, dynamics), currents(2.0).requires_grad_(), dynamics.gain
    fixed = Neuron(dynamics.replace(threshold=threshold), CHANNELS, solver=Surrogate(artifact))
    learned = Neuron(dynamics, CHANNELS, learn={"threshold": threshold}, solver=Surrogate(artifact)).double()
    for neuron in (fixed, learned):
        T = torch.as_tensor(neuron.current_dynamics().threshold).detach().flatten()[0].item()
        v = by_hand(artifact, x, T) + gain * x - T
        assert_lively(neuron(x)[0])
        assert torch.equal(neuron(x)[0], (v >= 0).double())
    unscaled = by_hand(artifact, x) + gain * x - T
    assert not torch.equal((v >= 0), (unscaled >= 0)), "the scaling decided nothing"
    grad_x, grad_raw = torch.autograd.grad(learned(x)[0].sum(), [x, learned.learned["threshold"]])
    slope = dynamics.default_spike.slope(v.detach())
    assert_close(grad_x, gain * slope)
    assert_close(grad_raw, -(slope * T).sum((0, 1)), factor=100)


def test_an_artifact_made_at_another_threshold(tmp_path):
    made_at_two = make_artifact(tmp_path, NEURON.replace(threshold=2.0))
    x = currents(2.0)
    want = (by_hand(made_at_two, x, 0.5) + x - 1.0 >= 0).double()
    assert_lively(want)
    assert torch.equal(Neuron(NEURON, CHANNELS, solver=Surrogate(made_at_two))(x)[0], want)


# ---- streaming
@pytest.mark.parametrize(("n_layers", "refine"), [(1, 0), (2, 0), (3, 0), (1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("sizes", [[30, 33], [1] * 63, [3, 1, 20, 39], [62, 1]], ids=["halves", "steps", "few", "last"])
def test_chunks_equal_the_whole(tmp_path, sizes, n_layers, refine):
    artifact = make_artifact(tmp_path, n_layers=n_layers)
    neuron = Neuron(NEURON, CHANNELS, solver=Surrogate(artifact, refine))
    x = currents(2.0)
    whole, last = neuron(x)
    assert_lively(whole)
    state, parts = None, []
    for chunk in x.split(sizes, 1):
        spikes, state = neuron(chunk, state)
        parts.append(spikes)
    assert torch.equal(state[0], last[0])
    assert last[0].shape[1] == artifact.network.receptive_field + refine
    assert torch.equal(torch.cat(parts, 1), whole)


@pytest.mark.parametrize(("n_layers", "refine"), [(1, 0), (2, 0), (3, 0), (1, 2)])
def test_the_state_at_rest_is_no_state(tmp_path, n_layers, refine):
    neuron = Neuron(NEURON, CHANNELS, solver=Surrogate(make_artifact(tmp_path, n_layers=n_layers), refine))
    x = currents(2.0)
    rest = neuron.initial_state(3, dtype=torch.float64)
    assert_lively(neuron(x)[0])
    assert torch.equal(neuron(x, rest)[0], neuron(x)[0])
    (spikes, state), (want, last) = neuron.step(x[:, 0], rest), neuron.step(x[:, 0])
    assert torch.equal(spikes, want)
    assert torch.equal(state[0], last[0])


# ---- it belongs to no module
def test_it_adds_nothing_to_the_module(artifact):
    """Guards defect 24: 153 idle trainable parameters in every layer."""
    neuron = Neuron(LIF(0.3, reset="soft"), 4, learn={"threshold": None}, solver=Surrogate(artifact))
    assert list(neuron.state_dict()) == ["learned.threshold"]
    assert sum(p.numel() for p in neuron.parameters()) == 4
    assert list(neuron.buffers()) == []
    assert not any(isinstance(m, ReducedSDN) for m in neuron.modules())
    assert Neuron(NEURON, 4).load_state_dict(Neuron(NEURON, 4, solver=Surrogate(artifact)).state_dict())
    neuron(torch.randn(2, 9, 4))[0].sum().backward()
    assert all(p.grad is None for p in artifact.network.parameters())


def test_train_and_eval_are_the_same(artifact):
    """Guards defect 27: train() of a parent reached the surrogate."""
    neuron, x = Neuron(NEURON, CHANNELS, solver=Surrogate(artifact)), currents(2.0)
    before = {k: v.clone() for k, v in artifact.network.state_dict().items()}
    assert torch.equal(neuron.train()(x)[0], neuron.eval()(x)[0])
    assert not artifact.network.training
    assert all(torch.equal(before[k], v) for k, v in artifact.network.state_dict().items())


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_float32_inside_autocast_and_under_low_precision(artifact, low):
    """Guards defect 26: autocast compared with the threshold in low precision."""
    neuron = Neuron(NEURON, CHANNELS, solver=Surrogate(artifact))
    x = currents(2.0, length=1024, dtype=low)
    want, _ = neuron(x.float())
    assert_lively(want)
    v = by_hand(artifact, x.float()) + x.float() - 1
    assert torch.equal(want, (v >= 0).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide, state = neuron(x.float())
        narrow, _ = neuron(x)
    assert (wide.dtype, narrow.dtype, state[0].dtype) == (torch.float32, low, torch.float32)
    assert torch.equal(wide, want)
    assert torch.equal(narrow.float(), want)


def test_paths_values_and_copies_are_the_same(artifact):
    x = currents(2.0, dtype=torch.float32)
    neuron = Neuron(NEURON, CHANNELS, solver=Surrogate(artifact))
    want, _ = neuron(x)
    for other in (Neuron(NEURON, CHANNELS, solver=Surrogate(p)) for p in (artifact.path, str(artifact.path))):
        assert torch.equal(other(x)[0], want)
    assert torch.equal(copy.deepcopy(neuron)(x)[0], want)
    with torch.inference_mode():
        assert torch.equal(neuron(x.clone())[0], want)
    neuron(x.requires_grad_())[0].sum().backward()
    assert x.grad.abs().max() > 0


def test_a_file_written_again_is_read_again(tmp_path):
    x = currents(2.0)
    path = make_artifact(tmp_path, seed=0).path
    first = Neuron(NEURON, CHANNELS, solver=Surrogate(path))(x)[0]
    second = make_artifact(tmp_path, seed=1)
    want = Neuron(NEURON, CHANNELS, solver=Surrogate(second))(x)[0]
    assert not torch.equal(first, want)
    assert torch.equal(Neuron(NEURON, CHANNELS, solver=Surrogate(path))(x)[0], want)


@pytest.mark.parametrize("refine", [0, 2])
@pytest.mark.parametrize("how", ["value", "path", "shipped"])
def test_compiled_without_a_graph_break(artifact, how, refine):
    """Forward and backward, with a learned threshold and a state: the same bits."""
    torch._dynamo.reset()  # else the other decay of a test before makes it a symbol
    dynamics = LIF(0.125) if how == "shipped" else NEURON
    given = {"value": artifact, "path": artifact.path, "shipped": None}[how]
    neuron = Neuron(dynamics, CHANNELS, learn={"threshold": 0.8}, solver=Surrogate(given, refine)).double()
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    x, later = currents(2.0).requires_grad_(), currents(2.0, seed=5)
    results = []
    for run in (neuron, compiled):
        spikes, state = run(x)
        more, state = run(later, state)
        grads = torch.autograd.grad(spikes.sum() + 2 * more.sum(), [x, neuron.learned["threshold"]])
        results.append((spikes, more, state[0], *grads))
    assert_lively(results[0][0])
    for got, want in zip(results[1], results[0], strict=True):
        assert torch.equal(got, want) if want.ndim == 3 else torch.allclose(got, want, rtol=1e-12)


# ---- in a process that has run nothing yet
def fresh(code):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"


def test_export_needs_no_run_before():
    fresh("""
import torch
from spikingssm.models import SpikingSSM
torch.manual_seed(0)
model = SpikingSSM(1, 10, 8, 2, 4).eval()
x = torch.randn(2, 40, 1)
exported = torch.export.export(model, (x,)).module()
for now in (x, 3 * x.flip(1)):
    torch.testing.assert_close(exported(now)[0], model(now)[0], rtol=1e-5, atol=1e-6)
assert not torch.equal(model(x)[0], model(3 * x)[0])
from sdn import LIF, Neuron, Surrogate
neuron, x = Neuron(LIF(0.2), 5, learn={"threshold": 0.8}, solver=Surrogate(refine=2)), torch.randn(2, 40, 5)
exported = torch.export.export(neuron, (x,))
assert torch.equal(exported.module()(-x)[0], neuron(-x)[0]) and neuron(-x)[0].sum() > 20
assert not any("sdn" in str(node.target) for node in exported.graph.nodes), "needs our operators"
print("done")
""")


def test_building_on_meta_leaves_nothing_behind():
    fresh("""
import torch
from sdn import LIF, Neuron
with torch.device("meta"):
    shapes = Neuron(LIF(0.125), 4, learn={"threshold": None}, solver="surrogate")
assert shapes.learned["threshold"].is_meta
assert shapes(torch.empty(2, 9, 4, device="meta"))[0].shape == (2, 9, 4)
neuron, x = Neuron(LIF(0.125), 4, solver="surrogate"), torch.randn(2, 50, 4)
spikes, exact = neuron(x)[0], neuron.with_solver("loop")(x)[0]
assert spikes.device.type == "cpu" and exact.sum() > 10
assert (spikes == exact).float().mean() > 0.98
print("done")
""")


# ---- refusals
REFUSED = [
    (LIF(0.5, reset="soft"), (), r"made for LIF\(decay=0.3.*reset='soft'\), this neuron is LIF\(decay=0.5.*train one"),
    (LIF(0.3), (), r"made for LIF\(decay=0.3.*'soft'\), this neuron is LIF\(decay=0.3.*'hard'\)"),
    (RF(), (), r"made for LIF.*this neuron is RF\(omega=10.0"),
    (BRF(), (), r"made for LIF.*this neuron is BRF\(omega=10.0"),
    (NEURON, ("decay",), r"one SDN stands for one value of \['decay'\].*solver='loop'"),
    (ALIF(), ("threshold",), r"ALIF: a learned threshold changes more than a scale.*solver='loop'"),
    (BRF(), ("threshold", "omega"), r"BRF: a learned threshold"),
]


@pytest.mark.parametrize(("dynamics", "learned", "message"), REFUSED, ids=[m for *_, m in REFUSED])
def test_refusals_name_both_values(artifact, dynamics, learned, message):
    """Guards defects 8 and 28: another neuron's network was used without a word, also for a learned decay."""
    learn = dict.fromkeys(learned)
    with pytest.raises(ValueError, match=message):
        Neuron(dynamics, 4, learn=learn, solver=Surrogate(artifact))
    with pytest.raises(ValueError, match=message):
        Neuron(dynamics, 4, learn=learn, solver="loop").with_solver(Surrogate(artifact))


@pytest.mark.parametrize(("dynamics", "name"), [(ALIF(), "ALIF"), (RF(), "RF"), (BRF(), "BRF")])
def test_only_lif_is_refined(tmp_path, dynamics, name):
    artifact = make_artifact(tmp_path, dynamics)
    Neuron(dynamics, 4, solver=Surrogate(artifact))
    with pytest.raises(ValueError, match=rf"{name}: refine=1 needs.*refine=0, or solver='loop'"):
        Neuron(dynamics, 4, solver=Surrogate(artifact, refine=1))


@pytest.mark.parametrize("refine", [-1, 1.5, True, "1"])
def test_refine_is_a_number_of_sweeps(refine):
    with pytest.raises(ValueError, match=r"refine must be an integer >= 0"):
        Surrogate(refine=refine)


def test_an_alif_artifact_serves_alif_at_its_own_threshold_only(tmp_path):
    alif = ALIF(9.0, threshold=0.2)
    artifact = make_artifact(tmp_path, alif)
    x = currents(4.0)
    spikes, _ = Neuron(alif, CHANNELS, solver=Surrogate(artifact))(x)
    v = by_hand(artifact, x) + alif.gain * x - 0.2
    assert_lively(spikes)
    assert torch.equal(spikes, (v > 0).double())
    with pytest.raises(ValueError, match=r"threshold=0.2.*threshold=0.3"):
        Neuron(alif.replace(threshold=0.3), CHANNELS, solver=Surrogate(artifact))


def test_other_mistakes(artifact, tmp_path):
    neuron = Neuron(NEURON, 4, solver=Surrogate(artifact))
    x = torch.randn(2, 9, 4)
    with pytest.raises(ValueError, match=r"InputWindow of shape \(2, at most 8, 4\), got LIFState"):
        neuron(x, NEURON.initial_state(2, 4))
    with pytest.raises(FileNotFoundError, match=r"no such artifact"):
        Neuron(NEURON, 4, solver=Surrogate(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match=r"no shipped artifact stands for LIF\(decay=0.97.*train one"):
        Neuron(LIF(0.97), 4, solver="surrogate")
