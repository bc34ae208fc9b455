"""What is particular to the fused solver: its operators, what it keeps, threads, tiny numbers, what it refuses."""

from dataclasses import dataclass

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents, every_fused, some_state
from own_neurons import Bounded, Quadratic

from sdn import ALIF, BRF, LIF, RF, Fused, Loop, Neuron, Triangle, spike
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.sequence import operands


def operator_arguments(dynamics, std, save, dtype=torch.float64, record=False, **shape):
    x = currents(std, dtype=dtype, **shape)
    state = some_state(dynamics, *x.shape[::2], dtype=dtype)
    kernel, first, slope = operands(dynamics.to("cpu", dtype), x, state, dynamics.default_spike)
    return [x, first, kernel.fixed, kernel.numbers, kernel.program, *slope, False, save, record]


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize(("dynamics", "std"), [(LIF(), 1.0), (BRF(), 50.0), (Quadratic(), 0.5), (Bounded(), 1.0)])
def test_the_operator_is_registered_as_torch_asks(dynamics, std, record):
    arguments = operator_arguments(dynamics, std, save=True, record=record, length=7)
    for tensor in arguments[:3]:
        tensor.requires_grad_()
    torch.library.opcheck(neuron._neuron.overload, arguments)


def test_the_operator_knows_the_layout_of_wide_rows():
    torch.library.opcheck(neuron._neuron.overload, operator_arguments(LIF(), 1.0, True, length=7, channels=40))


@every_fused
def test_states_are_kept_for_the_backward_pass_only(dynamics, std):
    for save in (True, False):
        arguments = operator_arguments(dynamics, std, save, length=129)
        saved, mem = neuron._neuron(*arguments)[2:]
        assert saved.shape == (1 if save else 0, 3, arguments[1].shape[1], 3 * CHANNELS)
        assert not mem.numel()


def test_nothing_is_kept_without_gradients(monkeypatch):
    asked, run = [], neuron._neuron
    monkeypatch.setattr(neuron, "_neuron", lambda *a: asked.append(a[-2]) or run(*a))
    layer = Neuron(LIF(), 5, solver="fused")
    layer(currents(1.0))
    layer(currents(1.0).requires_grad_())
    with torch.no_grad():
        layer(currents(1.0).requires_grad_())
    assert asked == [False, True, False]


def test_two_threads_compute_the_very_same_numbers():
    for batch, channels in ((3, 40), (1, 1031), (2, 5)):
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            try:
                x = currents(1.0, batch, 130, channels, torch.float32).requires_grad_()
                layer = Neuron(
                    LIF(0.6, reset="soft"), channels, learn={"decay": None, "threshold": None}, solver="fused"
                )
                spikes, state = layer(x)
                (spikes.sum() + state.u.square().sum()).backward()
                results.append([spikes, state.u, x.grad, *(p.grad for p in layer.parameters())])
            finally:
                torch.set_num_threads(1)
        assert_lively(results[0][0])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_state_too_small_to_be_normal_becomes_zero():
    x = torch.zeros(1, 1200, 40)
    x[:, 0] = 0.5
    for dynamics in (LIF(0.9), RF(10.0, 30.0), ALIF(10.0)):
        final = Fused().run(dynamics, x, None, Triangle())[1]
        want = Loop().run(dynamics, x, None, Triangle())[1]
        for ours, exact in zip(final, want, strict=True):
            assert ((ours == 0) | (ours.abs() >= torch.finfo(torch.float32).tiny)).all()
            assert_close(ours, exact)
    assert Loop().run(LIF(0.9), x, None, Triangle())[1].u.abs().max() > 0, "the exact membrane is subnormal, not zero"
    assert (Fused().run(LIF(0.9), x, None, Triangle())[1].u == 0).all()


