"""What every backend of the resonate operator shares."""

__all__ = ["STRIDE"]

STRIDE = 32
"""Steps between two states that are kept for the backward pass."""
