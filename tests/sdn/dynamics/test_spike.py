"""The step and its spike gradients: values of the papers, areas, symmetry, and the backward pass."""

import inspect
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sdn import LIF, ArcTan, DoubleGaussian, MultiGaussian, Neuron, Sigmoid, Triangle, simulate, spike
from sdn.gradients import _Step

BRF_MULTI = MultiGaussian(gain=0.5, normalised=True)
GRADIENTS = [Triangle(0.7), MultiGaussian(), BRF_MULTI, DoubleGaussian(), ArcTan(3), Sigmoid(5)]
every_gradient = pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)


def slope_at(gradient, v):
    return gradient.slope(torch.tensor(v, dtype=torch.float64)).item()


VALUES = [
    (Triangle(), 0.0, 1.0),
    (Triangle(), -0.25, 0.75),
    (Triangle(2.0), 1.0, 0.25),
    (Triangle(), 1.5, 0.0),
    (MultiGaussian(), 0.0, 0.85414),
    (MultiGaussian(), -1.0, -0.125),
    (MultiGaussian(gain=0.5, normalised=True), 0.0, 0.439112),
    (DoubleGaussian(), 0.0, 0.438837),
    (ArcTan(), 0.0, 1.0),
    (ArcTan(2.0), 1 / math.pi, 0.5),
    (Sigmoid(), 0.0, 1.0),
    (Sigmoid(2.0), math.log(3) / 2, 2 * 0.75 * 0.25),
]


@pytest.mark.parametrize(("gradient", "v", "value"), VALUES)
def test_published_values(gradient, v, value):
    assert slope_at(gradient, v) == pytest.approx(value, abs=6e-6 if value != -0.125 else 5e-4)


def test_published_zeros_and_minimum():
    v = torch.linspace(0, 5, 50001, dtype=torch.float64)
    multi, double = MultiGaussian().slope(v), DoubleGaussian().slope(v)
    assert v[multi.argmin()].item() == pytest.approx(1.6, abs=0.05)
    assert multi.min().item() == pytest.approx(-0.2508, abs=1e-4)
    assert v[(multi < 0).nonzero()[0]].item() == pytest.approx(0.83, abs=0.01)
    assert v[(double < 0).nonzero()[0]].item() == pytest.approx(1.27, abs=0.01)


@pytest.mark.parametrize(
    ("gradient", "area"),
    [
        (Triangle(1.0), 1.0),
        (Triangle(0.3), 1.0),
        (Sigmoid(4.0), 1.0),
        (Sigmoid(11.0), 1.0),
        (DoubleGaussian(), 0.5 * (1.15 - 0.30)),
        (MultiGaussian(gain=0.5, normalised=True), 0.5 * (1.15 - 0.30)),
        (MultiGaussian(), math.sqrt(2 * math.pi) * (1.15 * 0.5 - 0.30 * 3.0)),
    ],
    ids=repr,
)
def test_area(gradient, area):
    v = np.linspace(-60, 60, 1_200_001)
    assert np.trapezoid(gradient.slope(torch.from_numpy(v)).numpy(), v) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("alpha", [2.0, 7.0])
def test_area_of_arctan(alpha):
    v = np.linspace(-200, 200, 2_000_001)  # its tails are 2 / (pi^2 alpha v) each: closed form for what lies outside
    outside = 1 - 2 / math.pi * math.atan(math.pi * alpha * 100)
    area = np.trapezoid(ArcTan(alpha).slope(torch.from_numpy(v)).numpy(), v)
    assert area + outside == pytest.approx(1, abs=1e-6)


def test_derivatives_of_their_curves():
    v = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    for gradient, curve in (
        (Sigmoid(3.0), torch.sigmoid(3 * v)),
        (ArcTan(3.0), torch.atan(math.pi / 2 * 3 * v) / math.pi),
    ):
        (want,) = torch.autograd.grad(curve.sum(), v)
        assert torch.allclose(gradient.slope(v), want, rtol=1e-12, atol=1e-14)


