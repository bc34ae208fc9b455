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
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import gpu_code
import hypothesis.strategies as st
import pytest
import torch
from helpers import (
    CHANNELS,
    DYNAMICS,
    assert_close,
    assert_lively,
    currents,
    every_dtype,
    every_dynamics,
    some_state,
)
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from sdn import ALIF, BRF, LIF, RF, ArcTan, DoubleGaussian, Dynamics, Loop, MultiGaussian, Neuron, Sigmoid, Triangle
from sdn.compiler.neuron import WATCH
from sdn.compiler.programs import program_of
from sdn.dynamics import IzhikevichRF
from sdn.ops.neuron import cpu as neuron_cpu
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import STRIDE, spikes_like
from sdn.ops.neuron.sequence import operands

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


class One(NamedTuple):
    u: Tensor


class Three(NamedTuple):
    u: Tensor
    x: Tensor
    spike_of: Tensor


@dataclass(frozen=True, eq=False)
class Clamped(Dynamics):
    """A potential that is held between bounds, which no NaN could pass; its reset has two strengths."""

    decay: float | Tensor = 0.8
    after: float | Tensor = -0.5
    threshold: float | Tensor = 0.6

    State = One
    transforms: ClassVar[dict[str, str]] = {"decay": "logit", "threshold": "log"}

    def past(self, state):
        return self.decay * state.u

    def advance(self, state, current, spike):
        u = (self.decay * state.u + current) / (1 + state.u.abs())
        lower = torch.where((u > 2) & ~(state.u < 0), torch.full_like(u, 0.25), 0.75)
        return One(
            torch.where(spike > 0, lower * self.after, u.round() * 0.1 + torch.sqrt(u * u + 0.01)).clamp(-0.5, 0.9)
        )


@dataclass(frozen=True, eq=False)
class Exponential(Dynamics):
    """An exponential integrate-and-fire neuron, with a soft ceiling."""

    width: float | Tensor = 0.5
    threshold: float | Tensor = 1.0

    State = One
    fires_at_threshold: ClassVar[bool] = False

    def past(self, state):
        rise = self.width * torch.exp((state.u - self.threshold) / self.width)
        return torch.tanh(0.9 * state.u + 0.1 * rise) + torch.log1p(state.u.abs()) * 0.1

    def advance(self, state, current, spike):
        return One((self.past(state) + current) * (1 - spike))


@dataclass(frozen=True, eq=False)
class Layered(Dynamics):
    """Three states with names that generated code uses itself, and an option."""

    n: float | Tensor = 0.9
    gs: float | Tensor = 0.3
    threshold: float | Tensor = 0.7
    slow: bool = True

    State = Three
    default_spike = ArcTan(2.0)

    def past(self, state):
        return self.n * state.u + self.gs * state.x - (state.spike_of if self.slow else 0.0)

    def advance(self, state, current, spike):
        x = 0.5 * state.x + current
        after = (self.gs * state.spike_of + spike).clamp(max=1.2)
        return Three(torch.where(spike > 0, torch.zeros_like(x), state.u * self.n + x), x, after)


OWN = [
    ("clamped", Clamped(), 2.0),
    ("clamped-channels", Clamped(torch.linspace(0.3, 0.9, CHANNELS), torch.linspace(-1, 0, CHANNELS)), 2.0),
    ("layered", Layered(), 0.7),
    ("layered-slow", Layered(slow=False), 0.7),
]


def outcome(kernels, device, dynamics, x, state, gradient, grads, through, learn):
    """What both operators return: spikes, last state, kept states, mem; gradients of current, state, parameters."""
    kernel, first, slope = operands(dynamics.to("cpu", x.dtype), x, state, gradient or dynamics.default_spike)
    key, fixed, numbers = kernel
    x, first, fixed, *grads = (None if t is None else t.to(device) for t in (x, first, fixed, *grads))
    forward = kernels.forward(key, x, first, fixed, numbers, True, grads[2] is not None)
    backward = kernels.backward(key, *grads, x, fixed, forward[2], numbers, *slope, through, learn)
    return [t.cpu() for t in (*forward, *backward)]


def random_grads(dynamics, x, record=False):
    fields = len(program_of(dynamics).step.states)
    state = torch.randn(len(x), fields, x.shape[2], dtype=x.dtype)
    return torch.randn_like(x), state, torch.randn_like(x) if record else None


