"""A small training that `test_distributed` runs alone, and as a script in two processes."""

import sys
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from sdn import Neuron
from spikingssm.datasets import Rows, SequenceData
from spikingssm.models import SpikingSSM
from spikingssm.tasks import StepClassification
from spikingssm.training.callbacks import StepCheckpoint
from spikingssm.training.fit import SequenceModule, fit, score

TRAINER = {"accelerator": "cpu", "precision": "64-true", "max_epochs": 2, "enable_progress_bar": False}


def rows(count: int, seed: int) -> Rows:
    """Noise with a label at most steps: how many there are differs from row to row."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, (count, 10))
    x = draw.normal(size=(count, 10, 2)) + y[..., None]
    return Rows(x, np.where(draw.random((count, 10)) < np.linspace(0.1, 0.7, count)[:, None], -100, y))


def data(batch_size: int, **options) -> SequenceData:
    parts = {"train": rows(50, 0), "test": rows(21, 1), "val": rows(11, 2)}
    return SequenceData("noise", **parts, d_output=3, batch_size=batch_size, seed=5, **options)


def module(**options) -> SequenceModule:
    torch.manual_seed(0)
    sizes = {"d_model": 6, "n_layers": 2, "d_state": 4, "norm": "layer", "pool": "each", "dropout": 0.0, **options}
    model = SpikingSSM(2, 3, **sizes, solver="loop")
    return SequenceModule(model, StepClassification(), classes=3, lr=0.02)


class FirstStep(Callback):
    """Keeps what the first step saw: the inputs, the spikes of every neuron, and the gradients."""

    def __init__(self) -> None:
        self.x, self.spikes, self.gradients = None, {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.x is None:
            self.x = batch.x.clone()
            neurons = {name: part for name, part in pl_module.model.named_modules() if isinstance(part, Neuron)}
            self.hooks = [part.register_forward_hook(self._keep(name)) for name, part in neurons.items()]

    def _keep(self, name):
        def keep(_, inputs, output) -> None:
            self.spikes.setdefault(name, output[0].detach().clone())

        return keep

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if not self.gradients:
            self.gradients = {
                name: p.grad.clone() for name, p in pl_module.model.named_parameters() if p.grad is not None
            }


class Killed(BaseException):
    """Stands in for a kill."""


class KillAt(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 2):
            raise Killed


def run(folder: Path, batch_size: int, sizes: dict | None = None, **options) -> dict:
    """Train and test; what the first step saw, the weights and the test values."""
    one, first = module(**sizes or {}), FirstStep()
    loop = fit(one, data(batch_size), folder, seed=1, callbacks=[first], **{**TRAINER, **options})
    weights = {key: value.clone() for key, value in one.state_dict().items()}
    seen = {"x": first.x, "spikes": first.spikes, "gradients": first.gradients}
    return {**seen, "weights": weights, "test": score(one, data(batch_size), loop), "rank": loop.global_rank}


def main(folder: Path) -> None:
    two = {"devices": 2, "strategy": "ddp"}
    found = run(folder / "whole", 5, **two)
    torch.save(found, folder / f"rank{found['rank']}.pt")
    more = {"seed": 1, **TRAINER, **two}
    try:
        fit(
            module(dropout=0.3),
            data(5),
            folder / "killed",
            callbacks=[KillAt(), StepCheckpoint(folder / "killed", 1)],
            **more,
        )
    except Killed:
        fit(module(dropout=0.3), data(5), folder / "killed", resume=True, **more)
    fit(module(dropout=0.3), data(5), folder / "not killed", **more)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
