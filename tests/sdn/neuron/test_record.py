"""``record="mem"``: the membrane out of the same loop as the spikes, with its gradients."""

import pytest
import torch
from helpers import CHANNELS, assert_close, currents, every_dtype, every_fused, some_state

import sdn
from sdn import LIF, Fused, Loop, Neuron, Trajectory


@every_dtype
@every_fused
def test_it_is_the_membrane_of_the_loop_with_its_gradients(dynamics, std, dtype):
    outcomes = []
    weights = [torch.randn(3, 70, CHANNELS, dtype=dtype) for _ in range(2)]
    for solver in (Fused(detach_reset=False), Loop(detach_reset=False)):
        neuron = Neuron(dynamics, CHANNELS, learn=dict.fromkeys(dynamics.transforms), solver=solver).to(dtype)
        x = currents(std, length=70, dtype=dtype).requires_grad_()
        found = neuron(x, some_state(dynamics, dtype=dtype), record="mem")
        assert found.input is x
        loss = sum((w * out).sum() for w, out in zip(weights, (found.mem / std, found.spike), strict=True))
        grads = torch.autograd.grad(loss, [x, *neuron.parameters()], allow_unused=True)
        outcomes.append([found.mem.detach(), found.spike.detach(), *found.state, *grads])
    for fused, loop in zip(*outcomes, strict=True):
        assert_close(fused, loop, factor=5)
    assert outcomes[0][0].any()


def test_without_spikes_asked_for_only_the_membrane_is_learned_from():
    x = currents(1.0).requires_grad_()
    neuron = Neuron(LIF(0.6), CHANNELS)
    (neuron(x, record="mem").mem ** 2).mean().backward()
    assert x.grad[:, :-1].any()
    assert not x.grad[:, -1].any(), "the last input comes behind the last membrane"


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_lower_precision_comes_back_as_it_went_in(half):
    found = Neuron(LIF(0.5), CHANNELS)(currents(1.0).to(half), record="mem")
    assert found.mem.dtype == found.spike.dtype == half


def test_sltt_records_too():
    x = currents(1.0).requires_grad_()
    fused, loop = (
        Neuron(LIF(0.7), CHANNELS, solver=kind(detach_state=True))(x, record="mem") for kind in (Fused, Loop)
    )
    assert torch.equal(fused.mem, loop.mem)
    assert torch.equal(fused.spike, loop.spike)


def test_what_cannot_be_recorded_is_refused():
    neuron = Neuron(LIF(), CHANNELS)
    with pytest.raises(ValueError, match="record must be 'mem' or None, got 'spikes'"):
        neuron(currents(1.0), record="spikes")
    for solver in ("parallel", "surrogate"):
        with pytest.raises(NotImplementedError, match=r"keeps no membrane; use neuron.with_solver\('fused'\)"):
            neuron.with_solver(solver)(currents(1.0), record="mem")


def test_trajectories_are_made_by_the_compiled_loop(monkeypatch):
    monkeypatch.setattr("sdn.surrogate.trajectories.simulate", lambda *_: pytest.fail("step by step"))
    made = sdn.generate(sdn.BRF(), 20, 300, seed=3)
    monkeypatch.undo()
    want = sdn.simulate(sdn.BRF(), made.input.T.unsqueeze(0))
    assert isinstance(made, Trajectory)
    assert torch.equal(made.mem, want.mem[0].T)
    assert torch.equal(made.spike, want.spike[0].T > 0)
