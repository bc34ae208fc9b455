"""Data, model and task that do not go together are refused before anything runs, and the advice goes together."""

import itertools
import re

import numpy as np
import pytest
import torch

from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.datasets import Rows, SequenceData
from spikingssm.experiments.build import build
from spikingssm.experiments.config import load
from spikingssm.experiments.consistency import check_together, check_tokens_are_read
from spikingssm.experiments.run import run
from spikingssm.tasks import Classification, EveryStepClassification, LanguageModel, StepClassification

TASKS = {
    "classification": Classification,
    "every_step": EveryStepClassification,
    "steps": StepClassification,
    "language": LanguageModel,
}
MODELS = {
    "spikingssm": lambda pool, **more: SpikingSSM(2, 3, 4, 1, 2, solver="loop", pool=pool, **more),
    "brf": lambda pool: RSNN(2, 3, 4, pool=pool),
    "s5rf": lambda pool: S5RF(2, 3, 8, 1),
}
POOLS = {"spikingssm": ("mean", "last", "each"), "brf": ("mean", "last", "each"), "s5rf": ("",)}
TABLE = [
    (labels, task, model, pool)
    for labels, task, model in itertools.product(("sequence", "step"), TASKS, MODELS)
    for pool in POOLS[model]
]


def rows(labels, length=6):
    y = torch.zeros(8, dtype=torch.long) if labels == "sequence" else torch.zeros(8, length, dtype=torch.long)
    return SequenceData(
        "mine",
        Rows(torch.zeros(8, length, 2), y),
        Rows(torch.zeros(8, length, 2), y),
        d_output=3,
        batch_size=4,
        val_fraction=0.25,
    )


def goes(labels, task, pool):
    """Which combinations go together, written out."""
    return (labels, task, pool == "each") in {
        ("sequence", "classification", False), ("sequence", "every_step", True),
        ("step", "steps", True),
    }  # fmt: skip


def batch_of(data):
    return next(iter(data.val_dataloader()))


@pytest.mark.parametrize(("labels", "task", "model", "pool"), TABLE)
def test_every_combination(labels, task, model, pool):
    data, network = rows(labels), MODELS[model](pool)
    if goes(labels, task, pool):
        check_together(data, network, TASKS[task]())
        TASKS[task]().run(network, batch_of(data))
        return
    with pytest.raises(ValueError, match="mine has") as raised:
        check_together(data, network, TASKS[task]())
    assert "\n" not in str(raised.value)
    advice = str(raised.value).partition("; set ")[2].split(", since")[0].rstrip(".")
    for way in advice.split(", or "):
        found = dict(word.split("=") for word in re.findall(r"[\w.]+=\w+", way))
        chosen = found.get("model", model)
        change = found.get("task", task), found.get("model.pool", pool)
        assert goes(labels, *change), f"{way} does not mend it"
        again = MODELS[chosen](change[1])
        check_together(data, again, TASKS[change[0]]())
        TASKS[change[0]]().run(again, batch_of(data))
    assert {"task", "model.pool", "model", "model.patch"} >= set(found)


def test_frames_are_taken_back_where_every_step_is_asked_for():
    with pytest.raises(ValueError, match=r"set model\.pool=each model\.patch=1\."):
        check_together(rows("step"), MODELS["spikingssm"]("mean", patch=2), StepClassification())


def test_a_model_or_a_task_of_your_own_is_left_alone():
    class Own:
        monitor = ("val/loss", "min")

    check_together(rows("step"), torch.nn.Linear(2, 3), Classification())
    check_together(rows("step"), MODELS["brf"]("last"), Own())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (StepClassification(skip=6), r"task\.skip=6 leaves nothing of the 6 steps of mine"),
        (StepClassification(unlabelled_as=3), r"task\.unlabelled_as=3 is no class of mine, which has 0 to 2"),
        (StepClassification(unlabelled_as=-1), r"task\.unlabelled_as=-1 is no class"),
    ],
)
def test_numbers_of_a_task_that_do_not_fit_the_data(task, message):
    with pytest.raises(ValueError, match=message):
        check_together(rows("step"), MODELS["brf"]("each"), task)


def test_truncation_needs_sequences_of_one_length():
    data = rows("sequence")
    check_together(data, MODELS["brf"]("last"), Classification(), 3)
    data.val_set.rows = data.val_set.rows._replace(lengths=torch.full((8,), 6))
    check_together(data, MODELS["brf"]("last"), Classification())
    with pytest.raises(ValueError, match=r"optim\.tbptt=3 needs sequences of one length.*set optim\.tbptt=null"):
        check_together(data, MODELS["brf"]("last"), Classification(), 3)


