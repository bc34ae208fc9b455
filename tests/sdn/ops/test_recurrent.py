"""`sdn.recurrent`: the fused layer against the loop, and the loop against the recurrence written out once more."""

import math

import pytest
import torch
from helpers import TOLERANCE, assert_close, assert_lively

import sdn
from sdn import ALIF, BRF, LIF, RF, MultiGaussian, RecurrentState, recurrent
from sdn.ops.neuron.sequence import operands
from sdn.ops.recurrent import operator as kernel

H = 37
_h = torch.linspace(0.0, 1.0, H, dtype=torch.float64)
# name -> neuron with fields by channel, off its defaults, and the scale of the currents that makes it fire
NEURONS = {
    "lif-hard": (LIF(0.3 + 0.5 * _h, 0.8 + _h, "hard"), 2.0),
    "lif-soft": (LIF(0.3 + 0.5 * _h, 0.8 + _h, "soft"), 2.0),
    "alif": (ALIF(4 + 9 * _h, 20 + 50 * _h, 0.4 + _h, 0.02 + 0.1 * _h), 1.0),
    "rf": (RF(5 + 20 * _h, 4 + 2 * _h, 0.008, 0.5 + _h), 80.0),
    "brf": (BRF(8 + 40 * _h, 1 + 3 * _h, 0.5 + 0.4 * _h, 0.009, 0.6 + 0.5 * _h), 120.0),
    "brf-no-boundary": (BRF(8 + 30 * _h, 1 + 3 * _h, 0.9, 0.009, divergence_boundary=False), 120.0),
    "brf-no-reset": (BRF(8 + 30 * _h, 1 + 3 * _h, 0.9, 0.009, smooth_reset=False), 120.0),
    "brf-no-refraction": (BRF(8 + 30 * _h, 1 + 3 * _h, 0.9, 0.009, refractory_period=False), 120.0),
}
REST = BRF().initial_state(2, 4)
LOST = REST._replace(v=torch.full((2, 4), math.nan))
every_neuron = pytest.mark.parametrize("name", NEURONS)


def case(name, batch, length, inputs, dtype=torch.float64, channels=H):
    """A neuron, x with zeros in it, weight, bias, a state in the middle of a run; leaves all."""
    dynamics, scale = NEURONS[name]
    g = torch.Generator().manual_seed(length)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    x = torch.where(draw(batch, length, inputs) > 0.3, draw(batch, length, inputs), 0.0)
    weight = draw(channels, inputs + channels) * scale / math.sqrt(inputs + channels)
    bias = 0.3 * scale * draw(channels)
    spikes = (draw(batch, channels) > 0.5).double()
    state = [0.2 * draw(batch, channels).abs() for _ in dynamics.State._fields]
    fields = {f: v for f, v in vars(dynamics).items() if isinstance(v, torch.Tensor)}
    leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias, spikes, *state)]
    return dynamics, leaves, {f: v.to(dtype).requires_grad_() for f, v in fields.items()}


def run(dynamics, leaves, fields, solver, **options):
    x, weight, bias, spikes, *state = leaves
    start = RecurrentState(dynamics.State(*state), spikes)
    return recurrent(x, weight, dynamics.replace(**fields), start, bias=bias, solver=solver, **options)


def gradients(dynamics, leaves, fields, solver, **options):
    """Spikes, last state, and the gradient of everything for random gradients of spikes and state."""
    out, last = run(dynamics, leaves, fields, solver, **options)
    g = torch.Generator().manual_seed(7)
    given = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t.dtype) for t in (out, *last.neuron)]
    loss = sum((t * w).sum() for t, w in zip((out, *last.neuron), given, strict=True))
    return out, last, torch.autograd.grad(loss, [*leaves, *fields.values()], allow_unused=True)


