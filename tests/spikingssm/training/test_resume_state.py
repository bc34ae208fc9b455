"""A checkpoint that was edited, or written by something else, ends a resume in one line and not in the middle of it."""

import copy

import pytest
import torch
from test_resume import TRAINER, KillAt, Killed, data, module

from sdn.runs.folder import load_checkpoint, read_metrics
from spikingssm.training.callbacks import StepCheckpoint
from spikingssm.training.fit import fit


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of three epochs, killed in the second."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        fit(module(), data(), folder, seed=1, callbacks=[StepCheckpoint(folder, 2), KillAt(1, 4)], **TRAINER)
    return folder


@pytest.fixture
def resumed(killed, tmp_path):
    """Resume a copy of the run whose last checkpoint was changed."""
    content = load_checkpoint(killed / "checkpoints" / "last.ckpt")
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/best.ckpt", "metrics.csv"):
        (tmp_path / name).write_bytes((killed / name).read_bytes())

    def resume(change=lambda content: None):
        changed = copy.deepcopy(content)
        change(changed)
        torch.save(changed, tmp_path / "checkpoints" / "last.ckpt")
        fit(module(), data(), tmp_path, seed=1, resume=True, callbacks=[StepCheckpoint(tmp_path, 2)], **TRAINER)
        return tmp_path

    return resume


def test_an_unchanged_one_goes_on(resumed) -> None:
    assert len(read_metrics(resumed() / "metrics.csv")) == 3


def place(**values):
    return lambda c: c["place"].update(values)


def moment(value):
    return lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=value)


def callback(name, value):
    return lambda c: c["callbacks"].update({next(k for k in c["callbacks"] if k.startswith(name)): value})


CHANGES = {
    "place-negative": (place(batch=-3), "its place is"),
    "place-a-fraction": (place(batch=1.5), "its place is"),
    "place-a-word": (place(epoch="one"), "its place is"),
    "place-elsewhere": (place(epoch=7), "its place is"),
    "place-a-list": (lambda c: c.update(place=[1, 2]), "its place is"),
    "place-behind-the-epoch": (place(batch=10_000), "an epoch of these data has 10"),
    "epoch-negative": (lambda c: c.update(epoch=-1), "is not a checkpoint of a run"),
    "epoch-a-word": (lambda c: c.update(epoch="1"), "is not a checkpoint of a run"),
    "step-a-word": (lambda c: c.update(global_step="1"), "its global_step is"),
    "no-optimisers": (lambda c: c.pop("optimizer_states"), "its optimizer_states are no list of dicts"),
    "optimisers-a-word": (lambda c: c.update(optimizer_states="adam"), "its optimizer_states are no list"),
    "optimisers-empty": (lambda c: c.update(optimizer_states=[{}]), "not those of an optimiser"),
    "no-optimiser": (lambda c: c.update(optimizer_states=[]), "holds the states {'optimizer': 0"),
    "moments-of-another-shape": (moment(torch.zeros(3)), r"the optimiser's exp_avg is \(3,\)"),
    "moments-a-word": (moment("zero"), "not those of an optimiser"),
    "parameters-missing": (lambda c: c["optimizer_states"][0]["param_groups"].pop(), "parameter groups"),
    "callbacks-a-word": (lambda c: c.update(callbacks="EpochRecord"), "its callbacks are no dict of dicts"),
    "callback-a-word": (callback("EpochRecord", "x"), "its callbacks are no dict of dicts"),
    "callback-without-keys": (callback("RunCheckpoint", {}), "holds no state of RunCheckpoint"),
    "callback-of-words": (callback("EpochRecord", {"seconds": "long"}), "could not convert|cannot go on from it"),
    "loops-a-word": (lambda c: c["loops"].update(fit_loop="x"), "its loops are no dict of dicts"),
    "loops-of-words": (
        lambda c: c["loops"]["fit_loop"]["epoch_progress"]["total"].update(ready="2"),
        "its loops hold something else than counts",
    ),
    "loops-empty": (lambda c: c.update(loops={}), "cannot go on from it"),
    "schedulers-empty": (lambda c: c.update(lr_schedulers=[]), "'schedule': 0}, this run has"),
    "old-lightning": (
        lambda c: c.update({"pytorch-lightning_version": "1.5.0"}),
        "written by Lightning 1.5.0, this is",
    ),
    "no-lightning": (lambda c: c.pop("pytorch-lightning_version"), "written by Lightning None"),
    "odd-lightning": (lambda c: c.update({"pytorch-lightning_version": [2]}), r"written by Lightning \[2\]"),
    "weights-of-integers": (
        lambda c: c["state_dict"].update({"model.decoder.bias": torch.ones(3).int()}),
        "torch.int32",
    ),
    "weights-nan": (lambda c: c["state_dict"]["model.decoder.bias"].fill_(torch.nan), "model.decoder.bias is NaN"),
    "running-a-word": (lambda c: c.update(running="x"), "cannot go on from it"),
    "data-a-word": (lambda c: c.update(data="mnist"), "says of its data 'mnist'"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
def test_an_edited_one_is_refused_in_one_line(resumed, change, says) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        resumed(change)
    assert "\n" not in str(caught.value)


def test_a_table_of_something_else_is_refused_with_its_name(tmp_path) -> None:
    path = tmp_path / "metrics.csv"
    for text in (
        "epoch,loss\n0,a\n",
        "epoch,loss\n0,1,2\n",
        "epoch\n\n,\n",
        "loss\n1\n",
        "epoch\nnan\n",
        "epoch\n-1\n",
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"metrics\.csv: ") as caught:
            read_metrics(path)
        assert "\n" not in str(caught.value)
    for text in (b"epoch\n\xff\xfe\n", b'epoch,a\n0,"' + b"x" * 200_000 + b'"\n', b"epoch\n0\0\n"):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=r"metrics\.csv: "):
            read_metrics(path)
