"""Neurons that were only recorded: files, checks, a known neuron fitted to them, and a neuron that is learned whole."""
