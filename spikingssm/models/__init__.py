"""Models: stacks of layers that go from features to logits."""

from spikingssm.models.base import SequenceModel
from spikingssm.models.rsnn import RSNN, RSNNState
from spikingssm.models.s5rf import S5RF, S5RFState
from spikingssm.models.spikingssm import SpikingSSM, SpikingSSMState

__all__ = ["RSNN", "S5RF", "RSNNState", "S5RFState", "SequenceModel", "SpikingSSM", "SpikingSSMState"]
