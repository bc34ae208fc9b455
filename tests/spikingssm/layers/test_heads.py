"""The pools: padding, ragged chunks, precision, and what they refuse."""

import pytest
import torch
from helpers import assert_close

from spikingssm.layers import EachStep, LastStep, MeanOverTime, as_pool


def test_pools_leave_padding_out():
    x, lengths = torch.randn(3, 7, 2, dtype=torch.float64), torch.tensor([7, 1, 4])
    mean, state = MeanOverTime(2)(x, lengths=lengths)
    last, _ = LastStep(2)(x, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        assert_close(mean[i], x[i, :n].sum(0) / n)
        assert torch.equal(last[i], x[i, n - 1])
    assert torch.equal(state.count, lengths)
    assert torch.equal(EachStep(2)(x, lengths=lengths)[0], x)
    assert_close(MeanOverTime(2)(x)[0], x.sum(1) / 7)
    assert torch.equal(LastStep(2)(x)[0], x[:, -1])


@pytest.mark.parametrize("pool", [MeanOverTime(2), LastStep(2)], ids=["mean", "last"])
def test_pools_stream_ragged_chunks(pool):
    x, lengths = torch.randn(3, 7, 2, dtype=torch.float64), torch.tensor([7, 1, 4])
    state = pool.initial_state(3, dtype=torch.float64)
    for start in (0, 3, 5):
        chunk = x[:, start : start + (3 if start == 0 else 2)]
        pooled, state = pool(chunk, state, (lengths - start).clamp(0, chunk.shape[1]))
    assert_close(pooled, pool(x, lengths=lengths)[0])


def test_mean_sums_low_precision_in_float32():
    pooled, state = MeanOverTime(1)(torch.ones(1, 3000, 1, dtype=torch.bfloat16))
    assert state.sum.dtype == torch.float32
    assert (state.sum.item(), pooled.item(), pooled.dtype) == (3000, 1, torch.bfloat16)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 0], "1 to 5 for 5 steps, got 0 to 5"),
        ([5, 6], "got 5 to 6"),
        ([5], "2 integers"),
        ([5.0, 2.0], "integers, got"),
    ],
)
@pytest.mark.parametrize("pool", ["mean", "last", "each"])
def test_wrong_lengths_are_refused(pool, lengths, message):
    with pytest.raises(ValueError, match=message):
        as_pool(pool, 2)(torch.zeros(2, 5, 2), lengths=torch.tensor(lengths))
