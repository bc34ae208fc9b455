"""From a configuration to its data and its module, with every key and size checked."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from omegaconf import DictConfig
from torch import nn

from sdn.runs.folder import seed_everything
from spikingssm.datasets import SequenceData
from spikingssm.datasets.interface import Interface
from spikingssm.experiments.config import call
from spikingssm.experiments.consistency import check_together, check_tokens_are_read
from spikingssm.experiments.runfolder import check_sizes, content_of
from spikingssm.experiments.targets import takes
from spikingssm.models.base import patch_of
from spikingssm.tasks import Task, told
from spikingssm.training.fit import SequenceModule, fitting

__all__ = ["build", "check_keys", "open_module"]

OURS = {  # what a run sets itself, and what would leave it without checkpoints or validation
    "barebones", "callbacks", "check_val_every_n_epoch", "default_root_dir", "enable_checkpointing",
    "enable_model_summary", "fast_dev_run", "limit_val_batches", "log_every_n_steps", "logger", "max_steps", "max_time",
    "num_sanity_val_steps", "plugins", "use_distributed_sampler", "val_check_interval",
}  # fmt: skip


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
    content = {} if weights is None else content_of(weights)
    known = weights is not None and check_sizes(weights, config, content.get("state_dict"))
    check_keys("optim", config.optim, SequenceModule, {"model", "task", "classes", "carry_state"})
    check_keys("trainer", config.trainer, Trainer, OURS)
    _check_numbers(config)
    task = call("task", config.task)
    data = call("data", config.data, **_asked(config.data, task))
    if not isinstance(data, SequenceData):
        raise ValueError(f"data: {config.data._target_} gives a {type(data).__name__}, it must give a SequenceData.")
    if weights is not None and known:
        with torch.device("meta"):
            fitting(weights, content, _module(config, data.interface, task))
    seed_everything(config.seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    module = _module(config, data.interface, task, data)
    check_together(data, module.model, module.task, config.optim.get("tbptt"))
    module = module.double() if str(config.trainer.get("precision")).startswith("64") else module
    if weights is not None:
        module.load_state_dict(fitting(weights, content, module))
    return data, module


def open_module(config: DictConfig, interface: Interface, weights: str | Path) -> SequenceModule:
    """The module of a configuration with the weights of a checkpoint, without its data; the noise is left as it is.

    Args:
        config: as it stands in a run folder.
        interface: what the network knows of its data.
        weights: the checkpoint, read first as in `build`.

    Raises:
        FileNotFoundError, ValueError, NotImplementedError, ImportError: as in `build`.
    """
    content = content_of(weights)
    check_keys("optim", config.optim, SequenceModule, {"model", "task", "classes", "carry_state"})
    task = call("task", config.task)
    if check_sizes(weights, config, content.get("state_dict")):
        with torch.device("meta"):
            fitting(weights, content, _module(config, interface, task))
    with torch.random.fork_rng(devices=[]):
        module = _module(config, interface, task)
    module = module.double() if str(config.trainer.get("precision")).startswith("64") else module
    module.load_state_dict(fitting(weights, content, module))
    return module


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


def _asked(data: DictConfig, task: Task) -> dict[str, Any]:
    """What a task asks of data that can be read in several ways, where their section does not say it."""
    wanted = {key: getattr(task, key, None) for key in ("targets", "horizon")}
    for key, value in wanted.items():
        if value is not None and data.get(key) not in (None, value):
            raise ValueError(f"data.{key} is {data[key]} and the task's {value}; leave data.{key} out.")
    asked = {key: value for key, value in wanted.items() if value is not None and data.get(key) is None}
    return {key: value for key, value in asked.items() if takes(data, key)}


def _module(config: DictConfig, data: Interface, task: Task, rows: SequenceData | None = None) -> SequenceModule:
    check_tokens_are_read(data, str(config.model.get("_target_")))
    tokens = {} if data.vocab is None else {"vocab": data.vocab, "pairs": data.pairs}
    model = call("model", config.model, d_input=data.d_input, d_output=data.d_output, **tokens)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {config.model._target_} gives a {type(model).__name__}, it must give a module.")
    if patch_of(model) > data.length:
        raise ValueError(f"model.patch={model.patch} is longer than the {data.length} steps of {data.name}; lower it.")
    task = told(task, data, rows)
    try:
        return SequenceModule(model, task, classes=data.d_output, carry_state=data.stream, **config.optim)
    except TypeError as error:
        raise ValueError(
            f"optim: {' '.join(str(error).split())}; its keys are those of configs/config.yaml."
        ) from error


def check_keys(section: str, node: Mapping[Any, Any], target: Callable[..., Any], taken: set[str]) -> None:
    """Refuse a key of a section that its target does not take, or that a run sets itself."""
    known = [name for name in inspect.signature(target).parameters if name not in taken]
    if unknown := [key for key in node if key not in known]:
        raise ValueError(f"{section}: unknown key {unknown[0]!r}; it takes {', '.join(known)}.")
