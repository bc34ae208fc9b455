"""S5RF with the numbers of a published network: spikes, logits, gradients, optimiser steps are the oracle's."""

import math

import pytest
import s5rf_oracle as oracle
import torch
from helpers import assert_close, assert_lively, assert_same_spikes

from spikingssm.models.s5rf import S5RF
from spikingssm.training.optim import parameter_groups, warmup_cosine

SOLVERS = ["fused", "parallel", "loop"]
SIZES = {1: (3, 8, 5), 2: (3, 8, 8, 5), 4: (3, 8, 8, 8, 8, 5)}
# depth, discretisation of layer 0 and of the others, further options of the model, and of the oracle
NETWORKS = {
    "one-layer": (1, "zoh", "dirac", {}, {}),
    "smnist": (2, "zoh", "dirac", {}, {}),
    "shd": (2, "dirac", "dirac", {}, {}),
    "ssc": (4, "dirac", "dirac", {}, {}),
    "deep-zoh": (4, "zoh", "zoh", {}, {}),
    "bilinear": (2, "bilinear", "bilinear", {}, {}),
    "no-skip": (4, "dirac", "dirac", {"skip": "none"}, {"skips": ()}),
    "magnitude": (2, "zoh", "dirac", {"magnitude": True}, {"magnitude": True}),
    "refractory": (4, "zoh", "dirac", {"refractory": 0.7}, {"rho": 0.7}),
}
every_network = pytest.mark.parametrize("network", NETWORKS)
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def pair(network, solver="fused", **more):
    """Our model and the oracle's arrays and options, with the same numbers in float64."""
    depth, first, rest, ours, theirs = NETWORKS[network]
    arrays = oracle.published_arrays(SIZES[depth], 2, seed=depth, gain=2.0 if network == "magnitude" else 8.0)
    options = {"num_blocks": 2, "first_discretisation": first, "discretisation": rest, "solver": solver}
    model = S5RF(3, 5, 8, depth, **options, **ours, **more).double()
    leaves = oracle.as_leaves(arrays)
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in ours_of(leaves).items():
            if name in state:
                state.pop(name).copy_(tensor)
    assert not state, f"not filled: {sorted(state)}"
    return model, leaves, {"names": [first] + [rest] * (depth - 1), **theirs}


def ours_of(arrays):
    """The oracle's arrays under our names and in our shapes."""
    found = {"readout.weight": arrays["readout.W"][..., 0], "readout.tau": arrays["readout.tau"]}
    for i in range(oracle.depth(arrays)):
        found[f"layers.{i}.dense.weight"] = torch.cat(arrays[f"layers.{i}.B_tilde"].unbind(-1))
        found |= {f"layers.{i}.neuron.{name}": arrays[f"layers.{i}.{name}"] for name in oracle.SLOW}
        if i == 0 and f"layers.{i}.V" in arrays:
            found["layers.0.neuron.rotation"] = arrays["layers.0.V"][:4, :4].movedim(-1, 0)
    return found


def data(batch=6, length=40):
    return torch.randn(batch, length, 3, dtype=torch.float64), torch.randint(5, (batch,))


def spikes_of(model, x):
    """Spikes of every layer, the logits."""
    found, handles = [], []
    for layer in model.layers:
        handles.append(layer.neuron.register_forward_hook(lambda _, __, out: found.append(out[0])))
    logits, _ = model(x)
    for handle in handles:
        handle.remove()
    return found, logits


def assert_gradients_agree(model, leaves):
    gradients = {k: v.grad for k, v in leaves.items() if v.requires_grad}
    assert not gradients["readout.W"][..., 1].any(), "the imaginary half is dead"
    gradients |= {k: torch.zeros(1) for k, v in leaves.items() if not v.requires_grad}
    wanted = ours_of({k: v for k, v in gradients.items() if not k.endswith(".V")})
    named = dict(model.named_parameters())
    assert named.keys() == wanted.keys()
    for name, parameter in named.items():
        assert wanted[name].abs().max() > 1e-6, f"{name} is not tested"
        scale = wanted[name].abs().max().item()
        assert_close(parameter.grad / scale, wanted[name] / scale, factor=100)


@every_network
@every_solver
def test_spikes_logits_loss_and_every_gradient(network, solver):
    model, leaves, options = pair(network, solver)
    x, labels = data()
    want = oracle.network(leaves, x, **options)
    found, logits = spikes_of(model, x)
    assert len(found) == len(want.spikes)
    for got, spikes, margins in zip(found, want.spikes, want.margins, strict=True):
        assert assert_same_spikes(got.detach(), spikes.detach(), margins.detach()).all(), "choose other numbers"
    assert_close(logits.detach(), want.logits.detach())
    loss, reference = torch.nn.functional.cross_entropy(logits, labels), oracle.loss(want, labels)
    assert_close(loss.detach(), reference.detach())
    loss.backward()
    reference.backward()
    assert_gradients_agree(model, leaves)


@pytest.mark.parametrize("network", ["smnist", "ssc", "refractory"])
def test_single_precision_stays_within_its_rounding(network):
    model, leaves, options = pair(network)
    x, _ = data()
    want = oracle.network(leaves, x, **options)
    found, logits = spikes_of(model.float(), x.float())
    for got, spikes in zip(found, want.spikes, strict=True):
        assert_lively(spikes)
        assert (got.double() != spikes).double().mean() < 2e-3
    assert (logits.double() - want.logits).abs().max() < 0.05 * want.logits.abs().max()


