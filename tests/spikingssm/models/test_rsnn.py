"""Recurrent layers, leaky integrators and the network of both."""

import math

import pytest
import torch
from helpers import assert_close, assert_lively

import sdn
from sdn import ALIF, BRF, LIF, RF, Fused, Loop, RecurrentState
from spikingssm import RSNN, Recurrent, record_spikes
from spikingssm.layers import LeakyIntegrator, integrator
from spikingssm.measures.energy import account
from spikingssm.measures.operations import driven, not_counted

LEARN = {"omega": sdn.uniform(8, 30), "b_offset": sdn.uniform(0.1, 1)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def lively(model: RSNN) -> RSNN:
    """The same network in float64 with inputs strong enough to make it spike; at its start it does not."""
    with torch.no_grad():
        for layer in model.layers:
            layer.input.weight.mul_(200)
            layer.recurrent.weight.mul_(30)
    return model.double()


def network(pool="each", sizes=(7, 5), **options) -> RSNN:
    return lively(RSNN(3, 4, list(sizes), learn=LEARN, pool=pool, **options))


# ---- the layer
def test_a_layer_is_its_two_maps_and_the_neuron():
    """Step by step: the neuron of sdn.simulate on ``input(x) + recurrent(spikes before)``."""
    layer = Recurrent(3, BRF(), 6, learn=LEARN, bias=True).double()
    with torch.no_grad():
        layer.input.weight.mul_(200)
        layer.recurrent.weight.mul_(50)
    x = torch.randn(2, 40, 3, dtype=torch.float64)
    spikes, state = layer(x)
    assert_lively(spikes)
    fired, now = torch.zeros(2, 6, dtype=torch.float64), None
    for t in range(40):
        current = layer.input(x[:, t]) + layer.recurrent(fired)
        out = sdn.simulate(layer.current_dynamics(), current.unsqueeze(1), now)
        fired, now = out.spike[:, 0], out.state
        assert torch.equal(fired, spikes[:, t])
    assert_close(torch.stack(state.neuron), torch.stack(now))
    stepped, _ = layer.step(x[:, 0])
    assert torch.equal(stepped, spikes[:, 0])


@pytest.mark.parametrize("detach_reset", [True, False])
def test_the_membranes_of_a_layer_are_those_of_its_neurons(detach_reset):
    """Step by step, with the gradients: each membrane is what the state before its step contributes."""
    layer = Recurrent(3, BRF(), 6, learn=LEARN, solver=Fused(detach_reset=detach_reset)).double()
    with torch.no_grad():
        layer.input.weight.mul_(200)
        layer.recurrent.weight.mul_(50)
    x, weights = torch.randn(2, 40, 3, dtype=torch.float64), torch.randn(2, 40, 6, dtype=torch.float64)
    start = layer(x)[1]
    with sdn.record_membranes(layer) as found:
        spikes, _ = layer(x, start)
    got = found["neuron"]
    assert_lively(spikes)
    assert torch.equal(got.spike, spikes)
    fired, now, mems = start.spike, start.neuron, []
    for t in range(40):
        current = layer.input(x[:, t]) + layer.recurrent(fired)
        out = sdn.simulate(layer.current_dynamics(), current.unsqueeze(1), now, detach_reset=detach_reset)
        assert_close(got.input[:, t], current)
        mems.append(out.mem[:, 0])
        fired, now = out.spike[:, 0], out.state
    assert_close(got.mem, torch.stack(mems, 1))
    assert_close(torch.stack(got.state.neuron), torch.stack(now))
    wanted = torch.autograd.grad((weights * torch.stack(mems, 1)).sum(), [*layer.parameters()], retain_graph=True)
    for ours, loops in zip(torch.autograd.grad((weights * got.mem).sum(), [*layer.parameters()]), wanted, strict=True):
        assert_close(ours, loops, factor=1e3)
    with pytest.raises(ValueError, match="record must be 'mem' or None, got 'spikes'"):
        layer(x, record="spikes")


def test_both_maps_start_with_the_bound_of_the_whole_matrix():
    layer = Recurrent(70, BRF(), 128)
    bound = math.sqrt(6 / (70 + 128 + 128))
    for weight in (layer.input.weight, layer.recurrent.weight):
        assert 0.98 * bound < weight.abs().max() <= bound
        assert abs(weight.mean()) < 0.02 * bound
    assert layer.input.bias is None
    assert layer.weight.shape == (128, 198)


@pytest.mark.parametrize("mask", [0.7, torch.eye(6)])
def test_connections_that_are_cut_carry_and_learn_nothing(mask):
    layer = Recurrent(3, BRF(), 6, mask=mask)
    layer.weight.sum().backward()
    gone = layer.mask == 0
    assert 0 < gone.sum() < 36
    assert layer.recurrent.weight.grad[gone].abs().sum() == 0
    assert layer.recurrent.weight.grad[~gone].abs().min() > 0
    assert layer.weight[:, 3:][gone].abs().sum() == 0
    assert "mask" in layer.state_dict()
    if isinstance(mask, torch.Tensor):
        assert torch.equal(layer.mask, mask)


def test_the_solvers_share_the_parameters_and_agree():
    layer = Recurrent(3, RF(omega=10.0, damping=2.0), 6, solver="loop").double()
    with torch.no_grad():
        layer.input.weight.mul_(150)
    other = layer.with_solver("fused")
    assert other.input.weight is layer.input.weight
    x = torch.randn(2, 50, 3, dtype=torch.float64)
    assert_lively(layer(x)[0])
    assert torch.equal(layer(x)[0], other(x)[0])
    assert (layer.solver, other.solver) == (Loop(detach_reset=False), Fused(detach_reset=False))
    assert layer.with_solver(Fused()).solver.detach_reset is True


def test_lower_precision_is_computed_in_float32():
    layer = Recurrent(3, BRF(), 6)
    with torch.no_grad():
        layer.input.weight.mul_(200)
    x = torch.randn(2, 30, 3).bfloat16()
    spikes, state = layer(x)
    assert_lively(spikes.float())
    assert (spikes.dtype, state.neuron.u.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(spikes.float(), layer(x.float())[0])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"solver": "parallel"}, NotImplementedError, "needs the spikes before; use solver='fused' or 'loop'"),
        ({"solver": "surrogate"}, NotImplementedError, "works on all steps at once"),
        ({"solver": Loop(detach_state=True)}, NotImplementedError, "would cut the recurrence"),
        ({"mask": 1.0}, ValueError, r"must be in \[0, 1\), got 1.0"),
        ({"mask": torch.ones(3, 4)}, ValueError, r"mask must be \(6, 6\)"),
        ({"mask": 2 * torch.ones(6, 6)}, ValueError, "values from 2 to 2"),
        ({"channels": 0}, ValueError, "at least 1, got 3 and 0"),
        ({"learn": {"omega": 150.0}}, ValueError, "omega must be at most 1/dt = 100, got 150"),
        ({"learn": {"omega": torch.tensor([9.0, 9, 9, 9, 130, 9])}}, ValueError, "That is omega of neuron 4 of 6"),
        ({"dynamics": BRF(torch.tensor([9.0, 9, 9, 130, 9, 9]))}, ValueError, "That is omega of neuron 3 of 6"),
        ({"mask": "half"}, ValueError, "got 'half'"),
    ],
)
def test_a_layer_refuses(options, error, match):
    given = {"d_input": 3, "dynamics": BRF(), "channels": 6, **options}
    with pytest.raises(error, match=match):
        Recurrent(given.pop("d_input"), given.pop("dynamics"), given.pop("channels"), **given)


