"""Diagonal state space models, mode by mode (S4D)."""
