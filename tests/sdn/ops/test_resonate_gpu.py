"""The Triton form of linear complex neurons against the plain loop: in Triton's interpreter where there is no GPU.

The interpreter takes milliseconds a step, so the kernels get short chunks and tiles here, and keep their edges. Run as
a script, this file compiles them for a GPU that need not be there.
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
from helpers import assert_close, assert_lively, every_dtype

from sdn import ArcTan, DoubleGaussian, MultiGaussian, Sigmoid, Triangle
from sdn.compiler.programs import slope_of
from sdn.ops.resonate import cpu as resonate_cpu
from sdn.ops.resonate import operator
from sdn.ops.resonate.resonate import ResonatorState, resonate

if importlib.util.find_spec("triton") is None:
    pytest.skip("no triton: it comes with extra 'dev' on Linux, and with torch for CUDA", allow_module_level=True)
from sdn.ops.resonate import gpu as resonate_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STRIDE = resonate_triton.STRIDE  # before it is made short


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Chunks of 4 steps in tiles of 2."""
    for name, steps in (("STRIDE", 4), ("AHEAD", 2), ("BEHIND", 2)):
        monkeypatch.setattr(resonate_triton, name, steps)
    monkeypatch.setattr(operator, "STRIDE", 4)
    monkeypatch.setattr(operator, "_kernels", lambda drive: resonate_triton)


def outcome(solver, leaves, refractory, weights, **options):
    """Spikes and last state, then the gradients of drive, factor, gain, threshold and initial state."""
    drive, factor, gain, threshold, x, q = (t.to(DEVICE).requires_grad_() for t in leaves)
    initial = ResonatorState(x, None if refractory is None else q)
    options = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    spikes, last = resonate(
        drive, factor, gain, initial, threshold=threshold, refractory=refractory, solver=solver, **options
    )
    parts = [spikes, last.x.real, last.x.imag, *([] if last.q is None else [last.q])]
    terms = [(part * w.to(DEVICE)).sum() for part, w in zip(parts, weights, strict=False) if w is not None]
    wanted = [drive, factor, gain, threshold, x, *([] if last.q is None else [q])]
    grads = torch.autograd.grad(sum(terms), wanted, allow_unused=True)
    grads = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True)]
    return [real(t) for t in parts], [real(g) for g in grads]


