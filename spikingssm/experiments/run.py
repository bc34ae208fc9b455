"""From a configuration to a run folder."""

import contextlib
import copy
import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from loguru import logger
from omegaconf import DictConfig, OmegaConf

from sdn import SpikingLayer
from sdn.runs.best import best_of
from sdn.runs.files import versions, write_json, writing
from sdn.runs.folder import log_to, read_metrics
from sdn.runs.lock import locked
from sdn.runs.signals import explained
from spikingssm.datasets import SequenceData
from spikingssm.datasets.described import described
from spikingssm.datasets.interface import Interface
from spikingssm.experiments.alike import same_everywhere
from spikingssm.experiments.build import build, check_keys
from spikingssm.experiments.ending import go_on, quoted, remembered
from spikingssm.experiments.figures import learning_curve, raster
from spikingssm.experiments.runfolder import keep_artifact, keep_fitted, solver_name, start_from, stored
from spikingssm.measures.activity import state_of
from spikingssm.measures.shown import plain_number
from spikingssm.measures.spikes import spikes_of
from spikingssm.models.base import patch_of, placed
from spikingssm.processes.distributed import first_process, leave
from spikingssm.processes.together import check_launched, meet, needing_others
from spikingssm.training.callbacks import Alike, EarlyStop, StepCheckpoint
from spikingssm.training.fit import SequenceModule, fit, score
from spikingssm.training.loggers import more_loggers
from spikingssm.training.monitor import DeadNeurons

__all__ = ["is_finished", "quiet", "run"]


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
    folder, resume = Path(str(config.resume or config.run_dir)), config.resume is not None
    if is_finished(config):
        logger.info(f"{folder} is finished; its results are in summary.json")
        with contextlib.suppress(OSError), locked(folder):  # which removes the lock of a process that was killed there
            pass
        return folder
    with contextlib.ExitStack() as open_here:
        open_here.enter_context(explained(lambda: go_on(folder)))
        open_here.enter_context(needing_others(lambda: go_on(folder)))
        if first_process():  # the others of one training share its lock
            open_here.enter_context(locked(folder, "choose another run_dir=FOLDER"))
            if not resume:
                _refuse_held(folder)
            open_here.enter_context(remembered(folder))
        with needing_others(lambda: go_on(folder)):  # within what the folder remembers of its end
            _run(config, folder, resume, changed)
        leave()
    return folder


def is_finished(config: DictConfig) -> bool:
    """Whether a configuration is that of a run to go on with that has nothing left to do."""
    if config.resume is None:
        return False
    extended = _is_extended(
        config, Path(str(config.resume))
    )  # read first: another process may begin to go on meanwhile
    return not extended and (Path(str(config.resume)) / "summary.json").is_file()


def _is_extended(config: DictConfig, folder: Path) -> bool:
    """Whether a finished run is to go on for more epochs than its configuration has."""
    if not (folder / "config.yaml").is_file():
        return False
    known, wanted = stored(folder).trainer.get("max_epochs"), config.trainer.get("max_epochs")
    return isinstance(known, int) and isinstance(wanted, int) and wanted > known


