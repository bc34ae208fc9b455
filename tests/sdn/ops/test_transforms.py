"""torch.func and forward mode: the derivative of reverse mode, or one sentence that names what has one."""

import pytest
import torch
from helpers import DYNAMICS, TOLERANCE, currents, every_fused
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

import sdn
from spikingssm import RSNN, S4D, S5RF, SpikingSSM

F64 = torch.float64
FAR = 1e3 * TOLERANCE[F64]
REFUSED = r"sdn::\w+: a compiled operator has no forward-mode derivative; use solver='loop'"


def same(a, b):
    assert b.abs().max() > 1e-6, "a derivative of 0 proves nothing"
    assert (a - b).abs().max() <= FAR * b.abs().max()


def reverse(function, x):
    leaf = x.clone().requires_grad_()
    function(leaf).backward()
    return leaf.grad


SOLVERS = [
    pytest.param(dynamics, std, solver, id=f"{name}-{solver}")
    for name, dynamics, std in DYNAMICS
    for solver in ("fused", "loop", "parallel")
    if solver == "loop" or (name.split("-")[0] in ("lif", "alif", "rf", "brf"))
] + [pytest.param(sdn.LIF(0.125), 1.0, solver, id=f"shipped-{solver}") for solver in ("surrogate", "refined")]


def function_of(dynamics, solver):
    neuron = sdn.Neuron(dynamics, 5, solver=sdn.Surrogate(refine=2) if solver == "refined" else solver).double()
    weight = torch.randn(20, 5, dtype=F64)
    return lambda x: (neuron(x)[0] * weight).sum() + 0.1 * neuron(x)[1][0].sum()


@pytest.mark.parametrize(("dynamics", "std", "solver"), SOLVERS)
def test_grad_and_vmap(dynamics, std, solver):
    """By sample, which runs the operator once for each."""
    f, x = function_of(dynamics, solver), currents(std, length=20)
    want = reverse(f, x)
    same(grad(f)(x), want)
    same(vmap(grad(lambda one: f(one[None])))(x), want)
    same(vmap(lambda one: f(one[None]))(x), torch.stack([f(one[None]) for one in x]))


@pytest.mark.parametrize(("dynamics", "std", "solver"), SOLVERS)
def test_forward_mode(dynamics, std, solver):
    f, x = function_of(dynamics, solver), currents(std, length=20)
    v = torch.randn_like(x)
    if solver == "fused":
        with pytest.raises(NotImplementedError, match=REFUSED):
            jvp(f, (x,), (v,))
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=REFUSED):
            f(forward_ad.make_dual(x, v))
        return
    want = (reverse(f, x) * v).sum()
    same(jvp(f, (x,), (v,))[1], want)
    with forward_ad.dual_level():
        same(forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent, want)


@every_fused
def test_without_a_tangent_forward_mode_is_not_in_the_way(dynamics, std):
    neuron, x = sdn.Neuron(dynamics, 5), currents(std)
    with forward_ad.dual_level():
        assert torch.equal(neuron(x)[0], neuron(x)[0])


def test_second_derivatives_are_those_of_the_slope_or_an_error():
    x = currents(1.0, batch=1, length=20)
    assert hessian(function_of(sdn.LIF(0.3), "loop"))(x[:, :, :]).shape == (1, 20, 5, 1, 20, 5)
    with pytest.raises(NotImplementedError, match=REFUSED):
        hessian(function_of(sdn.LIF(0.3), "fused"))(x)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        jacrev(grad(function_of(sdn.LIF(0.3), "fused")))(x)


