"""Studies: one question each, asked of trained networks."""

from spikingssm.studies.solver_swap import swap

__all__ = ["swap"]
