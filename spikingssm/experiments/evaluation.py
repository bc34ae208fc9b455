"""A trained network, tested again: under any solver, at another sampling rate, beside its exact self."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback
from loguru import logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from sdn import Solver, Surrogate
from sdn.runs.files import read_json
from sdn.solvers import as_solver
from spikingssm.datasets import Rows, SequenceData
from spikingssm.datasets.sequences import read_sequences
from spikingssm.experiments.build import build, open_module
from spikingssm.experiments.config import call
from spikingssm.experiments.consistency import check_together
from spikingssm.experiments.runfolder import best_of, solver_name, stored
from spikingssm.experiments.shipped import folder_of
from spikingssm.experiments.targets import takes
from spikingssm.experiments.trained import interface_of
from spikingssm.measures.agreement import Agreement, exactly
from spikingssm.measures.spikes import neurons_of
from spikingssm.models.base import able
from spikingssm.processes.distributed import ALONE
from spikingssm.training.fit import SequenceModule, make_trainer, score

__all__ = ["TrainedRun", "check_other", "evaluate", "load_run", "load_run_on", "measure", "solver_for"]


class TrainedRun(NamedTuple):
    """A run folder, opened: its configuration, its data, and its module with the best weights."""

    config: DictConfig
    data: SequenceData
    module: SequenceModule


def evaluate(
    run_dir: str | Path,
    solver: str | Solver | None = None,
    *,
    agreement: bool = False,
    rate: float | None = None,
    limit: int | None = None,
    root: str | Path | None = None,
    data: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Test the best checkpoint of a run folder, under any solver.

    Args:
        run_dir: the run folder, or the name of a network that ships.
        solver: a word or a value; None is the one that the run was trained with.
        agreement: compare the spikes with those of exact neurons too, see `Agreement`; a second network runs along.
        rate: test on data of a ``rate``-th of the sampling rate, with time steps that are as much longer.
        limit: test on that many rows only.
        root: folder of the data, where it is not that of the training.
        data: other rows to test on: a file or a folder with labels, see `spikingssm.datasets.sequences`. They are read
            as those of the training were, and nothing of the training's data is needed.
        callbacks: of Lightning, that look on during the test.

    Returns:
        ``solver``, ``rows`` (of the test), ``device``; the task's metrics, ``loss``, ``spike_rate``, ``spike_rates`` by
        layer and the costs of a sample, see `spikingssm.training.fit.score`; ``agreement``, if asked for.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: a solver that cannot run the model's neurons, data without what is asked for, or the agreement of
            an exact neuron with itself.
        NotImplementedError: a solver that there is not for the model's neurons, such as a surrogate of S5-RF's.
    """
    value = None if solver is None else as_solver(solver)
    folder = folder_of(run_dir)
    if data is None:
        run = load_run(folder, own_solver=value is None, rate=rate, limit=limit, root=root)
    else:
        if told := [f"--{name} {found}" for name, found in (("root", root), ("rate", rate)) if found is not None]:
            raise ValueError(f"{told[0]} is for the data of the training, --data {data} for others; give one of them.")
        run = load_run_on(folder, data, own_solver=value is None, limit=limit)
    return measure(run, value, agreement=agreement, callbacks=callbacks)


def load_run(
    run_dir: str | Path,
    *,
    own_solver: bool = True,
    rate: float | None = None,
    limit: int | None = None,
    root: str | Path | None = None,
) -> TrainedRun:
    """Open a run folder; arguments as in `evaluate`. Without ``own_solver`` the neurons are left to the loop.

    Raises:
        FileNotFoundError, ValueError: as in `evaluate`.
    """
    config = stored(run_dir)
    if limit is not None and limit < 1:
        raise ValueError(f"evaluate: --limit must be at least 1 row, got {limit}.")
    if root is not None and config.data.get("generated"):
        raise ValueError(f"{run_dir} was trained on a drawn stand-in, which has no root; leave --root {root} out.")
    if not own_solver and takes(config.model, "solver"):  # so that no surrogate is looked for
        OmegaConf.update(config, "model.solver", "loop", merge=False)
    changes = {"root": None if root is None else str(root), "limit_eval": limit}
    if rate is not None:
        found = known_key(config, "rate", "sampling rates are for audio") * rate
        changes["rate"] = int(found) if found == int(found) else found
    for key, value in changes.items():
        if value is not None:
            known_key(config, key, f"leave --{key.removesuffix('_eval')} out")
            OmegaConf.update(config, f"data.{key}", value)
    best = best_of(run_dir)
    try:
        data, module = build(config, best)
    except FileNotFoundError as missing:
        nowhere = FileNotFoundError(f"{str(missing).rstrip('.')}{_other_places(config, root)}.")
        if not takes(config.data, "test_only"):
            raise nowhere from None
        OmegaConf.update(config, "data.test_only", True, force_add=True)
        try:
            data, module = build(config, best)
        except FileNotFoundError:
            raise nowhere from None
        logger.info(f"{missing} The test files are there, which is all that is needed here.")
    for key, value in data.fitted.items():
        if config.data.get(key) is None and value != 1 and key != "classes":
            logger.warning(f"{run_dir} is older and keeps no data.{key}; {value} is taken, which these data give")
    _say_other_data(run_dir, data, changed=rate is not None)
    if rate is not None:
        module.model = able(module.model, "with_rate").with_rate(rate)
    return TrainedRun(config, data, module)


def _other_places(config: DictConfig, root: str | Path | None) -> str:
    """How a test finds data that have moved; "" where it was told a place."""
    if root is not None:
        return ""
    moved = ", or where the data of the training lie now with --root FOLDER" if "root" in config.data else ""
    return f"; give other data with labels with --data FILE{moved}"


