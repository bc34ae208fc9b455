"""The surrogate with rounds: exact after enough of them, gradients through time, fields that differ or are learned."""

import dataclasses
import warnings
from typing import NamedTuple

import own_neurons
import pytest
import torch
from helpers import assert_lively
from torch.nn.functional import cosine_similarity

import sdn
from sdn import ALIF, BRF, HRF, LIF, RF, IzhikevichRF, Neuron, Surrogate
from sdn.solvers.matching import warn_changed
from sdn.surrogate.currents import currents
from sdn.surrogate.seams import ReducedSeamSDN

NEURONS = {
    "lif": LIF(0.9), "soft": LIF(0.9, reset="soft"), "alif": ALIF(), "rf": RF(), "brf": BRF(), "hrf": HRF(),
    "izhikevich": IzhikevichRF(), "quadratic": own_neurons.Quadratic(), "adex": own_neurons.AdEx(),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An artifact of a neuron whose network says nothing: mean states and no correction."""

    def make(dynamics, over=None, width=0.0, chunk=32):
        x = x_of(dynamics, 2, 512, 32)
        with torch.no_grad():
            _, state = Neuron(dynamics, 32)(x)
        network = ReducedSeamSDN(len(dynamics.State._fields), len(over or {}), chunk=chunk, width=width)
        torch.nn.init.zeros_(network.last.weight)
        torch.nn.init.zeros_(network.last.bias)
        network.state_mean.copy_(torch.stack([value.mean() for value in state]))
        network.state_std.copy_(torch.stack([value.std() for value in state]).clamp_min(1e-3))
        path = tmp_path_factory.mktemp("artifacts") / "a.safetensors"
        return sdn.save_artifact(path, network, dynamics, over=over or {})

    return make


def x_of(dynamics, batch, length, channels, seed=0, family="normal"):
    std = dynamics.default_std
    x = currents(dynamics, family, batch * channels, length, std, seed)
    return x.reshape(batch, channels, length).transpose(1, 2).contiguous()


@pytest.mark.parametrize("name", NEURONS)
def test_as_many_rounds_as_chunks_give_the_exact_spikes(made, name):
    dynamics = NEURONS[name]
    x = x_of(dynamics, 2, 150, 5, seed=1)
    want, state = Neuron(dynamics, 5)(x)
    neuron = Neuron(dynamics, 5, solver=Surrogate(made(dynamics), rounds=5))
    spikes, last = neuron(x)
    assert_lively(want)
    assert (spikes != want).float().mean() <= 2e-3  # the seams are right up to rounding
    for got, field in zip(last, state, strict=True):
        torch.testing.assert_close(got, field, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["lif", "alif", "brf"])
def test_more_rounds_are_nearer(made, name):
    dynamics = NEURONS[name]
    x = x_of(dynamics, 2, 700, 16, seed=2)
    want = Neuron(dynamics, 16)(x)[0]
    width = 0.1 if name == "alif" else 0.0
    artifact = made(dynamics, width=width)
    wrong = [
        float((Neuron(dynamics, 16, solver=Surrogate(artifact, rounds=k))(x)[0] != want).float().mean())
        for k in (1, 2, 4, 8)
    ]
    assert wrong == sorted(wrong, reverse=True)
    assert wrong[0] > 1.5 * wrong[2] > 0 or wrong[1] == 0


def test_a_short_sequence_is_exact(made):
    """One chunk starts from the state that is given, so a stream of steps is the neuron itself."""
    dynamics = BRF()
    neuron = Neuron(dynamics, 3, solver=Surrogate(made(dynamics)))
    x, exact = x_of(dynamics, 2, 96, 3), Neuron(dynamics, 3)
    state, other = None, None
    for t in range(96):
        got, state = neuron.step(x[:, t], state)
        want, other = exact.step(x[:, t], other)
        assert torch.equal(got, want)
    pieces, state = [], neuron.initial_state(2)
    for t in range(0, 96, 32):
        spikes, state = neuron(x[:, t : t + 32], state)
        pieces.append(spikes)
    assert torch.equal(torch.cat(pieces, 1), exact(x)[0])


@pytest.mark.parametrize("name", ["lif", "rf", "alif", "brf", "hrf"])
def test_the_gradient_points_where_that_of_the_exact_neuron_points(made, name):
    dynamics = NEURONS[name]
    x = x_of(dynamics, 2, 256, 24, seed=3)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    width = 0.1 if name == "alif" else 0.0
    artifact, found = made(dynamics, width=width), {}
    for key, solver in {"exact": "fused", "rounds": Surrogate(artifact, rounds=4)}.items():
        current = x.clone().requires_grad_()
        (Neuron(dynamics, 24, solver=solver)(current)[0] * weights).sum().backward()
        found[key] = current.grad.flatten()
    assert cosine_similarity(found["exact"], found["rounds"], dim=0) > 0.97
    assert found["rounds"].norm() / found["exact"].norm() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("detach_reset", [True, False])
def test_with_right_spikes_the_gradients_are_those_of_fused(made, detach_reset):
    """float64, one chunk more than rounds: nothing but rounding is left, also in the fields."""
    dynamics = ALIF()
    x = x_of(dynamics, 2, 100, 4, seed=5).double()
    grads = []
    for solver in (
        sdn.Fused(detach_reset),
        Surrogate(made(dynamics, {"tau_m": (5, 50)}), rounds=5, detach_reset=detach_reset),
    ):
        neuron = Neuron(dynamics, 4, learn={"tau_m": None}, solver=solver).double()
        current = x.clone().requires_grad_()
        spikes, state = neuron(current)
        assert_lively(spikes)
        ((spikes * torch.arange(100.0)[:, None]).sum() + state.u.sum()).backward()
        grads.append((current.grad, neuron.learned["tau_m"].grad))
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


def test_no_gradient_through_time_on_request(made):
    dynamics = LIF(0.9)
    x = x_of(dynamics, 2, 120, 6, seed=6).double()
    grads = []
    for solver in (sdn.Fused(detach_state=True), Surrogate(made(dynamics), rounds=5, detach_state=True)):
        current = x.clone().requires_grad_()
        spikes, _ = Neuron(dynamics, 6, solver=solver).double()(current)
        (spikes * torch.arange(120.0)[:, None]).sum().backward()
        grads.append((spikes.detach(), current.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[1][1], grads[0][1], rtol=1e-6, atol=1e-6)


def test_fields_that_the_network_is_told(made):
    artifact = made(LIF(0.5), {"decay": (0.1, 0.95)})
    x = x_of(LIF(), 2, 200, 3, seed=7)
    decays = torch.tensor([0.2, 0.5, 0.9])
    want = Neuron(LIF(decays), 3)(x)[0]
    got = Neuron(LIF(decays), 3, solver=Surrogate(artifact, rounds=6))(x)[0]
    assert (got != want).float().mean() < 1e-3
    neuron = Neuron(LIF(0.5), 3, learn={"decay": decays, "threshold": None}, solver=Surrogate(artifact))
    neuron(x)[0].sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in neuron.parameters())
    with pytest.warns(UserWarning, match=r"decay goes from 0.2 to 0.99, the network was trained .* from 0.1 to 0.95"):
        Neuron(LIF([0.2, 0.99]), 2, solver=Surrogate(artifact))
    with pytest.raises(ValueError, match=r"one SDN stands for one value of \['decay'\]"):
        Neuron(LIF(0.5), 3, learn={"decay": None}, solver=Surrogate(made(LIF(0.5))))


def test_a_threshold_scales_currents_and_states(made):
    artifact = made(LIF(0.9), width=0.0)
    x = x_of(LIF(0.9), 2, 200, 4, seed=8)
    one = Neuron(LIF(0.9), 4, solver=Surrogate(artifact, rounds=2))(x)[0]
    other = Neuron(LIF(0.9, threshold=4.0), 4, solver=Surrogate(artifact, rounds=2))(4 * x)[0]
    assert torch.equal(one, other)
    assert_lively(one)


@pytest.mark.parametrize("chunk", [8, 64])
def test_other_chunks(made, chunk):
    dynamics = BRF()
    x = x_of(dynamics, 2, 210, 4, seed=9)
    want = Neuron(dynamics, 4)(x)[0]
    got = Neuron(dynamics, 4, solver=Surrogate(made(dynamics), rounds=9, chunk=chunk))(x)[0]
    assert (got != want).float().mean() < 0.01


def test_a_pointwise_network_of_a_lif_takes_rounds():
    dynamics = LIF(0.125)
    x = x_of(dynamics, 4, 2000, 50, seed=10)
    want = Neuron(dynamics, 50)(x)[0]
    none, two = (Neuron(dynamics, 50, solver=Surrogate(rounds=k))(x)[0] for k in (0, 2))
    assert torch.equal(none, Neuron(dynamics, 50, solver="surrogate")(x)[0])
    assert 0 < (none != want).sum() < 200
    assert torch.equal(two, want)


class LogisticState(NamedTuple):
    u: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Logistic(sdn.Dynamics):
    """Bounded, and chaotic: its derivative by the start of a chunk grows beyond all numbers."""

    r: float = 3.9
    threshold: float = 0.8
    State = LogisticState

    @property
    def gain(self):
        return 1e-3

    def past(self, state):
        return self.r * state.u * (1 - state.u)

    def advance(self, state, current, spike):
        return LogisticState(torch.clamp(self.past(state) + 0.01 + 1e-3 * current, 0.0, 1.0))


@pytest.mark.parametrize(("chunk", "rounds"), [(32, 8), (32, 9), (128, 2)])
def test_chaos_is_exact_after_as_many_rounds_as_chunks(made, chunk, rounds):
    """a + (b - a) is not b: what is left would grow with the derivative."""
    dynamics = Logistic()
    for seed in range(4):
        x = torch.randn(1, 256, 4, generator=torch.Generator().manual_seed(seed))
        want, _ = Neuron(dynamics, 4)(x)
        got, _ = Neuron(dynamics, 4, solver=Surrogate(made(dynamics), rounds=rounds, chunk=chunk))(x)
        assert torch.equal(got, want)
        assert_lively(want)


@pytest.mark.parametrize("times", [3, 30])
@pytest.mark.parametrize("name", ["alif", "brf", "soft", "izhikevich"])
def test_currents_far_from_those_of_the_training_do_not_blow_it_up(name, times):
    """Derivatives with a slope grow without bounds there, and a network of linear layers says what it likes."""
    dynamics = NEURONS[name]
    x = times * x_of(dynamics, 4, 512, 32, seed=13)
    want = Neuron(dynamics, 32)(x)[0]
    assert_lively(want)
    got = Neuron(dynamics, 32, solver="surrogate")(x)[0]
    assert (got == want).float().mean() > 0.97


OVER = {"omega": (5.0, 50.0), "b_offset": (0.2, 2.2)}


@pytest.mark.parametrize("times", [1, 10, 100])
@pytest.mark.parametrize("nonsense", [300.0, -300.0, 1e6])
def test_a_network_that_says_nonsense_does_not_make_the_neuron_diverge(made, nonsense, times):
    """Its correction is bounded, and so are those of the rounds: without either of both bounds this neuron diverges."""
    artifact = made(BRF(20.0), OVER, width=0.3)
    with torch.no_grad():
        artifact.network.last.bias.fill_(nonsense)
    draw = torch.Generator().manual_seed(5)
    fields = {name: low + (high - low) * torch.rand(32, generator=draw) for name, (low, high) in OVER.items()}
    x = times * x_of(BRF(), 4, 1024, 32, seed=14)
    want, got = (Neuron(BRF(**fields), 32, solver=solver)(x)[0] for solver in ("fused", Surrogate(artifact)))
    assert_lively(want)
    assert (got == want).float().mean() > 0.85


def test_more_rounds_than_chunks_cost_nothing(made):
    neuron = Neuron(LIF(0.9), 2, solver=Surrogate(made(LIF(0.9)), rounds=10**9))
    x = x_of(LIF(0.9), 1, 65, 2)
    assert torch.equal(neuron(x)[0], Neuron(LIF(0.9), 2)(x)[0])


def test_a_channel_does_not_see_the_thresholds_of_others():
    dynamics = LIF(0.99, reset="soft")
    x = x_of(dynamics, 2, 1024, 4, seed=12)
    alone = Neuron(dynamics, 4, solver="surrogate")(x)[0]
    thresholds = torch.tensor([1.0, 0.25, 64.0, 2.0**-6])
    beside = Neuron(dynamics.replace(threshold=thresholds), 4, solver="surrogate")(x * thresholds)[0]
    assert torch.equal(alone, beside)
    assert (alone != Neuron(dynamics, 4)(x)[0]).any()  # so that it is not the exact neuron that is compared


@pytest.mark.parametrize("name", ["alif", "brf"])
def test_under_vmap(made, name):
    neuron = Neuron(NEURONS[name], 4, solver=Surrogate(made(NEURONS[name], width=0.1)))
    x = torch.stack([x_of(NEURONS[name], 2, 100, 4, seed=seed) for seed in (0, 1)])
    assert torch.equal(torch.func.vmap(lambda t: neuron(t)[0])(x), torch.stack([neuron(t)[0] for t in x]))


@pytest.mark.parametrize("shape", [(0, 70, 3), (2, 70, 0)])
def test_nothing_in_is_nothing_out(made, shape):
    neuron = Neuron(ALIF(), shape[2], solver=Surrogate(made(ALIF())))
    assert neuron(torch.randn(shape))[0].shape == shape


def test_a_class_that_was_written_again_is_said_to_be(made):
    artifact = made(own_neurons.Quadratic())

    @dataclasses.dataclass(frozen=True, eq=False)
    class Quadratic(sdn.Dynamics):
        a: float = 0.2
        threshold: float = 1.0
        State = own_neurons.One

        def past(self, state):
            return -0.5 * state.u

        def advance(self, state, current, spike):
            return own_neurons.One((self.past(state) + current) * (1 - spike))

    changed = Quadratic()
    with pytest.warns(UserWarning, match="the step of Quadratic is another one than when the artifact was made"):
        warn_changed(changed, artifact)


def test_a_learned_field_that_leaves_its_bounds_is_said_to(made):
    neuron = Neuron(LIF(0.5), 2, learn={"decay": None}, solver=Surrogate(made(LIF(0.5), {"decay": (0.1, 0.9)})))
    with torch.no_grad():
        neuron.learned["decay"].fill_(5.0)
    with pytest.warns(UserWarning, match="decay goes from 0.993"):
        neuron(torch.randn(1, 40, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neuron(torch.randn(1, 40, 2))  # said once, not in every step of a training


REFUSED = [
    ({"rounds": 0}, r"rounds=0 needs a pointwise network"),
    ({"refine": 2}, r"refine=2 is for a pointwise network"),
    ({"chunk": 20}, r"chunk=20 and the 32 steps that the network was trained with must divide each other"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_a_seam_network(made, options, message):
    with pytest.raises(ValueError, match=message):
        Neuron(BRF(), 3, solver=Surrogate(made(BRF()), **options))


@pytest.mark.parametrize(
    ("name", "value"), [("rounds", -1), ("rounds", True), ("chunk", 0), ("chunk", 2.5), ("chunk", 32 * 10**18)]
)
def test_options_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be an integer >= "):
        Surrogate(**{name: value})


def test_switches_are_no_words():
    with pytest.raises(ValueError, match=r"detach_state must be one of \(True, False, None\), got 'yes'"):
        Surrogate(detach_state="yes")


def test_what_does_not_fit_a_pointwise_network():
    with pytest.raises(ValueError, match="gradients through time need rounds"):
        Neuron(LIF(0.125), 3, solver=Surrogate(detach_state=False))


def test_a_neuron_that_diverges_says_so(made):
    """An artifact is no way around the check that every solver makes."""
    dynamics = BRF(divergence_boundary=False, b_offset=0.001, omega=90.0)
    artifact = made(BRF(divergence_boundary=False, b_offset=5.0))
    artifact = dataclasses.replace(artifact, facts={**artifact.facts, "dynamics": dynamics.facts()}, digest="")
    neuron = Neuron(dynamics, 3, solver=Surrogate(artifact))
    with pytest.raises(sdn.dynamics.base.Diverged):
        neuron(1e30 * torch.ones(1, 6000, 3))[0].sum().item()


def test_compiled_without_a_graph_break(made):
    dynamics = ALIF()
    neuron = Neuron(dynamics, 4, solver=Surrogate(made(dynamics)))
    x = x_of(dynamics, 2, 100, 4, seed=11)
    torch._dynamo.reset()
    got = torch.compile(neuron, backend="aot_eager", fullgraph=True)(x)[0]
    assert torch.equal(got, neuron(x)[0])


def test_a_network_of_such_neurons_runs_and_streams(made):
    import spikingssm

    dynamics = BRF()
    solver = Surrogate(made(dynamics))
    model = spikingssm.SpikingSSM(
        2, 3, d_model=8, n_layers=2, d_state=4, dynamics=dynamics, solver=solver, learn_threshold=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits, _ = model(30 * torch.randn(2, 100, 2))
        logits.sum().backward()
    assert logits.shape == (2, 3)
    assert sum(p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.parameters()) > 10
