"""The Triton form of recurrent layers against the plain loop: in Triton's interpreter where there is no GPU.

Run as a script, this file compiles the kernels for a GPU that need not be there.
"""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys

import gpu_code
import pytest
import torch
from helpers import assert_close, assert_lively, some_state

from sdn import ALIF, BRF, LIF, RF, ArcTan, DoubleGaussian, MultiGaussian, Sigmoid, Triangle
from sdn.dynamics import HRF, IzhikevichRF
from sdn.ops.neuron.sequence import operands
from sdn.ops.recurrent import cpu as recurrent_cpu
from sdn.ops.recurrent import operator
from sdn.ops.recurrent.recurrent import RecurrentState, recurrent

if importlib.util.find_spec("triton") is None:
    pytest.skip("no triton: it comes with extra 'dev' on Linux, and with torch for CUDA", allow_module_level=True)
from test_neuron_gpu import Clamped, Exponential

from sdn.ops.recurrent import gpu as recurrent_triton
from sdn.ops.recurrent import tiles as recurrent_tiles_triton

STRIDE = recurrent_triton.STRIDE  # before it is made short
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_h = torch.linspace(0.0, 1.0, 7)
NEURONS = [
    ("lif-hard", LIF(0.37, 0.8), 1.0),
    ("lif-soft", LIF(0.9 - 0.7 * _h, 0.5 + _h, "soft"), 1.0),
    ("alif", ALIF(4.0 + 9 * _h, 20 + 50 * _h, 0.4 + _h, 0.02 + 0.1 * _h), 1.0),
    ("rf", RF(5 + 20 * _h, 4 + 2 * _h, dt=0.008, threshold=0.5 + _h), 40.0),
    ("brf", BRF(8 + 40 * _h, 1 + 3 * _h, 0.5 + 0.4 * _h, dt=0.009, threshold=0.6 + 0.5 * _h), 60.0),
    ("brf-without-refractory-period", BRF(23.0, 2.5, 0.8, 0.012, 0.7, refractory_period=False), 50.0),
    ("hrf", HRF(10 + 40 * _h, 1 + 3 * _h, 0.5 + 0.4 * _h, dt=0.009, threshold=0.6 + 0.5 * _h), 60.0),
    ("izhikevich", IzhikevichRF(omega=17.0, damping=3.0, dt=0.012, threshold=1.1), 90.0),
    ("clamped", Clamped(0.5 + 0.4 * _h), 2.0),
]
every_neuron = pytest.mark.parametrize(("dynamics", "std"), [pytest.param(d, s, id=n) for n, d, s in NEURONS])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Chunks of 4 steps, and few terms at once: the interpreter takes milliseconds a step."""
    monkeypatch.setattr(recurrent_triton, "STRIDE", 4)
    monkeypatch.setattr(recurrent_triton, "TERMS", 4)
    monkeypatch.setattr(operator, "_kernels", lambda x: recurrent_triton)


def leaves_of(dynamics, std, batch=3, length=7, inputs=5, channels=7, dtype=torch.float64):
    """x, weight, bias, spikes and state before the first step, and the dynamics with its fields as leaves."""
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64).to(dtype)  # noqa: E731
    weight = std * draw(channels, inputs + channels) / (inputs + 1) ** 0.5
    tensors = [draw(batch, length, inputs), weight, 0.2 * std * draw(channels), (draw(batch, channels) > 0).to(dtype)]
    tensors += some_state(dynamics, batch, channels, dtype)
    learned = {
        name: torch.as_tensor(getattr(dynamics, name), dtype=dtype).expand(channels).clone()
        for name in dynamics.transforms
    }
    return tensors, learned


def outcome(solver, dynamics, tensors, learned, weights, **options):
    """Spikes and last state; then the gradients of all leaves, of the sum of spikes and last state by ``weights``."""
    leaves = [t.to(DEVICE).requires_grad_() for t in tensors]
    fields = {name: value.to(DEVICE).requires_grad_() for name, value in learned.items()}
    x, weight, bias, spikes0, *first = leaves
    initial = RecurrentState(dynamics.State(*first), spikes0)
    spikes, last = recurrent(x, weight, dynamics.replace(**fields), initial, bias=bias, solver=solver, **options)
    parts = [spikes, *last.neuron]
    terms = [(part * w.to(DEVICE)).sum() for part, w in zip(parts, weights, strict=True) if w is not None]
    wanted = [*leaves, *fields.values()]
    grads = torch.autograd.grad(sum(terms), wanted, allow_unused=True)
    grads = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True)]
    return [t.detach().cpu() for t in parts], [g.cpu() for g in grads]


def compare(dynamics, std, weights=None, detach_reset=False, spike_gradient=None, **sizes):
    """Spikes equal, the rest to rounding; then what the loop says."""
    tensors, learned = leaves_of(dynamics, std, **sizes)
    x, bias = tensors[0], tensors[2]
    if weights is None:
        state = len(x), len(dynamics.State._fields), len(bias)
        weights = [torch.randn(*x.shape[:2], len(bias), dtype=x.dtype), *torch.randn(state, dtype=x.dtype).unbind(1)]
    options = {"detach_reset": detach_reset, "spike_gradient": spike_gradient}
    want, want_grads = outcome("loop", dynamics, tensors, learned, weights, **options)
    got, got_grads = outcome("fused", dynamics, tensors, learned, weights, **options)
    assert torch.equal(got[0], want[0]), f"{int((got[0] != want[0]).sum())} spikes differ"
    for one, other in zip(got[1:] + got_grads, want[1:] + want_grads, strict=True):
        assert torch.isfinite(one).all()
        assert_close(one, other)
    return want, want_grads


@every_neuron
@pytest.mark.parametrize("detach_reset", [False, True], ids=["through", "detached"])
def test_it_is_the_loop(dynamics, std, detach_reset):
    dtype = torch.float64 if detach_reset else torch.float32
    (spikes, *_), grads = compare(dynamics, std, detach_reset=detach_reset, dtype=dtype)
    assert_lively(spikes)
    assert all(g.any() for g in grads)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9])
def test_every_length(length):
    compare(LIF(0.37, 0.8, "soft"), 1.0, length=length, dtype=torch.float32)


@pytest.mark.parametrize(("batch", "inputs", "channels"), [(1, 1, 1), (17, 1, 3), (33, 2, 2), (2, 37, 16), (2, 5, 35)])
def test_every_width(batch, inputs, channels):
    compare(ALIF(7.0, 31.0, 0.9, 0.05), 1.0, batch=batch, length=3, inputs=inputs, channels=channels)


@pytest.mark.parametrize(("dynamics", "std"), [(LIF(0.37, 0.8), 1.0), (ALIF(7.0, 31.0), 1.0), (BRF(23.0), 60.0)])
@pytest.mark.parametrize("rows", [1, 2, 16])
def test_more_neurons_than_a_tile_holds(dynamics, std, rows, monkeypatch):
    monkeypatch.setattr(recurrent_triton, "WIDEST", 16)
    monkeypatch.setattr(recurrent_triton, "NUMBERS", 16 * rows)
    monkeypatch.setattr(recurrent_triton, "FULL", {1: 9, 2: 1, 16: 0}[rows])
    sizes = {"batch": 2, "length": 5, "channels": 19}
    assert recurrent_triton.shape_of(2, torch.empty(5 + 19, 19))[:3] == (rows, 16, 2)
    (spikes, *_), grads = compare(dynamics, std / 2, **sizes, dtype=torch.float32)
    assert_lively(spikes, low=0.01)
    assert all(g.any() for g in grads)


@pytest.mark.parametrize(("batch", "rows"), [(2, 1), (3, 2), (4, 2), (7, 4), (9, 16), (35, 16)])
def test_every_number_of_rows(batch, rows, monkeypatch):
    """Rows that a program has and the batch has not, with and without tl.dot."""
    monkeypatch.setattr(recurrent_triton, "FULL", 2)
    assert recurrent_triton.shape_of(batch, torch.empty(12, 7)).rows == rows
    (spikes, *_), grads = compare(LIF(0.37, 0.8, "soft"), 1.0, batch=batch, length=5, dtype=torch.float32)
    assert_lively(spikes, low=0.01)
    assert all(g.any() for g in grads)


@pytest.mark.parametrize(("batch", "rows", "tiles"), [(1, 1, 1), (3, 4, 1), (5, 16, 4)])
def test_the_shapes_that_run(batch, rows, tiles, monkeypatch):
    """256 neurons, so that the terms of a product are read several times over."""
    monkeypatch.setattr(recurrent_triton, "FULL", 1)
    monkeypatch.setattr(recurrent_triton, "TERMS", 32)
    assert recurrent_triton.shape_of(batch, torch.empty(261, 256))[:3] == (rows, 256 // tiles, tiles)
    sizes = {"batch": batch, "length": 3, "channels": 256}
    (spikes, *_), grads = compare(BRF(23.0, 2.5, 0.8, 0.012, 0.7), 20.0, **sizes, dtype=torch.float32)
    assert_lively(spikes, low=0.01)
    assert all(g.any() for g in grads)


def test_small_batches_fill_a_card_and_large_ones_read_the_weights_for_many_rows():
    programs = {}
    for batch in (1, 16, 64, 128, 129, 256, 300, 512, 513, 4096):
        for channels in (7, 64, 128, 256, 512, 1000):
            for dtype in (torch.float32, torch.float64):
                shape = recurrent_triton.shape_of(batch, torch.empty(channels + 3, channels, dtype=dtype))
                assert shape.block * shape.tiles >= channels
                assert shape.rows < 16 or shape.block * dtype.itemsize <= 256
                assert shape.rows == 16 or shape.rows * shape.block * dtype.itemsize <= 4096
            programs[batch] = -(-batch // shape.rows)
    assert programs == {1: 1, 16: 16, 64: 64, 128: 128, 129: 65, 256: 128, 300: 75, 512: 128, 513: 33, 4096: 256}


@pytest.mark.parametrize("gradient", [Triangle(0.7), DoubleGaussian(), MultiGaussian(), ArcTan(3.0), Sigmoid()])
def test_every_spike_gradient(gradient):
    assert compare(LIF(0.37, 0.8), 1.0, length=3, spike_gradient=gradient)[1][0].any()


def test_gradients_that_are_missing():
    dynamics = BRF(23.0, 2.5, 0.8, 0.012, 0.7)
    spikes, last = torch.randn(3, 5, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    for weights in ([spikes, None, None, None], [None, last, last, last]):
        assert compare(dynamics, 50.0, weights, length=5)[1][0].any()


def case_of(dynamics, std, **sizes):
    """What the operators take of a random layer: tensors for the way forward, numbers, spike gradient."""
    (x, weight, bias, spikes0, *first), _ = leaves_of(dynamics, std, **sizes)
    like = x[:, :1, :1].expand(-1, -1, len(bias))
    kernel, first, slope = operands(dynamics, like, dynamics.State(*first), dynamics.default_spike)
    return (
        kernel.program,
        [t.to(DEVICE) for t in (x, weight.T, bias, first, spikes0, kernel.fixed)],
        kernel.numbers,
        slope,
    )


def test_it_is_the_cpu_kernel(monkeypatch):
    """With inputs of 0 and 1 all products are exact, so that only the order of the sums could differ on a GPU."""
    monkeypatch.setattr(recurrent_triton, "STRIDE", operator.STRIDE)
    key, tensors, numbers, slope = case_of(BRF(23.0, 2.5, 0.8, 0.012, 0.7), 50.0, length=18, dtype=torch.float32)
    tensors[0] = (tensors[0] > 1).float()
    results = []
    for kernels, device in ((recurrent_cpu, "cpu"), (recurrent_triton, DEVICE)):
        x, weight, bias, first, spikes0, fixed = (t.to(device) for t in tensors)
        forward = kernels.forward(key, x, weight, bias, first, spikes0, fixed, numbers, True)
        given = x, weight, bias, spikes0, fixed, forward[0], forward[2], numbers, *slope
        grads = forward[0].cumsum(1), forward[1].square()
        results.append([t.cpu() for t in (*forward, *kernels.backward(key, *grads, *given, True, True))])
    assert torch.equal(results[0][0], results[1][0])
    assert_lively(results[0][0])
    assert results[0][2].shape == (3, 2, 3, 7)
    for want, got in zip(*results, strict=True):
        assert_close(got, want)


def test_nothing_is_kept_or_computed_that_is_not_wanted():
    key, tensors, numbers, slope = case_of(LIF(0.37, 0.8), 1.0, length=5)
    spikes, final, saved = recurrent_triton.forward(key, *tensors, numbers, False)
    want = recurrent_triton.forward(key, *tensors, numbers, True)
    assert saved.shape == (0, 2, 1, 7)
    assert torch.equal(want[2][:, 0], tensors[3])
    assert torch.equal(spikes, want[0])
    assert torch.equal(final, want[1])
    x, weight, bias, _, spikes0, fixed = tensors
    given = x, weight, bias, spikes0, fixed, spikes, want[2], numbers, *slope
    grads = [recurrent_triton.backward(key, spikes, None, *given, True, need_x) for need_x in (False, True)]
    assert grads[0][0].numel() == 0
    assert grads[1][0].any()
    for one, other in zip(grads[0][1:], grads[1][1:], strict=True):
        assert torch.equal(one, other)


def test_every_layout():
    key, tensors, numbers, _ = case_of(RF(17.0, 3.0, 0.012, 0.02), 1.0, length=4)
    apart = [t.repeat_interleave(2, -1)[..., ::2] for t in tensors]
    assert not any(t.is_contiguous() for t in apart)
    for one, other in zip(*(recurrent_triton.forward(key, *t, numbers, True) for t in (tensors, apart)), strict=True):
        assert torch.equal(one, other)


def test_too_many_weights_are_refused():
    weight = torch.zeros(1).expand(1 + 46341, 46341)
    with pytest.raises(NotImplementedError, match=r"46342 x 46341 weights, on a GPU.*solver='loop'"):
        recurrent_triton.forward("LIF", torch.zeros(1, 1, 1), weight, *[torch.zeros(1, 1, 1)] * 4, [], False)


def test_it_is_called_as_the_cpu_kernel_is():
    assert STRIDE == operator.STRIDE
    for name in ("forward", "backward"):
        assert inspect.signature(getattr(recurrent_triton, name)) == inspect.signature(getattr(recurrent_cpu, name))


def test_compiled_for_a_gpu():
    """What the interpreter forgives, and what only the code shows: see `facts`."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert len(found) == len(COMPILED) + 8
    for name, case in found.items():
        assert case["barriers"] == ("_forward" in name) + 2 * ("_backward" in name), name
        if "fp64" in name:
            assert not case["single"], name
            continue
        assert not case["tensor cores"], f"{name}: {case['tensor cores']} would round products"
        assert case["fused"] > 0, name
        assert not re.match(r"BRF \d", name) or not case["crossing"], f"{name}: tiles left the registers"
        assert case["fused"] % case["terms"] == 0 or "Exponential" in name, f"{name}: not the products alone"


