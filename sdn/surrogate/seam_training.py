"""Train a seam network: the states of a neuron at all places where a seam may lie, and Adam on their errors."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdn.dynamics.base import Dynamics, at_start
from sdn.ops.neuron import operator as neuron
from sdn.ops.neuron.layout import Kernel
from sdn.ops.neuron.sequence import operands
from sdn.surrogate.crops import STEPS_PER_BLOCK, Blocks
from sdn.surrogate.fidelity import evaluate
from sdn.surrogate.running import epoch_to_start, train
from sdn.surrogate.seams import ReducedSeamSDN, SeamSDN, reduce_seams
from sdn.surrogate.shooting import features
from sdn.surrogate.trajectory_files import TrajectoryFile

__all__ = ["SeamRecipe", "fit_seams"]

WIDTHS = (0.0, 1.0, 2.0, 4.0)
"""Widths of the triangle that are tried, in units of what a usual current adds to the membrane at once."""
SHOWN = ("agreement", "f1", "trivial_agreement")
SHIFTS = 32
"""Places of the seams in a row that are learned from."""


@dataclass(frozen=True)
class SeamRecipe:
    """How a seam network is trained.

    Args:
        epochs: validations, and checkpoints; the cosine ends with the last one.
        steps_per_epoch: optimiser steps between them.
        batch_size: seams in a minibatch.
        lr: peak learning rate of Adam; 50 steps of warm-up, then one cosine to nothing.
        rows: rows of the training file that are learned from.
        seed: of the weights and of the order of the seams.
    """

    epochs: int = 10
    steps_per_epoch: int = 300
    batch_size: int = 4096
    lr: float = 5e-3
    rows: int = 208
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "batch_size", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be > 0, got {self.lr}.")

    def lr_at(self, step: int) -> float:
        """The learning rate of optimiser step ``step`` (counted from 0)."""
        total = self.epochs * self.steps_per_epoch
        return self.lr * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / total)) + 1e-6


class Seams:
    """A neuron on the rows of a file: its currents, its exact states, and what a network sees of them.

    Args:
        file: trajectories of (N, L); each row is a lane.
    """

    def __init__(self, file: TrajectoryFile) -> None:
        self.dynamics, self.conditions = file.neurons, file.conditions
        self.x = file.input.T.contiguous().unsqueeze(0)

    def ready(self, x: Tensor) -> tuple[Kernel, Tensor]:
        """The neuron as its kernel sees it, and its state at rest."""
        dynamics, state = at_start(self.dynamics, x, None)
        return operands(dynamics, x, state, self.dynamics.default_spike)[:2]

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each field of the state, (S,)."""
        states = self.exact(self.x, 8)[:, 2:].transpose(2, 3).flatten(0, 2)
        return states.mean(0), states.std(0).clamp_min(1e-6)

    def exact(self, x: Tensor, chunk: int) -> Tensor:
        """The states before all chunks, without the program's own field: (1, n, S, H)."""
        kernel, first = self.ready(x)
        found = [first]
        for begin in range(0, x.shape[1] - chunk, chunk):
            piece = x[:, begin : begin + chunk].contiguous()
            found.append(neuron.run(kernel, piece, found[-1], ("", []), False, False)[1])
        return torch.stack(found, 1)[:, :, : len(self.dynamics.State._fields)]

    def pairs(self, network: ReducedSeamSDN) -> tuple[Tensor, Tensor]:
        """What a network sees, (M, F), and the corrections that would be right, (M, S), at all seams of all shifts.

        A shift is silence in front of the current.
        """
        chunk = network.chunk
        seen, right = [], []
        step = max(1, chunk // SHIFTS)
        for shift in range(0, chunk, step):
            length = self.x.shape[1] - shift
            x = torch.cat([torch.zeros_like(self.x[:, :shift]), self.x[:, :length]], 1)
            kernel, first = self.ready(x)
            found, near = features(network, kernel, x, first, self.conditions)
            error = (self.exact(x, chunk) - near[:, :, : network.states])[:, 1:]
            seen.append(found.transpose(2, 3).flatten(0, 2))
            right.append(error.transpose(2, 3).flatten(0, 2))
        return torch.cat(seen), torch.cat(right)


class SeamTraining(lightning.LightningModule):
    """A Lightning batch is a block of optimiser steps, an epoch ends with a validation."""

    def __init__(self, network: SeamSDN, recipe: SeamRecipe, dynamics: Dynamics, held_out: TrajectoryFile) -> None:
        super().__init__()
        self.network, self.recipe, self.dynamics, self.held_out = network, recipe, dynamics, held_out
        self.automatic_optimization = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam; fused, since the tensors are tiny."""
        return torch.optim.Adam(self.network.parameters(), lr=self.recipe.lr, betas=(0.9, 0.99), fused=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One block of steps."""
        optimizer: Any = self.optimizers()
        done = self.current_epoch * self.recipe.steps_per_epoch + batch_idx * STEPS_PER_BLOCK
        last, total = len(batch[0]) - 1, torch.zeros(())
        for i, (seen, right) in enumerate(zip(*batch, strict=True)):
            optimizer.param_groups[0]["lr"] = self.recipe.lr_at(done + i)
            loss = (self.network(seen) - right).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            (optimizer if i == last else optimizer.optimizer).step()  # one step a block is Lightning's global_step
            total += loss.detach()
        self.log("train/loss", total / len(batch[0]), on_step=False, on_epoch=True, batch_size=len(batch[0]))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The error at the seams, and the spikes of three rounds on the same rows."""
        seen, right = batch
        scores = asdict(evaluate(self.network, self.held_out, self.dynamics, rounds=3))
        self.log("val/loss", (self.network(seen) - right).abs().mean(), batch_size=1)
        self.log_dict({f"val/{name}": scores[name] for name in SHOWN}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the network by itself, and what it stands for."""
        state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        sizes = {"kind": "seams", **self.network.sizes}
        checkpoint["sdn"] = {"state": state, "sizes": sizes, "dynamics": self.dynamics.facts()}
        checkpoint["recipe"] = asdict(self.recipe)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Minibatches of seams in random order; which ones is a pure function of (seed, block)."""

    def __init__(self, seen: Tensor, right: Tensor, recipe: SeamRecipe) -> None:
        self.seen, self.right, self.recipe = seen, right, recipe

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features (steps, F, batch) and corrections (steps, S, batch) of a block."""
        index, steps = key
        generator = torch.Generator().manual_seed((self.recipe.seed + 1) * 1_000_003 + index)
        place = torch.randint(len(self.seen), (steps, self.recipe.batch_size), generator=generator)
        return self.seen[place].transpose(1, 2), self.right[place].transpose(1, 2)


def fit_seams(
    network: SeamSDN, train_file: TrajectoryFile, val: TrajectoryFile, run_dir: Path, recipe: SeamRecipe, resume: bool
) -> None:
    """Train a seam network and leave its last state in a checkpoint; see `sdn.fit`."""
    rows, held_out = train_file.rows(0, recipe.rows), val.rows(0, max(16, recipe.rows // 4))
    data = Seams(rows)
    if data.x.shape[1] <= 2 * network.chunk:
        raise ValueError(
            f"fit: the rows have {data.x.shape[1]} steps; a seam network with chunks of {network.chunk} needs more "
            f"than {2 * network.chunk}. Generate longer rows or take shorter chunks."
        )
    with torch.no_grad():
        _prepare(network, data, rows)
        network.initialise(recipe.seed)
        plain = reduce_seams(network).float()
        seen, right = data.pairs(plain)
        network.feature_mean.copy_(seen.mean(0))
        network.feature_std.copy_(seen.std(0).clamp_min(1e-6))
        scale = network.state_std
        check = [tuple(part.T for part in _scaled(Seams(held_out).pairs(plain), scale))]
    start = epoch_to_start(run_dir, {"kind": "seams", **network.sizes} | asdict(recipe), resume)
    module = SeamTraining(network, recipe, train_file.dynamics, held_out)
    blocks: Any = Blocks(recipe.steps_per_epoch, start)
    feed = DataLoader(Batches(*_scaled((seen, right), scale), recipe), sampler=blocks, batch_size=None)
    held: Any = check
    train(module, feed, DataLoader(held, batch_size=None), run_dir, recipe.epochs, start)


def _scaled(pairs: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor]:
    return pairs[0], pairs[1] / scale


def _prepare(network: SeamSDN, data: Seams, rows: TrajectoryFile) -> None:
    """Take the mean states, and the width with which rounds from them find most spikes without any correction."""
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.zeros_(network.last.bias)
    mean, std = data.statistics()
    network.state_mean.copy_(mean)
    network.state_std.copy_(std)
    usual = float(data.x.std()) * float(torch.as_tensor(data.dynamics.gain).abs().mean())
    unit = usual if usual > 0 else 0.1 * float(std[0])
    best = -1.0
    for width in WIDTHS:
        network.width = width * unit
        found = sum(evaluate(network, rows, rows.dynamics, rounds=rounds).agreement for rounds in (2, 3, 4))
        if found > best + 1e-6:
            best, chosen = found, network.width
    network.width = chosen
