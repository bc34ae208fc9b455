"""Language: the next token at every step."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from torchmetrics import Metric

from spikingssm.datasets.base import IGNORED, Batch
from spikingssm.models.base import as_predictor
from spikingssm.tasks.base import Outcome
from spikingssm.tasks.metrics import Perplexity

__all__ = ["LanguageModel"]


@dataclass(frozen=True)
class LanguageModel:
    """The next token at every step: negative log likelihood in nats and perplexity.

    The model is a `spikingssm.models.base.Predictor`, so that an adaptive softmax need not form all logits. Steps
    labelled ``ignore_index`` are left out.

    Args:
        ignore_index: the label of a step without one.
    """

    targets: ClassVar[str] = "classes"
    labels: ClassVar[str] = "step"
    answers: ClassVar[str] = "step"
    ignore_index: int = IGNORED
    monitor: ClassVar[tuple[str, str]] = ("val/perplexity", "min")

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`.

        Raises:
            ValueError: a model without such features and decoder, or labels of another shape.
        """
        if (predictor := as_predictor(model)) is None:
            raise ValueError(
                "LanguageModel: the model's decoder has no nll(features, labels); use token data and model.pool=each."
            )
        features, state = predictor.features(batch.x, state, batch.lengths)
        if features.ndim != 3 or batch.y.shape != features.shape[:2]:
            raise ValueError(
                f"LanguageModel: features must be (B, L, H) and labels (B, L), got {tuple(features.shape)} and "
                f"{tuple(batch.y.shape)}; it needs model.pool=each."
            )
        labelled = batch.y != self.ignore_index
        nll = predictor.decoder.nll(features[labelled], batch.y[labelled])
        return Outcome(nll.sum() / max(1, len(nll)), len(nll), state, {"perplexity": (nll.detach(),)})

    def metrics(self, classes: int) -> dict[str, Metric]:
        """``perplexity``."""
        return {"perplexity": Perplexity()}
