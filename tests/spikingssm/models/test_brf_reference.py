"""The published BRF network of the benchmarks against an independent statement in numpy, and scripted against eager."""

import warnings
from statistics import NormalDist

import numpy as np
import pytest
import torch

import sdn
from benchmarks import brf_reference
from benchmarks.brf_reference import PublishedBRF, brf_step, injected, integrator_step
from spikingssm.models import RSNN

SHAPE = (40, 3, 2)  # time, batch, inputs
NARROW, BROAD = NormalDist(0, 0.5), NormalDist(0, 3)


def double_gaussian(v):
    return 0.5 * np.vectorize(lambda x: 1.15 * NARROW.pdf(x) - 0.3 * BROAD.pdf(x))(v)


def statement(p, x):
    """Spikes (T, B, H) and outputs (T, B, O) on numpy numbers, written for one complex step.

    With parameters ``p + i h d`` the imaginary parts of the outputs over h are the derivative along d, exactly: every
    operation is analytic, the spike by its slope.
    """
    d, eps = 0.01, 0j
    omega, offset, tau = (p[n] * np.sign(p[n].real) for n in ("omega", "b_offset", "tau"))
    stay = np.exp(-1 / tau)
    width = p["weight"].shape[1] - p["weight"].shape[0]
    inner, outer = p["weight"][:, width:], p["weight"][:, :width]
    ring = np.stack([np.zeros((x.shape[1], len(omega))) + eps] * 2)  # u and v
    q = z = ring[0]
    y = eps
    spikes, outputs = [], []
    for now in x:
        rate = (np.sqrt(1 - (d * omega) ** 2) - 1) / d - offset - q
        drive = now @ outer.T + z @ inner.T
        turn = np.stack([rate * ring[0] - omega * ring[1] + drive, omega * ring[0] + rate * ring[1]])
        ring = ring + d * turn
        above = ring[0] - 1 - q
        z = (above.real > 0) + 1j * double_gaussian(above.real) * above.imag
        q = 0.9 * q + z
        y = stay * y + (1 - stay) * (z @ p["readout"].T)
        spikes.append(z.real)
        outputs.append(y)
    return np.stack(spikes), np.stack(outputs)


def negative_log_likelihood(logits, labels):
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(scores, labels[..., None], -1).mean()


def make(scripted=False, dtype=torch.float64):
    """A network that fires, with raw values of both signs."""
    torch.manual_seed(0)
    model = PublishedBRF(SHAPE[2], 7, 3, omega=(15, 50), b_offset=(-1, 1), scripted=scripted).to(dtype)
    with torch.no_grad():
        model.weight *= 150
        model.omega[::2] *= -1
        model.tau[0] *= -1
    return model


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, SHAPE[:2], generator=generator)
    return torch.rand(SHAPE, generator=generator, dtype=torch.float64).to(dtype), labels


def loss_and_gradients(model, x, labels, last):
    out = model(x)[-1] if last else model(x)
    wanted = labels[-1] if last else labels
    loss = torch.nn.functional.cross_entropy(out.flatten(0, -2), wanted.flatten())
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_network_is_the_statement(scripted):
    model, (x, _) = make(scripted), inputs()
    values = {name: p.detach().numpy() for name, p in model.named_parameters()}
    spikes, outputs = statement(values, x.numpy())
    assert 0.03 < spikes.mean() < 0.5
    np.testing.assert_array_equal(model.spikes(x).detach().numpy(), spikes)
    np.testing.assert_allclose(model(x).detach().numpy(), outputs.real, rtol=0, atol=1e-12)


@pytest.mark.parametrize("last", [False, True], ids=["every step", "last step"])
@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_gradients_are_those_of_the_statement(scripted, last):
    model, (x, labels) = make(scripted), inputs()
    _, grads = loss_and_gradients(model, x, labels, last)
    values = {name: p.detach().numpy() for name, p in model.named_parameters()}
    generator = np.random.default_rng(0)
    h = 1e-30
    for name, value in values.items():
        direction = generator.standard_normal(value.shape)
        moved = values | {name: value + 1j * h * direction}
        _, outputs = statement(moved, x.numpy())
        part = slice(-1, None) if last else slice(None)
        want = negative_log_likelihood(outputs[part], labels.numpy()[part]).imag / h
        assert abs(want) > 1e-7, name
        assert (grads[name].numpy() * direction).sum() == pytest.approx(want, rel=1e-8), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_scripted_is_eager(dtype):
    x, labels = inputs(dtype)
    eager, scripted = make(dtype=dtype), make(True, dtype)
    assert torch.equal(eager.spikes(x), scripted.spikes(x))
    for last in (False, True):
        for _ in range(3):  # the first runs of a script are not yet the compiled ones
            loss, want = loss_and_gradients(eager, x, labels, last)
            other, got = loss_and_gradients(scripted, x, labels, last)
            assert other == pytest.approx(loss, rel=1e-6)
            for name, grad in want.items():
                assert (got[name] - grad).abs().max() <= 1e-5 * grad.abs().max(), name


