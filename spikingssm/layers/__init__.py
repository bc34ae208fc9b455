"""Layers: encoders, the diagonal state space model and the spiking block around it, residuals, heads, vocabularies."""

from spikingssm.layers.block import BlockState, Residual, SpikingBlock, TiedDropout
from spikingssm.layers.encoders import Frames, TokenEncoder
from spikingssm.layers.heads import EachStep, LastState, LastStep, MeanOverTime, MeanState, PairDecoder, as_pool
from spikingssm.layers.s4d import S4D, S4DState
from spikingssm.layers.vocabulary import AdaptiveVocabulary, Vocabulary

__all__ = [
    "S4D", "AdaptiveVocabulary", "BlockState", "EachStep", "Frames", "LastState", "LastStep", "MeanOverTime",
    "MeanState", "PairDecoder", "Residual", "S4DState", "SpikingBlock", "TiedDropout", "TokenEncoder", "Vocabulary",
    "as_pool",
]  # fmt: skip