def compare(dtype, channels, n=0, batch=1, length=5, refractory=None, weights=None, scale=1.0, **options):
    """Both solvers on the same numbers; what the loop says."""
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    wide = lambda *shape: torch.complex(draw(*shape), draw(*shape)).to(dtype.to_complex())  # noqa: E731
    factor = torch.exp(torch.complex(-0.2 * draw(channels).abs(), 2 * draw(channels))).to(dtype.to_complex())
    leaves = [(2 * scale * draw(batch, length, 2 * channels)).to(dtype), factor, wide(channels)]
    leaves += [(0.5 + draw(channels).abs()).to(dtype), scale * wide(batch, channels)]
    leaves += [draw(batch, channels).abs().to(dtype)]
    if weights is None:
        weights = [draw(batch, length, channels).to(dtype), *draw(3, batch, channels).to(dtype)]
    rotation = torch.linalg.qr(wide(n, n)).Q if n else None
    case = leaves, refractory, weights
    want, want_grads = outcome("loop", *case, rotation=rotation, **options)
    got, got_grads = outcome("fused", *case, rotation=rotation, **options)
    assert torch.equal(got[0], want[0]), f"{int((got[0] != want[0]).sum())} spikes differ"
    for one, other in zip(got[1:], want[1:], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(got_grads, want_grads, strict=True):
        assert torch.isfinite(one).all()
        assert_close(one, other, factor=10 if n else 1)
    return want, want_grads


def real(x):
    x = x.detach().cpu().resolve_conj()
    return torch.view_as_real(x) if x.is_complex() else x


@every_dtype
@pytest.mark.parametrize("magnitude", [False, True], ids=["real", "magnitude"])
@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("refractory", [None, 0.7])
def test_it_is_the_loop(dtype, magnitude, n, refractory):
    options = {"refractory": refractory, "detach_reset": dtype == torch.float32, "magnitude": magnitude}
    want, grads = compare(dtype, 9, n, batch=2, **options)
    assert_lively(want[0], high=0.97)
    assert all(g.any() for g in grads)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_every_length(length):
    compare(torch.float64, 3, length=length, refractory=0.8)
    compare(torch.float32, 6, 3, length=length)


@pytest.mark.parametrize(
    ("channels", "n"), [(1, 0), (32, 0), (33, 0), (1, 1), (40, 4), (22, 11), (32, 32), (66, 33), (64, 64)]
)
def test_every_width_of_rows_and_of_rotations(channels, n):
    compare(torch.float32, channels, n, length=3)


@pytest.mark.parametrize("gradient", [Triangle(0.7), DoubleGaussian(), MultiGaussian(), ArcTan(3.0), Sigmoid()])
def test_every_spike_gradient(gradient):
    assert compare(torch.float32, 5, length=3, spike_gradient=gradient)[1][0].any()


def test_gradients_that_are_missing():
    spikes, last = torch.randn(1, 5, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    for weights in ([spikes, None, None, None], [None, last, last, last]):
        assert compare(torch.float64, 5, refractory=0.6, weights=weights, detach_reset=False)[1][0].any()


def test_a_state_at_rest_has_no_direction():
    options = {"scale": 0.0, "magnitude": True, "weights": [torch.randn(1, 5, 5)]}
    (spikes, *_), (drive, _, _, threshold, x) = compare(torch.float32, 5, **options)
    assert not spikes.any()
    assert threshold.any()  # there are errors, and they go nowhere else
    assert not drive.any()
    assert not x.any()


@pytest.mark.parametrize("n", [0, 3])
def test_the_gradient_may_be_written_over_the_drive(n):
    factor, gain = torch.exp(1j * torch.linspace(0, 3, 6)), torch.ones(6) + 0j
    given = torch.randn(1, 9, 12)
    rotation = torch.linalg.qr(torch.randn(n, n) + 0j).Q.to(DEVICE) if n else None
    grads = []
    for reuse in (False, True):
        leaf = given.clone().to(DEVICE).requires_grad_()
        drive = leaf * 1
        spikes, _ = resonate(drive, factor.to(DEVICE), gain.to(DEVICE), rotation=rotation, reuse=reuse)
        spikes.cumsum(1).sum().backward()
        assert torch.equal(drive.detach(), leaf.grad) == reuse
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    assert grads[0].any()


def test_nothing_is_kept_where_nothing_follows():
    case = torch.randn(1, 5, 4), torch.randn(1, 2, 2), torch.rand(5, 2), torch.empty(2, 0, 0)
    case = [t.to(DEVICE) for t in case]
    spikes, final, saved = resonate_triton.forward(*case, False, 0.0, False)
    want = resonate_triton.forward(*case, False, 0.0, True)
    assert saved.numel() == 0
    assert torch.equal(want[2][:, 0], case[1])
    assert torch.equal(spikes, want[0])
    assert torch.equal(final, want[1])


def test_a_wider_rotation_is_refused():
    wide = torch.eye(65) + 0j
    with pytest.raises(NotImplementedError, match="65 channels, on a GPU 64"):
        resonate(torch.zeros(1, 1, 130), torch.ones(65) + 0j, torch.ones(65) + 0j, rotation=wide)


def test_an_older_triton_is_refused_for_a_rotation(monkeypatch):
    monkeypatch.delattr(resonate_triton.tl, "gather")
    with pytest.raises(NotImplementedError, match=r"needs Triton 3\.3, this is .*solver='parallel'"):
        resonate(torch.zeros(1, 1, 2), torch.ones(1) + 0j, torch.ones(1) + 0j, rotation=torch.ones(1, 1) + 0j)
    assert resonate(torch.zeros(1, 1, 2), torch.ones(1) + 0j, torch.ones(1) + 0j)[0].shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("n", "channels", "lanes"), [(0, 32, 32), (11, 22, 32), (16, 32, 32), (32, 32, 32), (33, 33, 64), (64, 64, 64)]
)
def test_as_many_blocks_as_fit_a_program(n, channels, lanes):
    *found, planes, launch = resonate_triton._blocks(torch.zeros(2, n, n))
    assert found == [channels, lanes]
    assert planes.shape == ((4, n, n) if n else (0,))
    assert launch["num_warps"] == 1  # so that lanes read each other's numbers without a barrier


def test_steps_of_a_tile():
    for lanes, dtype, steps in (
        (32, torch.float32, 16),
        (64, torch.float32, 8),
        (32, torch.float64, 8),
        (64, torch.float64, 8),
    ):
        assert resonate_triton._steps(16, lanes, torch.empty(0, dtype=dtype)) == steps
    assert resonate_triton._steps(1, 64, torch.empty(0)) == 1


def test_kept_states_are_the_operators():
    assert STRIDE == 32
    assert not STRIDE % 16
    assert inspect.signature(resonate_triton.forward) == inspect.signature(resonate_cpu.forward)
    assert inspect.signature(resonate_triton.backward) == inspect.signature(resonate_cpu.backward)


def test_compiled_for_a_gpu():
    """What the interpreter forgives, and what only the code shows: see `facts`."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert len(found) == 4
    for name, case in found.items():
        assert case["shared"] == 0, f"{name}: tiles left the registers"
        if "rotation" in name:
            assert case["contracted"]
            assert {each.partition(".")[0] for each in case["crossing"]} == {"shfl"}, name
            continue
        assert not case["crossing"], f"{name}: lanes exchange values: {case['crossing']}"
        assert not case["contracted"], f"{name}: {case['contracted']} would not round as torch does"


def facts():
    """Facts about the PTX for sm_90, with refractory neurons and without, in tiles of 2 steps.

    Products contracted with a sum, traffic between threads, shared memory.
    """
    found = {}
    launch = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}
    slope, shape = slope_of(MultiGaussian())
    back = {"THROUGH": True, **{f"N_{i}": value for i, value in enumerate(shape)}}
    for fields, rotate, name in ((3, False, ""), (2, True, " rotation")):
        shared = {"S": fields, "MAGNITUDE": not rotate, "N": 16 * rotate, "STRIDE": 4, "T": 2, "PER": 32, "BLOCK": 32}
        kernels = (resonate_triton._forward, {"SAVE": True}), (resonate_triton.backward_kernel(slope), back)
        for kernel, constants in kernels:
            code = gpu_code.compiled(kernel, {**shared, **constants}, launch)
            ptx = code.asm["ptx"]
            found[kernel.__name__ + name] = {
                "shared": code.metadata.shared,
                "crossing": re.findall(r"\b(?:shfl|bar|[ls][dt]\.(?:shared|local))\b\S*", ptx),
                "contracted": re.findall(r"\bfma\S*", ptx),
            }
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
