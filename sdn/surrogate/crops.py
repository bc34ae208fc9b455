"""Minibatches of short random crops out of long rows, each a pure function of (seed, index)."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sdn.surrogate.recipe import Recipe
from sdn.surrogate.trajectory_files import TrajectoryFile

__all__ = ["STEPS_PER_BLOCK", "Blocks", "Crops"]

STEPS_PER_BLOCK = 100


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Minibatches of short random crops; which ones is a pure function of (seed, index).

    Args:
        data: rows (N, L), mapped or in memory.
        recipe: batch size, crop length and seed.
        reach: receptive field R: a crop carries that much history.
        from_start: also crop where the history starts before the row, filled up with silence. Deeper networks pad
            their inner layers there and not only their input, so for them this is left out: they learn from the step
            R on, and `evaluate` counts all steps. (Measured for LIF 0.125, two layers of kernel 4: the mean error is
            0.007 at the first step, 0.002 at the second, and 0.0004 from the third on.)
    """

    def __init__(self, data: TrajectoryFile, recipe: Recipe, reach: int, from_start: bool) -> None:
        self.input, self.mem, self.recipe, self.reach = data.input, data.mem, recipe, reach
        self.rows, self.length = data.input.shape
        self.low = 0 if from_start else reach
        self.crop = min(recipe.crop, self.length - self.low)
        if self.crop < 1:
            raise ValueError(
                f"rows of {self.length} steps are too short for a receptive field of {reach}; use longer ones."
            )

    def block(self, index: int, steps: int) -> tuple[Tensor, Tensor]:
        """Inputs (steps, B, R + crop) and targets (steps, B, crop) of block ``index``."""
        generator = torch.Generator().manual_seed((self.recipe.seed + 1) * 1_000_003 + index)
        shape = (steps, self.recipe.batch_size)
        row = torch.randint(self.rows, shape, generator=generator)
        start = torch.randint(self.low, self.length - self.crop + 1, shape, generator=generator)
        step = start.unsqueeze(-1) + torch.arange(-self.reach, self.crop)
        place = row.unsqueeze(-1) * self.length + step
        input = self.input.reshape(-1)[place.clamp_min(0)].masked_fill_(step < 0, 0.0)
        return input, self.mem.reshape(-1)[place[..., self.reach :]]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return self.block(*key)


class Blocks(Sampler[tuple[int, int]]):
    """The blocks of an epoch as (index over the whole run, steps in it).

    Lightning tells it the epoch, but on resume only after it has drawn the first order: so the epoch to start with is
    an argument.

    Args:
        steps_per_epoch: optimiser steps; blocks have `STEPS_PER_BLOCK`, the last one what is left.
        epoch: the epoch that comes first.
    """

    def __init__(self, steps_per_epoch: int, epoch: int = 0) -> None:
        self.sizes = [min(STEPS_PER_BLOCK, steps_per_epoch - i) for i in range(0, steps_per_epoch, STEPS_PER_BLOCK)]
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter([(self.epoch * len(self.sizes) + i, size) for i, size in enumerate(self.sizes)])

    def __len__(self) -> int:
        return len(self.sizes)
