"""A compiled step is the network: its spikes are those of the whole sequence, and its logits up to rounding."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from streams import BATCH, NETWORKS, SSM, STEPS, language, made, steps_of
from torch import nn
from torch.nn.utils import prune

from spikingssm import RSNN, SpikingSSM
from spikingssm.measures.spikes import spikes_of
from spikingssm.models.base import SequenceModel


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network_over_the_whole_sequence(name):
    model, x = made(name)
    stream = model.compile_step()
    state = stream.initial_state(BATCH)
    found = stream.run(steps_of(model, x), state)
    exact = model if name == "rsnn" or "s5rf" in name else model.with_solver("fused")
    with torch.no_grad():
        whole, _ = exact(x)
    whole = whole.numpy() if whole.ndim == 3 else whole.unsqueeze(1).numpy()
    np.testing.assert_allclose(found[:, -whole.shape[1] :], whole, atol=1e-5, rtol=1e-5)
    spikes = spikes_of(exact, x)
    assert list(spikes) == list(stream.layers)
    for layer, each in spikes.items():
        counts = stream.spikes(state)[layer]
        np.testing.assert_array_equal(counts, each.sum((1, 2)).numpy())
        assert stream.layers[layer] == each.shape[-1]
    rate = sum(float(each.sum()) for each in spikes.values()) / sum(each.numel() for each in spikes.values())
    assert 0.005 < rate < 0.6, rate
    assert state.steps.tolist() == [found.shape[1]] * BATCH


@pytest.mark.parametrize("name", ["ssm", "ssm frames", "s5rf magnitude, refractory", "rsnn each, two layers, bias"])
def test_each_step_is_that_of_the_network_and_blocks_are_steps(name):
    model, x = made(name, seed=1)
    stream, steps = model.compile_step(), steps_of(model, x)
    state, mine, given = stream.initial_state(BATCH), [], None
    whole = stream.run(steps, stream.initial_state(BATCH))
    for number in range(steps.shape[1]):
        mine.append(stream.step(steps[:, number], state))
        frame = x[:, number * model.patch : (number + 1) * model.patch]
        with torch.no_grad():
            logits, given = model.step(frame if model.patch > 1 else frame[:, 0], given)
        np.testing.assert_allclose(mine[-1], logits.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(np.stack(mine, 1), whole)
    pieces, state = [], stream.initial_state(BATCH)
    for part in np.array_split(steps, 4, axis=1):
        pieces.append(stream.run(part, state))
    np.testing.assert_array_equal(np.concatenate(pieces, 1), whole)


def test_streams_are_rows_of_their_own_and_can_be_copied_and_reset():
    model, x = made("ssm")
    stream, steps = model.compile_step(), steps_of(model, x)
    whole = stream.run(steps, stream.initial_state(BATCH))
    alone = [stream.run(steps[row], stream.initial_state()) for row in range(BATCH)]
    np.testing.assert_array_equal(np.stack(alone), whole)
    state = stream.initial_state(BATCH)
    stream.run(steps[:, :50], state)
    kept = state.copy()
    first = stream.run(steps[:, 50:], state)
    np.testing.assert_array_equal(stream.run(steps[:, 50:], kept), first)
    state.reset([1])
    assert state.steps.tolist() == [STEPS, 0, STEPS]
    np.testing.assert_array_equal(stream.run(steps[:, :50], state)[1], whole[1, :50])


def test_one_stream_takes_and_gives_vectors_and_tensors_are_taken():
    model, x = made("rsnn")
    stream = model.compile_step()
    one, other = stream.initial_state(), stream.initial_state()
    for sample in x[0, :20]:
        vector = stream.step(sample, one)
        row = stream.step(sample[None].numpy(), other)
        assert vector.shape == (4,)
        np.testing.assert_array_equal(row, vector[None])


def test_several_threads_may_use_one_stream():
    model, x = made("ssm")
    stream, steps = model.compile_step(), np.repeat(steps_of(model, x), 20, axis=1)
    whole = stream.run(steps, stream.initial_state(BATCH))
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: stream.run(steps, stream.initial_state(BATCH)), range(8))]
    for each in found:
        np.testing.assert_array_equal(each, whole)


def test_weights_are_those_of_the_moment_and_pruned_ones_are_pruned():
    model, x = made("ssm")
    pruned = copy.deepcopy(model)
    prune.random_unstructured(pruned.blocks[0].layer.output, "weight", 0.5)
    stream = pruned.compile_step()
    with torch.no_grad():
        whole, _ = pruned(x)
        before, _ = model(x)
    found = stream.run(steps_of(model, x), stream.initial_state(BATCH))[:, -1]
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-5, rtol=1e-5)
    assert np.abs(found - before.numpy()).max() > 1e-3


def test_silence_for_long_costs_no_time_and_stays_at_rest():
    """States below any normal number are 0."""
    model, x = made("ssm")
    stream = model.compile_step()
    state = stream.initial_state(BATCH)
    stream.run(steps_of(model, x), state)
    stream.run(np.zeros((BATCH, 200_000, 2), np.float32), state)
    tiny = np.abs(state.values[state.values != 0])
    assert not tiny.size or tiny.min() >= np.finfo(np.float32).tiny


def test_a_mean_over_many_steps_keeps_its_digits():
    stream = RSNN(2, 4, 20, pool="mean").eval().compile_step()
    state = stream.initial_state()
    state.sums[0, 0] = 1e9  # a day at 10 kHz
    state.sums[0, 1:5] = 3e9
    logits = stream.step(np.zeros(2, np.float32), state)
    np.testing.assert_allclose(logits, 3.0, rtol=1e-6)
    assert state.sums[0, 0] == 1e9 + 1


def test_what_would_leave_its_array_is_refused():
    stream = made("ssm tokens")[0].compile_step()
    for token in (7, -1, np.nan):
        with pytest.raises(ValueError, match=r"this model has 0 to 6"):
            stream.step(np.array([token], np.float32), stream.initial_state())
    other = made("rsnn")[0].compile_step()
    with pytest.raises(ValueError, match="this state is of another network; make one by initial_state"):
        other.step(np.zeros(2), stream.initial_state())
    model = made("rsnn")[0]
    with torch.no_grad():
        model.readout.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="a weight of this RSNN is NaN or infinite"):
        model.compile_step()


class Louder(RSNN):
    """Answers otherwise than the class that has the plan."""

    def forward(self, x, state=None, lengths=None):
        logits, state = super().forward(x, state, lengths)
        return 2 * logits, state


def test_what_a_plan_does_not_know_is_refused():
    with pytest.raises(NotImplementedError, match="Louder has no compiled step"):
        Louder(2, 4, 8).compile_step()
    model = made("ssm")[0]
    model.blocks[1].register_forward_hook(lambda *_: None)
    with pytest.raises(NotImplementedError, match=r"blocks\.1 has hooks, which a compiled step does not run"):
        model.compile_step()


class Mine(SequenceModel):
    """A model of one's own that says nothing of a plan."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(2, 4)


