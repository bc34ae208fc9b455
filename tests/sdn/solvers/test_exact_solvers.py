"""Solvers that must equal `simulate`: spikes, last states and gradients, whatever the shape, stride or dtype."""

from functools import partial

import hypothesis.strategies as st
import pytest
import torch
from helpers import (
    CHANNELS,
    FUSED,
    assert_close,
    assert_lively,
    currents,
    every_dtype,
    every_fused,
    examples,
    some_state,
)
from hypothesis import HealthCheck, given, settings

from sdn import (
    ALIF,
    BRF,
    LIF,
    RF,
    ArcTan,
    DoubleGaussian,
    Fused,
    Loop,
    MultiGaussian,
    Neuron,
    Parallel,
    Sigmoid,
    Triangle,
)

SOLVERS = {"fused": Fused, "parallel": partial(Parallel, chunk=32, warm_up=8)}
every_solver = pytest.mark.parametrize("solver", [pytest.param(s, id=n) for n, s in SOLVERS.items()])
GRADIENTS = [
    Triangle(0.7),
    DoubleGaussian(0.2, 0.4, 5.0, 0.7),
    MultiGaussian(),
    MultiGaussian(0.2, 0.4, 5.0, 0.5, True),
    ArcTan(3.0),
    Sigmoid(5.0),
]
RANGES = {
    LIF: {"decay": st.floats(0, 0.999), "threshold": st.floats(0.05, 3)},
    ALIF: {"tau_m": st.floats(0.5, 60), "beta": st.floats(0, 3)},
    RF: {"omega": st.floats(1, 18), "threshold": st.floats(0.05, 2)},
    BRF: {"omega": st.floats(1, 80), "gamma": st.floats(0, 0.99)},
}


