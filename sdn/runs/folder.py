"""The run folder that every training here writes: one log, one table of metrics, a best and a last checkpoint.

Needs the extra `train`. Lightning does the work; these are the few pieces in which a run must survive a kill.
"""

import csv
import math
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from loguru import logger

from sdn.checks.finite import Diverged
from sdn.runs.best import RunCheckpoint
from sdn.runs.events import Events
from sdn.runs.files import writing
from sdn.runs.logs import to_stderr
from sdn.runs.resume import check_place
from sdn.runs.shortage import named
from sdn.runs.tensor_files import Damaged, load_tensors, save_tensors

__all__ = [
    "EpochRecord", "StopOnNaN", "WholeCheckpointIO", "checkpoints", "load_checkpoint", "log_to",
    "read_metrics", "resumable", "seed_everything", "tensorboard",
]  # fmt: skip

LARGEST_TABLE = 2**26
"""Bytes of a metrics.csv; an epoch takes some hundred."""

warnings.filterwarnings(
    "ignore", message=".*LeafSpec.*", module="lightning"
)  # Lightning's own, about torch's internals


class EpochRecord(Callback):
    """One row of ``metrics.csv`` and one log line per epoch: what the module logged, seconds and CPU seconds.

    On resume the table is cut back to the restored epoch, so it reads as if the run had never stopped; the seconds of
    an epoch that was interrupted are those of both parts. Of several processes the first one writes.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.path = Path(run_dir) / "metrics.csv"
        self.started, self.before = _clocks(), dict.fromkeys(_clocks(), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Seconds of the epoch so far."""
        return self._passed()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Seconds of the epoch before it was interrupted."""
        self.before = {name: float(state_dict.get(name, 0.0)) for name in self.before}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Cut the table back to the epochs that this run starts after."""
        self.started = {name: now - self.before[name] for name, now in _clocks().items()}  # where an epoch goes on
        if trainer.is_global_zero:
            self._write([row for row in read_metrics(self.path) if row["epoch"] < trainer.current_epoch])

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clocks."""
        self.started = _clocks()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Append this epoch (validation has run by now)."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        values = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        passed = {name: round(seconds, 3) for name, seconds in self._passed().items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **passed, **values}
        self._write([*read_metrics(self.path), row])
        shown = " | ".join(f"{k}: {v:.6f}" for k, v in values.items() if k.count("/") < 2)  # not every layer
        logger.info(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} | {shown} | {passed['seconds']:.1f} s")

    def _passed(self) -> dict[str, float]:
        return {name: now - self.started[name] for name, now in _clocks().items()}

    def _write(self, rows: list[dict[str, Any]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with writing(self.path) as partial, partial.open("w", newline="") as file:
            table = csv.DictWriter(file, columns, restval="")
            table.writeheader()
            table.writerows(rows)


def _clocks() -> dict[str, float]:
    """Seconds on the wall, and of this process on all its cores."""
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint sealed, whole or not at all, on any file system; reads it with all checks.

    Lightning's own may copy onto the final name, and reads flipped bits as they are.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the final name, seal, flush, rename."""
        save_tensors(path, checkpoint)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """What `load_checkpoint` gives; where tensors go and what may be unpickled is not asked."""
        return load_checkpoint(path)


