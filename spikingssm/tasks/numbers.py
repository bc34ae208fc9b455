"""Numbers: one or several for a sequence, or for every step of it, and the next step of a series."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from spikingssm.datasets.base import Batch, SequenceData
from spikingssm.datasets.inputs import Audio, Numbers
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.targets import NumberTargets
from spikingssm.tasks.base import Outcome
from spikingssm.tasks.metrics import Determination, wide
from spikingssm.tasks.pooled import check_skip, counted, pooled

__all__ = ["Forecast", "Regression"]

LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}
SELECT = {name: (f"val/{name}", "min") for name in ("loss", "mse", "mae")} | {"r2": ("val/r2", "max")}


@dataclass(frozen=True)
class Regression:
    """Numbers for a sequence or for every step; the mean squared error, the mean absolute error and R2.

    The network learns targets that are standardised with the mean and the standard deviation of the training rows, and
    the loss is of these. The metrics are in the units of the data where `told` has named the data, as `train.py` does,
    and so are the numbers that `load_model` predicts. A missing target (NaN) and steps behind the end of a sequence do
    not count. Where a network answers at every step and a sequence has one target, the answer is the mean over the
    steps behind ``skip``.

    Args:
        loss: "mse", the squared error; "mae", the absolute one; or "huber", squared up to one standard deviation.
        skip: the first so many steps are left out, counted from the start of the x that is given.
        select: what of the validation chooses the best epoch: "loss", "mse", "mae" or "r2".
        asked: the targets of the data, which `told` fills in.

    Raises:
        ValueError: an unknown loss or select, or a skip that is no number of steps.
    """

    targets: ClassVar[str] = "numbers"
    loss: str = "mse"
    skip: int = 0
    select: str = "loss"
    asked: NumberTargets | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        for option, value, known in (("loss", self.loss, LOSSES), ("select", self.select, SELECT)):
            if value not in known:
                raise ValueError(f"{name}: {option} must be one of {', '.join(known)}, got {value!r}.")
        check_skip(name, self.skip)
        if self.asked is not None and not isinstance(self.asked, NumberTargets):
            raise ValueError(f"{name}: asked is filled in by the data, got {self.asked!r:.40}; leave it out.")

    @property
    def monitor(self) -> tuple[str, str]:
        """The logged metric that chooses the best epoch, and "max" or "min"."""
        return SELECT[self.select]

    def with_data(self, interface: Interface, data: SequenceData | None = None) -> Self:
        """See `spikingssm.tasks.base.told`; data with other targets are refused elsewhere."""
        return replace(self, asked=interface.targets if isinstance(interface.targets, NumberTargets) else None)

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`; ``count`` is the number of targets that are there."""
        every, state = model(batch.x, state, lengths=batch.lengths)
        answers, y, known = self.scored(every, batch)
        far, near = answers[known], y[known]  # (K,)
        loss = LOSSES[self.loss](far, near, reduction="sum") / max(1, len(near))
        return Outcome(loss, len(near), state, self._updates(answers, y, known))

    def answer(self, logits: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits (B, L, D) for targets of a sequence -> their means over the steps, (B, D); others as they are.

        Raises:
            ValueError: a skip that leaves nothing of a sequence.
        """
        return (
            logits if logits.ndim == 2 or self._of_steps() else pooled(type(self).__name__, logits, lengths, self.skip)
        )

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Answers and targets, and whether a target is there: (M, D) each, of M sequences or steps.

        Args:
            logits: (B, D) or (B, L, D).
            batch: with y (B, D) or (B, L, D), standardised.

        Raises:
            ValueError: answers of another shape than the targets, or a skip that leaves nothing.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        y = batch.y.to(logits.dtype)
        if y.ndim == 2 and logits.ndim == 3 and len(y) == len(logits) and y.shape[-1] == logits.shape[-1]:
            logits = pooled(type(self).__name__, logits, batch.lengths, self.skip)
        if y.shape != logits.shape or y.ndim not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: targets (B, D) or (B, L, D) need answers of the same shape, got "
                f"{tuple(logits.shape)} for {tuple(y.shape)}; targets at every step need model.pool=each."
            )
        if y.ndim == 2:
            return logits, y, ~y.isnan()
        check_skip(type(self).__name__, self.skip, y.shape[1])
        there = counted(y.shape[1], batch.lengths, self.skip, y.device).expand(y.shape[:2])  # (B, L)
        return logits[there], y[there], ~y[there].isnan()

    def metrics(self, classes: int) -> dict[str, Metric]:
        """``mse`` and ``mae`` in the units of the data, and ``r2``."""
        return {"mse": wide(MeanSquaredError()), "mae": wide(MeanAbsoluteError()), "r2": wide(Determination(classes))}

    def _updates(self, answers: Tensor, y: Tensor, known: Tensor) -> dict[str, tuple[Tensor, ...]]:
        std = self._std(y)  # in double precision, since squares of small and large units leave float32
        both = (answers.detach().to(std.dtype) * std)[known], (y.to(std.dtype) * std)[known]  # in units of the data
        return {"mse": both, "mae": both, "r2": (answers.detach(), y, known)}

    def _std(self, y: Tensor) -> Tensor:
        dtype = torch.float32 if y.device.type == "mps" else torch.float64
        return torch.as_tensor((1.0,) if self.asked is None else self.asked.std, dtype=dtype, device=y.device)

    def _of_steps(self) -> bool:
        return self.asked is not None and self.asked.steps


@dataclass(frozen=True)
class Forecast(Regression):
    """A series some steps later, at every step: the errors of `Regression`, and that of saying "the same as now".

    The targets are x itself, ``horizon`` steps later, in the units of the data. Steps whose target lies behind the end
    of the row do not count. The network must not see the future, so it is no bidirectional one.

    Args:
        horizon: steps ahead, >= 1.
        loss: see `Regression`, as are the others.

    Raises:
        ValueError: as in `Regression`, or a horizon that is no number of steps.
    """

    targets: ClassVar[str] = "next"
    labels: ClassVar[str] = "step"
    answers: ClassVar[str] = "step"
    horizon: int = 1
    now: tuple[tuple[float, ...], tuple[float, ...]] | None = field(default=None, repr=False)
    """Factor and offset that make of x, as the network reads it, what it would answer by "the same as now"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.horizon) is not int or self.horizon < 1:
            raise ValueError(f"Forecast: horizon must be an integer >= 1, got {self.horizon!r}; see task.horizon.")

    def with_data(self, interface: Interface, data: SequenceData | None = None) -> Self:
        """See `spikingssm.tasks.base.told`."""
        found, asked = super().with_data(interface, data), interface.targets
        if isinstance(asked, NumberTargets) and asked.horizon not in (0, self.horizon):
            raise ValueError(
                f"task.horizon is {self.horizon} and the targets of {interface.name} are {asked.horizon} steps later; "
                "leave data.horizon out."
            )
        if not isinstance(asked, NumberTargets) or not isinstance(interface.inputs, (Numbers, Audio)):
            return found
        gain, offset = interface.inputs.undone(interface.d_input)
        factor = tuple(g / s for g, s in zip(gain, asked.std, strict=True))
        shift = tuple((o - m) / s for o, m, s in zip(offset, asked.mean, asked.std, strict=True))
        return replace(found, now=(factor, shift))

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`; ``count`` is the number of targets that are there."""
        found = super().run(model, batch, state, training)
        if self.now is None:
            return found
        factor, shift = (torch.as_tensor(part, dtype=batch.x.dtype, device=batch.x.device) for part in self.now)
        same, y, known = self.scored(batch.x * factor + shift, batch)
        return found._replace(updates={**found.updates, "naive_mse": self._updates(same, y, known)["mse"]})

    def metrics(self, classes: int) -> dict[str, Metric]:
        """Those of `Regression`, and ``naive_mse``, the error of a forecast that says "the same as now"."""
        return {**super().metrics(classes), "naive_mse": wide(MeanSquaredError())}
