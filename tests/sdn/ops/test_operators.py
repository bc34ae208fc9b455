"""Every operator of ours obeys torch's rules, compiled or not, with lazy conjugates, with and without a state."""

import functools
import shutil

import pytest
import torch
from helpers import TOLERANCE

import sdn
from sdn.compiler.programs import slope_of
from sdn.ops.chunks import operator as chunks
from sdn.ops.membrane import fire
from sdn.ops.modes import operator as modes
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.sequence import operands
from sdn.ops.recurrent import operator as recurrent
from sdn.ops.resonate import operator as resonate
from sdn.ops.scan.operator import scan
from sdn.surrogate.artifact import shipped_artifacts
from sdn.surrogate.predict import predict
from sdn.surrogate.sweeps import sweep

HAS_COMPILER = shutil.which("g++") is not None or shutil.which("c++") is not None or shutil.which("clang++") is not None
B, L, H, N = 2, 70, 5, 3
NEURONS = {
    "lif": (sdn.LIF(0.37, 0.8), 1.0), "alif": (sdn.ALIF(7.0, 31.0, 0.9, 0.05), 1.0),
    "rf": (sdn.RF(17.0, 3.0, 0.012, 0.6), 25.0), "brf": (sdn.BRF(23.0, 2.5, 0.8, 0.012, 0.7), 50.0),
}  # fmt: skip
F64, C128 = torch.float64, torch.complex128


def normal(*shape, scale=1.0, dtype=F64):
    return (scale * torch.randn(*shape, dtype=dtype)).requires_grad_()


def discs(*shape):
    """Complex numbers inside the unit circle."""
    x = torch.polar(torch.rand(*shape, dtype=F64) * 0.5 + 0.4, 6 * torch.rand(*shape, dtype=F64))
    return x.requires_grad_()


def conjugated(function):
    """The function of arguments whose conjugates torch has not carried out when it is called."""
    return lambda *given: function(*(x.conj() if x.is_complex() else x for x in given))


def neuron_case(name, started):
    dynamics, std = NEURONS[name]
    x = normal(B, L, H, scale=std)
    state = dynamics.initial_state(B, H, dtype=F64)
    state = type(state)(*(value + 0.1 * started for value in state))
    kernel, first, slope = operands(dynamics, x, state, dynamics.default_spike)
    first, fixed = first.detach().requires_grad_(), kernel.fixed.detach().requires_grad_()

    def run(x, first, fixed):
        return neuron.run(kernel._replace(fixed=fixed), x, first, slope, True, False)[:2]

    return run, (x, first, fixed)


def stitch_case(started, name, derivative=False):
    kernel, first, slope = operands_of(name)
    first = (first + 0.1 * started * torch.rand_like(first)).requires_grad_()
    starts = torch.cat([first.detach().unsqueeze(1), 0.3 * torch.rand(B, 4, *first.shape[1:], dtype=F64)], 1)

    def run(x, first):
        if derivative:
            _, ends, square = chunks.run(kernel, x.detach(), starts, 16, derivative=True, slope=slope)
            side = int(square.shape[2] ** 0.5)
            return (
                x * 1.0,
                ends,
                chunks.carry(square, ends[:, :4, :side]),
                chunks.carry(square, ends[:, :, :side], True),
            )
        return chunks.stitch(kernel, x, first, starts, 16, slope, through_reset=name == "brf")

    return run, (normal(B, L, H, scale=NEURONS[name][1]), first)


def operands_of(name):
    dynamics, _ = NEURONS[name]
    return operands(dynamics, torch.zeros(B, L, H, dtype=F64), dynamics.initial_state(B, H, dtype=F64), sdn.Triangle())


def recurrent_case(started):
    dynamics, _ = NEURONS["brf"]
    state = dynamics.initial_state(B, H, dtype=F64)
    kernel, first, slope = operands(dynamics, torch.zeros(B, L, H, dtype=F64), state, dynamics.default_spike)
    spikes0 = (torch.rand(B, H, dtype=F64) < 0.4 * started).to(F64).requires_grad_()
    given = normal(B, L, 3, scale=40), normal(3 + H, H), normal(H), first.detach().requires_grad_(), spikes0

    def run(x, weight, bias, first, spikes0, fixed):
        return recurrent.run(kernel._replace(fixed=fixed), x, weight, bias, first, spikes0, slope, True)

    return run, (*given, kernel.fixed.detach().requires_grad_())


def resonate_case(started, refractory=0.7, n=0):
    parts = [torch.view_as_real(discs(4).detach()).T for _ in range(2)]
    fixed = torch.cat([*parts, torch.full((1, 4), 0.5, dtype=F64)])
    first = 0.3 * started * torch.randn(B, 3 if refractory else 2, 4, dtype=F64)
    rotation = torch.stack([torch.randn(n, n, dtype=F64), torch.randn(n, n, dtype=F64)])
    options = False, refractory, *slope_of(sdn.MultiGaussian()), True

    def run(drive, first, fixed):
        return resonate.run(drive, first, fixed, rotation, *options)

    return run, (normal(B, L, 8), first.requires_grad_(), fixed.requires_grad_())


def modes_case(started):
    given = normal(B, L, H), discs(H, N), discs(H, N), discs(H, N), normal(H)
    return conjugated(modes.modes), (*given, *([discs(B, H, N)] if started else []))


def scan_case(started):
    return conjugated(scan), (discs(H), normal(B, L, H, dtype=C128), *([discs(B, H)] if started else []))


def fire_case(_):
    mem, slope = torch.randn(B, L, H, dtype=F64), slope_of(sdn.Triangle())
    return (lambda x, gain, threshold: fire.fire(x, mem, gain.detach(), threshold, True, *slope)), (
        normal(B, L, H), torch.ones(H, dtype=F64), torch.rand(H, dtype=F64).requires_grad_(),
    )  # fmt: skip


