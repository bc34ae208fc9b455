"""A stream answers as `predict` answers for the same as one sequence, and however it is cut."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

import spikingssm
from spikingssm import RSNN, SpikingSSM
from spikingssm.datasets.audio import tones
from spikingssm.datasets.inputs import Audio, Numbers, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.prepared import Prepared
from spikingssm.datasets.resampling import Resampler
from spikingssm.datasets.sequences import read_sequences
from spikingssm.datasets.sources import open_source
from spikingssm.datasets.targets import LabelTargets, NumberTargets
from spikingssm.experiments import listening
from spikingssm.experiments.listening import Listener, listen, listener_of, steps_of
from spikingssm.experiments.trained import TrainedModel
from spikingssm.streaming.stream import StreamState
from spikingssm.tasks import (
    Classification,
    EveryStepClassification,
    Forecast,
    LanguageModel,
    MultiLabel,
    Regression,
    StepClassification,
)

SSM = {"d_model": 12, "n_layers": 2, "d_state": 6, "solver": "fused"}
STEPS = 151
NUMBERS = Numbers(divide=2.0, mean=(0.3, -0.2), std=(0.5, 0.4), scale=1.5)


def ssm(**more):
    return SpikingSSM(2, 4, **SSM, **more)


def rsnn():
    return RSNN(2, 4, [12, 20], pool="each", bias=True, mask=0.3)


def numbers(horizon=0, steps=False):
    return NumberTargets((1.0, 2.0, 3.0, 4.0), (0.5, 2.0, 1.0, 3.0), steps, horizon)


FORECAST = NumberTargets((1.0, 2.0), (0.5, 2.0), True, 3)
CASES = {
    "numbers": (ssm, NUMBERS, Classification(), None),
    "frames": (lambda: ssm(patch=5), NUMBERS, Classification(), None),
    "last": (lambda: ssm(pool="last"), Numbers(), Classification(), None),
    "labels": (ssm, NUMBERS, MultiLabel(), LabelTargets()),
    "regression": (ssm, NUMBERS, Regression(), numbers()),
    "mean of each step": (rsnn, NUMBERS, EveryStepClassification(skip=7), None),
    "each step": (rsnn, NUMBERS, StepClassification(), None),
    "regression, mean of each step": (rsnn, NUMBERS, Regression(skip=3, asked=numbers()), numbers()),
    "regression of each step": (
        rsnn, NUMBERS, Regression(asked=numbers(steps=True)), numbers(steps=True),
    ),
    "forecast": (
        lambda: RSNN(2, 2, [12, 20], pool="each"), NUMBERS, Forecast(horizon=3, asked=FORECAST), FORECAST,
    ),
    "frames of an ear": (ssm, Spikes(8000, 2, "fixed", STEPS), Classification(), None),
    "sound": (lambda: SpikingSSM(1, 4, **SSM, patch=4), Audio(8000, 0.1, 1, 300), Classification(), None),
    "half of the sound": (lambda: SpikingSSM(1, 4, **SSM, patch=4), Audio(8000, 0.1, 2, 300), Classification(), None),
    "text": (lambda: SpikingSSM(1, 4, **SSM, vocab=256), Tokens("bytes", 1, 200), Classification(), None),
    "tokens": (lambda: SpikingSSM(1, 4, **SSM, vocab=256), Tokens(length=200), Classification(), None),
    "language": (lambda: SpikingSSM(1, 9, **SSM, vocab=9, pool="each"), Tokens(length=200), LanguageModel(), None),
}  # fmt: skip


def made(name):
    """A trained model, in all but its training."""
    network, inputs, task, targets = CASES[name]
    torch.manual_seed(3)
    network, tokens = network().eval(), isinstance(inputs, Tokens)
    d_input = 1 if tokens else network.d_input
    vocab = network.vocab if tokens else None
    length = 150 if name == "half of the sound" else 300 if isinstance(inputs, Audio) else STEPS
    interface = Interface(name, length, d_input, network.d_output, inputs, vocab, targets=targets)
    return TrainedModel(network, interface, task, {}, {}, Path())


def data(model, seed=0):
    """One raw sequence; sound of a length that is no whole number of frames."""
    rng, inputs = np.random.default_rng(seed), model.interface.inputs
    if isinstance(inputs, Tokens):
        letters = "".join(rng.choice(list("abc xyzß\n\x01"), STEPS))
        return letters if inputs.text else rng.integers(0, model.interface.vocab, STEPS)
    if isinstance(inputs, Audio):
        return rng.integers(-9000, 9000, 293).astype(np.int16)
    if isinstance(inputs, Spikes):
        return (rng.random((STEPS, 2)) < 0.4).astype(np.uint8)
    return rng.standard_normal((STEPS, 2))


def cut(x, size):
    return [x[at : at + size] for at in range(0, len(x), size)]


def same(one, other):
    """Whether two answers are the same, bit for bit."""
    if one is None or other is None:
        return one is other
    return one.value == other.value and np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize("name", CASES)
def test_the_last_answer_is_that_of_predict(name):
    model = made(name)
    x = data(model)
    whole = model.predict(x[None] if isinstance(x, np.ndarray) and x.ndim == 2 else x)
    found = [*model.listen([x], every=40 if model.interface.inputs.kind != "audio" else 0.01)]
    last, each = found[-1], whole.logits.ndim == 3
    assert len(found) >= 3
    logits = whole.logits[0, -1] if each else whole.logits[0]
    np.testing.assert_allclose(last.answer.logits, logits.numpy(), atol=2e-5, rtol=1e-5)
    assert last.total == {layer: int(count[0]) for layer, count in whole.layers.items()}
    assert sum(last.total.values()) > 0
    assert last.total == {layer: sum(said.spikes[layer] for said in found) for layer in last.total}
    label = whole.labels[0][-1] if each and model.interface.targets is None else whole.labels[0]
    if isinstance(model.interface.targets, NumberTargets):
        values = label[-1] if each else label
        np.testing.assert_allclose(last.answer.value, values.numpy(), atol=1e-4)
        assert last.answer.probabilities is None
        return
    shares = whole.probabilities[0, -1] if each else whole.probabilities[0]
    np.testing.assert_allclose(last.answer.probabilities, shares.numpy(), atol=1e-5)
    names = whole.names[0] if whole.names is not None else model.interface.class_name(int(label))
    assert last.answer.value == names


@pytest.mark.parametrize("name", CASES)
def test_how_blocks_are_cut_changes_nothing(name):
    model = made(name)
    x = data(model)
    sound = isinstance(model.interface.inputs, Audio)
    for options in ({"every": 0.003} if sound else {"every": 13}, {"reset": 0.009} if sound else {"reset": 33}):
        whole = [*model.listen([x], **options)]
        assert len(whole) > 3
        for size in (1, 7, 1000):
            parts = [*model.listen(cut(x, size), **options)]
            assert [said[:3] + said[5:] for said in parts] == [said[:3] + said[5:] for said in whole]
            assert all(same(a.answer, b.answer) for a, b in zip(parts, whole, strict=True))
            assert all(same(a.now, b.now) for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("name", ["numbers", "frames", "mean of each step", "each step", "tokens"])
def test_a_window_is_a_sequence_of_its_own(name):
    model, size = made(name), 43
    x = data(model)
    found = [*model.listen(cut(x, 10), reset=size)]
    assert [said.window for said in found] == [0, 1, 2, 3]
    assert [said.step for said in found] == [43, 86, 129, 151]
    for said, part in zip(found, cut(x, size), strict=True):
        whole = model.predict(part[None])
        logits = whole.logits[0, -1] if whole.logits.ndim == 3 else whole.logits[0]
        np.testing.assert_allclose(said.answer.logits, logits.numpy(), atol=2e-5, rtol=1e-5)
        assert sum(said.spikes.values()) == int(whole.spikes[0])


def test_answers_come_behind_whole_frames_and_at_the_end():
    model = made("frames")  # of 5 steps
    x = data(model)
    assert [said.step for said in model.listen([x], every=33)] == [35, 70, 100, 135, 151]
    assert [said.step for said in model.listen([x[:100]], every=50)] == [50, 100]
    assert [said.step for said in model.listen([x[:20]], every=2)] == [5, 10, 15, 20]
    assert [said.step for said in model.listen([x[:90]], every=20, reset=42)] == [20, 40, 42, 62, 82, 84, 90]
    assert [said.step for said in model.listen([x[:3]])] == [3]
    assert [*model.listen([x[:0]])] == [*model.listen([])] == []


def test_the_answer_so_far_is_that_of_the_part_so_far():
    model = made("mean of each step")  # which leaves 7 steps out
    x = data(model)
    found = [*model.listen([x], every=5)]
    assert found[0].answer is None
    assert found[0].now is not None
    for said in found[1:]:
        logits = model.predict(x[None, : said.step]).logits[0]
        np.testing.assert_allclose(said.answer.logits, logits.numpy(), atol=1e-5, rtol=1e-5)
        _, state = model(*model.prepare(x[None, : said.step - 1])[:1])
        now, _ = model.step(model.prepare(x[None])[0][:, said.step - 1], state)
        np.testing.assert_allclose(said.now.logits, now[0].detach().numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_sound_of_another_rate_is_that_of_predict(tmp_path, size):
    model = spikingssm.load_model("spoken-digits")  # of 8 kHz, in frames of 16 samples
    clip = tones(10, [3001], 8000, 3001)[0][0] / 2**15
    two = np.stack([resample_poly(clip, 441, 80)] * 2, 1) * [0.9, 0.4]
    soundfile.write(tmp_path / "x.flac", two[:2000] if size < 10 else two, 44_100)
    whole = model.predict(read_sequences(tmp_path / "x.flac", model.interface.inputs).x)
    source = open_source(str(tmp_path / "x.flac"), model.interface)
    blocks = [part for block in source.blocks for part in cut(block, size)]
    found = [*listen(listener_of(model, source.rate, 0.02, loud=source.loud), blocks)]
    np.testing.assert_allclose(found[-1].answer.logits, whole.logits[0].numpy(), atol=1e-5, rtol=1e-5)
    assert found[-1].total == {layer: int(count[0]) for layer, count in whole.layers.items()}
    assert found[0].seconds == pytest.approx(0.02)
    assert found[-1].step == -(-len(two[:2000] if size < 10 else two) * 80 // 441)


def held(thing):
    """Bytes of all arrays that a listener keeps, and of those that its parts keep."""
    if isinstance(thing, np.ndarray):
        return (thing if thing.base is None else thing.base).nbytes
    if not isinstance(thing, (Listener, Prepared, Resampler, StreamState)):
        return 0
    return sum(map(held, vars(thing).values()))


def test_what_is_kept_does_not_grow():
    model = made("half of the sound")
    listener, sizes = listener_of(model, 44_100, every=0.05, loud=True), []
    block = np.random.default_rng(0).uniform(-0.5, 0.5, 4410)
    for _ in range(30):
        assert sum(1 for _ in listener.hear(block)) >= 1
        sizes.append(held(listener))
    assert max(sizes) < 20_000
    assert min(sizes) > 500
    assert listener.steps > 10_000


@pytest.mark.parametrize("name", ["mean of each step", "language"])
def test_long_blocks_are_answered_in_parts(monkeypatch, name):
    model = made(name)
    x = data(model)
    [*_, whole] = model.listen([x])
    monkeypatch.setattr(listening, "LOGITS", 30)
    sizes, listener = [], listener_of(model)
    run = listener._stream.run
    listener._stream.run = lambda frames, state: sizes.append(len(frames)) or run(frames, state)
    [*_, found] = listen(listener, [x])
    assert same(whole.answer, found.answer)
    assert max(sizes) == 30 // model.interface.d_output


def test_a_block_that_is_refused_changes_nothing():
    model = made("numbers")
    x = data(model)
    listener = listener_of(model, every=1000)
    assert not [*listener.hear(x[:50])]
    bad = x[50:].copy()
    bad[30, 1] = np.nan
    for block, says in (
        (bad, "step 80 of the stream is NaN or infinite"),
        (x[:, :1], r"a block must be \(steps, 2\) for this network, got \(151, 1\)"),
        (np.array([["a", "b"]]), "a block must hold real numbers, got dtype <U1"),
        ("words", "text is for networks that read bytes"),
    ):
        with pytest.raises(ValueError, match=says):
            [*listener.hear(block)]
    assert not [*listener.hear(x[50:])]
    [after] = listener.end()
    [whole] = model.listen([x], every=1000)
    assert same(after.answer, whole.answer)
    assert after.total == whole.total


def test_blocks_of_another_kind_are_named():
    for name, block, says in (
        ("sound", np.array([0.5, 1.5]), r"samples must be int16, or floats in \[-1, 1\]; got float64 up to 1.5"),
        ("sound", np.array([3, 4]), r"samples must be int16, .* got int64 up to 4"),
        ("sound", np.array([0.5, np.inf]), "sample 1 of the stream is NaN or infinite"),
        ("sound", np.zeros((5, 2)), r"a block of sound must be \(samples,\), got \(5, 2\); average its channels"),
        ("tokens", np.array([1, 256]), "step 1 is token 256; this network has 0 to 255"),
        ("tokens", np.array([-1]), "step 0 is token -1; this network has 0 to 255"),
        ("tokens", np.array([0.5]), r"must hold token numbers \(steps,\), got float64"),
        ("tokens", "words", "text is for networks that read bytes"),
        ("frames of an ear", np.zeros(9), "hears through a model of the ear, which needs the whole sound"),
    ):
        with pytest.raises(ValueError, match=says):
            [*made(name).listen([block])]


def test_samples_of_a_file_beyond_one_are_cut():
    model, x = made("sound"), np.linspace(-1.4, 1.4, 300)
    [whole] = model.listen([np.clip(x, -1, 1 - 2**-15)])
    [found] = listen(listener_of(model, loud=True), [x])
    assert same(whole.answer, found.answer)


def test_what_cannot_be_streamed_is_refused():
    both = made("numbers")
    both.network = ssm(bidirectional=True).eval()
    with pytest.raises(NotImplementedError, match="a bidirectional network needs the steps to come") as error:
        both.listen([])
    assert error.value.__notes__ == ["`predict` runs this network over whole sequences."]
    for inputs, pairs, says in (
        (Numbers(order=tuple(range(STEPS))), False, "reads its 151 steps in another order than they come"),
        (Tokens(), True, "compares two sequences, which are no stream"),
    ):
        model = made("numbers")
        model.interface = Interface("x", STEPS, 2, 4, inputs, pairs=pairs)
        with pytest.raises(ValueError, match=says):
            model.listen([])
    for options, says in (
        ({"every": 0}, "every must be above 0 steps, got 0"),
        ({"reset": float("nan")}, "reset must be above 0 steps, got nan"),
        ({"every": 1.5}, "every must be whole steps for a stream of no known rate, got 1.5"),
        ({"rate": -1}, "rate must be above 0 and at most 192000 a second, got -1"),
        ({"rate": 1, "reset": 0.1}, "reset of 0.1 seconds is less than a step at 1 Hz"),
    ):
        with pytest.raises(ValueError, match=says):
            made("numbers").listen([], **options)
    with pytest.raises(ValueError, match=r"rate must be a whole number of samples a second, got 8000\.5"):
        made("sound").listen([], rate=8000.5)


def test_lengths_are_seconds_where_a_rate_is_known():
    assert steps_of("every", 0.5, 16_000) == 8000
    assert steps_of("every", 100, None) == 100
    assert steps_of("every", None, 5) is None
    found = [*made("numbers").listen([data(made("numbers"))], rate=50)]
    assert [said.seconds for said in found] == [1.0, 2.0, 3.0, 3.02]
    assert [said.step for said in made("numbers").listen([data(made("numbers"))])] == [100, 151]
