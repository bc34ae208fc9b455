"""A trained run as a thing to use: opened from its folder alone, asked about sequences of one's own, moved anywhere."""

import copy
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from loguru import logger
from omegaconf import OmegaConf
from torch import Tensor, nn

from sdn import Solver
from sdn.runs.files import read_json, write_json, writing
from sdn.runs.tensor_files import save_tensors
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.interface import FILE, Interface
from spikingssm.datasets.labels import IGNORED
from spikingssm.datasets.targets import LabelTargets, NumberTargets
from spikingssm.experiments.build import open_module
from spikingssm.experiments.listening import Heard, listen, listener_of
from spikingssm.experiments.runfolder import ARTIFACT, best_of, stored
from spikingssm.experiments.shipped import folder_of
from spikingssm.measures.shown import COSTS, plain_number
from spikingssm.measures.spikes import Firing, watch_neurons
from spikingssm.models.base import able, evaluating, placed
from spikingssm.streaming.stream import Stream
from spikingssm.tasks import Task, answer_of

__all__ = ["Prediction", "TrainedModel", "interface_of", "load_model"]

PLACES = ("root", "path", "test_path")
"""Keys of the data that say where they lie."""
BATCH = 64
"""Sequences at once, unless another number is asked for."""

_ONE_BY_ONE = threading.RLock()
"""Spikes are counted by hooks in the network, which would see those of another thread."""


class Prediction(NamedTuple):
    """What a network answers for N sequences.

    Args:
        labels: (N,) int64 numbers of the classes, or (N, L) for an answer at every step, -100 behind the end of a row;
            for sets of labels (N, K) int64 of 0 and 1. Where numbers are asked for these are they, in the units of the
            data, float64: (N,) or (N, L) for one, else (N, D) or (N, L, D), NaN behind the end of a row.
        names: of these classes, or of the labels of each set, where each sequence has one answer; else None.
        probabilities: (N, C) or (N, L, C), of each class or label; None where numbers are asked for.
        logits: what the network gave, (N, C) or (N, L, C).
        spikes: (N,) int64, of all neurons over the real steps.
        layers: layer -> its spikes, (N,) int64.
    """

    labels: Tensor
    names: list[str] | list[list[str]] | None
    probabilities: Tensor | None
    logits: Tensor
    spikes: Tensor
    layers: dict[str, Tensor]


