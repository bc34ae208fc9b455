"""Speeds, measured: interleaved variants in one process, one thread, CPU time, medians and ratios, written as JSON."""
