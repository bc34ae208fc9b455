"""`sdn.scan` against the loop, the loop against closed forms, and what the operator promises besides its numbers."""

import numpy as np
import pytest
import torch
from helpers import assert_close, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from benchmarks.tree_scan import tree_scan
from sdn.ops.scan import cpu as scan_cpu
from sdn.ops.scan.operator import scan, scan_loop

DTYPES = [torch.float64, torch.float32, torch.complex128, torch.complex64]
every_kind = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
# The shapes that a factor comes in, for (B, L, H).
FACTORS = {
    "H": lambda b, n, h: (h,),
    "1": lambda b, n, h: (1,),
    "BH": lambda b, n, h: (b, 1, h),
    "LH": lambda b, n, h: (n, h),
    "BLH": lambda b, n, h: (b, n, h),
    "BL1": lambda b, n, h: (b, n, 1),
}
every_factor = pytest.mark.parametrize("factor", FACTORS)


def normal(*shape, dtype, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def factors(*shape, dtype, low=0.5, high=1.0):
    """Moduli that forget neither at once nor never, any angle (any sign)."""
    generator = torch.Generator().manual_seed(7)
    radius = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
    angle = 6.28 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.polar(radius, angle).to(dtype) if dtype.is_complex else (radius * torch.sign(angle - 2)).to(dtype)


def case(factor, batch, length, channels, dtype):
    """a, b, initial."""
    a = factors(*FACTORS[factor](batch, length, channels), dtype=dtype)
    b = normal(batch, length, channels, dtype=dtype, seed=1)
    return a, b, normal(batch, channels, dtype=dtype, seed=2)


def close(got, want, factor=1.0):
    assert got.dtype == want.dtype or got.dtype.is_complex == want.dtype.is_complex
    got, want = (torch.view_as_real(v.resolve_conj()) if v.is_complex() else v for v in (got.detach(), want.detach()))
    assert_close(got, want, got.dtype, factor)


def wide(*tensors):
    return [v.to(torch.complex128 if v.is_complex() else torch.float64) for v in tensors]


def run_both(function, a, b, initial, reverse, weights):
    """The output, and the gradients of all arguments under one linear functional."""
    leaves = [v.detach().requires_grad_() for v in (a, b, initial)]
    x = function(*leaves, reverse)
    value = (x * weights.to(x.dtype)).sum()
    grads = torch.autograd.grad(value.real if x.is_complex() else value, leaves)
    return [x.detach(), *grads]


# ---- the reference
@every_kind
def test_the_loop_is_a_sum_of_powers(dtype):
    a, b, initial = wide(*case("H", 2, 40, 3, dtype))
    t = torch.arange(40)
    powers = a ** (t[:, None] - t).clamp(min=0)[..., None] * (t[:, None] >= t)[..., None]  # (t, k, H)
    want = torch.einsum("tkh,bkh->bth", powers.to(a.dtype), b) + a ** (t + 1)[:, None] * initial.unsqueeze(1)
    close(scan_loop(a, b, initial), want)
    close(scan_loop(a, b.flip(1), initial, reverse=True), want.flip(1))


def test_the_loop_is_a_convolution():
    a, b, _ = case("H", 2, 64, 3, torch.complex128)
    kernel = a ** torch.arange(64)[:, None]
    want = torch.fft.ifft(torch.fft.fft(kernel, 128, 0) * torch.fft.fft(b, 128, 1), dim=1)[:, :64]
    close(scan_loop(a, b), want)


def test_the_loop_with_factors_that_vary_is_a_product_of_them():
    a, b, initial = (v.numpy() for v in case("BLH", 2, 12, 3, torch.complex128))
    want = np.stack(
        [
            a[:, : t + 1].prod(1) * initial + sum(a[:, k + 1 : t + 1].prod(1) * b[:, k] for k in range(t + 1))
            for t in range(12)
        ],
        1,
    )
    close(scan_loop(*map(torch.from_numpy, (a, b, initial))), torch.from_numpy(want))


def test_a_constant_input_is_a_geometric_series():
    a = factors(5, dtype=torch.float64)
    n = torch.arange(1, 201)[:, None]
    close(scan(a, torch.ones(1, 200, 5, dtype=torch.float64)), ((1 - a**n) / (1 - a)).unsqueeze(0))


# ---- the operator
@both_ways
@every_factor
@every_kind
@pytest.mark.parametrize(("length", "channels"), [(1, 1), (2, 3), (63, 5), (63, 33), (1024, 37)], ids=str)
def test_it_is_the_loop(dtype, factor, reverse, length, channels):
    a, b, initial = case(factor, 3, length, channels, dtype)
    got, want = scan(a, b, initial, reverse), scan_loop(*wide(a, b, initial), reverse)
    assert got.is_contiguous()
    assert want.abs().mean() > 0.1
    close(got, want)
    close(scan(a, b, reverse=reverse), scan_loop(*wide(a, b), reverse=reverse))


@both_ways
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=["float64", "float32"])
def test_real_numbers_are_rounded_as_in_the_loop(dtype, reverse):
    for factor in ("H", "BLH"):
        a, b, initial = case(factor, 3, 200, 37, dtype)
        assert torch.equal(scan(a, b, initial, reverse), scan_loop(a, b, initial, reverse))