@pytest.mark.parametrize("reverse_order", [False, True])
@pytest.mark.parametrize("dtype", [F64, torch.complex128], ids=str)
def test_scan_has_every_derivative(dtype, reverse_order):
    a = (0.9 * torch.rand(4, dtype=F64)).to(dtype) * torch.exp(torch.zeros(4, dtype=dtype))
    b, initial = torch.randn(2, 12, 4, dtype=dtype), torch.randn(2, 4, dtype=dtype)
    given = tuple(x.requires_grad_() for x in (a, b, initial))
    function = lambda *g: sdn.scan(*g, reverse=reverse_order)  # noqa: E731
    assert torch.autograd.gradcheck(function, given, check_forward_ad=True, check_batched_grad=True)
    varying = torch.rand(2, 12, 4, dtype=F64).to(dtype).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: sdn.scan(a, b, reverse=reverse_order), (varying, b), check_forward_ad=True
    )


def test_an_omega_above_its_range_has_the_derivative_of_a_constant():
    omega = torch.tensor([20.0, 90.0, 120.0, 95.0, 30.0], dtype=F64)
    x = currents(50.0, length=20)
    f = lambda w: sdn.simulate(sdn.BRF(omega=w), x).state.u.sum()  # noqa: E731
    tangent = torch.func.jacfwd(f)(omega)
    assert tangent[2] == 0
    assert (tangent[[0, 1, 3, 4]] != 0).all()


# ---- whole models
def models(how):
    resonators = S5RF(3, 4, 8, 2, num_blocks=2, solver=how["solver"], first_discretisation="zoh")
    with torch.no_grad():
        for layer in resonators.layers:
            layer.dense.weight.mul_(40)  # else the second layer is silent
    return {
        "ssm": (SpikingSSM(3, 4, 8, 2, 8, dropout=0.0, **how), 1.0),
        "ssm-surrogate": (SpikingSSM(3, 4, 8, 2, 8, dropout=0.0, **{**how, "solver": "surrogate"}), 1.0),
        "s5rf": (resonators, 4.0),
        "rsnn": (RSNN(3, 4, 8, pool="mean", solver=how["solver"], learn={"omega": sdn.uniform(5, 10)}), 60.0),
    }


NAMES = ["ssm", "ssm-surrogate", "s5rf", "rsnn"]
FAST, SLOW = {"solver": "fused", "algorithm": "recurrence"}, {"solver": "loop", "algorithm": "fft"}


@pytest.mark.parametrize("how", [FAST, SLOW], ids=["fast", "slow"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_sample_of_a_model(name, how):
    model, std = models(how)[name]
    model = model.double().eval()
    x = std * torch.randn(3, 20, 3, dtype=F64)
    parameters = {k: v.detach() for k, v in model.named_parameters() if v.requires_grad}
    loss = lambda p, one: functional_call(model, p, (one[None],))[0].square().sum()  # noqa: E731
    by_sample = vmap(grad(loss), (None, 0))(parameters, x)
    model(x)[0].square().sum().backward()
    want = {k: v.grad for k, v in model.named_parameters() if v.grad is not None}
    assert set(want) == set(by_sample)
    same(torch.cat([by_sample[k].sum(0).flatten() for k in want]), torch.cat([v.flatten() for v in want.values()]))


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_of_a_model(name):
    model, std = models(SLOW)[name]
    model, x = model.double().eval(), std * torch.randn(3, 20, 3, dtype=F64)
    parameters = {k: v.detach() for k, v in model.named_parameters() if v.requires_grad}
    tangents = {k: torch.randn_like(v) for k, v in parameters.items()}
    loss = lambda p: functional_call(model, p, (x,))[0].square().sum()  # noqa: E731
    want = grad(loss)(parameters)
    same(jvp(loss, (parameters,), (tangents,))[1], sum((want[k] * tangents[k]).sum() for k in want))


def test_a_compiled_recurrence_names_the_way_out():
    x = torch.randn(2, 9, 4)
    with pytest.raises(NotImplementedError, match=r"sdn::modes.*algorithm='fft' in S4D"):
        jvp(lambda z: S4D(4, 8, algorithm="recurrence")(z)[0].sum(), (x,), (x,))
