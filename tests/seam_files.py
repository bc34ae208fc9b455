"""Trajectories in memory, as a file would hold them."""

import warnings

import sdn
from sdn.surrogate.trajectory_files import TrajectoryFile, drawn_values


def trajectories(dynamics, rows, length, seed, over=None, family="mixture"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = sdn.generate(dynamics, rows, length, seed=seed, family=family, over=over)
    facts = {"dynamics": dynamics.facts(), "over": over or {}}
    return TrajectoryFile(*out[:3], facts, drawn_values(over or {}, rows, seed))
