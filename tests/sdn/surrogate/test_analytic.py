"""Networks that are written down, against the neuron and against the formula that they are to be."""

import pytest
import torch

import sdn
from sdn.surrogate.analytic import analytic, analytic_start

SIZES = [(8, 8, 1), (8, 4, 1), (5, 4, 2), (5, 4, 3), (7, 3, 4)]
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def nested(x, decay, kernel_size, n_layers):
    """`mem` of the neuron that forgets all resets but the last few, with two things to know of each step: (N, L) all.

    How near a jump was, and whether one layer takes away only the middle of ``1 .. 1 + decay``.
    """
    resets, tail = max(3, n_layers + 1), kernel_size - (3 if n_layers == 1 else 2)
    past = [torch.nn.functional.pad(x, (j, 0))[:, : x.shape[1]] for j in range(resets + tail + 1)]
    h = linear = torch.zeros_like(x)
    for j in range(resets + tail, resets - 1, -1):
        h = past[j] + decay * h
    jumps = [h, past[1]]
    for j in range(resets - 1, 0, -1):
        split, linear = linear, past[j] + decay * h
        before, h = h, past[j] + decay * h * (h < 1)
        jumps += [linear, h]
    near = torch.stack(jumps).sub(1).abs().amin(0)
    return decay * h * (h < 1), near, (split > 1) & (before < 1) & (past[1] < 1) & (h > 1)


@pytest.fixture(scope="module")
def half_a_million():
    return {decay: sdn.generate(sdn.LIF(decay), 500, 1024, seed=77) for decay in (0.125, 0.2)}


@pytest.mark.parametrize(
    ("decay", "sizes", "agreement", "f1", "mae"),
    [
        (0.125, (8, 8, 1), 0.99996, 0.9998, 1.1e-4),
        (0.125, (5, 4, 2), 0.99996, 0.9998, 1.1e-4),
        (0.125, (5, 4, 3), 0.99999, 0.9999, 0.4e-4),
        (0.2, (8, 8, 1), 0.99982, 0.9993, 6.0e-4),
        (0.2, (5, 4, 3), 0.99993, 0.9997, 1.7e-4),
    ],
    ids=str,
)
def test_spikes_of_half_a_million_steps(half_a_million, decay, sizes, agreement, f1, mae):
    found = sdn.evaluate(analytic(sdn.LIF(decay), *sizes), half_a_million[decay], sdn.LIF(decay))
    assert found.steps == 512_000
    assert found.agreement >= agreement
    assert found.f1 >= f1
    assert found.mae_mean <= mae
    assert found.trivial_agreement < 0.985


@every_size
@pytest.mark.parametrize("decay", [0.0, 0.125, 0.24])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_is_the_nested_formula_away_from_its_jumps(sizes, decay, mean):
    x = mean + torch.randn(100, 1000, dtype=torch.float64)
    want, near, middle = nested(x, decay, *sizes[1:])
    error = (analytic(sdn.LIF(decay), *sizes).double()(x) - want).abs()
    clear = near > 2e-3
    one_layer = middle & (sizes[2] == 1)
    assert clear.float().mean() > 0.95
    assert error[clear & ~one_layer].max() < 2e-5
    assert error[clear].max() <= decay**2 / 2 + 2e-5
    if decay > 0:
        assert (clear & middle).sum() > 5


@every_size
def test_starts_at_rest(sizes):
    """The padding of deeper layers has to be the state at rest."""
    x = torch.randn(4000, 6)
    out = sdn.simulate(sdn.LIF(0.125), x.T[None])
    mem = analytic(sdn.LIF(0.125), *sizes)(x)
    assert mem[:, 0].abs().max() < 1e-5
    assert out.mem.abs().max() > 0.1
    error = (mem - out.mem[0].T)[:, :4].abs()  # only three currents are past
    assert (error > 1e-4).float().mean() < 8e-3  # on a ramp
    assert error.mean() < 1e-4


@pytest.mark.parametrize("sizes", [(8, 8, 1, 153, 193), (5, 4, 2, 116, 161), (5, 4, 3, 171, 236)], ids=str)
def test_how_many_numbers(sizes):
    *sizes, reduced, trained = sizes
    net, start = analytic(sdn.LIF(0.125), *sizes), analytic_start(sdn.LIF(0.125), *sizes)
    assert sum(p.numel() for p in net.parameters()) == reduced
    assert sum(p.numel() for p in start.parameters()) == trained
    assert not any(p.requires_grad for p in net.parameters())
    assert all(p.requires_grad for p in start.parameters())
    assert {p.dtype for p in [*net.parameters(), *start.parameters()]} == {torch.float32}