@both_ways
@every_factor
@every_kind
@pytest.mark.parametrize(("length", "channels"), [(1, 3), (2, 1), (16, 5), (63, 5), (65, 33)], ids=str)
def test_gradients_are_those_of_the_loop(dtype, factor, reverse, length, channels):
    a, b, initial = case(factor, 3, length, channels, dtype)
    weights = normal(3, length, channels, dtype=dtype, seed=3)
    got = run_both(scan, a, b, initial, reverse, weights)
    want = run_both(scan_loop, *wide(a, b, initial), reverse, wide(weights)[0])
    for found, reference in zip(got, want, strict=True):
        assert reference.abs().max() > 1e-3
        close(found, reference, factor=4)


@pytest.mark.parametrize("kinds", [("f", "c", "f"), ("c", "f", "f"), ("f", "f", "c"), ("c", "c", "f")], ids="".join)
def test_real_and_complex_together(kinds):
    kind = {"f": torch.float64, "c": torch.complex128}
    for factor in ("H", "LH"):
        a, b, initial = (v.to(kind[k]) for v, k in zip(case(factor, 2, 9, 5, torch.float64), kinds, strict=True))
        a = a * (0.8 + 0.3j) if kinds[0] == "c" else a
        weights = normal(2, 9, 5, dtype=torch.complex128, seed=3)
        got = run_both(scan, a, b, initial, False, weights)
        want = run_both(scan_loop, a, b, initial, False, weights)
        for found, reference, argument in zip(got[1:], want[1:], (a, b, initial), strict=True):
            assert found.dtype == argument.dtype
            close(found, reference)


@both_ways
@every_factor
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_gradients_against_finite_differences(dtype, factor, reverse):
    arguments = tuple(v.requires_grad_() for v in case(factor, 2, 4, 2, dtype))
    assert gradcheck(lambda *args: scan(*args, reverse), arguments)
    assert gradgradcheck(lambda *args: scan(*args, reverse), arguments)


@both_ways
@every_factor
@every_kind
def test_gradients_that_can_be_differentiated_are_the_same(dtype, factor, reverse):
    a, b, initial = arguments = [v.requires_grad_() for v in case(factor, 2, 6, 3, dtype)]
    for learned in (arguments, [b, initial]):
        x = scan(a if len(learned) == 3 else a.detach(), b, initial, reverse)
        value = x.abs().square().sum()
        want = torch.autograd.grad(value, learned, retain_graph=True)
        got = torch.autograd.grad(value, learned, create_graph=True)
        for found, reference in zip(got, want, strict=True):
            assert found.requires_grad
            close(found, reference, factor=4)


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=["complex128", "complex64"])
def test_the_complex_gradient_points_uphill(dtype):
    """A step along torch's gradient of a real loss raises it by |gradient|^2: a missing conjugate does not."""
    a, b, _ = case("H", 2, 30, 4, dtype)
    a, target = wide(a)[0].requires_grad_(), normal(2, 30, 4, dtype=torch.complex128, seed=5)

    def loss(factor):
        return (scan(factor.to(dtype), b).to(torch.complex128) - target).abs().square().sum()

    (grad,) = torch.autograd.grad(loss(a), a)
    with torch.no_grad():
        step = 1e-3 / grad.abs().max()
        rise = (loss(a + step * grad) - loss(a - step * grad)) / (2 * step)
    assert rise.item() == pytest.approx(grad.abs().square().sum().item(), rel=2e-3)


def test_the_gradient_of_a_constant_factor_is_summed_precisely():
    length = 8192
    a, b, initial = case("H", 1, length, 3, torch.float32)
    b, a = b.abs() + 1, a.abs().clamp(max=0.9)  # a long sum of one sign
    weights = torch.ones(1, length, 3)
    got = run_both(scan, a, b, initial, False, weights)[1]
    want = run_both(scan_loop, *wide(a, b, initial), False, weights)[1]
    assert ((got - want) / want).abs().max() < 1e-6


