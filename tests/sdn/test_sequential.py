"""`sdn.Sequential`, `detach`, `record_membranes` and neurons in `torch.nn.Sequential`: what a plain loop needs."""

import copy
import functools
import pickle

import pytest
import torch
from helpers import assert_lively
from torch import nn

import sdn
from spikingssm import S4D, SpikingSSM, spikes_of


def network(**more):
    torch.manual_seed(4)
    return sdn.Sequential(
        nn.Linear(3, 16), sdn.Neuron(sdn.LIF(0.9), 16, **more), nn.Linear(16, 8), nn.Dropout(0.5),
        sdn.Neuron(sdn.ALIF(), 8, **more), nn.Linear(8, 2),
    )  # fmt: skip


def by_hand(net, x):
    first, one, second, drop, two, last = net
    spikes, a = one(first(x))
    more, b = two(drop(second(spikes)))
    assert_lively(spikes)
    return last(more), (None, a, None, None, b, None)


def same(one, other):
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other is None or torch.equal(one, other)


def test_it_is_what_one_would_write_by_hand():
    net, x = network().eval(), 3 * torch.randn(2, 40, 3)
    y, state = net(x)
    wanted, kept = by_hand(net, x)
    assert torch.equal(y, wanted)
    assert same(state, kept)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_chunks_and_steps_are_the_whole():
    net, x = network().eval(), 3 * torch.randn(2, 40, 3)
    y, state = net(x)
    first, half = net(x[:, :17])
    second, end = net(x[:, 17:], half)
    torch.testing.assert_close(torch.cat([first, second], 1), y)
    torch.testing.assert_close(end[1], state[1])
    now, steps = net.initial_state(2), []
    for step in x.unbind(1):
        out, now = net.step(step, now)
        steps.append(out)
    torch.testing.assert_close(torch.stack(steps, 1), y, atol=1e-5, rtol=1e-5)


def test_nests_and_layers_of_other_kinds():
    inner = sdn.Sequential(nn.Linear(3, 6), sdn.Neuron(sdn.LIF(0.5), 6))
    net = sdn.Sequential(inner, S4D(6, 4), nn.Linear(6, 2)).eval()
    x = 3 * torch.randn(2, 20, 3)
    y, state = net(x)
    assert [part is None for part in state] == [False, False, True]
    first, half = net(x[:, :8], net.initial_state(2))
    torch.testing.assert_close(torch.cat([first, net(x[:, 8:], half)[0]], 1), y, atol=1e-5, rtol=1e-5)
    assert set(spikes_of(net, x)) == {"0.1"}
    again = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    assert torch.equal(again(x)[0], y)


def test_a_state_of_another_network_is_refused():
    net = network()
    with pytest.raises(ValueError, match="one part for each of 6 modules, got 2"):
        net(torch.randn(1, 4, 3), (None, None))
    with pytest.raises(ValueError, match="one part for each of 6 modules, got"):
        net(torch.randn(1, 4, 3), torch.zeros(3))


def test_detach_cuts_the_past_and_nothing_else():
    net = network().eval()
    state = net(3 * torch.randn(2, 9, 3))[1]
    nest = {"a": [state, None, 3], "b": state}
    cut = sdn.detach(nest)
    assert same(cut["b"], state)
    assert type(cut["a"][0][1]) is type(state[1])
    assert cut["a"][1:] == [None, 3]
    assert state[1].u.requires_grad
    assert not cut["b"][1].u.requires_grad
    x = (3 * torch.randn(2, 9, 3)).requires_grad_()
    state = net(x)[1]
    net(torch.randn(2, 9, 3), sdn.detach(state))[0].sum().backward()
    assert x.grad is None


def test_neurons_without_states_go_into_torch_s_own_sequential():
    torch.manual_seed(4)
    neuron = sdn.Neuron(sdn.LIF(0.9), 16, return_state=False)
    net = nn.Sequential(nn.Linear(3, 16), neuron, nn.Linear(16, 2))
    x = 3 * torch.randn(2, 40, 3)
    spikes = sdn.Neuron(sdn.LIF(0.9), 16)(net[0](x))[0]
    assert_lively(spikes)
    assert torch.equal(net(x), net[2](spikes))
    assert torch.equal(spikes_of(net, x)["1"], spikes)
    assert torch.equal(neuron.step(net[0](x[:, 0])), spikes[:, 0])
    assert neuron(net[0](x), record="mem").mem.shape == (2, 40, 16)
    assert torch.equal(neuron.with_solver("loop")(net[0](x)), spikes)
    kept = sdn.Sequential(*net)
    assert kept(x)[1] == (None, None, None)
    with pytest.raises(ValueError, match="return_state"):
        sdn.Neuron(sdn.LIF(), 4, return_state="no")