def compare(dynamics, x, state, gradient=None, through=False, learn=True, grads=None, record=False):
    """The same from both: forward bit for bit where it is exact, gradients to rounding; then what the CPU says."""
    grads = grads or random_grads(dynamics, x, record)
    exact = not program_of(dynamics).step.rounded
    case = dynamics, x, state, gradient, grads, through, learn
    want = outcome(neuron_cpu, "cpu", *case)
    got = outcome(neuron_triton, DEVICE, *case)
    assert torch.equal(got[0], want[0]), f"{int((got[0] != want[0]).sum())} spikes differ"
    same = lambda one, other: torch.equal(one, other) or (not exact and assert_close(one, other) is None)  # noqa: E731
    assert same(got[1], want[1])
    assert same(got[3], want[3])
    assert got[2].shape != want[2].shape or same(got[2], want[2])
    assert got[0].stride() == got[4].stride() == spikes_like(x).stride()
    for one, other in zip(got[4:], want[4:], strict=True):
        assert torch.isfinite(one).all()
        assert one.numel() == other.numel() == 0 or assert_close(one, other) is None
    return want


@pytest.mark.usefixtures("small")
@every_dtype
@every_dynamics
def test_it_is_the_cpu_kernel(dynamics, std, dtype):
    """In float32 with the membrane and its gradient, in float64 with one through the reset."""
    x, single = currents(3 * std, length=11, dtype=dtype), dtype == torch.float32
    spikes, _, saved, mem, *grads = compare(dynamics, x, some_state(dynamics, dtype=dtype), None, not single,
                                            record=single)  # fmt: skip
    assert_lively(spikes)
    assert saved.any()
    assert mem.any() == single
    assert all(g.any() for g in grads)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("dynamics", "std"), [pytest.param(d, s, id=n) for n, d, s in OWN])
def test_a_neuron_of_your_own(dynamics, std):
    x = currents(std, length=11, dtype=torch.float32)
    spikes, *_, grad, first, fixed = compare(dynamics, x, some_state(dynamics, dtype=x.dtype), None, True, record=True)
    assert_lively(spikes)
    assert grad.any()
    assert first.any()
    assert fixed.flatten(1).any(1).sum() >= 2


@pytest.mark.usefixtures("small")
@every_dtype
def test_an_exponential_in_the_step_is_the_cpu_to_rounding(dtype):
    dynamics = Exponential()
    x = currents(1.0, length=11, dtype=dtype)
    spikes, *_ = compare(dynamics, x, some_state(dynamics, dtype=dtype))
    assert_lively(spikes)


def test_the_watch_is_the_last_state():
    assert program_of(Clamped()).step.states == ("u", WATCH)
    assert program_of(Layered()).step.states == ("u", "x", "spike_of", WATCH)


def test_chunks_as_they_are():
    assert neuron_triton.STRIDE == STRIDE == 64
    assert neuron_triton.steps_behind(program_of(LIF()).key, False) == 16
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
        grads = torch.randn(2, channels, length, dtype=x.dtype).mT, torch.randn(2, channels, 1, dtype=x.dtype).mT, None
        compare(LIF(0.4, 0.7), each, some_state(LIF(), 2, channels), grads=grads)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda g: type(g).__name__)
def test_every_spike_gradient(gradient):
    x = currents(1.0, length=5, dtype=torch.float32)
    x[0, :3, 0] = torch.tensor([60.0, -60.0, 0.3])  # far from the threshold, where a Gaussian is 0
    assert compare(LIF(0.37, 0.8, "soft"), x, some_state(LIF(), dtype=x.dtype), gradient, True)[4].any()


@pytest.mark.usefixtures("small")
def test_gradients_that_are_missing_or_not_wanted():
    x, state = currents(1.0, length=5, dtype=torch.float32), some_state(LIF(), dtype=torch.float32)
    one, ones = torch.ones((), dtype=x.dtype), torch.randn(3, 1, CHANNELS, dtype=x.dtype)
    for grads in ((one.expand(x.shape), None, None), (None, ones, None), (None, None, one.expand(x.shape)), [None] * 3):
        for learn in (True, False):
            *_, grad, first, fixed = compare(LIF(0.4, 0.7), x, state, learn=learn, grads=grads)
            assert first.any() == any(g is not None for g in grads)
            assert grad.any() == first.any()
            assert fixed.shape == ((2, CHANNELS) if learn else (0,))