@settings(max_examples=examples(100, 500), deadline=None)
@given(st.data())
def test_random_cases(data):
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 70)), draw(st.integers(1, 40)))
    a, b, initial = case(draw(st.sampled_from(sorted(FACTORS))), *shape, dtype)
    b = draw(st.sampled_from(sorted(LAYOUTS.items())))[1](b)
    reverse, weights = draw(st.booleans()), normal(*shape, dtype=dtype, seed=draw(st.integers(0, 99)))
    got = run_both(scan, a, b, initial, reverse, weights)
    want = run_both(scan_loop, *wide(a, b, initial), reverse, wide(weights)[0])
    for found, reference in zip(got, want, strict=True):
        close(found, reference, factor=4)


# ---- layouts, tiles, threads
LAYOUTS = {
    "contiguous": lambda v: v,
    "time innermost": lambda v: v.transpose(1, 2).contiguous().transpose(1, 2),
    "time outermost": lambda v: v.transpose(0, 1).contiguous().transpose(0, 1),
    "every other": lambda v: torch.stack([v, v + 1], -1).flatten(2)[..., ::2],
    "conjugate view": lambda v: v.conj().resolve_conj().conj(),
}


@every_kind
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(dtype, layout):
    lay = LAYOUTS[layout]
    a, b, initial = case("BLH", 3, 20, 5, dtype)
    weights = normal(3, 20, 5, dtype=dtype, seed=3)
    want = run_both(scan, a, b, initial, False, weights)
    got = run_both(scan, lay(a), lay(b), lay(initial.unsqueeze(1)).squeeze(1), False, weights)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
    x = scan(a.requires_grad_(), lay(b))
    (expanded,) = torch.autograd.grad(x.sum().abs(), a)  # an incoming gradient with strides 0
    assert expanded.abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("factor", ["H", "BH", "LH"])
def test_work_is_cut_up_without_a_trace(dtype, factor, monkeypatch):
    """Channels, rows and steps next to the borders of tiles; a channel by itself is the same to the bit.

    But for the gradient of factors that rows share: torch sums it over rows, in an order that depends on the shape.
    """
    monkeypatch.setattr(scan_cpu, "LANES", 32)
    for batch, length, channels in [(2, 3, scan_cpu.W + 1), (1, 5, 2 * scan_cpu.W), (9, 33, 4), (5, 17, 3), (2, 9, 32)]:
        a, b, initial = case(factor, batch, length, channels, dtype)
        weights = normal(batch, length, channels, dtype=dtype, seed=3)
        whole = run_both(scan, a, b, initial, False, weights)
        for channel in {0, channels // 2, channels - 1}:
            cut = slice(channel, channel + 1)
            row = run_both(scan, a[..., cut], b[..., cut], initial[..., cut], False, weights[..., cut])
            for name, got, want in zip(("x", "a", "b", "initial"), row, whole, strict=True):
                if name == "a" and factor != "BH":
                    close(got, want[..., cut])
                else:
                    assert torch.equal(got, want[..., cut])


@pytest.mark.parametrize("shape", [(5, 20, 40), (1, 20, 512), (70, 20, 3), (2, 5, 1100)], ids=str)
def test_threads_change_no_bit(shape):
    a, b, initial = case("H", *shape, torch.complex64)
    weights = normal(*shape, dtype=b.dtype, seed=3)
    one = run_both(scan, a, b, initial, False, weights)
    torch.set_num_threads(3)
    try:
        three = run_both(scan, a, b, initial, False, weights)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(p, q) for p, q in zip(one, three, strict=True))


@both_ways
def test_chunks_one_after_another_are_the_whole(reverse):
    a, b, initial = case("BLH", 2, 50, 6, torch.complex64)
    whole = scan(a, b, initial, reverse)
    cuts = [slice(0, 17), slice(17, 18), slice(18, 50)]
    pieces = []
    for cut in reversed(cuts) if reverse else cuts:
        pieces.append(scan(a[:, cut], b[:, cut], initial, reverse))
        initial = pieces[-1][:, 0 if reverse else -1]
    assert torch.equal(torch.cat(pieces[::-1] if reverse else pieces, 1), whole)


