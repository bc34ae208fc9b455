"""The state space layer against its recurrence, its continuous-time solution and a double sum."""

import math

import numpy as np
import pytest
import torch
from helpers import assert_close, every_dtype

from spikingssm.layers import S4D, S4DState
from spikingssm.layers.ssm import convolve, discretise, fast_length, kernel, kernel_naive, last_state

FAR = 100.0  # float64: 1e-10, for sums over hundreds of steps
every_algorithm = pytest.mark.parametrize("algorithm", ["fft", "recurrence"])


def system(channels=3, modes=4, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(channels, modes, generator=generator, dtype=torch.float64)  # noqa: E731
    A = torch.complex(-0.1 - draw().abs(), 4 * draw())
    dt = torch.logspace(-3, -0.5, channels, dtype=torch.float64)
    return A.to(dtype), dt.to(dtype.to_real()), torch.complex(draw(), draw()).to(dtype)


def some_layer(d_model=5, d_state=8, **options):
    """A float64 layer with every parameter off its start."""
    layer = S4D(d_model, d_state, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer.eval()


def recurrence(layer, x, initial=None, direction=0):
    """y and last state in numpy, one step after another, from the layer's raw parameters; without D."""
    P = {name: p.detach().double().numpy() for name, p in layer.named_parameters()}
    A = -np.exp(P["log_A_real"]) + 1j * P["A_imag"]
    dt = np.exp(P["log_dt"])[:, None]
    B = P["B"][..., 0] + 1j * P["B"][..., 1] if "B" in P else 1.0
    C = (P["C"][..., 0] + 1j * P["C"][..., 1])[direction]
    A_bar = np.exp(dt * A)
    B_bar = (A_bar - 1) / A * B
    modes = np.zeros((len(x), *A.shape), complex) if initial is None else initial
    out = []
    for u in np.moveaxis(np.asarray(x), 1, 0):
        modes = A_bar * modes + B_bar * u[..., None]
        out.append(2 * (C * modes).sum(-1).real)
    return torch.from_numpy(np.stack(out, 1)), torch.from_numpy(modes)


def assert_same_state(got, want):
    assert_close(torch.view_as_real(got), torch.view_as_real(want), factor=FAR)


# ---- the pure functions
@pytest.mark.parametrize("length", [1, 2, 63, 500])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_kernel_equals_its_formula_with_gradients(length, rows):
    A, dt, _ = system()
    weights = torch.randn(rows, *A.shape, dtype=A.dtype, requires_grad=True)
    z = discretise(A, dt)[0].requires_grad_()
    fast, slow = kernel(weights, z, length), kernel_naive(weights, z, length)
    assert_close(fast, slow, factor=FAR)
    direction = torch.randn_like(slow)
    for got, want in zip(
        torch.autograd.grad((fast * direction).sum(), (weights, z)),
        torch.autograd.grad((slow * direction).sum(), (weights, z)),
        strict=True,
    ):
        if length > 1:
            assert torch.view_as_real(want).abs().max() > 1e-3
        assert_close(torch.view_as_real(got), torch.view_as_real(want), factor=FAR)


def test_tables_are_closer_to_the_exact_kernel_than_the_formula_in_float32():
    torch.manual_seed(2)
    layer = S4D(8, 32)  # 15 pi dt l: up to 2000 turns of the fastest mode at the last lag
    with torch.no_grad():
        z, B_bar, C = layer._system(torch.float32)
    weights = C * B_bar
    exact = kernel_naive(weights.to(torch.complex128), z.to(torch.complex128), 2048)
    far = lambda K: ((K - exact).norm() / exact.norm()).item()  # noqa: E731
    assert far(kernel(weights, z, 2048)) < 0.7 * far(kernel_naive(weights, z, 2048)) < 1e-4


@every_dtype
def test_kernel_sums_to_the_continuous_step_response(dtype):
    A, dt, C = system(dtype=dtype.to_complex())
    z, B_bar = discretise(A, dt)
    summed = kernel((C * B_bar).unsqueeze(0), z, 300)[0].double().cumsum(-1)
    wide_A, wide_dt, wide_C = system()
    time = wide_dt[:, None] * torch.arange(1, 301)  # the input is 1 from time 0 on
    exact = 2 * ((wide_C / wide_A)[..., None] * (torch.exp(wide_A[..., None] * time[:, None]) - 1)).sum(1).real
    assert exact.abs().max() > 1
    assert_close(summed, exact, dtype, factor=FAR)


def test_discretise_keeps_its_digits_at_small_steps():
    A = torch.full((1, 1), -0.5 + 0j)
    _, B_bar = discretise(A, torch.tensor([1e-5]))
    exact = -math.expm1(-0.5e-5) / 0.5
    assert abs(B_bar.item() - exact) < 1e-6 * exact  # exp(z) - 1 in float32 is off by 1e-2


@pytest.mark.parametrize("length", [1, 2, 63, 200])
@pytest.mark.parametrize("start", [False, True])
def test_last_state_is_the_recurrence(length, start):
    A, dt, _ = system()
    z, B_bar = discretise(A, dt)
    u = torch.randn(4, length, len(A), dtype=torch.float64)
    initial = torch.randn(4, *A.shape, dtype=A.dtype) if start else None
    want = torch.zeros(4, *A.shape, dtype=A.dtype) if initial is None else initial
    for now in u.unbind(1):
        want = torch.exp(z) * want + B_bar * now[..., None]
    assert_same_state(last_state(u, z, B_bar, initial), want)


@pytest.mark.parametrize("length", [1, 2, 7, 33])
def test_convolution_is_the_double_sum(length):
    u, ahead, behind = (torch.randn(n, length, 3, dtype=torch.float64) for n in (2, 1, 1))
    ahead, behind = ahead[0].T.requires_grad_(), behind[0].T.requires_grad_()
    u.requires_grad_()
    causal, both = torch.zeros_like(u), torch.zeros_like(u)
    for t in range(length):
        for s in range(length):
            if s <= t:
                causal[:, t] += ahead[:, t - s] * u[:, s]
            else:
                both[:, t] += behind[:, s - t - 1] * u[:, s]
    assert_close(convolve(u, ahead), causal, factor=FAR)
    assert_close(convolve(u, ahead, behind), causal + both, factor=FAR)
    direction = torch.randn(u.shape, dtype=u.dtype)
    for got, want in zip(
        *(
            torch.autograd.grad((y * direction).sum(), (u, ahead, behind), allow_unused=True, materialize_grads=True)
            for y in (convolve(u, ahead, behind), causal + both)
        ),
        strict=True,
    ):
        assert_close(got, want, factor=FAR)


def test_convolution_can_be_differentiated_twice():
    u, circle = torch.randn(1, 3, 2, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    inputs = u.requires_grad_(), circle.requires_grad_()
    assert torch.autograd.gradcheck(convolve, inputs)
    assert torch.autograd.gradgradcheck(convolve, inputs)


def test_fast_lengths_are_the_next_products_of_2_3_and_5():
    smooth = sorted(2**i * 3**j * 5**k for i in range(14) for j in range(9) for k in range(6))
    for least in [*range(1, 700), 4095, 4097, 8191]:
        assert fast_length(least) == next(n for n in smooth if n >= least)


# ---- the layer
@pytest.mark.parametrize("learn_b", [False, True])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("length", [1, 2, 63, 300])
@every_algorithm
def test_sequence_is_the_recurrence(algorithm, length, start, learn_b):
    layer = some_layer(learn_b=learn_b, algorithm=algorithm)
    x = torch.randn(2, length, 5, dtype=torch.float64)
    initial = torch.randn(2, 5, 4, dtype=torch.complex128) if start else None
    want, want_state = recurrence(layer, x, None if initial is None else initial.numpy())
    y, state = layer(x, None if initial is None else S4DState(initial))
    assert_close(y, want + layer.D.detach() * x, factor=FAR)
    assert_same_state(state.x, want_state)


@pytest.mark.parametrize("length", [1, 2, 50])
@every_algorithm
def test_bidirectional_is_two_recurrences(algorithm, length):
    layer = some_layer(bidirectional=True, learn_b=True, algorithm=algorithm)
    x = torch.randn(2, length, 5, dtype=torch.float64)
    past, _ = recurrence(layer, x)
    later = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)  # strictly later steps
    future, _ = recurrence(layer, later.flip(1), direction=1)
    assert length == 1 or future.abs().max() > 0.01
    y, state = layer(x)
    assert_close(y, past + future.flip(1) + layer.D.detach() * x, factor=FAR)
    assert state is None


@every_algorithm
def test_chunks_and_steps_equal_the_whole(algorithm):
    layer = some_layer(learn_b=True, algorithm=algorithm)
    x = torch.randn(3, 41, 5, dtype=torch.float64)
    whole, last = layer(x)
    state, parts = None, []
    for chunk in x.split([1, 7, 20, 13], 1):
        y, state = layer(chunk, state)
        parts.append(y)
    assert_close(torch.cat(parts, 1), whole, factor=FAR)
    assert_same_state(state.x, last.x)
    state, steps = layer.initial_state(3, dtype=torch.float64), []
    for now in x.unbind(1):
        y, state = layer.step(now, state)
        steps.append(y)
    assert_close(torch.stack(steps, 1), whole, factor=FAR)
    assert_same_state(state.x, last.x)


@every_algorithm
def test_gradients_flow_through_chunks(algorithm):
    layer = some_layer(learn_b=True, algorithm=algorithm)
    x = torch.randn(2, 30, 5, dtype=torch.float64)
    direction = torch.randn(2, 30, 5, dtype=torch.float64)
    whole = torch.autograd.grad((layer(x)[0] * direction).sum(), list(layer.parameters()))
    first, state = layer(x[:, :11])
    second, _ = layer(x[:, 11:], state)
    chunked = torch.autograd.grad((torch.cat([first, second], 1) * direction).sum(), list(layer.parameters()))
    for got, want in zip(chunked, whole, strict=True):
        assert want.abs().max() > 1e-4
        assert_close(got, want, factor=FAR)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_both_algorithms_have_the_same_gradients(dtype, bidirectional):
    torch.manual_seed(5)
    layer = some_layer(bidirectional=bidirectional, learn_b=True).to(dtype)
    x = torch.randn(3, 90, 5, dtype=dtype, requires_grad=True)
    direction, found = torch.randn(3, 90, 5, dtype=dtype), []
    for layer.algorithm in ("fft", "recurrence"):
        y, _ = layer(x)
        found.append([y, *torch.autograd.grad((y * direction).sum(), [x, *layer.parameters()])])
    for fft, recurrence in zip(*found, strict=True):
        assert fft.abs().max() > 1e-3
        assert_close(recurrence, fft, factor=FAR if dtype == torch.float64 else 1)


@pytest.mark.parametrize("bidirectional", [False, True])
@every_algorithm
def test_every_parameter_learns(algorithm, bidirectional):
    layer = S4D(6, 8, bidirectional=bidirectional, learn_b=True, algorithm=algorithm)
    layer(torch.randn(2, 40, 6))[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_auto_is_the_recurrence_where_it_is_faster():
    x = torch.zeros(1, 1, 1)
    assert S4D(64, 64).algorithm == "auto"
    assert S4D(64, 64).choose(x) == S4D(64, 128).choose(x) == "recurrence"
    assert S4D(64, 256).choose(x) == "fft"
    assert S4D(4, 32).choose(x) == "recurrence"
    assert S4D(4, 64).choose(x) == "fft"  # 12 of 16 lanes idle
    assert S4D(64, 64, bidirectional=True).choose(x) == "recurrence"
    assert S4D(64, 128, bidirectional=True).choose(x) == "fft"
    assert S4D(64, 64).choose(x.to("meta")) == "fft"
    assert S4D(64, 64, algorithm="fft").choose(x) == "fft"
    assert S4D(64, 512, algorithm="recurrence").choose(x) == "recurrence"
    layer = S4D(16, 8)  # it does run what it names
    y = layer(torch.ones(1, 50, 16))[0]
    layer.algorithm = "recurrence"
    assert torch.equal(layer(torch.ones(1, 50, 16))[0], y)
    layer.algorithm = "fft"
    assert not torch.equal(layer(torch.ones(1, 50, 16))[0], y)


def test_a_training_run_by_recurrence_has_its_state():
    layer = some_layer(algorithm="recurrence").train()
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    _, state = layer(x)
    assert_same_state(state.x, recurrence(layer, x)[1])


def test_a_training_run_from_rest_by_fft_leaves_the_state_out_and_says_so():
    layer = some_layer(algorithm="fft").train()
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    y, left_out = layer(x)
    assert left_out == S4DState(None)
    with pytest.raises(ValueError, match=r"left out.*initial_state"):
        layer(x, left_out)
    with pytest.raises(ValueError, match="left out"):
        layer.step(x[:, 0], left_out)
    again, state = layer(x, layer.initial_state(2, dtype=torch.float64))
    assert_close(again, y, factor=FAR)
    assert_same_state(state.x, recurrence(layer, x)[1])


def test_starts_as_s4d_lin():
    layer = S4D(200, 6, dt_min=0.01, dt_max=0.02, bidirectional=True, learn_b=True)
    assert_close(layer.log_A_real.exp(), torch.full((200, 3), 0.5))
    assert_close(layer.A_imag, torch.tensor([0, math.pi, 2 * math.pi]).expand(200, 3))
    dt = layer.log_dt.exp()
    assert 0.0099 < dt.min() < 0.0105
    assert 0.0195 < dt.max() < 0.0202
    assert torch.equal(layer.B, torch.tensor([1.0, 0.0]).expand(200, 3, 2))
    assert layer.C.shape == (2, 200, 3, 2)
    assert 0.9 < layer.C.square().sum(-1).mean() < 1.1


def test_parameters_are_real_and_slow_ones_are_named():
    for learn_b in (False, True):
        layer = S4D(4, 8, learn_b=learn_b)
        named = dict(layer.named_parameters())
        assert all(not p.is_complex() for p in layer.state_dict().values())
        assert set(layer.slow_parameters) == {"log_dt", "log_A_real", "A_imag"} | ({"B"} if learn_b else set())
        assert set(named) == {*layer.slow_parameters, "C", "D"}


@pytest.mark.parametrize("layout", ["strided", "transposed"])
@every_algorithm
def test_strides_do_not_matter(algorithm, layout):
    layer = some_layer(algorithm=algorithm)
    x = torch.randn(2, 20, 5, dtype=torch.float64)
    other = torch.randn(2, 40, 5, dtype=torch.float64)[:, ::2] if layout == "strided" else x.mT.contiguous().mT
    other.copy_(x)
    assert not other.is_contiguous()
    assert torch.equal(layer(other)[0], layer(x)[0])


@every_algorithm
def test_autocast_computes_in_float32(algorithm):
    layer = S4D(6, 16, algorithm=algorithm)
    x = torch.randn(2, 64, 6)
    plain = layer(x, layer.initial_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, layer.initial_state(2))
        low, _ = layer(x.bfloat16())
        one, _ = layer.step(x[:, 0])
    assert y.dtype == low.dtype == one.dtype == torch.float32
    assert state.x.dtype == torch.complex64
    assert torch.equal(y, plain[0])
    assert torch.equal(state.x, plain[1].x)
    assert torch.equal(low, layer(x.bfloat16().float())[0])


@every_algorithm
def test_float32_follows_float64(algorithm):
    layer = S4D(6, 64, algorithm=algorithm).eval()
    x = torch.randn(2, 1024, 6)
    y, state = layer(x)
    wide, wide_state = layer.double()(x.double())
    assert_close(y, wide, torch.float32, factor=10)
    assert_close(torch.view_as_real(state.x), torch.view_as_real(wide_state.x), torch.float32, factor=10)


@pytest.mark.parametrize("d_state", [7, 1, 0, -2])
def test_odd_state_is_refused_with_the_way_out(d_state):
    """Guards defect 34: an odd d_state was floored."""
    with pytest.raises(ValueError, match=rf"even and at least 2, got {d_state}.*use \d"):
        S4D(4, d_state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: S4D(0), "d_model must be at least 1, got 0"),
        (lambda: S4D(4, dt_min=0.2, dt_max=0.1), "dt_min 0.2 and dt_max 0.1"),
        (lambda: S4D(4, dt_min=0.0), "0 < dt_min"),
        (lambda: S4D(4, algorithm="scan"), "auto, fft, recurrence, got 'scan'"),
        (lambda: S4D(4)(torch.zeros(2, 3, 5)), "5 channels on its last axis, this layer has 4"),
        (lambda: S4D(4)(torch.zeros(3, 4)), r"\(batch, length, channels\).*\(3, 4\)"),
        (lambda: S4D(4)(torch.zeros(3, 0, 4)), r"length >= 1.*\(3, 0, 4\)"),
        (lambda: S4D(4)(torch.zeros(2, 3, 4, dtype=torch.long)), "floating-point.*int64"),
        (lambda: S4D(4).step(torch.zeros(2, 3, 4)), r"\(batch, channels\).*\(2, 3, 4\)"),
        (lambda: S4D(4)(torch.zeros(2, 3, 4), S4D(4).initial_state(3)), r"\(3, 4, 32\).*\(2, 4, 32\)"),
        (lambda: S4D(4)(torch.zeros(2, 3, 4), S4DState(torch.zeros(2, 4, 32))), "float32.*complex"),
        (lambda: S4D(4, bidirectional=True)(torch.zeros(2, 3, 4), S4D(4).initial_state(2)), "bidirectional.*no state"),
    ],
)
def test_errors_give_both_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_bidirectional_cannot_stream_and_says_why():
    layer = S4D(4, bidirectional=True)
    with pytest.raises(NotImplementedError, match="steps to come"):
        layer.step(torch.zeros(2, 4))
    with pytest.raises(NotImplementedError, match="steps to come"):
        layer.initial_state(2)


@pytest.mark.parametrize(
    "options", [{"algorithm": "fft"}, {"algorithm": "recurrence"}, {"bidirectional": True}], ids=str
)
def test_an_empty_batch(options):
    x = torch.zeros(0, 7, 4, requires_grad=True)
    for mode in (True, False):
        y, _ = S4D(4, 8, **options).train(mode)(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == (0, 7, 4)
