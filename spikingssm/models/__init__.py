"""Models: stacks of layers that go from features to logits."""

from spikingssm.models.spikingssm import SpikingSSM, SpikingSSMState

__all__ = ["SpikingSSM", "SpikingSSMState"]
