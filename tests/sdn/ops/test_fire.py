"""Spikes of a given membrane in one pass, against the step and slope of plain torch."""

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents, every_dtype

from sdn import ALIF, LIF, ArcTan, DoubleGaussian, MultiGaussian, Sigmoid, Triangle, spike
from sdn.compiler.programs import slope_of
from sdn.dynamics.fields import channelwise
from sdn.ops.membrane.fire import _fire, fire, takes

GRADIENTS = [Triangle(0.7), DoubleGaussian(), MultiGaussian(), ArcTan(), Sigmoid()]


@every_dtype
@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda g: type(g).__name__)
def test_equals_the_plain_step(gradient, dtype):
    generator = torch.Generator().manual_seed(3)
    for dynamics in (LIF(threshold=0.6 + torch.rand(CHANNELS, dtype=dtype)), ALIF(tau_m=0.7, threshold=0.3)):
        x, mem = currents(1.0, length=150, dtype=dtype), 0.3 * currents(1.0, length=150, dtype=dtype, seed=5)
        mem[0, 3] = dynamics.threshold - dynamics.gain * x[0, 3]  # as near to a tie as rounding allows
        x, results = x.requires_grad_(), []
        threshold = channelwise(dynamics.threshold, x).clone().requires_grad_()
        weights = torch.randn(x.shape, generator=generator, dtype=dtype)
        for fused in (True, False):
            if fused:
                rest = threshold, dynamics.fires_at_threshold, *slope_of(gradient)
                out = fire(x, mem, channelwise(dynamics.gain, x), *rest)
            else:
                v = dynamics.replace(threshold=threshold).distance(mem, x)
                out = spike(v, gradient, dynamics.fires_at_threshold)
            results.append((out.detach(), *torch.autograd.grad((out * weights).sum(), [x, threshold])))
        assert_lively(results[0][0])
        assert torch.equal(results[0][0], results[1][0])
        for got, want in zip(results[0][1:], results[1][1:], strict=True):
            assert want.any()
            assert_close(got, want)


def test_a_tie_fires_by_the_rule_of_the_neuron():
    x, mem, one = torch.tensor([[[0.5, 0.75]]]), torch.tensor([[[0.5, 0.0]]]), torch.ones(2)
    assert fire(x, mem, one, one, True, "", []).tolist() == [[[1.0, 0.0]]]
    assert fire(x, mem, one, one, False, "", []).tolist() == [[[0.0, 0.0]]]


def test_it_says_what_it_takes():
    x = currents(1.0)
    assert takes(x, x)
    assert not takes(x, x.float())
    assert not takes(x.half(), x.half())
    assert not takes(x.transpose(1, 2), x.transpose(1, 2))
    assert not takes(x.to("meta"), x.to("meta"))


def test_operator_obeys_the_rules_of_torch():
    x, fixed = currents(1.0, length=5).requires_grad_(), torch.ones(2, CHANNELS, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(_fire.overload, (x, currents(0.3, length=5), fixed, True, *slope_of(Triangle())))
