"""Gradients that do not flow through time (SLTT): the fused form against the loop, and the loop against its formula."""

import pytest
import torch
from helpers import FUSED

from sdn import LIF, Fused, Loop, Neuron, Surrogate, simulate
from sdn.solvers import as_solver, linear


def gradients(neuron, current, weights):
    current = current.clone().requires_grad_()
    spikes, state = neuron(current)
    (spikes * weights).sum().backward()
    return spikes, state, current.grad, {k: p.grad for k, p in neuron.learned.items()}


@pytest.mark.parametrize(("name", "dynamics", "scale"), FUSED, ids=[name for name, *_ in FUSED])
def test_fused_equals_the_loop(name, dynamics, scale) -> None:
    learn = {"threshold": None}
    loop = Neuron(dynamics, 5, learn=learn, solver=Loop(detach_state=True)).double()
    current, weights = scale * torch.randn(3, 150, 5).double(), torch.randn(3, 150, 5).double()
    ours = gradients(loop.with_solver(Fused(detach_state=True)), current, weights)
    loop.zero_grad()
    theirs = gradients(loop, current, weights)
    assert 0.02 < theirs[0].mean() < 0.98
    assert torch.equal(ours[0], theirs[0])
    for one, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(one, other)
        assert not one.requires_grad
        assert not other.requires_grad
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours[3], theirs[3], rtol=1e-10, atol=1e-12)


def test_the_gradient_of_a_current_is_the_slope_at_its_own_step() -> None:
    lif = LIF(0.6)
    current, weights = torch.randn(2, 40, 3).double(), torch.randn(2, 40, 3).double()
    neuron = Neuron(lif, 3, solver=Loop(detach_state=True))
    _, _, grad, _ = gradients(neuron, current, weights)
    exact = simulate(lif, current)
    slope = (1 - (exact.mem + current - 1).abs()).clamp(min=0)  # the triangle of width 1
    torch.testing.assert_close(grad, weights * slope)
    assert 0.1 < (slope > 0).double().mean() < 0.9
    through_time = gradients(neuron.with_solver("loop"), current, weights)[2]
    assert not torch.allclose(grad, through_time)


def test_rounding_of_the_distance_moves_no_spike(monkeypatch) -> None:
    exact = linear.solve

    def rounded(*args):
        found = exact(*args)
        return found._replace(distance=found.distance - 0.05)

    current = torch.randn(2, 200, 4).requires_grad_()
    neuron = Neuron(LIF(0.5), 4, solver=Fused(detach_state=True))
    monkeypatch.setattr(linear, "solve", rounded)
    spikes, _ = neuron(current)
    assert spikes.requires_grad
    assert torch.equal(spikes, neuron.with_solver("loop")(current)[0])


def test_it_is_the_gradient_of_the_surrogate_up_to_mispredicted_spikes() -> None:
    neuron = Neuron(LIF(0.125), 8, solver="surrogate")
    current, weights = torch.randn(4, 500, 8), torch.randn(4, 500, 8)
    one = gradients(neuron, current, weights)[2].flatten()
    other = gradients(neuron.with_solver("sltt"), current, weights)[2].flatten()
    assert torch.cosine_similarity(one, other, 0) > 0.999


def test_only_the_threshold_is_learned() -> None:
    with pytest.raises(NotImplementedError, match=r"cannot learn \['decay'\]; use Loop\(detach_state=True\)"):
        Neuron(LIF(0.5), 4, learn={"decay": None}, solver="sltt")
    decay = Neuron(LIF(0.5), 4, learn={"decay": None}, solver=Loop(detach_state=True))
    decay(torch.randn(2, 30, 4))[0].sum().backward()
    assert decay.learned["decay"].grad.abs().sum() > 0


def test_the_words_of_the_paper() -> None:
    assert as_solver("sdn") == Surrogate()
    assert as_solver("bptt") == Fused()
    assert as_solver("sltt") == Fused(detach_state=True)
