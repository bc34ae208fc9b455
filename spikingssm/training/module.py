"""A model as Lightning trains it: its steps, what is logged, and its optimiser."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from sdn import detach, immediate_checks
from sdn.checks.finite import Diverged, arrived
from spikingssm.datasets.base import Batch
from spikingssm.measures.classes import MOST
from spikingssm.measures.spikes import SpikeRecord, record_spikes
from spikingssm.processes.distributed import SHARD, Sharded, total
from spikingssm.tasks import Outcome, Task, WeightedMean, skip_of
from spikingssm.training.callbacks import averaging
from spikingssm.training.optim import parameter_groups, warmup_cosine
from spikingssm.training.tbptt import chunk, labels_every_step, spans

__all__ = ["SequenceModule"]

STAGES = ("fit", "val", "test")  # a ModuleDict has a method named train
SCHEDULES = ("cosine", "linear")
NAMES = {"fit": "train", "val": "val", "test": "test"}


class SequenceModule(lightning.LightningModule):
    """A model, a task and an optimiser: AdamW with a learning rate that falls to 0 over the real number of steps.

    Logged per epoch: train/ and val/ loss and accuracy, and val/spike_rate in all and per layer; test/ the same.

    Args:
        model: (x (B, L, C), lengths=(B,) or None) -> (logits, state).
        task: loss and metrics.
        classes: number of classes, or of the numbers or labels that are asked for.
        lr: peak learning rate.
        weight_decay: of the weights; none on the rest, see `parameter_groups`.
        warmup: part of all steps with a rising learning rate, in [0, 1).
        schedule: "cosine": linear warm-up, then half a cosine over the steps; "linear": lr * (1 - epoch / epochs),
            constant in each epoch, without warm-up.
        tbptt: steps of a chunk of truncated back-propagation through time, >= 1: each chunk of a batch has its own loss
            and optimiser step, and the state is detached between. The training accuracy of sequence labels is that of
            the last chunks. None goes back through all steps.
        tbptt_first: begin with a chunk of the first step alone, as the published code does.
        betas: of AdamW, each in [0, 1).
        eps: of AdamW, > 0; 1e-8 / T where a published loss is a sum over T steps, since ours is their mean.
        decay_threshold: let the weight decay pull what neurons learn, as the published code does.
        slow_lr: peak learning rate of the slow parameters, > 0; None is ``min(lr, 1e-3)``.
        ema: decay per step of averaged weights that are validated and kept, in (0, 1); None averages nothing.
        carry_state: whether validation and test batches follow one another in one stream, see `SequenceData`.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        classes: int,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        warmup: float = 0.01,
        schedule: str = "cosine",
        tbptt: int | None = None,
        tbptt_first: bool = False,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay_threshold: bool = False,
        slow_lr: float | None = None,
        ema: float | None = None,
        carry_state: bool = False,
    ) -> None:
        super().__init__()
        if not (lr > 0 and weight_decay >= 0 and 0 <= warmup < 1):
            raise ValueError(
                "SequenceModule: lr must be > 0, weight_decay >= 0 and warmup in [0, 1), "
                f"got lr={lr}, weight_decay={weight_decay}, warmup={warmup}."
            )
        if schedule not in SCHEDULES:
            raise ValueError(f"optim.schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}.")
        if schedule == "linear" and warmup:
            raise ValueError(f"optim.schedule=linear has no warm-up, got optim.warmup={warmup}; set optim.warmup=0.")
        if tbptt is not None and not (isinstance(tbptt, int) and tbptt > 0):
            raise ValueError(f"optim.tbptt must be an integer >= 1 or null, got {tbptt!r}.")
        if tbptt is not None and ema is not None:
            raise ValueError(f"optim.ema={ema} does not go with optim.tbptt={tbptt}; set one of them to null.")
        if not (isinstance(betas, Sequence) and len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(f"SequenceModule: betas must be two numbers in [0, 1), got {betas}.")
        if not eps > 0:
            raise ValueError(f"SequenceModule: eps must be > 0, got {eps}.")
        if slow_lr is not None and not slow_lr > 0:
            raise ValueError(f"SequenceModule: slow_lr must be > 0 or null for min(lr, 0.001), got {slow_lr}.")
        self.model, self.task, self.slow_lr = model, task, slow_lr
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.betas, self.eps, self.decay_threshold, self.ema = betas, eps, decay_threshold, ema
        self.schedule, self.tbptt, self.tbptt_first = schedule, tbptt, tbptt_first
        self.automatic_optimization = tbptt is None
        self.clipping: dict[str, Any] = {}  # of chunks; Lightning clips whole batches only
        if ema is not None:
            averaging(ema)  # refuses what is out of range before any time is spent
        self.carry_state = carry_state
        self._state: Any = None
        self.metrics: Any = nn.ModuleDict({stage: nn.ModuleDict(task.metrics(classes)) for stage in STAGES})
        counted = isinstance(task.metrics(classes).get("accuracy"), MulticlassAccuracy) and classes <= MOST
        self.confusion: Any = MulticlassConfusionMatrix(classes, validate_args=False) if counted else None
        self.losses: Any = nn.ModuleDict({stage: _mean() for stage in STAGES})
        self.last_loss: Tensor | None = None
        self._given: tuple[Task, Batch, Any] | Any = None  # what the last loss was made of
        self._open = ExitStack()
        self._spikes: SpikeRecord | None = None
        self.seen: SpikeRecord | None = None  # by all processes in the last validation or test
        self.advice: dict[tuple[str, str], str] = {}  # about layers that are silent or saturated, see `Activity`

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, weighted so that the mean over all processes is the mean over all their labels."""
        if self.tbptt is not None:
            self.last_loss = self._train_chunks(batch)
            return self.last_loss
        self._given = self.task, batch, None
        loss, count = self._score("fit", batch)
        self.last_loss = loss.detach()
        return self._share(loss, count)

    def on_after_backward(self) -> None:
        """Look at the loss and the gradient before they move a weight; that waits for the device, once a step.

        Raises:
            Diverged: a loss that is not finite, a neuron that diverged, or a gradient that is not finite, of a loss
                that is; no checkpoint has seen it.
        """
        assert self.last_loss is not None
        found = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        good = [torch.isfinite(self.last_loss)]
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # of 16-mixed, which leaves out such steps
            norm = torch.nn.utils.get_total_norm(found.values())
            good.append(torch.isfinite(total(norm) if isinstance(self.trainer.strategy, Sharded) else norm))
        loss_is, *gradient_is = torch.stack([flag.to(good[0].device) for flag in good]).tolist()
        self._look_at_layers(loss_is)
        if not loss_is:
            raise Diverged(
                f"train/loss became {self.last_loss.item()} in step {self.global_step + 1}; the checkpoints of the "
                "steps before are intact. Lower optim.lr and start again, or look at the data."
            )
        if all(gradient_is):
            return
        norms = {name: float(torch.linalg.vector_norm(gradient)) for name, gradient in found.items()}
        name = max(norms, key=lambda key: math.inf if math.isnan(norms[key]) else norms[key])
        raise Diverged(
            f"the gradient of {name.replace(SHARD, '')} has a norm of {norms[name]:.3g}, too much in all, in step "
            f"{self.global_step + 1}, and its loss is finite; the checkpoints of the steps before are intact. Lower "
            "optim.lr, clip earlier gradients with trainer.gradient_clip_val=1, or start the neurons otherwise."
        )

    def _look_at_layers(self, loss_is_finite: bool) -> None:
        """Raise what the layers' checks have found meanwhile; the batch runs again, to name the step and the neuron."""
        found = None
        try:
            arrived(wait=True)
        except Diverged as error:
            found = error
        if found is not None or not loss_is_finite:
            task, batch, state = self._given
            with torch.no_grad(), immediate_checks():
                task.run(self.model, batch, state)
        if found is not None:
            raise found

    def on_train_start(self) -> None:
        """Take the learning rate of the schedule; a checkpoint brings that of its run, which may have been shorter."""
        schedule: Any = self.lr_schedulers()
        for group, factor, lr in zip(
            schedule.optimizer.param_groups, schedule.lr_lambdas, schedule.base_lrs, strict=True
        ):
            group["lr"] = lr * factor(schedule.last_epoch)

    def on_train_epoch_end(self) -> None:
        """Step the schedule of epochs, which Lightning leaves to a module that steps its optimiser itself."""
        if self.tbptt is not None and self.schedule == "linear":
            schedule: Any = self.lr_schedulers()
            schedule.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the validation metrics."""
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the test metrics."""
        self._score("test", batch)

    def on_validation_epoch_start(self) -> None:
        """Start counting spikes."""
        self._start_counting()

    def on_test_epoch_start(self) -> None:
        """Start counting spikes and classes."""
        if self.confusion is not None:
            self.confusion.reset()
        self._start_counting()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics and the spike rates."""
        arrived(wait=True)
        self.log_metrics("val")
        self._log_rates("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics and the spike rates."""
        arrived(wait=True)
        self.log_metrics("test")
        self._log_rates("test")

    def configure_optimizers(self) -> Any:
        """AdamW on `parameter_groups`; `warmup_cosine` per step, or a linear fall per epoch."""
        groups = parameter_groups(self.model, self.lr, self.weight_decay, self.decay_threshold, self.slow_lr)
        optimizer = torch.optim.AdamW(groups, betas=(self.betas[0], self.betas[1]), eps=self.eps)
        trainer: Any = self.trainer  # fitting sets its datamodule and its epochs
        if self.schedule == "linear":
            epochs = trainer.max_epochs
            falling = LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / epochs))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "epoch"}}
        steps = int(trainer.estimated_stepping_batches)
        if self.tbptt is not None:
            steps *= len(self._updates(trainer.datamodule.length))
        warm = round(self.warmup * steps)
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warm, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Lightning's; the norm of a sharded model is taken over all its parts."""
        if isinstance(self.trainer.strategy, Sharded) and gradient_clip_val:
            sharded: Any = self.trainer.model
            sharded.clip_grad_norm_(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def log_metrics(self, stage: str) -> None:
        """Log loss and metrics of a stage (fit, val or test) over all its batches and processes; at the epoch's end."""
        for name, metric in self._metrics(stage).items():
            self.log(f"{NAMES[stage]}/{name}", metric, on_step=False, on_epoch=True, batch_size=1)

    def running(self) -> dict[str, dict[str, Any]]:
        """The training metrics of this process over the epoch so far: metric -> name of a sum -> tensor."""
        return {name: dict(metric.metric_state) for name, metric in self._metrics("fit").items()}

    def go_on_from(self, running: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `running` gave."""
        for name, metric in self._metrics("fit").items():
            for key, value in running[name].items():
                setattr(metric, key, move_data_to_device(value, metric.device))

    def _metrics(self, stage: str) -> dict[str, Metric]:
        return {"loss": self.losses[stage], **dict(self.metrics[stage].items())}

    def _score(self, stage: str, batch: Batch) -> tuple[Tensor, int]:
        carry = self.carry_state and stage != "fit"
        found = self.task.run(self.model, batch, self._state if carry else None, training=stage == "fit")
        self._state = found.state if carry else None
        self.losses[stage].update(found.loss.detach(), found.count)
        self._update(stage, found)
        return found.loss, found.count

    def _update(self, stage: str, found: Outcome) -> None:
        for metric, values in found.updates.items():
            self.metrics[stage][metric].update(*values)
        if stage == "test" and self.confusion is not None:
            self.confusion.update(*found.updates["accuracy"])

    def _share(self, loss: Tensor, count: int) -> Tensor:
        """The loss of this process -> its share of that of all."""
        if self.trainer.world_size == 1:
            return loss
        labels = total(torch.tensor(count, dtype=torch.float64, device=loss.device)).clamp(min=1)
        return loss * (self.trainer.world_size * count / labels).to(loss.dtype)

    def _updates(self, length: int) -> list[tuple[int, int]]:
        """The chunks of a sequence that have a loss."""
        assert self.tbptt is not None
        return [span for span in spans(length, self.tbptt, self.tbptt_first) if span[1] > skip_of(self.task)]

    def _train_chunks(self, batch: Batch) -> Tensor:
        """One optimiser step a chunk; the mean loss over all labels."""
        if batch.lengths is not None:
            raise ValueError(
                f"optim.tbptt={self.tbptt} needs sequences of one length, these have lengths; set optim.tbptt=null."
            )
        assert self.tbptt is not None
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        length, skip = batch.x.shape[1], skip_of(self.task)
        every, state, mean = labels_every_step(batch), None, _mean().to(batch.x.device)
        for start, end in spans(length, self.tbptt, self.tbptt_first):
            task, part = chunk(self.task, batch, start, end)
            if end <= skip:
                with torch.no_grad():
                    state = self.model(part.x, state, lengths=None)[1]
                continue
            self._given = task, part, state
            found = task.run(self.model, part, state)
            self.last_loss = found.loss.detach()
            optimizer.zero_grad()
            self.manual_backward(self._share(found.loss, found.count))
            self.clip_gradients(optimizer, **self.clipping)
            optimizer.step()
            if self.schedule == "cosine":
                schedule.step()
            state = detach(found.state)
            for metric in (mean, self.losses["fit"]):
                metric.update(found.loss.detach(), found.count)
            if every or end == length:
                self._update("fit", found)
        return mean.compute()

    def _start_counting(self) -> None:
        self._state = None
        self._open.close()
        self._spikes = self._open.enter_context(record_spikes(self.model))

    def _log_rates(self, stage: str) -> None:
        self._open.close()
        assert self._spikes is not None
        spikes = self._spikes.summed(lambda counts: total(counts.to(self.device)))
        self.seen = spikes
        rates = {
            "": spikes.total_rate,
            **{f"/{name.replace(SHARD, '')}": rate for name, rate in spikes.rates().items()},
        }
        self.log_dict({f"{stage}/spike_rate{name}": rate for name, rate in rates.items()}, sync_dist=True)


def _mean() -> WeightedMean:
    dtype = torch.float32 if torch.backends.mps.is_available() else torch.float64  # there are no doubles on MPS
    mean = WeightedMean()
    mean.set_dtype(dtype)  # and gives it back
    return mean