class TrainedModel(nn.Module):
    """A trained network with all that it needs: how raw data are read, names of the classes, and the task.

    It is an ordinary module: it can be moved, pickled, copied and saved with ``torch.save``. `load_model` makes it.

    Args:
        network: (x (B, L, C), state, lengths) -> (logits, state); what it reads has been prepared.
        interface: sizes, names, and how raw data become what the network reads.
        task: what the logits mean.
        config: of the run, as plain containers.
        facts: the run's ``summary.json``, empty where there is none.
        folder: where it was opened from.
    """

    def __init__(
        self,
        network: nn.Module,
        interface: Interface,
        task: Task,
        config: dict[str, Any],
        facts: dict[str, Any],
        folder: Path,
    ) -> None:
        super().__init__()
        self.network, self.interface, self.task = network, interface, task
        self.config, self.facts, self.folder = config, facts, folder

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """The network's logits and state for x that `prepare` has made; chunks one after another equal the whole."""
        found: tuple[Tensor, Any] = self.network(x, state, lengths=lengths)
        return found

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step of a stream: (B, C), prepared, -> the logits after it, and the state.

        They are of all steps so far, as those of `forward` are of the whole, where the network pools its steps. A
        network that answers every step (``model.pool=each``, as of ``recipe=brf``) gives those of this step. Their mean
        over the steps is what `predict` answers with for a sequence.
        """
        found: tuple[Tensor, Any] = able(self.network, "step").step(x, state)
        return found

    def compile_step(self) -> Stream:
        """The network as one compiled step for streams of what `prepare` makes, see `spikingssm.streaming`."""
        found: Stream = able(self.network, "compile_step").compile_step()
        return found

    def listen(
        self,
        blocks: Iterable[Any],
        *,
        rate: float | None = None,
        every: float | None = None,
        reset: float | None = None,
    ) -> Iterator[Heard]:
        """What the network says of a stream while it comes, in constant memory and by exact neurons.

        Args:
            blocks: raw, of any size, as the files of the data hold them: (T,) samples, (T, C) numbers, (T,) tokens, or
                text.
            rate: samples of sound a second, where it is not that of the training, or steps a second of other data.
            every: seconds between two answers, or steps where no rate is known; about a second, or 100 steps.
            reset: seconds or steps after which the network begins anew; None is never.

        Raises:
            NotImplementedError: a network without a compiled step.
            ValueError: blocks that the network cannot read, or numbers out of range.
        """
        return listen(listener_of(self, rate, every, reset), blocks)

    def prepare(self, x: Any, lengths: Any = None) -> tuple[Tensor, Tensor | None]:
        """Raw sequences -> what the network reads, (N, L, C) float32 or tokens, and their valid steps (N,) or None.

        Args:
            x: raw, as the files of its data set hold them: see `spikingssm.datasets.inputs`. One sequence, an array of
                several, or a list of sequences that may differ in length.
            lengths: (N,) valid steps of an array; None for all.

        Raises:
            ValueError: another shape or kind of numbers than the network was trained on.
        """
        inputs = self.interface.inputs
        assert inputs is not None
        rows, valid = inputs.rows(x, self.interface.d_input, lengths)
        return inputs(torch.as_tensor(rows)), None if valid is None else torch.as_tensor(valid)

    @torch.no_grad()
    def predict(self, x: Any, lengths: Any = None, *, batch_size: int = BATCH) -> Prediction:
        """Labels, probabilities and spikes of raw sequences, in eval mode; the mode is restored.

        Args:
            x: as in `prepare`.
            lengths: as in `prepare`.
            batch_size: sequences at once, >= 1.

        Raises:
            ValueError: as in `prepare`.
        """
        if batch_size < 1:
            raise ValueError(f"predict: batch_size must be at least 1, got {batch_size}.")
        ready, valid = self.prepare(x, lengths)
        if len(ready) == self.interface.length != ready.shape[1] and isinstance(self.interface.inputs, Numbers):
            logger.warning(
                f"x is read as {len(ready)} sequences of {ready.shape[1]} steps, and the network was trained on "
                f"{self.interface.length} steps. If time comes first, give x.transpose(1, 0, 2)."
            )
        parts = []
        with evaluating(self):
            for at in range(0, len(ready), batch_size):
                real = None if valid is None else valid[at : at + batch_size]
                parts.append(self._answered(ready[at : at + batch_size], real))
        logits = torch.cat([part[0] for part in parts])
        layers = {name: torch.cat([part[1][name] for part in parts]) for name in parts[0][1]}
        return self._prediction(logits, valid, layers)

    def with_solver(self, solver: str | Solver) -> Self:
        """The same network and weights, its neurons under another solver, such as "fused" for the exact ones."""
        network = able(self.network, "with_solver").with_solver(solver)
        return type(self)(network, self.interface, self.task, self.config, self.facts, self.folder)

    def save(self, folder: str | Path) -> Path:
        """Write a folder that holds all of this and nothing else: `load_model` opens it, ``evaluate`` tests it.

        Where the data of the training lie is left out, so that no path of this machine goes along.

        Args:
            folder: is made; it must be empty or not there.

        Raises:
            FileExistsError: there is something in it.
        """
        out = Path(folder)
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} is not empty; choose another folder.")
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        weights = {f"model.{name}": value.cpu() for name, value in self.network.state_dict().items()}
        save_tensors(out / "checkpoints" / "best.ckpt", {"state_dict": weights})
        self.interface.write(out)
        if (self.folder / ARTIFACT).is_file():
            shutil.copyfile(self.folder / ARTIFACT, out / ARTIFACT)
        config = copy.deepcopy(self.config)
        config["data"] |= {key: None for key in PLACES if key in config["data"]}
        if isinstance(solver := config["model"].get("solver"), dict) and "artifact" in solver:
            solver["artifact"] = ARTIFACT  # which `stored` looks for beside it
        config |= {"run_dir": f"runs/{config['name']}", "resume": None, "weights": None}
        with writing(out / "config.yaml") as partial:
            partial.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
        if self.facts:
            write_json(out / "summary.json", {key: value for key, value in self.facts.items() if key != "command"})
        return out

    def extra_repr(self) -> str:
        """Name, sizes and what it was tested to."""
        data, test = self.interface, self.facts.get("test", {})
        shown = {key: value for key, value in test.items() if isinstance(value, float)}
        chosen = [*[key for key in shown if key not in COSTS][:1], *(["loss"] if "loss" in shown else [])]
        quality = ", ".join(f"test {key} {plain_number(shown[key])}" for key in chosen)
        return f"{data.name}: {data.length} steps x {data.d_input} -> {data.d_output}; {quality}".rstrip("; ")

    def _answered(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of a batch, and the spikes of each row by layer."""
        counts: dict[str, Tensor] = {}

        def count(seen: Firing) -> None:
            fired = seen.spikes if seen.valid is None else seen.spikes * seen.valid.unsqueeze(-1)
            found = fired.sum((1, 2), dtype=torch.float64).long().reshape(len(x), -1).sum(1).cpu()
            counts[seen.name] = counts.get(seen.name, 0) + found

        x = placed(self.network, x)
        with _ONE_BY_ONE, watch_neurons(self.network, count):
            real = None if valid is None else valid.to(x.device)
            logits = self.network(x, None, lengths=real)[0]
        return answer_of(self.task, logits, real).cpu(), counts

    def _prediction(self, logits: Tensor, valid: Tensor | None, layers: dict[str, Tensor]) -> Prediction:
        spikes = torch.stack(list(layers.values())).sum(0)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = self.interface.targets
        if isinstance(targets, NumberTargets):
            return Prediction(_numbers(targets, wide, valid), None, None, logits, spikes, layers)
        if isinstance(targets, LabelTargets):
            shares = wide.sigmoid()
            sets = (shares > 0.5).long()
            told = [[self.interface.class_name(k) for k, there in enumerate(row) if there] for row in sets.tolist()]
            return Prediction(sets, told, shares, logits, spikes, layers)
        labels = wide.argmax(-1)
        if labels.ndim == 2 and valid is not None:
            labels = labels.masked_fill(torch.arange(labels.shape[1]) >= valid[:, None], IGNORED)
        names = [self.interface.class_name(label) for label in labels.tolist()] if labels.ndim == 1 else None
        return Prediction(labels, names, wide.softmax(-1), logits, spikes, layers)


