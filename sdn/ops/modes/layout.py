"""What every backend of the modes operator shares."""

__all__ = ["BLOCK", "CELL"]

BLOCK = 64
"""Steps between two saved states."""
CELL = 16
"""Channels side by side in the saved states."""
