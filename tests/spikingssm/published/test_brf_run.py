"""Cells, recurrent layer and RSNN with the numbers of a published network: the oracle's spikes, states, gradients.

The boundary's published values are in test_closed_forms.py, those of the double Gaussian in test_spike.py.
"""

import math

import brf_oracle as oracle
import pytest
import torch
from helpers import assert_lively
from torch.nn.functional import cross_entropy

import sdn
from sdn import ALIF, BRF, RF, Loop, Neuron
from sdn.dynamics import HRF
from spikingssm.measures.spikes import spikes_of
from spikingssm.models.rsnn import RSNN

STEPS, INPUTS, HIDDEN, CLASSES = 1000, 4, 12, 6
# gain on the input weights and on the recurrent ones, so that there is something to compare
GAINS = {"brf": (60.0, 8.0), "rf": (30.0, 8.0), "hrf": (400.0, 60.0), "alif": (2.0, 2.0)}
FIELDS = {"brf": ("omega", "b_offset"), "rf": ("omega", "damping"), "hrf": ("omega", "b_offset"),
          "alif": ("tau_m", "tau_a")}  # fmt: skip
KINDS = {"brf": BRF(), "rf": RF(), "hrf": HRF(), "alif": ALIF()}
STATES = {"brf": "uvq", "rf": "uv", "hrf": "uvq", "alif": "ua"}
every_cell = pytest.mark.parametrize("neuron", KINDS)
every_network = pytest.mark.parametrize("neuron", ["brf", "rf", "alif"])
# HRF has no fused kernel of its own
WAYS = [("fused", False), ("fused", True), ("loop", True)]
SOLVERS = [(neuron, *way) for neuron in KINDS for way in WAYS if (neuron, way[0]) != ("hrf", "fused")]


def arrays_of(neuron, **more):
    gain, recurrent = GAINS[neuron]
    ranges = ((10.0, 50.0), (1.0, 6.0)) if neuron == "hrf" else None
    return oracle.drawn(neuron, INPUTS, HIDDEN, CLASSES, gain=gain, recurrent=recurrent, ranges=ranges, **more)


def events(batch=3, length=STEPS, channels=INPUTS):
    return torch.randn(batch, length, channels, dtype=torch.float64)


def dynamics_of(neuron, leaves):
    """Ours with the raw values of the oracle, by their magnitude."""
    raw = zip(FIELDS[neuron], oracle.OWN[neuron], strict=True)
    return KINDS[neuron].replace(**{field: leaves[f"hidden.{name}"].abs() for field, name in raw})


def own_of(neuron, leaves):
    return {name: leaves[f"hidden.{name}"] for name in oracle.OWN[neuron]}


def assert_states_agree(neuron, ours, theirs, at):
    for name, want in zip(STATES[neuron], theirs, strict=True):
        error = (getattr(ours, name) - want[:, at]).abs().max().item()
        assert error <= 1e-12 * max(1.0, want.abs().max().item()), f"{name} differs by {error:.1e} after step {at}"


def assert_gradients_agree(ours, theirs):
    """To 1e-9 of the largest in each tensor."""
    for name, want in theirs.items():
        largest = want.abs().max().item()
        assert largest > 1e-9, f"{name} is not tested"
        assert (ours[name] - want).abs().max().item() <= 1e-9 * largest, name


def gradients(scalar, leaves, names):
    found = torch.autograd.grad(scalar, [leaves[name] for name in names])
    return dict(zip(names, found, strict=True))


