"""Gradients of `simulate`: against the loop written again, and against finite differences."""

import torch
from helpers import (
    CHANNELS,
    assert_close,
    assert_lively,
    currents,
    every_dynamics,
    published_autograd,
    published_numpy,
    published_slope,
    some_state,
)

from sdn import LIF, RF, Triangle, simulate


def _with_leaves(dynamics):
    """The dynamics with every learnable field as a float64 (H,) leaf, and the leaves."""
    leaves = {}
    for field in dynamics.transforms:
        value = torch.as_tensor(getattr(dynamics, field), dtype=torch.float64)
        leaves[field] = value.expand(CHANNELS).clone().requires_grad_()
    return dynamics.replace(**leaves), leaves


def _gradients(dynamics, std, run):
    x, state = currents(std).requires_grad_(), [s.requires_grad_() for s in some_state(dynamics)]
    with_fields, leaves = _with_leaves(dynamics)
    mem, spike, last = run(with_fields, x, dynamics.State(*state))
    assert_lively(spike)
    generator = torch.Generator().manual_seed(5)
    loss = sum(
        (torch.randn(out.shape, generator=generator, dtype=out.dtype) * out).sum() for out in (mem, spike, *last)
    )
    wrt = {
        "input": x,
        **dict(zip(dynamics.State._fields, state, strict=True)),
        **{f"field {k}": v for k, v in leaves.items()},
    }
    grads = torch.autograd.grad(loss, list(wrt.values()), allow_unused=True)
    return dict(zip(wrt, grads, strict=True))


@every_dynamics
def test_gradients_are_those_of_the_loop_written_again(dynamics, std):
    def ours(detach):
        def run(d, x, s):
            _, mem, spike, last = simulate(d, x, s, detach_reset=detach)
            return mem, spike, last

        return _gradients(dynamics, std, run)

    def theirs(detach):
        return _gradients(dynamics, std, lambda d, x, s: published_autograd(d, x, s, published_slope(dynamics), detach))

    both = {detach: (ours(detach), theirs(detach)) for detach in (True, False)}
    for got, want in both.values():
        for name, gradient in want.items():
            assert gradient.abs().max() > 0, f"the gradient of {name} tests nothing"
            assert_close(got[name], gradient, factor=100)
    through_spikes = not isinstance(dynamics, RF) and getattr(dynamics, "reset", "") != "none"
    assert torch.equal(both[True][0]["input"], both[False][0]["input"]) != through_spikes


@every_dynamics
def test_gradient_of_mem_is_its_derivative(dynamics, std):
    """With the reset detached, `mem` is smooth between spikes: autograd against finite differences."""
    x, state = currents(std, 1, 12, seed=3), some_state(dynamics, 1)
    margin, spike = published_numpy(dynamics, x, state)[2:0:-1]
    assert_lively(spike)
    assert margin.abs().min() > 1e-3, "a spike could flip: choose another seed"
    _, leaves = _with_leaves(dynamics)

    def mem(x, *rest):
        fields = dict(zip(leaves, rest, strict=False))
        return simulate(dynamics.replace(**fields), x, dynamics.State(*rest[len(leaves) :])).mem

    assert torch.autograd.gradcheck(mem, (x.requires_grad_(), *leaves.values(), *(s.requires_grad_() for s in state)))


def test_spike_gradient_of_the_user_is_used():
    x = currents(1.0).requires_grad_()
    sharp, wide = (
        torch.autograd.grad(simulate(LIF(), x, spike_gradient=Triangle(w)).spike.sum(), x)[0] for w in (0.5, 2)
    )
    assert not torch.allclose(sharp, wide)