def load_run_on(
    run_dir: str | Path, path: str | Path, *, own_solver: bool = True, limit: int | None = None
) -> TrainedRun:
    """Open a run folder on other data than its own; arguments as in `evaluate` and `load_run`.

    Raises:
        FileNotFoundError, ValueError: as in `evaluate`, rows without labels, or classes that the network does not have.
    """
    config, interface = stored(run_dir), interface_of(run_dir)
    if not own_solver and takes(config.model, "solver"):
        OmegaConf.update(config, "model.solver", "loop", merge=False)
    inputs = interface.inputs
    assert inputs is not None
    found = read_sequences(path, inputs, interface.d_input)
    x, lengths = inputs.rows(found.x, interface.d_input, found.lengths)
    try:
        y = interface.asked(found.labels, x, lengths)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if y is None and interface.targets is not None:
        raise ValueError(f"{path}: no targets in it; give an .npz with x and y, or a .csv with a column named label.")
    if y is None:
        raise ValueError(
            f"{path}: no labels in it; give an .npz with x and y, or a folder of one folder a class, named "
            f"{', '.join(interface.class_name(number) for number in range(min(interface.d_output, 12)))}."
        )
    rows = Rows(x, y, lengths)
    data = SequenceData(
        Path(path).stem,
        rows,
        rows,
        d_output=interface.d_output,
        vocab=interface.vocab,
        inputs=inputs,
        class_names=interface.classes,
        batch_size=min(len(x), config.data.get("batch_size") or 32),
        limit_eval=limit,
        split=f"test: {Path(path).name}",
        test_only=True,
        stream=interface.stream,
        targets=interface.targets,
    )
    module = open_module(config, interface, best_of(run_dir))
    check_together(data, module.model, module.task)
    return TrainedRun(config, data, module)


def _say_other_data(run_dir: str | Path, data: SequenceData, changed: bool) -> None:
    """Say that the test rows are not those of the run's own test; data at another rate are others anyway."""
    try:
        summary = read_json(Path(run_dir) / "summary.json")
        known = summary["dataset"]["test_digest"]
    except (OSError, ValueError, KeyError, TypeError):  # it is not finished, or older
        return
    if not changed and known != data.digests["test_digest"]:
        logger.warning(f"{run_dir}: the test rows are not those that this run was tested on when it was trained")


def measure(
    run: TrainedRun, solver: Solver | None = None, *, agreement: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Test an opened run once; arguments and result as in `evaluate`. The run is left as it was.

    Raises:
        ValueError, NotImplementedError: a solver that cannot run the model's neurons.
    """
    model = run.module.model
    options: Any = OmegaConf.to_container(run.config.trainer, resolve=True)
    shown = options.get("enable_progress_bar", True) and sys.stdout.isatty()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": shown,
    }
    if options.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        options["accelerator"] = "auto"
    comparison = Agreement() if agreement else None
    if agreement:
        check_other(model, solver)
    watching = [*callbacks, *([comparison] if comparison else [])]
    loop = make_trainer(**{**options, **quiet, **ALONE}, callbacks=watching)
    try:
        if solver is not None:
            run.module.model = able(model, "with_solver").with_solver(solver)
        name = solver_name(next(iter(neurons_of(run.module.model).values())))
        found = score(run.module, run.data, loop)
    finally:
        run.module.model = model
    device = loop.strategy.root_device
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)
    facts = {"solver": name, "rows": len(run.data.test_rows), "device": place, **found}
    return {**facts, "agreement": comparison.scores()} if comparison else facts


def check_other(model: nn.Module, solver: Solver | None) -> None:
    """Refuse to compare a neuron with itself.

    Args:
        model: as it was trained.
        solver: the one to test it under; None is its own.

    Raises:
        ValueError: it is the one that `exactly` takes.
    """
    own = next(iter(neurons_of(model).values())).solver if solver is None else solver
    exact = next(iter(neurons_of(exactly(model)).values())).solver
    if type(own) is type(exact):
        raise ValueError(
            f"--agreement compares the spikes with those of the exact neuron, and {type(exact).__name__.lower()} is "
            "that neuron; compare another one with --solver surrogate (or parallel), or leave --agreement out."
        )


def solver_for(
    run_dir: str | Path,
    word: str | None = None,
    artifact: str | Path | None = None,
    refine: int | None = None,
    rounds: int | None = None,
) -> Solver | None:
    """The solver that a command line asks for; None where it asks for none.

    The surrogate is that of the run where the run has one, else the shipped one; ``artifact``, ``refine`` and
    ``rounds`` change it.

    Raises:
        FileNotFoundError: no run there.
        ValueError: an unknown word, or an artifact or sweeps for a solver that has none.
    """
    changes = {"artifact": artifact, "refine": refine, "rounds": rounds}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if word is None and not given:
        return None
    value = as_solver("surrogate" if word is None else word)
    if not isinstance(value, Surrogate):
        for name, option in given.items():
            raise ValueError(f"--{name} {option} is for the surrogate, --solver is {word!r}; use --solver surrogate.")
        return value
    own = stored(folder_of(run_dir)).model.get("solver")
    if isinstance(own, DictConfig):
        trained = call("model.solver", own)
        value = trained if isinstance(trained, Surrogate) else value
    found: Surrogate = replace(value, **given)
    return found


def known_key(config: DictConfig, key: str, hint: str) -> Any:
    """The value of a key of the data.

    Raises:
        ValueError: data without it; it ends with the hint.
    """
    if key not in config.data:
        target = config.data.get("_target_", "of the run")
        raise ValueError(f"the data {target} have no data.{key}, their keys are {', '.join(config.data)}; {hint}.")
    return config.data[key]
