"""Chunks of a sequence against the plain loop and torch's own derivative, for every neuron."""

import functools

import own_neurons
import pytest
import torch
from helpers import assert_lively
from torch.autograd.functional import jacobian

import sdn
from sdn.dynamics.base import at_start
from sdn.gradients import spike
from sdn.ops.chunks import gpu, layout
from sdn.ops.chunks import operator as chunks
from sdn.ops.chunks.seams import closer
from sdn.ops.neuron import cpu as neuron_cpu
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.sequence import operands

F64 = torch.float64
NEURONS = {
    "lif": sdn.LIF(0.8), "soft": sdn.LIF(0.9, reset="soft"), "alif": sdn.ALIF(), "rf": sdn.RF(), "brf": sdn.BRF(),
    "hrf": sdn.HRF(), "izhikevich": sdn.IzhikevichRF(), "quadratic": own_neurons.Quadratic(),
    "adex": own_neurons.AdEx(),
}  # fmt: skip
STD = {"quadratic": 1.0, "adex": 1.0}
SIZES = {"narrow": (3, 41, 5, 8), "wide": (2, 48, 40, 16), "one": (2, 9, 3, 32)}
NAMES = sorted(NEURONS)


def case(name, size="narrow", seed=0):
    """A neuron with its operands on random currents, and the exact states before each of its chunks."""
    dynamics, (batch, length, channels, chunk) = NEURONS[name], SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, channels, dtype=F64, generator=generator) * STD.get(name, dynamics.default_std)
    ready, state = at_start(dynamics, x, None)
    kernel, first, slope = operands(ready, x, state, dynamics.default_spike)
    starts = [first]
    for begin in range(0, length - chunk, chunk):
        starts.append(neuron.run(kernel, x[:, begin : begin + chunk], starts[-1], slope, False, False)[1])
    return dynamics, kernel, x, torch.stack(starts, 1), chunk, slope


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_chunks_from_the_exact_states_are_the_loop(name, size):
    dynamics, kernel, x, starts, chunk, _ = case(name, size)
    spikes, ends, derivatives = chunks.run(kernel, x, starts, chunk)
    want = sdn.simulate(dynamics, x)
    assert torch.equal(spikes, want.spike)
    assert derivatives.numel() == 0
    for field, state in enumerate(want.state):
        assert torch.equal(ends[:, -1, field], state)
    assert torch.equal(ends[:, :-1], starts[:, 1:])
    if size != "one":
        assert_lively(spikes)


def step_by_step(dynamics, x, state, follows):
    """The state after a chunk (D,), from the one before it, both of one neuron."""
    now = dynamics.State(*(value.reshape(1, 1) for value in state))
    for current in x.reshape(-1, 1, 1):
        fired = spike(dynamics.distance(dynamics.past(now), current), sdn.Triangle(0.7), dynamics.fires_at_threshold)
        now = dynamics.advance(now, current, fired if follows else fired.detach())
    return torch.stack([value.reshape(()) for value in now])


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_of_a_chunk_is_that_of_torch(name, follows):
    dynamics, kernel, x, starts, chunk, _ = case(name)
    slope = sdn.compiler.programs.slope_of(sdn.Triangle(0.7)) if follows else ("", [])
    found = chunks.run(kernel, x, starts, chunk, derivative=True, slope=slope)[2]
    side = len(dynamics.State._fields)
    for b, c, h in ((0, 0, 0), (1, 2, 3), (2, 5, 4)):  # the last chunk is short
        piece = x[b, c * chunk : c * chunk + chunk, h]
        run = functools.partial(step_by_step, dynamics, piece, follows=follows)
        want = jacobian(run, starts[b, c, :side, h])
        torch.testing.assert_close(found[b, c, :, h].reshape(side, side), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_carry_is_the_plain_loop(reverse):
    batch, count, side, channels = 2, 6, 3, 4
    square = torch.randn(batch, count, side, side, channels, dtype=F64)
    gaps = torch.randn(batch, count, side, channels, dtype=F64)
    want, now = torch.zeros_like(gaps), torch.zeros(batch, side, channels, dtype=F64)
    for c in reversed(range(count)) if reverse else range(count):
        if reverse:
            now = torch.einsum("bkih,bkh->bih", square[:, c + 1], now) if c + 1 < count else now
        else:
            now = torch.einsum("bikh,bkh->bih", square[:, c], now)
        now = want[:, c] = now + gaps[:, c]
    for found in (
        chunks.carry(square.flatten(2, 3), gaps, reverse),
        gpu.carry(square.flatten(2, 3), gaps, reverse),
    ):
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["lif", "alif", "brf", "adex"])
def test_a_stitched_run_has_the_gradient_of_a_whole_one(name, size, through):
    _, kernel, x, starts, chunk, slope = case(name, size)
    x, first, fixed = (t.detach().clone().requires_grad_() for t in (x, starts[:, 0], kernel.fixed))
    kernel = kernel._replace(fixed=fixed)
    whole = neuron.run(kernel, x, first, slope, through, False)[:2]
    pieces = chunks.stitch(kernel, x, first, starts, chunk, slope, through)
    weights = [torch.randn_like(t) for t in whole]
    weights[1][:, layout.side(kernel.program) :] = 0  # the program's own field has no gradient
    assert all(map(torch.equal, whole, pieces))

    def gradients(found):
        return torch.autograd.grad(sum((t * w).sum() for t, w in zip(found, weights, strict=True)), [x, first, fixed])

    for got, want in zip(gradients(pieces), gradients(whole), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12 * float(want.abs().max()))
        assert want.abs().max() > 0


