"""`Surrogate` with networks that are exact by construction: it then is the loop, spike for spike."""

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents, triangle

from sdn import LIF, Artifact, Neuron, ReducedSDN, Surrogate, save_artifact, simulate
from sdn.surrogate.predict import predict

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