def predict_case(_):
    path = next(path for path in shipped_artifacts() if path.stem == "lif-decay-0.125")
    net = sdn.load_artifact(path).network.double()

    def run(x):
        mem = sweep(sdn.LIF(0.125), predict(net, x.detach()), x.detach(), 2)
        return x * mem

    return run, (normal(B, L, H),)


def parallel_case(started, name):
    dynamics, std = NEURONS[name]
    solver = sdn.Parallel(chunk=16, warm_up=4, detach_reset=name != "brf")
    state = type(dynamics.initial_state(1, 1))(
        *(0.1 * started * torch.rand(B, H, dtype=F64) for _ in dynamics.State._fields)
    )

    def run(x):
        spikes, last = solver.run(dynamics, x, state, dynamics.default_spike)
        return spikes, torch.stack(tuple(last))

    return run, (normal(B, L, H, scale=std),)


def settled_case(started):
    factor, gain = discs(4).detach(), discs(4).detach()
    q = 0.2 * started * torch.rand(B, 4, dtype=F64)

    def run(drive):
        state = sdn.ResonatorState(torch.zeros(B, 4, dtype=C128), q)
        spikes, last = sdn.resonate(drive, factor, gain, state, threshold=0.5, refractory=0.7, solver="parallel")
        return spikes, last.x, last.q

    return run, (normal(B, L, 8),)


CASES = {
    **{name: functools.partial(neuron_case, name) for name in NEURONS},
    "recurrent": recurrent_case,
    "resonate": resonate_case,
    "resonate-rotated": functools.partial(resonate_case, refractory=0.0, n=2),
    "modes": modes_case,
    "scan": scan_case,
    "fire": fire_case,
    "predict": predict_case,
    "chunks": functools.partial(parallel_case, name="lif"),
    "one-scan": functools.partial(parallel_case, name="rf"),
    "stitch-alif": functools.partial(stitch_case, name="alif"),
    "stitch-brf": functools.partial(stitch_case, name="brf"),
    "carried": functools.partial(stitch_case, name="alif", derivative=True),
    "through-reset": functools.partial(parallel_case, name="brf"),
    "settle-resonate": settled_case,
}
every_case = pytest.mark.parametrize("case", CASES)
every_start = pytest.mark.parametrize("started", [False, True], ids=["rest", "state"])


def value_and_gradients(run, given):
    """Outputs, and the gradients of a weighted sum of them."""
    found = run(*given)
    found = found if isinstance(found, tuple) else (found,)
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for part in found:
        if part.requires_grad:
            total = total + (part * torch.randn(part.shape, generator=generator, dtype=F64)).sum().abs()
    gradients = torch.autograd.grad(total, [x for x in given if x.requires_grad], allow_unused=True)
    return [x for x in (*found, *gradients) if x is not None]


def assert_same(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        scale = other.detach().abs().max().clamp(min=1e-3)
        assert (one - other).detach().abs().max() <= 10 * TOLERANCE[F64] * scale


@every_start
@every_case
@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_equals_eager(case, started, backend):
    """Outputs and every gradient; torch runs operators of a graph with its lazy conjugates switched off."""
    run, given = CASES[case](started)
    want = value_and_gradients(run, given)
    assert 0.01 < want[0].detach().abs().mean() < 100, "spikes that are trivial prove nothing"
    torch._dynamo.reset()
    assert_same(value_and_gradients(torch.compile(run, backend=backend, fullgraph=True), given), want)


@pytest.mark.filterwarnings("ignore:.*does not support code generation for complex operators")
@pytest.mark.skipif(not HAS_COMPILER, reason="inductor needs a C++ compiler")
def test_all_operators_in_one_graph_of_inductor():
    """One compilation for all of them, since each takes seconds."""
    cases = [CASES[name](True) for name in CASES if name not in ("chunks", "through-reset")]
    counts = [len(given) for _, given in cases]

    def everything(*flat):
        found, at = [], 0
        for (run, _), count in zip(cases, counts, strict=True):
            out = run(*flat[at : at + count])
            found += out if isinstance(out, tuple) else (out,)
            at += count
        return tuple(found)

    flat = [x for _, given in cases for x in given]
    want = value_and_gradients(everything, flat)
    torch._dynamo.reset()
    assert_same(value_and_gradients(torch.compile(everything, fullgraph=True), flat), want)


def recorded(monkeypatch):
    """Every call of an operator of ours from here on: (overload, arguments)."""
    calls = {}

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "sdn":
                calls.setdefault(func, args)
            return func(*args, **(kwargs or {}))

    return Mode(), calls


def test_every_operator_obeys_the_rules_of_torch(monkeypatch):
    """What the cases call is every operator there is, and each passes torch's own tests of schema and fake tensors."""
    mode, calls = recorded(monkeypatch)
    for make in CASES.values():
        run, given = make(True)
        with mode:
            value_and_gradients(run, given)
    drive = normal(B, L, 8)
    with mode:  # the one that writes over its input
        spikes, _ = sdn.resonate(drive * 1, discs(4).detach(), discs(4).detach(), reuse=True)
        spikes.sum().backward()
    known = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("sdn::")}
    assert {func.name() for func in calls} == known
    for func, arguments in calls.items():
        for copy in (torch.clone, turned):
            given = [copy(x.detach()) if isinstance(x, torch.Tensor) else x for x in arguments]
            torch.library.opcheck(func, tuple(given), test_utils=("test_schema", "test_faketensor"))


def turned(x):
    """The same numbers, with the last two axes the other way round in memory."""
    return x.mT.contiguous().mT if x.ndim > 1 and x.is_floating_point() else x.clone()