@every_neuron
@pytest.mark.parametrize(("batch", "length", "inputs"), [(1, 1, 1), (5, 63, 3), (3, 130, 20)])
@pytest.mark.parametrize("detach_reset", [False, True])
def test_the_fused_layer_is_the_loop(name, batch, length, inputs, detach_reset):
    given = case(name, batch, length, inputs)
    spikes, last, grads = gradients(*given, "loop", detach_reset=detach_reset)
    found, end, theirs = gradients(*given, "fused", detach_reset=detach_reset)
    if length > 1:
        assert_lively(spikes)
    assert torch.equal(found, spikes)
    for a, b in zip(end.neuron, last.neuron, strict=True):
        assert_close(a, b)
    assert torch.equal(end.spike, spikes[:, -1])
    for want, got in zip(grads, theirs, strict=True):
        if want is None:  # LIF: the last spikes reach nothing but the weights; every other leaf is reached
            assert length == 1 or name.startswith("rf")
        else:
            assert_close(got, want)
            assert want.abs().sum() > 0 or length == 1


@every_neuron
def test_in_float32_spikes_are_bit_equal_where_sums_are_exact(name):
    """Weights and inputs that are multiples of 1/8: every order of summation gives the same current."""
    dynamics, leaves, fields = case(name, 3, 130, 4, torch.float32)
    with torch.no_grad():
        for leaf in leaves[:3]:
            leaf.copy_((8 * leaf).round() / 8)
    spikes, last = run(dynamics, leaves, fields, "loop")
    found, end = run(dynamics, leaves, fields, "fused")
    assert_lively(spikes)
    assert torch.equal(found, spikes)
    assert all(torch.equal(a, b) for a, b in zip(end.neuron, last.neuron, strict=True))
    _, _, grads = gradients(dynamics, leaves, fields, "loop")
    _, _, theirs = gradients(dynamics, leaves, fields, "fused")
    for want, got in zip(grads, theirs, strict=True):
        if want is not None:
            assert (got - want).abs().max() <= TOLERANCE[torch.float32] * want.abs().max()


@pytest.mark.parametrize("channels", [1, 64, 65, 130, 300, 520])
@pytest.mark.parametrize("batch", [1, 4, 6])
def test_every_width_and_every_number_of_rows(channels, batch):
    g = torch.Generator().manual_seed(channels)
    x = torch.rand(batch, 40, 2, generator=g, dtype=torch.float64).requires_grad_()
    weight = 150 * torch.randn(channels, 2 + channels, generator=g, dtype=torch.float64) / (2 + channels) ** 0.5
    weight[:, :2].abs_()
    weight.requires_grad_()
    omega = (8 + 30 * torch.rand(channels, generator=g, dtype=torch.float64)).requires_grad_()
    found = []
    for solver in ("loop", "fused"):
        spikes, _ = recurrent(x, weight, BRF(omega, 1.0), solver=solver)
        found.append(
            (spikes, torch.autograd.grad((spikes * torch.linspace(0, 1, 40)[:, None]).sum(), [x, weight, omega]))
        )
    assert 0 < found[0][0].mean() < 1
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*(grads for _, grads in found), strict=True):
        assert_close(b, a)


@every_neuron
@pytest.mark.parametrize("solver", ["loop", "fused"])
def test_chunks_and_steps_equal_the_whole(name, solver):
    dynamics, leaves, fields = case(name, 2, 63, 3)
    whole, last = run(dynamics, leaves, fields, solver)
    x, weight, bias, spikes, *state = (t.detach() for t in leaves)
    for sizes in ([20, 1, 42], [1] * 63):
        now, parts = RecurrentState(dynamics.State(*state), spikes), []
        for chunk in x.split(sizes, 1):
            out, now = recurrent(chunk, weight, dynamics.replace(**fields), now, bias=bias, solver=solver)
            parts.append(out)
        assert torch.equal(torch.cat(parts, 1), whole)
        assert all(torch.equal(a, b) for a, b in zip(now.neuron, last.neuron, strict=True))


def test_the_loop_is_the_recurrence_written_out():
    """Neuron by neuron in plain Python: current from the inputs and from the spikes of the step before."""
    dynamics = BRF(20.0, 1.0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 60, 2, generator=g, dtype=torch.float64)
    weight = 60 * torch.randn(4, 6, generator=g, dtype=torch.float64)
    spikes, last = recurrent(x, weight, dynamics, solver="loop")
    assert_lively(spikes)
    p = (-1 + math.sqrt(1 - 0.2**2)) / 0.01
    u, v, q, z = [0.0] * 4, [0.0] * 4, [0.0] * 4, [0.0] * 4
    for t in range(60):
        before = list(z)
        for i in range(4):
            current = sum(weight[i, c].item() * x[0, t, c].item() for c in range(2))
            current += sum(weight[i, 2 + j].item() * before[j] for j in range(4))
            b = p - 1.0 - q[i]
            u[i], v[i] = u[i] + 0.01 * (b * u[i] - 20 * v[i] + current), v[i] + 0.01 * (20 * u[i] + b * v[i])
            z[i] = float(u[i] - 1 - q[i] > 0)
            q[i] = 0.9 * q[i] + z[i]
        assert spikes[0, t].tolist() == z
    for got, want in zip(last.neuron, (u, v, q), strict=True):
        torch.testing.assert_close(got[0], torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)


