"""What a network with weights of 8 bits still knows: the test of its run, once for each of two plans."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikingssm.datasets import SequenceData
from spikingssm.experiments.evaluation import TrainedRun, load_run, load_run_on
from spikingssm.experiments.shipped import folder_of
from spikingssm.models.base import answers_of, patch_of
from spikingssm.streaming.plan import Plan
from spikingssm.streaming.stream import Stream

__all__ = ["StreamNetwork", "opened", "tested"]


class StreamNetwork(nn.Module):
    """A compiled step as a network over sequences, for tests: (B, L, C) -> logits, as the network's own.

    Args:
        plan: the step.
        model: the network, which says when it answers and how many samples make a step.
    """

    def __init__(self, plan: Plan, model: nn.Module) -> None:
        super().__init__()
        self.stream = Stream(plan, type(model).__name__)
        self.every, self.patch = answers_of(model) == "step", patch_of(model)
        self.tokens = plan.vocab is not None
        self.fired, self.steps = np.zeros(len(self.stream.layers), np.int64), 0

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """Each row by itself, up to its length; the spikes are counted."""
        rows = x.unsqueeze(-1) if self.tokens else x
        found = []
        for row, real in zip(rows.cpu().numpy(), _ends(x, lengths), strict=True):
            given = row[:real].astype(np.float32)
            given = np.pad(given, ((0, -len(given) % self.patch), (0, 0))).reshape(-(-real // self.patch), -1)
            at = self.stream.initial_state()
            logits = self.stream.run(given, at)
            self.fired += at.counts[0]
            self.steps += len(given)
            found.append(np.pad(logits, ((0, x.shape[1] - len(logits)), (0, 0))) if self.every else logits[-1])
        return torch.from_numpy(np.stack(found)), None

    def rates(self) -> dict[str, float]:
        """Spikes per neuron and step so far, by layer."""
        sizes = self.stream.layers
        return {
            name: float(fired) / (count * max(1, self.steps))
            for (name, count), fired in zip(sizes.items(), self.fired, strict=True)
        }


def opened(folder: str | Path, data: str | Path | None, root: str | Path | None, limit: int | None) -> TrainedRun:
    """The run of a trained network with its test data; arguments as in `spikingssm.experiments.evaluation.evaluate`.

    Raises:
        FileNotFoundError: the data are not there.
    """
    found = folder_of(folder)
    if data is not None:
        return load_run_on(found, data, limit=limit)
    return load_run(found, own_solver=False, root=root, limit=limit)


@torch.no_grad()
def tested(run: TrainedRun, plan: Plan) -> dict[str, Any]:
    """The task's metrics and the spike rates of a plan on the test rows of a run."""
    network = StreamNetwork(plan, run.module.model)
    task, data = run.module.task, run.data
    metrics = task.metrics(_outputs(data))
    for batch in data.test_dataloader():
        for name, given in task.run(network, batch, None, training=False).updates.items():
            metrics[name].update(*given)
    found = {name: float(metric.compute()) for name, metric in metrics.items()}
    return {**found, "rows": len(data.test_rows), "spike_rates": network.rates()}


def _outputs(data: SequenceData) -> int:
    return int(data.d_output)


def _ends(x: Tensor, lengths: Tensor | None) -> list[int]:
    if lengths is None:
        return [x.shape[1]] * len(x)
    found: list[int] = lengths.tolist()
    return found
