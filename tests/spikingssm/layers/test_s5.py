"""Laws of the resonate-and-fire layer: discretisations, gradients, dropout, streaming, start values."""

import math

import pytest
import torch
from helpers import assert_close, assert_lively, assert_same_spikes, every_dtype
from s5rf_oracle import SLOW, bars, hippo_n, resonate_and_fire

from spikingssm.layers.s5 import S5
from spikingssm.layers.ssm import discretise_spikes

NAMES = ["dirac", "zoh", "bilinear"]
SOLVERS = ["fused", "parallel", "loop"]
every_name = pytest.mark.parametrize("name", NAMES)
every_solver = pytest.mark.parametrize("solver", SOLVERS)


# ---- discretisations
@every_name
def test_a_discretisation_is_that_of_the_published_table(name):
    a, omega, log_eta = torch.randn(3, 7, dtype=torch.float64).mul(torch.tensor([[0.5], [20.0], [0.7]])).unbind()
    lam, eta = torch.complex(-a.exp(), omega), (log_eta - 3).exp()
    factor, gain = discretise_spikes(name, lam, eta)
    want_factor, want_gain = bars(name, a, omega, log_eta - 3)
    torch.testing.assert_close(factor, want_factor, rtol=1e-12, atol=0)
    torch.testing.assert_close(gain.to(want_gain.dtype), want_gain, rtol=1e-12, atol=0)
    if name == "dirac":
        assert torch.equal(torch.view_as_real(gain.to(factor.dtype))[:, 1], torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize("name", ["zoh", "bilinear"])
def test_every_gain_tends_to_that_of_dirac_at_first_order_in_eta(name):
    lam = torch.tensor([-0.5 + 81j, -0.5 - 3j, -2.0 + 0j], dtype=torch.complex128)
    eta = 1e-3 * 2.0 ** -torch.arange(8, dtype=torch.float64)
    errors = torch.stack([(discretise_spikes(name, lam, e)[1] / e - 1).abs() for e in eta])
    torch.testing.assert_close(errors[-1], eta[-1] * lam.abs() / 2, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        (errors[:-1] / errors[1:]).log2(), torch.ones(7, 3, dtype=torch.float64), atol=0.02, rtol=0
    )


def test_zoh_attenuates_a_fast_neuron_and_dirac_does_not():
    lam, eta = torch.tensor([-0.5 + 81j], dtype=torch.complex128), torch.tensor([0.1], dtype=torch.float64)
    ratio = discretise_spikes("zoh", lam, eta)[1] / discretise_spikes("dirac", lam, eta)[1]
    assert abs(ratio.abs().item() - 0.193) < 0.01  # "about 0.19 plus a phase shift of about omega eta / 2"
    assert discretise_spikes("dirac", lam, eta)[1].abs().item() == pytest.approx(0.1)


@every_name
@every_dtype
def test_the_factor_lies_inside_the_unit_circle_for_extreme_parameters(name, dtype):
    grid = torch.cartesian_prod(*(torch.tensor(v, dtype=dtype) for v in ([-4, 0, 4], [-1e3, 0, 1e3], [-7, -2, 1])))
    a, omega, log_eta = grid.unbind(1)
    factor, gain = discretise_spikes(name, torch.complex(-a.exp(), omega), log_eta.exp())
    # In single precision some of these factors are nearer to 1 than any number below it.
    assert (factor.abs() < 1).all() if dtype == torch.float64 else (factor.abs() <= 1 + 2**-22).all()
    assert torch.isfinite(torch.view_as_real(factor)).all()
    assert torch.isfinite(gain.abs()).all()
    assert factor.abs().max() > 0.99


def test_an_unknown_discretisation_is_refused():
    with pytest.raises(ValueError, match=r"dirac, zoh, bilinear.*euler"):
        discretise_spikes("euler", torch.tensor([-1 + 1j]), torch.tensor([0.1]))


# ---- the layer
def lively(d_input=5, d_state=8, dtype=torch.float64, **options):
    """A layer whose neurons fire on inputs of N(0, 1): at their start values they hardly do."""
    factor = 6.0 if options.get("magnitude") else 25.0
    layer = S5(d_input, d_state, num_blocks=2, eta_min=0.02, eta_max=0.3, **options).to(dtype)
    with torch.no_grad():
        layer.dense.weight.mul_(factor)
        layer.neuron.log_decay.add_(0.3 * torch.randn(d_state, dtype=dtype))
    return layer


def published(layer, x, name):
    """The oracle's run on the layer's own numbers, as fresh leaves: dense (2P, H), log_decay, omega, log_eta."""
    leaves = [
        p.detach().double().requires_grad_() for p in (layer.dense.weight, *(getattr(layer.neuron, k) for k in SLOW))
    ]
    u = torch.einsum("ph,blh->blp", torch.complex(*leaves[0].chunk(2)), x.to(torch.complex128))
    V, n = layer.neuron.rotation, layer.neuron.omega.numel()
    V = None if V is None else torch.block_diag(*[torch.complex(*V.double())] * (n // V.shape[1]))
    neuron = layer.neuron
    return leaves, resonate_and_fire(u, *bars(name, *leaves[1:]), V, magnitude=neuron.magnitude, rho=neuron.refractory)


@every_solver
@every_dtype
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dirac", {}),
        ("zoh", {"rotate": True}),
        ("bilinear", {"magnitude": True}),
        ("dirac", {"refractory": 0.8}),
        ("zoh", {"rotate": True, "magnitude": True, "refractory": 0.5}),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v) or "plain",
)
def test_spikes_and_the_gradient_of_every_parameter_are_those_of_the_plain_loop(solver, dtype, name, options):
    layer = lively(discretisation=name, solver=solver, dtype=dtype, **options)
    x = torch.randn(3, 65, 5, dtype=dtype)
    leaves, want = published(layer, x, name)
    spikes, state = layer(x)
    alike = assert_same_spikes(spikes.detach(), want.spikes.detach(), want.margins.detach())
    assert alike.all(), "choose other numbers: the gradients of other trajectories cannot be compared"
    assert_close(torch.view_as_real(state.x.detach()), torch.view_as_real(want.last.detach()))
    weights = torch.randn_like(want.spikes)
    (spikes * weights.to(dtype)).sum().backward()
    (want.spikes * weights).sum().backward()
    for leaf, (key, parameter) in zip(leaves, sorted_parameters(layer), strict=True):
        assert leaf.grad.abs().max() > 1e-3, key
        assert_close(parameter.grad, leaf.grad, factor=10)


def sorted_parameters(layer):
    named = dict(layer.named_parameters())
    assert named.keys() == {"dense.weight", *(f"neuron.{k}" for k in SLOW)}
    return [(k, named[k]) for k in ("dense.weight", *(f"neuron.{k}" for k in SLOW))]


@every_solver
@pytest.mark.parametrize("length", [1, 2, 63, 200])
def test_whole_chunks_and_steps_are_one_run(solver, length):
    layer = lively(solver=solver, rotate=True, discretisation="zoh", refractory=0.7)
    x = torch.randn(2, length, 5, dtype=torch.float64)
    whole, end = layer(x)
    if length > 2:
        assert_lively(whole)
    state, steps = layer.initial_state(2, dtype=torch.float64), []
    for now in x.unbind(1):
        out, state = layer.step(now, state)
        steps.append(out)
    half, chunks = None, []
    for part in x.split([length // 3, length - length // 3] if length > 2 else length, 1):
        out, half = layer(part, half)
        chunks.append(out)
    for spikes, last in ((torch.stack(steps, 1), state), (torch.cat(chunks, 1), half)):
        assert torch.equal(spikes, whole)
        assert_close(torch.view_as_real(last.x), torch.view_as_real(end.x))
        assert_close(last.q, end.q)


def test_an_input_of_any_strides_is_read_right():
    layer, x = lively(), torch.randn(3, 40, 5, dtype=torch.float64)
    whole, _ = layer(x)
    assert_lively(whole)
    assert torch.equal(layer(x.mT.contiguous().mT)[0], whole)
    assert torch.equal(layer(x.repeat_interleave(2, 1)[:, ::2])[0], whole)


def test_no_input_after_a_step_moves_a_spike_before_it():
    layer, x = lively(), torch.randn(2, 40, 5, dtype=torch.float64)
    other = x.clone()
    other[:, 25:] += 3
    before, after = layer(x)[0], layer(other)[0]
    assert torch.equal(before[:, :25], after[:, :25])
    assert not torch.equal(before[:, 25:], after[:, 25:])


def test_a_solver_is_exchanged_with_the_very_same_state_dict():
    layer = lively(solver="loop")
    x = torch.randn(2, 30, 5, dtype=torch.float64)
    for solver in SOLVERS:
        other = S5(5, 8, num_blocks=2, solver=solver).double()
        assert not torch.equal(other(x)[0], layer(x)[0])
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x)[0], layer(x)[0])


# ---- dropout
def test_dropout_takes_real_and_imaginary_parts_one_by_one_and_anew_at_every_step():
    layer = S5(4, 16, num_blocks=2, dropout=0.3)
    seen = []
    layer.neuron.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    x = torch.randn(8, 200, 4)
    layer(x)
    layer.eval()(x)
    dropped, dense = seen
    torch.testing.assert_close(dense, layer.dense(x).detach())
    kept = dropped != 0
    torch.testing.assert_close(dropped, torch.where(kept, dense / 0.7, 0.0))
    real, imag = (~kept).double().chunk(2, -1)
    n = real.numel()
    for rate in (real.mean(), imag.mean()):
        assert abs(rate - 0.3) < 5 * math.sqrt(0.21 / n)
    assert abs((real * imag).mean() - 0.09) < 5 * math.sqrt(0.09 * 0.91 / n)  # independent of each other,
    assert abs((real[:, 1:] * real[:, :-1]).mean() - 0.09) < 5 * math.sqrt(0.09 * 0.91 / n)  # and from step to step


# ---- start values
def test_every_block_starts_with_the_published_spectrum():
    layer = S5(3, 24, num_blocks=3)
    frequencies = hippo_n(8)[0].imag
    torch.testing.assert_close(
        layer.neuron.omega.detach().double(), torch.tensor(frequencies).repeat(3), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(layer.neuron.log_decay.detach(), torch.full((24,), math.log(0.5)))
    assert layer.neuron.rotation is None
    V = torch.complex(*S5(3, 24, num_blocks=3, rotate=True).neuron.rotation.double())
    S = torch.tensor(hippo_n(8)[2], dtype=torch.complex128)
    torch.testing.assert_close(
        V.mH @ S @ V,
        torch.diag(torch.complex(torch.full((8,), -0.5).double(), torch.tensor(frequencies))),
        atol=2e-5,
        rtol=0,
    )


@pytest.mark.parametrize("rotate", [False, True])
def test_dense_entries_are_lecun_normal_and_carry_the_inverse_rotation(rotate):
    layer = S5(50, 64, num_blocks=8, rotate=rotate)
    real, imag = layer.dense.weight.detach().chunk(2)
    for plane in (real, imag):
        assert abs(plane.mean()) < 5 * math.sqrt(1 / 50 / plane.numel())
        assert abs(plane.std() * math.sqrt(50) - 1) < 5 / math.sqrt(2 * plane.numel())
    assert abs((real * imag).mean() * 50) < 5 / math.sqrt(plane.numel())
    # Left of V^H stood a truncated normal: turned back by V, no entry is larger than two of its own deviations.
    V = torch.as_tensor(hippo_n(8)[1]).to(torch.complex64)
    if rotate:
        V = torch.complex(*layer.neuron.rotation)
    raw = torch.einsum("ij,bjh->bih", V, torch.complex(real, imag).unflatten(0, (8, 8)))
    if rotate:
        bound = 2 / 0.8796 / math.sqrt(50)
        assert torch.view_as_real(raw).abs().max() < bound * 1.001
        assert torch.view_as_real(raw).abs().max() > bound * 0.98
        assert torch.complex(real, imag).abs().max() > bound * 1.1


def test_the_time_scales_are_log_uniform_within_their_bounds():
    log_eta = S5(1, 4096, num_blocks=1024, eta_min=0.004, eta_max=0.2).neuron.log_eta.detach()
    place = (log_eta - math.log(0.004)) / math.log(50)
    assert 0 <= place.min() < 0.002
    assert 0.998 < place.max() <= 1
    counts = torch.histc(place, 8, 0, 1)
    assert ((counts - 512) ** 2 / 512).sum() < 30  # chi-squared with 7 degrees of freedom


def test_fixed_time_scales_do_not_learn():
    layer = lively(learn_eta=False)
    layer(torch.randn(2, 40, 5, dtype=torch.float64))[0].sum().backward()
    assert not layer.neuron.log_eta.requires_grad
    assert layer.neuron.log_eta.grad is None
    assert layer.neuron.omega.grad.abs().max() > 0
    assert "neuron.log_eta" in layer.state_dict()
    assert layer.state_dict().keys() == lively().state_dict().keys()


def test_a_random_spectrum_is_another_draw_of_the_same_reach():
    omega = [S5(2, 8192, num_blocks=512, spectrum="random").neuron.omega.detach() for _ in range(2)]
    hippo = S5(2, 8192, num_blocks=512).neuron.omega.detach()
    assert not torch.equal(*omega)
    assert len(omega[0].unique()) > 8000
    torch.testing.assert_close(omega[0].square().mean(), hippo.square().mean(), rtol=0.06, atol=0)


@pytest.mark.parametrize(
    ("match", "options"),
    [
        (r"num_blocks.*7.*16|16.*num_blocks.*7", {"num_blocks": 7}),
        (r"euler", {"discretisation": "euler"}),
        (r"gauss", {"spectrum": "gauss"}),
        (r"eta_min.*0.2.*0.1", {"eta_min": 0.2, "eta_max": 0.1}),
        (r"eta_min.*-1", {"eta_min": -1.0}),
        (r"dropout.*1\.0", {"dropout": 1.0}),
        (r"threshold.*0", {"threshold": 0.0}),
        (r"refractory.*1\.5", {"refractory": 1.5}),
        (r"solver must be one of.*fft", {"solver": "fft"}),
    ],
)
def test_a_bad_option_is_refused_with_its_value_in_one_line(match, options):
    with pytest.raises(ValueError, match=match) as error:
        S5(3, 16, **options)
    assert "\n" not in str(error.value)


def test_an_input_of_another_shape_is_refused():
    layer = S5(3, 16)
    for bad in (torch.zeros(2, 5, 4), torch.zeros(5, 3), torch.zeros(2, 0, 3)):
        with pytest.raises(ValueError, match=rf"length, 3\), .*\({', '.join(map(str, bad.shape))}\)"):
            layer(bad)
    with pytest.raises(ValueError, match="8"):
        layer(torch.zeros(2, 5, 3), lively().initial_state(2, dtype=torch.float32))