@pytest.mark.parametrize("name", ["lif", "alif", "izhikevich", "quadratic"])
def test_the_way_by_lanes_finds_the_same(name, monkeypatch):
    """The GPU's way, here by the CPU's kernels of a whole sequence."""
    monkeypatch.setattr(gpu, "neuron", neuron_cpu)
    _, kernel, x, starts, chunk, _ = case(name)
    starts = starts + 0.1 * torch.randn_like(starts)
    for slope in (("", []), sdn.compiler.programs.slope_of(sdn.Triangle(0.5))):
        options = kernel.fixed, kernel.numbers, chunk, True
        got = gpu.chunks(kernel.program, x, starts, *options, *slope)
        want = chunks.run(kernel, x, starts, chunk, derivative=True, slope=slope)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])
        torch.testing.assert_close(got[2][:, :-1], want[2][:, :-1], rtol=1e-10, atol=1e-12)


def test_a_state_that_is_lost_is_lost_for_good():
    """A chunk that ends in no number leaves NaN in all that comes after it, also where the next start is a number."""
    _, kernel, x, starts, chunk, slope = case("lif", "wide")
    starts = starts.clone()
    starts[0, 1, 0, 7] = float("nan")
    spikes, final = chunks.stitch(kernel, x, starts[:, 0], starts, chunk, slope)
    assert spikes[0, chunk:, 7].isnan().all()
    assert final[0, 0, 7].isnan()
    assert spikes.isnan().sum() == spikes.shape[1] - chunk
    assert final.isnan().sum() == 1


def test_seams_that_agree_are_left_to_the_very_bit():
    """And no derivative, however large, keeps a chunk from its start where all seams before it agree."""
    draw, tried = torch.Generator().manual_seed(0), torch.tensor([False, False, True, True])
    starts, ends = (torch.randn(2, 6, 3, 4, generator=draw) for _ in range(2))
    derivatives = torch.randn(2, 6, 4, 4, generator=draw)
    starts[:, 1:4] = ends[:, :3]
    least = 1e-7 * ends[:, :-1, :2].abs().amax(1, keepdim=True) * tried
    near = closer(starts, ends, derivatives, 2, least)
    assert torch.equal(near[:, 1:5], ends[:, :4])
    assert torch.equal(near[:, 5, 2], ends[:, 4, 2])  # no field of the neuron
    gap = (ends[:, 3] - starts[:, 4])[:, :2]
    moved = torch.einsum("bijh,bjh->bih", derivatives[:, 4].unflatten(1, (2, 2)), gap)
    torch.testing.assert_close(near[:, 5, :2], ends[:, 4, :2] + moved)
    cut = closer(starts, ends, derivatives, 2, most=torch.tensor(0.1))[:, 5, :2]
    torch.testing.assert_close(cut, ends[:, 4, :2] + moved.clamp(-0.1, 0.1))
    assert moved.abs().max() > 0.1
    assert torch.equal(closer(starts, ends, derivatives * float("inf"), 2, least)[:, 1:], ends[:, :-1])
    ends[:, 4, :2] = starts[:, 5, :2] = 0.0
    tiny = closer(starts, ends, derivatives * 1e-9, 2, least)[:, 5, :2]
    assert ((tiny != 0) == ~tried).all()  # what is as small as that is left out


def test_a_change_that_is_no_number_is_left_out():
    starts, ends = torch.zeros(1, 3, 1, 2), torch.ones(1, 3, 1, 2)
    ends[0, 0, 0, 1] = float("inf")
    found = closer(starts, ends, torch.ones(1, 3, 1, 2), 1)
    assert found[0, :, 0, 0].tolist() == [0, 1, 2]
    assert found[0, :, 0, 1].tolist() == [
        0,
        0,
        1,
    ]  # an end that is none leaves the start
