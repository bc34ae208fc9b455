"""What a stored configuration may call: builders of data, models and tasks, and of the parts of a model. Nothing else.

A run folder may come from somebody else, and ``_target_`` calls what it names. Each name here builds values out of its
arguments. None writes a file that its arguments choose, and none calls something that they name. Data functions read
files below ``data.root``; without one, some fetch the published files from the addresses in their own source, compare
them with the checksums there, and keep them in ``dataset/cache``. Arguments change neither the address nor the place.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["refused_target"]

TRUST = "SDN_TRUST_TARGETS"
DATA = frozenset(
    f"spikingssm.datasets.{name}"
    for name in (
        "aan", "arrays", "cifar", "digits", "dvs128gesture", "ecg", "fsdd", "fsdd_spikes", "imdb", "listops", "mnist",
        "pathfinder", "series", "shd", "speech_commands", "ssc", "wikitext",
    )
)  # fmt: skip
MODELS = frozenset(
    f"{place}.{name}" for name in ("RSNN", "S5RF", "SpikingSSM") for place in ("spikingssm", "spikingssm.models")
)
TASKS = frozenset(
    f"spikingssm.tasks.{name}"
    for name in (
        "Classification", "EveryStepClassification", "Forecast", "LanguageModel", "MultiLabel", "Regression",
        "StepClassification",
    )
)  # fmt: skip
NEURONS = ("ALIF", "BRF", "HRF", "IzhikevichRF", "LIF", "RF")
SOLVERS = ("Fused", "Loop", "Parallel", "Surrogate")
GRADIENTS = ("ArcTan", "DoubleGaussian", "MultiGaussian", "Sigmoid", "Triangle")
STARTS = ("normal", "uniform")
PARTS = frozenset(f"sdn.{name}" for name in (*NEURONS, *SOLVERS, *GRADIENTS, *STARTS))
"""What stands inside a model."""
SECTIONS = {"data": DATA, "model": MODELS, "task": TASKS}


def refused_target(config: Mapping[str, Any]) -> str | None:
    """The first ``_target_`` that a configuration may not name where it does, as text; None if there is none.

    Args:
        config: plain containers; `DATA` may stand at the top of ``data``, `MODELS` and `TASKS` likewise, and `PARTS`
            anywhere below ``model``. Names in the environment variable ``SDN_TRUST_TARGETS`` may stand everywhere.
    """
    trusted = set(os.environ.get(TRUST, "").split(",")) - {""}
    for where, target in _targets(config, ()):
        allowed = SECTIONS.get(where[0], frozenset()) if len(where) == 1 else PARTS if where[:1] == ("model",) else ()
        if not isinstance(target, str) or (target not in trusted and target not in allowed):
            return str(target)[:120]
    return None


def _targets(value: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every ``_target_`` below a value, and where it stands."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield where, value["_target_"]
        for name, inner in value.items():
            yield from _targets(inner, (*where, str(name)))
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner, (*where, "-"))
