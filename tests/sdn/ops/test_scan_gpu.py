"""The Triton kernels of `sdn.scan`, in Triton's interpreter where there is no GPU, against the CPU's and the loop.

Run as a script, this file compiles them for a GPU that need not be there.
"""

import json
import os
import re
import subprocess
import sys

import gpu_code
import pytest
import torch
from test_scan import both_ways, case, close, normal, wide

from sdn.ops.scan import cpu as scan_cpu
from sdn.ops.scan.operator import scan_loop

pytest.importorskip("triton")
from sdn.ops.scan import gpu as scan_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and __name__ != "__main__":  # the interpreter takes milliseconds a step
    scan_triton.AHEAD, scan_triton.BEHIND, scan_triton.BLOCK = 8, 4, 2


def on_device(*tensors):
    return [None if v is None else v.to(DEVICE) for v in tensors]


def canonical(factor, batch, length, channels, dtype):
    a, b, initial = case(factor, batch, length, channels, dtype)
    a = a.reshape((1,) * (3 - a.ndim) + a.shape).expand(-1, -1, channels)
    return a, b, initial


@both_ways
@pytest.mark.parametrize("factor", ["H", "BH", "LH", "BLH"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=["float64", "complex64"])
def test_it_is_the_loop(dtype, factor, reverse):
    for length, channels in [(1, 1), (4, 2), (11, 3)]:
        a, b, initial = canonical(factor, 2, length, channels, dtype)
        got = scan_triton.forward(*on_device(a, b, initial), reverse).cpu()
        want = scan_loop(*wide(a, b, initial), reverse)
        assert want.abs().mean() > 0.1
        close(got, want)
        close(scan_triton.forward(*on_device(a, b, None), reverse).cpu(), scan_loop(*wide(a, b), reverse=reverse))


@both_ways
@pytest.mark.parametrize("factor", ["H", "BH", "LH", "BLH"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=["float32", "complex128"])
def test_gradients_are_those_of_the_cpu(dtype, factor, reverse):
    for length, channels in [(1, 3), (8, 1), (11, 3)]:
        a, b, initial = canonical(factor, 2, length, channels, dtype)
        grad = normal(2, length, channels, dtype=dtype, seed=3)
        x = scan_cpu.forward(a, b, initial, reverse)
        for states, first in [(x, initial), (None, None)]:
            want = scan_cpu.backward(grad, a, states, first, reverse)
            got = scan_triton.backward(*on_device(grad, a, states, first), reverse)
            for found, reference in zip(got, want, strict=True):
                assert found.dtype == reference.dtype
                assert found.shape == reference.shape
                if reference.numel():
                    close(found.cpu(), reference, factor=2)


@pytest.mark.parametrize(("dtype", "read"), [(torch.complex64, torch.int64), (torch.complex128, torch.float64)])
def test_how_complex_numbers_are_read(dtype, read):
    x = normal(2, 3, 4, dtype=dtype, seed=5)
    for view in (x, x.conj(), x.mT):
        plain = scan_triton._plain(view)
        assert plain.dtype == read
        assert plain.is_contiguous()
        assert torch.equal(plain.view(dtype).reshape(view.shape), view)


def test_strides_and_conjugate_views():
    a, b, initial = canonical("BLH", 2, 9, 3, torch.complex64)
    want = scan_triton.forward(*on_device(a, b, initial), False)
    twisted = on_device(a.conj().resolve_conj().conj(), b.transpose(0, 1).contiguous().transpose(0, 1), initial)
    assert torch.equal(scan_triton.forward(*twisted, False), want)


@both_ways
@pytest.mark.parametrize("factor", ["H", "BLH"])
def test_it_rounds_as_the_loop_does(factor, reverse):
    a, b, initial = canonical(factor, 2, 19, 3, torch.float32)
    assert torch.equal(scan_triton.forward(*on_device(a, b, initial), reverse).cpu(), scan_loop(a, b, initial, reverse))


def test_a_number_that_is_none_stays_where_it_is():
    """The next tile is read beyond the end, and the adjoint of the last step follows on nothing."""
    a, b, initial = canonical("BLH", 1, 9, 2, torch.complex64)
    b[0, 4, 0] = complex(float("nan"), 1.0)
    x = scan_triton.forward(*on_device(a, b, initial), False).cpu()
    assert torch.isfinite(torch.view_as_real(x[:, :4])).all()
    assert torch.isfinite(torch.view_as_real(x[..., 1])).all()
    assert x[0, 4:, 0].isnan().all()
    a[0, 0, :] = float("nan")
    grad = normal(1, 9, 2, dtype=torch.complex64, seed=3)
    for factors, good in ((a, slice(None)), (a[:, :1], slice(8, None))):
        back = scan_triton.backward(*on_device(grad, factors, None, None), False)[0].cpu()
        assert torch.isfinite(torch.view_as_real(back[:, good])).all()


def test_compiled_for_a_gpu():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert len(found) == 4
    for name, code in found.items():
        assert code["shared"] == 0, f"{name}: tiles left the registers"
        assert not code["crossing"], f"{name}: threads wait for each other: {code['crossing']}"
        assert not code["contracted"], f"{name}: {code['contracted']} would not round as the loop does"
        assert code["apart"] == 0, f"{name}: {code['apart']} parts are read one by one"


def facts():
    """Facts about the PTX for sm_90 of complex scans."""
    found = {}
    for name, kernel, constants, *rest in gpu_code.linear():
        if name.startswith("scan complex"):
            code = gpu_code.compiled(kernel, constants, *rest)
            ptx = code.asm["ptx"]
            found[name] = {
                "shared": code.metadata.shared,
                "crossing": re.findall(r"\b(?:shfl|bar|[ls][dt]\.(?:shared|local))\b\S*", ptx),
                "contracted": re.findall(r"\bfma\S*", ptx),
                "apart": len(re.findall(r"\bld\.global\S*b32\b", ptx)),
            }
    return found


def test_the_operator_on_a_gpu():
    if DEVICE == "cpu":
        pytest.skip("no GPU")
    from sdn.ops.scan.operator import scan

    a, b, initial = (v.to(DEVICE).requires_grad_() for v in case("H", 3, 1000, 70, torch.complex64))
    got = torch.autograd.grad(scan(a, b, initial).abs().sum(), (a, b, initial))
    want = torch.autograd.grad(scan_loop(a, b, initial).abs().sum(), (a, b, initial))
    for found, reference in zip(got, want, strict=True):
        close(found.cpu(), reference.cpu(), factor=20)


if __name__ == "__main__":
    print(json.dumps(facts()))
