"""Suite ``experiments``: one training step of every experiment at its full size, neurons by several solvers.

A step is forward, loss, backward, AdamW, on a drawn batch of the real shape. On a CPU the batch has as many sequences
as fit `MOST` numbers of activations; the step of the published batch is that time scaled by the sequences. On a CUDA
device the batch is the published one, and peak memory is measured too. "published neuron" is the same network with the
neuron as the published code runs it: a scripted surrogate network over (B, H, L).
"""

import time
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from benchmarks.harness import Bench, Run
from benchmarks.published_model import published_neuron
from sdn import Neuron
from spikingssm.datasets import Batch
from spikingssm.experiments.config import call, load

__all__ = ["SHAPES", "PublishedNeuron", "run", "step"]

SOLVERS = ("fused", "surrogate", "published neuron")
MOST = 2**23
"""Numbers in one tensor of activations, summed over the layers, that a step on a CPU may have."""
ROUNDS, SECONDS = 3, 3.0
"""Steps are long: at most so many are timed, and none more once they took that long."""
SHAPES = {  # steps, features or None for tokens, classes, size of the vocabulary
    "mnist": (784, 1, 10, None), "pmnist": (784, 1, 10, None), "cifar": (1024, 1, 10, None),
    "listops": (2048, None, 10, 18), "imdb": (4096, None, 2, 256), "aan": (4000, None, 2, 98),
    "pathfinder": (1024, 1, 2, None), "pathx": (16384, 1, 2, None), "sc": (16000, 1, 35, None),
    "dvs128gesture": (4352, 64, 11, None), "ecg": (1301, 4, 6, None), "fsdd": (8000, 1, 10, None),
    "sc10": (16000, 1, 10, None), "wt103": (8192, None, 267735, 267735),
}  # fmt: skip


class PublishedNeuron(nn.Module):
    """A neuron layer as the published code runs it, in the place of an `sdn.Neuron`: threshold by division."""

    def __init__(self, channels: int, learn_threshold: bool) -> None:
        super().__init__()
        self.log_threshold = nn.Parameter(torch.zeros(channels, 1), requires_grad=learn_threshold)
        self.run = published_neuron("scripted SDN")

    def forward(self, current: Tensor, state: None = None) -> tuple[Tensor, None]:
        """(B, L, H) -> spikes (B, L, H); no state."""
        return self.run(current.transpose(1, 2) / self.log_threshold.exp()).transpose(1, 2), None


def run(bench: Bench) -> None:
    """A step of each experiment."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in bench.pick(tuple(SHAPES), ("fsdd", "ecg")):
        small = bench.pick((), (), ("model.d_model=8", "model.n_layers=1", "data.batch_size=2"))
        config = load([f"experiment=spikingssm/{name}", *small])
        wanted, rows = config.data.batch_size, _rows(config, name, device)
        case = {"table": "step", "experiment": name, "length": SHAPES[name][0], "batch": wanted, "measured": rows}
        for solver in SOLVERS:
            try:
                once = step(config, name, rows, solver, device)
                seconds, memory = _timed(bench, once, device)
            except torch.OutOfMemoryError:
                bench.note(f"{name}, {solver}: out of memory at batch {rows} on {device}")
                continue
            found: dict[str, Any] = {"seconds": seconds, "of_published_batch": seconds * wanted / rows}
            bench.add(**case, variant=solver, **found, gibibytes=memory)


def step(config: DictConfig, name: str, rows: int, solver: str, device: torch.device) -> Run:
    """One training step of an experiment's network on a drawn batch.

    Args:
        config: of the experiment.
        name: a key of `SHAPES`.
        rows: sequences in the batch.
        solver: a word of `sdn`, or "published neuron".
        device: where it runs.
    """
    torch.manual_seed(0)
    length, features, classes, vocab = SHAPES[name]
    tokens = {} if vocab is None else {"vocab": vocab, "pairs": name == "aan"}
    config.model.solver = "fused" if solver == "published neuron" else solver
    model = call("model", config.model, d_input=features or 1, d_output=classes, **tokens)
    if solver == "published neuron":
        _publish(model)
    model.to(device).train()
    task, each = call("task", config.task), config.model.pool == "each"
    shape = (rows, length, features) if vocab is None else (rows, 2, length) if name == "aan" else (rows, length)
    x = torch.randn(shape) if vocab is None else torch.randint(vocab, shape)
    y = torch.randint(classes, (rows, length) if each else (rows,))
    batch = Batch(x.to(device), y.to(device))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def once() -> None:
        task.run(model, batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return once


def _publish(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Neuron):
                setattr(parent, name, PublishedNeuron(child.channels, "threshold" in child.learned))


def _rows(config: DictConfig, name: str, device: torch.device) -> int:
    """Sequences in the measured batch."""
    if device.type == "cuda":
        return int(config.data.batch_size)
    model = config.model
    each = -(-SHAPES[name][0] // model.patch) * model.d_model * model.n_layers
    each *= 2 if name == "aan" else 1
    return max(1, min(config.data.batch_size, MOST // each))


def _timed(bench: Bench, once: Run, device: torch.device) -> tuple[float, float | None]:
    """Median seconds of a step, and GiB at its peak on a CUDA device."""
    cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    clock = time.perf_counter if cuda else time.process_time
    once()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    found = []
    for _ in range(min(bench.rounds, ROUNDS)):
        wait()
        start = clock()
        once()
        wait()
        found.append(clock() - start)
        if sum(found) > SECONDS:
            break
    return sorted(found)[len(found) // 2], torch.cuda.max_memory_allocated() / 2**30 if cuda else None
