"""`Surrogate` where it is exact: networks that are so by construction, and as far back as its sweeps reach."""

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents, every_dtype, triangle
from test_network import lively_sdn

from sdn import LIF, Artifact, Neuron, ReducedSDN, Surrogate, Triangle, reduce, save_artifact, simulate
from sdn.surrogate.predict import predict
from sdn.surrogate.sweeps import RESETS, _plain, sweep

KERNEL = 16  # 0.1^17 is nothing in float64
LOUD = 3.0  # fires whatever the past; everything else in `pulses` stays below 0.5 and never does


def exact_artifact(tmp_path, dynamics):
    """A network that is the neuron: for "none" on all currents, for "hard" and "soft" on `pulses`.

    Three channels a lag k: relu(x[t-k]), relu(-x[t-k]), and relu(x[t-k] - 0.5), which tells a spike. Without reset,
    mem is the first minus the second times decay^k. A soft reset subtracts the spikes; a hard one switches off, in the
    second convolution, what lies at or before a spike.
    """
    net = ReducedSDN(3 * KERNEL, KERNEL, 1).double()
    for value in net.state_dict().values():
        value.zero_()
    spatial, bias = net.spatial[0].weight, net.spatial[0].bias
    plus, minus, told = (torch.arange(i * KERNEL, (i + 1) * KERNEL) for i in range(3))
    for k in range(1, KERNEL + 1):
        spatial[plus[k - 1], 0, KERNEL - k] = spatial[told[k - 1], 0, KERNEL - k] = 1.0
        spatial[minus[k - 1], 0, KERNEL - k] = -1.0
        bias[told[k - 1]] = -0.5
        net.decoder.weight[0, plus[k - 1], 0] = dynamics.decay**k
        net.decoder.weight[0, minus[k - 1], 0] = -(dynamics.decay**k)
        if dynamics.reset == "soft":
            net.decoder.weight[0, told[k - 1], 0] = -dynamics.threshold * dynamics.decay**k / (LOUD - 0.5)
        if dynamics.reset == "hard":
            for side in (plus, minus):
                net.feature[0].weight[side[k - 1], told[:k], 0] = -2.0
    saved = save_artifact(tmp_path / "exact.safetensors", net, dynamics)
    return Artifact(net, saved.facts)  # in memory, in float64


def pulses():
    """Currents from -0.4 to 0.4, and in one of six steps a loud one."""
    x = currents(1.0, length=200)
    loud = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 1 / 6
    return torch.where(loud, LOUD, 0.4 * x.tanh())


@pytest.mark.parametrize("reset", ["none", "hard", "soft"])
def test_an_exact_network_equals_the_loop_and_its_gradient_the_detached_one(tmp_path, reset):
    """With resets all along the sequence; without reset also on currents where `mem` decides spikes."""
    dynamics = LIF(0.1, 1.0, reset)
    surrogate = Surrogate(exact_artifact(tmp_path, dynamics))
    for x in [pulses()] + [currents(1.3, length=200)] * (reset == "none"):
        want = simulate(dynamics, x)
        neuron = Neuron(dynamics, CHANNELS, solver=surrogate)
        leaf = x.clone().requires_grad_()
        spikes, _ = neuron(leaf)
        assert_lively(want.spike)
        assert want.spike[:, 20:180].sum() > 100
        assert torch.equal(spikes, want.spike)
        assert_close(predict(surrogate.artifact.network, x), want.mem)
        weights = torch.randn_like(x)
        (grad,) = torch.autograd.grad((weights * spikes).sum(), leaf)
        assert (grad != 0).any()
        assert_close(grad, weights * triangle(want.mem + x - 1.0))
    others = {r: simulate(dynamics.replace(reset=r), pulses()).mem for r in {"none", "hard", "soft"} - {reset}}
    mem = simulate(dynamics, pulses()).mem
    assert all((mem - other).abs().max() > 0.05 for other in others.values()), "the reset decided nothing"


def test_an_exact_network_with_learned_thresholds_equals_the_loop(tmp_path):
    dynamics = LIF(0.1, 1.0, "none")
    start = torch.linspace(0.4, 2.5, CHANNELS)
    surrogate = Neuron(
        dynamics, CHANNELS, learn={"threshold": start}, solver=Surrogate(exact_artifact(tmp_path, dynamics))
    ).double()
    loop, x = surrogate.with_solver("loop"), currents(1.3, length=200)
    assert_lively(loop(x)[0])
    assert torch.equal(surrogate(x)[0], loop(x)[0])
    # mem does not depend on the threshold here, so the loop's gradient for it is the surrogate's
    grads = [torch.autograd.grad(n(x)[0].sum(), n.learned["threshold"])[0] for n in (surrogate, loop)]
    assert (grads[1] < 0).all()
    assert_close(grads[0], grads[1])


