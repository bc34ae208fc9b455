"""`Neuron`: learned fields, solvers that share parameters, dtypes, saving, and what it refuses."""

import copy
import math
import pickle

import pytest
import torch
from helpers import (
    CHANNELS,
    assert_close,
    assert_lively,
    currents,
    every_dtype,
    every_fused,
    published_autograd,
    published_slope,
    some_state,
)

import sdn
from sdn import ALIF, BRF, LIF, RF, Fused, Loop, Neuron, Surrogate, Trajectory, Triangle, normal, simulate, uniform
from sdn.surrogate.artifact import shipped_artifacts

STARTS = [
    (LIF(), "threshold", 0.6, lambda raw: raw.exp()),
    (LIF(), "decay", 0.37, lambda raw: 1 / (1 + (-raw).exp())),
    (ALIF(), "tau_m", 12.0, lambda raw: raw.abs()),
    (ALIF(), "tau_a", 90.0, lambda raw: raw.abs()),
    (ALIF(), "beta", 0.7, lambda raw: raw.abs()),
    (ALIF(), "threshold", 0.03, lambda raw: raw.exp()),
    (RF(), "omega", 9.0, lambda raw: raw.abs()),
    (RF(), "damping", 2.5, lambda raw: raw.abs()),
    (BRF(), "omega", 33.0, lambda raw: raw.abs()),
    (BRF(), "b_offset", 1.5, lambda raw: raw.abs()),
    (BRF(), "gamma", 0.8, lambda raw: 1 / (1 + (-raw).exp())),
]


@pytest.mark.parametrize(
    ("dynamics", "field", "value", "back"), [pytest.param(*s, id=f"{type(s[0]).__name__}-{s[1]}") for s in STARTS]
)
def test_a_learned_field_starts_where_it_is_told(dynamics, field, value, back):
    for learn in ({field: value}, {field: torch.full((3,), value)}, {field: lambda h: torch.full((h,), value)}):
        neuron = Neuron(dynamics, 3, learn=learn)
        assert [(n, p.shape) for n, p in neuron.named_parameters()] == [(f"learned.{field}", (3,))]
        raw = neuron.learned[field]
        assert torch.allclose(back(raw), torch.full((3,), value), rtol=1e-6)
        assert torch.allclose(getattr(neuron.current_dynamics(), field), back(raw), rtol=1e-6)
    own = getattr(Neuron(dynamics, 3, learn={field: None}).current_dynamics(), field)
    assert torch.allclose(own, torch.full((3,), float(getattr(dynamics, field))), rtol=1e-6)


def test_random_starts():
    neuron = Neuron(BRF(), 500, learn={"omega": uniform(15, 50), "b_offset": normal(3.0, 0.1)})
    omega, offset = neuron.current_dynamics().omega, neuron.current_dynamics().b_offset
    assert 15 <= omega.min() < 18
    assert 47 < omega.max() <= 50
    assert offset.mean().item() == pytest.approx(3.0, abs=0.03)
    assert offset.std().item() == pytest.approx(0.1, abs=0.02)


@every_fused
def test_it_is_simulate(dynamics, std):
    x, state = currents(std), some_state(dynamics)
    want = simulate(dynamics, x, state)
    assert_lively(want.spike)
    spikes, last = Neuron(dynamics, CHANNELS, solver="loop")(x, state)
    assert torch.equal(spikes, want.spike)
    assert all(torch.equal(a, b) for a, b in zip(last, want.state, strict=True))
    from_rest = Neuron(dynamics, CHANNELS, solver=Loop())
    start = from_rest.initial_state(3, dtype=torch.float64)
    assert torch.equal(from_rest(x, start)[0], from_rest(x)[0])


