"""Laws of linear resonate-and-fire neurons: what `resonate` computes, by every solver."""

import pytest
import torch
from helpers import assert_close, assert_lively, assert_same_spikes, every_dtype
from s5rf_oracle import MultiGaussianSpike, bars, resonate_and_fire, surrogate
from torch.autograd import gradcheck

from sdn.ops.resonate.resonate import ResonatorState, resonate
from sdn.ops.scan.operator import scan

NAMES = ["dirac", "zoh", "bilinear"]
SOLVERS = ["fused", "parallel", "loop"]
VARIANTS = {
    "plain": {},
    "rotated": {"rotation": 3},
    "magnitude": {"magnitude": True},
    "refractory": {"refractory": 0.7},
    "through-reset": {"refractory": 0.6, "detach_reset": False},
    "all": {"rotation": 3, "magnitude": True, "refractory": 0.8, "threshold": 1.3},
}
every_name = pytest.mark.parametrize("name", NAMES)
every_solver = pytest.mark.parametrize("solver", SOLVERS)
# The rounds of the parallel solver have no gradient, so that nothing can flow through the reset.
every_pair = pytest.mark.parametrize(
    ("solver", "variant"), [(s, v) for s in SOLVERS for v in VARIANTS if (s, v) != ("parallel", "through-reset")]
)


def numbers(P=6, L=65, B=3, dtype=torch.float64, seed=0):
    """drive, factor, gain, state: neurons of many frequencies that fire now and then."""
    draw = torch.Generator().manual_seed(seed)
    u, a, b, x = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in [(B, L, 2 * P)] + 3 * [(B, P)])
    decay, phase = torch.rand(2, P, generator=draw, dtype=torch.float64)
    factor = torch.polar(0.7 + 0.29 * decay, 3 * phase)
    gain = torch.complex(0.4 + 0.2 * a[0], 0.3 * b[0])
    state = ResonatorState(torch.complex(0.5 * x, 0.3 * b), 0.4 * a.abs())
    kind = torch.complex64 if dtype == torch.float32 else torch.complex128
    return u.to(dtype), factor.to(kind), gain.to(kind), ResonatorState(state.x.to(kind), state.q.to(dtype))


def options_of(variant, dtype=torch.float64):
    options = dict(VARIANTS[variant])
    if n := options.pop("rotation", 0):
        V = torch.linalg.qr(torch.complex(*torch.randn(2, n, n, dtype=torch.float64)))[0]
        options["rotation"] = V.to(torch.complex64 if dtype == torch.float32 else torch.complex128)
    return options


