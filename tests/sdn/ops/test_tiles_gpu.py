"""The Triton kernels in the tiles that a GPU runs, with every edge; the other tests make the tiles short."""

import importlib.util

import pytest
import torch
from helpers import DYNAMICS, assert_close, assert_lively, currents, some_state

from sdn import ALIF, LIF
from sdn.compiler.programs import slope_of
from sdn.compiler.sources import module_of
from sdn.dynamics import HRF
from sdn.gradients import MultiGaussian
from sdn.ops.modes import cpu as modes_cpu
from sdn.ops.modes import operator as modes
from sdn.ops.neuron import cpu as neuron_cpu
from sdn.ops.neuron import operator as neuron_operator
from sdn.ops.neuron.sequence import operands
from sdn.ops.resonate import cpu as resonate_cpu
from sdn.ops.resonate import operator as resonate_operator
from sdn.ops.scan import cpu as scan_cpu

if importlib.util.find_spec("triton") is None:
    pytest.skip("no triton: it comes with extra 'dev' on Linux, and with torch for CUDA", allow_module_level=True)
from test_neuron_gpu import Clamped

from sdn.ops.common import functions_gpu
from sdn.ops.modes import gpu as modes_triton
from sdn.ops.neuron import gpu as neuron_triton
from sdn.ops.resonate import gpu as resonate_triton
from sdn.ops.scan import gpu as scan_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _as_they_are(monkeypatch):
    """Whatever another test file has made of them when it was read."""
    sizes = {
        neuron_triton: {"STRIDE": 64, "AHEAD": 32, "BEHIND": 16},
        resonate_triton: {"STRIDE": 32, "AHEAD": 16, "BEHIND": 8},
        modes_triton: {"BLOCK": 64, "CELL": 16}, scan_triton: {"AHEAD": 32, "BEHIND": 16, "BLOCK": 32},
    }  # fmt: skip
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


def moved(*given):
    return [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in given]


def same(got, want, factor=1):
    for one, other in zip(got, want, strict=True):
        if other.numel():
            assert_close(one.cpu(), other, factor=factor)


