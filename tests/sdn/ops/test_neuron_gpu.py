"""The Triton form of the neuron operators against the CPU form: in Triton's interpreter where there is no GPU.

The interpreter takes milliseconds a step, so most cases shrink the chunks and tiles of the kernels rather than leave
out their edges. Run as a script, this file compiles the kernels for a GPU that need not be there.
"""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys

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
    some_state,
)
from hypothesis import HealthCheck, given, settings

from sdn import ALIF, BRF, LIF, RF, ArcTan, DoubleGaussian, Loop, MultiGaussian, Neuron, Sigmoid, Triangle
from sdn.ops.neuron import cpu as neuron_cpu
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import MODELS, STRIDE, spikes_like
from sdn.ops.neuron.operands import operands

if importlib.util.find_spec("triton") is None:
    pytest.skip("no triton: it comes with extra 'dev' on Linux, and with torch for CUDA", allow_module_level=True)
from sdn.ops.neuron import gpu as neuron_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GRADIENTS = [Triangle(0.7), DoubleGaussian(0.2, 0.4, 5.0, 0.7), MultiGaussian(normalised=True), ArcTan(3.0), Sigmoid()]


@pytest.fixture
def small(monkeypatch):
    """Chunks of 4 steps in tiles of 2."""
    for name, steps in (("STRIDE", 4), ("AHEAD", 2), ("BEHIND", 2)):
        monkeypatch.setattr(neuron_triton, name, steps)


def outcome(kernels, device, dynamics, x, state, gradient, grads, through, learn):
    """What both operators return: spikes, last state, kept states; gradients of current, state and parameters."""
    kernel, first, slope = operands(dynamics.to("cpu", x.dtype), x, state, gradient or dynamics.default_spike)
    name, fixed, constants = kernel
    x, first, fixed, *grads = (None if t is None else t.to(device) for t in (x, first, fixed, *grads))
    forward = kernels.forward(name, x, first, fixed, constants, True)
    backward = kernels.backward(name, *grads, x, fixed, forward[2], constants, *slope, through, learn)
    return [t.cpu() for t in (*forward, *backward)]


def compare(dynamics, x, state, gradient=None, through=False, learn=True, grads=None):
    """The same from both: forward bit for bit, gradients to rounding; then what the CPU says."""
    grads = grads or (torch.randn_like(x), torch.randn(len(x), len(state), x.shape[2], dtype=x.dtype))
    case = dynamics, x, state, gradient, grads, through, learn
    want = outcome(neuron_cpu, "cpu", *case)
    got = outcome(neuron_triton, DEVICE, *case)
    assert torch.equal(got[0], want[0]), f"{int((got[0] != want[0]).sum())} spikes differ"
    assert torch.equal(got[1], want[1])
    assert got[2].shape != want[2].shape or torch.equal(got[2], want[2])
    assert got[0].stride() == got[3].stride() == spikes_like(x).stride()
    for one, other in zip(got[3:], want[3:], strict=True):
        assert torch.isfinite(one).all()
        assert one.numel() == other.numel() == 0 or assert_close(one, other) is None
    return want


@pytest.mark.usefixtures("small")
@every_dtype
@every_fused
def test_it_is_the_cpu_kernel(dynamics, std, dtype):
    x = currents(3 * std, length=11, dtype=dtype)
    through = dtype == torch.float64
    spikes, _, saved, *grads = compare(dynamics, x, some_state(dynamics, dtype=dtype), through=through)
    assert_lively(spikes)
    assert saved.any()
    assert all(g.any() for g in grads)


def test_chunks_as_they_are():
    assert neuron_triton.STRIDE == STRIDE == 64
    dynamics = BRF(23.0, 2.5, 0.8, 0.012, 0.7)
    spikes, _, saved, *_ = compare(dynamics, currents(50, 2, 131, 3), some_state(dynamics, 2, 3), through=True)
    assert_lively(spikes)
    assert saved.shape[1] == 3


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 9])
def test_every_length(length):
    for dynamics in (LIF(0.37, 0.8), ALIF(7.0, 31.0, 0.9, 0.05)):
        compare(dynamics, currents(1.0, length=length), some_state(dynamics), through=True)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (1, 33), (2, 40), (40, 1), (3, 31), (2, 64)])