def plain_loop(drive, factor, gain, state, *, rotation=None, refractory=None, detach_reset=True, **options):
    """The oracle on the same numbers in float64."""
    P = len(factor)
    V = None if rotation is None else torch.block_diag(*[rotation] * (P // len(rotation))).to(torch.complex128)
    u = torch.complex(*drive.double().chunk(2, -1))
    x, q = (None, None) if state is None else (state.x.to(torch.complex128), state.q)
    q = q.double() if refractory is not None and q is not None else None
    factor, gain = factor.to(torch.complex128), gain.to(torch.complex128)
    return resonate_and_fire(u, factor, gain, V, rho=refractory, detach=detach_reset, x=x, q=q, **options)


def start(state, options):
    return ResonatorState(state.x, state.q if "refractory" in options else None)


@every_name
@every_solver
def test_scan_loop_and_fft_give_the_same_states_and_spikes(name, solver):
    P, L = 7, 200
    a, omega, log_eta = (torch.randn(P, dtype=torch.float64) * s + m for s, m in ((0.3, -0.7), (20, 0), (0.5, -2.5)))
    factor, gain = bars(name, a, omega, log_eta)
    drive = 12 * torch.randn(3, L, 2 * P, dtype=torch.float64)
    u = torch.complex(*drive.chunk(2, -1))
    kernel = gain * factor ** torch.arange(L).unsqueeze(1)
    fft = torch.fft.ifft(torch.fft.fft(u, 2 * L, 1) * torch.fft.fft(kernel, 2 * L, 0), dim=1)[:, :L]
    looped = plain_loop(drive, factor, gain, None)
    assert_close(torch.view_as_real(fft), torch.view_as_real(looped.states))
    assert_close(torch.view_as_real(scan(factor, gain * u)), torch.view_as_real(fft))
    spikes, _ = resonate(drive, factor, gain, solver=solver)
    assert_same_spikes(spikes, (fft.real > 1).double(), fft.real - 1)
    for length in (1, 2, 31, 32, 33, 199, 200):
        _, state = resonate(drive[:, :length], factor, gain, solver=solver)
        assert_close(torch.view_as_real(state.x), torch.view_as_real(fft[:, length - 1]))
        assert state.q is None


@every_solver
@every_dtype
def test_the_threshold_is_strict(solver, dtype):
    """0.5 x + u with u = 1, 1/2, 1/2 stays at exactly 1, which is no spike; the smallest step more is one."""
    drive = torch.tensor([1.0, 0.5, 0.5 + 2**-20, 0.5, 9.0], dtype=dtype).repeat(2, 1).T.reshape(1, 5, 2).contiguous()
    factor = torch.tensor([0.5 + 0j], dtype=torch.complex64 if dtype == torch.float32 else torch.complex128)
    spikes, state = resonate(drive, factor, torch.ones_like(factor), solver=solver)
    assert spikes.flatten().tolist() == [0, 0, 1, 1, 1]
    assert state.x.real.item() == pytest.approx(9.5, abs=1e-5)
    assert spikes.dtype == dtype


@every_solver
@every_dtype
def test_a_raised_threshold_is_strict_too(solver, dtype):
    """q is 0, 1, 1/2, 1/4, 1/8 before the steps; the second to fourth potential equal 1 + q."""
    drive = torch.tensor([1.5, 2.0, 1.5, 1.25, 1.5], dtype=dtype).repeat(2, 1).T.reshape(1, 5, 2).contiguous()
    factor = torch.zeros(1, dtype=dtype.to_complex())
    spikes, state = resonate(drive, factor, torch.ones_like(factor), refractory=0.5, solver=solver)
    assert spikes.flatten().tolist() == [1, 0, 0, 0, 1]
    assert state.q.item() == 1.0625


@every_pair
@every_dtype
def test_spikes_last_state_and_every_gradient_are_those_of_the_plain_loop(solver, variant, dtype):
    drive, factor, gain, state = numbers(dtype=dtype)
    options = options_of(variant, dtype)
    fresh = [t.detach().clone().requires_grad_() for t in (drive, factor, gain, state.x, state.q)]
    spikes, last = resonate(*fresh[:3], start(ResonatorState(*fresh[3:]), options), **options, solver=solver)
    leaves = [t.to(torch.complex128 if t.is_complex() else torch.float64).requires_grad_() for t in
              (drive, factor, gain, state.x, state.q)]  # fmt: skip
    want = plain_loop(*leaves[:3], ResonatorState(*leaves[3:]), **options)
    alike = assert_same_spikes(spikes.detach(), want.spikes.detach(), want.margins.detach())
    assert alike.all(), "choose other numbers: the gradients of other trajectories cannot be compared"
    assert_close(torch.view_as_real(last.x.detach()), torch.view_as_real(want.last.detach()))
    weights, heavy = torch.randn_like(want.spikes), torch.randn_like(want.last)
    total = (spikes * weights.to(dtype)).sum() + (last.x * heavy.to(last.x.dtype)).real.sum()
    reference = (want.spikes * weights).sum() + (want.last * heavy).real.sum()
    if "refractory" in options:
        assert_close(last.q.detach(), want.refractory.detach())
        total, reference = total + (last.q**2).sum(), reference + (want.refractory**2).sum()
    else:
        assert last.q is None
    total.backward()
    reference.backward()
    for name, got, leaf in zip(("drive", "factor", "gain", "x", "q"), fresh, leaves, strict=True):
        if name == "q" and "refractory" not in options:
            assert got.grad is None
            continue
        assert leaf.grad.abs().max() > 1e-3, name
        parts = (torch.view_as_real(t) if t.is_complex() else t for t in (got.grad, leaf.grad))
        assert_close(*parts, factor=4)


@every_solver
@pytest.mark.parametrize(("P", "n", "L"), [(1, 0, 1), (5, 0, 2), (130, 0, 63), (6, 3, 31), (132, 4, 33), (134, 134, 3)])
def test_odd_sizes(solver, P, n, L):
    drive, factor, gain, state = numbers(P, L, 2, seed=P)
    drive = 3 * drive
    V = torch.linalg.qr(torch.complex(*torch.randn(2, n, n, dtype=torch.float64)))[0] if n else None
    wet = [t.detach().clone().requires_grad_() for t in (drive, factor)]
    spikes, last = resonate(*wet, gain, ResonatorState(state.x, None), rotation=V, solver=solver)
    dry = [t.detach().clone().requires_grad_() for t in (drive, factor)]
    want = plain_loop(*dry, gain, ResonatorState(state.x, None), rotation=V)
    assert torch.equal(spikes, want.spikes)
    assert 0 < want.spikes.sum() < want.spikes.numel() or P == 1
    assert_close(torch.view_as_real(last.x.detach()), torch.view_as_real(want.last.detach()))
    weights = torch.randn_like(want.spikes)
    (spikes * weights).sum().backward()
    (want.spikes * weights).sum().backward()
    assert_close(wet[0].grad, dry[0].grad)
    assert_close(torch.view_as_real(wet[1].grad), torch.view_as_real(dry[1].grad), factor=4)


@every_pair
def test_whole_chunks_and_steps_are_one_run(solver, variant):
    drive, factor, gain, state = numbers(L=63)
    options = options_of(variant)
    whole, end = resonate(drive, factor, gain, start(state, options), **options, solver=solver)
    assert_lively(whole)
    for cuts in ([1] * 63, [30, 1, 32], [33, 30]):
        parts, now = [], start(state, options)
        for chunk in drive.split(cuts, 1):
            part, now = resonate(chunk, factor, gain, now, **options, solver=solver)
            parts.append(part)
        assert torch.equal(torch.cat(parts, 1), whole)
        assert_close(torch.view_as_real(now.x), torch.view_as_real(end.x))
        if end.q is not None:
            assert_close(now.q, end.q)


@every_solver
def test_a_drive_of_any_strides_is_read_right(solver):
    drive, factor, gain, _ = numbers(L=40)
    whole, _ = resonate(drive, factor, gain, solver=solver)
    assert_lively(whole)
    for other in (
        drive.mT.contiguous().mT,
        drive.transpose(0, 1).contiguous().transpose(0, 1),
        drive.repeat_interleave(2, 1)[:, ::2],
    ):
        assert not other.is_contiguous()
        wet, dry = other.detach().requires_grad_(), drive.detach().clone().requires_grad_()
        spikes, _ = resonate(wet, factor, gain, solver=solver)
        assert torch.equal(spikes, whole)
        weights = torch.randn_like(whole).mT.contiguous().mT
        (spikes * weights).sum().backward()
        (resonate(dry, factor, gain, solver=solver)[0] * weights).sum().backward()
        assert_close(wet.grad, dry.grad)


@every_solver
def test_the_last_state_passes_gradcheck(solver):
    drive, factor, gain, state = numbers(P=4, L=9, B=2)
    inputs = [t.detach().requires_grad_() for t in (drive, factor, gain, state.x)]
    assert gradcheck(lambda u, f, g, x: resonate(u, f, g, ResonatorState(x, None), solver=solver)[1].x, inputs)


def test_the_spike_gradient_is_the_published_one():
    v = torch.linspace(-4, 4, 201, dtype=torch.float64, requires_grad=True)
    MultiGaussianSpike.apply(v).sum().backward()
    drive = torch.zeros(1, 1, 402, dtype=torch.float64)
    drive[..., :201] = v.detach() + 1
    drive.requires_grad_()
    one = torch.ones(201, dtype=torch.complex128)
    resonate(drive, one * 0.5, one)[0].sum().backward()
    assert_close(drive.grad[0, 0, :201], v.grad)
    assert not drive.grad[0, 0, 201:].any()
    at = {0.0: 0.85414, -1.0: -0.1247, 0.83: 0.0, -0.83: 0.0}
    assert all(abs(surrogate(torch.tensor(k, dtype=torch.float64)).item() - g) < 6e-3 for k, g in at.items())
    assert v.grad.min().item() == pytest.approx(-0.2508, abs=5e-5)
    assert v.detach()[v.grad.argmin()].abs().item() == pytest.approx(1.6, abs=0.05)


@every_solver
def test_magnitude_at_rest_has_a_finite_gradient(solver):
    drive = torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    one = torch.ones(2, dtype=torch.complex128)
    resonate(drive, 0.5 * one, one, magnitude=True, solver=solver)[0].sum().backward()
    assert torch.isfinite(drive.grad).all()


@every_solver
def test_a_threshold_per_neuron_has_a_gradient(solver):
    drive, factor, gain, _ = numbers()
    threshold = torch.linspace(0.6, 1.4, 6, dtype=torch.float64, requires_grad=True)
    spikes, _ = resonate(drive, factor, gain, threshold=threshold, solver=solver)
    leaf = threshold.detach().clone().requires_grad_()
    want = plain_loop(drive, factor, gain, None, threshold=leaf)
    assert_same_spikes(spikes.detach(), want.spikes.detach(), want.margins.detach())
    weights = torch.randn_like(want.spikes)
    (spikes * weights).sum().backward()
    (want.spikes * weights).sum().backward()
    assert_close(threshold.grad, leaf.grad)
    assert leaf.grad.abs().min() > 1e-3


def test_reusing_the_drive_gives_the_same_gradients_once():
    gradients = []
    for reuse in (False, True):
        drive, factor, gain, _ = (t.requires_grad_() if torch.is_tensor(t) else t for t in numbers())
        spikes, _ = resonate(drive * 1, factor, gain, reuse=reuse)
        (spikes * torch.linspace(-1, 1, spikes.numel(), dtype=torch.float64).view_as(spikes)).sum().backward()
        gradients.append([drive.grad, torch.view_as_real(factor.grad), torch.view_as_real(gain.grad)])
    for got, want in zip(*gradients, strict=True):
        assert want.abs().max() > 1e-3
        assert torch.equal(got, want)


def test_a_second_backward_pass_over_a_reused_drive_is_an_error_and_else_the_same():
    drive, factor, gain, _ = numbers()
    for reuse in (False, True):
        leaf = drive.clone().requires_grad_()
        total = resonate(leaf * 1, factor, gain, reuse=reuse)[0].sum()
        (first,) = torch.autograd.grad(total, leaf, retain_graph=True)
        if reuse:
            with pytest.raises(RuntimeError, match=r"second backward pass.*reuse=False"):
                torch.autograd.grad(total, leaf)
        else:
            assert torch.equal(torch.autograd.grad(total, leaf)[0], first)


def test_what_cannot_run_is_refused_with_both_values():
    drive, factor, gain, state = numbers(P=6, L=4)
    V = torch.eye(4, dtype=torch.complex128)
    for match, arguments, options in [
        (r"2 x 6 needs \(6,\)", (drive, factor[:5], gain), {}),
        (r"gain has shape \(6, 1\)", (drive, factor, gain[:, None]), {}),
        (r"drive .* got torch.float64 of shape \(3, 4, 11\)", (drive[..., :11], factor, gain), {}),
        (r"got torch.complex128", (torch.complex(drive, drive), factor, gain), {}),
        (r"shape \(3, 0, 12\)", (drive[:, :0], factor, gain), {}),
        (r"fused, parallel.*got 'fft'", (drive, factor, gain), {"solver": "fft"}),
        (r"divisor of 6 channels, got \(4, 4\)", (drive, factor, gain), {"rotation": V}),
        (r"threshold.*0", (drive, factor, gain), {"threshold": 0.0}),
        (r"refractory.*1.5", (drive, factor, gain), {"refractory": 1.5}),
        (r"q \(3, 6\).*None", (drive, factor, gain, state), {}),
        (r"\(2, 6\).*\(3, 6\)", (drive, factor, gain, ResonatorState(state.x[:2], None)), {}),
        (r"None.*\(3, 6\)", (drive, factor, gain, ResonatorState(state.x, None)), {"refractory": 0.5}),
    ]:
        with pytest.raises(ValueError, match=match) as error:
            resonate(*arguments, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(NotImplementedError, match="fused"):
        resonate(drive, factor, gain, refractory=0.5, detach_reset=False, solver="parallel")


@pytest.mark.parametrize(
    "options", [{}, {"refractory": 0.7}, {"magnitude": True}], ids=["plain", "refractory", "magnitude"]
)
def test_fused_spikes_are_those_of_the_loop_bit_for_bit_in_float32(options):
    generator = torch.Generator().manual_seed(5)
    factor = torch.polar(0.9 + 0.099 * torch.rand(37, generator=generator), 3 * torch.rand(37, generator=generator))
    drive = 0.4 * torch.randn(3, 700, 74, generator=generator)
    (fused, last), (loop, wanted) = (resonate(drive, factor, factor, solver=s, **options) for s in ("fused", "loop"))
    assert 0.05 < loop.mean() < 0.95
    assert torch.equal(fused, loop)
    assert torch.equal(last.x, wanted.x)


def test_a_threshold_below_zero_a_leaf_to_overwrite_and_a_bare_tensor_as_state_are_refused():
    factor, drive = torch.full((3,), 0.9 + 0.1j), torch.rand(2, 5, 6, requires_grad=True)
    cases = [
        (r"threshold must be > 0 everywhere, its smallest value is -1", {"threshold": torch.tensor([1.0, -1.0, 2.0])}),
        (r"a drive that is a leaf", {"reuse": True}),
        (r"must be a ResonatorState\(x, q\), got Tensor", {"initial": torch.zeros(2, 3)}),
    ]
    for match, options in cases:
        with pytest.raises(ValueError, match=match):
            resonate(drive, factor, factor, **options)
