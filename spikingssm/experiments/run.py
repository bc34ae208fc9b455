"""From overrides on a command line to a run folder, and back to its results."""

import argparse
import contextlib
import inspect
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from loguru import logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from sdn import SpikingLayer
from sdn.runs.files import versions, write_json, writing
from sdn.runs.folder import load_checkpoint, log_to, read_metrics, seed_everything
from sdn.runs.lock import locked
from sdn.runs.signals import explained
from spikingssm.datasets import SequenceData
from spikingssm.experiments.config import call, load
from spikingssm.experiments.consistency import check_together, check_tokens_are_read
from spikingssm.experiments.ending import go_on, quoted, remembered
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.figures import learning_curve, raster
from spikingssm.experiments.launch import Job, launch, split
from spikingssm.experiments.outcome import failure, tell
from spikingssm.experiments.runfolder import check_sizes, keep_artifact, keep_fitted, solver_name, start_from
from spikingssm.experiments.variants import folder_label, sweep, variant
from spikingssm.measures.activity import state_of
from spikingssm.measures.spikes import spikes_of
from spikingssm.processes.distributed import first_process, leave
from spikingssm.training.callbacks import EarlyStop, StepCheckpoint
from spikingssm.training.fit import SequenceModule, fit, fitting, score
from spikingssm.training.loggers import more_loggers

__all__ = ["build", "evaluate", "load", "main", "quiet", "run"]

OURS = {  # what a run sets itself, and what would leave it without checkpoints or validation
    "barebones", "callbacks", "check_val_every_n_epoch", "default_root_dir", "enable_checkpointing",
    "enable_model_summary", "fast_dev_run", "limit_val_batches", "log_every_n_steps", "logger", "max_steps", "max_time",
    "num_sanity_val_steps", "plugins", "use_distributed_sampler", "val_check_interval",
}  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Do what a command line asks for: ``experiment=spikingssm/digits seed=1``, ``--cfg job``, ``--multirun seed=0,1``.

    Args:
        argv: overrides and options, without the program's name.

    Raises:
        ValueError, OSError, NotImplementedError, ImportError: with one line that says the way out.
        SystemExit: runs of a sweep have failed; the others have run nevertheless.
    """
    parser = argparse.ArgumentParser("train.py", description="Train a network as an experiment says.")
    parser.add_argument("overrides", nargs="*", help="experiment=..., +tier=smoke, key=value, resume=RUN_FOLDER")
    parser.add_argument("--cfg", "-c", choices=["job"], help="print the resolved configuration and stop")
    parser.add_argument("--multirun", "-m", action="store_true", help="one run for each combination of key=a,b")
    given = parser.parse_intermixed_args(list(argv))
    quiet()
    own, launcher = split(given.overrides)
    if launcher and not given.multirun:
        raise ValueError(
            f"{launcher[0]} is for sweeps; use it with --multirun, e.g. --multirun {launcher[0]} seed=0,1."
        )
    jobs, configs = [], []
    for overrides, label in list(sweep(own, given.multirun)):
        configs.append(load(overrides))
        if label := folder_label(overrides, label):
            configs[-1].run_dir = f"{configs[-1].run_dir}-{label}"
        jobs.append(Job(overrides, configs[-1].run_dir))
    if twice := [job.run_dir for i, job in enumerate(jobs) if job.run_dir in [other.run_dir for other in jobs[:i]]]:
        raise ValueError(f"two runs of this sweep would write to {twice[0]}; put ${{seed}} or ${{name}} into run_dir.")
    if given.cfg:
        for config in configs:
            print(OmegaConf.to_yaml(config, resolve=True), end="")
    elif launcher:
        launch(jobs, launcher)
    elif given.multirun:
        _sweep(configs, jobs)
    else:
        run(configs[0], variant(jobs[0].overrides))


def _sweep(configs: Sequence[DictConfig], jobs: Sequence[Job]) -> None:
    """One run after another; one that fails does not stop the next."""
    failed: dict[str, str] = {}
    for config, job in zip(configs, jobs, strict=True):
        why = failure(partial(run, config, variant(job.overrides)))
        if why is not None:
            failed[job.run_dir] = why
            logger.error(f"{job.run_dir}: {why}")
    tell(failed, len(jobs))


def quiet() -> None:
    """Leave out what Lightning says to everybody."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*(LeafSpec|does not have many workers).*")


