"""What studies share: a trained run that can be tested many times, results on disk, and tables over seeds."""

import csv
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import move_data_to_device
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import nn

from sdn import Neuron, SpikingLayer
from sdn.runs.files import versions, writing
from spikingssm.datasets.base import Batch
from spikingssm.experiments.evaluation import TrainedRun, load_run
from spikingssm.experiments.runfolder import stored
from spikingssm.measures.shown import is_share
from spikingssm.measures.spikes import neurons_of, record_spikes
from spikingssm.processes.distributed import ALONE
from spikingssm.tasks import WeightedMean
from spikingssm.training.fit import make_trainer

__all__ = [
    "Shown", "Subject", "by_label", "check_different", "facts", "generator", "kind_of", "label", "markdown", "mean_sd",
    "open_run", "percent", "save_figure", "shown", "write_csv",
]  # fmt: skip

KEEP = 2**29
"""Bytes of test rows that stay in memory between two tests."""
AT_ONCE = 2**27
"""Bytes of data or spikes in a batch where rows are joined."""


class Subject:
    """A trained run that is tested many times, each time by the same rows in the same batches.

    Args:
        run: the opened run.
        variant: what makes it another run than its experiment, "" for nothing.
    """

    def __init__(self, run: TrainedRun, variant: str = "") -> None:
        self.run, self.variant = run, variant
        options: dict[str, Any] = OmegaConf.to_container(run.config.trainer, resolve=True)  # type: ignore[assignment]
        if options.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
            options["accelerator"] = "auto"
        quiet = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar")
        self._loop: lightning.Trainer = make_trainer(**{**options, **dict.fromkeys(quiet, False), **ALONE})
        self._kept: list[Batch] = []
        run.module.eval()

    @property
    def model(self) -> nn.Module:
        """The network, with the weights of the best epoch."""
        return self.run.module.model

    @property
    def metrics(self) -> list[str]:
        """Names of the task's metrics, such as accuracy."""
        return list(self.run.module.metrics["test"])

    @torch.no_grad()
    def score(
        self,
        model: nn.Module | None = None,
        change: Callable[[Batch], Batch] | None = None,
        *,
        together: bool = False,
    ) -> dict[str, float]:
        """Test a network on all test rows: the numbers of `spikingssm.evaluate`, the same to the last bit.

        Args:
            model: the network, None for the run's own; it is put into eval mode, on the device of the run's trainer.
            change: done to every batch first.
            together: take as many rows at once as memory allows, for networks whose cost is by the step; the loss may
                then differ in its last digits.

        Returns:
            ``loss``, the task's metrics by name, and ``spikes`` of a sample: of all neurons and steps.

        Raises:
            ValueError: what the network refuses; `sdn.dynamics.base.Diverged` where a neuron diverges.
        """
        module, data = self.run.module, self.run.data
        device, precision = self._loop.strategy.root_device, self._loop.precision_plugin
        model = (self.model if model is None else model).to(device).eval()
        found = {name: metric.to(device) for name, metric in module.task.metrics(data.d_output).items()}
        loss, state = WeightedMean().set_dtype(torch.float64).to(device), None
        with precision.forward_context(), record_spikes(model) as record:
            for batch in self._merged(model) if together and not data.stream else self._batches():
                batch = precision.convert_input(move_data_to_device(batch, device))
                outcome = module.task.run(model, batch if change is None else change(batch), state, training=False)
                state = outcome.state if module.carry_state else None
                loss.update(outcome.loss, outcome.count)
                for name, values in outcome.updates.items():
                    found[name].update(*values)
        scores = {name: float(metric.compute()) for name, metric in found.items()}
        return {"loss": float(loss.compute()), **scores, "spikes": sum(record.spikes.values()) / len(data.test_rows)}

    def _batches(self) -> Iterator[Batch]:
        if self._kept:
            yield from self._kept
            return
        loader, kept = self.run.data.test_dataloader(), []
        for batch in loader:
            kept.append(batch)
            if sum(part.nbytes for part in batch if part is not None) * len(loader) > KEEP:
                kept.clear()
            yield batch
        self._kept = kept

    def _merged(self, model: nn.Module) -> Iterator[Batch]:
        """The batches, joined up to about `AT_ONCE` bytes of data or spikes."""
        width, waiting = max(layer.channels for layer in neurons_of(model).values()), []
        for batch in self._batches():
            waiting.append(batch)
            steps = sum(len(part.x) * part.x.shape[1] for part in waiting)
            if 4 * steps * max(width, batch.x.shape[-1]) > AT_ONCE:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)


