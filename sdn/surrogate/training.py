"""Train SDNs on trajectories: short random crops, several seeds at once, one cosine, the best by validation.

Needs the extra `train`.
"""

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sdn.checks.arguments import ArgumentError
from sdn.dynamics.base import Dynamics
from sdn.runs import folder as runs
from sdn.surrogate.analytic import analytic_start
from sdn.surrogate.crops import STEPS_PER_BLOCK, Blocks, Crops
from sdn.surrogate.fidelity import LOSSES
from sdn.surrogate.network import SDN, of_weights
from sdn.surrogate.population import Population
from sdn.surrogate.recipe import Recipe
from sdn.surrogate.running import epoch_to_start
from sdn.surrogate.running import train as run
from sdn.surrogate.seam_training import SeamRecipe, fit_seams
from sdn.surrogate.seams import SeamSDN
from sdn.surrogate.trajectory_files import TrajectoryFile

__all__ = ["History", "fit", "load_sdn"]

VALIDATION_ROWS = 512


class History(NamedTuple):
    """What `fit` did: one dict per epoch, and the epoch and validation loss of the network it chose."""

    rows: list[dict[str, float]]
    best_epoch: int
    best_loss: float


class PopulationTraining(lightning.LightningModule):
    """The race: a Lightning batch is a block of optimiser steps, an epoch ends with a validation and maybe a cut."""

    def __init__(self, population: Population, recipe: Recipe, dynamics: Dynamics) -> None:
        super().__init__()
        self.population, self.recipe, self.dynamics = population, recipe, dynamics
        self.automatic_optimization = False
        self.best_member, self.losses = 0, torch.zeros(population.members)
        self.sums: dict[str, Any] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW over all members; fused, since the tensors are tiny."""
        kind = torch.optim.AdamW if self.recipe.optimizer == "adamw" else torch.optim.Adam
        weights, r = list(self.population.weights.values()), self.recipe
        return kind(weights, lr=r.lr, eps=1e-10, weight_decay=r.weight_decay, fused=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One block: a step of every member on each of its minibatches."""
        optimizer: Any = self.optimizers()
        done = self.current_epoch * self.recipe.steps_per_epoch + batch_idx * STEPS_PER_BLOCK
        total = torch.zeros(self.population.members)
        last = len(batch[0]) - 1
        for i, (input, target) in enumerate(zip(*batch, strict=True)):
            optimizer.param_groups[0]["lr"] = self.recipe.lr_at(done + i)
            loss = self._loss(self.population(input), target).mean((1, 2))
            optimizer.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            # Lightning's wrapper counts one step a block: that is its global_step; the plain step is twice as fast.
            (optimizer if i == last else optimizer.optimizer).step()
            self.population.follow(self.recipe.average_keep)
            total += loss.detach()
        batch_loss = torch.nan_to_num(total / len(batch[0]), nan=math.inf).min()  # one member may diverge
        self.log("train/loss", batch_loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.sums = {"loss": torch.zeros(self.population.members), "hit": 0.0, "fired": 0.0, "right": 0.0}
        self.sums |= {"spikes": 0.0, "zero": 0.0, "steps": 0}

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Whole rows, all members; the first R steps of a row only serve as history."""
        input, mem, spike = batch
        reach = self.population.receptive_field
        predicted = self.population(input, average=True)
        now, mem, spike = input[:, reach:], mem[:, reach:], spike[:, reach:]
        fired, zero = self.dynamics.fires(predicted, now), self.dynamics.fires(torch.zeros_like(mem), now)
        add: dict[str, Any] = {
            "loss": self._loss(predicted, mem).sum((1, 2)), "right": (fired == spike).sum((1, 2)).float(),
            "hit": (fired & spike).sum((1, 2)).float(), "fired": fired.sum((1, 2)).float(),
            "spikes": spike.sum().float(), "zero": (zero == spike).sum().float(), "steps": mem.numel(),
        }  # fmt: skip
        for name, value in add.items():
            self.sums[name] = self.sums[name] + value

    def on_validation_epoch_end(self) -> None:
        """Choose the best member and log its scores."""
        s = self.sums
        self.losses = torch.nan_to_num(s["loss"] / s["steps"], nan=math.inf)
        self.best_member = best = int(self.losses.argmin())
        agreement, f1 = s["right"][best] / s["steps"], 2 * s["hit"][best] / (s["fired"][best] + s["spikes"])
        scores = {
            "loss": self.losses[best],
            "agreement": agreement,
            "f1": f1,
            "trivial_agreement": s["zero"] / s["steps"],
        }
        self.log_dict({f"val/{k}": v for k, v in scores.items()})

    def on_train_epoch_end(self) -> None:
        """Drop the worse half when its time has come; checkpoints are written after this."""
        keep = self.recipe.survivors(self.current_epoch, self.population.members)
        if keep < self.population.members:
            chosen = self.losses.argsort()[:keep]
            optimizer: Any = self.optimizers()
            _keep_members(self.population, optimizer.optimizer, chosen)
            self.best_member, self.losses = 0, self.losses[chosen]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the chosen network as an SDN of its own, and what it stands for."""
        d_model, kernel_size, n_layers = self.population.sizes
        sizes = {"d_model": d_model, "kernel_size": kernel_size, "n_layers": n_layers}
        state = self.population.member(self.best_member).state_dict()
        checkpoint["sdn"] = {"state": dict(state), "sizes": sizes, "dynamics": self.dynamics.facts()}
        checkpoint["recipe"] = asdict(self.recipe)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take on the number of members that were left."""
        members = len(checkpoint["state_dict"]["population.weights.decoder-bias"])
        self.population.keep(torch.arange(members))
        self.losses = self.losses[:members]

    def _loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = LOSSES[self.recipe.loss](predicted, target.expand_as(predicted), reduction="none")
        return loss


def fit(
    sdn: SDN | SeamSDN,
    train: TrajectoryFile,
    val: TrajectoryFile,
    *,
    run_dir: str | os.PathLike[str],
    recipe: Recipe | SeamRecipe | None = None,
    resume: bool = False,
    num_workers: int = 0,
) -> History:
    """Train an SDN of this size and leave the best network, by validation loss, in ``sdn``.

    Args:
        sdn: says the kind and the size; its weights are replaced. A `SeamSDN` serves every neuron, an `SDN` those
            that forget within its receptive field, as LIF with a decay up to 0.2.
        train: trajectories, rows (N, L); mapped files are not read as a whole.
        val: trajectories of the same neuron, as ``train``.
        run_dir: gets metrics.csv, tensorboard/ and checkpoints/{best,last}.ckpt.
        recipe: how to train; None is ``Recipe()`` for an `SDN`, and ``SeamRecipe()`` for a `SeamSDN`.
        resume: go on from ``checkpoints/last.ckpt``; the result is bit-equal to that of an uninterrupted run.
        num_workers: processes that cut crops.

    Returns:
        History: the epochs, and which one was chosen.

    Raises:
        FileExistsError: the folder holds a run and ``resume`` is not set.
        BlockingIOError: another process writes to the folder.
        ValueError: splits of different neurons, rows too short, or a loss that is no longer finite.
    """
    run_dir, dynamics, wanted = Path(run_dir), train.dynamics, SeamRecipe if isinstance(sdn, SeamSDN) else Recipe
    recipe = recipe or wanted()
    if not isinstance(recipe, wanted):
        who, found = type(sdn).__name__, type(recipe).__name__
        raise ArgumentError(f"fit: the recipe of a {who} is a {wanted.__name__}, got a {found}.")
    if val.dynamics != dynamics:
        raise ValueError(f"fit: the training rows are of {dynamics}, the validation rows of {val.dynamics}.")
    if isinstance(sdn, SeamSDN) and isinstance(recipe, SeamRecipe):
        fit_seams(sdn, train, val, run_dir, recipe, resume)
    elif isinstance(sdn, SDN) and isinstance(recipe, Recipe):
        if train.values:
            raise ValueError(f"fit: an SDN stands for one value of {[*train.values]}; train a SeamSDN for a range.")
        _fit_pointwise(sdn, train, val, run_dir, recipe, resume, num_workers)
    path = run_dir / "checkpoints" / "best.ckpt"
    best, found = runs.load_checkpoint(path), load_sdn(path)[0]
    sdn.load_state_dict(found.state_dict())
    if isinstance(sdn, SeamSDN):
        sdn.width = found.width
    sdn.eval()
    rows = runs.read_metrics(run_dir / "metrics.csv")
    chosen = int(best["epoch"])
    return History(rows, chosen, next((r["val/loss"] for r in rows if r["epoch"] == chosen), math.nan))


def _fit_pointwise(
    sdn: SDN,
    train: TrajectoryFile,
    val: TrajectoryFile,
    run_dir: Path,
    recipe: Recipe,
    resume: bool,
    num_workers: int,
) -> None:
    for name, part in (("training", train), ("validation", val)):
        if part.input.shape[1] <= sdn.receptive_field or not len(part.input):
            raise ValueError(
                f"fit: the {name} rows are {tuple(part.input.shape)}; at least one row is needed, longer than the "
                f"receptive field of {sdn.receptive_field} steps. Generate longer rows or take a smaller kernel."
            )
    dynamics = train.dynamics
    sizes = {"d_model": sdn.d_model, "kernel_size": sdn.kernel_size, "n_layers": sdn.n_layers}
    start = epoch_to_start(run_dir, sizes | asdict(recipe), resume)
    population = Population(recipe.members, sdn.d_model, sdn.kernel_size, sdn.n_layers, recipe.norms == "live")
    sample = train.input[:VALIDATION_ROWS]
    memory = getattr(dynamics, "decay", 0.5)
    if recipe.init == "analytic":
        population.start_from(analytic_start(dynamics, sdn.d_model, sdn.kernel_size, sdn.n_layers))
    else:
        population.initialise(recipe.seed, float(memory), max(float(sample.std()), 1e-6))
    module = PopulationTraining(population, recipe, dynamics)
    feed, check = _feeds(train, val, recipe, sdn, start, num_workers)
    run(module, feed, check, run_dir, recipe.epochs, start)


def _feeds(
    train: TrajectoryFile, val: TrajectoryFile, recipe: Recipe, sdn: SDN, start: int, num_workers: int
) -> tuple[Any, Any]:
    """The loaders of crops, from epoch ``start`` on, and of whole validation rows."""
    crops = Crops(train, recipe, sdn.receptive_field, from_start=sdn.n_layers == 1)
    blocks: Any = Blocks(recipe.steps_per_epoch, start)
    held_out = val.rows(0, VALIDATION_ROWS)
    parts: Any = [held_out.rows(i, i + 64)[:3] for i in range(0, len(held_out.input), 64)]
    feed = DataLoader(crops, sampler=blocks, batch_size=None, num_workers=num_workers)
    return feed, DataLoader(parts, batch_size=None)


def load_sdn(path: str | os.PathLike[str]) -> tuple[Any, Dynamics]:
    """The `SDN` or `SeamSDN` in a checkpoint of `fit`, in eval mode, and the neuron it was trained for.

    Raises:
        FileNotFoundError, ValueError: no such file, or not such a checkpoint.
    """
    content = runs.load_checkpoint(path)
    try:
        found = content["sdn"]
        sizes = dict(found["sizes"])
        kind: Any = SeamSDN if sizes.pop("kind", "pointwise") == "seams" else SDN
        sdn = of_weights(kind, sizes, dict(found["state"]))
        return sdn, Dynamics.from_facts(found["dynamics"])
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        if str(error).startswith("no dynamics is named '"):
            raise ValueError(f"{path}: {error}") from None
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: holds no SDN ({reason}); give best.ckpt of a run of `sdn train --save`.") from None


def _keep_members(population: Population, optimizer: torch.optim.Optimizer, chosen: Tensor) -> None:
    """Drop members from the population and their moments from the optimiser."""
    moments = [optimizer.state[p] for p in optimizer.param_groups[0]["params"]]
    population.keep(chosen)
    weights = list(population.weights.values())
    optimizer.state.clear()
    optimizer.param_groups[0]["params"] = weights
    for weight, moment in zip(weights, moments, strict=True):
        optimizer.state[weight] = {k: v[chosen].clone() if v.ndim else v for k, v in moment.items()}