def test_the_tail_of_a_gaussian_is_zero_not_noise():
    from sdn.ops.common.cpu import jit
    from sdn.ops.common.functions_cpu import exp

    @jit
    def run(z, out):
        for i in range(z.shape[0]):
            out[i] = exp(z[i])

    z = torch.linspace(-100, 0, 1_000_001)
    got, want = torch.empty_like(z), torch.exp(z.double())
    run(z.numpy(), got.numpy())
    inside = z >= -87
    ulp = 2.0 ** (torch.frexp(want.float()).exponent - 24).double()
    assert ((got.double() - want).abs() / ulp)[inside].max() <= 2
    assert (got[~inside] == 0).all()


@dataclass(frozen=True, eq=False)
class Leaky(LIF):
    """Not the LIF, although it is made of one."""

    def past(self, state):
        return 0.5 * super().past(state)


class Flat:
    def slope(self, v):
        return torch.ones_like(v)


def test_a_neuron_made_of_a_built_in_one_is_another():
    x = currents(1.0, channels=3)
    ours, theirs = (Neuron(kind(), 3, spike=Flat())(x)[0] for kind in (Leaky, LIF))
    assert not torch.equal(ours, theirs)
    assert torch.equal(ours, Neuron(Leaky(), 3, solver="loop")(x)[0])
    assert torch.equal(spike(torch.zeros(3), Flat(), True), torch.ones(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@every_fused
def test_a_bad_current_is_found_by_what_it_leaves_in_the_state(dynamics, std, bad):
    for t in (0, 20, 62):
        x = currents(std)
        x[1, t, 3] = bad
        with pytest.raises(ValueError, match="1 of 945 currents are NaN or infinite"):
            Fused().run(dynamics, x, None, dynamics.default_spike)


@pytest.mark.parametrize("through_reset", [False, True])
def test_second_derivatives_are_refused(through_reset):
    x = currents(1.0).requires_grad_()
    spikes, _ = Fused(detach_reset=not through_reset).run(LIF(), x, None, Triangle())
    (first,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again; use solver='loop'"):
        (first.square().sum() + x.sum()).backward()


@pytest.mark.parametrize("solver", ["fused", "parallel", "loop"])
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5, 0)])
def test_nothing_in_nothing_out(solver, shape):
    x = torch.randn(shape, requires_grad=True)
    layer = Neuron(LIF(), shape[2], learn={"threshold": None}, solver=solver)
    spikes, state = layer(x)
    assert spikes.shape == shape
    assert state.u.shape == (shape[0], shape[2])
    spikes.sum().backward()
    assert x.grad.shape == shape


def test_other_types_are_refused_by_name():
    with pytest.raises(NotImplementedError, match=r"take float32 and float64, got torch.float16.*solver=.loop."):
        Fused().run(LIF(), currents(1.0).half(), None, Triangle())
    with pytest.raises(ValueError, match=r"decay has shape \(4,\), this neuron has 3 channels"):
        Neuron(LIF(torch.rand(4)), 3)


def test_small_numbers_of_float64_stay():
    x = 3e-38 * currents(1.0)
    dynamics = LIF(0.9, 1e-38, "soft")
    assert torch.equal(Fused().run(dynamics, x, None, Triangle())[0], Loop().run(dynamics, x, None, Triangle())[0])


def test_one_graph_serves_every_batch():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    layer = torch.compile(Neuron(LIF(), 40), backend=backend, fullgraph=True, dynamic=True)
    for batch in (2, 3, 5, 7):
        assert layer(currents(1.0, batch, 33, 40))[0].shape == (batch, 33, 40)
    assert len(graphs) == 1


def test_compiled_code_is_of_the_sources_as_they_are():
    """numba itself looks at one file only; a private place of it holds the hash of all, so this says if it moves."""
    from sdn.ops.common import compiled
    from sdn.ops.membrane import fire_cpu, predict_cpu
    from sdn.ops.neuron import loops as neuron_loops
    from sdn.ops.scan import cpu as scan_cpu

    assert len(compiled._sources()) == 64
    kernels = [k for m in (neuron_loops, fire_cpu, predict_cpu, scan_cpu) for k in vars(m).values()]
    stamps = {k._cache._cache_file._source_stamp for k in kernels if hasattr(k, "_cache")}
    assert stamps == {compiled._sources()}
