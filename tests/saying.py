"""A network that answers with what it was given, and the metrics that a task makes of its answers."""

from torch import nn


class Says(nn.Module):
    """A network whose answers are known.

    Args:
        answers: (B, D) or (B, L, D), whatever x is.
    """

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, x, state=None, lengths=None):
        return self.answers, None


def scores(task, *outcomes, outputs=1):
    """The metrics of a task over some batches."""
    metrics = task.metrics(outputs)
    for outcome in outcomes:
        for name, values in outcome.updates.items():
            metrics[name].update(*values)
    return {name: float(metric.compute()) for name, metric in metrics.items()}
