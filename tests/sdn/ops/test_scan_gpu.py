"""The Triton kernels of `sdn.scan`, in Triton's interpreter where there is no GPU, against the CPU's and the loop."""

import pytest
import torch
from test_scan import both_ways, case, close, normal, wide

from sdn.ops.scan import cpu as scan_cpu
from sdn.ops.scan.operator import scan_loop

pytest.importorskip("triton")
from sdn.ops.scan import gpu as scan_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":  # the interpreter merges element by element
    scan_triton.STEPS, scan_triton.BLOCK = 4, 2


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


def test_strides_and_conjugate_views():
    a, b, initial = canonical("BLH", 2, 9, 3, torch.complex64)
    want = scan_triton.forward(*on_device(a, b, initial), False)
    twisted = on_device(a.conj().resolve_conj().conj(), b.transpose(0, 1).contiguous().transpose(0, 1), initial)
    assert torch.equal(scan_triton.forward(*twisted, False), want)


def test_the_operator_on_a_gpu():
    if DEVICE == "cpu":
        pytest.skip("no GPU")
    from sdn.ops.scan.operator import scan

    a, b, initial = (v.to(DEVICE).requires_grad_() for v in case("H", 3, 1000, 70, torch.complex64))
    got = torch.autograd.grad(scan(a, b, initial).abs().sum(), (a, b, initial))
    want = torch.autograd.grad(scan_loop(a, b, initial).abs().sum(), (a, b, initial))
    for found, reference in zip(got, want, strict=True):
        close(found.cpu(), reference.cpu(), factor=20)