@every_solver
@pytest.mark.parametrize("network", ["smnist", "ssc"])
def test_three_optimiser_steps_with_both_groups_and_the_schedule(network, solver):
    model, leaves, options = pair(network, solver)
    lr, slow_lr, weight_decay, steps = 0.008, 0.002, 0.3, 3
    optimiser = torch.optim.AdamW(parameter_groups(model, lr, weight_decay, slow_lr=slow_lr))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: oracle.cosine(n, steps))
    published = oracle.TwoGroups(leaves, lr, slow_lr, weight_decay)
    before = {k: v.detach().clone() for k, v in ours_of(leaves).items()}
    for n in range(steps):
        x, labels = data()
        loss = torch.nn.functional.cross_entropy(model(x)[0], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        reference = oracle.loss(oracle.network(leaves, x, **options), labels)
        reference.backward()
        published.step(oracle.cosine(n, steps))
        assert_close(loss.detach(), reference.detach(), factor=100)
    after = {k: v.detach() for k, v in ours_of(leaves).items()}
    for name, parameter in model.named_parameters():
        assert (after[name] - before[name]).abs().max() > 0.5 * slow_lr, name
        # Adam divides by the gradient's own size, so that rounding of a tiny gradient is a whole step's rounding.
        assert (parameter.detach() - after[name]).abs().max() < 1e-7, name


def test_the_leak_decays_and_the_neurons_parameters_do_not():
    model, _, _ = pair("smnist")
    groups = parameter_groups(model, 0.008, 1e-4, slow_lr=0.002)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        slow = name.rsplit(".", 1)[1] in oracle.SLOW
        assert of[id(parameter)] == ((0.002, 0.0) if slow else (0.008, 1e-4)), name


def test_the_schedule_is_the_published_cosine_to_a_millionth():
    total = 50
    assert all(abs(warmup_cosine(n, 0, total) - oracle.cosine(n, total)) <= 1e-6 for n in range(total + 1))
    assert oracle.cosine(0, total) == 1


def test_the_mean_of_the_leaky_integrator_has_the_published_closed_form():
    model, leaves, options = pair("shd")
    x, _ = data(length=57)
    s = oracle.network(leaves, x, **options).spikes[-1]
    o = s @ leaves["readout.W"][..., 0].T
    alpha, T = torch.sigmoid(leaves["readout.tau"]), 57
    weights = (1 - alpha ** torch.arange(T, 0, -1).unsqueeze(1)) / (1 - alpha)
    assert_close(model(x)[0].detach(), ((o * weights).sum(1) / T).detach())


def test_the_loss_at_the_start_is_that_of_chance_while_the_last_layer_is_silent():
    """As measured on the published network: its start values emit no spike in the last layer."""
    model = S5RF(1, 10, 128, 2, start="published")
    found, logits = spikes_of(model, torch.rand(2, 200, 1))
    assert not found[-1].any()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([3, 7]))
    assert loss.item() == pytest.approx(math.log(10), abs=1e-6)


def test_a_smaller_batch_is_the_mean_over_its_own_rows():
    model, leaves, options = pair("smnist")
    x, labels = data(batch=4)
    whole = oracle.loss(oracle.network(leaves, x, **options), labels)
    rows = [torch.nn.functional.cross_entropy(model(x[i : i + 1])[0], labels[i : i + 1]) for i in range(4)]
    assert_close(torch.stack(rows).mean().detach(), whole.detach())


@pytest.mark.parametrize(("at", "layers"), [("published", (1, 2)), ("all", (0, 1, 2, 3))])
def test_under_dropout_logits_and_gradients_are_those_of_the_oracle_under_the_same_masks(at, layers):
    model, leaves, options = pair("ssc", dropout=0.4, dropout_at=at)
    model.train()
    x, labels = data()
    random = torch.get_rng_state()
    logits, _ = model(x)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.set_rng_state(random)  # once more, with a drive of ones: what the neurons see then are the masks
    masks = {}
    for i, layer in enumerate(model.layers):
        layer.dense.register_forward_hook(lambda _, __, out: torch.ones_like(out))
        layer.neuron.register_forward_pre_hook(lambda _, arguments, i=i: masks.update({i: arguments[0]}))
    model(x)
    masks = {i: torch.stack(mask.chunk(2, -1), -1) for i, mask in masks.items() if not (mask == 1).all()}
    assert tuple(masks) == layers
    want = oracle.network(leaves, x, masks=masks, **options)
    assert_close(logits.detach(), want.logits.detach())
    oracle.loss(want, labels).backward()
    assert_gradients_agree(model, leaves)


def test_the_oracle_has_as_many_numbers_as_the_published_formula():
    for widths in SIZES.values():
        H_in, *_, C = widths
        L, P = len(widths) - 2, 8
        arrays = oracle.published_arrays(widths, 2)
        count = sum(v.size for k, v in arrays.items() if not k.endswith(".V"))
        assert count == 2 * P * H_in + 2 * P * P * (L - 1) + 2 * C * P + 3 * P * L + C