def test_every_width(batch, channels):
    dynamics = RF(17.0, 3.0, 0.012, 0.02)
    x = currents(1.0, batch, 5, channels)
    compare(dynamics, x, some_state(dynamics, batch, channels))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("length", "channels"), [(6, CHANNELS), (3, 40)])
def test_every_layout(length, channels):
    x = currents(1.0, 2, length, channels)
    wide = x.repeat_interleave(2, 1)
    layouts = [
        x.mT.contiguous().mT,
        x.transpose(0, 1).contiguous().transpose(0, 1),
        wide[:, ::2],
        x[:1].expand(x.shape),
    ]
    for each in (*layouts, x.permute(1, 2, 0).contiguous().permute(2, 0, 1), x.repeat_interleave(2, 2)[..., ::2]):
        grads = torch.randn(2, channels, length, dtype=x.dtype).mT, torch.randn(2, channels, 1, dtype=x.dtype).mT
        compare(LIF(0.4, 0.7), each, some_state(LIF(), 2, channels), grads=grads)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda g: type(g).__name__)
def test_every_spike_gradient(gradient):
    x = currents(1.0, length=5, dtype=torch.float32)
    x[0, :3, 0] = torch.tensor([60.0, -60.0, 0.3])  # far from the threshold, where a Gaussian is 0
    assert compare(LIF(0.37, 0.8, "soft"), x, some_state(LIF(), dtype=x.dtype), gradient, True)[3].any()


@pytest.mark.usefixtures("small")
def test_gradients_that_are_missing_or_not_wanted():
    x, state = currents(1.0, length=5), some_state(LIF())
    one, ones = torch.ones((), dtype=x.dtype), torch.randn(3, 1, CHANNELS, dtype=x.dtype)
    for grads in ((one.expand(x.shape), None), (None, ones), (None, None)):
        for learn in (True, False):
            *_, grad, first, fixed = compare(LIF(0.4, 0.7), x, state, learn=learn, grads=grads)
            assert grad.any() == first.any() == (grads != (None, None))
            assert fixed.shape == ((2, CHANNELS) if learn else (0,))


def test_nothing_is_kept_where_nothing_follows():
    x = currents(1.0, length=9).to(DEVICE)
    first, fixed = x.new_zeros(3, 1, CHANNELS), x.new_full((2, CHANNELS), 0.4)
    spikes, final, saved = neuron_triton.forward("lif", x, first, fixed, [1.0, 0.0], False)
    want = neuron_triton.forward("lif", x, first, fixed, [1.0, 0.0], True)
    assert saved.numel() == 0
    assert want[2].numel() > 0
    assert torch.equal(spikes, want[0])
    assert torch.equal(final, want[1])


@pytest.mark.usefixtures("small")
def test_a_state_too_small_to_be_normal_becomes_zero():
    tiny = torch.finfo(torch.float32).tiny
    for dynamics in (LIF(0.5), ALIF(1.0), RF(10.0, 30.0), BRF(10.0, 30.0, 0.5)):
        fields = {f: torch.full((1, 2), 3 * tiny) for f in dynamics.State._fields}
        x = torch.zeros(1, 6, 2)
        last = compare(dynamics, x, dynamics.State(**fields), grads=(x, torch.full((1, len(fields), 2), 3 * tiny)))[1]
        assert ((last == 0) | (last.abs() >= tiny)).all()
        assert (last == 0).any()


