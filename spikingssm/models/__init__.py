"""Models: stacks of layers that go from features to logits."""

from spikingssm.models.s5rf import S5RF, S5RFState
from spikingssm.models.spikingssm import SpikingSSM, SpikingSSMState

__all__ = ["S5RF", "S5RFState", "SpikingSSM", "SpikingSSMState"]
