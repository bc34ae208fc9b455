"""Speeds and memory, measured: variants take turns in one process on one thread; process CPU time, medians, JSON."""