def test_a_bias_starts_as_that_of_one_linear_map_of_the_whole():
    bias = Recurrent(1, BRF(), 256, bias=True).input.bias
    assert 0.98 / math.sqrt(257) < bias.abs().max() <= 1 / math.sqrt(257)


def test_operations_leave_out_what_is_cut():
    model = RSNN(3, 4, 10, mask=0.6)
    kept = int(model.layers[0].mask.sum())
    assert 10 < kept < 70
    x = torch.full((2, 20, 3), 90.0)
    with record_spikes(model) as record, torch.no_grad():
        model(x)
    found, rate = account(model, record), record.rates()["layers.0"]
    assert rate > 0.01
    assert found["energy"]["published"]["macs"] == 20 * (kept + 40)
    assert found["sops_by_layer"]["layers.0"] == pytest.approx(found["spikes"] * (kept / 10 + 4))
    mix = found["energy"]["recurrence"]["parts"]["mix"]
    assert mix == pytest.approx(0.9e-12 * 20 * (rate * (kept + 40) + 10))


def test_a_layer_refuses_input_of_another_width():
    with pytest.raises(ValueError, match=r"\(batch, length, 3\), got torch.float32 of shape \(2, 5, 4\)"):
        Recurrent(3, BRF(), 6)(torch.zeros(2, 5, 4))


