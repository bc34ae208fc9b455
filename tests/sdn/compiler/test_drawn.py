"""Random steps: what the compiler makes of them, run by Python and by the compiled loop, against the reference."""

import contextlib

import numpy as np
import pytest
import torch
from drawn import EXACT, drawn_neurons, run_plain, with_sensible_threshold
from helpers import examples
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import sdn

QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}


@contextlib.contextmanager
def doubles():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def reference(neuron, x, through, weights):
    """Spikes, mem, distance to the threshold, and the gradients of the currents and of the fields."""
    fields = {
        n: torch.full((x.shape[2],), getattr(neuron, n), dtype=x.dtype, requires_grad=True) for n in neuron.transforms
    }
    given = x.clone().requires_grad_()
    found = sdn.simulate(neuron.replace(**fields), given, spike_gradient=sdn.ArcTan(), detach_reset=not through)
    grads = torch.autograd.grad((found.spike * weights).sum(), [given, *fields.values()], allow_unused=True)
    distance = found.mem + x - neuron.threshold
    return (
        found.spike.detach(),
        found.mem.detach(),
        distance.detach(),
        grads[0],
        dict(zip(fields, grads[1:], strict=True)),
    )


def close(got, want, tolerance=1e-10):
    want = np.asarray(0.0 if want is None else want)
    return np.abs(np.asarray(got) - want).max() <= tolerance * max(1.0, np.abs(want).max())


@settings(max_examples=examples(60, 500), **QUIET)
@given(drawn_neurons(), st.booleans())
def test_the_generated_text_is_the_step_and_its_derivative(drawn, through):
    neuron, x = drawn
    neuron = with_sensible_threshold(neuron, x, sdn.simulate)
    weights = torch.randn(x.shape, dtype=x.dtype)
    spikes, mem, distance, gx, fields = reference(neuron, x, through, weights)
    with np.errstate(all="ignore"):
        got = run_plain(neuron, x, sdn.ArcTan(), through, weights)
    differ = got[0] != spikes.numpy()
    assert not differ.any() or distance.abs().min() < 1e-12, "spikes differ"
    if differ.any():
        return
    assert close(got[1], mem)
    assert close(got[2], gx)
    for name, total in fields.items():
        assert close(torch.zeros(3) if got[3][name] is None else got[3][name], total), name


@settings(max_examples=examples(3, 20), **QUIET)
@given(drawn_neurons(), st.booleans())
def test_so_is_the_compiled_loop(drawn, through):
    neuron, x = drawn
    neuron = with_sensible_threshold(neuron, x, sdn.simulate)
    weights = torch.randn(x.shape, dtype=x.dtype)
    spikes, mem, distance, gx, fields = reference(neuron, x, through, weights)
    how = {"spike": sdn.ArcTan(), "solver": sdn.Fused(detach_reset=not through)}
    with doubles():
        layer = sdn.Neuron(neuron, 3, learn=dict.fromkeys(fields), **how)
    given = x.clone().requires_grad_()
    found = layer(given, record="mem")
    if not torch.equal(found.spike, spikes):
        assert distance.abs().min() < 1e-12
        return
    grads = torch.autograd.grad((found.spike * weights).sum(), [given, *layer.parameters()], allow_unused=True)
    assert close(found.mem.detach(), mem)
    for got, want in zip(grads, [gx, *fields.values()], strict=True):
        assert close(torch.zeros(3) if got is None else got, want)


@settings(max_examples=40, **QUIET)
@given(drawn_neurons(tuple(EXACT)), st.sampled_from([torch.float32, torch.float64]))
def test_exact_operations_are_bit_for_bit(drawn, dtype):
    neuron, x = drawn[0], drawn[1].to(dtype)
    neuron = with_sensible_threshold(neuron, x, sdn.simulate)
    want = sdn.simulate(neuron, x)
    with np.errstate(all="ignore"):
        got = run_plain(neuron, x, sdn.Triangle(), False, torch.zeros_like(x))
    assert np.array_equal(got[0], want.spike.numpy())
    assert np.array_equal(got[1], want.mem.numpy())


def test_the_cases_spike_and_differ():
    rates, sizes = [], []

    @settings(max_examples=30, **QUIET)
    @given(drawn_neurons())
    def collect(drawn):
        neuron, x = drawn
        neuron = with_sensible_threshold(neuron, x, sdn.simulate)
        rates.append(sdn.simulate(neuron, x).spike.mean().item())
        sizes.append(str(neuron.after).count("("))

    collect()
    assert 0.05 < np.median(rates) < 0.7
    assert max(sizes) > 15
    assert len(set(sizes)) > 5


@pytest.mark.parametrize("states", [1, 2, 3, 4])
def test_every_number_of_states_is_drawn(states):
    found = []

    @settings(max_examples=40, **QUIET)
    @given(drawn_neurons())
    def collect(drawn):
        found.append(len(drawn[0].State._fields))

    collect()
    assert states in found