@st.composite
def cases(draw):
    _, dynamics, std = draw(st.sampled_from([d for d in FUSED if "channels" not in d[0]]))
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 12)), draw(st.sampled_from([1, 7, 33]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = currents(std * draw(st.sampled_from([0.3, 1, 3])), *shape, dtype, seed=draw(st.integers(0, 10**6)))
    x = x.mT.contiguous().mT if draw(st.booleans()) else x
    state = some_state(dynamics, shape[0], shape[2], dtype, draw(st.integers(0, 99)))
    return dynamics, x, state, draw(st.sampled_from(GRADIENTS)), draw(st.booleans()), draw(st.booleans())


@pytest.mark.usefixtures("small")
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_random_cases(case):
    compare(*case)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dynamics", [LIF(0.37, 0.8, "soft"), ALIF(7.0, 31.0, 0.9, 0.05)], ids=["lif", "alif"])
def test_as_a_solver_it_is_the_loop(dynamics, monkeypatch):
    monkeypatch.setattr(neuron, "_kernels", lambda current: neuron_triton)
    monkeypatch.setattr(neuron, "STRIDE", neuron_triton.STRIDE)
    results = []
    for solver in ("fused", Loop()):
        layer = Neuron(dynamics, CHANNELS, learn=dict.fromkeys(dynamics.transforms), solver=solver).to(DEVICE)
        x = currents(1.0, length=11, dtype=torch.float32).to(DEVICE).requires_grad_()
        spikes, state = layer(x)
        (spikes.sum() + sum(f.square().sum() for f in state)).backward()
        results.append([spikes.detach(), *(f.detach() for f in state), x.grad, *(p.grad for p in layer.parameters())])
    assert torch.equal(results[0][0], results[1][0])
    assert_lively(results[0][0])
    for got, want in zip(*results, strict=True):
        assert_close(got, want)


def test_compiled_for_a_gpu():
    """What the interpreter forgives, and what only the code shows: see `compiled`."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert len(found) == 2 * len(MODELS) + 2
    for name, facts in found.items():
        assert facts["shared"] == 0, f"{name}: tiles left the registers"
        assert not facts["crossing"], f"{name}: lanes exchange values: {facts['crossing']}"
        assert not facts["contracted"], f"{name}: {facts['contracted']} would not round as torch does"
        if "fp64" in name:
            assert {"mul", "add"} <= set(facts["double"])
        else:
            assert facts["double"] == (["add", "cvt"] if "backward" in name else []), name
            assert facts["single"] > 10


GPU_CASES = {"lif": (1.0, 0.0, "triangle"), "alif": (0.0, 0.0, "gaussians"), "rf": (0.012, 0.0, "multi_gaussians"),
             "brf": (0.012, 0.0, "arctan")}  # fmt: skip


def compiled():
    """Facts about the PTX for sm_90 of every model forward and backward, and of float64, in tiles of 4 steps.

    Arithmetic on doubles in a float32 kernel (its sums of parameter gradients alone are double), products contracted
    with a sum, traffic between threads, shared memory.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    found = {}
    for name, dtype in [(name, "fp32") for name in MODELS] + [("lif", "fp64")]:
        c0, c1, gradient = GPU_CASES[name]
        numbers = dict(zip(("N0", "N1", "N2", "N3", "N4"), (1.1, 0.5, 0.3, 0.2, 0.4), strict=True))
        shared = dict(
            zip(("C0", "C1", "S", "P"), (c0, c1, *MODELS[name]), strict=True), MODEL=name, STRIDE=8, T=4, BLOCK=32
        )
        for kernel, constants in (
            (neuron_triton._forward, {"SAVE": True}),
            (neuron_triton._backward, {**numbers, "GRADIENT": gradient, "THROUGH": True, "LEARN": True}),
        ):
            code = triton.compile(
                source(kernel, dtype, {**shared, **constants}), GPUTarget("cuda", 90, 32), neuron_triton.LAUNCH
            )
            ptx = code.asm["ptx"]
            found[f"{name}{kernel.__name__} {dtype}"] = {
                "shared": code.metadata.shared,
                "crossing": re.findall(r"\b(?:shfl|bar|[ls][dt]\.(?:shared|local))\b\S*", ptx),
                "contracted": re.findall(r"\bfma\S*", ptx) if dtype == "fp32" or "forward" in kernel.__name__ else [],
                "double": sorted({op.split(".")[0] for op in re.findall(r"\b[a-z]\S*\.f64\b\S*", ptx)} - {"mov"}),
                "single": len(re.findall(r"\b(?:add|sub|mul)\S*\.f32\b", ptx)),
            }
    return found


def source(kernel, dtype, constants):
    """The kernel with its types, as `triton.compile` takes it; the name of one argument changed after Triton 3.2."""
    from triton.compiler import ASTSource

    def kind(name):
        return "i32" if name in neuron_triton.RUNTIME else "*fp64" if name == "sums" else "*" + dtype

    types = {name: kind(name) for name in kernel.arg_names if name not in constants}
    if "constants" in inspect.signature(ASTSource).parameters:
        return ASTSource(kernel, types, constants=constants)
    return ASTSource(kernel, {n: types.get(n, "constexpr") for n in kernel.arg_names}, constexprs=constants)


if __name__ == "__main__":
    print(json.dumps(compiled()))
