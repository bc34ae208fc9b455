"""The progress bar of a training."""

from typing import Any

from lightning.pytorch.callbacks import RichProgressBar

__all__ = ["Bar"]


class Bar(RichProgressBar):
    """Lightning's bar of rich in 80 columns, with the loss of the last batch; epochs count from 1, as in the log.

    What an epoch came to stands in the log, a line an epoch.
    """

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        text = f"epoch {current_epoch + 1}" + ("" if last is None else f"/{last}")
        return text.ljust(len(self.validation_description))  # else the bars below one another jump

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """What stands behind the bar."""
        loss = getattr(pl_module, "last_loss", None)
        return {} if loss is None else {"loss": float(loss)}
