"""Data sets: each is one function that returns a `SequenceData`."""

from spikingssm.datasets.arrays import arrays
from spikingssm.datasets.base import Batch, Rows, SequenceData
from spikingssm.datasets.digits import digits
from spikingssm.datasets.images import mnist, read_idx
from spikingssm.datasets.order import EpochSampler

__all__ = ["Batch", "EpochSampler", "Rows", "SequenceData", "arrays", "digits", "mnist", "read_idx"]
