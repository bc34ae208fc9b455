"""Truncated back-propagation through time against the same updates written out, and a resume that changes nothing."""

import csv
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional

import sdn
from sdn.runs.folder import load_checkpoint
from spikingssm.datasets import Batch, Rows, SequenceData
from spikingssm.models import S5RF, SpikingSSM
from spikingssm.tasks import Classification, EveryStepClassification, StepClassification
from spikingssm.training.callbacks import StepCheckpoint
from spikingssm.training.fit import SequenceModule, fit
from spikingssm.training.optim import parameter_groups
from spikingssm.training.tbptt import chunk, spans

TRAINER = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "enable_progress_bar": False}
LENGTH = 11


def rows(count: int, seed: int, every: bool = False) -> Rows:
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count, LENGTH) if every else (count,), generator=draw)
    x = torch.randn(count, LENGTH, 2, generator=draw) + (y if every else y[:, None])[..., None]
    return Rows(x, y.masked_fill(torch.rand(y.shape, generator=draw) < 0.2, -100) if every else y)


def data(every: bool = False) -> SequenceData:
    """Four batches of 4 an epoch, 11 steps."""
    parts = {"train": rows(18, 0, every), "test": rows(7, 1, every), "val": rows(7, 2, every)}
    return SequenceData("noise", **parts, d_output=3, batch_size=4, seed=5)


def network(pool: str = "each", dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return SpikingSSM(2, 3, d_model=6, n_layers=1, d_state=4, norm="layer", solver="loop", pool=pool, dropout=dropout)


def resonators() -> nn.Module:
    torch.manual_seed(0)
    return S5RF(2, 3, d_model=8, n_layers=2, num_blocks=2, eta_min=0.05, eta_max=0.5, threshold=0.2)


def module(model: nn.Module, task, **options) -> SequenceModule:
    return SequenceModule(model, task, classes=3, **{"lr": 0.02, "warmup": 0.1, "tbptt": 4, **options})


class Batches(Callback):
    """The batches and the learning rates of a run."""

    def __init__(self) -> None:
        self.seen, self.lrs = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen.append(batch)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.lrs.append(optimizer.param_groups[-1]["lr"])


@given(st.integers(1, 200), st.integers(1, 60), st.booleans())
def test_the_chunks_are_the_whole_sequence_in_order(length, steps, first) -> None:
    """The published code makes an update behind step t where t mod steps is 0, and behind the last."""
    found = spans(length, steps, first)
    assert [t for start, end in found for t in range(start, end)] == list(range(length))
    asked = (lambda t: t % steps == 0) if first else (lambda t: (t + 1) % steps == 0)
    assert [end - 1 for _, end in found] == [t for t in range(length) if asked(t) or t == length - 1]


def test_the_published_number_of_updates() -> None:
    assert [end - start for start, end in spans(784, 50, first=True)] == [1, *[50] * 15, 33]
    assert [end - start for start, end in spans(784, 50)] == [*[50] * 15, 34]


def by_hand(model, task, batches, cuts, lrs, clip=None, skip=0, every=False):
    """The updates written out: loss of a chunk, gradient, clip, AdamW; the losses and how many labels each is of."""
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.02, 0.01))
    slow = min(1e-3 / 0.02, 1.0)
    lrs, losses = iter(lrs), []
    for batch in batches:
        state = None
        for start, end in cuts:
            logits, state = model(batch.x[:, start:end], state)
            if isinstance(task, Classification):
                loss, count = functional.cross_entropy(logits, batch.y), len(batch.y)
            else:
                logits = logits[:, max(0, skip - start) :]
                y = batch.y[:, max(skip, start) : end] if every else batch.y[:, None].expand(logits.shape[:2])
                loss, count = functional.cross_entropy(logits.flatten(0, 1), y.flatten()), int((y != -100).sum())
            if end > skip:
                optimizer.zero_grad()
                loss.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                lr = next(lrs)
                for group in optimizer.param_groups:
                    group["lr"] = lr * (slow if group["name"] == "slow" else 1)
                optimizer.step()
                losses.append((loss.item(), count))
            state = sdn.detach(state)
    return losses