# ---- membranes
def test_membranes_are_those_of_each_neuron_and_the_output_is_the_same():
    net, x = network().eval(), 3 * torch.randn(2, 40, 3)
    first, one, second, _, two, _ = net
    with sdn.record_membranes(net) as found:
        y, state = net(x)
        assert list(found) == ["1", "4"]
        kept = dict(found)
    assert torch.equal(y, net(x)[0])
    wanted = one(first(x), record="mem")
    assert_lively(wanted.spike)
    assert torch.equal(kept["1"].mem, wanted.mem)
    more = two(second(wanted.spike), record="mem")
    assert_lively(more.spike)
    assert torch.equal(kept["4"].mem, more.mem)
    assert torch.equal(kept["4"].spike, more.spike)
    assert same(kept["4"].state, state[4])
    assert found == kept, "the last call outside does not count"


def test_a_loss_on_the_membrane_reaches_the_parameters_and_spikes_do_too():
    net, x = network().eval(), 3 * torch.randn(2, 40, 3)
    with sdn.record_membranes(net) as found:
        net(x)
    found["4"].mem.square().mean().backward()
    assert net[0].weight.grad.any()
    assert net[5].weight.grad is None
    by_hand = [p.grad.clone() for p in (net[0].weight, net[2].weight)]
    net.zero_grad()
    spikes = net[1](net[0](x))[0]
    net[4](net[2](spikes), record="mem").mem.square().mean().backward()
    for ours, wanted in zip((net[0].weight, net[2].weight), by_hand, strict=True):
        torch.testing.assert_close(ours.grad, wanted)


def test_the_model_is_left_as_it_was_even_when_the_context_fails():
    net = network()
    mine = net[4].forward = functools.partial(net[4].forward)
    before = {name: dict(part.__dict__) for name, part in net.named_modules()}
    with pytest.raises(ValueError, match="one part for each of 6 modules"), sdn.record_membranes(net):
        net(torch.randn(1, 4, 3), (None,))
    assert {name: part.__dict__ for name, part in net.named_modules()} == before
    assert net[4].forward is mine


def test_copies_made_meanwhile_are_networks_of_their_own():
    net, x = network().eval(), 3 * torch.randn(2, 40, 3)
    with sdn.record_membranes(net) as found:
        y, _ = net(x)
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
        first = found["1"]
    for other in copies:
        assert torch.equal(other(x)[0], y)
        other[0].weight.data.mul_(0.1)
        assert not torch.equal(other(x)[0], y)
    assert found["1"] is first
    assert torch.equal(net(x)[0], y)


def test_contexts_may_close_in_any_order():
    net, x = network().eval(), 3 * torch.randn(2, 40, 3)
    one, two = sdn.record_membranes(net), sdn.record_membranes(net)
    outer, inner = one.__enter__(), two.__enter__()
    assert isinstance(net(x)[0], torch.Tensor)
    assert outer["1"] is inner["1"]
    one.__exit__(None, None, None)
    net(x)
    assert outer["1"] is not inner["1"]
    assert net[1](net[0](x), record="mem").mem.shape == (2, 40, 16)
    two.__exit__(None, None, None)
    assert not net[1]._forward_hooks
    assert not net[1]._forward_pre_hooks


def test_membranes_of_other_networks():
    x = 3 * torch.randn(2, 30, 3)
    plain = nn.Sequential(nn.Linear(3, 8), sdn.Neuron(sdn.LIF(0.9), 8, return_state=False), nn.Linear(8, 2))
    with sdn.record_membranes(plain) as found:
        assert plain(x).shape == (2, 30, 2)
        assert plain[1].step(x[:, 0] @ plain[0].weight.T).shape == (2, 8)
    assert found["1"].mem.shape == (2, 1, 8)
    model = SpikingSSM(3, 4, 16, 2, solver="fused").eval()
    with sdn.record_membranes(model) as found:
        logits, _ = model(x)
    assert torch.equal(logits, model(x)[0])
    spikes = spikes_of(model, x)
    assert list(found) == list(spikes)
    for name, trajectory in found.items():
        assert trajectory.mem.shape == (2, 30, 16)
        assert torch.equal(trajectory.spike, spikes[name])
    neuron = sdn.Neuron(sdn.LIF(), 3)
    with sdn.record_membranes(neuron) as found:
        neuron(x)
    assert torch.equal(found["neuron"].mem, neuron(x, record="mem").mem)


def test_a_layer_that_was_not_run_is_named():
    net = network()
    with sdn.record_membranes(net) as found:
        pass
    with pytest.raises(KeyError, match=r"1 was not run; call the model inside `with record_membranes"):
        _ = found["1"]
    with pytest.raises(KeyError, match=r"no layer is named '7'; there are 1"):
        _ = found["7"]
    assert dict(found) == {}
    assert "1" not in found


def test_models_without_a_membrane_are_refused():
    with (
        pytest.raises(ValueError, match=r"Linear holds no sdn\.Neuron, so there is no membrane"),
        sdn.record_membranes(nn.Linear(2, 2)),
    ):
        pass
    with (
        pytest.raises(
            ValueError, match=r"record_membranes: what torch\.compile gives cannot be watched; give and call"
        ),
        sdn.record_membranes(torch.compile(network())),
    ):
        pass
    net = network(solver="parallel")
    with (
        pytest.raises(ValueError, match="1 runs by Parallel, which keeps no membrane; set its solver to 'fused'"),
        sdn.record_membranes(net),
    ):
        pass
