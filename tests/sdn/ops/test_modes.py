"""The operator `sdn::modes` against its recurrence written out, closed forms and finite differences."""

import pytest
import torch
from helpers import assert_close, every_dtype
from hypothesis import given, settings
from hypothesis import strategies as st

from sdn.ops.modes.operator import _modes, modes
from spikingssm.layers import S4D
from spikingssm.layers.ssm import kernel_naive

FAR = 100.0  # float64: 1e-10, float32: 2e-3, relative to the largest number; for sums over a thousand steps


def written_out(u, A, B, C, D=None, initial=None, reverse=False):
    """The definition, one step after another, for autograd."""
    state = torch.zeros(len(u), *A.shape, dtype=A.dtype) if initial is None else initial
    out = [None] * u.shape[1]
    for t in reversed(range(len(out))) if reverse else range(len(out)):
        state = A * state + B * u[:, t].unsqueeze(-1)
        out[t] = 2 * (C * state).sum(-1).real + (0 if D is None else D * u[:, t])
    return torch.stack(out, 1), state


def arguments(batch=2, length=63, channels=5, count=3, dtype=torch.float64, start=True, seed=0):
    """u, A, B, C, D, initial (None unless start), all wanting gradients; |A| < 1, one B is 0."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    wide = lambda *shape: torch.complex(draw(*shape), draw(*shape))  # noqa: E731
    A = torch.exp(torch.complex(-0.005 - 0.3 * draw(channels, count).square(), 2 * draw(channels, count)))
    B, C = wide(channels, count), wide(channels, count)
    if channels * count > 1:
        B[0, 0] = 0
    given = [draw(batch, length, channels), A, B, C, draw(channels), wide(batch, channels, count) if start else None]
    to = lambda x: x.to(dtype.to_complex() if x.is_complex() else dtype).requires_grad_()  # noqa: E731
    return [None if x is None else to(x) for x in given]


def real(x):
    return torch.view_as_real(x) if x.is_complex() else x


def assert_same_run(got, want, given, factor=FAR):
    """Outputs (y, last state), and the gradients of both together with respect to all that is given."""
    generator = torch.Generator().manual_seed(1)
    toward = [torch.randn(real(w).shape, generator=generator, dtype=real(w).dtype) for w in want]
    given = [x for x in given if x is not None]
    gradients = [
        torch.autograd.grad(sum((real(x) * d).sum() for x, d in zip(out, toward, strict=True)), given)
        for out in (got, want)
    ]
    for g, w in zip([*got, *gradients[0]], [*want, *gradients[1]], strict=True):
        assert g.dtype == w.dtype
        scale = real(w).detach().abs().max().clamp(min=1e-3)
        assert_close(real(g).detach() / scale, real(w).detach() / scale, factor=factor)
    assert all(real(w).abs().max() > 1e-3 for w in want)
    trivial = sum(real(w).abs().max() < 1e-3 for w in gradients[1])
    assert trivial <= (1 if want[0].shape[1] > 1 else 2)  # nothing decays in one step from rest, and one B is 0


@pytest.mark.parametrize(
    ("batch", "length", "channels", "count"),
    [(2, 1, 5, 3), (3, 2, 1, 1), (2, 63, 17, 4), (1, 64, 16, 2), (5, 65, 33, 5), (2, 1024, 7, 6)],
)
@pytest.mark.parametrize("start", [False, True], ids=["rest", "start"])
@pytest.mark.parametrize("reverse", [False, True], ids=["ahead", "reverse"])
@every_dtype
def test_is_the_recurrence_with_all_gradients(dtype, reverse, start, batch, length, channels, count):
    given = arguments(batch, length, channels, count, dtype, start)
    factor = FAR if dtype == torch.float64 else 2
    assert_same_run(modes(*given, reverse), written_out(*given, reverse), given, factor)


@given(
    st.integers(1, 4), st.integers(1, 200), st.integers(1, 40), st.integers(1, 9), st.booleans(), st.booleans(),
    st.sampled_from(["contiguous", "time innermost", "every other step"]), st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_is_the_recurrence_for_any_shape(batch, length, channels, count, start, reverse, layout, seed):
    u, *given = arguments(batch, length, channels, count, start=start, seed=seed)
    with torch.no_grad():
        if layout == "time innermost":
            u = u.mT.contiguous().mT
        elif layout == "every other step":
            u = u.repeat_interleave(2, 1)[:, ::2]
    u.requires_grad_()
    assert_same_run(modes(u, *given, reverse), written_out(u, *given, reverse), [u, *given])


@every_dtype
def test_an_impulse_gives_the_kernel(dtype):
    """A closed form that knows no recurrence: y = K, and the state is B A^(L-1)."""
    z = torch.complex(-0.01 - 0.1 * torch.rand(5, 3), 3 * torch.randn(5, 3)).to(dtype.to_complex())
    B, C = (torch.randn(5, 3, dtype=z.dtype) for _ in range(2))
    u = torch.zeros(1, 300, 5, dtype=dtype)
    u[:, 0] = 1
    y, last = modes(u, torch.exp(z), B, C)
    assert_close(y[0].T, kernel_naive((C * B).unsqueeze(0), z, 300)[0], factor=FAR if dtype == torch.float64 else 5)
    assert_close(real(last[0]), real(B * torch.exp(299 * z)), factor=FAR if dtype == torch.float64 else 5)


def test_a_constant_input_settles_at_the_fixed_point():
    _, A, B, C, D, _ = arguments(count=4)
    A = A.detach() * 0.9
    y, last = modes(torch.ones(2, 900, 5, dtype=torch.float64), A, B, C, D)
    state = B / (1 - A)
    assert_close(real(last), real(state.expand(2, -1, -1)), factor=FAR)
    assert_close(y[:, -1], (2 * (C * state).sum(-1).real + D).expand(2, -1), factor=FAR)


def test_gradients_are_those_of_finite_differences():
    given = arguments(batch=2, length=67, channels=2, count=2)
    assert torch.autograd.gradcheck(modes, given, fast_mode=True)
    few = arguments(batch=1, length=3, channels=2, count=1)
    assert torch.autograd.gradcheck(modes, few)


def test_what_wants_no_gradient_gets_none_and_the_rest_stays_right():
    given = arguments()
    alone = [x if i == 1 else x.detach() for i, x in enumerate(given)]  # A only
    y, _ = modes(*alone)
    (got,) = torch.autograd.grad(y.sum(), alone[1])
    (want,) = torch.autograd.grad(written_out(*alone)[0].sum(), alone[1])
    assert_close(real(got), real(want), factor=FAR)
    last = modes(*given)[1]  # the state only
    for got, want in zip(
        torch.autograd.grad(real(last).sum(), given, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(real(written_out(*given)[1]).sum(), given, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        assert_close(real(got), real(want), factor=FAR)


def test_keeps_one_state_in_64_and_none_without_gradients():
    given = arguments(batch=2, length=129, channels=17, count=3)
    u, A, B, C, D, initial = (x.detach() for x in given)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        modes(*given)
    assert max(x.numel() for x in kept if x.ndim == 5) == 2 * 32 * 3 * 6  # rows, channels by 16, blocks, planes
    assert sum(x.numel() for x in kept) < 3 * u.numel() + 2 * 32 * 3 * 6
    for save, blocks in ((True, 3), (False, 0)):
        assert _modes(u, A, B, C, D, initial, False, save)[2].shape[2] == blocks
    seen = []
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x) or x, lambda x: x):
        assert modes(*given)[0].grad_fn is None
    assert not seen


def test_does_not_depend_on_the_number_of_threads():
    given = arguments(batch=7, length=150, channels=37, count=5)

    def everything():
        y, last = modes(*given)
        return [y, last, *torch.autograd.grad(y.square().sum() + real(last).square().sum(), given)]

    one = everything()
    torch.set_num_threads(3)
    try:
        three = everything()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_rows_and_channels_do_not_touch_each_other():
    u, *given = arguments(batch=3, length=70, channels=19, count=3)

    def output_and_gradient(row):
        """With a NaN in one channel of one row, of the input and of the incoming gradient."""
        spoilt, toward = u.detach().clone().requires_grad_(), torch.ones(3, 70, 19, dtype=u.dtype)
        if row is not None:
            spoilt.data[row, :, 7] = toward[row, :, 7] = float("nan")
        y, _ = modes(spoilt, *given)
        return y, torch.autograd.grad(y, spoilt, toward)[0]

    for row in (0, 1, 2):
        for got, want in zip(output_and_gradient(row), output_and_gradient(None), strict=True):
            assert got[row, :, 7].isnan().all()
            whole = torch.ones_like(want, dtype=torch.bool)
            whole[row, :, 7] = False
            assert torch.equal(got[whole], want[whole])


@every_dtype
def test_silence_ends_in_zeros_and_not_in_subnormal_numbers(dtype):
    A = torch.full((3, 2), 0.6 + 0.3j, dtype=dtype.to_complex())
    u = torch.zeros(1, 2048, 3, dtype=dtype)
    u[:, 0] = 1
    y, last = modes(u, A, torch.ones_like(A), torch.ones_like(A))
    assert y[:, 64].abs().min() > 1e-13
    assert torch.equal(last, torch.zeros_like(last))
    smallest = torch.finfo(dtype).tiny
    assert ((y == 0) | (y.abs() >= smallest)).double().mean() > 0.95
    u = torch.full((1, 9, 17), 10 * smallest, dtype=dtype)  # so small that products with it are subnormal
    assert not modes(u, *(torch.full((17, 2), 0.1 + 0.1j, dtype=A.dtype) for _ in "ABC"), u[0, 0])[0].any()


def test_operator_obeys_the_rules_of_torch():
    u, A, B, C, D, initial = arguments(batch=1, length=3, channels=2, count=2)
    for start in (None, initial):
        torch.library.opcheck(_modes.overload, (u, A, B, C, D, start, False, True), test_utils="test_schema")
        torch.library.opcheck(_modes.overload, (u, A, B, C, D, start, True, True), test_utils="test_faketensor")


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"algorithm": "fft"}], ids=str)
def test_compiles_without_a_break(options):
    torch._dynamo.reset()
    layer = S4D(5, 4, **{"algorithm": "recurrence"} | options).double()
    x = torch.randn(2, 70, 5, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for run in (layer, compiled):
        y = run(x)[0]
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    for want, got in zip(*found, strict=True):
        assert_close(got, want, factor=FAR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(2, 3)}, r"float32 or float64 \(B, L, H\), got torch.float32 of shape \(2, 3\)"),
        ({0: torch.zeros(2, 0, 5)}, r"\(2, 0, 5\)"),
        ({0: torch.zeros(2, 3, 5).half()}, "float16"),
        ({1: torch.zeros(4, 3, dtype=torch.complex64)}, r"A is .*complex64 of shape \(4, 3\).*\(5, 3\)"),
        ({1: torch.zeros(5, 3)}, "A is torch.float32.*needs torch.complex64"),
        ({1: torch.zeros(5, dtype=torch.complex64)}, r"A is .*\(5,\)"),
        ({2: torch.zeros(5, 3, dtype=torch.complex128)}, "B is torch.complex128.*complex64"),
        ({3: torch.zeros(5, 2, dtype=torch.complex64)}, r"C is .*\(5, 2\).*\(5, 3\)"),
        ({4: torch.zeros(4)}, r"D is .*\(4,\).*\(5,\)"),
        ({5: torch.zeros(3, 5, 3, dtype=torch.complex64)}, r"initial is .*\(3, 5, 3\).*\(2, 5, 3\)"),
    ],
)
def test_errors_give_both_values(change, message):
    given = dict(enumerate(arguments(dtype=torch.float32))) | change
    with pytest.raises(ValueError, match=message):
        modes(*given.values())


def test_second_derivatives_are_refused_not_zero():
    u = torch.randn(1, 9, 3, dtype=torch.float64, requires_grad=True)
    layer = S4D(3, 4, algorithm="recurrence").double()
    (first,) = torch.autograd.grad(layer(u)[0].square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        first.square().sum().backward()