@every_dtype
@every_fused
def test_chunks_and_steps_equal_the_whole(dynamics, std, dtype):
    neuron, x, start = Neuron(dynamics, CHANNELS), currents(std, dtype=dtype), some_state(dynamics, dtype=dtype)
    whole, last = neuron(x, start)
    assert_lively(whole)
    first, state = neuron(x[:, :40], start)
    second, state = neuron(x[:, 40:], state)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))
    state, steps = start, []
    for now in x.unbind(1):
        spike, state = neuron.step(now, state)
        assert spike.shape == (3, CHANNELS)
        steps.append(spike)
    assert torch.equal(torch.stack(steps, 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


LEARNED = [
    (LIF(0.4, 0.8), ("threshold", "decay"), 1.0),
    (LIF(0.4, 0.8, "soft"), ("threshold", "decay"), 1.0),
    (ALIF(7.0, 31.0, 0.9, 0.05), ("threshold", "tau_m", "tau_a", "beta"), 1.0),
    (RF(17.0, 3.0, dt=0.012, threshold=0.6), ("omega", "damping", "threshold"), 25.0),
    (BRF(23.0, 2.5, 0.8, dt=0.012, threshold=0.7), ("omega", "b_offset", "gamma", "threshold"), 50.0),
]


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "through-reset"])
@pytest.mark.parametrize(
    ("dynamics", "fields", "std"), [pytest.param(*c, id=f"{type(c[0]).__name__}-{i}") for i, c in enumerate(LEARNED)]
)
def test_gradients_of_learned_fields(dynamics, fields, std, detach):
    neuron = Neuron(dynamics, CHANNELS, learn=dict.fromkeys(fields), solver=Loop(detach_reset=detach)).double()
    x = currents(std)
    weights = torch.randn(x.shape, dtype=x.dtype)
    spikes, _ = neuron(x)
    assert_lively(spikes)
    (weights * spikes).sum().backward()
    # The same by hand: a leaf per field in its own unit, then the chain rule of its transform.
    leaves = {f: getattr(neuron.current_dynamics(), f).detach().requires_grad_() for f in fields}
    state = dynamics.initial_state(3, CHANNELS, dtype=x.dtype)
    slope = published_slope(dynamics)
    _, again, _ = published_autograd(dynamics.replace(**leaves), x, state, slope, detach)
    assert torch.equal(again.detach(), spikes.detach())
    (weights * again).sum().backward()
    chain = {"log": lambda y: y, "logit": lambda y: y * (1 - y), "abs": lambda y: torch.ones_like(y)}
    for field, leaf in leaves.items():
        want = leaf.grad * chain[dynamics.transforms[field]](leaf.detach())
        assert want.abs().max() > 0
        assert_close(neuron.learned[field].grad, want, factor=1000)


def test_abs_carries_the_sign_into_the_gradient():
    plus, minus = (Neuron(RF(), 2, learn={"omega": 9.0}, solver="loop") for _ in range(2))
    with torch.no_grad():
        minus.learned["omega"].neg_()
    x = currents(25.0, channels=2, dtype=torch.float32)
    grads = []
    for neuron in (plus, minus):
        spikes, _ = neuron(x)
        assert_lively(spikes)
        spikes.sum().backward()
        grads.append(neuron.learned["omega"].grad)
    assert torch.equal(grads[0], -grads[1])
    assert (grads[0] != 0).all()


def test_one_optimiser_step_moves_every_learned_field():
    neuron = Neuron(BRF(), CHANNELS, learn={"omega": uniform(15, 50), "b_offset": None, "threshold": None})
    before = {n: p.detach().clone() for n, p in neuron.named_parameters()}
    optimiser = torch.optim.AdamW(neuron.parameters(), lr=0.1)
    neuron(currents(80.0, dtype=torch.float32))[0].mean().backward()
    optimiser.step()
    assert all(not torch.equal(before[n], p) for n, p in neuron.named_parameters())