# ---- the cells
@every_cell
def test_a_cell_alone_is_the_published_one_over_a_thousand_steps(neuron):
    """Spikes, states, and gradients that pass through the spike into the neuron's own state, without recurrence."""
    std = {"brf": 60.0, "rf": 40.0, "hrf": 400.0, "alif": 0.5}[neuron]
    own = {k: v for k, v in arrays_of(neuron).items() if k.removeprefix("hidden.") in oracle.OWN[neuron]}
    x = std * events(channels=HIDDEN)
    plain = torch.cat([torch.eye(HIDDEN), torch.zeros(HIDDEN, HIDDEN)], 1).double()
    theirs, ours = (oracle.as_leaves({**own, "x": x}) for _ in range(2))
    want = oracle.layer(neuron, own_of(neuron, theirs), theirs["x"], plain)
    out = sdn.simulate(dynamics_of(neuron, ours), ours["x"], detach_reset=False)
    assert_lively(want.spikes, 0.02, 0.6)
    assert want.margins.abs().min() > 1e-8, "choose other numbers: a state is within rounding of its threshold"
    assert torch.equal(out.spike, want.spikes)
    assert_states_agree(neuron, out.state, want.states, -1)
    weigh = torch.randn_like(want.spikes)
    expected = gradients((want.spikes * weigh).sum(), theirs, list(theirs))
    assert_gradients_agree(gradients((out.spike * weigh).sum(), ours, list(ours)), expected)


@pytest.mark.parametrize(("neuron", "solver", "bias"), SOLVERS)
def test_a_recurrent_layer_is_the_published_one_over_a_thousand_steps(neuron, solver, bias):
    """In four chunks whose states are all looked at; the gradient goes through all of them."""
    arrays = {k: v for k, v in arrays_of(neuron, bias=bias).items() if k.startswith("hidden")}
    x = events()
    theirs, ours = (oracle.as_leaves({**arrays, "x": x}) for _ in range(2))
    weights = [leaves.get(f"hidden.linear.{n}") for leaves in (theirs, ours) for n in ("weight", "bias")]
    want = oracle.layer(neuron, own_of(neuron, theirs), theirs["x"], *weights[:2])
    state, spikes, at = None, [], 0
    for chunk in ours["x"].split([1, 62, 501, 436], 1):
        fired, state = sdn.recurrent(
            chunk, weights[2], dynamics_of(neuron, ours), state, bias=weights[3], solver=solver
        )
        spikes.append(fired)
        at += chunk.shape[1]
        assert_states_agree(neuron, state.neuron, want.states, at - 1)
        assert torch.equal(state.spike, want.spikes[:, at - 1])
    spikes = torch.cat(spikes, 1)
    assert_lively(want.spikes, 0.02, 0.6)
    assert want.margins.abs().min() > 1e-8, "choose other numbers: a state is within rounding of its threshold"
    assert torch.equal(spikes, want.spikes)
    weigh, last = torch.randn_like(want.spikes), torch.randn(len(want.spikes), HIDDEN, dtype=torch.float64)
    expected = gradients((want.spikes * weigh).sum() + (want.states[0][:, -1] * last).sum(), theirs, list(theirs))
    found = gradients((spikes * weigh).sum() + (state.neuron.u * last).sum(), ours, list(ours))
    assert_gradients_agree(found, expected)


@every_cell
def test_the_recurrence_matters_in_these_numbers(neuron):
    """Else the test above would not see it."""
    arrays, x = arrays_of(neuron), events()
    own, weight = own_of(neuron, arrays), arrays["hidden.linear.weight"]
    cut = weight.clone()
    cut[:, INPUTS:] = 0
    one, other = (oracle.layer(neuron, own, x, w).spikes for w in (weight, cut))
    assert (one != other).double().mean() > 0.01


# ---- the boundary
@pytest.mark.parametrize("omega", [3.0, 5.0, 15.0, 25.0, 50.0, 85.0, 99.0])
@pytest.mark.parametrize("offset", [0.0, 0.1, 1.0, 3.0])
def test_the_jacobian_of_a_silent_step_has_radius_one_at_the_boundary_and_less_inside(omega, offset):
    brf = BRF(omega=omega, b_offset=offset)

    def step(uv):
        state = BRF.State(*(part.reshape(1, 1) for part in uv), torch.zeros(1, 1, dtype=torch.float64))
        after = brf.advance(state, torch.zeros_like(state.u), torch.zeros_like(state.u))
        return torch.stack([after.u, after.v]).flatten()

    jacobian = torch.autograd.functional.jacobian(step, torch.randn(2, dtype=torch.float64))
    b = -(1 - math.sqrt(1 - (0.01 * omega) ** 2)) / 0.01 - offset
    by_hand = torch.tensor([[1 + 0.01 * b, -0.01 * omega], [0.01 * omega, 1 + 0.01 * b]], dtype=torch.float64)
    assert torch.allclose(jacobian, by_hand, rtol=0, atol=1e-12)
    radius = torch.linalg.eigvals(jacobian).abs().max().item()
    if offset == 0:
        assert radius == pytest.approx(1, abs=1e-6)
    else:
        assert radius < 1 - 1e-5 or 0.01 * offset > 2 * math.sqrt(1 - (0.01 * omega) ** 2)