# ---- special numbers
@every_kind
def test_a_decaying_state_ends_in_zero(dtype):
    """No subnormal number is ever a state: they are slow. Nothing else changes by more than the smallest normal one."""
    real = torch.zeros((), dtype=dtype).real.dtype
    tiny = torch.finfo(real).tiny
    for channels in (5, 40):
        a = factors(channels, dtype=dtype, low=0.3, high=0.5)
        b = torch.zeros(2, 1200, channels, dtype=dtype)
        b[:, 0] = 1
        x = scan(a, b)
        parts = torch.view_as_real(x) if dtype.is_complex else x
        assert (parts[:, 0] != 0).any()
        assert (parts[:, -1] == 0).all()
        assert ((parts == 0) | (parts.abs() >= tiny)).all()
        _, _, grad, _ = run_both(scan, a, b, b[:, 0], True, b)
        parts = torch.view_as_real(grad) if dtype.is_complex else grad
        assert ((parts == 0) | (parts.abs() >= tiny)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_lane(dtype, bad):
    for channels in (5, 40):
        a, b, _ = case("H", 3, 30, channels, dtype)
        want = scan(a, b)
        b[1, 10, 2] = bad
        got = scan(a, b)
        assert (~torch.isfinite(got[1, 10:, 2])).all()
        got[1, 10:, 2] = want[1, 10:, 2]
        assert torch.equal(got, want)


# ---- as an operator of torch
def kept(*arguments):
    """Elements of what is saved for the backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: sizes.append(v.numel()) or v, lambda v: v):
        scan(*arguments)
    return sum(sizes)


def test_only_what_the_gradients_need_is_kept():
    a, b, initial = case("H", 2, 50, 6, torch.complex64)
    assert kept(a, b, initial) == 0
    with torch.no_grad():
        assert kept(a.clone().requires_grad_(), b, initial) == 0
    assert kept(a, b.clone().requires_grad_(), initial) == 6
    assert kept(a.clone().requires_grad_(), b, initial) <= 6 + 2 * 50 * 6 + 2 * 6


def test_no_graph_break():
    def function(a, b, initial):
        return scan(a, b.sin(), initial).abs().square()

    arguments = case("BH", 2, 12, 5, torch.complex64)
    want = torch.autograd.grad(function(*[v.requires_grad_() for v in arguments]).sum(), arguments)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*arguments).sum(), arguments)
    for g, w in zip(got, want, strict=True):
        close(g, w)


def test_the_operators_keep_torchs_contract():
    a, b, initial = case("BH", 2, 12, 5, torch.complex64)
    learned = [v.clone().requires_grad_() for v in (a, b, initial)]
    torch.library.opcheck(torch.ops.sdn.scan.default, (*learned, True))
    torch.library.opcheck(torch.ops.sdn.scan.default, (a.expand(2, 12, 5).contiguous(), b, None, False))
    for factor, states in ((a, b), (a, None), (a.expand(2, 12, 5).contiguous(), b)):
        torch.library.opcheck(torch.ops.sdn.scan_backward.default, (b, factor, states, initial, False))


def test_shapes_without_numbers():
    a, b, initial = (v.to("meta").requires_grad_() for v in case("H", 2, 12, 5, torch.complex64))
    x = scan(a, b, initial)
    assert x.shape == b.shape
    x.abs().sum().backward()
    assert a.grad.shape == a.shape
    assert initial.grad.shape == initial.shape


def test_what_does_not_fit_is_refused():
    b = torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"a has shape \(5,\), b has shape \(2, 5, 3\); a must broadcast"):
        scan(torch.zeros(5), b)
    with pytest.raises(ValueError, match=r"a has shape \(1, 2, 5, 3\)"):
        scan(torch.zeros(1, 2, 5, 3), b)
    with pytest.raises(ValueError, match=r"initial has shape \(3,\).*must be \(B, H\)"):
        scan(torch.zeros(3), b, torch.zeros(3))
    with pytest.raises(ValueError, match=r"b must be \(B, L, H\).*\(5, 3\)"):
        scan(torch.zeros(3), b[0])
    with pytest.raises(ValueError, match=r"no empty axis, got shape \(2, 0, 3\)"):
        scan(torch.zeros(3), b[:, :0])
    with pytest.raises(ValueError, match=r"torch.bfloat16.*b.float\(\)"):
        scan(torch.zeros(3, dtype=torch.bfloat16), b.bfloat16())


# ---- the baseline of the benchmark
@both_ways
@every_kind
@pytest.mark.parametrize("length", [1, 2, 3, 7, 63, 64])
def test_the_tree_is_the_loop(dtype, reverse, length):
    for factor in ("H", "BH", "BLH"):
        a, b, initial = case(factor, 2, length, 3, dtype)
        weights = normal(2, length, 3, dtype=dtype, seed=3)
        got = run_both(tree_scan, a, b, initial, reverse, weights)
        want = run_both(scan_loop, *wide(a, b, initial), reverse, wide(weights)[0])
        for found, reference in zip(got, want, strict=True):
            close(found, reference, factor=4)
        close(tree_scan(a, b, reverse=reverse), scan_loop(*wide(a, b), reverse=reverse))