@every_size
def test_strictly_causal(sizes):
    net = analytic(sdn.LIF(0.2), *sizes)
    x = torch.randn(200, 60)
    moved = x.clone()
    moved[:, 30] += 3.0
    before, after = net(x), net(moved)
    reach = sizes[1] + sizes[2] - 1
    assert torch.equal(before[:, :31], after[:, :31])
    assert torch.equal(before[:, 31 + reach :], after[:, 31 + reach :])
    assert ((before - after)[:, 31].abs() > 0.01).float().mean() > 0.5


@every_size
@pytest.mark.parametrize("threshold", [0.3, 2.5])
def test_scales_with_the_threshold(sizes, threshold):
    x = torch.randn(50, 300, dtype=torch.float64)
    one, other = (analytic(sdn.LIF(0.125, t), *sizes).double() for t in (1.0, threshold))
    _, near, _ = nested(x, 0.125, *sizes[1:])
    error = (other(threshold * x) / threshold - one(x)).abs()[near > 2e-3]
    assert error.max() < 1e-4  # the rounded weights
    fresh = sdn.generate(sdn.LIF(0.125, threshold), 100, 512, 0.0, threshold, seed=5)
    assert sdn.evaluate(other, fresh, sdn.LIF(0.125, threshold)).agreement > 0.9999


@every_size
def test_the_start_is_the_same_function(sizes):
    neuron = sdn.LIF(0.125, 1.5)
    x = 1.5 * torch.randn(60, 500, dtype=torch.float64)
    want, start = analytic(neuron, *sizes).double()(x), analytic_start(neuron, *sizes)
    assert want.std() > 0.05
    assert (sdn.reduce(start)(x) - want).abs().max() < 1e-7
    assert (start.double()(x) - want).abs().max() < 1e-7


def test_the_start_can_be_trained():
    start = analytic_start(sdn.LIF(0.125), width=0.05)
    loss = (start(torch.randn(50, 200)) - 0.1).abs().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in start.parameters())
    assert all((p.grad != 0).any() for p in start.parameters())


def test_tensors_of_one_value_are_numbers():
    one = analytic(sdn.LIF(torch.tensor([0.125]), torch.tensor(2.0)))
    other = analytic(sdn.LIF(0.125, 2.0))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("make", [analytic, analytic_start])
@pytest.mark.parametrize(
    ("neuron", "options", "problem"),
    [
        (sdn.LIF(0.125, reset="soft"), {}, 'only reset="hard" .* got LIF.*soft.*; train one with sdn.fit'),
        (sdn.LIF(0.125, reset="none"), {}, 'only reset="hard" .* got LIF.*none.*; train one with sdn.fit'),
        (sdn.ALIF(), {}, "only sdn.LIF can be written down, got ALIF.*; train one with sdn.fit"),
        (sdn.LIF(0.3), {}, r"decay is 0.3, at most 0.250 with n_layers=1: .* n_layers=3 with d_model=5, or train one"),
        (sdn.LIF(0.9), {}, r"decay is 0.9, at most 0.250 with n_layers=1: [^;]*; train one with sdn.fit"),
        (sdn.LIF(0.35), {"n_layers": 3}, r"decay is 0.35, at most 0.329 with n_layers=3: .*n_layers=4"),
        (sdn.LIF(torch.tensor([0.1, 0.2])), {}, "decay has 2 values, .* write down one each"),
        (sdn.LIF(0.1, torch.tensor([1.0, 2.0])), {}, "threshold has 2 values"),
        (sdn.LIF(torch.tensor(1.0)), {}, "LIF: decay must be .* got 1"),
        (sdn.LIF(0.1, torch.tensor([-1.0])), {}, "LIF: threshold must be .* got -1"),
        (sdn.LIF(0.1), {"d_model": 7}, "d_model must be at least 8 for n_layers=1, got 7"),
        (sdn.LIF(0.1), {"d_model": 4, "n_layers": 2}, "d_model must be at least 5 for n_layers=2, got 4"),
        (sdn.LIF(0.1), {"kernel_size": 3}, "kernel_size must be at least 4 for n_layers=1, got 3"),
        (sdn.LIF(0.1), {"kernel_size": 2, "n_layers": 2}, "kernel_size must be at least 3 for n_layers=2, got 2"),
        (sdn.LIF(0.1), {"n_layers": 0}, "n_layers must be at least 1, got 0"),
        (sdn.LIF(0.1), {"width": 0.0}, "width must be from 0.0001 to 0.5 thresholds, got 0"),
        (sdn.LIF(0.1), {"width": float("nan")}, "width must be .* got nan"),
    ],
)
def test_refusals(make, neuron, options, problem):
    with pytest.raises(ValueError, match=problem):
        make(neuron, **options)


def test_what_is_no_dynamics():
    with pytest.raises(TypeError, match="analytic: "):
        analytic("lif")
