"""NaN and infinity: an error that names what, step and neuron, and NaN in the output wherever there can be no error."""

import math
import types

import pytest
import torch
from helpers import DYNAMICS, FUSED, currents, some_state

import sdn
from sdn.checks import finite
from sdn.dynamics.base import Diverged
from spikingssm import RSNN, S4D, S5RF, SpikingSSM

BAD = [math.nan, math.inf, -math.inf]
every_bad = pytest.mark.parametrize("bad", BAD, ids=str)
NAMES = {name for name, *_ in FUSED}
CASES = [
    pytest.param(dynamics, std, solver, id=f"{name}-{solver}")
    for name, dynamics, std in DYNAMICS
    for solver in (("fused", "loop", "parallel") if name in NAMES else ("loop",))
] + [pytest.param(sdn.LIF(0.125), 1.0, solver, id=f"shipped-{solver}") for solver in ("surrogate", "refined")]
CASES += [
    pytest.param(dynamics, dynamics.default_std, sdn.Surrogate(chunk=chunk), id=f"{name}-rounds-{chunk}")
    for name, dynamics in {"alif": sdn.ALIF(), "brf": sdn.BRF(), "lif": sdn.LIF(0.9)}.items()
    for chunk in (4, 32)
]
STEP, ROW, UNIT, LENGTH = 3, 1, 2, 9


def layer(dynamics, solver, **options):
    value = sdn.Surrogate(refine=2) if solver == "refined" else solver
    return sdn.Neuron(dynamics, 5, solver=value, **options)


@pytest.fixture(autouse=True)
def _no_answers_left():
    finite._sent.clear()
    yield
    finite._sent.clear()


@every_bad
@pytest.mark.parametrize(("dynamics", "std", "solver"), CASES)
def test_a_current_that_is_no_number_is_named(dynamics, std, solver, bad):
    x = currents(std, length=LENGTH, dtype=torch.float32)
    x[ROW, STEP, UNIT] = bad
    with pytest.raises(ValueError, match=rf"1 of 135 currents .* {bad:g} in row {ROW} at step {STEP} of neuron {UNIT}"):
        layer(dynamics, solver)(x)


@every_bad
@pytest.mark.parametrize(("dynamics", "std", "solver"), CASES)
def test_without_a_check_its_spikes_are_nan(dynamics, std, solver, bad):
    """As in a graph that torch has compiled or captured. What came before, and the other neurons, are as they were."""
    x = currents(std, length=LENGTH, dtype=torch.float32)
    clean = layer(dynamics, solver)(x)[0]
    x[ROW, STEP, UNIT] = bad
    with finite._asking("later"):
        spikes, _ = layer(dynamics, solver)(x)
    late = int(type(dynamics) is sdn.IzhikevichRF)  # its input moves the spike of the next step
    assert torch.isnan(spikes[ROW, STEP + late :, UNIT]).all() or solver in ("surrogate", "refined")
    assert torch.isnan(spikes[ROW, STEP + late, UNIT])
    spikes[ROW, STEP:, UNIT] = clean[ROW, STEP:, UNIT]
    assert torch.equal(spikes, clean)
    assert 0 < clean.mean() < 1


def learnable():
    for name, dynamics, std in DYNAMICS:
        if "channels" not in name:
            for field in dynamics.transforms:
                for solver in ("fused", "loop", "parallel") if name in NAMES else ("loop",):
                    yield pytest.param(dynamics, std, solver, field, id=f"{name}-{solver}-{field}")
    yield pytest.param(sdn.LIF(0.125), 1.0, "surrogate", "threshold", id="shipped-surrogate-threshold")


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(("dynamics", "std", "solver", "field"), learnable())
def test_a_learned_field_that_is_no_number(dynamics, std, solver, field, bad):
    """Such as a threshold that became NaN, which nothing reaches; the sigmoid of infinity would be a decay of 1."""
    neuron, x = layer(dynamics, solver, learn={field: None}), currents(std, length=LENGTH, dtype=torch.float32)
    with torch.no_grad():
        neuron.learned[field][UNIT] = bad
    with pytest.raises(Diverged, match=f"{type(dynamics).__name__}: {field} of neuron {UNIT} is nan .1 of 5 neurons"):
        neuron(x)
    with finite._asking("later"):
        spikes = neuron(x)[0].detach().clone()
    assert torch.isnan(spikes[:, -1, UNIT]).all()
    spikes[:, :, UNIT] = 0
    assert torch.isfinite(spikes).all()


@pytest.mark.parametrize("dynamics", [d for name, d, _ in DYNAMICS if "channels" in name], ids=repr)
def test_a_fixed_field_that_is_no_number(dynamics):
    neuron = layer(dynamics, "loop")
    (field, values), *_ = neuron.fixed.named_buffers()
    values[UNIT] = math.inf
    with pytest.raises(Diverged, match=f"{field} of neuron {UNIT} is inf"):
        neuron(currents(1.0, length=4))


