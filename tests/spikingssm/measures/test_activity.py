"""Silent and saturated layers are named before the first epoch, with a factor that works; bare models say it once."""

import math
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loguru import logger
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import sdn
from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.datasets import Batch, arrays
from spikingssm.experiments.config import load
from spikingssm.experiments.run import run
from spikingssm.measures.activity import REVIVED, Activity, state_of, working_factors
from spikingssm.measures.spikes import record_spikes
from spikingssm.models.silence import WARNED, warn_if_silent

CLASSES, STEPS = 3, 60


def waves(rows=60, seed=0):
    """Sines of three frequencies in two channels, of amplitude 1: nothing for a resonator at its start."""
    draw = np.random.default_rng(seed)
    y = np.arange(rows) % CLASSES
    t = np.arange(STEPS)[None, :, None] / STEPS
    x = np.sin(2 * np.pi * (np.array([3, 8, 14])[y][:, None, None] * t + draw.random((rows, 1, 2))))
    return x.astype(np.float32), y


@pytest.fixture
def fresh():
    WARNED.clear()
    yield
    WARNED.clear()


@pytest.fixture
def file(tmp_path):
    x, y = waves()
    np.savez(tmp_path / "waves.npz", x=x, y=y)
    return tmp_path / "waves.npz"


def trained(file, *more, epochs=2):
    """The lines of the log of a short training."""
    words = [
        "dataset=arrays", f"data.path={file}", "data.batch_size=8", "data.val_fraction=0.2", "model=brf",
        "model.d_model=24", "model.pool=last", "model.start=published",
        f"trainer.max_epochs={epochs}", "trainer.accelerator=cpu", "threads=1",
        "trainer.enable_progress_bar=false", f"run_dir={file.parent / 'run'}",
    ]  # fmt: skip
    folder = run(load([*words, *more]))
    return (folder / "run.log").read_text().splitlines()


def places(lines, *words):
    return [i for i, line in enumerate(lines) if all(word in line for word in words)]


def test_a_dead_network_is_named_before_the_first_epoch_and_the_advice_works(file):
    """newcomer.md 1: a whole training at ln(classes), and a word only when it was over."""
    lines = trained(file)
    said = places(lines, "WARNING", "layers.0: silent")
    assert len(said) == 2  # once, and once more at the end
    assert said[0] < places(lines, "epoch 1/2")[0]
    first, last = (lines[i] for i in said)
    assert "before the first epoch, 100% of its neurons never fired" in first
    assert f"standard deviation {waves()[0].std():.1f}"[:-1] in first
    assert "or lower model.dynamics.threshold" in first
    assert "silent to the end, spike rate 0.0000 on the test rows" in last
    loss = re.search(r"val/loss: ([\d.]+)", lines[places(lines, "epoch 2/2")[0]])
    assert float(loss[1]) == pytest.approx(math.log(CLASSES), abs=1e-4)
    factor = re.search(r"multiply the data by (\d+) \(data.scale=\1 for data of your own\)", first)
    assert factor[0].replace("multiply", "") in last
    again = trained(file, f"data.scale={factor[1]}", f"run_dir={file.parent / 'again'}", "optim.lr=0.05", epochs=4)
    assert not places(again, "WARNING")
    loss = re.search(r"val/loss: ([\d.]+)", again[places(again, "epoch 4/4")[0]])
    assert float(loss[1]) < 0.97 * math.log(CLASSES)


def test_networks_of_64_bits_are_looked_at_too(file):
    words = ["model=s5rf", "model.start=published", "model.d_model=16", "model.num_blocks=2"]
    data = ["dataset=arrays", f"data.path={file}", "data.batch_size=8", "data.val_fraction=0.2"]
    quiet = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "threads=1", "trainer.enable_progress_bar=false"]
    where = ["trainer.precision=64-true", f"run_dir={file.parent / 'wide'}"]
    folder = run(load([*data, *words, *quiet, *where]))
    lines = (folder / "run.log").read_text().splitlines()
    said = places(lines, "WARNING", "layers.0.neuron: silent", "before the first epoch")
    assert len(said) == 1
    assert "multiply the data by" in lines[said[0]]