def test_injected_spike_has_the_step_forward_and_the_slope_backward():
    v = torch.cat((torch.linspace(-4, 4, 4001, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    for fire in (injected, brf_reference.Step.apply):
        leaf = v.clone().requires_grad_()
        out = fire(leaf)
        assert torch.equal(out.detach(), (v > 0).double())
        (grad,) = torch.autograd.grad(out.sum(), leaf)
        np.testing.assert_allclose(grad.numpy(), double_gaussian(v.numpy()), rtol=1e-12)
    assert double_gaussian(np.zeros(1)) == pytest.approx(0.438837, abs=1e-6)


def test_step_raises_the_threshold_by_the_refractory_variable_before_the_spike():
    one = torch.ones(1, 1, dtype=torch.float64)
    rest, omega = torch.zeros_like(one), torch.full((1,), 10.0, dtype=torch.float64)
    z, u, v, q = brf_step(150 * one, rest, rest, rest, omega, omega * 0)
    assert (z.item(), u.item(), v.item(), q.item()) == (1.0, pytest.approx(1.5), 0.0, 1.0)
    z, u, _, q = brf_step(150 * one, u, v, q, omega, omega * 0)
    b = (np.sqrt(1 - 0.1**2) - 1) / 0.01 - 1
    assert u.item() == pytest.approx(1.5 + 0.01 * (b * 1.5 + 150))
    assert u.item() > 2
    assert (z.item(), q.item()) == (1.0, pytest.approx(1.9))
    z, *_ = brf_step(-50 * one, 2.4 * one, v, q, omega, omega * 0)
    assert z.item() == 0.0  # above 1, below 1 + q


def test_integrator_forgets_within_tau():
    y, tau = torch.ones(1, 1), torch.full((1,), -5.0)
    for _ in range(5):
        y = integrator_step(y, torch.zeros(1, 2), torch.ones(1, 2), tau)
    assert y.item() == pytest.approx(np.exp(-1), rel=1e-6)


def test_scripting_is_silent():
    brf_reference.scripted_network.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brf_reference.scripted_network()


def our_network(**options):
    torch.manual_seed(0)
    learn = {"omega": sdn.uniform(15, 50), "b_offset": sdn.uniform(0.1, 1)}
    model = RSNN(2, 3, 7, dynamics=sdn.BRF(), **{"learn": learn, "solver": "loop", **options}).double()
    with torch.no_grad():
        model.layers[0].input.weight *= 150
        model.layers[0].recurrent.weight *= 100
    return model


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_a_network_of_ours_is_the_published_one_with_its_parameters(scripted):
    ours, (x, labels) = our_network(), inputs()
    theirs = PublishedBRF.sharing(ours, scripted)
    potentials, _ = ours(x.transpose(0, 1))
    spikes, _ = ours.layers[0](x.transpose(0, 1))
    assert 0.03 < spikes.mean() < 0.5
    assert torch.equal(theirs.spikes(x), spikes.transpose(0, 1))
    assert torch.allclose(theirs(x), potentials.transpose(0, 1), atol=1e-12)
    torch.nn.functional.cross_entropy(potentials.flatten(0, 1), labels.T.flatten()).backward()
    loss_and_gradients(theirs, x, labels, last=False)
    grads = theirs.gradients()
    assert set(grads) == {name for name, _ in ours.named_parameters()}
    for name, p in ours.named_parameters():
        assert p.grad.abs().max() > 1e-8, name
        assert (grads[name] - p.grad).abs().max() <= 1e-10 * p.grad.abs().max(), name


def test_copied_parameters_are_the_copy_s_own():
    ours = our_network()
    theirs, before = PublishedBRF.sharing(ours), ours.readout.tau.detach().clone()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(1)
    assert torch.equal(ours.readout.tau, before)


@pytest.mark.parametrize("options", [{"bias": True}, {"learn": {"omega": None}}, {"n_layers": 2}])
def test_other_networks_are_refused(options):
    with pytest.raises(ValueError, match="exactly"):
        PublishedBRF.sharing(our_network(**options))


def test_gradients_need_a_backward_pass():
    model = make()
    with pytest.raises(ValueError, match=r"backward\(\)"):
        model.gradients()
