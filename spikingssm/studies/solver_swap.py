"""Does it matter that neurons are predicted? One trained network under surrogates and under exact neurons."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdn import Solver
from sdn.runs.files import versions
from spikingssm.experiments.evaluation import load_run, measure, solver_for
from spikingssm.experiments.runfolder import stored
from spikingssm.measures.agreement import exactly
from spikingssm.measures.spikes import neurons_of

__all__ = ["swap"]


def swap(
    run_dir: str | Path, refine: Sequence[int] = (1, 2), *, limit: int | None = None, root: str | Path | None = None
) -> dict[str, Any]:
    """Test one network under its surrogate, under refined surrogates and under exact neurons, on the same rows.

    Args:
        run_dir: the run folder; the surrogate is the run's own, else the shipped one.
        refine: sweeps of the refined surrogates, each >= 1; none for neurons other than LIF.
        limit: test on that many rows only.
        root: folder of the data, where it is not that of the training.

    Returns:
        plain values: name, seed and dataset of the run, the solver it was ``trained`` with, and ``rows``: for each
        neuron its solver, ``metrics`` of the task, loss, spike rates, and but for the exact one ``agreement`` by layer,
        as `spikingssm.measures.agreement.Agreement` gives it.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: neurons that no surrogate stands for, or sweeps that they cannot have.
    """
    if any(k < 1 for k in refine):
        raise ValueError(f"solver-swap: refine takes sweeps >= 1, got {list(refine)}; without is a row of its own.")
    surrogate: Any = solver_for(run_dir, "surrogate")
    run = load_run(run_dir, own_solver=False, limit=limit, root=root)
    exact = next(iter(neurons_of(exactly(run.module.model)).values())).solver
    solvers: dict[str, Solver] = {"surrogate": replace(surrogate, refine=0)}
    for k in refine:
        solvers[f"surrogate, {k} exact sweep{'s' if k > 1 else ''}"] = replace(surrogate, refine=k)
    rows = []
    for neuron, solver in {**solvers, "exact": exact}.items():
        found = measure(run, solver, agreement=solver is not exact)
        metrics = {name: found[name] for name in run.module.metrics["test"]}
        kept = ("solver", "rows", "device", "loss", "spike_rate", "spike_rates", "agreement")
        rows.append({"neuron": neuron, "metrics": metrics, **{key: found[key] for key in kept if key in found}})
    return {
        "study": "solver-swap",
        "name": run.config.name,
        "seed": run.config.seed,
        "dataset": run.data.facts(),
        "trained": _trained(run_dir),
        "rows": rows,
        "versions": versions(),
        "command": shlex.join(["python", "-m", "spikingssm", *sys.argv[1:]]),
    }


def _trained(run_dir: str | Path) -> str:
    """The word for the solver of a run, without the place of its artifact."""
    own = stored(run_dir).model.get("solver")
    return own if isinstance(own, str) else str(own["_target_"]).rpartition(".")[2].lower()