def test_threads_change_no_bit():
    given = case("brf", 9, 70, 3, torch.float32)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(gradients(*given, "fused"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][2], found[1][2], strict=True):
        assert a is b is None or torch.equal(a, b)


def test_what_no_backward_pass_needs_is_not_kept():
    x, weight = torch.rand(2, 40, 3), torch.rand(H, 3 + H)
    neuron = operands(BRF(), torch.rand(2, 1, H), BRF().initial_state(2, H), BRF().default_spike)[0]
    rest = torch.zeros(H), torch.zeros(2, 3, H), torch.zeros(2, H), neuron.fixed
    for save, rows in ((False, 0), (True, 2)):
        *_, saved = kernel._recurrent(x, weight.T, *rest, neuron.numbers, neuron.program, "", [], False, save)
        assert saved.shape == (rows, 3, 3, H)


def test_the_operator_passes_torchs_own_checks():
    dynamics, leaves, fields = case("brf", 2, 20, 3)
    x, weight, bias, spikes, *state = leaves
    neuron, first, slope = operands(
        dynamics.replace(**fields), x.new_zeros(2, 1, H), dynamics.State(*state), MultiGaussian()
    )
    args = (x, weight.T, bias, first, spikes, neuron.fixed, neuron.numbers, neuron.program, *slope, True, True)
    args = tuple(a.detach().requires_grad_() if isinstance(a, torch.Tensor) else a for a in args)
    torch.library.opcheck(torch.ops.sdn.recurrent.default, args)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": torch.zeros(2, 5)}, ValueError, r"x must be float32 or float64 \(batch, length, inputs\)"),
        ({"x": torch.zeros(2, 5, 3).int()}, ValueError, "got torch.int32"),
        ({"weight": torch.zeros(4, 6)}, ValueError, r"weight must be \(H, 3 \+ H\).*got \(4, 6\)"),
        ({"weight": torch.zeros(4, 7).double()}, ValueError, "torch.float64"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias has shape \(5,\) and torch.float32, it must be \(4,\)"),
        ({"bias": torch.zeros(4).double()}, ValueError, "torch.float64, it must be .* torch.float32"),
        ({"weight": torch.full((4, 7), math.nan)}, ValueError, "28 of the 28 numbers of weight are NaN"),
        ({"bias": torch.full((4,), math.inf)}, ValueError, "4 of the 4 numbers of bias are NaN or infinite"),
        ({"initial": RecurrentState(3, torch.zeros(2, 4))}, ValueError, "must be that of the dynamics, got int"),
        ({"initial": RecurrentState(REST, torch.full((2, 4), 0.5))}, ValueError, "0 or 1, got values from 0.5"),
        ({"initial": RecurrentState(LOST, torch.zeros(2, 4))}, ValueError, "8 of the 8 numbers of the state's v"),
        ({"initial": 3}, ValueError, "initial must be a RecurrentState"),
        ({"initial": RecurrentState(BRF().initial_state(2, 4), torch.zeros(2, 5))}, ValueError, r"spikes \(2, 5\)"),
        ({"initial": RecurrentState(BRF().initial_state(3, 4), torch.zeros(2, 4))}, ValueError, "state field 'u'"),
        ({"initial": RecurrentState(RF().initial_state(2, 4), torch.zeros(2, 4))}, ValueError, "must be a BRFState"),
        ({"solver": "parallel"}, ValueError, "solver must be fused or loop, got 'parallel'"),
        (
            {"spike_gradient": type("Own", (), {"slope": lambda s, v: v.sort()[0]})()}, NotImplementedError,
            r"Own uses sort.*cannot be compiled.*solver='loop'",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, error, match):
    given = {"x": torch.zeros(2, 5, 3), "weight": torch.zeros(4, 7), "dynamics": BRF(), **change}
    with pytest.raises(error, match=match):
        recurrent(given.pop("x"), given.pop("weight"), given.pop("dynamics"), given.pop("initial", None), **given)


@pytest.mark.parametrize("solver", ["loop", "fused"])
def test_a_neuron_that_diverges_is_named_with_its_step(solver):
    """RF with omega 90 and little damping in one of three neurons: |1 + dt (b + i omega)| = 1.35 a step."""
    dynamics = RF(torch.tensor([5.0, 90.0, 5.0]), torch.tensor([1.0, 0.1, 1.0]))
    weight = torch.zeros(3, 4)
    weight[:, 0] = 1.0
    factor = math.hypot(1 - 0.001, 0.9)
    x = torch.zeros(2, 800, 1)
    x[1, 0] = 1.0
    match = r"RF: neuron 1 of row 1 became NaN or infinite at step (\d+) \(omega 90, damping 0.1"
    with pytest.raises(ValueError, match=match) as found:
        recurrent(x, weight, dynamics, solver=solver)
    step = int(str(found.value).split(" at step ")[1].split()[0])
    assert abs(step - math.log(3.4e38 / 90 / 0.01) / math.log(factor)) < 3  # omega v is the first to overflow
    assert "take BRF, which balances itself" in str(found.value)


def test_nan_in_the_input_is_named():
    x = torch.zeros(1, 5, 1)
    x[0, 2] = math.nan
    with pytest.raises(ValueError, match="1 of the 5 numbers of x are NaN or infinite"):
        recurrent(x, torch.ones(3, 4), BRF())


def test_a_learned_omega_beyond_one_over_dt_stays_a_number():
    omega = torch.tensor([30.0, 100.0, 250.0], requires_grad=True)
    spikes, last = recurrent(torch.rand(2, 50, 1), torch.full((3, 4), 90.0), BRF(omega, 1.0))
    assert all(torch.isfinite(v).all() for v in last.neuron)
    loss = sum(v.sum() for v in last.neuron) + spikes.sum()
    (grad,) = torch.autograd.grad(loss, [omega])
    assert torch.isfinite(grad).all()
    assert grad[0] != 0


def test_a_learned_omega_beyond_one_over_dt_can_only_come_back():
    """What it is computed as is just below 1/dt; a gradient passes where a step against it lowers omega."""
    omega = torch.tensor([30.0, 150.0, 150.0], requires_grad=True)
    turn = BRF(omega, 1.0).turn
    assert turn.tolist() == pytest.approx([30.0, 100.0, 100.0], rel=1e-4)
    (grad,) = torch.autograd.grad((turn * torch.tensor([2.0, 3.0, -3.0])).sum(), [omega])
    assert grad.tolist() == [2.0, 3.0, 0.0]
    with torch.no_grad():
        assert (BRF(omega, 1.0).boundary > -100).all()


def test_a_gradient_of_the_fused_layer_is_not_differentiated_again():
    weight = torch.full((3, 4), 90.0, requires_grad=True)
    spikes, _ = recurrent(torch.rand(1, 5, 1), weight, BRF())
    (grad,) = torch.autograd.grad(spikes.sum(), [weight], create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


@pytest.mark.parametrize("solver", ["loop", "fused"])
def test_a_state_in_another_type_is_taken(solver):
    start = RecurrentState(BRF().initial_state(2, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64))
    spikes, last = recurrent(torch.rand(2, 5, 3), torch.full((4, 7), 9.0), BRF(), start, solver=solver)
    assert spikes.dtype == last.neuron.u.dtype == torch.float32


@pytest.mark.parametrize(
    ("dynamics", "advice"),
    [
        (BRF(20.0, 300.0), "lower b_offset, dt or the learning rate: damping above"),
        (LIF(0.9), "look at the weights and the"),
    ],
)
def test_the_advice_is_that_of_the_neuron(dynamics, advice):
    x = torch.ones(1, 400, 1) if isinstance(dynamics, BRF) else torch.full((1, 9, 1), 3e38)
    with pytest.raises(sdn.dynamics.base.Diverged, match=advice):
        recurrent(x, torch.full((2, 3), 5.0), dynamics)
