"""What a checkpoint must hold so that a run can go on from it: looked at before any time is spent."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

__all__ = ["Restored", "check_place", "check_training_state"]

WAY_OUT = "start the run again in another folder"


class Restored(Callback):
    """Whether the trainer has taken over a checkpoint; what is raised before that is the fault of the checkpoint.

    On the way it looks at what only the trainer can tell. Each optimiser, schedule and choice of the best epoch must
    have its state, which Lightning would begin anew without a word. Moments must have the shapes of their weights.

    Args:
        path: of the checkpoint, for errors; None where nothing is restored.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path, self.done, self.parts = path, path is None, {"optimizer": 0, "schedule": 0}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Look at the callbacks, and remember how many optimisers there are."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and not checkpoint["callbacks"].get(callback.state_key):
                raise ValueError(f"{self.path}: holds no state of {callback.state_key[:60]}; {WAY_OUT}.")
        self.parts = {"optimizer": len(checkpoint["optimizer_states"]), "schedule": len(checkpoint["lr_schedulers"])}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look at the optimisers."""
        there = {"optimizer": len(trainer.optimizers), "schedule": len(trainer.lr_scheduler_configs)}
        if self.path is not None and self.parts != there:
            raise ValueError(f"{self.path}: holds the states {self.parts}, this run has {there}; {WAY_OUT}.")
        for optimizer in trainer.optimizers if self.path is not None else ():
            for weight, state in optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
                        raise ValueError(
                            f"{self.path}: the optimiser's {name} is {tuple(value.shape)}, its weight is "
                            f"{tuple(weight.shape)}; {WAY_OUT}."
                        )
        self.done = True

    def run(self, fit: Callable[[], None]) -> None:
        """Call ``fit``.

        Raises:
            ValueError: one line, for anything that goes wrong while the checkpoint is taken over.
        """
        try:
            fit()
        except (OSError, NotImplementedError, ValueError):
            raise
        except Exception as error:  # Lightning, callbacks and optimisers raise what wrong values make them raise
            if self.done:
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise ValueError(f"{self.path}: the run cannot go on from it ({reason}); {WAY_OUT}.") from error


def check_place(path: str | Path, content: dict[str, Any]) -> None:
    """Refuse a ``place`` that is not an epoch and a batch of the run, or not the one behind the checkpoint's epoch."""
    place, epoch = content["place"], content["epoch"]
    fits = isinstance(place, dict) and set(place) == {"epoch", "batch"} and all(map(_is_count, place.values()))
    if not fits or place["epoch"] not in (epoch, epoch + 1):
        raise ValueError(
            f"{path}: its place is {str(place)[:80]}, it must be an epoch ({epoch} or {epoch + 1}) and a batch from 0; "
            f"{WAY_OUT}."
        )


def check_training_state(path: str | Path, content: dict[str, Any]) -> None:
    """Refuse a checkpoint without what Lightning restores beside the weights, or with other kinds of values there.

    Raises:
        ValueError: a part that is missing or of another form, or another version of Lightning.
    """
    if (problem := _problem(content)) is not None:
        raise ValueError(f"{path}: {problem}; {WAY_OUT}.")


def _problem(content: dict[str, Any]) -> str | None:
    version: Any = content.get("pytorch-lightning_version")
    ours: str = lightning.__version__
    parts, known = (re.match(r"\d+\.\d+(?!\d)", str(found)) for found in (version, ours))
    if not parts or not known or parts[0] != known[0]:
        return f"it was written by Lightning {str(version)[:20]}, this is {ours} (install that version to go on)"
    if not _is_count(content.get("global_step")):
        return f"its global_step is {str(content.get('global_step'))[:40]}, it must be an integer from 0"
    forms: dict[str, type] = {"optimizer_states": list, "lr_schedulers": list, "callbacks": dict, "loops": dict}
    for name, kind in forms.items():
        found: Any = content.get(name)
        inner = found.values() if isinstance(found, dict) else found
        if not isinstance(found, kind) or not all(isinstance(value, dict) for value in inner):
            return f"its {name} are no {kind.__name__} of dicts"
    for state in content["optimizer_states"]:
        if not _is_optimizer(state):
            return "its optimizer_states are not those of an optimiser"
    if not _is_progress(content["loops"]):
        return "its loops hold something else than counts"
    return None


def _is_optimizer(state: dict[str, Any]) -> bool:
    groups, moments = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not isinstance(moments, dict):
        return False
    if not all(
        isinstance(g, dict) and isinstance(g.get("params"), list) and all(map(_is_count, g["params"])) for g in groups
    ):
        return False
    values = [value for moment in moments.values() for value in (moment.values() if isinstance(moment, dict) else "?")]
    return all(isinstance(value, (Tensor, float, int)) for value in values) and all(map(_is_count, moments))


def _is_progress(loops: Any) -> bool:
    """Whether nested dicts hold nothing but counts, switches and finite numbers."""
    if isinstance(loops, dict):
        return all(isinstance(name, str) and _is_progress(value) for name, value in loops.items())
    if isinstance(loops, (list, tuple)):
        return all(_is_progress(value) for value in loops)
    return loops is None or _is_count(loops) or isinstance(loops, bool) or _is_finite(loops)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
