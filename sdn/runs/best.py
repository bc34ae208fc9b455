"""Which epoch of a run is kept as its best."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

__all__ = ["RunCheckpoint", "best_of"]


def best_of(rows: Sequence[Mapping[str, float]], monitor: str, mode: str) -> int:
    """The place of the epoch that `RunCheckpoint` keeps: the best score, of equal ones the lowest ``val/loss``.

    Args:
        rows: metrics of each epoch, all of them with the monitored one.
        monitor: its name.
        mode: "min" or "max".
    """
    sign = 1 if mode == "max" else -1
    return max(range(len(rows)), key=lambda i: (sign * rows[i][monitor], -rows[i].get("val/loss", 0.0)))


class RunCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint callback, which also remembers its best score after the run folder has moved.

    Of epochs with the same score it keeps that of the lowest ``val/loss``: a few validation rows, or uneven classes,
    give the same accuracy to a network that has not learned yet and to one that has.
    """

    best_loss: float | None = None

    def check_monitor_top_k(self, trainer: Any, current: Tensor | None = None) -> bool:
        """Whether this epoch is the best so far."""
        better = super().check_monitor_top_k(trainer, current)
        loss = trainer.callback_metrics.get("val/loss")
        tied = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        if not better and tied and loss is not None and self.best_loss is not None:
            better = bool(trainer.strategy.reduce_boolean_decision(float(loss) < self.best_loss))
        if better:
            self.best_loss = None if loss is None else float(loss)
        return better

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, and the loss of the best epoch."""
        return {**super().state_dict(), "best_loss": self.best_loss}

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Set up, without the warning that a resumed run has checkpoints already."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*exists and is not empty")
            super().setup(*args, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the saved state with its paths put into today's folder."""
        here = Path(self.dirpath or ".")
        moved = dict(state_dict, dirpath=self.dirpath)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[key] = str(here / Path(state_dict[key]).name) if state_dict[key] else ""
        moved["best_k_models"] = {str(here / Path(k).name): v for k, v in state_dict["best_k_models"].items()}
        super().load_state_dict(moved)
        # Lightning forgets it, and the next checkpoint would differ from that of a run that nobody stopped
        self.current_score = state_dict.get("current_score")
        self.best_loss = state_dict.get("best_loss")
