"""Parameter groups, the schedule, and a resume that changes nothing."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from sdn.runs.best import RunCheckpoint, best_of
from sdn.runs.folder import load_checkpoint
from spikingssm.datasets import digits
from spikingssm.models import SpikingSSM
from spikingssm.tasks import Classification
from spikingssm.training.callbacks import EarlyStop
from spikingssm.training.fit import SequenceModule, fit, score

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
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


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
    one.eval()
    with torch.no_grad():
        right = sum((one.model(b.x)[0].argmax(-1) == b.y).sum().item() for b in batches)
    assert found["accuracy"] == pytest.approx(right / 32)
    assert found["spike_rate"] == pytest.approx(sum(found["spike_rates"].values()) / 2)
    assert float(rows(tmp_path)[0]["val/spike_rate/blocks.0.layer.neuron"]) >= 0


def test_of_epochs_with_the_same_accuracy_the_one_of_the_lowest_loss_is_kept(tmp_path) -> None:
    one = module()
    fit(one, few(), tmp_path, seed=0, **TRAINER)
    found = [(float(row["val/accuracy"]), float(row["val/loss"])) for row in rows(tmp_path)]
    assert len({accuracy for accuracy, _ in found}) == 1
    assert [loss for _, loss in found] == sorted((loss for _, loss in found), reverse=True)
    best = load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert best["epoch"] == 2
    assert best_of([{"val/accuracy": a, "val/loss": loss} for a, loss in found], "val/accuracy", "max") == 2
    again = RunCheckpoint(monitor="val/accuracy")
    again.load_state_dict(next(s for s in best["callbacks"].values() if "best_loss" in s and s["monitor"]))
    assert again.best_loss == pytest.approx(found[-1][1], rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path) -> None:
    """Guards defect 17: NaN never beat infinity, and the end of the run crashed."""
    one = module()
    nn.init.constant_(one.model.decoder.bias, float("inf"))
    with pytest.raises(ValueError, match=r"train/loss became nan in step 1;.*Lower optim\.lr"):
        fit(one, few(), tmp_path, seed=0, **TRAINER)


@pytest.mark.parametrize(("factor", "value"), [(float("nan"), "nan"), (float("inf"), "(nan|inf)"), (1e30, "inf")])
@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}, {"tbptt": 16}])
def test_a_gradient_that_is_not_finite_moves_no_weight(tmp_path, factor, value, options) -> None:
    """The loss may still be finite: a state that overflows where no spike follows from it."""
    tbptt, options = options.get("tbptt"), {name: option for name, option in options.items() if name != "tbptt"}
    torch.manual_seed(0)
    one = SequenceModule(SpikingSSM(1, 10, 8, 1, 4, solver="loop"), Classification(), classes=10, tbptt=tbptt)
    before = {name: value.clone() for name, value in one.state_dict().items() if name.startswith("model")}
    one.model.decoder.weight.register_hook(lambda gradient: gradient * factor)
    with pytest.raises(
        ValueError, match=rf"decoder\.weight has a norm of {value}, too much in all, in step 1, .*Lower optim\.lr, clip"
    ) as found:
        fit(one, few(), tmp_path, seed=0, **TRAINER, **options)
    assert "\n" not in str(found.value)
    assert all(torch.equal(one.state_dict()[name], value) for name, value in before.items())


def test_numbers_out_of_range() -> None:
    for options in ({"lr": 0.0}, {"weight_decay": -1.0}, {"warmup": 1.0}):
        with pytest.raises(ValueError, match="lr must be > 0"):
            SequenceModule(tiny(), Classification(), classes=10, **options)


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path) -> None:
    found = {}
    for batch, every in ((8, 2), (16, 1)):
        torch.manual_seed(0)
        model = SpikingSSM(1, 10, d_model=8, n_layers=2, d_state=4, solver="loop", dropout=0.0)
        one = SequenceModule(model, Classification(), classes=10, warmup=0.1)
        rows = digits(batch_size=batch, limit_train=64, limit_eval=32, seed=3)
        more = {**TRAINER, "precision": "64-true", "accumulate_grad_batches": every, "gradient_clip_val": 1.0}
        loop = fit(one, rows, tmp_path / str(batch), seed=0, **more)
        assert loop.global_step == 12
        found[batch] = load_checkpoint(tmp_path / str(batch) / "checkpoints" / "last.ckpt")
    assert found[8]["lr_schedulers"][0]["last_epoch"] == found[16]["lr_schedulers"][0]["last_epoch"] == 12
    for key, value in found[8]["state_dict"].items():
        torch.testing.assert_close(value, found[16]["state_dict"][key], rtol=0, atol=1e-9)


def test_the_gradient_is_clipped_to_its_largest_norm(tmp_path) -> None:
    norms = []

    class Watch(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
            found = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norms.extend([torch.linalg.vector_norm(torch.stack([g.norm() for g in found])).item()] if found else [])

    for largest in (None, 0.05):
        norms.clear()
        one = {**TRAINER, "max_epochs": 1, "gradient_clip_val": largest}
        fit(module(), few(), tmp_path / str(largest), seed=0, callbacks=[Watch()], **one)
        assert len(norms) == 3  # the first call comes before any gradient
        assert all(norm > 0.1 if largest is None else norm == pytest.approx(0.05, rel=1e-3) for norm in norms)


def test_averaged_weights_are_validated_kept_and_tested(tmp_path) -> None:
    """The average after step n is 0.7 of that before it and 0.3 of the weights; it starts with those of step 1."""
    steps, validated = [], []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            steps.append({k: v.detach().clone() for k, v in pl_module.state_dict().items()})

        def on_validation_batch_start(self, trainer, pl_module, *args) -> None:
            validated.append({k: v.detach().clone() for k, v in pl_module.state_dict().items()})

    one = module(ema=0.7)
    fit(one, few(), tmp_path, seed=0, callbacks=[Watch()], **{**TRAINER, "max_epochs": 1})
    average = steps[0]
    for weights in steps[1:]:
        average = {k: 0.7 * average[k] + 0.3 * v for k, v in weights.items()}
    kept = load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    assert len(steps) == 4
    assert any((average[k] - steps[-1][k]).abs().max() > 1e-3 for k in average)
    for key, value in average.items():
        for found in (kept, validated[-1], one.state_dict()):
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


def test_an_early_stop_comes_after_so_many_epochs_without_a_better_one(tmp_path) -> None:
    class Spoil(Callback):
        """Makes the second epoch the best, by hand."""

        def on_validation_epoch_end(self, trainer, pl_module) -> None:
            right = {0: 3, 1: 5}.get(trainer.current_epoch, 4)
            pl_module.metrics["val"]["accuracy"].tp.fill_(right)

    often = {**TRAINER, "max_epochs": 9}
    more = [Spoil(), EarlyStop("val/accuracy", "max", 3)]
    fit(module(), few(), tmp_path, seed=0, callbacks=more, **often)
    assert [int(float(row["epoch"])) for row in rows(tmp_path)] == [0, 1, 2, 3, 4]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == 1
    more = [Spoil(), EarlyStop("val/accuracy", "max", 3)]
    fit(module(), few(), tmp_path, seed=0, callbacks=more, resume=True, **often)
    assert len(rows(tmp_path)) == 5  # it had stopped before it was killed


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_precisions(tmp_path, precision, dtype) -> None:
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            hook = pl_module.model.blocks[0].layer.output.register_forward_hook(lambda *a: seen.append(a[2].dtype))
            seen.append(hook)

    one = module()
    loop = fit(
        one, few(), tmp_path, seed=0, callbacks=[Watch()], **{**TRAINER, "max_epochs": 1, "precision": precision}
    )
    assert {p.dtype for p in one.parameters()} == {dtype}
    assert torch.bfloat16 in seen if precision == "bf16-mixed" else torch.float64 in seen
    assert 0 < score(one, few(), loop)["loss"] < 5


def test_the_loss_is_the_mean_over_labels_not_over_batches(tmp_path) -> None:
    """32 rows in batches of 10: the last one has two."""
    one = module()
    rows_ = digits(batch_size=10, limit_train=64, limit_eval=32, seed=3)
    loop = fit(one, rows_, tmp_path, seed=0, **{**TRAINER, "max_epochs": 1})
    found = score(one, rows_, loop)["loss"]
    one.eval()
    with torch.no_grad():
        every = [nn.functional.cross_entropy(one.model(b.x)[0], b.y, reduction="none") for b in rows_.test_dataloader()]
    assert [len(losses) for losses in every] == [10, 10, 10, 2]
    assert found == pytest.approx(torch.cat(every).mean().item(), rel=1e-6)


def test_betas_reach_the_optimiser(tmp_path) -> None:
    loop = fit(module(betas=[0.8, 0.95]), few(), tmp_path, seed=0, **{**TRAINER, "max_epochs": 1})
    assert {group["betas"] for group in loop.optimizers[0].param_groups} == {(0.8, 0.95)}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"betas": [0.9]}, r"betas must be two numbers in \[0, 1\), got \[0.9\]"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"ema": 1.0}, r"optim\.ema must be .*\(0, 1\) or null, got 1.0"),
    ],
)
def test_options_of_the_optimiser_out_of_range(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        module(**options)


def test_a_patience_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"early_stop\.patience must be an integer >= 1 or null, got 0"):
        EarlyStop("val/accuracy", "max", 0)


def test_the_best_row_is_the_first_of_those_that_nothing_tells_apart() -> None:
    rows = [{"m": 1.0, "val/loss": 3.0}, {"m": 2.0, "val/loss": 2.0}, {"m": 2.0, "val/loss": 1.0}]
    assert best_of(rows, "m", "max") == 2
    assert best_of(rows, "m", "min") == 0
    assert best_of([{"m": 1.0}, {"m": 1.0}], "m", "min") == 0