def _numbers(targets: NumberTargets, answers: Tensor, valid: Tensor | None) -> Tensor:
    """Numbers in the units of the data; the last axis of a single one is left out."""
    found = targets.own(answers)
    if found.ndim == 3 and valid is not None:
        found = found.masked_fill((torch.arange(found.shape[1]) >= valid[:, None])[..., None], torch.nan)
    return found.squeeze(-1) if found.shape[-1] == 1 else found


def load_model(run: str | Path, solver: str | Solver | None = None) -> TrainedModel:
    """Open a trained network from its run folder, and from nothing else: no data file is read.

    Args:
        run: a run folder, on any machine, or the name of a network that ships, such as "spoken-digits".
        solver: of its neurons; None is the one that it was trained with. "fused" is exact and fast.

    Returns:
        the model with its best weights, in eval mode.

    Raises:
        FileNotFoundError: no run there, or none that has finished an epoch.
        ValueError: a run of an older version, which keeps nothing of how its data are read, or a damaged one.

    Example:
        >>> model = spikingssm.load_model("runs/mine-0")
        >>> model.predict(x).names
    """
    folder = folder_of(run)
    config, interface = stored(folder), interface_of(folder)
    if solver is not None and "solver" in config.model:
        OmegaConf.update(config, "model.solver", "loop", merge=False)  # so that no surrogate is looked for
    module = open_module(config, interface, best_of(folder))
    plain: Any = OmegaConf.to_container(stored(folder))
    model = TrainedModel(module.model, interface, module.task, plain, _summary(folder), folder)
    return (model if solver is None else model.with_solver(solver)).eval()


def interface_of(folder: str | Path) -> Interface:
    """What the network in a run folder knows of its data.

    Raises:
        ValueError: the folder does not say it.
    """
    if not (Path(folder) / FILE).is_file():
        raise ValueError(
            f"{folder}: has no {FILE}, which says how its data are read: the run is older, or its data have a function "
            "of their own. `python -m spikingssm evaluate` opens it with its data; or train it again."
        )
    return Interface.read(folder)


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / "summary.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
