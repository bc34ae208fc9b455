"""How an SDN is trained: every number of it, as one frozen value."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from sdn.surrogate.fidelity import LOSSES

__all__ = ["Recipe"]

LARGEST = 2**28
"""Numbers of a minibatch over all members; the default has 2^15."""


@dataclass(frozen=True)
class Recipe:
    """How an SDN is trained. The defaults are ours; `published` is the origin's.

    Args:
        epochs: validations, and checkpoints; the cosine ends with the last one.
        steps_per_epoch: optimiser steps between them.
        batch_size: crops in a minibatch.
        crop: predicted steps in a crop (cut to what the rows allow).
        lr: peak learning rate; 1 % warm-up, then one cosine to lr / 1000.
        loss: "l1", "mse" or "smooth_l1".
        optimizer: "adam" or "adamw".
        weight_decay: of AdamW.
        members: networks trained side by side from different seeds; the worse half (by validation loss) is dropped
            after 40, 60 and 75 % of the epochs.
        ema: running average of the weights that is validated and exported, over 1 / (1 - ema) steps but never over more
            than 1 % of the run; 0 is none.
        norms: "frozen" at the scale of the data, or "live" batch statistics.
        init: where the weights start from: "random", or "analytic", the weights that are written down for a LIF
            (`sdn.analytic`), which a training with an lr of about 1e-5 then adapts to its currents.
        seed: of the weights and the crops.
    """

    epochs: int = 100
    steps_per_epoch: int = 1400
    batch_size: int = 64
    crop: int = 64
    lr: float = 1e-2
    loss: Literal["l1", "mse", "smooth_l1"] = "l1"
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    members: int = 8
    ema: float = 0.999
    norms: Literal["frozen", "live"] = "frozen"
    init: Literal["random", "analytic"] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "batch_size", "crop", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.members * self.batch_size * self.crop > LARGEST:
            raise ValueError(
                f"members * batch_size * crop must be at most {LARGEST}, since a step holds that many numbers in each "
                f"channel, got {self.members} * {self.batch_size} * {self.crop}."
            )
        if not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf or not 0 <= self.ema < 1:
            raise ValueError(
                f"lr must be > 0, weight_decay >= 0, ema in [0, 1); got {self.lr}, {self.weight_decay}, {self.ema}."
            )
        for name, known in {
            "loss": [*LOSSES],
            "optimizer": ["adam", "adamw"],
            "norms": ["frozen", "live"],
            "init": ["random", "analytic"],
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}.")
        if self.init == "analytic" and (self.norms == "live" or self.members > 1):
            raise ValueError(
                f"init 'analytic' is one network with frozen norms, got {self.members} members, norms {self.norms!r}."
            )
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError(f"weight_decay {self.weight_decay} needs optimizer 'adamw', got 'adam'.")

    @classmethod
    def published(cls, rows: int, length: int, **changes: Any) -> "Recipe":
        """The origin's: whole rows, SmoothL1, AdamW, one network, live norms, 100 passes over ``rows`` rows.

        Source: Shen et al., AAAI 2025 (arXiv 2408.14909) and its code; the cosine here moves every step.
        """
        values: dict[str, Any] = {
            "steps_per_epoch": max(1, rows // 64), "crop": length, "loss": "smooth_l1", "optimizer": "adamw",
            "weight_decay": 0.01, "members": 1, "ema": 0.0, "norms": "live",
        }  # fmt: skip
        return cls(**{**values, **changes})

    def survivors(self, epoch: int, members: int) -> int:
        """How many of ``members`` go on after this epoch (counted from 0)."""
        cuts = [math.ceil(share * self.epochs) for share in (0.4, 0.6, 0.75)]
        for cut in cuts:
            if epoch + 1 == cut:
                members = max(1, members // 2)
        return 1 if epoch + 1 >= cuts[-1] else members

    @property
    def average_keep(self) -> float:
        """What the running average keeps of itself in a step."""
        return min(self.ema, 1 - 1 / max(1.0, 0.01 * self.epochs * self.steps_per_epoch))

    def lr_at(self, step: int) -> float:
        """The learning rate of optimiser step ``step`` (counted from 0)."""
        total = self.epochs * self.steps_per_epoch
        warm = min(1.0, (step + 1) / (0.01 * total))
        return self.lr * min(warm, 1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * step / total)))
