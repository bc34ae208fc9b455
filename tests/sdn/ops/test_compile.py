"""Every model under torch.compile: whole sequences, chunks with a state, steps; outputs and every gradient."""

import pytest
import torch
from helpers import TOLERANCE, assert_close
from test_operators import HAS_COMPILER
from torch.fx.experimental.proxy_tensor import make_fx

import sdn
from spikingssm import RSNN, S4D, S5, S5RF, Recurrent, SpikingSSM

F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo asks


def loud(model):
    """Weights with which every layer fires."""
    with torch.no_grad():
        for layer in model.layers:
            layer.dense.weight.mul_(20)
    return model


MODELS = {
    "ssm-surrogate": lambda: SpikingSSM(3, 5, 8, 2, 8, dropout=0.0),
    "ssm-fused": lambda: SpikingSSM(3, 5, 8, 2, 8, dropout=0.0, solver="fused", algorithm="recurrence"),
    "ssm-fft": lambda: SpikingSSM(3, 5, 8, 1, 8, dropout=0.0, solver="fused", algorithm="fft", learn_b=True),
    "ssm-parallel": lambda: SpikingSSM(3, 5, 8, 1, 8, dropout=0.0, solver="parallel", norm="batch", prenorm=True),
    "ssm-each": lambda: SpikingSSM(3, 5, 8, 1, 8, dropout=0.0, solver="fused", pool="each"),
    "s5rf": lambda: loud(S5RF(3, 5, 8, 3, num_blocks=2, first_discretisation="zoh")),
    "s5rf-refractory": lambda: loud(S5RF(3, 5, 8, 2, num_blocks=2, refractory=0.5, solver="parallel")),
    "s5rf-loop": lambda: loud(S5RF(3, 5, 8, 2, num_blocks=2, solver="loop", magnitude=True)),
    "rsnn": lambda: RSNN(3, 5, 12, learn={"omega": sdn.uniform(5, 10)}, bias=True, mask=0.3),
    "rsnn-alif": lambda: RSNN(3, 5, [6, 4], dynamics=sdn.ALIF(), pool="last"),
    "rsnn-loop": lambda: RSNN(3, 5, 6, dynamics=sdn.LIF(torch.linspace(0.2, 0.8, 6)), pool="mean", solver="loop"),
}
LENGTH = {name: 8 if "loop" in name else 40 for name in MODELS}
every_model = pytest.mark.parametrize("name", MODELS)


def made(name):
    torch.manual_seed(3)
    model = MODELS[name]().double().train(name != "ssm-parallel")
    return model, (80 if name == "rsnn" else 10) * torch.randn(2, LENGTH[name], 3, dtype=F64)


def whole(run, model, x):
    return run(x)[0]


def with_lengths(run, model, x):
    return run(x, lengths=torch.tensor([x.shape[1], x.shape[1] // 2]))[0]


def chunks(run, model, x):
    """Two of one size, so that one graph serves both."""
    state, half, found = model.initial_state(len(x), dtype=F64), x.shape[1] // 2, []
    for part in (x[:, :half], x[:, half:]):
        y, state = run(part, state)
        found.append(y)
    return torch.cat(found, -1)


def value_and_gradients(model, y):
    weights = torch.linspace(-1, 1, y.numel(), dtype=F64).reshape(y.shape)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [y, *torch.autograd.grad((y * weights).sum(), parameters, allow_unused=True)]


def assert_same(got, want):
    assert want[0].detach().abs().max() > 1e-3
    for one, other in zip(got, want, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert (one - other).abs().max() <= 100 * TOLERANCE[F64] * other.abs().max().clamp(min=1e-3)


@every_model
@pytest.mark.parametrize("how", [whole, with_lengths, chunks])
def test_compiled_equals_eager(name, how):
    model, x = made(name)
    want = value_and_gradients(model, how(model, model, x))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(value_and_gradients(model, how(compiled, model, x)), want)


@every_model
def test_compiled_steps_equal_eager_ones(name):
    """From the state in which a sequence ends; all share one graph."""
    model, x = made(name)
    model.eval()
    torch._dynamo.reset()
    compiled = torch.compile(model.step, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        states = [model(x)[1]] * 2
        for t in range(3):
            found = [run(x[:, t], state) for run, state in zip((model.step, compiled), states, strict=True)]
            states = [state for _, state in found]
            assert_same(found[1][:1], found[0][:1])


LAYERS = {
    "s4d": (lambda: S4D(4, 8, algorithm="recurrence"), 4), "s5": (lambda: S5(4, 8, num_blocks=2), 4),
    "recurrent": (lambda: Recurrent(4, sdn.BRF(), 6), 4),
    "neuron": (lambda: sdn.Neuron(sdn.LIF(0.3, threshold=torch.linspace(0.5, 1, 4)), 4, learn={"decay": None}), 4),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not support code generation for complex operators")
@pytest.mark.skipif(not HAS_COMPILER, reason="inductor needs a C++ compiler")
def test_layers_that_go_on_from_a_state_under_inductor():
    """Together, since a compilation takes seconds."""
    layers = torch.nn.ModuleList(make().double() for make, _ in LAYERS.values())
    x = 5 * torch.randn(2, 40, 4, dtype=F64)

    def run(states):
        outs = [layer(x[:, 20:], state) for layer, state in zip(layers, states, strict=True)]
        return torch.cat([y for y, _ in outs], -1)

    states = [layer(x[:, :20])[1] for layer in layers]
    want = value_and_gradients(layers, run(states))
    torch._dynamo.reset()
    states = [layer(x[:, :20])[1] for layer in layers]
    assert_same(value_and_gradients(layers, torch.compile(run, fullgraph=True)(states)), want)


@pytest.mark.parametrize("name", [name for name in MODELS if "loop" not in name])
def test_a_recorded_graph_gives_the_same(name):
    model, x = made(name)
    graph = make_fx(lambda x: model.eval()(x))(x)
    assert_close(graph(2 * x)[0], model(2 * x)[0])
    assert not graph(torch.full_like(x, float("nan")))[0].isfinite().any()  # captured: NaN, and no error
