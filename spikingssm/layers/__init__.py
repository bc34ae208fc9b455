"""Layers: the diagonal state space model, the spiking block around it, residual connections and pooling heads."""

from spikingssm.layers.block import BlockState, Residual, SpikingBlock, TiedDropout
from spikingssm.layers.heads import EachStep, LastState, LastStep, MeanOverTime, MeanState, as_pool
from spikingssm.layers.s4d import S4D, S4DState

__all__ = [
    "S4D", "BlockState", "EachStep", "LastState", "LastStep", "MeanOverTime", "MeanState", "Residual", "S4DState",
    "SpikingBlock", "TiedDropout", "as_pool",
]  # fmt: skip