def whole_cosine(step: int, warm: int, steps: int) -> float:
    return (step + 1) / (warm + 1) if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


@pytest.mark.parametrize(
    ("make", "task", "first", "more"),
    [
        (resonators, Classification(), False, {}),
        (resonators, Classification(), True, {}),
        (lambda: network("last"), Classification(), True, {"gradient_clip_val": 0.1}),
        (lambda: network("mean"), Classification(), False, {}),
        (network, EveryStepClassification(), True, {}),
        (network, EveryStepClassification(skip=5), False, {"gradient_clip_val": 0.1}),
        (network, StepClassification(), False, {"gradient_clip_val": 0.1}),
        (network, StepClassification(skip=4), True, {}),
    ],
)
def test_the_updates_are_those_written_out(tmp_path, make, task, first, more) -> None:
    """Guards the number of steps of the schedule, the clipping, the skip and the state between chunks."""
    every = isinstance(task, StepClassification)
    one, watch, skip = module(make(), task, tbptt_first=first), Batches(), getattr(task, "skip", 0)
    loop = fit(one, data(every), tmp_path, seed=0, callbacks=[watch], **{**TRAINER, "max_epochs": 1, **more})
    cuts = [(0, 1), (1, 5), (5, 9), (9, 11)] if first else [(0, 4), (4, 8), (8, 11)]
    steps = 4 * sum(end > skip for _, end in cuts)
    lrs = [0.02 * whole_cosine(i, round(0.1 * steps), steps) for i in range(steps)]
    assert watch.lrs == pytest.approx(lrs)
    assert loop.global_step == steps
    model = make().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = by_hand(model, task, watch.seen, cuts, lrs, more.get("gradient_clip_val"), skip, every)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    for key, value in model.state_dict().items():
        torch.testing.assert_close(last[f"model.{key}"], value, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    mean = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    assert float(table(tmp_path)[0]["train/loss"]) == pytest.approx(mean, rel=1e-5)


def table(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def test_one_chunk_is_the_usual_training(tmp_path) -> None:
    found = []
    for name, size in (("usual", None), ("one", LENGTH)):
        one = module(network(dropout=0.2), EveryStepClassification(), tbptt=size)
        fit(one, data(), tmp_path / name, seed=0, **{**TRAINER, "gradient_clip_val": 0.1})
        found.append(one.state_dict())
    assert table(tmp_path / "usual") == table(tmp_path / "one")
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_the_training_accuracy_is_that_of_the_last_chunk(tmp_path) -> None:
    """A network that says the true class in the last chunk only."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.neuron = nn.Parameter(torch.zeros(1)), sdn.Neuron(sdn.LIF(), 1, solver="loop")

        def forward(self, x, state=None, lengths=None):
            start = 0 if state is None else state
            self.neuron(x)
            late = torch.arange(start, start + x.shape[1]) >= 8
            return 5 * late[:, None] * functional.one_hot(x[..., 0].long(), 3) + self.weight, start + x.shape[1]

    y = torch.arange(12) % 2 + 1
    part = Rows(y[:, None, None].expand(12, LENGTH, 1).float(), y)
    found = SequenceData("late", part, part, part, d_output=3, batch_size=4)
    one = module(Late(), EveryStepClassification(), lr=1e-6)
    fit(one, found, tmp_path, seed=0, **{**TRAINER, "max_epochs": 1})
    assert float(table(tmp_path)[0]["train/accuracy"]) == 1
    one = module(Late(), StepClassification(), lr=1e-6)
    part = Rows(part.x, y[:, None].expand(12, LENGTH))
    found = SequenceData("late", part, part, part, d_output=3, batch_size=4)
    fit(one, found, tmp_path / "steps", seed=0, **{**TRAINER, "max_epochs": 1})
    assert float(table(tmp_path / "steps")[0]["train/accuracy"]) == pytest.approx(3 / 11)


class Killed(BaseException):
    """Stands in for a kill."""


class KillAt(Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Killed


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("at", [(0, 2), (1, 1), (1, 3)])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, schedule, at) -> None:
    options = {"schedule": schedule, "warmup": 0 if schedule == "linear" else 0.1, "tbptt_first": True}
    places = []

    class Watch(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
            places.append((checkpoint["place"]["batch"], trainer.global_step))

    def run(folder, *more, **resume):
        one = module(network(dropout=0.3), EveryStepClassification(), **options)
        every = StepCheckpoint(folder, every_n_steps=5)
        return fit(one, data(), folder, seed=1, callbacks=[every, *more], **TRAINER, **resume)

    run(tmp_path / "whole", Watch())
    inside = [place for place in places if place[0]]
    assert inside == [(2, 8), (3, 12), (1, 20), (3, 28)]  # 4 steps a batch; none behind the last of an epoch
    with pytest.raises(Killed):
        run(tmp_path / "killed", KillAt(*at))
    torch.manual_seed(99)
    assert run(tmp_path / "killed", resume=True).global_step == 32
    for name in ("last", "best"):
        one, other = (load_checkpoint(tmp_path / f / "checkpoints" / f"{name}.ckpt") for f in ("whole", "killed"))
        assert one["global_step"] == other["global_step"]
        assert one["lr_schedulers"] == other["lr_schedulers"]
        assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
        for index, state in one["optimizer_states"][0]["state"].items():
            for key, value in state.items():
                assert torch.equal(value, other["optimizer_states"][0]["state"][index][key])
    assert table(tmp_path / "whole") == table(tmp_path / "killed")
    assert len(table(tmp_path / "whole")) == 2


def test_labels_of_steps_are_cut_and_those_of_sequences_are_not() -> None:
    x, steps, one, soft = torch.rand(2, 6, 1), torch.arange(12).view(2, 6), torch.tensor([0, 1]), torch.rand(2, 3)
    for y, expected in ((steps, steps[:, 2:5]), (one, one), (soft, soft)):
        task, part = chunk(EveryStepClassification(skip=3), Batch(x, y), 2, 5)
        assert (task.skip, part.lengths) == (1, None)
        assert torch.equal(part.x, x[:, 2:5])
        assert torch.equal(part.y, expected)
    assert chunk(EveryStepClassification(skip=3), Batch(x, one), 4, 6)[0].skip == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tbptt": 0}, r"optim\.tbptt must be an integer >= 1 or null, got 0"),
        ({"tbptt": 2.0}, r"optim\.tbptt must be an integer >= 1 or null, got 2.0"),
        ({"ema": 0.9}, r"optim\.ema=0.9 does not go with optim\.tbptt=4"),
    ],
)
def test_options_that_do_not_go(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        module(resonators(), Classification(), **options)


@pytest.mark.parametrize("more", [{"accumulate_grad_batches": 2}, {"precision": "16-mixed"}, {"strategy": "fsdp"}])
def test_what_the_trainer_cannot_do_with_chunks(tmp_path, more) -> None:
    (name, value), *_ = more.items()
    with pytest.raises(ValueError, match=rf"optim\.tbptt=4 does not go with trainer\.{name}={value}"):
        fit(module(resonators(), Classification()), data(), tmp_path, seed=0, **{**TRAINER, **more})


def test_sequences_of_several_lengths_are_refused(tmp_path) -> None:
    part = rows(8, 0)
    part = part._replace(lengths=torch.full((8,), LENGTH))
    found = SequenceData("noise", part, part, part, d_output=3, batch_size=4)
    with pytest.raises(ValueError, match=r"optim\.tbptt=4 needs sequences of one length"):
        fit(module(network(), EveryStepClassification()), found, tmp_path, seed=0, **TRAINER)
