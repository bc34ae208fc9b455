"""The linear schedule: what each epoch trains with, and a resume that goes on with it."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from test_tbptt import KillAt, Killed, data, network, table

from sdn.runs.folder import load_checkpoint
from spikingssm.tasks import EveryStepClassification
from spikingssm.training.callbacks import StepCheckpoint
from spikingssm.training.fit import SequenceModule, fit

TRAINER = {"accelerator": "cpu", "devices": 1, "max_epochs": 4, "enable_progress_bar": False}


def module(**options) -> SequenceModule:
    one = network(dropout=0.3)
    return SequenceModule(one, EveryStepClassification(), classes=3, lr=0.02, schedule="linear", warmup=0, **options)


class Rates(Callback):
    """Learning rates of the groups in each optimiser step."""

    def __init__(self) -> None:
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.seen.append({group["name"]: group["lr"] for group in optimizer.param_groups})


@pytest.mark.parametrize(("tbptt", "steps"), [(None, 4), (5, 12)])
def test_an_epoch_trains_with_what_is_left_of_the_learning_rate(tmp_path, tbptt, steps) -> None:
    """lr (1 - epoch / epochs): the first epoch at lr, the last at lr / epochs; slow groups likewise."""
    rates = Rates()
    fit(module(tbptt=tbptt, slow_lr=0.004), data(), tmp_path, seed=0, callbacks=[rates], **TRAINER)
    part = [1 - epoch / 4 for epoch in range(4) for _ in range(steps)]
    for name, lr in (("slow", 0.004), ("plain", 0.02), ("decayed", 0.02)):
        assert [one[name] for one in rates.seen] == pytest.approx([lr * p for p in part])


@pytest.mark.parametrize("at", [(0, 2), (1, 3), (3, 1)])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, at) -> None:
    def run(folder, *more, **resume):
        every = StepCheckpoint(folder, every_n_steps=2)
        return fit(module(), data(), folder, seed=1, callbacks=[every, *more], **TRAINER, **resume)

    whole, resumed = Rates(), Rates()
    run(tmp_path / "whole", whole)
    with pytest.raises(Killed):
        run(tmp_path / "killed", KillAt(*at))
    run(tmp_path / "killed", resumed, resume=True)
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    assert table(tmp_path / "whole") == table(tmp_path / "killed")
    one, other = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "killed"))
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schedule": "step"}, r"optim\.schedule must be one of cosine, linear, got 'step'"),
        (
            {"schedule": "linear"},
            r"optim\.schedule=linear has no warm-up, got optim\.warmup=0\.01; set optim\.warmup=0",
        ),
    ],
)
def test_schedules_that_there_are_not(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        SequenceModule(network(), EveryStepClassification(), classes=3, **options)