def test_nothing_is_kept_where_nothing_follows():
    x = currents(1.0, length=9).to(DEVICE)
    kernel, first, _ = operands(LIF(0.4, 0.7), x, some_state(LIF()), Triangle())
    given = kernel.program, x, first.to(DEVICE), kernel.fixed.to(DEVICE), kernel.numbers
    spikes, final, saved, mem = neuron_triton.forward(*given, False, False)
    want = neuron_triton.forward(*given, True, True)
    assert saved.numel() == mem.numel() == 0
    assert want[2].numel() > 0
    assert want[3].shape == x.shape
    assert torch.equal(spikes, want[0])
    assert torch.equal(final, want[1])


@pytest.mark.usefixtures("small")
def test_a_state_too_small_to_be_normal_becomes_zero():
    tiny = torch.finfo(torch.float32).tiny
    for dynamics in (LIF(0.5), ALIF(1.0), RF(10.0, 30.0), BRF(10.0, 30.0, 0.5)):
        fields = {f: torch.full((1, 2), 3 * tiny) for f in dynamics.State._fields}
        x = torch.zeros(1, 6, 2)
        last = compare(
            dynamics, x, dynamics.State(**fields), grads=(x, torch.full((1, len(fields), 2), 3 * tiny), None)
        )[1]
        assert ((last == 0) | (last.abs() >= tiny)).all()
        assert (last == 0).any()


@st.composite
def cases(draw):
    _, dynamics, std = draw(st.sampled_from([d for d in DYNAMICS if "channels" not in d[0]]))
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 12)), draw(st.sampled_from([1, 7, 33]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = currents(std * draw(st.sampled_from([0.3, 1, 3])), *shape, dtype, seed=draw(st.integers(0, 10**6)))
    x = x.mT.contiguous().mT if draw(st.booleans()) else x
    state = some_state(dynamics, shape[0], shape[2], dtype, draw(st.integers(0, 99)))
    return dynamics, x, state, dtype == torch.float64, draw(st.booleans())


@pytest.mark.usefixtures("small")
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_random_cases(case):
    dynamics, x, state, through, learn = case
    compare(dynamics, x, state, None, through, learn, record=not through)


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


def test_it_is_called_as_the_cpu_kernel_is():
    for name in ("forward", "backward"):
        assert inspect.signature(getattr(neuron_triton, name)) == inspect.signature(getattr(neuron_cpu, name))


def test_compiled_for_a_gpu():
    """What the interpreter forgives, and what only the code shows: see `facts`."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert len(found) == 2 * len(COMPILED) + 2
    for name, case in found.items():
        assert case["shared"] == 0, f"{name}: tiles left the registers"
        assert not case["crossing"], f"{name}: lanes exchange values: {case['crossing']}"
        if "Exponential" not in name:
            assert not case["contracted"], f"{name}: {case['contracted']} would not round as torch does"
        if "fp64" in name:
            assert {"mul", "add"} <= set(case["double"])
        else:
            assert case["double"] == (["add", "cvt"] if "backward" in name else []), name
            assert case["single"] > 10


COMPILED = [
    (LIF(), Triangle()), (BRF(), ArcTan()), (IzhikevichRF(), MultiGaussian()), (Clamped(), Sigmoid()),
    (Layered(), DoubleGaussian()), (Exponential(), None),
]  # fmt: skip


def facts():
    """Facts about the PTX for sm_90 of some neurons forward and backward, and of float64, in tiles of 4 steps.

    Arithmetic on doubles in a float32 kernel (its sums of parameter gradients alone are double), products contracted
    with a sum, traffic between threads, shared memory.
    """
    found = {}
    for (dynamics, gradient), dtype in [(each, "fp32") for each in COMPILED] + [(COMPILED[0], "fp64")]:
        name = type(dynamics).__name__
        for case, *rest in gpu_code.neuron(name, dynamics, name == "LIF", gradient, STRIDE=8, T=4):
            code = gpu_code.compiled(*rest, dtype=dtype)
            ptx = code.asm["ptx"]
            contracted = re.findall(r"\bfma\S*", ptx) if dtype == "fp32" or "forward" in case else []
            found[f"{case} {dtype}"] = {
                "shared": code.metadata.shared,
                "crossing": re.findall(r"\b(?:shfl|bar|[ls][dt]\.(?:shared|local))\b\S*", ptx),
                "contracted": contracted,
                "double": sorted({op.split(".")[0] for op in re.findall(r"\b[a-z]\S*\.f64\b\S*", ptx)} - {"mov"}),
                "single": len(re.findall(r"\b(?:add|sub|mul)\S*\.f32\b", ptx)),
            }
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