def run(config: DictConfig, changed: str = "") -> Path:
    """Train, test the best checkpoint once, and write the run folder.

    Args:
        config: as `load` gives it.
        changed: what makes it another run than its experiment, for the summary's ``variant``; see `config.variant`.

    Returns:
        the run folder: config.yaml, run.log, metrics.csv, tensorboard/, checkpoints/, summary.json, figures/.

    Raises:
        FileExistsError: the folder already holds a checkpoint and ``resume`` is not set.
        BlockingIOError: another process writes there, see `sdn.runs.lock`.
        ValueError, OSError, NotImplementedError, ImportError: what data, model and training refuse.
    """
    folder, resume = Path(config.resume or config.run_dir), config.resume is not None
    if resume and (folder / "summary.json").is_file():
        logger.info(f"{folder} is finished; its results are in summary.json")
        with contextlib.suppress(OSError), locked(folder):  # which removes the lock of a process that was killed there
            pass
        return folder
    with contextlib.ExitStack() as open_here:
        open_here.enter_context(explained(lambda: go_on(folder)))
        if first_process():  # the others of one training share its lock
            open_here.enter_context(locked(folder, "choose another run_dir=FOLDER"))
            if not resume:
                _refuse_held(folder)
            open_here.enter_context(remembered(folder))
        _run(config, folder, resume, changed)
        leave()
    return folder


def _refuse_held(folder: Path) -> None:
    """Raise where a folder holds a run."""
    if (folder / "checkpoints" / "last.ckpt").is_file():
        finished = " That run is finished, see its summary.json." if (folder / "summary.json").is_file() else ""
        raise FileExistsError(
            f"{folder} holds a checkpoint; continue with resume={quoted(folder)}, or start elsewhere with "
            f"run_dir=FOLDER.{finished}"
        )


def _run(config: DictConfig, folder: Path, resume: bool, changed: str) -> None:
    config = OmegaConf.merge(config, {"run_dir": str(folder), "resume": None})
    OmegaConf.resolve(config)
    writes = first_process()
    last = folder / "checkpoints" / "last.ckpt"
    first = start_from(config) if config.get("weights") is not None else None
    data, module = build(config, last if resume and last.is_file() else first)
    keep_fitted(config, data.fitted)
    if writes:
        keep_artifact(config, module, folder)
    callbacks, loggers = _callbacks(config, module, folder), _loggers(config, folder)
    command, changed = _header(folder, resume, changed)
    if writes:
        with writing(folder / "config.yaml") as partial:
            partial.write_text(f"# {command}\n# variant: {changed}\n{OmegaConf.to_yaml(config)}")
        if not resume:
            (folder / "metrics.csv").unlink(missing_ok=True)
    handler = log_to(folder / "run.log" if writes else None)
    try:
        facts = ", ".join(f"{key} {value}" for key, value in data.facts().items() if "digest" not in key)
        logger.info(f"{folder} | {facts} | {_count(module)} parameters")
        if first is not None and not resume:
            logger.info(f"starting from the weights in {first}")
        more = {"callbacks": callbacks, "loggers": loggers, **_trainer(config)}
        loop = fit(module, data, folder, seed=config.seed, resume=resume, **more)
        found = score(module, data, loop)
        if writes:
            _report(folder, config, module, data, loop, {"test": found, "command": command, "variant": changed})
    finally:
        for other in loggers if writes else ():
            other.experiment.finish()
        if handler is not None:
            logger.remove(handler)


def _report(
    folder: Path, config: DictConfig, module: SequenceModule, data: SequenceData, loop: Trainer, known: dict[str, Any]
) -> None:
    """Write what a finished run leaves, and say how it ended."""
    _draw(folder, module, data)
    write_json(folder / "summary.json", {**_summary(folder, config, module, data, loop), **known})
    found = known["test"]
    quality = " | ".join(f"test {name} {found[name]:.4f}" for name in module.metrics["test"])
    logger.info(f"{folder}/summary.json | {quality} | spikes {found['spike_rate']:.4f}")
    for layer, rate in found["spike_rates"].items():
        if state := state_of(rate):
            way = module.advice.get(layer, "look at the scale of the data and at its threshold")
            logger.warning(f"{layer}: {state} to the end, spike rate {rate:.4f} on the test rows; {way}")


def _header(folder: Path, resume: bool, changed: str) -> tuple[str, str]:
    """Command and variant of this run; of a resumed one those that began it, the first lines of its configuration."""
    known = folder / "config.yaml"
    first = known.read_text().splitlines()[:2] if resume and known.is_file() else []
    if len(first) == 2 and first[0].startswith("# "):
        return first[0].removeprefix("# "), first[1].removeprefix("# variant: ") if first[1][:1] == "#" else ""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]), changed


def _callbacks(config: DictConfig, module: SequenceModule, folder: Path) -> list[Callback]:
    """What ``checkpoint`` and ``early_stop`` ask for; the run folder of an older version has neither."""
    often, stop = config.get("checkpoint") or {}, config.get("early_stop") or {}
    _check_keys("checkpoint", often, StepCheckpoint, {"run_dir"})
    _check_keys("early_stop", stop, EarlyStop, {"monitor", "mode"})
    found: list[Callback] = [StepCheckpoint(folder, **often)]
    if stop.get("patience") is not None:
        found.append(EarlyStop(*module.task.monitor, **stop))
    return found


def _loggers(config: DictConfig, folder: Path) -> list[Logger]:
    asked = config.get("logger") or {}
    _check_keys("logger", asked, more_loggers, {"run_dir", "config"})
    return more_loggers(folder, OmegaConf.to_container(config, resolve=True), **asked)  # type: ignore[arg-type]


