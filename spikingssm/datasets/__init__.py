"""Data sets: each is one function that returns a `SequenceData`."""

from spikingssm.datasets.aan import aan
from spikingssm.datasets.arrays import arrays
from spikingssm.datasets.base import Batch, Rows, Selected, SequenceData
from spikingssm.datasets.cifar import cifar
from spikingssm.datasets.digits import digits
from spikingssm.datasets.dvs import dvs128gesture
from spikingssm.datasets.ecg import ecg
from spikingssm.datasets.fsdd import fsdd
from spikingssm.datasets.fsdd_spikes import fsdd_spikes
from spikingssm.datasets.images import mnist, read_idx
from spikingssm.datasets.imdb import imdb
from spikingssm.datasets.listops import listops
from spikingssm.datasets.order import EpochSampler
from spikingssm.datasets.pathfinder import pathfinder
from spikingssm.datasets.series import series
from spikingssm.datasets.shd import shd, ssc
from spikingssm.datasets.speech_commands import speech_commands
from spikingssm.datasets.wikitext import wikitext

__all__ = [
    "Batch", "EpochSampler", "Rows", "Selected", "SequenceData", "aan", "arrays", "cifar", "digits", "dvs128gesture",
    "ecg", "fsdd", "fsdd_spikes", "imdb", "listops", "mnist", "pathfinder", "read_idx", "series", "shd",
    "speech_commands", "ssc", "wikitext",
]  # fmt: skip