# ---- the network
def network_of(neuron, arrays, solver="fused", **options):
    """RSNN with the oracle's numbers, filled by hand."""
    first, second = FIELDS[neuron]
    learn = {first: None, second: None}
    bias = "hidden.linear.bias" in arrays
    sizes = (arrays["hidden.linear.weight"].shape, len(arrays["out.tau_mem"]))
    inputs = sizes[0][1] - sizes[0][0]
    model = RSNN(
        inputs, sizes[1], sizes[0][0], dynamics=KINDS[neuron], learn=learn, bias=bias, solver=solver, **options
    ).double()
    ours = {
        "layers.0.input.weight": arrays["hidden.linear.weight"][:, :inputs],
        "layers.0.recurrent.weight": arrays["hidden.linear.weight"][:, inputs:],
        f"layers.0.learned.{first}": arrays[f"hidden.{oracle.OWN[neuron][0]}"],
        f"layers.0.learned.{second}": arrays[f"hidden.{oracle.OWN[neuron][1]}"],
        "readout.weight": arrays["out.linear.weight"],
        "readout.tau": arrays["out.tau_mem"],
    }
    if bias:
        ours |= {"layers.0.input.bias": arrays["hidden.linear.bias"], "readout.bias": arrays["out.linear.bias"]}
    model.load_state_dict(ours)
    return model


def published_of(model, neuron, tensors):
    """Our parameters' gradients or values (name -> tensor) under the published names."""
    first, second = FIELDS[neuron]
    found = {
        "hidden.linear.weight": torch.cat([tensors["layers.0.input.weight"], tensors["layers.0.recurrent.weight"]], 1),
        f"hidden.{oracle.OWN[neuron][0]}": tensors[f"layers.0.learned.{first}"],
        f"hidden.{oracle.OWN[neuron][1]}": tensors[f"layers.0.learned.{second}"],
        "out.linear.weight": tensors["readout.weight"],
        "out.tau_mem": tensors["readout.tau"],
    }
    if "readout.bias" in tensors:
        found |= {
            "hidden.linear.bias": tensors["layers.0.input.bias"],
            "out.linear.bias": tensors["readout.bias"],
        }
    return found