def _keep_result(folder: Path, epochs: int) -> None:
    """Put the result of a run that goes on under another name."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "summary.json").rename(folder / f"summary-{epochs}-epochs.json")
        logger.info(f"{folder} goes on; its result so far is in summary-{epochs}-epochs.json")


def _refuse_held(folder: Path) -> None:
    """Raise where a folder holds a run."""
    if (folder / "checkpoints" / "last.ckpt").is_file():
        finished = " That run is finished, see its summary.json." if (folder / "summary.json").is_file() else ""
        raise FileExistsError(
            f"{folder} holds a checkpoint; continue with resume={quoted(folder)}, or start elsewhere with "
            f"run_dir=FOLDER.{finished}"
        )


def _say_other_classes(start: Path, now: Interface) -> None:
    """Warn where the outputs of the weights that a run starts from stand for other classes than its own."""
    try:
        before = Interface.read(start)
    except (OSError, ValueError, KeyError, TypeError):  # a checkpoint alone, or an older run
        return
    if before.d_output != now.d_output:
        return
    old, new = ([one.class_name(number) for number in range(one.d_output)] for one in (before, now))
    if old != new:
        logger.warning(
            f"the last layer of {start} answers for the classes {', '.join(old[:6])}, and these data have "
            f"{', '.join(new[:6])}; it has to learn them anew, unless data.classes lists them in the order of that run"
        )


def _run(config: DictConfig, folder: Path, resume: bool, changed: str) -> None:
    config = copy.deepcopy(config)
    config.run_dir, config.resume = str(folder), None
    OmegaConf.resolve(config)
    check_launched(config.trainer.get("devices"), config.trainer.get("num_nodes", 1))
    writes = first_process()
    last = folder / "checkpoints" / "last.ckpt"
    first = start_from(config) if config.get("weights") is not None else None
    begins = last if resume and last.is_file() else first
    data, module = build(config, begins)
    alike = same_everywhere(config, data.facts(), begins)
    keep_fitted(config, data.fitted)
    longer = resume and _is_extended(config, folder)
    if writes and longer:
        _keep_result(folder, stored(folder).trainer.max_epochs)
    if writes:
        keep_artifact(config, module, folder)
    callbacks, loggers = [Alike(alike), *_callbacks(config, module, folder)], _loggers(config, folder)
    command, changed = _header(folder, resume, changed)
    if longer:
        epochs = f"trainer.max_epochs={config.trainer.max_epochs}"
        others = [part for part in changed.split(", ") if part and not part.startswith("trainer.max_epochs=")]
        changed = ", ".join([*others, epochs])
    if writes:
        with writing(folder / "config.yaml") as partial:
            partial.write_text(f"# {command}\n# variant: {changed}\n{OmegaConf.to_yaml(config)}")
        if not resume:
            (folder / "metrics.csv").unlink(missing_ok=True)
        data.interface.write(folder)
    handler = log_to(folder / "run.log" if writes else None)
    try:
        facts = ", ".join(f"{key} {value}" for key, value in data.facts().items() if "digest" not in key)
        logger.info(f"{folder} | {facts} | {_count(module)} parameters")
        logger.info(f"{data.name}: {described(data)}")
        said = getattr(module.task, "said", None)
        if said is not None and not resume and (weights := said(data.interface)):
            logger.info(weights)
        if first is not None and not resume:
            logger.info(f"starting from the weights in {first}")
            _say_other_classes(Path(config.weights), data.interface)
        more = {"callbacks": callbacks, "loggers": loggers, **_trainer(config)}
        meet()
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
    summary = {**_summary(folder, config, module, data, loop), **known}
    write_json(folder / "summary.json", summary)
    found = known["test"]
    quality = " | ".join(f"test {name} {plain_number(found[name])}" for name in module.metrics["test"])
    logger.info(
        f"{folder}/summary.json | {quality} | spikes {found['spike_rate']:.4f} | epoch {summary['val']['epoch']}"
    )
    for layer, rate in found["spike_rates"].items():
        if state := state_of(rate):
            way = module.advice.get((layer, state), "look at the scale of the data and at its threshold")
            logger.warning(f"{layer}: {state} to the end, spike rate {rate:.4f} on the test rows; {way}")


def _header(folder: Path, resume: bool, changed: str) -> tuple[str, str]:
    """Command and variant of this run; of a resumed one those that began it, the first lines of its configuration."""
    known = folder / "config.yaml"
    first = known.read_text().splitlines()[:2] if resume and known.is_file() else []
    if len(first) == 2 and first[0].startswith("# "):
        return first[0].removeprefix("# "), first[1].removeprefix("# variant: ") if first[1][:1] == "#" else ""
    return shlex.join([*_program(), *sys.argv[1:]]), changed


def _program() -> list[str]:
    """How this program is called by hand."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return ["python", "-m", script.parent.name]
    return ["python", script.name] if script.suffix == ".py" else [script.name]


def _callbacks(config: DictConfig, module: SequenceModule, folder: Path) -> list[Callback]:
    """What ``checkpoint``, ``early_stop`` and ``dead_neurons`` ask for; the run of an older version lacks some."""
    often, stop, dead = (config.get(name) or {} for name in ("checkpoint", "early_stop", "dead_neurons"))
    check_keys("checkpoint", often, StepCheckpoint, {"run_dir"})
    check_keys("early_stop", stop, EarlyStop, {"monitor", "mode"})
    check_keys("dead_neurons", dead, DeadNeurons, set())
    found: list[Callback] = [StepCheckpoint(folder, **often)]
    if dead.get("every_n_epochs") is not None:
        found.append(DeadNeurons(**dead))
    if stop.get("patience") is not None:
        found.append(EarlyStop(*module.task.monitor, **stop))
    return found


def _loggers(config: DictConfig, folder: Path) -> list[WandbLogger]:
    asked = config.get("logger") or {}
    check_keys("logger", asked, more_loggers, {"run_dir", "config"})
    return more_loggers(folder, OmegaConf.to_container(config, resolve=True), **asked)  # type: ignore[arg-type]


def _trainer(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[return-value]


def _solver(module: SequenceModule) -> str:
    return next(solver_name(part) for part in module.model.modules() if isinstance(part, SpikingLayer))


def _count(module: SequenceModule) -> int:
    return sum(p.numel() for p in module.model.parameters() if p.requires_grad)


def _draw(folder: Path, module: SequenceModule, data: SequenceData) -> None:
    """The learning curve, and the first layer's spikes on the first test sequence."""
    quality = next(iter(module.metrics["test"]), None)
    learning_curve(read_metrics(folder / "metrics.csv"), folder / "figures" / "learning_curve.png", quality)
    row = data.test_set[int(data.test_rows[0])]
    name, spikes = next(iter(spikes_of(module.model, placed(module.model, row.x)).items()))
    length = spikes.shape[1]
    if row.lengths is not None:  # what is behind is padding
        length = max(1, min(length, -(-int(row.lengths.flatten()[0]) // patch_of(module.model))))
    raster(spikes[0], f"{name}, first test sequence", folder / "figures" / "raster.png", length)


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
    known = [row for row in rows if monitor in row]
    best = known[best_of(known, monitor, mode)]
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
