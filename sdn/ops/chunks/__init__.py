"""Pieces of a sequence that run side by side, and what the end of each owes to its start."""
