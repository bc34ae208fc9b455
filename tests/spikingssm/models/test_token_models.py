"""Encoders, vocabularies, pairs and frames: what a network reads and what it answers, against formulas written out."""

import math

import pytest
import torch
from torch import nn

from spikingssm import SpikingSSM
from spikingssm.datasets import Batch
from spikingssm.layers import AdaptiveVocabulary, Frames, PairDecoder, TokenEncoder, Vocabulary
from spikingssm.tasks import LanguageModel

SMALL = {"d_model": 12, "n_layers": 2, "d_state": 8, "solver": "fused", "dropout": 0.0, "dt_min": 0.01, "dt_max": 0.5}


def language_model(vocab: int = 30, **options) -> SpikingSSM:
    return SpikingSSM(1, vocab, vocab=vocab, pool="each", **{**SMALL, **options}).double().eval()


def test_a_frame_is_a_linear_map_of_its_steps_and_the_last_is_filled_with_zeros() -> None:
    frames, x = Frames(2, 5, patch=4), torch.randn(3, 10, 2)
    out = frames(x)
    assert out.shape == (3, 3, 5)
    torch.testing.assert_close(out[:, 1], x[:, 4:8].reshape(3, 8) @ frames.weight.T + frames.bias)
    last = torch.cat([x[:, 8:], torch.zeros(3, 2, 2)], 1).reshape(3, 8)
    torch.testing.assert_close(out[:, 2], last @ frames.weight.T + frames.bias)
    torch.testing.assert_close(Frames(2, 5)(x).shape, torch.Size([3, 10, 5]))


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_network_of_frames_streams_frame_by_frame(pool) -> None:
    model = SpikingSSM(2, 4, patch=4, pool=pool, **SMALL).double().eval()
    x = 2 * torch.randn(3, 24, 2).double()
    whole, end = model(x)
    part, state = model(x[:, :8])
    part, state = model(x[:, 8:], state)
    torch.testing.assert_close(part, whole)
    state = None
    for frame in x.split(4, 1):
        stepped, state = model.step(frame, state)
    torch.testing.assert_close(stepped, whole)
    torch.testing.assert_close(state.blocks[0].ssm.x, end.blocks[0].ssm.x)
    with pytest.raises(ValueError, match=r"a chunk of 6 steps is no whole number of frames of 4"):
        model(x[:, :6], state)
    with pytest.raises(ValueError, match=r"a step must be \(batch, 4, 2\), got shape \(3, 2\)"):
        model.step(x[:, 0])


def test_lengths_count_steps_not_frames() -> None:
    model = SpikingSSM(1, 4, patch=4, bidirectional=True, **SMALL).double().eval()
    x, lengths = torch.randn(2, 16, 1).double(), torch.tensor([16, 6])
    x[1, 6:] = 0
    padded, _ = model(x, lengths=lengths)
    alone, _ = model(x[1:, :8])
    torch.testing.assert_close(padded[1:], alone)
    x[1, 8:] = 7.0  # behind the last frame that holds a valid step
    torch.testing.assert_close(model(x, lengths=lengths)[0], padded)


def test_tokens_are_rows_of_a_table() -> None:
    encoder, x = TokenEncoder(7, 5), torch.tensor([[0, 6, 3]])
    torch.testing.assert_close(encoder(x)[0, 1], encoder.table.weight[6] * math.sqrt(5))
    with pytest.raises(ValueError, match=r"tokens from 0 to 7, this model has a vocabulary of 7: 0 to 6"):
        encoder(torch.tensor([[0, 7]]))


def test_dropout_of_tokens_drops_a_type_everywhere() -> None:
    encoder = TokenEncoder(50, 4, dropout=0.5)
    x = torch.arange(50).repeat(1, 3)
    out = encoder(x).reshape(3, 50, 4)
    assert torch.equal(out[0], out[1])
    gone = (out[0] == 0).all(-1)
    assert 10 < gone.sum() < 40
    torch.testing.assert_close(out[0][~gone], 2 * encoder.eval()(x)[0, :50][~gone])


def test_a_pair_is_judged_by_both_and_their_difference_and_product() -> None:
    decoder, x = PairDecoder(3, 2), torch.randn(4, 3)
    a, b = x[[0, 2]], x[[1, 3]]
    joined = torch.cat([a, b, a - b, a * b], 1)
    inner = joined @ decoder.inner.weight.T + decoder.inner.bias
    by_hand = (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))) @ decoder.outer.weight.T + decoder.outer.bias
    torch.testing.assert_close(decoder(x), by_hand)