@every_gradient
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_symmetric_largest_in_the_middle_and_keeps_the_dtype(gradient, dtype):
    v = torch.linspace(-4, 4, 801, dtype=torch.float64).to(dtype)
    slope = gradient.slope(v)
    assert slope.dtype == dtype
    assert slope.shape == v.shape
    assert torch.allclose(slope, gradient.slope(-v), rtol=0, atol=0.03 if dtype == torch.bfloat16 else 1e-6)
    assert v[slope.argmax()].abs() < 0.1
    assert torch.isfinite(gradient.slope(torch.tensor([-1e4, 1e4], dtype=dtype))).all()


@pytest.mark.parametrize("at_threshold", [True, False])
def test_the_step(at_threshold):
    tiny = torch.finfo(torch.float64).tiny
    v = torch.tensor([-1.0, -tiny, 0.0, -0.0, tiny, 1.0], dtype=torch.float64)
    tie = float(at_threshold)
    assert spike(v, Triangle(), at_threshold).tolist() == [0, 0, tie, tie, 1, 1]


@every_gradient
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_backward_is_the_gradient_times_the_slope(gradient, dtype):
    v = torch.randn(4, 7, 3).to(dtype).transpose(0, 2).requires_grad_()
    upstream = torch.randn(3, 7, 4).to(dtype)
    out = spike(v, gradient, True)
    assert out.dtype == dtype
    assert set(out.unique().tolist()) == {0.0, 1.0}
    (got,) = torch.autograd.grad(out, v, upstream)
    assert got.dtype == dtype
    assert torch.equal(got, upstream * gradient.slope(v.detach()))
    assert (got != 0).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Triangle(0.0), "Triangle: width must be > 0, got 0.0"),
        (lambda: MultiGaussian(sigma=-1.0), "MultiGaussian: sigma must be > 0, got -1.0"),
        (lambda: DoubleGaussian(scale=0.0), "DoubleGaussian: scale must be > 0, got 0.0"),
        (lambda: ArcTan(math.nan), "ArcTan: alpha must be > 0, got nan"),
        (lambda: Sigmoid(-2), "Sigmoid: alpha must be > 0, got -2"),
    ],
    ids=["width", "sigma", "scale", "alpha-nan", "alpha"],
)
def test_ranges(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_backward_without_a_gradient_for_the_input():
    """Guards defect 42: it read tensors saved only for an input that needs one, and returned one gradient too many."""
    for solver in ("loop", "surrogate"):
        neuron = Neuron(LIF(decay=0.125), 4, learn={"threshold": 0.8}, solver=solver)
        neuron(torch.randn(2, 30, 4))[0].sum().backward()
        assert (neuron.learned["threshold"].grad != 0).all(), solver
    assert not spike(torch.randn(3), Triangle(), True).requires_grad
    ctx = SimpleNamespace(saved_tensors=(torch.zeros(3),), gradient=Triangle(), needs_input_grad=(True, False, False))
    returned = _Step.backward(ctx, torch.ones(3))
    assert len(returned) == len(inspect.signature(_Step.forward).parameters) == 3
    assert torch.equal(returned[0], torch.ones(3))


@dataclass(frozen=True)
class Flat:
    height: float = 0.25

    def slope(self, v):
        return torch.full_like(v, self.height)


def test_any_object_with_a_slope_will_do():
    x = torch.randn(2, 30, 4, requires_grad=True)
    out = Neuron(LIF(decay=0.0), 4, spike=Flat(), solver="loop")(x)[0]
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, torch.full_like(x, 0.25))
    assert out.sum() > 0
    (by_hand,) = torch.autograd.grad(simulate(LIF(decay=0.0), x, spike_gradient=Flat(0.5)).spike.sum(), x)
    assert torch.equal(by_hand, 2 * grad)


class Even(Flat):
    """Its fields are numbers of the kernel, as those of sdn are."""

    def slope(self, v):
        return torch.ones_like(v) * self.height


Even.__module__ = "sdn.even"


def test_a_slope_that_depends_on_its_fields_alone():
    current = torch.randn(2, 30, 4, requires_grad=True)
    for height in (0.5, 0.25):
        grads = []
        for solver in ("fused", "loop"):
            spikes, _ = Neuron(LIF(decay=0.9), 4, spike=Even(height), solver=solver)(current)
            assert 0.02 < spikes.mean() < 0.8
            grads += torch.autograd.grad(spikes.sum(), current)
        assert torch.allclose(*grads, rtol=1e-5)
