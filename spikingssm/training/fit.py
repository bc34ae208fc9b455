"""Training a sequence model with Lightning: what runs, what is kept, and what survives a kill."""

import contextlib
import copy
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from loguru import logger
from torch import Tensor, nn

from sdn.runs.bar import Bar
from sdn.runs.folder import EpochRecord, WholeCheckpointIO, checkpoints, load_checkpoint, resumable, tensorboard
from sdn.runs.interrupts import interruptible, without_handlers
from sdn.runs.lock import locked
from sdn.runs.resume import Restored, check_training_state
from sdn.runs.weights import misfit, with_fixed
from spikingssm.datasets.base import SequenceData
from spikingssm.measures.activity import Activity
from spikingssm.measures.classes import by_class
from spikingssm.measures.energy import account
from spikingssm.models.base import blocks_of
from spikingssm.processes.distributed import Sharded, as_strategy, from_first, shared_work
from spikingssm.training.callbacks import ResumeState, averaging
from spikingssm.training.module import SequenceModule

__all__ = ["SequenceModule", "check_weights", "fit", "fitting", "make_trainer", "score"]


def fit(
    module: SequenceModule,
    data: SequenceData,
    run_dir: str | Path,
    *,
    seed: int,
    resume: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    **trainer: Any,
) -> lightning.Trainer:
    """Train, writing metrics, TensorBoard and checkpoints to the run folder; then put the best weights into ``module``.

    Args:
        module: model, task and optimiser.
        data: train and validation loaders.
        run_dir: the run folder.
        seed: of the noise in each batch.
        resume: continue behind the last checkpoint; the result equals that of a run that was never stopped.
        loggers: besides TensorBoard.
        callbacks: more of them, such as `StepCheckpoint` and `EarlyStop`.
        trainer: arguments of `lightning.Trainer`; with several devices all but the first write nothing.

    Returns:
        the trainer, with which `score` can run.

    Raises:
        BlockingIOError: another process writes to the folder.
        ValueError: a loss that is not finite, a damaged checkpoint, other data than before, or an unknown
            argument of the trainer.
    """
    if str(trainer.get("precision")).startswith("64"):
        module.double()  # Lightning would do it behind the loading of a checkpoint, which then loses half its digits
    last, best = (Path(run_dir) / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    start: dict[str, Any] = {}
    if resume and (found := resumable(run_dir)) is not None:
        data.first_epoch, data.first_batch = found["place"]["epoch"], found["place"]["batch"]
        for path in (last, best) if data.first_epoch else (last,):
            check_weights(path, module)
        check_training_state(last, found)
        _check_place(last, data)
        _check_data(run_dir, found.get("data"), data)
        logger.info(f"going on in epoch {data.first_epoch + 1} with batch {data.first_batch + 1}")
        start = {"ckpt_path": str(last), "weights_only": True}
    if module.tbptt is not None:
        _take_over(module, trainer)
    strategy = as_strategy(trainer.pop("strategy", "auto"), blocks_of(module.model))
    sharded = isinstance(strategy, Sharded)
    trained = copy.deepcopy(module) if sharded else module  # sharding cuts a module up for good
    restored = Restored(last if start else None)
    own = [restored, ResumeState(seed, data.facts()), EpochRecord(run_dir), *checkpoints(run_dir, *module.task.monitor)]
    own.append(Activity())
    if sharded and module.ema is not None:
        raise ValueError(f"optim.ema={module.ema} does not go with trainer.strategy=fsdp; use ddp, or no averaging.")
    if sharded and not torch.cuda.is_available():
        raise ValueError("trainer.strategy=fsdp needs GPUs and there is none; use trainer.strategy=ddp.")
    if module.ema is not None:
        own.append(averaging(module.ema))
    if shown := trainer.get("enable_progress_bar", True) and sys.stdout.isatty():
        own.append(Bar(refresh_rate=10))
    options = {**trainer, "enable_progress_bar": shown, "default_root_dir": run_dir, "enable_model_summary": False}
    loop = make_trainer(
        strategy=strategy,
        logger=[tensorboard(run_dir), *loggers],
        callbacks=[*own, *callbacks],
        plugins=[WholeCheckpointIO()],
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **options,
    )
    told = shared_work(loop, data.batch_size, torch.get_num_threads(), os.cpu_count() or 1)
    if told is not None and loop.is_global_zero:
        logger.warning(told)
    alone = locked(run_dir) if loop.is_global_zero else contextlib.nullcontext()  # the others share its lock
    with warnings.catch_warnings(), alone, interruptible(loop):
        warnings.filterwarnings("ignore", ".*returned exact zeros")  # `Activity` says more after the first epoch
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # the sampler skips what was trained
        restored.run(lambda: loop.fit(trained, datamodule=data, **start))
    module.load_state_dict(from_first(lambda: check_weights(best, module)))
    whole = {"strategy": "ddp", "logger": False, "enable_checkpointing": False}
    return make_trainer(**whole, **options) if sharded else loop


def _take_over(module: SequenceModule, trainer: dict[str, Any]) -> None:
    """Take the clipping out of the trainer's options, which refuses it where the module steps its optimiser itself."""
    refused = {
        "accumulate_grad_batches": trainer.get("accumulate_grad_batches", 1) != 1,
        "precision": str(trainer.get("precision")) in ("16", "16-mixed"),
        "strategy": trainer.get("strategy") == "fsdp",
    }
    if wrong := [name for name, is_wrong in refused.items() if is_wrong]:
        raise ValueError(
            f"optim.tbptt={module.tbptt} does not go with trainer.{wrong[0]}={trainer[wrong[0]]}; leave that at its "
            "default, or set optim.tbptt=null."
        )
    names = ("gradient_clip_val", "gradient_clip_algorithm")
    module.clipping = {name: value for name in names if (value := trainer.pop(name, None)) is not None}


def _check_place(path: Path, data: SequenceData) -> None:
    """Refuse to go on behind the last batch of an epoch; with several processes an epoch has fewer."""
    batches = len(data.train_rows) // data.batch_size
    if data.first_batch > batches:
        raise ValueError(
            f"{path}: the run is to go on with batch {data.first_batch + 1}, an epoch of these data has {batches}; set "
            "data.root to the same files, or start a new run with another run_dir=."
        )


def _check_data(run_dir: str | Path, known: dict[str, Any] | None, data: SequenceData) -> None:
    """Refuse to go on with other data than those of the run; a checkpoint of an older version does not say."""
    facts = data.facts()
    if known is not None and not isinstance(known, dict):
        raise ValueError(f"the run in {run_dir} says of its data {str(known)[:60]!r}; start a new run with run_dir=.")
    known = known or {}
    if differ := [key for key in facts if key in known and known[key] != facts[key]]:
        raise ValueError(
            f"the run in {run_dir} was trained on data with {differ[0]} {known.get(differ[0])!r}, these have "
            f"{facts[differ[0]]!r}; set data.root to the same files, or start a new run with another run_dir=."
        )


def make_trainer(**options: Any) -> lightning.Trainer:
    """A Lightning trainer; what it refuses comes out as a ValueError of one line."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # no advertisements
    try:
        # the loaders know their process
        return without_handlers(lightning.Trainer(use_distributed_sampler=False, **options))
    except Exception as error:  # Lightning raises what options of another kind make its connectors raise
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from error


def check_weights(path: str | Path, module: nn.Module) -> dict[str, Tensor]:
    """The weights in a checkpoint, if they are those of a module like this one.

    Fixed values that an older checkpoint does not hold are those of the module.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another model, of other kinds of numbers, or NaN or infinite.
    """
    return fitting(path, load_checkpoint(path), module)


def fitting(path: str | Path, content: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """The weights of a checkpoint's content, as `check_weights` gives them.

    Args:
        path: of the checkpoint, for errors.
        content: what `sdn.runs.folder.load_checkpoint` gives.
        module: on any device, also on meta.
    """
    found, own = content.get("state_dict"), module.state_dict()
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no weights; give the folder of a run of `python train.py experiment=...`.")
    found = with_fixed(found, own)
    if (problem := misfit(found, own)) is not None:
        raise ValueError(f"{path}: {problem}; use the checkpoint and the configuration of one run.")
    return found


def score(module: SequenceModule, data: SequenceData, loop: lightning.Trainer) -> dict[str, Any]:
    """The task's metrics, loss, spike rates and energy of ``module`` on the test rows.

    Returns:
        ``accuracy`` or ``perplexity``, ``loss``, ``spike_rate`` over all layers, ``spike_rates`` by layer, and what
        `spikingssm.measures.energy.account` says; ``by_class``, see `spikingssm.measures.classes.by_class`, for
        classifications.
    """
    with interruptible(loop):
        found: Mapping[str, float] = loop.test(module, datamodule=data, verbose=False)[0]
    layers = {name.removeprefix("test/spike_rate/"): rate for name, rate in found.items() if "spike_rate/" in name}
    names = [*module.metrics["test"], "loss", "spike_rate"]
    assert module._spikes is not None
    device = loop.strategy.root_device
    spikes = module._spikes.summed(lambda counts: loop.strategy.reduce(counts.to(device), reduce_op="sum"))
    costs = account(module.model, spikes, sequences=2 if data.pairs else 1)
    # the test has moved the module to the CPU, and processes gather on their devices
    matrix = None if module.confusion is None else module.confusion.to(device).compute()
    classes = {} if matrix is None else {"by_class": by_class(matrix, data.class_names)}
    return {**{name: found[f"test/{name}"] for name in names}, "spike_rates": layers, **costs, **classes}