def test_a_model_of_pairs_runs_each_text_alone_and_streams() -> None:
    model = SpikingSSM(1, 2, vocab=9, pairs=True, **SMALL).double().eval()
    x, lengths = torch.randint(0, 9, (3, 2, 20)), torch.tensor([[20, 7], [3, 20], [11, 12]])
    logits, _ = model(x, lengths=lengths)
    assert logits.shape == (3, 2)
    features = [
        model.features(x[:, i : i + 1].expand(-1, 2, -1), None, lengths[:, i : i + 1].expand(-1, 2))[0][::2]
        for i in (0, 1)
    ]
    torch.testing.assert_close(model.decoder(torch.stack(features, 1).flatten(0, 1)), logits)
    whole, state = model(x)[0], model.initial_state(3)
    for t in range(20):
        stepped, state = model.step(x[:, :, t], state)
    torch.testing.assert_close(stepped, whole)
    with pytest.raises(ValueError, match=r"x must be integers \(batch, 2, length\)"):
        model(x[:, 0])


@pytest.mark.parametrize("options", [{}, {"cutoffs": [10, 20], "div_value": 2.0}], ids=["full", "adaptive"])
def test_a_language_model_is_causal_and_streams(options) -> None:
    model, x = language_model(**options), torch.randint(0, 30, (2, 25))
    logits, _ = model(x)
    assert logits.shape == (2, 25, 30)
    other = x.clone()
    other[:, 12] = (x[:, 12] + 1) % 30
    assert torch.equal(model(other)[0][:, :12], logits[:, :12])
    assert not torch.equal(model(other)[0][:, 12:], logits[:, 12:])
    first, state = model(x[:, :9])
    second, _ = model(x[:, 9:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), logits)
    state, steps = None, []
    for t in range(25):
        out, state = model.step(x[:, t], state)
        steps.append(out)
    torch.testing.assert_close(torch.stack(steps, 1), logits)


@pytest.mark.parametrize("options", [{}, {"cutoffs": [10, 20], "div_value": 2.0}], ids=["full", "adaptive"])
def test_nll_is_that_of_the_distribution(options) -> None:
    model = language_model(**options)
    features, labels = torch.randn(40, 12).double(), torch.arange(40) % 30
    logs = model.decoder(features).log_softmax(-1)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(40).double())
    nll = model.decoder.nll(features, labels)
    torch.testing.assert_close(nll, -logs[torch.arange(40), labels].to(nll.dtype), atol=1e-5, rtol=1e-5)


def test_input_and_output_share_their_table() -> None:
    model = language_model()
    assert [tuple(p.shape) for n, p in model.named_parameters() if "blocks" not in n] == [(30, 12), (30,)]
    torch.testing.assert_close(model.decoder.embed(torch.tensor([[4]]))[0, 0], model.decoder.table[4] * math.sqrt(12))


def test_an_adaptive_embedding_reads_the_tables_of_its_softmax() -> None:
    vocabulary = AdaptiveVocabulary(30, 16, [10, 20], div_value=4.0)
    out = vocabulary.embed(torch.tensor([[3, 12, 29]]))[0]
    head, tail = vocabulary.softmax.head.weight, vocabulary.softmax.tail
    torch.testing.assert_close(out[0], 4 * head[3])
    torch.testing.assert_close(out[1], 4 * (tail[0][1].weight[2] @ tail[0][0].weight))
    torch.testing.assert_close(out[2], 4 * (tail[1][1].weight[9] @ tail[1][0].weight))
    assert [tuple(t[1].weight.shape) for t in tail] == [(10, 4), (10, 1)]
    big = AdaptiveVocabulary(4000, 256, [1000, 2000])
    start = big.embed(torch.arange(4000).unsqueeze(0))[0]
    for part in start.split([1000, 1000, 2000]):
        assert part.var().item() == pytest.approx(1, abs=0.15)


def test_the_published_size_is_a_table_of_73_million() -> None:
    with torch.device("meta"):
        vocabulary = AdaptiveVocabulary(267735, 1024, [20000, 40000, 200000])
    assert sum(p.numel() for p in vocabulary.parameters()) == 73057171 - 35766272


@pytest.mark.parametrize("options", [{}, {"cutoffs": [10, 20], "div_value": 2.0}], ids=["full", "adaptive"])
def test_the_task_is_mean_nll_of_the_next_tokens_and_perplexity(options) -> None:
    model, task = language_model(**options), LanguageModel()
    x = torch.randint(0, 30, (2, 15))
    y = torch.roll(x, -1, 1)
    y[0, 9:] = -100
    found = task.run(model, Batch(x, y), training=False)
    logs = model(x)[0].log_softmax(-1)
    known = [(b, t) for b in range(2) for t in range(15) if y[b, t] >= 0]
    mean = -sum(logs[b, t, y[b, t]].item() for b, t in known) / len(known)
    assert found.count == len(known) == 24
    assert found.loss.item() == pytest.approx(mean, rel=1e-5)
    metric = task.metrics(30)["perplexity"]
    metric.update(*found.updates["perplexity"])
    assert metric.compute().item() == pytest.approx(math.exp(mean), rel=1e-5)
    nothing = task.run(model, Batch(x, torch.full_like(y, -100)))
    assert nothing.loss == 0