def test_a_loud_layer_that_falls_silent_gets_the_advice_of_a_silent_one(lines):
    model, x, activity = Fires(), torch.linspace(4.0, 20.0, 40).view(2, 10, 2), Activity()
    module = SimpleNamespace(model=model, seen=None, advice={})
    with record_spikes(model) as record:
        model(x)
    activity._say(module, record, "before the first epoch", None)
    with record_spikes(model) as record:
        model(0 * x)
    activity._say(module, record, "in the validation of epoch 1", None)
    assert [state for _, state in module.advice] == ["saturated", "silent"]
    assert len(lines) == 2


def test_a_saturated_layer_is_named_once(lines):
    """The callback by itself: three epochs of a layer that always fires."""
    model, x, activity = Fires(), torch.linspace(4.0, 20.0, 40).view(2, 10, 2), Activity()
    with record_spikes(model) as record:
        model(x)
    module = SimpleNamespace(model=model, seen=record, advice={})
    for epoch in range(3):
        trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, strategy=None, current_epoch=epoch)
        activity.on_validation_batch_end(trainer, module, None, Batch(x, torch.zeros(2)), 0)
        activity.on_validation_end(trainer, module)
    assert len(lines) == 1
    assert "neuron: saturated, spike rate 1.0000 in the validation of epoch 1, the data have standard" in lines[0]
    assert "multiply the data by 0.1 (data.scale=0.1 for data of your own), with which that ends, or raise" in lines[0]


def test_tokens_have_no_scale(lines):
    model, x = SpikingSSM(1, 5, 8, 1, 4, vocab=5, dynamics=sdn.LIF(0.1, 1e6), solver="fused"), torch.zeros(2, 12).long()
    with record_spikes(model) as record:
        model(x)
    module, activity = SimpleNamespace(model=model, seen=record, advice={}), Activity()
    trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, strategy=None, current_epoch=0)
    activity.on_validation_batch_end(trainer, module, None, Batch(x, torch.zeros(2)), 0)
    activity.on_validation_end(trainer, module)
    assert lines[0].rstrip().endswith("100% of its neurons never fired; lower model.dynamics.threshold")


@pytest.fixture
def lines():
    """What is logged."""
    said = []
    sink = logger.add(lambda line: said.append(str(line)), level="INFO")
    yield said
    logger.remove(sink)


@pytest.mark.parametrize(
    ("rate", "state"), [(0.0, "silent"), (9e-4, "silent"), (2e-3, ""), (0.5, ""), (0.91, "saturated"), (1, "saturated")]
)
def test_what_counts_as_silent(rate, state):
    assert state_of(rate) == state


def rates_at(model, x, factor):
    with torch.no_grad(), record_spikes(model) as record:
        model(factor * x)
    return record.rates()