# ---- sweeps
RESETS_OF = [LIF(0.6, 0.8, "hard"), LIF(0.7, 1.3, "soft"), LIF(0.5, 0.9, "none")]
every_reset = pytest.mark.parametrize("dynamics", RESETS_OF, ids=["hard", "soft", "none"])


def some_artifact(tmp_path, dynamics, forgetful=False):
    """A network of no use: it predicts something of the size of the currents, or nothing but zeros."""
    net = reduce(lively_sdn())
    net.decoder.weight.mul_(0 if forgetful else 2)
    net.decoder.bias.mul_(0 if forgetful else 1)
    saved = save_artifact(tmp_path / "some.safetensors", net, dynamics)
    return Artifact(net, saved.facts)


@every_reset
@pytest.mark.parametrize("sweeps", [0, 1, 2, 5])
def test_from_zero_it_is_the_neuron_with_that_many_steps_of_memory(tmp_path, dynamics, sweeps):
    """Each spike is that of the exact neuron started at rest so many steps before it."""
    x = currents(1.5)
    solver = Surrogate(some_artifact(tmp_path, dynamics, forgetful=True), refine=sweeps)
    spikes, _ = Neuron(dynamics, CHANNELS, solver=solver)(x)
    want = [simulate(dynamics, x[:, max(0, t - sweeps) : t + 1]).spike[:, -1] for t in range(x.shape[1])]
    assert_lively(spikes)
    assert torch.equal(spikes, torch.stack(want, 1))
    assert not torch.equal(spikes, simulate(dynamics, x).spike), "a few steps of memory were enough"


@every_reset
@pytest.mark.parametrize("sweeps", [1, 3, 70])
def test_from_rest_the_first_steps_are_exact(tmp_path, dynamics, sweeps):
    """And all of them, with as many sweeps as steps, whatever the network says."""
    x, solver = currents(1.5), Surrogate(some_artifact(tmp_path, dynamics), refine=sweeps)
    spikes, state = Neuron(dynamics, CHANNELS, solver=solver)(x)
    want = simulate(dynamics, x).spike
    assert torch.equal(spikes[:, : sweeps + 1], want[:, : sweeps + 1])
    assert torch.equal(spikes, want) == (sweeps == 70)
    assert torch.equal(state[0], x[:, -8 - sweeps :])


@every_reset
def test_sweeps_and_gradient_written_out(tmp_path, dynamics):
    """Three sweeps in a plain loop over steps; the gradient is the slope at the refined potential, of the same step."""
    artifact, x = some_artifact(tmp_path, dynamics), currents(1.5).requires_grad_()
    spikes, _ = Neuron(dynamics, CHANNELS, spike=Triangle(2.0), solver=Surrogate(artifact, refine=3))(x)
    now, T = x.detach(), dynamics.threshold
    mem = predict(artifact.network, now)
    mem[:, 0] = 0
    for _ in range(3):
        swept = mem.clone()
        for t in range(1, x.shape[1]):
            h = mem[:, t - 1] + now[:, t - 1]
            s = (h >= T).double()
            u = {"hard": h * (1 - s), "soft": h - T * s, "none": h}[dynamics.reset]
            swept[:, t] = dynamics.decay * u
        mem = swept
    assert torch.equal(spikes, (mem + now - T >= 0).double())
    weights = torch.randn_like(now)
    (grad,) = torch.autograd.grad((weights * spikes).sum(), x, retain_graph=True)
    assert_close(grad, weights * Triangle(2.0).slope(mem + now - T))
    (one,) = torch.autograd.grad(spikes[:, 30].sum(), x)
    assert (one[:, 30] != 0).any()
    one[:, 30] = 0
    assert (one == 0).all(), "a gradient ran through time"