def checkpoints(run_dir: str | Path, monitor: str, mode: str) -> list[RunCheckpoint]:
    """``checkpoints/best.ckpt`` by the monitored validation metric, and ``checkpoints/last.ckpt`` every epoch.

    Args:
        run_dir: the run folder.
        monitor: name of the metric to select by.
        mode: "min" or "max".
    """
    common: dict[str, Any] = {
        "dirpath": Path(run_dir) / "checkpoints",
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    best = RunCheckpoint(filename="best", monitor=monitor, mode=mode, save_top_k=1, **common)
    return [best, RunCheckpoint(filename="last", save_top_k=1, monitor=None, **common)]


def tensorboard(run_dir: str | Path) -> Events:
    """A TensorBoard logger that writes to ``tensorboard/`` of the run folder."""
    return Events(str(run_dir), name="tensorboard", version="")


def log_to(path: str | Path | None) -> int | None:
    """Log to standard error and, appending, to a file; returns the file's handler for `logger.remove`.

    Args:
        path: the file; None logs nothing anywhere, for the second and later of several processes.
    """
    logger.remove()
    if path is None:
        return None
    to_stderr()
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)

    def append(line: str) -> None:
        with (
            named(file),
            file.open("a") as opened,
        ):  # loguru's own files keep what could not be written and fail again when closed
            opened.write(line)

    return logger.add(
        append, format="{time:YYYY-MM-DD HH:mm:ss} | {level: <7} | {message}", level="INFO", catch=False, colorize=False
    )


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``, a cell that was not logged left out; none where there is no file yet."""
    path = Path(path)
    if not path.is_file():
        return []
    if (size := path.stat().st_size) > LARGEST_TABLE:
        raise ValueError(f"{path}: has {size} bytes, at most {LARGEST_TABLE} are read.")
    try:
        with path.open(newline="") as file:
            table = csv.reader(file)
            names = next(table, [])
            if names and "epoch" not in names:
                raise ValueError("has no column 'epoch'; it is not the table of a run")
            return [_numbers(names, row) for row in table if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())[:120]}.") from None


def _numbers(names: Sequence[str], row: Sequence[str]) -> dict[str, float]:
    """The cells of a row of ``metrics.csv`` that are not empty."""
    if len(row) > len(names):
        raise ValueError(f"a row has more cells than there are columns: {str(row[len(names) :])[:40]}")
    found = {name: float(cell) for name, cell in zip(names, row, strict=False) if cell != ""}
    if not (math.isfinite(found.get("epoch", math.nan)) and found["epoch"] >= 0):
        raise ValueError(f"a row has the epoch {found.get('epoch')}, it must be a number from 0")
    return found


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; no object in it is ever executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged in a single bit, or not a checkpoint of tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; start the run again, or give the folder of another one.")
    try:
        found = load_tensors(path)
    except Damaged as error:
        raise ValueError(
            f"{path}: not a readable checkpoint of tensors and plain values ({error}); it is truncated, damaged, or "
            "was written by another program. Delete it to start over."
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds a {type(found).__name__}, a checkpoint holds a dict.")
    return found


def resumable(run_dir: str | Path) -> dict[str, Any] | None:
    """What ``last.ckpt`` of a run holds, or None where there is none yet.

    Its ``place`` is the epoch and the batch that come next, added where a run writes none since it checkpoints after
    whole epochs only. Behind the first epoch ``best.ckpt`` must be readable too.

    Raises:
        FileNotFoundError, ValueError: one of the two is missing or damaged, found before any time is spent.
    """
    last, best = (Path(run_dir) / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    if not last.exists():
        return None
    content = _run_checkpoint(last)
    content.setdefault("place", {"epoch": content["epoch"] + 1, "batch": 0})
    check_place(last, content)
    if content["place"]["epoch"] > 0:
        _run_checkpoint(best)
    return content


def _run_checkpoint(path: Path) -> dict[str, Any]:
    found = load_checkpoint(path)
    epoch = found.get("epoch")
    if (
        not isinstance(epoch, int)
        or isinstance(epoch, bool)
        or epoch < 0
        or not isinstance(found.get("state_dict"), dict)
    ):
        raise ValueError(f"{path}: is not a checkpoint of a run; start the run again in another folder.")
    return found


class StopOnNaN(Callback):
    """End the run with a clear error when a loss is not finite, before it reaches a checkpoint.

    Args:
        metrics: names of the logged losses.
    """

    def __init__(self, *metrics: str) -> None:
        self.metrics = metrics

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the losses of the epoch."""
        for name in self.metrics:
            value = float(trainer.callback_metrics.get(name, 0.0))
            if not math.isfinite(value):
                raise Diverged(
                    f"{name} became {value} in epoch {trainer.current_epoch}; the checkpoints of the epochs before it "
                    "are intact. Lower the learning rate and start again, or look at the data."
                )


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    lightning.seed_everything(seed, workers=True, verbose=False)