# ---- the readout
def test_an_integrator_is_its_recursion():
    readout = LeakyIntegrator(5, 3, tau_mean=8.0, bias=True).double()
    with torch.no_grad():
        readout.bias.normal_()
        readout.tau[1] *= -1  # only its size counts
    x, y = torch.randn(2, 30, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    found, last = readout(x, y)
    for t in range(30):
        for c in range(3):
            alpha = math.exp(-1 / abs(readout.tau[c].item()))
            y[:, c] = alpha * y[:, c] + (1 - alpha) * (x[:, t] @ readout.weight[c] + readout.bias[c]).detach()
        assert_close(found[:, t], y)
    assert_close(last, y)


def test_an_integrator_starts_as_published():
    readout = LeakyIntegrator(400, 300)
    bound = math.sqrt(6 / 700)
    assert 0.98 * bound < readout.weight.abs().max() <= bound
    assert abs(readout.tau.mean() - 20) < 1.5
    assert 4 < readout.tau.std() < 6
    for wrong in ({"d_input": 0}, {"tau_mean": 0.0}, {"tau_std": -1.0}):
        with pytest.raises(ValueError, match="tau_mean > 0 and tau_std >= 0"):
            LeakyIntegrator(**{"d_input": 3, "d_output": 2, **wrong})
    with pytest.raises(ValueError, match=r"state has shape \(2, 3\), this input needs \(2, 300\)"):
        readout(torch.zeros(2, 4, 400), torch.zeros(2, 3))


def test_the_map_of_an_integrator_is_a_linear_map_to_any_order():
    readout = LeakyIntegrator(5, 3).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    given = torch.randn(2, 4, 3, dtype=torch.float64)
    again = (False, True)  # whether the gradient is to be differentiated again
    found = [torch.autograd.grad((readout(x)[0] * given).sum(), [x, readout.weight], create_graph=g) for g in again]
    alpha, y = readout.alpha, torch.zeros(2, 3, dtype=torch.float64)
    outputs = []
    for now in torch.nn.functional.linear(x, readout.weight).unbind(1):
        y = alpha * y + (1 - alpha) * now
        outputs.append(y)
    wanted = torch.autograd.grad((torch.stack(outputs, 1) * given).sum(), [x, readout.weight])
    for grads in found:
        for got, want in zip(grads, wanted, strict=True):
            assert_close(got.detach(), want)
    assert torch.autograd.gradgradcheck(lambda x, weight: integrator._linear(x, weight), (x, readout.weight))


# ---- the network
@pytest.mark.parametrize("solver", ["loop", "fused"])
@pytest.mark.parametrize("pool", ["each", "last", "mean"])
def test_chunks_and_steps_equal_the_whole(pool, solver):
    model = network(pool, solver=solver)
    x = torch.randn(2, 40, 3, dtype=torch.float64)
    with record_spikes(model) as record:
        whole, last = model(x)
    assert all(0.01 < rate < 0.9 for rate in record.rates().values())
    for step in (False, True):
        state, parts = model.initial_state(2, dtype=torch.float64), []
        for chunk in x.unbind(1) if step else x.split([13, 1, 26], 1):
            out, state = (model.step if step else model)(chunk, state)
            parts.append(out)
        assert_close((torch.stack(parts, 1) if step else torch.cat(parts, 1)) if pool == "each" else parts[-1], whole)
        assert_close(state.readout, last.readout)


def test_padding_changes_nothing():
    for pool in ("last", "mean"):
        model = network(pool)
        x, lengths = torch.randn(3, 30, 3, dtype=torch.float64), torch.tensor([30, 12, 1])
        found, _ = model(x, lengths=lengths)
        for row, length in enumerate(lengths.tolist()):
            assert_close(found[row : row + 1], model(x[row : row + 1, :length])[0])


def test_several_layers_are_one_behind_the_other():
    model = network()
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    first, _ = model.layers[0](x)
    second, _ = model.layers[1](first)
    assert_lively(second)
    assert torch.equal(model(x)[0], model.readout(second)[0])
    assert [layer.channels for layer in RSNN(3, 4, 6, n_layers=3).layers] == [6, 6, 6]


def test_every_parameter_of_every_layer_is_reached_and_solvers_give_the_same_gradient():
    x = torch.randn(3, 40, 3, dtype=torch.float64)
    grads = []
    model = network(solver="loop", bias=True)
    for solver in ("loop", "fused"):
        out = model.with_solver(solver)(x)[0]
        grads.append(
            torch.autograd.grad((out * torch.linspace(0, 1, 40)[None, :, None]).sum(), list(model.parameters()))
        )
    for (name, _), want, got in zip(model.named_parameters(), *grads, strict=True):
        assert want.abs().sum() > 0, name
        assert (got - want).abs().max() <= 1e-11 * want.abs().max(), name


def test_a_network_says_what_its_spikes_drive_and_what_that_costs():
    model = network(pool="last")
    assert driven(model) == {
        "input": ("layers.0.input",),
        "layers.0": ("layers.0.recurrent", "layers.1.input"),
        "layers.1": ("layers.1.recurrent", "readout"),
    }
    assert not_counted(model) == []
    x = (torch.rand(4, 50, 3, dtype=torch.float64) < 0.4).double()
    with record_spikes(model) as record, torch.no_grad():
        model(x)
    found = account(model, record)
    per = {name: count / 4 for name, count in record.spikes.items()}
    assert found["spikes"] == sum(per.values()) > 20
    assert found["input_events"] == x.sum() / 4
    sops = {
        "input": 7 * x.sum().item() / 4,
        "layers.0": (7 + 5) * per["layers.0"],
        "layers.1": (5 + 4) * per["layers.1"],
    }
    assert found["sops_by_layer"] == pytest.approx(sops)
    published = found["energy"]["published"]
    assert published["macs"] == 50 * (7 * 7 + 5 * 7 + 5 * 5 + 4 * 5)
    rate = record.rates()
    assert published["acs"] == pytest.approx(50 * (rate["layers.0"] * (49 + 35) + rate["layers.1"] * (25 + 20)))
    parts = found["energy"]["recurrence"]["parts"]
    additions = published["acs"] + 50 * (7 + 5)  # and the sum of both maps of each layer
    assert parts["mix"] == pytest.approx(0.9e-12 * additions)
    assert parts["encoder"] == pytest.approx(0.9e-12 * sops["input"])
    assert parts["neuron"] == pytest.approx(50 * 12 * (7 * 3.7e-12 + 9 * 0.9e-12))


@pytest.mark.parametrize("neuron", [LIF(0.9, 0.3), ALIF(), RF(), BRF()])
def test_every_neuron_with_a_kernel_is_a_layer(neuron):
    model = RSNN(3, 4, 6, dynamics=neuron)
    x = 20 * torch.rand(2, 30, 3)
    (model(x)[0].sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"d_model": []}, "sizes must be at least 1"),
        ({"d_model": 0}, "sizes must be at least 1"),
        ({"d_model": [3, 4], "n_layers": 3}, "d_model lists 2 layers and n_layers is 3"),
        ({"pool": "max"}, "pool must be one of"),
        ({"learn": {"damping": None}}, "BRF cannot learn 'damping'"),
    ],
)
def test_a_network_refuses(options, match):
    with pytest.raises(ValueError, match=match):
        RSNN(3, 4, **options)


def test_a_network_refuses_what_does_not_fit():
    model = network()
    with pytest.raises(ValueError, match=r"RSNN: x must be a floating-point \(batch, length, 3\)"):
        model(torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match="must be an RSNNState, got tuple"):
        model(torch.zeros(2, 5, 3).double(), (1, 2))
    with pytest.raises(ValueError, match="the state has 1 layers, this model has 2"):
        model(torch.zeros(2, 5, 3).double(), RSNN(3, 4, 6).initial_state(2))
    with pytest.raises(NotImplementedError, match="use solver='fused' or 'loop'"):
        model.with_solver("parallel")
    assert isinstance(model.initial_state(2).layers[0], RecurrentState)
