"""Parameter groups, the schedule, and a resume that changes nothing."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from sdn.runs import load_checkpoint
from spikingssm.datasets import digits
from spikingssm.layers import S4D
from spikingssm.models import SpikingSSM
from spikingssm.optim import parameter_groups, warmup_cosine
from spikingssm.tasks import Classification
from spikingssm.training import SequenceModule, fit, score

TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "max_epochs": 3,
}


def tiny(**options) -> SpikingSSM:
    torch.manual_seed(0)
    return SpikingSSM(1, 10, d_model=8, n_layers=2, d_state=4, solver="loop", dropout=0.2, **options)


def module(**options) -> SequenceModule:
    return SequenceModule(tiny(), Classification(), classes=10, warmup=0.1, **options)


def few():
    return digits(batch_size=16, limit_train=64, limit_eval=32, seed=3)


@pytest.mark.parametrize("options", [{}, {"norm": "batch", "learn_b": True, "bidirectional": True}])
def test_every_parameter_is_in_one_group_with_its_options(options) -> None:
    """Guards defects 33 and 41: an lr was clipped without a word, and thresholds decayed."""
    model = tiny(**options)
    groups = {group["name"]: group for group in parameter_groups(model, lr=0.01, weight_decay=0.1)}
    names = {id(p): n for n, p in model.named_parameters()}
    placed = [names[id(p)] for group in groups.values() for p in group["params"]]
    assert sorted(placed) == sorted(names.values())
    found = {names[id(p)].split("0.", 1)[-1]: group for group in groups.values() for p in group["params"]}
    assert found["layer.ssm.log_dt"]["lr"] == 1e-3
    assert found["layer.ssm.A_imag"]["weight_decay"] == 0
    assert found["layer.neuron.learned.threshold"]["weight_decay"] == 0
    assert found["layer.neuron.learned.threshold"]["lr"] == 0.01
    assert found["norm.weight"]["weight_decay"] == found["layer.output.bias"]["weight_decay"] == 0
    assert found["layer.output.weight"]["weight_decay"] == found["encoder.weight"]["weight_decay"] == 0.1
    assert parameter_groups(model, lr=1e-4, weight_decay=0.1)[0]["lr"] == 1e-4


def test_decay_pulls_nothing_that_has_a_meaning_of_its_own() -> None:
    """Guards defect 41: AdamW pulled log thresholds, C and D towards 0."""
    model = tiny(learn_b=True)
    kept = {id(p): g["weight_decay"] for g in parameter_groups(model, lr=0.01, weight_decay=0.1) for p in g["params"]}
    block = model.blocks[1].layer
    for name, parameter in [*block.ssm.named_parameters(), *block.neuron.named_parameters()]:
        assert kept[id(parameter)] == 0, name
    assert kept[id(block.output.weight)] == 0.1


def test_sizes_are_all_that_is_needed() -> None:
    """Guards defect 33: without an lr, or with the default layer, nothing could be built."""
    for model in (S4D(4), SpikingSSM(1, 10)):
        lrs = {g["name"]: g["lr"] for g in parameter_groups(model, lr=0.1, weight_decay=0.0)}
        assert lrs["slow"] == 1e-3
        assert sum(p.numel() for g in parameter_groups(model, 0.1, 0.0) for p in g["params"]) > 4 * 32


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    assert [(g["name"], len(g["params"])) for g in parameter_groups(layer, 0.1, 0.1)] == [("plain", 1)]


@pytest.mark.parametrize(("warm", "total"), [(0, 50), (5, 50), (10, 10), (0, 1)])
def test_the_schedule_rises_once_and_falls_to_zero(warm, total) -> None:
    """Guards defect 37: behind its end the cosine rose again."""
    factors = [warmup_cosine(step, warm, total) for step in range(total + 20)]
    assert factors[:warm] == sorted(factors[:warm])
    assert all(0 < f < 1 for f in factors[:warm])
    assert factors[warm:] == sorted(factors[warm:], reverse=True)
    assert total == warm or factors[warm] == 1
    assert all(f == pytest.approx(0, abs=1e-12) for f in factors[total + (total == warm) :])


def test_the_schedule_ends_with_the_last_real_step(tmp_path) -> None:
    """Guards defect 37: the number of steps was written down, not counted."""
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, *args) -> None:
            seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    loop = fit(module(lr=0.01), few(), tmp_path, seed=0, callbacks=(Watch(),), **TRAINER)
    assert len(seen) == 12
    assert max(lrs[1] for lrs in seen) == pytest.approx(0.01)
    assert max(lrs[0] for lrs in seen) == pytest.approx(1e-3)
    assert seen[-1][1] < 0.03 * 0.01
    assert loop.optimizers[0].param_groups[1]["lr"] == pytest.approx(0, abs=1e-12)


class Killed(BaseException):
    """Stands in for a kill: nobody catches it."""


class KillAt(Callback):
    """Stop in the middle of an epoch, as a kill would: no hook of ours runs after it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise Killed


