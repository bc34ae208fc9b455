"""What a page of results asks a trained network itself: a test sequence inside it, and how exact its neurons are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from sdn import Dynamics, Solver, Surrogate, Trajectory, record_membranes
from sdn.plot.chosen import of, single
from sdn.runs.cli import said
from spikingssm.datasets.download import offline
from spikingssm.experiments.evaluation import TrainedRun, load_run, measure
from spikingssm.experiments.runfolder import stored
from spikingssm.measures.agreement import exactly
from spikingssm.measures.spikes import neurons_of, spikes_of
from spikingssm.models.base import evaluating, patch_of, placed
from spikingssm.reports.html_runs import clean

__all__ = ["ROWS", "Layer", "Opened", "open_run"]

ROWS = 32
"""Test rows on which surrogates are compared with exact neurons."""
LAYERS, NEURONS, STEPS, SPIKES = 3, 64, 2000, 4000
"""What is drawn of a sequence at most."""
WRONG = (ValueError, OSError, NotImplementedError, ImportError, RuntimeError, MemoryError)


@dataclass
class Layer:
    """A layer of neurons on one test sequence.

    Args:
        name: of the layer.
        spikes: (steps, neurons) of 0 and 1, the part that is drawn.
        steps, neurons: of the whole.
        neuron: the busiest one of those drawn, from 0.
        trace: what this one did, (1, steps, 1) each; None where the layer keeps no membrane.
        dynamics: of this one.
    """

    name: str
    spikes: np.ndarray[Any, Any]
    steps: int
    neurons: int
    neuron: int = 0
    trace: Trajectory | None = None
    dynamics: Dynamics | None = None


@dataclass
class Opened:
    """What was found; each ``problem`` says in words why something is not there."""

    layers: list[Layer] = field(default_factory=list)
    solver: str = ""
    agreement: dict[str, Any] | None = None
    by_class: dict[str, Any] | None = None
    rows: int = 0
    problems: list[str] = field(default_factory=list)


def open_run(folder: Path, classes: bool = False) -> Opened:
    """Open the best weights of a run folder, run one test sequence, and compare a surrogate with the exact neuron.

    Nothing is downloaded, and the folder is left as it was.

    Args:
        folder: of the run.
        classes: also test on all test rows, to see class by class what the run's own result does not say.
    """
    opened = Opened()
    with offline(), _threads(), _told(opened, "the network was not opened"):
        config = stored(folder)
        limit = ROWS if "limit_eval" in config.data and not classes else None
        run = load_run(folder, limit=limit)
        first = next(iter(neurons_of(run.module.model).values())).solver
        opened.solver = _word(first)
        with _told(opened, "no test sequence was run"):
            opened.layers = _layers(run)
        surrogate = isinstance(first, Surrogate)
        if (surrogate and limit is not None) or classes:
            OmegaConf.update(run.config, "trainer.enable_progress_bar", False)
            with _told(opened, "the test rows were not run"):
                found = measure(run, None, agreement=surrogate)
                opened.rows = int(found["rows"])
                opened.agreement, opened.by_class = found.get("agreement"), found.get("by_class")
    return opened


@contextmanager
def _told(opened: Opened, what: str) -> Iterator[None]:
    """What goes wrong for a reason of the user becomes a sentence of the page."""
    try:
        yield
    except WRONG as error:
        text = said(error)
        if text is None and not isinstance(error, RuntimeError):
            raise
        opened.problems.append(f"{what}: {clean(text or error, 600)}")


@contextmanager
def _threads() -> Iterator[None]:
    """Leave the number of threads and the random numbers as they were: opening a run sets both."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _word(solver: Solver) -> str:
    """A solver in a few words, with what makes a surrogate more exact."""
    changed = {name: getattr(solver, name, None) for name in ("refine", "rounds")}
    return ", ".join([type(solver).__name__.lower(), *(f"{name} {value}" for name, value in changed.items() if value)])


def _layers(run: TrainedRun) -> list[Layer]:
    """The first layers on the first test row: by the exact neuron where it has membranes, else by the run's own."""
    row = run.data.test_set[int(run.data.test_rows[0])]
    model, length = run.module.model, None
    if row.lengths is not None:  # what is behind is padding
        length = max(1, -(-int(row.lengths.flatten()[0]) // patch_of(model)))
    x = placed(model, row.x)
    try:
        exact = exactly(model)
        with evaluating(exact), torch.no_grad(), record_membranes(exact) as found:
            exact(x)
        trajectories = {name: found[name] for name in list(found)[:LAYERS]}
    except (ValueError, NotImplementedError):  # a network without such neurons, such as S5-RF
        trajectories, exact = {}, model
    if trajectories:
        return [_with_trace(name, found, exact.get_submodule(name), length) for name, found in trajectories.items()]
    return [_layer(name, spikes[0], length) for name, spikes in list(spikes_of(model, x).items())[:LAYERS]]


def _layer(name: str, spikes: Tensor, length: int | None) -> Layer:
    """The part of the spikes (L, H) of a row that is drawn: at most `NEURONS`, `STEPS` and `SPIKES`."""
    real = spikes[:length].detach().cpu()
    drawn = real[:STEPS, :NEURONS].float().numpy() > 0
    fits = int(np.searchsorted(drawn.sum(1).cumsum(), SPIKES, side="right"))
    drawn = drawn[: max(1, fits)]
    return Layer(clean(name, 120), drawn, real.shape[0], real.shape[1], int(drawn.sum(0).argmax()))


def _with_trace(name: str, found: Trajectory, neuron: nn.Module, length: int | None) -> Layer:
    layer = _layer(name, found.spike[0], length)
    steps = len(layer.spikes)
    part = Trajectory(found.input[:, :steps], found.mem[:, :steps], found.spike[:, :steps])
    layer.trace = single("report", part, 0, layer.neuron)
    layer.dynamics = of(neuron, part, layer.neuron)
    return layer