@pytest.mark.parametrize(
    "make",
    [lambda: RSNN(2, 3, 24, start="published"), lambda: S5RF(2, 3, 64, 2, eta_min=0.05, start="published")],
    ids=["rsnn", "s5rf"],
)
def test_the_factor_is_the_smallest_that_works_for_all_layers(make):
    model, x = make().eval(), torch.from_numpy(waves(8)[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.get_rng_state()
    names = {name: "silent" for name, rate in rates_at(model, x, 1).items() if state_of(rate) == "silent"}
    found = working_factors(model, Batch(x, torch.zeros(8).long()), names)
    assert set(found) == set(names)
    (factor,) = set(found.values())
    assert all(rates_at(model, x, factor)[name] >= REVIVED for name in names)
    assert any(rates_at(model, x, factor / 3.4)[name] < REVIVED for name in names)
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Fires(nn.Module):
    """A neuron that fires where x is above 1."""

    def __init__(self):
        super().__init__()
        self.neuron = sdn.Neuron(sdn.LIF(0.0), 2)

    def forward(self, x, state=None, lengths=None):
        spikes, state = self.neuron(x, state)
        return spikes.mean(1), state


def test_a_factor_for_a_saturated_layer_and_none_where_none_helps():
    x = torch.linspace(4.0, 20.0, 40).view(2, 10, 2)
    assert working_factors(Fires(), Batch(x, torch.zeros(2)), {"neuron": "saturated"}) == {"neuron": 0.1}
    x = torch.zeros(2, 10, 2)
    assert working_factors(Fires(), Batch(x, torch.zeros(2)), {"neuron": "silent"}) == {}


def test_a_factor_that_makes_it_diverge_ends_the_search():
    model = RSNN(2, 3, 8, dynamics=sdn.RF(omega=[99.0] * 8, damping=torch.full((8,), 0.1)), pool="last")
    x = torch.full((2, 4000, 2), 1e30)
    assert working_factors(model, Batch(x, torch.zeros(2)), {"layers.0": "silent"}) == {}


def test_silent_neurons_are_counted_one_by_one():
    model, x = Fires(), torch.zeros(2, 10, 2)
    x[0, 3, 1] = 5.0
    with record_spikes(model) as record:
        model(x)
        model(torch.zeros(2, 10, 2))
    assert record.silent() == {"neuron": 0.5}
    assert record.spikes == {"neuron": 1}
    both = record.summed(lambda counts: 2 * counts)
    assert both.silent() == {"neuron": 0.5}
    assert both.spikes == {"neuron": 2}
    assert both.rates() == record.rates()
    with pytest.raises(ValueError, match="were not run"), record_spikes(model) as record:
        record.silent()


SILENT_MODELS = [
    lambda: S5RF(2, 3, 16, 1),
    lambda: RSNN(2, 3, 16),
    lambda: RSNN(2, 3, 16, pool="last"),
    lambda: zeroed(SpikingSSM(2, 3, 8, 1, 4, solver="fused")),
]


def zeroed(model):
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize("make", SILENT_MODELS, ids=["s5rf", "rsnn each", "rsnn last", "spikingssm"])
@pytest.mark.usefixtures("fresh")
def test_a_bare_model_says_once_that_its_output_is_nothing(make):
    model, x = make(), 0.01 * torch.from_numpy(waves(4)[0])
    name = type(model).__name__
    message = f"{name} returned exact zeros for 4 rows of 60 steps.*standard deviation 0.00707.*multiply it by 10 or 30"
    with pytest.warns(UserWarning, match=message) as said:
        assert not model(x)[0].any()
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x)
        make()(x)


@pytest.mark.usefixtures("fresh")
def test_what_is_no_sign_of_a_dead_network():
    model, x = S5RF(2, 3, 16, 1), torch.from_numpy(waves(4)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(1e3 * x)  # it fires
        model(torch.zeros(4, 60, 2))  # nothing in, nothing out
        model(1e-3 * x[:, :5])  # too short to say
        model.step(1e-3 * x[:, 0])
        model(1e-3 * x, model.initial_state(4))  # a chunk of a stream
    assert not WARNED


@pytest.mark.usefixtures("fresh")
def test_nothing_is_looked_at_while_a_graph_is_made():
    model, x = nn.Linear(2, 2), torch.from_numpy(waves(4)[0])

    def answers(x):
        warn_if_silent(model, x, 0 * x, True)
        return 0 * x

    torch.compile(answers, fullgraph=True, backend="aot_eager")(x)
    torch.export.export(Answers(), (x,))
    torch.jit.trace(answers, (x,), check_trace=False)
    torch.func.vmap(answers)(torch.stack([x, x]))
    make_fx(answers)(x)
    answers(x.to("meta"))
    with FakeTensorMode():
        fake = torch.rand(4, STEPS, 2)
        answers(fake)
    answers(fake)
    assert not WARNED
    with pytest.warns(UserWarning, match="Linear returned exact zeros"):
        answers(x)


class Answers(nn.Module):
    """A module, as export wants one."""

    def forward(self, x):
        warn_if_silent(self, x, 0 * x, True)
        return 0 * x


def test_own_arrays_are_scaled_and_say_so(file):
    plain, scaled = arrays(file, batch_size=8), arrays(file, batch_size=8, scale=30)
    pairs = zip(plain.val_dataloader(), scaled.val_dataloader(), strict=True)
    assert all(torch.equal(30 * one.x, other.x) for one, other in pairs)
    assert scaled.facts()["scale"] == 30
    assert "scale" not in plain.facts()
    with pytest.raises(ValueError, match=r"scale must be a number > 0, auto, standardise or unit, got -1"):
        arrays(file, scale=-1)


def test_axes_of_own_arrays_that_look_exchanged_are_said(file, lines):
    x, y = waves()
    arrays(file, batch_size=8)
    assert not lines
    np.savez(file, x=x.transpose(0, 2, 1), y=y)
    arrays(file, batch_size=8)
    assert len(lines) == 1
    assert "read as 60 rows of 2 steps with 60 channels; if it is (N, C, L), save x.transpose(0, 2, 1)" in lines[0]
    np.savez(file, x=x[:, :, :, None].repeat(4, 3), y=y)
    with pytest.raises(ValueError, match=r"x.reshape\(N, L, -1\) makes 8 channels of the last axes"):
        arrays(file)
