"""What every backend of the recurrent operator shares."""

__all__ = ["STRIDE"]

STRIDE = 16
"""Steps between two states that are kept for the backward pass."""