def test_a_language_model_learns_a_rule() -> None:
    torch.manual_seed(0)
    model = language_model(8, d_model=16).float().train()
    optimizer, task = torch.optim.Adam(model.parameters(), 0.02), LanguageModel()
    x = (torch.arange(40) * 3 + torch.arange(8).unsqueeze(1)) % 8
    for _ in range(60):
        loss = task.run(model, Batch(x[:, :-1], x[:, 1:])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.3 < math.log(8)


def test_twice_the_time_step_reads_every_second_sample() -> None:
    """A layer of rate r on a held input is the layer of rate 1 on the same input held r times as long."""
    model = SpikingSSM(1, 3, pool="last", **SMALL).double().eval()
    half = model.with_rate(2.0)
    x = torch.randn(2, 40, 1).double()
    held = x.repeat_interleave(2, 1)
    one = model.blocks[0].layer.ssm
    other = half.blocks[0].layer.ssm
    assert other.log_dt is one.log_dt
    assert (one.rate, other.rate) == (1.0, 2.0)
    through = one.D * model.encoder(x)
    fine = one(model.encoder(held))[0][:, 1::2] - through
    torch.testing.assert_close(other(model.encoder(x))[0] - through, fine)
    assert not torch.allclose(one(model.encoder(x))[0] - through, fine)
    with pytest.raises(ValueError, match="rate must be > 0, got 0"):
        model.with_rate(0)


def test_frames_of_half_the_samples_read_the_same_signal() -> None:
    """A held signal at the full rate and the signal itself at half the rate are one to a network of frames."""
    model = SpikingSSM(2, 3, patch=8, **SMALL).double().eval()
    half, x = model.with_rate(2), torch.randn(2, 40, 2).double()
    torch.testing.assert_close(half(x)[0], model(x.repeat_interleave(2, 1))[0])
    assert (half.patch, model.patch) == (4, 8)
    assert half.blocks[0].layer.ssm.log_dt is model.blocks[0].layer.ssm.log_dt
    assert half.blocks[0].layer.ssm.rate == 1
    for rate in (3, 1.5):
        with pytest.raises(ValueError, match=f"a rate must divide the frame of 8 steps, got {rate}"):
            model.with_rate(rate)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patch": 0}, "patch must be at least 1 step, got 0"),
        ({"patch": 2, "pool": "each"}, "patch=2 does not go with pool='each'"),
        ({"patch": 2, "vocab": 5}, "patch=2 does not go with tokens"),
        ({"vocab": 5, "pool": "each", "bidirectional": True}, "must not see the token that it is asked for"),
        ({"pairs": True}, "pairs are of token sequences"),
        ({"cutoffs": [3]}, "are a language model's"),
        ({"embedding_dropout": 0.1}, "embedding_dropout=0.1 needs tokens"),
        ({"vocab": 9, "pool": "each", "cutoffs": [5, 3]}, r"must rise between 1 and the vocabulary of 9, got \[5, 3\]"),
        ({"vocab": 9, "pool": "each", "cutoffs": [2, 3, 4]}, "leave no number of d_model 12"),
        ({"vocab": 9, "embedding_dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        SpikingSSM(1, 2, **{**SMALL, **options})


def test_a_task_of_language_needs_a_language_model() -> None:
    x = torch.randint(0, 9, (2, 5))
    with pytest.raises(ValueError, match=r"decoder has no nll.*token data and model.pool=each"):
        LanguageModel().run(SpikingSSM(1, 9, vocab=9, **SMALL), Batch(x, x))
    assert isinstance(language_model().decoder, Vocabulary)
    assert isinstance(SpikingSSM(1, 9, vocab=9, **SMALL).decoder, nn.Linear)


def test_what_lies_behind_the_length_changes_nothing_in_the_last_frame_either() -> None:
    model = SpikingSSM(3, 2, patch=4, bidirectional=True, **SMALL).double().eval()
    for _ in range(10):
        x = 2 * torch.randn(1, 20, 3).double()
        padded, _ = model(x, lengths=torch.tensor([17]))
        torch.testing.assert_close(padded, model(x[:, :17])[0])
        other = x.clone()
        other[:, 17:] += 5
        assert torch.equal(model(other, lengths=torch.tensor([17]))[0], padded)


def test_perplexity_is_nan_where_a_likelihood_is() -> None:
    metric = LanguageModel().metrics(5)["perplexity"]
    metric.update(torch.tensor([1.0, float("nan"), 1.0]))
    assert metric.compute().isnan()