class Shown(NamedTuple):
    """A mean and its sample standard deviation over several values; None of one."""

    mean: float
    sd: float | None


def open_run(run_dir: str | Path, *, limit: int | None = None, root: str | Path | None = None) -> Subject:
    """A run folder, opened; arguments and errors as in `spikingssm.experiments.evaluation.evaluate`."""
    return Subject(load_run(run_dir, limit=limit, root=root), _variant(Path(run_dir)))


def facts(subject: Subject, study: str, **more: Any) -> dict[str, Any]:
    """What every result of a study says of its run, as plain values."""
    config = subject.run.config
    return {
        "study": study,
        "name": config.name,
        "variant": subject.variant,
        "seed": config.seed,
        "dataset": subject.run.data.facts(),
        "metrics": subject.metrics,
        **more,
        "versions": versions(),
        "command": shlex.join(["python", "-m", "spikingssm", *sys.argv[1:]]),
    }


def label(result: Mapping[str, Any]) -> str:
    """The experiment and what was changed of it: runs that differ in their seed only have the same."""
    return f"{result['name']}, {result['variant']}" if result.get("variant") else str(result["name"])


def check_different(run_dirs: Sequence[str | Path]) -> None:
    """Refuse runs of one experiment and seed, which cannot be told apart in a table and are no two seeds.

    Raises:
        FileNotFoundError, ValueError: no run there, or two of one experiment and seed.
    """
    known: dict[tuple[str, int], str | Path] = {}
    for folder in run_dirs:
        config = stored(folder)
        mine = label({"name": config.name, "variant": _variant(Path(folder))})
        if (mine, config.seed) in known:
            raise ValueError(
                f"{folder} and {known[mine, config.seed]} are both {mine} with seed {config.seed}; give one of them, "
                "or each in a command of its own."
            )
        known[mine, config.seed] = folder


def kind_of(layer: SpikingLayer) -> str:
    """What neurons a layer has, by the name of their class."""
    return type(layer.dynamics if isinstance(layer, Neuron) else layer).__name__


def by_label(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Results of several seeds under one label each, in the order in which they were given."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(label(result), []).append(result)
    return groups


def mean_sd(values: Sequence[float]) -> Shown:
    """Mean and sample standard deviation; NaN of none."""
    if not values:
        return Shown(float("nan"), None)
    return Shown(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def shown(values: Sequence[float], form: str = ".2f") -> str:
    """Mean and sample standard deviation as text, such as 85.37 ± 0.73; one value alone."""
    mean, sd = mean_sd(values)
    return format(mean, form) if sd is None else f"{mean:{form}} ± {sd:{form}}"


def percent(name: str) -> float:
    """What a metric is multiplied by where it is shown: parts of all, such as accuracies, are in percent."""
    return 100.0 if is_share(name) else 1.0


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def generator(*numbers: int) -> torch.Generator:
    """A generator of its own for each sequence of numbers >= 0, on the CPU so that every device draws the same."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a table, whole or not at all; the columns are the keys of all rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with writing(path) as partial, partial.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)


def save_figure(figure: Figure, path: str | Path) -> None:
    """A figure as a PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with writing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def _joined(batches: Sequence[Batch]) -> Batch:
    x, y, lengths = zip(*batches, strict=True)
    return Batch(torch.cat(x), torch.cat(y), None if lengths[0] is None else torch.cat(lengths))


def _variant(folder: Path) -> str:
    """What the second line of the configuration says of it."""
    lines = (folder / "config.yaml").read_text().splitlines()[:2]
    found = [line.removeprefix("# variant: ") for line in lines if line.startswith("# variant: ")]
    return found[0].strip() if found else ""
