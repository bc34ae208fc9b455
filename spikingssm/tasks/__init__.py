"""What a network is asked for: a loss and metrics for each kind of label."""

from spikingssm.tasks.base import Outcome, Task, answer_of, skip_of, told
from spikingssm.tasks.classes import Classification, EveryStepClassification, StepClassification
from spikingssm.tasks.labels import MultiLabel
from spikingssm.tasks.language import LanguageModel
from spikingssm.tasks.metrics import Determination, Perplexity, WeightedMean
from spikingssm.tasks.numbers import Forecast, Regression

__all__ = [
    "Classification", "Determination", "EveryStepClassification", "Forecast", "LanguageModel", "MultiLabel", "Outcome",
    "Perplexity", "Regression", "StepClassification", "Task", "WeightedMean", "answer_of", "skip_of", "told",
]  # fmt: skip