@pytest.mark.parametrize(("dynamics", "std", "solver"), CASES)
def test_a_state_that_is_no_number_is_named(dynamics, std, solver):
    neuron, x = layer(dynamics, solver), currents(std, length=LENGTH, dtype=torch.float32)
    state = some_state(dynamics, dtype=torch.float32)
    state = neuron(x)[1] if solver in ("surrogate", "refined") else state
    broken = type(state)(*(part.clone() for part in state))
    broken[0].view(3, -1, 5)[ROW, -1, UNIT] = math.nan
    with pytest.raises(ValueError, match=rf"row {ROW}|neuron {UNIT} of row {ROW}"):
        neuron(x, broken)
    with finite._asking("later"):
        assert torch.isnan(neuron(x, broken)[0][ROW, 0, UNIT]) or solver in ("surrogate", "refined")


# ---- sdn.resonate and sdn.recurrent
SOLVERS = ["fused", "parallel", "loop"]


def resonators(**changes):
    given = {
        "drive": 2 * torch.randn(2, 20, 8), "factor": torch.polar(torch.full((4,), 0.95), torch.rand(4)),
        "gain": torch.ones(4, dtype=torch.complex64), "threshold": torch.full((4,), 0.8),
    }  # fmt: skip
    return given | changes


@every_bad
@pytest.mark.parametrize("options", [{}, {"refractory": 0.6}, {"magnitude": True}], ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
def test_resonators_name_step_row_and_neuron(solver, options, bad):
    given = resonators()
    given["drive"][1, 7, 2] = bad
    with pytest.raises(Diverged, match=rf"neuron 2 of row 1 became NaN or infinite at step 7 .drive {bad:g}"):
        sdn.resonate(**given, **options, solver=solver)
    with finite._asking("later"):
        spikes, _ = sdn.resonate(**given, **options, solver=solver)
    assert torch.isnan(spikes[1, 7:, 2]).all()
    assert torch.isnan(spikes).sum() == 13


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("name", ["factor", "gain", "threshold"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_resonators_name_the_parameter(solver, name, bad):
    given = resonators()
    given[name][1] = bad
    with pytest.raises(Diverged, match=f"the {name} of neuron 1 is {bad}"):
        sdn.resonate(**given, solver=solver)
    with finite._asking("later"):
        assert torch.isnan(sdn.resonate(**given, solver=solver)[0][:, :, 1]).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_resonators_refuse_a_rotation_that_is_none(solver):
    rotation = torch.eye(2, dtype=torch.complex64)
    rotation[0, 1] = math.nan
    with pytest.raises(Diverged, match="rotation holds NaN"):
        sdn.resonate(**resonators(), rotation=rotation, solver=solver)


RECURRENT = [(n, d, s) for n, d, s in DYNAMICS if n in ("lif-hard", "alif", "rf", "brf")]


@pytest.mark.parametrize("what", ["weight", "unused weight", "bias", "x", "state", "spikes", "half a spike"])
@pytest.mark.parametrize("solver", ["fused", "loop"])
@pytest.mark.parametrize(("name", "dynamics", "std"), RECURRENT)
def test_recurrent_layers(name, dynamics, std, solver, what):
    """A weight whose source never fires is left out by the kernel, and NaN in it would not be noticed."""
    x, weight, bias = std * torch.randn(2, 12, 3), torch.randn(5, 8), torch.zeros(5)
    x[:, :, 2] = 0
    state = sdn.RecurrentState(dynamics.initial_state(2, 5), torch.zeros(2, 5))
    if what == "x":
        x[1, 4, 1] = math.nan
    elif what in ("weight", "unused weight"):
        weight[3, 2 if "unused" in what else 1] = math.nan
    elif what == "bias":
        bias[3] = math.inf
    else:
        tensor = state.neuron[0] if what == "state" else state.spike
        tensor[1, 3] = 0.5 if "half" in what else math.nan
    call = {"bias": bias, "solver": solver}
    with pytest.raises(ValueError, match=r"NaN or infinite|0 or 1"):
        sdn.recurrent(x, weight, dynamics, state, **call)
    with finite._asking("later"):
        spikes, _ = sdn.recurrent(x, weight, dynamics, state, **call)
    if "half" not in what or solver == "fused":
        assert torch.isnan(spikes[1]).any()
    assert solver == "loop" or what not in ("x", "state", "spikes") or torch.isfinite(spikes[0]).all()


def test_numbers_of_1e38_are_numbers():
    """float32 holds them: spikes are those of float64, and sums that leave float32 are refused."""
    for dynamics in (sdn.BRF(), sdn.RF(), sdn.ALIF(), sdn.LIF(0.5)):
        torch.manual_seed(0)
        model = RSNN(3, 5, 16, pool="mean", dynamics=dynamics, start="published")
        x = 1e38 * (2 * torch.rand(2, 40, 3) - 1)
        narrow, wide = model(x)[0], model.double()(x.double())[0]
        assert 0 < narrow.abs().max() < 10
        assert (narrow - wide).abs().max() < 1e-5
        for solver in ("fused", "loop"):
            model = RSNN(40, 5, 16, pool="mean", dynamics=dynamics, solver=solver)
            with torch.no_grad():
                model.layers[0].input.weight.fill_(1.0)
            with pytest.raises(ValueError, match="NaN or infinite"):
                model(torch.full((1, 9, 40), 1e38))


# ---- whole models, compiled
def ssm(**options):
    return SpikingSSM(3, 5, 8, 2, d_state=8, dropout=0.0, **options), 1.0


MODELS = {
    "ssm-surrogate": lambda: ssm(), "ssm-fused": lambda: ssm(solver="fused"),
    "ssm-fft": lambda: ssm(solver="fused", algorithm="fft"),
    "s5rf": lambda: (S5RF(3, 5, 16, 2, num_blocks=2), 40.0), "rsnn": lambda: (RSNN(3, 5, 16, pool="mean"), 40.0),
    "rsnn-alif": lambda: (RSNN(3, 5, 16, pool="last", dynamics=sdn.ALIF()), 1.0),
}  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_models_refuse_and_compiled_ones_return_nan(name, bad):
    torch.manual_seed(1)
    model, std = MODELS[name]()
    model.eval()
    x = std * torch.randn(2, 30, 3)
    clean = model(x)[0]
    x[1, 8, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        model(x)
    torch._dynamo.reset()
    logits = torch.compile(model, backend="aot_eager", fullgraph=True)(x)[0]
    assert torch.isnan(logits[1]).all()
    assert torch.allclose(logits[0], clean[0], atol=1e-5)


def numbers_of(model):
    """Parameters and buffers that the output depends on."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            yield name, tensor


BROKEN = {
    **MODELS,
    "ssm-batch-norm": lambda: ssm(solver="fused", norm="batch"),
    "ssm-tensor": lambda: ssm(solver="fused", dynamics=sdn.LIF(torch.rand(8))),
    "s5rf-zoh": lambda: (S5RF(3, 5, 16, 2, num_blocks=2, discretisation="zoh", refractory=0.5), 40.0),
    "s5rf-parallel": lambda: (S5RF(3, 5, 16, 2, num_blocks=2, solver="parallel"), 40.0),
}  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("name", BROKEN)
def test_no_parameter_can_be_anything_but_a_number_without_a_word(name, bad):
    """Each in turn: an error, or logits that are no numbers."""
    model, std = BROKEN[name]()
    model.eval()
    x, seen = std * torch.randn(2, 30, 3), 0
    for word, tensor in numbers_of(model):
        with torch.no_grad():
            known = tensor.clone()
            tensor.view(-1)[-1] = bad
            try:
                silent = bool(torch.isfinite(model(x)[0]).all())
            except ValueError:
                silent = False
            tensor.copy_(known)
        seen += 1
        assert not silent, word
    assert seen > 3
    assert torch.isfinite(model(x)[0]).all()


# ---- devices on which an answer takes its time
class Event:
    """Stands for one of a GPU: ``passed`` once the device has come so far."""

    passed = False

    def query(self):
        return self.passed

    def synchronize(self):
        self.passed = True


def test_later_answers_raise_when_they_have_arrived(monkeypatch):
    events = [Event(), Event(), Event()]
    waiting = iter(events)
    monkeypatch.setattr(finite, "_posted", lambda good, who: finite._Answer(good, next(waiting), who))
    bad, good = torch.tensor(False), torch.tensor(True)
    with finite._asking("later"):
        finite.demand(good, "LIF: the state", pytest.fail)
        finite.demand(bad, "LIF: the state", pytest.fail)
        finite.arrived()  # nothing has
        events[0].passed = events[1].passed = True
        with pytest.raises(Diverged, match=r"LIF: the state became NaN or infinite.*immediate_checks"):
            finite.demand(good, "LIF: the state", pytest.fail)
        finite.arrived()  # said once
        finite.demand(bad, "RF: the state", pytest.fail)
        finite.arrived()
        with pytest.raises(Diverged, match="RF: the state"):
            finite.arrived(wait=True)


def test_immediate_checks_name_the_step_where_later_ones_do_not():
    x = currents(1.0, length=LENGTH, dtype=torch.float32)
    x[ROW, STEP, UNIT] = math.nan
    neuron = layer(sdn.LIF(0.3), "fused")
    with finite._asking("later"):
        neuron(x)
        with sdn.immediate_checks(), pytest.raises(ValueError, match=f"step {STEP} of neuron {UNIT}"):
            neuron(x)


class Reads(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what on a GPU would wait for it: numbers of tensors that become Python's."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MODELS)
def test_no_layer_waits_for_a_device(name):
    """Forward and backward of a whole model ask their questions without reading a number."""
    model, std = MODELS[name]()
    x = std * torch.randn(2, 30, 3)
    with finite._asking("later"), Reads() as reads:
        model(x, lengths=torch.tensor([30, 20]))[0].sum().backward()
        state = model.eval()(x)[1]
        model.step(x[:, 0], state)
    assert reads.count == 0
    with Reads() as reads:
        model(x)
    assert reads.count > 0, "the counter counts"


def test_tokens_outside_the_vocabulary():
    from spikingssm.layers import AdaptiveVocabulary, TokenEncoder, Vocabulary

    x = torch.tensor([[0, 3, 9], [1, -1, 2]])
    for embed in (TokenEncoder(9, 4), Vocabulary(9, 4).embed, AdaptiveVocabulary(9, 4, [3], div_value=2).embed):
        with pytest.raises(ValueError, match=r"tokens from -1 to 9.*vocabulary of 9: 0 to 8"):
            embed(x)
        with finite._asking("later"):
            found = embed(x)
        assert torch.isnan(found).any(-1).tolist() == [[False, False, True], [False, True, False]]
        assert torch.equal(found[0, :2], embed(x[:1, :2])[0])
    torch._dynamo.reset()
    vocabulary = Vocabulary(9, 4)
    assert torch.isnan(torch.compile(vocabulary.embed, backend="aot_eager", fullgraph=True)(x)).sum() == 8


def test_lengths_out_of_range_in_a_graph():
    model = SpikingSSM(3, 5, 8, 1, d_state=8).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.rand(2, 30, 3)
    compiled(x, lengths=torch.tensor([30, 20]))
    with pytest.raises(RuntimeError, match="lengths must be from 1 to 30"):
        compiled(x, lengths=torch.tensor([30, 31]))


def test_a_linear_layer_hands_nan_on():
    for algorithm in ("recurrence", "fft"):
        x = torch.randn(2, 30, 4)
        x[1, 8, 2] = math.nan
        y, state = S4D(4, 8, algorithm=algorithm).eval()(x)
        assert torch.isnan(y[1, 8:, 2]).all()
        assert torch.isnan(torch.view_as_real(state.x[1, 2])).all()


def training_step(module, batch):
    module._trainer = types.SimpleNamespace(
        precision_plugin=None, strategy=None, world_size=1, global_step=0, barebones=True
    )
    module.training_step(batch, 0).backward()
    module.on_after_backward()


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_waits_for_the_device_once(name, monkeypatch):
    from spikingssm.datasets import Batch
    from spikingssm.tasks import Classification
    from spikingssm.training.fit import SequenceModule

    model, std = MODELS[name]()
    module = SequenceModule(model, Classification(), classes=5)
    batch = Batch(std * torch.randn(4, 30, 3), torch.tensor([0, 1, 2, 3]), torch.tensor([30, 20, 30, 9]))
    lists, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: lists.append(tuple(x.shape)) or tolist(x))
    with finite._asking("later"), Reads() as reads:
        training_step(module, batch)
    assert reads.count == 0
    assert lists.count((2,)) == 1, "loss and gradient"
    assert all(shape == () for shape in lists if shape != (2,)), "the others are answers that have arrived"


def test_a_training_step_names_the_neuron_that_an_answer_only_reported():
    from spikingssm.datasets import Batch
    from spikingssm.tasks import Classification
    from spikingssm.training.fit import SequenceModule

    module = SequenceModule(ssm(solver="fused")[0], Classification(), classes=5)
    batch = Batch(torch.randn(4, 30, 3), torch.tensor([0, 1, 2, 3]))
    batch.x[2, 7, 1] = math.nan
    with finite._asking("later"), pytest.raises(ValueError, match=r"currents are NaN .* in row 2 at step 7 of neuron"):
        training_step(module, batch)


def test_large_numbers_whose_sum_is_infinite_are_numbers() -> None:
    said = []
    large = torch.full((3,), 3e38)
    finite.demand_finite([large], "x", lambda: said.append("large"))
    finite.demand_finite([torch.ones(2), large], "x", lambda: said.append("both"))
    assert not said
    finite.demand_finite([torch.ones(2), torch.tensor([1.0, float("nan")])], "x", lambda: said.append("nan"))
    assert said == ["nan"]
