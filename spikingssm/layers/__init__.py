"""Layers: encoders, the diagonal state space model and the spiking block around it, residuals, heads, vocabularies."""

from spikingssm.layers.block import BlockState, Residual, SpikingBlock, TiedDropout
from spikingssm.layers.encoders import Frames, TokenEncoder
from spikingssm.layers.heads import EachStep, LastState, LastStep, MeanOverTime, MeanState, PairDecoder, as_pool
from spikingssm.layers.integrator import LeakyIntegrator
from spikingssm.layers.readout import LeakyReadout, ReadoutState
from spikingssm.layers.recurrent import Recurrent
from spikingssm.layers.s4d import S4D, S4DState
from spikingssm.layers.s5 import S5, ResonateAndFire
from spikingssm.layers.vocabulary import AdaptiveVocabulary, Vocabulary

__all__ = [
    "S4D", "S5", "AdaptiveVocabulary", "BlockState", "EachStep", "Frames", "LastState", "LastStep", "LeakyIntegrator",
    "LeakyReadout", "MeanOverTime", "MeanState", "PairDecoder", "ReadoutState", "Recurrent", "Residual",
    "ResonateAndFire", "S4DState", "SpikingBlock", "TiedDropout", "TokenEncoder", "Vocabulary", "as_pool",
]  # fmt: skip
