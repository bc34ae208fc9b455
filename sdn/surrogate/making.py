"""From a neuron to an artifact in one call: currents, training, reduction, and what it is worth. Needs ``[train]``."""

import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loguru import logger

from sdn.dynamics.base import Dynamics, check_dynamics
from sdn.surrogate.artifact import Artifact, save_artifact
from sdn.surrogate.currents import FAMILIES
from sdn.surrogate.fidelity import Metrics, evaluate, not_worth_having
from sdn.surrogate.reduction import reduce
from sdn.surrogate.seam_training import SeamRecipe
from sdn.surrogate.seams import SeamSDN
from sdn.surrogate.training import fit
from sdn.surrogate.trajectories import generate
from sdn.surrogate.trajectory_files import TrajectoryFile, drawn_values

__all__ = ["learn_surrogate", "scores", "trajectories"]

ROUNDS = 3


def learn_surrogate(
    dynamics: Dynamics,
    path: str | os.PathLike[str],
    *,
    over: Mapping[str, Sequence[float]] | None = None,
    length: int = 1024,
    chunk: int = 32,
    seed: int = 0,
    recipe: SeamRecipe | None = None,
) -> Artifact:
    """Train a seam network for a neuron, measure it on fresh currents of every family, and save it.

    Takes 5 to 10 seconds on one core. No run folder is left, nothing can be resumed; `train.py` and `sdn.fit` do that.

    Args:
        dynamics: the neuron; plain numbers only.
        path: file to write, usually ``*.safetensors``.
        over: fields and their bounds, ``{"decay": (0.05, 0.95)}``: the network is told their values and serves all.
        length: steps of the rows.
        chunk: steps between two seams.
        seed: of currents and weights.
        recipe: how to train; None is ``SeamRecipe(seed=seed)``.

    Raises:
        ValueError: what `sdn.generate` and `sdn.fit` refuse.

    Warns:
        UserWarning: a surrogate that is not worth having on any family.
    """
    check_dynamics("learn_surrogate", dynamics)
    recipe = SeamRecipe(seed=seed) if recipe is None else recipe
    started = time.process_time()
    network = SeamSDN(len(dynamics.State._fields), len(over or {}), chunk=chunk)
    files = [trajectories(dynamics, rows, length, 3 * seed + i, over) for i, rows in enumerate((recipe.rows, 64))]
    logger.disable("sdn.runs")
    try:
        with tempfile.TemporaryDirectory() as folder:
            history = fit(network, *files, run_dir=Path(folder) / "run", recipe=recipe)
    finally:
        logger.enable("sdn.runs")
    seconds = time.process_time() - started
    reduced = reduce(network)
    found = scores(reduced, dynamics, over, seed=3 * seed + 2)
    bad = [f"{name} ({why})" for name, metrics in found.items() if (why := not_worth_having(metrics))]
    if bad:
        warnings.warn(f"{dynamics}: under {'; '.join(bad)}.", stacklevel=2)
    facts: dict[str, Any] = {
        "distribution": {"family": "mixture", "mean": 0.0, "std": float(dynamics.default_std)},
        "recipe": asdict(recipe), "best_epoch": history.best_epoch + 1, "cpu_seconds": round(seconds, 1),
        "rounds": ROUNDS, "over": {name: [float(low), float(high)] for name, (low, high) in (over or {}).items()},
    }  # fmt: skip
    return save_artifact(path, reduced, dynamics, {name: asdict(m) for name, m in found.items()}, **facts)


def scores(
    network: Any,
    dynamics: Dynamics,
    over: Mapping[str, Sequence[float]] | None = None,
    *,
    families: Sequence[str] = tuple(FAMILIES),
    rounds: int = ROUNDS,
    chunk: int | None = None,
    rows: int = 64,
    length: int = 2048,
    seed: int = 4242,
) -> dict[str, Metrics]:
    """How a network does on fresh currents, by family: 131,072 steps each, from rest."""
    found = {}
    for family in families:
        fresh = trajectories(dynamics, rows, length, seed, over, family)
        found[family] = evaluate(network, fresh, dynamics, rounds=rounds, chunk=chunk)
    return found


def trajectories(
    dynamics: Dynamics,
    rows: int,
    length: int,
    seed: int,
    over: Mapping[str, Sequence[float]] | None = None,
    family: str = "mixture",
) -> TrajectoryFile:
    """Trajectories in memory, as `sdn.load_trajectories` would give them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rate that is high or low is a part of a family
        out = generate(dynamics, rows, length, seed=seed, family=family, over=over)
    facts = {"dynamics": dynamics.facts(), "over": dict(over or {})}
    return TrajectoryFile(*out[:3], facts, drawn_values(over or {}, rows, seed))