@pytest.mark.parametrize(
    ("dynamics", "std", "length"),
    [(LIF(0.37, 0.8, "soft"), 1.0, 63), (ALIF(7.0, 31.0, 0.9, 0.05), 1.0, 97), (HRF(21.0, 2.5, 0.8, 0.012), 50.0, 97)],
)
def test_neurons(dynamics, std, length):
    x, state = currents(std, 1, length, 33, torch.float32), some_state(dynamics, 1, 33, torch.float32)
    (key, fixed, numbers), first, slope = operands(dynamics, x, state, dynamics.default_spike)
    given, gradients = (x, first, fixed), (torch.randn_like(x), torch.randn_like(first), torch.randn_like(x))
    want = neuron_cpu.forward(key, *given, numbers, True, True)
    got = neuron_triton.forward(key, *moved(*given), numbers, True, True)
    assert_lively(want[0])
    assert all(torch.equal(one.cpu(), other) for one, other in zip(got, want, strict=True))
    back = (x, fixed, want[2], numbers, *slope, False, True)
    same(neuron_triton.backward(key, *moved(*gradients, *back)), neuron_cpu.backward(key, *gradients, *back))
    assert want[2].shape[1] == -(-length // neuron_operator.STRIDE)


@pytest.mark.parametrize(
    ("channels", "n", "refractory", "magnitude"),
    [(33, 0, 0.7, False), (5, 0, 0.0, True), (32, 16, 0.7, True), (48, 48, 0.0, False)],
)
def test_resonators(channels, n, refractory, magnitude):
    length, fields = 45, 3 if refractory else 2
    factor = torch.polar(torch.full((channels,), 0.95), 6 * torch.rand(channels))
    fixed = torch.stack(
        [factor.real, factor.imag, *torch.randn(2, channels), torch.full((channels,), 4.0 if magnitude else 0.8)]
    )
    drive, state = torch.randn(1, length, 2 * channels), torch.rand(1, fields, channels)
    rotation = torch.view_as_real(torch.linalg.qr(torch.randn(n, n, dtype=torch.complex64)).Q).permute(2, 0, 1)
    want = resonate_cpu.forward(drive, state, fixed, rotation, magnitude, refractory, True)
    got = resonate_triton.forward(*moved(drive, state, fixed, rotation), magnitude, refractory, True)
    assert_lively(want[0])
    assert n or torch.equal(got[0].cpu(), want[0])
    assert (got[0].cpu() != want[0]).float().mean() < 0.01
    same(got[1:], want[1:])
    assert want[2].shape[1] == -(-length // resonate_operator.STRIDE)
    gradients = torch.randn_like(want[0]), torch.randn_like(state)
    options = magnitude, refractory, *slope_of(MultiGaussian()), True
    found = []
    for kernels, place in ((resonate_cpu, lambda *x: x), (resonate_triton, moved)):
        out = torch.empty_like(drive).to(DEVICE if kernels is resonate_triton else "cpu")
        given = *gradients, drive, fixed, rotation, want[2]
        others = kernels.backward(*place(*given), *options, out)
        found.append([out, *others])
    same(found[1], found[0], factor=20)


def test_modes():
    u, state = torch.randn(1, 70, 17), torch.randn(1, 5, 2, 17)
    factors = torch.stack([torch.full((17, 5), 0.6), torch.full((17, 5), 0.7), *torch.randn(3, 17, 5)])
    given = u, factors.permute(2, 0, 1).contiguous(), torch.randn(17), False
    found = []
    for kernels, place in ((modes_cpu, lambda *x: x), (modes_triton, moved)):
        saved = modes._saved(u, torch.empty(17, 5), True)
        start, kept = place(state.clone(), saved)
        y = kernels.run(*place(*given), start, kept)
        adjoint = place(state.clone())[0]
        back = kernels.run_backward(*place(torch.ones_like(u), *given), kept, adjoint)
        found.append([x.float() for x in (y, start, *back, adjoint)])  # some are sums of float32 in float64
    same(found[1], found[0], factor=10)
    assert found[0][0].abs().mean() > 0.1


@pytest.mark.parametrize("reverse", [False, True])
def test_scans(reverse):
    a = torch.polar(torch.full((1, 1, 33), 0.9), 6 * torch.rand(1, 1, 33))
    b, initial, grad = (torch.randn(1, *shape, dtype=torch.complex64) for shape in ((70, 33), (33,), (70, 33)))
    want = scan_cpu.forward(a, b, initial, reverse)
    got = scan_triton.forward(*moved(a, b, initial), reverse).cpu()
    same([torch.view_as_real(got)], [torch.view_as_real(want)], factor=10)
    back = grad, a, want, initial
    pairs = zip(scan_triton.backward(*moved(*back), reverse), scan_cpu.backward(*back, reverse), strict=True)
    for one, other in pairs:
        same([torch.view_as_real(one.cpu().resolve_conj())], [torch.view_as_real(other.resolve_conj())], factor=10)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in the interpreter
@pytest.mark.parametrize(("dynamics", "std"), [*[(d, std) for n, d, std in DYNAMICS if "ch" not in n], (Clamped(), 2)])
def test_nan_is_nan_in_the_spikes(dynamics, std):
    x = currents(std, 1, 5, 3, torch.float32)
    state = dynamics.initial_state(1, 3)
    (key, fixed, numbers), first, _ = operands(dynamics, x, state, dynamics.default_spike)
    run = lambda *given: neuron_triton.forward(key, *moved(*given), numbers, False, False)[0].cpu()  # noqa: E731
    clean = run(x, first, fixed)
    assert torch.isfinite(clean).all()
    for bad in (float("inf"), float("nan")):
        broken = x.clone()
        broken[0, 2, 1] = bad
        spikes = run(broken, first, fixed)
        assert torch.isnan(spikes[0, 2:, 1]).all()
        assert torch.equal(spikes[:, :2], clean[:, :2])
        assert torch.equal(spikes[:, :, [0, 2]], clean[:, :, [0, 2]])
        for row in range(len(fixed)):
            broken = fixed.clone()
            broken[row, 2] = bad
            assert torch.isnan(run(x, first, broken)[:, :, 2]).all()
    for field in range(len(state)):
        broken = first.clone()
        broken[:, field, 2] = float("nan")
        assert torch.isnan(run(x, broken, fixed)[:, :, 2]).all()


N = 512


def power(x, y):
    return torch.where((x < 0) & (y != y.floor()), torch.nan, x**y)


FUNCTIONS = {
    **{name: getattr(torch, name) for name in (
        "atan", "ceil", "cos", "cosh", "erf", "exp", "expm1", "floor", "log", "log1p", "reciprocal", "sigmoid", "sin",
        "sinh", "tan", "tanh", "trunc",
    )},
    "sign": lambda x: torch.where(x.isnan(), x, x.sign()), "root": torch.sqrt, "round_even": torch.round,
    "divide": torch.div, "minimum": torch.minimum, "maximum": torch.maximum, "power": power,
    "real": lambda x, y: (x > y).to(x), "not_": lambda x, y: (~(x > y)).to(x),
}  # fmt: skip
EXACT = {"ceil", "divide", "floor", "maximum", "minimum", "not_", "real", "reciprocal", "round_even", "sign", "trunc"}
OPERANDS = dict.fromkeys(("divide", "maximum", "minimum", "power"), "x, y") | {"real": "x > y, x", "not_": "x > y"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_of_generated_code(dtype):
    """All that `sdn.compiler` writes for Triton, on numbers of every size and at the edges."""
    assert set(FUNCTIONS) == functions_gpu.FUNCTIONS
    stores = [f"tl.store(out + {i * N} + lane, {n}({OPERANDS.get(n, 'x')}))" for i, n in enumerate(FUNCTIONS)]
    text = [
        "import triton", "import triton.language as tl", f"from {functions_gpu.__name__} import {', '.join(FUNCTIONS)}",
        "@triton.jit", "def kernel(a, b, out):", f"    lane = tl.arange(0, {N})[None, :]",
        "    x, y = tl.load(a + lane), tl.load(b + lane)", *(f"    {line}" for line in stores),
    ]  # fmt: skip
    x = torch.randn(N, dtype=torch.float64) * torch.exp(2 * torch.randn(N, dtype=torch.float64))
    y = 2 * torch.randn(N, dtype=torch.float64)
    x[:8] = torch.tensor([0, -0.0, 1, 0.5, -1.5, 2.5, torch.inf, 1e-30])
    x[10], y[11] = torch.nan, torch.nan
    y[8:40] = torch.arange(-16, 16)
    x, y = x.to(dtype), y.to(dtype)
    found = torch.empty(len(FUNCTIONS), N, dtype=dtype, device=DEVICE)
    module_of("functions-gpu", "\n".join(text) + "\n").kernel[(1,)](*moved(x, y), found)
    for (name, function), got in zip(FUNCTIONS.items(), found.cpu(), strict=True):
        want = function(*(z.double() for z in (x, y)[: 2 if name in OPERANDS else 1])).to(dtype)
        assert torch.equal(torch.isnan(got), torch.isnan(want)), name
        error = torch.where(got == want, 0, (got - want).abs() / want.abs()).nan_to_num(0)
        ulps = 0 if name in EXACT else 200 if name == "power" else 3
        assert error.max() <= ulps * torch.finfo(dtype).eps, name