def test_other_precisions_are_brought_to_float32_and_the_model_is_left_as_it_was():
    model, x = made("rsnn")
    plain = model.compile_step()
    stream = model.double().compile_step()
    assert next(model.parameters()).dtype == torch.float64
    steps = steps_of(model, x)
    one, other = (each.run(steps, each.initial_state(BATCH)) for each in (plain, stream))
    np.testing.assert_array_equal(one, other)


def test_what_cannot_be_compiled_or_does_not_fit_is_named():
    for model, says in (
        (SpikingSSM(2, 4, **SSM, bidirectional=True), "a bidirectional network needs the steps to come, so it has no"),
        (SpikingSSM(1, 4, **SSM, vocab=9, pairs=True), "pairs are two sequences, so it has no compiled step"),
        (language(cutoffs=[4]), r"AdaptiveVocabulary has no compiled step; use model\.step"),
        (Mine(), r"Mine has no compiled step; use model\.step"),
    ):
        with pytest.raises(NotImplementedError, match=says):
            model.compile_step()
    stream = made("ssm")[0].compile_step()
    state = stream.initial_state(2)
    with pytest.raises(ValueError, match=r"a step of 2 streams must be \(2, 2\), got \(2,\)"):
        stream.step(np.zeros(2), state)
    with pytest.raises(ValueError, match=r"steps of 2 streams must be \(2, steps, 2\), got \(5, 2\)"):
        stream.run(np.zeros((5, 2)), state)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        stream.initial_state(0)
    with pytest.raises(ValueError, match="a state became NaN or infinite; look at the input, and reset the state"):
        stream.step(np.full((2, 2), np.nan), state)
    state.reset()
    assert np.isfinite(stream.step(np.zeros((2, 2)), state)).all()
