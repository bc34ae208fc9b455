"""The wing where surrogate networks are made: trajectories, network, training, reduction, fidelity."""
