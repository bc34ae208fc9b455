"""A step in plain tensors is the network: spikes equal, logits up to rounding; and 8 bits are what they say."""

import copy
import pickle

import numpy as np
import pytest
import torch
from streams import BATCH, NETWORKS, made, steps_of

from spikingssm import RSNN
from spikingssm.measures.spikes import spikes_of
from spikingssm.streaming.int8 import in_int8
from spikingssm.streaming.stream import Stream
from spikingssm.streaming.tensors import TensorStep


def run(step, steps, tokens):
    """Logits (B, L, O), spikes by layer (B, L, H), and the states after it."""
    states, logits, spikes = step.initial_state(len(steps)), [], []
    for x in torch.from_numpy(steps).unbind(1):
        answer, *rest = step(x if tokens else x.float(), *states)
        states, fired = tuple(rest[: len(states)]), rest[len(states) :]
        logits.append(answer)
        spikes.append(fired)
    layers = [torch.stack(each, 1) for each in zip(*spikes, strict=True)]
    return torch.stack(logits, 1), dict(zip(step.spike_names, layers, strict=True)), states


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network_over_the_whole_sequence(name):
    model, x = made(name)
    exact = model if name.startswith(("rsnn", "s5rf")) else model.with_solver("fused")
    with torch.no_grad():
        found, spikes, _ = run(TensorStep(model.plan()), steps_of(model, x), x.ndim == 2)
        whole, _ = exact(x)
    whole = whole if whole.ndim == 3 else whole.unsqueeze(1)
    np.testing.assert_allclose(found[:, -whole.shape[1] :], whole, atol=1e-5, rtol=1e-5)
    wanted = spikes_of(exact, x)
    assert list(spikes) == list(wanted)
    for layer, each in wanted.items():
        assert torch.equal(spikes[layer], each.to(spikes[layer].dtype)), layer
    rate = float(torch.cat([each.flatten() for each in wanted.values()]).mean())
    assert 0.005 < rate < 0.6


def test_states_are_those_of_the_compiled_step():
    model, x = made("rsnn each, two layers, bias")
    stream = model.compile_step()
    at = stream.initial_state(BATCH)
    stream.run(steps_of(model, x), at)
    step = TensorStep(model.plan())
    with torch.no_grad():
        _, _, states = run(step, steps_of(model, x), False)
    for name, found, part in zip(step.state_names, states, step.plan.states.values(), strict=True):
        mine = (at.values if part.array == "s" else at.sums)[:, part.start : part.start + part.size]
        np.testing.assert_allclose(found, mine, atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["ssm", "s5rf turned, all skips", "rsnn"])
def test_8_bits_are_the_network_with_rounded_weights(name):
    model, x = made(name)
    plan = model.plan()
    small, told = in_int8(plan)
    weights = [call.arguments[1] for call in plan.calls if call.word == "mapped"]
    assert len(told) == len(weights)
    assert small.sizes["q"] >= sum(part.size for part in weights)
    with torch.no_grad():
        rounded = TensorStep(plan)
        for part in weights:
            weight = getattr(rounded, f"w{part.start}")  # (inputs, outputs)
            scale = weight.abs().amax(0).clamp_min(1e-30) / 127
            weight.copy_((weight / scale).round() * scale)
        wanted, spikes, _ = run(rounded, steps_of(model, x), False)
        found, mine, _ = run(TensorStep(small), steps_of(model, x), False)
        exact, _, _ = run(TensorStep(plan), steps_of(model, x), False)
    assert 1e-6 < (found - exact).abs().max() < 0.5
    np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-4)
    assert all(torch.equal(mine[layer], spikes[layer]) for layer in spikes)
    stream = Stream(small, "small")
    state = stream.initial_state(BATCH)
    np.testing.assert_allclose(stream.run(steps_of(model, x), state), found, atol=1e-5, rtol=1e-5)
    counts = [int(each.sum()) for each in mine.values()]
    assert state.counts.sum(0).tolist() == counts


def test_what_8_bits_cost_is_measured():
    model = RSNN(2, 3, 8)
    with torch.no_grad():
        model.readout.weight.zero_()
        model.readout.weight[0, :4] = torch.tensor([1.0, 0.5, -0.25, 0.001])
    *_, whole = in_int8(model.plan())[1]
    assert (whole.inputs, whole.outputs, whole.saturated) == (8, 3, 0)
    q = np.array([127, 64, -32, 0]) / 127  # 63.5 and -31.75 are rounded, .127 is lost
    weights = np.array([1, 0.5, -0.25, 0.001])
    assert whole.error == pytest.approx(np.sqrt(np.sum((weights - q) ** 2) / np.sum(weights**2)), rel=1e-4)
    assert whole.zeros == 21 / 24
    *_, cut = in_int8(model.plan(), reach=0.4)[1]
    assert cut.saturated == 2 / 24
    for reach in (0, 1.5):
        with pytest.raises(ValueError, match=rf"reach must be in \(0, 1\], got {reach}"):
            in_int8(model.plan(), reach)


def test_it_is_copied_pickled_and_moved_as_any_module():
    model, x = made("ssm")
    step = model.tensor_step()
    first = torch.from_numpy(steps_of(model, x)[:, 0])
    with torch.no_grad():
        wanted = step(first, *step.initial_state(BATCH))
        for other in (copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
            found = other(first, *other.initial_state(BATCH))
            assert all(map(torch.equal, found, wanted))
    step.to("meta")
    assert step(first.to("meta"), *step.initial_state(BATCH))[0].shape == (3, 4)


def test_it_is_of_the_weights_of_its_moment():
    model, x = made("rsnn")
    step = model.tensor_step()
    first = torch.from_numpy(steps_of(model, x)[:, 0])
    states = step.initial_state(BATCH)
    with torch.no_grad():
        before = step(first, *states)[2]
        model.layers[0].input.weight.add_(1)
        assert torch.equal(step(first, *states)[2], before)
        assert not torch.equal(model.tensor_step()(first, *states)[2], before)