COMPILED = [LIF(), ALIF(), BRF(), Clamped()]


def facts():
    """Facts about the PTX for sm_90 of some neurons backward, of two forward, in float64 too, and of all steps at once.

    Fused multiply-adds, and how many of them a thread needs for the terms of a product that are read at once;
    instructions of the tensor cores; float32 arithmetic; barriers that we asked for; traffic between threads.
    """
    found, weight = {}, torch.empty(17, 16)
    inner = recurrent_tiles_triton.INNER
    mix = recurrent_tiles_triton.mix, {"RECURRENT": True, "PANEL": 64, "INNER": inner}, recurrent_tiles_triton.LAUNCH
    cases = [("mix", *mix, "fp32", 64 * 64 * inner)]
    for dynamics, batch in [*((d, 1000) for d in (*COMPILED, Exponential())), (BRF(), 16), (BRF(), 500)]:
        shape = recurrent_triton.shape_of(batch, weight)
        name = type(dynamics).__name__ + f" {shape.rows}" * (shape.rows < 16)
        key, slope, numbers, both = gpu_code.numbers_of(dynamics)
        tiles = {"STRIDE": 16, "ROWS": shape.rows, "BLOCK": 16, "TILES": 2 if name == "ALIF" else 1}
        tiles["INNER"] = shape.inner
        terms = max(shape.rows * 16, 32 * shape.options["num_warps"]) * shape.inner
        kernel = recurrent_triton.backward_kernel(key, slope, True), {**both, **tiles}, shape.options
        cases += [(f"{name}_backward", *kernel, "fp32", terms)] if name != "Exponential" else []
        kernel = recurrent_triton.forward_kernel(key), {**numbers, **tiles, "SAVE": True}, shape.options
        dtypes = {"BRF": ("fp32", "fp64"), "ALIF": (), "LIF": (), "Clamped": ()}.get(name, ("fp32",))
        cases += [(f"{name}_forward", *kernel, dtype, terms) for dtype in dtypes]
    for name, kernel, constants, options, dtype, terms in cases:
        code = gpu_code.compiled(kernel, constants, options, dtype)
        ptx = code.asm["ptx"]
        found[f"{name} {dtype}"] = {
            "fused": len(re.findall(r"\bfma\.rn\.f32", ptx)),
            "terms": terms // (32 * options["num_warps"]),
            "tensor cores": re.findall(r"\bw?g?mma\S*", ptx),
            "single": re.findall(r"\b(?:fma|add|sub|mul)\S*\.f32\b", ptx),
            "barriers": len(re.findall(r"\b(?:gpu|ttg)\.barrier\b", code.asm["ttir"])),
            "crossing": re.findall(r"\b(?:ld|st)\.shared\S*", ptx) if "_forward" in name else [],
        }
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
