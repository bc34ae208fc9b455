"""Ways to run a neuron over a whole sequence. A solver is chosen by the user and never switched silently."""

import difflib
import functools
from typing import Any

from sdn.checks.arguments import ArgumentError, shown
from sdn.solvers.base import Solver
from sdn.solvers.fused import Fused
from sdn.solvers.loop import Loop
from sdn.solvers.parallel import Certificate, Parallel
from sdn.solvers.surrogate import Surrogate

__all__ = ["Certificate", "Fused", "Loop", "Parallel", "Solver", "Surrogate", "as_solver"]


def as_solver(solver: str | Solver) -> Solver:
    """A word means the solver with its defaults; a value is itself.

    The words of the SpikingSSM paper are known too: "sdn" is the surrogate, "bptt" the fused solver, "sltt" the fused
    solver without gradients through time.

    Raises:
        ArgumentError: an unknown word, or what is no solver, such as the class Loop.
    """
    if hasattr(solver, "run") and not isinstance(solver, type):
        return solver  # type: ignore[return-value]
    words: dict[str, Any] = {"fused": Fused, "loop": Loop, "parallel": Parallel, "surrogate": Surrogate}
    published: dict[str, Any] = {"bptt": Fused, "sdn": Surrogate, "sltt": functools.partial(Fused, detach_state=True)}
    if not isinstance(solver, str) or solver not in words | published:
        names = f"{sorted(words)} (or the paper's {', '.join(published)})"
        asked = f"solver must be one of {names} or a value such as Loop(), got"
        if isinstance(solver, type):
            write = f"{solver.__name__}()" if hasattr(solver, "run") else "Loop()"
            raise ArgumentError(f"{asked} the class {solver.__name__}; write {write}.")
        if callable(getattr(solver, "slope", None)):
            raise ArgumentError(f"{asked} {shown(solver)}; a spike gradient is passed as spike={shown(solver)}.")
        close = difflib.get_close_matches(str(solver).lower(), [*words, *published], 1)
        raise ArgumentError(f"{asked} {shown(solver)}{f'; write {close[0]!r}' if close else ''}.")
    found: Solver = (words | published)[solver]()
    return found