def build(config: DictConfig, weights: str | Path | None = None) -> tuple[SequenceData, SequenceModule]:
    """The data and the module of a configuration; the weights are drawn from its seed, or those of a checkpoint.

    Args:
        config: as `load` gives it, or as it stands in a run folder.
        weights: a checkpoint. It is read first, and the sizes of the model are compared with it before memory is taken.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError, OSError, NotImplementedError, ImportError: what data and model refuse, an unknown key, or weights of
            another model.
    """
    content = None if weights is None else load_checkpoint(weights)
    known = content is not None and check_sizes(weights, config, content.get("state_dict"))
    _check_keys("optim", config.optim, SequenceModule, {"model", "task", "classes", "carry_state"})
    _check_keys("trainer", config.trainer, Trainer, OURS)
    _check_numbers(config)
    data = call("data", config.data)
    if not isinstance(data, SequenceData):
        raise ValueError(f"data: {config.data._target_} gives a {type(data).__name__}, it must give a SequenceData.")
    if known:
        with torch.device("meta"):
            fitting(weights, content, _module(config, data))
    seed_everything(config.seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    module = _module(config, data)
    module = module.double() if str(config.trainer.get("precision")).startswith("64") else module
    if content is not None:
        module.load_state_dict(fitting(weights, content, module))
    return data, module


def _check_numbers(config: DictConfig) -> None:
    """Refuse a seed, threads or epochs that are none."""
    if not _is_integer(config.seed, 0) or config.seed >= 2**32:
        raise ValueError(f"seed must be an integer from 0 to 4294967295, got {config.seed!r}.")
    if config.threads is not None and not _is_integer(config.threads, 1):
        raise ValueError(f"threads must be an integer >= 1 or null, got {config.threads!r}.")
    if not _is_integer(config.trainer.get("max_epochs"), 1):
        raise ValueError(f"trainer.max_epochs must be an integer >= 1, got {config.trainer.get('max_epochs')!r}.")


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _module(config: DictConfig, data: SequenceData) -> SequenceModule:
    check_tokens_are_read(data, str(config.model.get("_target_")))
    tokens = {} if data.vocab is None else {"vocab": data.vocab, "pairs": data.pairs}
    model = call("model", config.model, d_input=data.d_input, d_output=data.d_output, **tokens)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {config.model._target_} gives a {type(model).__name__}, it must give a module.")
    if getattr(model, "patch", 1) > data.length:
        raise ValueError(f"model.patch={model.patch} is longer than the {data.length} steps of {data.name}; lower it.")
    task = call("task", config.task)
    check_together(data, model, task, config.optim.get("tbptt"))
    try:
        return SequenceModule(model, task, classes=data.d_output, carry_state=data.stream, **config.optim)
    except TypeError as error:
        raise ValueError(
            f"optim: {' '.join(str(error).split())}; its keys are those of configs/config.yaml."
        ) from error


def _check_keys(section: str, node: DictConfig, target: Callable[..., Any], taken: set[str]) -> None:
    known = [name for name in inspect.signature(target).parameters if name not in taken]
    if unknown := [key for key in node if key not in known]:
        raise ValueError(f"{section}: unknown key {unknown[0]!r}; it takes {', '.join(known)}.")


def _trainer(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[return-value]


def _solver(module: SequenceModule) -> str:
    return next(solver_name(part) for part in module.model.modules() if isinstance(part, SpikingLayer))


def _count(module: SequenceModule) -> int:
    return sum(p.numel() for p in module.model.parameters() if p.requires_grad)


def _draw(folder: Path, module: SequenceModule, data: SequenceData) -> None:
    """The learning curve, and the first layer's spikes on the first test sequence."""
    learning_curve(read_metrics(folder / "metrics.csv"), folder / "figures" / "learning_curve.png")
    x = data.test_set[int(data.test_rows[0])].x.to(next(module.parameters()).device)
    name, spikes = next(iter(spikes_of(module.model, x).items()))
    raster(spikes[0], f"{name}, first test sequence", folder / "figures" / "raster.png")


def _summary(
    folder: Path,
    config: DictConfig,
    module: SequenceModule,
    data: SequenceData,
    loop: Trainer,
) -> dict[str, Any]:
    """The result of a run as plain values."""
    rows = read_metrics(folder / "metrics.csv")
    monitor, mode = module.task.monitor
    choose = max if mode == "max" else min
    best = choose((row for row in rows if monitor in row), key=lambda row: row[monitor])
    device = loop.strategy.root_device
    return {
        "name": config.name,
        "val": {monitor.removeprefix("val/"): best[monitor], "epoch": 1 + int(best["epoch"])},
        "parameters": _count(module),
        "epochs": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "cpu_minutes": round(sum(row.get("cpu_seconds", 0.0) for row in rows) / 60, 1),
        "solver": _solver(module),
        "seed": config.seed,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "versions": versions(),
        "dataset": data.facts(),
    }