def rows(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("killed_in", "workers"), [(1, 0), (2, 0), (1, 1)])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, killed_in, workers) -> None:
    """Guards defects 15, 16 and 21: resume opened a missing file, then a pickle, then another schedule."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    few = lambda: digits(batch_size=16, limit_train=64, limit_eval=32, seed=3, num_workers=workers)  # noqa: E731
    fit(module(), few(), whole, seed=1, **TRAINER)
    with pytest.raises(Killed):
        fit(module(), few(), broken, seed=1, callbacks=(KillAt(killed_in),), **TRAINER)
    assert len(rows(broken)) == killed_in
    torch.manual_seed(99)
    fit(module(), few(), broken, seed=1, resume=True, **TRAINER)
    assert rows(broken) == rows(whole)
    assert len(rows(whole)) == 3
    for name in ("last", "best"):
        one, other = (load_checkpoint(f / "checkpoints" / f"{name}.ckpt") for f in (whole, broken))
        assert one["epoch"] == other["epoch"]
        assert one["state_dict"].keys() == other["state_dict"].keys()
        for key, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][key]), key


def test_the_noise_of_an_epoch_depends_on_the_seed(tmp_path) -> None:
    found = []
    for seed in (1, 2):
        one = module()
        fit(one, few(), tmp_path / str(seed), seed=seed, **{**TRAINER, "max_epochs": 1})
        found.append(one.model.encoder.weight.clone())
    assert not torch.equal(*found)


def test_fit_leaves_the_best_weights_and_score_reports_rates(tmp_path) -> None:
    one = module()
    loop = fit(one, few(), tmp_path, seed=0, **TRAINER)
    best = load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(value, best[key]) for key, value in one.state_dict().items())
    found = score(one, few(), loop)
    assert set(found["spike_rates"]) == {f"blocks.{i}.layer.neuron" for i in range(2)}
    assert 0 <= found["accuracy"] <= 1
    batches = list(few().test_dataloader())
    with torch.no_grad():
        right = sum((one.model(b.x)[0].argmax(-1) == b.y).sum().item() for b in batches)
    assert found["accuracy"] == pytest.approx(right / 32)
    assert found["spike_rate"] == pytest.approx(sum(found["spike_rates"].values()) / 2)
    assert float(rows(tmp_path)[0]["val/spike_rate/blocks.0.layer.neuron"]) >= 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path) -> None:
    """Guards defect 17: NaN never beat infinity, and the end of the run crashed."""
    one = module()
    nn.init.constant_(one.model.decoder.bias, float("inf"))
    with pytest.raises(ValueError, match=r"train/loss became nan in step 1;.*Lower optim\.lr"):
        fit(one, few(), tmp_path, seed=0, **TRAINER)


def test_numbers_out_of_range() -> None:
    for options in ({"lr": 0.0}, {"weight_decay": -1.0}, {"warmup": 1.0}):
        with pytest.raises(ValueError, match="lr must be > 0"):
            SequenceModule(tiny(), Classification(), classes=10, **options)
