"""Ways to run a neuron over a whole sequence. A solver is chosen by the user and never switched silently."""

from typing import Any

from sdn.solvers.base import Solver
from sdn.solvers.fused import Fused
from sdn.solvers.loop import Loop
from sdn.solvers.parallel import Certificate, Parallel
from sdn.solvers.surrogate import Surrogate

__all__ = ["Certificate", "Fused", "Loop", "Parallel", "Solver", "Surrogate", "as_solver"]


def as_solver(solver: str | Solver) -> Solver:
    """A word means the solver with its defaults; a value is itself.

    Raises:
        ValueError: an unknown word, or a value that is no solver.
    """
    if not isinstance(solver, str) and hasattr(solver, "run"):
        return solver
    words: dict[str, Any] = {"fused": Fused, "loop": Loop, "parallel": Parallel, "surrogate": Surrogate}
    if not isinstance(solver, str) or solver not in words:
        raise ValueError(f"solver must be one of {sorted(words)} or a value such as Loop(), got {solver!r}.")
    found: Solver = words[solver]()
    return found