@every_reset
def test_refined_it_is_causal_and_scales_with_a_learned_threshold(tmp_path, dynamics):
    solver = Surrogate(some_artifact(tmp_path, dynamics), refine=2)
    x, start = currents(1.5), torch.linspace(0.5, 2.0, CHANNELS, dtype=torch.float64)
    neuron = Neuron(dynamics, CHANNELS, learn={"threshold": start}, solver=solver).double()
    spikes, (other, t) = neuron(x)[0], (x.clone(), 40)
    assert_lively(spikes)
    other[:, t] += 3
    moved = neuron(other)[0] != spikes
    assert not moved[:, :t].any()
    assert moved[:, t + 1 :].any()
    fixed = Neuron(dynamics, CHANNELS, solver=solver)
    unit = neuron.current_dynamics().threshold.detach() / dynamics.threshold
    assert (fixed(x / unit)[0] != spikes).double().mean() < 1e-3  # up to ties


@every_dtype
@every_reset
@pytest.mark.parametrize("sweeps", [1, 3, 9])
def test_fused_sweeps_are_the_plain_ones(dynamics, sweeps, dtype):
    """To the bit, across blocks, with fields per channel, in every layout, with and without earlier inputs."""
    for shape in [(2, 1, 3), (1, 2, 1), (3, 63, 5), (2, 1300, 7), (1, 9, 700), (1, 5000, 1)]:
        fields = torch.linspace(0.1, 0.9, shape[2])
        neuron = dynamics.replace(decay=fields, threshold=0.4 + fields)
        x, guess = currents(1.5, *shape, dtype=dtype), currents(1.0, *shape, dtype=dtype, seed=1)
        for skip in {0, shape[1] // 2}:
            want = guess[:, skip:].clone()
            _plain(want, x, fields.to(dtype), (0.4 + fields).to(dtype), RESETS.index(dynamics.reset), sweeps)
            for turn in (lambda t: t, lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)):
                for mem in (turn(guess[:, skip:].clone()), guess.clone()[:, skip:]):
                    assert sweep(neuron, mem, turn(x), sweeps) is mem
                    assert torch.equal(mem, want)
            assert shape[1] < 60 or not torch.equal(want, guess[:, skip:])


@pytest.mark.parametrize("reset", RESETS)
def test_at_equality_the_sweeps_fire_as_the_neuron_does(tmp_path, reset):
    """Currents in quarters, decay a half, so that every sum is exact; one step in four meets the threshold."""
    dynamics, x = LIF(0.5, 1.0, reset), (4 * currents(1.0, length=30)).round() / 4
    tie, state = torch.rand(x.shape) < 0.25, dynamics.initial_state(3, CHANNELS, dtype=x.dtype)
    for t in range(30):
        x[:, t] = torch.where(tie[:, t], 1 - dynamics.past(state), x[:, t])
        fired = dynamics.fires(dynamics.past(state), x[:, t]).double()
        state = dynamics.advance(state, x[:, t], fired)
    want = simulate(dynamics, x)
    assert (want.mem + x == 1.0).double().mean() > 0.2
    solver = Surrogate(some_artifact(tmp_path, dynamics, forgetful=True), refine=30)
    assert torch.equal(Neuron(dynamics, CHANNELS, solver=solver)(x)[0], want.spike)


def test_torch_approves_of_the_sweep():
    x, fields = currents(1.0, 2, 12, 3), torch.linspace(0.2, 0.8, 3, dtype=torch.float64)
    for reset in range(3):
        torch.library.opcheck(torch.ops.sdn.sweep.default, (x[:, 4:].clone(), x, fields, fields, reset, 2))
    low = x.bfloat16()
    mem = sweep(RESETS_OF[0], low.clone(), low, 1)
    assert mem.dtype == torch.bfloat16
    assert (mem[:, 1:] != low[:, 1:]).any()


@pytest.mark.parametrize(("decay", "at_least"), [(0.125, [99.99, 99.998, 99.9995]), (0.2, [99.96, 99.993, 99.998])])
def test_each_sweep_brings_the_shipped_networks_closer(decay, at_least):
    """Per cent of spikes on N(0, 1); the sweeps are worth 5 to 8 times fewer mistakes each."""
    x, dynamics = currents(1.0, 16, 1024, 64, torch.float32), LIF(decay)
    want = simulate(dynamics, x).spike
    got = [Neuron(dynamics, 64, solver=Surrogate(refine=k))(x)[0] for k in range(3)]
    agreement = [100 * (spikes == want).double().mean().item() for spikes in got]
    assert_lively(want)
    assert all(a >= least for a, least in zip(agreement, at_least, strict=True)), agreement
    wrong = [100 - a for a in agreement]
    assert wrong[1] < wrong[0] / 3
    assert wrong[2] < wrong[1] / 2
