"""Metrics as text."""

__all__ = ["COSTS", "is_share", "plain_number"]

COSTS = (
    "loss", "spike_rate", "spike_rates", "steps", "spikes", "spikes_by_layer", "input_events", "sops", "sops_by_layer",
    "energy", "not_counted", "by_class",
)  # fmt: skip
"""What a result of a test holds beside the metrics of its task."""
SHARES = ("accuracy", "exact_match", "f1")
"""Beginnings of the names of metrics that are a part of all, and are shown in percent."""


def is_share(name: str) -> bool:
    """Whether a metric of that name is a part of all, from 0 to 1."""
    return name.startswith(SHARES)


def plain_number(value: float) -> str:
    """A number with four digits behind the point, or four significant ones where that would hide it.

    Args:
        value: 0.0123 is 0.0123, 1.2e-05 is 1.2e-05, 1234567.0 is 1.235e+06.
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