def test_with_solver_shares_the_very_same_parameters():
    neuron = Neuron(LIF(0.3), 4, learn={"threshold": 0.7, "decay": None}, spike=Triangle(2.0)).eval()
    other = neuron.with_solver(Loop(detach_reset=False))
    assert other.solver == Loop(detach_reset=False)
    assert neuron.solver == Fused()
    assert (other.spike, other.training) == (Triangle(2.0), False)
    assert all(a is b for a, b in zip(neuron.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        neuron.learned["threshold"].fill_(math.log(3.0))
    assert other.current_dynamics().threshold.tolist() == pytest.approx([3.0] * 4)
    third = Neuron(LIF(0.3), 4, learn={"threshold": None, "decay": None}, solver=Loop(detach_reset=False))
    assert third.load_state_dict(neuron.state_dict()).missing_keys == []
    x = torch.randn(2, 40, 4) * 3
    assert_lively(neuron(x)[0])
    assert torch.equal(neuron(x)[0], other(x)[0])
    assert torch.equal(neuron(x)[0], third(x)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_computed_in_float32(dtype):
    neuron, x = Neuron(LIF(0.9, 0.8, "soft"), CHANNELS), currents(1.0, length=200).to(dtype)
    spikes, state = neuron(x)
    want, last = neuron(x.float())
    assert (spikes.dtype, state.u.dtype) == (dtype, torch.float32)
    assert_lively(want)
    assert torch.equal(spikes.float(), want)
    assert torch.equal(state.u, last.u)


def test_autocast_changes_nothing():
    """Guards defect 26: neurons ran in low precision."""
    neuron, x = Neuron(BRF(), CHANNELS, learn={"omega": 20.0}), currents(60.0, dtype=torch.float32)
    want, _ = neuron(x)
    assert_lively(want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes, state = neuron(x)
        low, _ = neuron(x.bfloat16())
    assert (spikes.dtype, low.dtype, state.u.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert torch.equal(spikes, want)


def test_copies_and_files(tmp_path):
    neuron = Neuron(BRF(), 4, learn={"omega": uniform(15, 40)}, solver="loop")
    x = 80 * torch.randn(2, 100, 4)
    assert_lively(neuron(x)[0])
    twin = copy.deepcopy(neuron)
    assert torch.equal(twin(x)[0], neuron(x)[0])
    assert twin.learned["omega"] is not neuron.learned["omega"]
    torch.save(neuron.state_dict(), tmp_path / "neuron.pt")
    fresh = Neuron(BRF(), 4, learn={"omega": uniform(15, 40)}, solver="loop")
    assert not torch.equal(fresh(x)[0], neuron(x)[0])
    fresh.load_state_dict(torch.load(tmp_path / "neuron.pt", weights_only=True))
    assert torch.equal(fresh(x)[0], neuron(x)[0])


def test_it_shows_what_it_is():
    text = repr(Neuron(LIF(0.3), 4, learn={"threshold": None}))
    solver = "Fused(detach_reset=True, detach_state=False)"
    assert all(part in text for part in ("LIF(decay=0.3", "channels=4", solver, "['threshold']"))
    assert Trajectory._fields == ("input", "mem", "spike", "state")


X = torch.ones(2, 3, 128)
POINTWISE = next(path for path in shipped_artifacts() if path.stem == "lif-decay-0.2")
ERRORS = [
    (lambda: Neuron(LIF(), 128)(X[..., :64]), r"64 channels on its last axis, this neuron has 128"),
    (lambda: Neuron(LIF(), 128)(X[0]), r"\(batch, length, channels\) .*\(3, 128\)"),
    (lambda: Neuron(LIF(), 128)(X.int()), r"floating-point tensor, got torch.int32"),
    (lambda: Neuron(LIF(), 128)(X * math.nan), r"768 of 768 currents are NaN or infinite"),
    (lambda: Neuron(LIF(), 128)(X, LIF.State(torch.ones(3, 128))), r"'u' has shape \(3, 128\).*\(2, 128\)"),
    (lambda: Neuron(LIF(), 4, solver="fast"), r"solver must be one of .*'loop'.*got 'fast'"),
    (lambda: Neuron(LIF(), 4, learn={"reset": None}), r"LIF cannot learn 'reset'.*\['decay', 'threshold'\]"),
    (lambda: Neuron(BRF(), 4, learn={"dt": None}), r"BRF cannot learn 'dt'"),
    (lambda: Neuron(LIF(), 4, learn={"decay": 1.5}), r"decay must be in \[0, 1\), got 1.5"),
    (lambda: Neuron(LIF(decay=0.0), 4, learn={"decay": None}), r"'decay' goes through logit.* 0 to 0"),
    (lambda: Neuron(LIF(), 4, learn={"threshold": -1.0}), r"threshold must be in \(0, inf\), got -1"),
    (lambda: Neuron(LIF(), 4, learn={"threshold": torch.ones(3)}), r"shape \(3,\), the neuron has 4 channels"),
    (lambda: Neuron(ALIF(), 4, learn={"threshold": None}, solver=Surrogate()), r"ALIF: a learned threshold.*loop"),
    (lambda: Neuron(LIF(), 4, learn={"decay": None}, solver=Surrogate(POINTWISE)), r"one value of \['decay'\].*loop"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS, ids=[m for _, m in ERRORS])
def test_errors_say_what_is_wrong(make, message):
    """Guards defect 28: the surrogate took a learned decay, and other resets, without a word."""
    with pytest.raises(ValueError, match=message):
        make()


def test_a_start_where_brf_is_not_a_number_is_refused():
    """Beyond 1/dt the boundary is NaN: such a neuron would be silent for ever, without a word."""
    with pytest.raises(ValueError, match="omega"):
        Neuron(BRF(dt=0.01), 4, learn={"omega": 150.0})


def test_fields_that_are_tensors_are_saved_and_loaded():
    def made(seed):
        torch.manual_seed(seed)
        return sdn.Neuron(sdn.LIF(0.9 * torch.rand(8), 0.5 + torch.rand(8)), 8, learn={"decay": None})

    one, other, x = made(1), made(2), torch.randn(2, 50, 8)
    assert set(one.state_dict()) == {"learned.decay", "fixed.threshold"}
    assert not torch.equal(one(x)[0], other(x)[0])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x)[0], other(x)[0])
    assert torch.equal(other.dynamics.threshold, one.dynamics.threshold)
    assert torch.equal(copy.deepcopy(one)(x)[0], one(x)[0])
    assert torch.equal(pickle.loads(pickle.dumps(one))(x)[0], one(x)[0])
    assert one.with_solver("loop").fixed.threshold is one.fixed.threshold
    assert one.double().dynamics.threshold.dtype == torch.float64
    assert [name for name, _ in one.named_parameters()] == ["learned.decay"]


def test_a_state_dict_of_before_they_were_saved():
    one = sdn.Neuron(sdn.LIF(torch.rand(8)), 8, learn={"threshold": None})
    known = one.fixed.decay.clone()
    with pytest.warns(UserWarning, match=r"does not hold fixed.decay.*stays as this neuron was built"):
        one.load_state_dict({"learned.threshold": torch.ones(8)})
    assert torch.equal(one.fixed.decay, known)
    assert torch.equal(one.learned["threshold"], torch.ones(8))
    with pytest.raises(RuntimeError, match=r"Missing key.*learned.threshold"), pytest.warns(match="does not hold"):
        one.load_state_dict({})


@pytest.mark.parametrize(
    "value", [torch.nn.Parameter(torch.rand(8)), torch.rand(8, requires_grad=True)], ids=["p", "t"]
)
def test_a_field_with_a_gradient_would_be_trained_by_nobody(value):
    with pytest.raises(ValueError, match=r"decay is a tensor with a gradient.*learn=\{'decay': value\}"):
        sdn.Neuron(sdn.LIF(decay=value), 8)
    neuron = sdn.Neuron(sdn.LIF(), 8, learn={"decay": value})
    assert torch.allclose(neuron.current_dynamics().decay, value)
    assert len(list(neuron.parameters())) == 1


def test_other_values_that_no_module_would_keep():
    from spikingssm.layers import ResonateAndFire

    with pytest.raises(ValueError, match=r"width must be a number > 0, got .*not learned"):
        sdn.Triangle(torch.nn.Parameter(torch.ones(())))
    with pytest.raises(ValueError, match="threshold must be a number > 0"):
        ResonateAndFire(8, threshold=torch.ones(8))


@pytest.mark.parametrize("solver", ["fused", "loop", "parallel", "surrogate", sdn.Surrogate(refine=2)], ids=str)
def test_an_empty_batch(solver):
    neuron, x = sdn.Neuron(sdn.LIF(0.125), 5, solver=solver), torch.zeros(0, 7, 5, requires_grad=True)
    spikes, state = neuron(x)
    spikes.sum().backward()
    assert spikes.shape == x.grad.shape == (0, 7, 5)
    assert neuron(x, state)[0].shape == (0, 7, 5)
    assert neuron.step(x[:, 0], state)[0].shape == (0, 5)


@pytest.mark.parametrize("solver", ["fused", "parallel"])
def test_an_omega_that_left_its_range_has_one_gradient(solver):
    """What goes back to it is clamped as one sum, and not term by term, under every solver."""

    def gradient(how):
        torch.manual_seed(1)
        neuron = sdn.Neuron(sdn.BRF(), 4, learn={"omega": None}, solver=how).double()
        with torch.no_grad():
            neuron.learned["omega"].copy_(torch.tensor([10.0, 120.0, 101.0, 130.0]))
        x, weight = 50 * torch.randn(3, 40, 4).double(), torch.randn(3, 40, 4).double()
        (neuron(x)[0] * weight).sum().backward()
        return neuron.learned["omega"].grad

    want = gradient("loop")
    assert (want[1:] > 0).any()
    assert torch.allclose(gradient(solver), want, rtol=1e-9)