def leaves(dynamics, x, state, learn):
    """Copies of everything that can have a gradient: input, state fields, (H,) fields of the dynamics."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    state = [f.detach().clone().requires_grad_() for f in state]
    fields = {}
    for name in dynamics.transforms if learn else ():
        value = torch.as_tensor(getattr(dynamics, name), dtype=x.dtype)
        fields[name] = value.expand(x.shape[-1]).clone().requires_grad_()
    return x, state, fields


def outcome(solver, dynamics, x, state, gradient, learn=True):
    """Spikes, last state, and the gradients of a random linear function of both, by name."""
    x, state, fields = leaves(dynamics, x, state, learn)
    spikes, last = solver.run(dynamics.to("cpu", x.dtype).replace(**fields), x, dynamics.State(*state), gradient)
    g = torch.Generator().manual_seed(11)
    loss = sum((torch.randn(o.shape, generator=g, dtype=o.dtype) * o).sum() for o in (spikes, *last))
    wanted = {"input": x, **{f"state {f}": v for f, v in zip(dynamics.State._fields, state, strict=True)}, **fields}
    grads = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return spikes.detach(), [f.detach() for f in last], dict(zip(wanted, grads, strict=True))


def assert_same_outcome(got, want, dtype, factor=1.0):
    assert torch.equal(got[0], want[0]), f"{int((got[0] != want[0]).sum())} spikes differ"
    for one, other in zip(got[1], want[1], strict=True):
        assert_close(one, other)
    for name, gradient in want[2].items():
        if gradient is None:
            assert got[2][name] is None or not got[2][name].any(), f"{name} has no gradient in the loop"
        else:
            assert torch.isfinite(got[2][name]).all(), name
            assert_close(got[2][name], gradient, dtype, factor)


def compare(solver, dynamics, x, state, gradient=None, detach=True, factor=1.0):
    gradient = gradient or dynamics.default_spike
    want = outcome(Loop(detach), dynamics, x, state, gradient)
    assert_same_outcome(outcome(solver(detach_reset=detach), dynamics, x, state, gradient), want, x.dtype, factor)
    return want


@every_solver
@every_dtype
@pytest.mark.parametrize("detach", [True, False], ids=["detached", "through-reset"])
@every_fused
def test_equals_the_loop(dynamics, std, detach, dtype, solver):
    spikes, _, gradients = compare(
        solver, dynamics, currents(std, length=150, dtype=dtype), some_state(dynamics, dtype=dtype), detach=detach
    )
    assert_lively(spikes)
    assert all(g.any() for n, g in gradients.items() if g is not None), "a gradient is zero everywhere"


@every_solver
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 1024])
@every_fused
def test_every_length(dynamics, std, length, solver):
    compare(solver, dynamics, currents(std, length=length), some_state(dynamics), factor=10)


WIDTHS = {
    1: 5,
    33: 2,
    100: 2,
    129: 1,
    300: 2,
    1031: 3,
}  # lanes side by side; 1, 2, 4, 8 times 64 channels; several tiles


@every_solver
@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("dynamics", [LIF(0.37, 0.8), BRF(23.0, 2.5, 0.8, 0.012, 0.7)], ids=["lif", "brf"])
def test_every_width(dynamics, channels, solver):
    batch = WIDTHS[channels]
    x = currents(50 if isinstance(dynamics, BRF) else 1, batch, 70, channels)
    compare(solver, dynamics, x, some_state(dynamics, batch, channels))


@every_solver
@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda g: type(g).__name__)
@every_dtype
def test_every_spike_gradient(gradient, dtype, solver):
    x = currents(1.0, length=70, dtype=dtype)
    x[0, :3, 0] = torch.tensor([60.0, -60.0, 0.3])  # far from the threshold, where a Gaussian is 0
    compare(solver, LIF(0.37, 0.8, "soft"), x, some_state(LIF(), dtype=dtype), gradient)


LAYOUTS = {
    "time innermost": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "every other step": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "every other channel": lambda x: x.repeat_interleave(2, 2)[..., ::2],
    "one row for all": lambda x: x[:1].expand(x.shape),
    "batch innermost": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
}


@every_solver
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [CHANNELS, 40])
def test_every_layout(layout, channels, solver):
    x = LAYOUTS[layout](currents(1.0, channels=channels))
    assert not x.is_contiguous()
    for dynamics in (LIF(0.4, 0.7), RF(17.0, 3.0, 0.012, 0.02)):
        compare(solver, dynamics, x, some_state(dynamics, channels=channels))


@st.composite
def cases(draw):
    _, dynamics, std = draw(st.sampled_from([d for d in FUSED if "channels" not in d[0]]))
    ranges = RANGES.get(type(dynamics), {})
    fields = {name: draw(values) for name, values in ranges.items()} if draw(st.booleans()) else {}
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 140)), draw(st.sampled_from([1, 2, 7, 32, 45]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = currents(std * draw(st.sampled_from([0.3, 1, 3])), *shape, dtype, seed=draw(st.integers(0, 10**6)))
    x = x + draw(st.sampled_from([0, 0.5])) * std
    if draw(st.booleans()):
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    state = some_state(dynamics, shape[0], shape[2], dtype, draw(st.integers(0, 99)))
    if draw(st.booleans()):
        state = dynamics.initial_state(shape[0], shape[2], dtype=dtype)
    return dynamics.replace(**fields), x, state, draw(st.booleans())


@settings(max_examples=examples(150, 500), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_random_cases_fused(case):
    check_random("fused", case)


@settings(max_examples=examples(80, 500), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_random_cases_parallel(case):
    check_random("parallel", case)


def check_random(kind, case):
    dynamics, x, state, detach = case
    compare(SOLVERS[kind], dynamics, x, state, detach=detach, factor=20)


@every_solver
def test_chunks_equal_the_whole(solver):
    for _, dynamics, std in FUSED:
        x = currents(std, length=130, dtype=torch.float32)
        whole, last = solver().run(dynamics, x, None, dynamics.default_spike)
        state, parts = None, []
        for part in x.split([1, 64, 3, 62], 1):
            spikes, state = solver().run(dynamics, part, state, dynamics.default_spike)
            parts.append(spikes)
        assert torch.equal(torch.cat(parts, 1), whole)
        for one, other in zip(state, last, strict=True):
            assert torch.equal(one, other) if solver is Fused else assert_close(one, other) is None


@every_solver
@pytest.mark.parametrize("dynamics", [LIF(0.37, 0.8), ALIF(7.0, 31.0, 0.9, 0.05)], ids=["lif", "alif"])
def test_is_one_graph_under_compile(dynamics, solver):
    neuron = Neuron(dynamics, 5, learn={"threshold": None}, solver=solver())
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    results = []
    for run in (neuron, compiled):
        x = currents(1.0, dtype=torch.float32).requires_grad_()
        spikes, _ = run(x)
        spikes.square().sum().backward()
        results.append((spikes.detach(), x.grad, neuron.learned["threshold"].grad.clone()))
        neuron.zero_grad()
    assert_lively(results[0][0])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_solver
def test_half_precision_and_autocast_are_computed_in_float32(solver):
    x = currents(1.0, dtype=torch.float32).bfloat16()
    want = Loop().run(LIF(0.4), x.float(), None, Triangle())[0]
    neuron = Neuron(LIF(0.4), 5, solver=solver())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes, state = neuron(x)
    assert spikes.dtype == torch.bfloat16
    assert state.u.dtype == torch.float32
    assert torch.equal(spikes.float(), want)


@every_solver
def test_a_diverging_neuron_and_bad_input_are_refused(solver):
    x = currents(1e38, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"LIF: (the state|neuron \d+ of row \d+) became NaN or infinite"):
        solver().run(LIF(0.99, reset="none"), x.abs().clamp(max=3e38), None, Triangle())
    with pytest.raises(ValueError, match="currents are NaN"):
        solver().run(LIF(), x * float("nan"), None, Triangle())
    with pytest.raises(ValueError, match="state field 'u' has shape"):
        solver().run(LIF(), currents(1.0), LIF().initial_state(3, 4), Triangle())
