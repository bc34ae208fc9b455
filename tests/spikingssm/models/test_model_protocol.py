"""What may be asked of a model: of ours, of a plain module that says some of it, and of one that says nothing."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import sdn
from sdn import LIF, Neuron
from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.datasets import digits
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.run import run
from spikingssm.layers import EachStep, LastStep
from spikingssm.measures.energy import account
from spikingssm.measures.spikes import record_spikes
from spikingssm.models import SequenceModel
from spikingssm.models.base import (
    able,
    answers_of,
    as_predictor,
    blocks_of,
    parameters_named,
    patch_of,
    pool_of,
    synapses_of,
)
from spikingssm.tasks import Classification
from spikingssm.training.fit import SequenceModule, fit, score
from spikingssm.training.optim import parameter_groups

OURS = {
    "spikingssm": lambda **options: SpikingSSM(3, 5, 8, 2, 4, solver="fused", **options),
    "s5rf": lambda **options: S5RF(3, 5, 8, 2, num_blocks=2, **options),
    "rsnn": lambda **options: RSNN(3, 5, [8, 6], mask=0.5, **options),
}


class Plain(nn.Module):
    """A network of somebody who knows nothing of this project but `sdn.Neuron`, and its forward."""

    def __init__(self, d_input=1, d_output=10):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(d_input, 6), Neuron(LIF(0.5), 6), nn.Linear(6, d_output)

    def forward(self, x, state=None, lengths=None):
        spikes, state = self.neuron(self.first(x), state)
        return self.last(spikes.mean(1)), state


class Small(SequenceModel):
    """The least that is written for a `SequenceModel`."""

    def __init__(self, d_input=1, d_output=10, each=False):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(d_input, 6), Neuron(LIF(0.5), 6), nn.Linear(6, d_output)
        self.each = each

    def forward(self, x, state=None, lengths=None):
        spikes, state = self.neuron(10 * self.first(x), state)
        return self.last(spikes if self.each else spikes[:, -1]), state


@pytest.mark.parametrize("make", [*OURS.values(), Small], ids=[*OURS, "small"])
def test_with_solver_shares_every_tensor_and_changes_every_layer(make):
    model = make()
    other = model.with_solver("loop")
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert one is two
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        assert one is two
    solvers = {str(part.solver) for part in other.modules() if isinstance(part, sdn.SpikingLayer)}
    assert len(solvers) == 1
    assert "loop" in solvers.pop().lower()
    assert all("loop" not in str(part.solver).lower() for part in model.modules() if hasattr(part, "_solver"))


def test_a_neuron_that_stands_in_two_places_stays_one():
    model = Small()
    model.again = model.neuron
    other = model.with_solver("loop")
    assert other.again is other.neuron is not model.neuron


@pytest.mark.parametrize("each", [False, True])
def test_the_step_of_a_model_that_has_none_is_a_sequence_of_one(each):
    model, x, state = Small(each=each).eval(), torch.randn(3, 9, 1), None
    whole, _ = model(x)
    for t in range(9):
        logits, state = model.step(x[:, t], state)
        assert logits.shape == (3, 10)
    assert torch.equal(logits, whole[:, -1] if each else whole)
    with pytest.raises(NotImplementedError, match="Small has no initial_state; None stands for"):
        model.initial_state(3)


def test_what_a_plain_module_does_not_say_has_the_defaults_of_a_sequence_model():
    for model in (Plain(), Small(), nn.Linear(2, 2)):
        assert synapses_of(model) == {}
        assert patch_of(model) == 1
        assert parameters_named(model, "slow_parameters") == parameters_named(model, "plain_parameters") == ()
        assert tuple(blocks_of(model)) == ()
        assert answers_of(model) is pool_of(model) is as_predictor(model) is None
        with pytest.raises(ValueError, match=f"{type(model).__name__} has no with_rate, which is needed here"):
            able(model, "with_rate").with_rate(2)
    with pytest.raises(ValueError, match="Plain has no with_solver, so there"):
        able(Plain(), "with_solver", "so there")


def test_what_a_plain_module_says_is_used():
    class Says(Plain):
        patch = 3
        answers = "step"
        slow_parameters = ("scale",)

        def __init__(self):
            super().__init__()
            self.scale, self.pool, self.blocks = nn.Parameter(torch.ones(1)), LastStep(6), nn.ModuleList([self.first])

        def synapses(self):
            return {"neuron": ("last",)}

    model = Says()
    assert patch_of(model) == 3
    assert answers_of(model) == "sequence"  # of its pool, which knows
    model.pool = EachStep(6)
    assert answers_of(model) == "step"
    del model.pool
    assert answers_of(model) == "step"
    assert list(blocks_of(model)) == [model.first]
    assert parameter_groups(model, 0.1, 0.0)[0]["params"] == [model.scale]
    with record_spikes(model) as record:
        model(100 * torch.rand(2, 9, 1))
    found = account(model, record)
    assert found["sops"] == record.spikes["neuron"] / 2 * 10 > 0


def test_a_part_that_has_one_of_the_names_is_no_answer():
    model = Plain()
    for name in ("synapses", "patch", "answers"):
        setattr(model, name, nn.Linear(2, 2))
    assert synapses_of(model) == {}
    assert patch_of(model) == 1
    assert answers_of(model) is None
    model.pool = 3
    assert pool_of(model) is None
    model.with_solver = None
    with pytest.raises(ValueError, match="Plain has no with_solver"):
        able(model, "with_solver")


@pytest.mark.parametrize(
    ("model", "answers"),
    [
        (OURS["spikingssm"](), "sequence"), (OURS["spikingssm"](pool="each"), "step"), (OURS["s5rf"](), "sequence"),
        (OURS["rsnn"](), "step"), (OURS["rsnn"](pool="last"), "sequence"),
    ],
)  # fmt: skip
def test_our_models_say_when_they_answer(model, answers):
    assert isinstance(model, SequenceModel)
    assert answers_of(model) == answers
    assert model(torch.randn(2, 7, 3))[0].ndim == (3 if answers == "step" else 2)
    assert model.eval().step(torch.randn(2, 3), model.initial_state(2))[0].shape == (2, 5)
    assert as_predictor(model) is None


def test_a_language_model_is_a_predictor():
    model = SpikingSSM(1, 9, 8, 1, 4, vocab=9, pool="each")
    assert as_predictor(model) is model


@pytest.mark.parametrize("name", ["s5rf", "rsnn"])
def test_a_model_without_another_rate_says_so(name):
    with pytest.raises(ValueError, match=r"(S5RF|RSNN) has no with_rate, which is needed here"):
        OURS[name]().with_rate(2)


def test_a_plain_module_is_trained_and_measured(tmp_path):
    data = digits(batch_size=16, limit_train=32, limit_eval=16, seed=3)
    module = SequenceModule(Plain(), Classification(), classes=10)
    before = module.model.last.weight.clone()
    loop = fit(module, data, tmp_path, seed=0, accelerator="cpu", devices=1, max_epochs=1, enable_progress_bar=False)
    assert not torch.equal(module.model.last.weight, before)
    found = score(module, data, loop)
    assert found["sops"] == 0
    assert set(found["energy"]) == {"recurrence", "fft"}
    assert set(found["spike_rates"]) == {"neuron"}


def test_a_run_of_a_plain_module_is_tested_under_the_solvers_that_it_can_have(tmp_path, monkeypatch):
    """Its constructor takes no solver, so none may be put into its configuration."""
    monkeypatch.setenv("SDN_TRUST_TARGETS", "test_model_protocol.Small,test_model_protocol.Plain")
    for name in ("Small", "Plain"):
        words = ["experiment=spikingssm/digits", "+tier=smoke", "trainer.accelerator=cpu", f"run_dir={tmp_path / name}"]
        config = load([*words, "trainer.enable_progress_bar=false"])
        OmegaConf.update(config, "model", {"_target_": f"test_model_protocol.{name}"}, merge=False)
        folder = run(config)
        assert evaluate(folder)["solver"].startswith("Fused")
    assert evaluate(tmp_path / "Small", "loop")["solver"].startswith("Loop")
    with pytest.raises(ValueError, match="Plain has no with_solver, which is needed here"):
        evaluate(tmp_path / "Plain", "loop")


def test_the_page_says_what_its_code_prints(capsys):
    page = (Path(sdn.__file__).parents[1] / "docs" / "models.md").read_text()
    ((code, want),) = re.findall(r"```python\n(import.*?)```\n\n```\n(.*?)```", page, re.DOTALL)
    exec(code, {"__name__": "page"})
    assert capsys.readouterr().out == want


def test_nothing_else_looks_for_these_names():
    names = (
        "with_solver|with_rate|synapses|features|decoder|nll|patch|pool|blocks|answers|slow_parameters|plain_parameters"
    )
    look = re.compile(rf'(?:get|has)attr\([^\n]*"(?:{names})"')
    root = Path(sdn.__file__).parents[1] / "spikingssm"
    found = {path.name for path in root.rglob("*.py") if look.search(path.read_text())}
    assert found == {"base.py", "consistency.py"}  # consistency: what a task answers