@every_network
@pytest.mark.parametrize("solver", ["fused", "loop"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_the_network_has_the_oracles_spikes_potentials_loss_and_gradients(neuron, solver, bias):
    arrays = arrays_of(neuron, bias=bias)
    leaves, x = oracle.as_leaves(arrays), events(length=300)
    labels = torch.randint(CLASSES, (3, 300))
    want = oracle.network(neuron, leaves, x)
    reference = oracle.loss(want.potentials, labels)
    reference.backward()
    model = network_of(neuron, arrays, solver, pool="each")
    (spikes,) = spikes_of(model, x).values()
    assert_lively(spikes, 0.02, 0.6)
    assert torch.equal(spikes, want.hidden.spikes.detach())
    logits, _ = model(x)
    assert torch.allclose(logits.detach(), want.potentials.detach(), rtol=0, atol=1e-12)
    loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert loss.item() == pytest.approx(reference.item(), rel=1e-12)
    loss.backward()
    found = published_of(model, neuron, {k: p.grad for k, p in model.named_parameters()})
    assert found.keys() == leaves.keys()
    assert_gradients_agree(found, {k: v.grad for k, v in leaves.items()})


@every_network
def test_pools_are_the_published_readings_of_the_potentials(neuron):
    arrays, x = arrays_of(neuron), events(length=200)
    potentials = oracle.network(neuron, arrays, x).potentials
    for pool, want in (("each", potentials), ("last", potentials[:, -1]), ("mean", potentials.mean(1))):
        logits, _ = network_of(neuron, arrays, pool=pool)(x)
        assert torch.allclose(logits, want, rtol=0, atol=1e-12)


# ---- at the start
STARTS = {  # inputs, hidden, classes, steps, density of the input, omega, b_offset
    "ecg": (4, 36, 6, 1300, 0.08, (3.0, 5.0), (0.1, 1.0)),
    "shd": (700, 128, 20, 250, 0.02, (5.0, 10.0), (2.0, 3.0)),
}


@pytest.mark.parametrize("task", STARTS)
@pytest.mark.parametrize("seed", range(3))
def test_at_the_start_nothing_spikes_and_the_loss_is_that_of_chance(task, seed):
    inputs, hidden, classes, steps, density, omega, offset = STARTS[task]
    torch.manual_seed(seed)
    learn = {"omega": sdn.uniform(*omega), "b_offset": sdn.uniform(*offset)}
    model = RSNN(inputs, classes, hidden, learn=learn, start="published")
    x = (torch.rand(4, steps, inputs) < density).float()
    (spikes,) = spikes_of(model, x).values()
    assert not spikes.any()
    logits, _ = model(x)
    assert not logits.any()
    loss = cross_entropy(logits.double().flatten(0, 1), torch.randint(classes, (4 * steps,)))
    assert loss.item() == pytest.approx(math.log(classes), rel=1e-12)
    loss.backward()
    assert not model.readout.weight.grad.any(), "it has seen no spike"
    assert model.layers[0].input.weight.grad.any(), "learning starts from the slope far below the threshold"


@pytest.mark.parametrize(
    ("sizes", "count"), [((1, 256, 10), 68_874), ((4, 36, 6), 1_734), ((700, 128, 20), 108_820)], ids=str
)
@every_network
def test_parameter_counts_are_the_published_ones(neuron, sizes, count):
    inputs, hidden, classes = sizes
    learn = dict.fromkeys(FIELDS[neuron])
    options = {"dynamics": KINDS[neuron], "learn": learn}
    parameters = list(RSNN(inputs, classes, hidden, **options).parameters())
    assert sum(p.numel() for p in parameters) == count
    with_bias = sum(p.numel() for p in RSNN(inputs, classes, hidden, bias=True, **options).parameters())
    assert with_bias == {68_874: 69_140, 1_734: 1_776, 108_820: 108_968}[count]


def test_the_slope_of_forward_gradient_injection_is_that_of_the_custom_backward():
    """The published RF injects its gradient, the others have a backward of their own: the same number for each v."""
    v = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    one, other = (v.clone().requires_grad_() for _ in range(2))
    oracle.inject(one).sum().backward()
    oracle.Heaviside.apply(other).sum().backward()
    assert torch.equal(one.grad, other.grad)
    ours = v.clone().requires_grad_()
    sdn.spike(ours, BRF.default_spike, False).sum().backward()
    assert torch.allclose(ours.grad, one.grad, rtol=0, atol=1e-15)


def test_a_neuron_under_the_loop_differentiates_through_its_reset_when_asked():
    """`Loop(detach_reset=False)` is the published gradient of a layer without recurrence; the default is another."""
    arrays = arrays_of("brf")
    x = 60.0 * events(channels=HIDDEN, length=100)
    dynamics = dynamics_of("brf", arrays)
    found = []
    for detach in (False, True):
        leaf = x.clone().requires_grad_()
        spikes, _ = Neuron(dynamics, HIDDEN, solver=Loop(detach_reset=detach))(leaf)
        found.append(torch.autograd.grad(spikes.sum(), leaf)[0])
    plain = torch.cat([torch.eye(HIDDEN), torch.zeros(HIDDEN, HIDDEN)], 1).double()
    leaf = x.clone().requires_grad_()
    run = oracle.layer("brf", own_of("brf", arrays), leaf, plain)
    (want,) = torch.autograd.grad(run.spikes.sum(), leaf)
    assert torch.allclose(found[0], want, rtol=0, atol=1e-9 * want.abs().max().item())
    assert not torch.allclose(found[1], want, rtol=0, atol=1e-3 * want.abs().max().item())