def test_tokens_need_a_vocabulary():
    tokens = torch.zeros(8, 6, dtype=torch.long)
    data = SequenceData("text", Rows(tokens, tokens), Rows(tokens, tokens), d_output=5, vocab=5, batch_size=4)
    for target in ("spikingssm.models.S5RF", "spikingssm.models.RSNN"):
        with pytest.raises(ValueError, match=r"text is tokens, of 5 kinds, .*set model=spikingssm"):
            check_tokens_are_read(data, target)
    check_tokens_are_read(data, "spikingssm.models.SpikingSSM")
    check_together(data, SpikingSSM(1, 5, 4, 1, 2, solver="loop", vocab=5, pool="each"), LanguageModel())
    with pytest.raises(ValueError, match=r"set model\.pool=each task=language\."):
        check_together(data, SpikingSSM(1, 5, 4, 1, 2, solver="loop", vocab=5), Classification())


@pytest.fixture
def file(tmp_path):
    """Rows of three sines with one label each, and with a label at every step."""
    x = np.sin(np.arange(20)[None, :, None] * (1 + np.arange(30)[:, None, None] % 3)).repeat(2, 2)
    y = np.arange(30) % 3
    np.savez(tmp_path / "one.npz", x=x, y=y)
    np.savez(tmp_path / "each.npz", x=x, y=y[:, None].repeat(20, 1))
    return tmp_path


@pytest.mark.parametrize("model", ["brf", "rf", "alif"])
def test_a_recurrent_model_with_one_label_is_refused_before_it_runs(file, model, monkeypatch):
    """newcomer.md 8: it came at the first batch, with the advice for labels of every step."""
    monkeypatch.setattr("spikingssm.experiments.run.fit", lambda *_, **__: pytest.fail("it was trained"))
    words = [
        "dataset=arrays",
        f"data.path={file / 'one.npz'}",
        f"model={model}",
        "model.d_model=4",
        "data.batch_size=8",
    ]
    message = r"one has one label a sequence and the model answers at every step.*model\.pool=last, or task=every_step"
    with pytest.raises(ValueError, match=message):
        run(load([*words, f"run_dir={file / 'r'}"]))
    assert not (file / "r").exists()
    for way in ("model.pool=last", "task=every_step"):
        build(load([*words, way]))


RECIPES = [
    ("experiment=brf/ecg dataset=arrays", "data.length"),
    ("experiment=brf/psmnist dataset=arrays", "data.permute"),
    ("experiment=s5rf/ssc dataset=arrays", "data.channel_shift data.cutmix"),
    ("experiment=brf/ecg +tier=smoke dataset=arrays", "data.length data.generated"),
    ("experiment=spikingssm/mnist model=s5rf", "model.d_state model.norm model.prenorm"),
    ("experiment=brf/ecg task=every_step", "task.unlabelled_as task.train_unlabelled"),
]


@pytest.mark.parametrize(("words", "keys"), RECIPES, ids=[words for words, _ in RECIPES])
def test_a_key_of_a_recipe_that_another_part_does_not_take_is_named(words, keys):
    """`SequenceData.__init__() got an unexpected keyword argument 'length'` was all that it said."""
    overrides, keys = words.split(), keys.split()
    drop = [f"~{key}" for key in keys]
    with pytest.raises(ValueError) as raised:
        load(overrides)
    message = str(raised.value)
    assert message.startswith(" ".join(word for word in overrides if word.split("=")[0] in ("experiment", "+tier")))
    assert f"sets {', '.join(keys)}, which {overrides[-1]} does not take" in message
    assert message.endswith(" ".join(f"'{word}'" for word in drop) + ".")
    found = load([*overrides, *drop])
    assert not any(key.split(".")[1] in found[key.split(".")[0]] for key in keys)


def test_a_recipe_with_data_of_your_own(file):
    """What the README and docs/experiments.md say of it."""
    x = f"data.path={file / 'one.npz'}"
    data, module = build(load(["experiment=s5rf/smnist", "dataset=arrays", x, "name=mine", "data.batch_size=8"]))
    assert (data.d_input, data.d_output, module.lr) == (2, 3, 0.008)
    data, module = build(
        load(["experiment=brf/ecg", "dataset=arrays", f"data.path={file / 'each.npz'}", "~data.length", "name=mine"])
    )
    assert (data.name, module.lr, type(module.task)) == ("each", 0.1, StepClassification)
    assert load(["model=s5rf"]).optim.lr == 0.01  # a model alone brings no recipe


def test_a_wrong_keyword_in_a_configuration_is_answered_too(file):
    words = ["dataset=arrays", f"data.path={file / 'one.npz'}", "model.solver=loop", "data.batch_size=8"]
    with pytest.raises(ValueError, match=r"model: LIF: unexpected keyword argument 'beta'; write decay=0.9") as raised:
        build(load([*words, "+model.dynamics={_target_: sdn.LIF, beta: 0.9}"]))
    assert "its keys" not in str(raised.value)
