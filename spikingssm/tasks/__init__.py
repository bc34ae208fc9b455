"""What a network is asked for: a loss and metrics for each kind of label."""

from spikingssm.tasks.base import Outcome, Task, answer_of, skip_of
from spikingssm.tasks.classes import Classification, EveryStepClassification, StepClassification
from spikingssm.tasks.language import LanguageModel
from spikingssm.tasks.metrics import Perplexity, WeightedMean

__all__ = [
    "Classification", "EveryStepClassification", "LanguageModel", "Outcome", "Perplexity", "StepClassification", "Task",
    "WeightedMean", "answer_of", "skip_of",
]  # fmt: skip
