"""What is written beside an exported file, and what is said of it at once."""

import json
from pathlib import Path
from typing import Any

from loguru import logger

from sdn.runs.files import writing

__all__ = ["CLOSE", "say", "write_contract"]

CLOSE = 1e-5
"""Difference of the logits, over the largest of them where that is above 1, up to which a file is equal."""


def write_contract(told: dict[str, Any], path: Path) -> Path:
    """The contract of a file, beside it."""
    beside = path.with_name(f"{path.name}.json")
    with writing(beside) as partial:
        partial.write_text(json.dumps(told, indent=2, default=str) + "\n")
    return beside


def say(path: Path, told: dict[str, Any]) -> None:
    """Warn of test vectors that say little, of a file that was not run, and of answers that differ."""
    silent = [name for name, rate in told["vectors"]["spike_rates"].items() if rate in (0, 1)]
    if silent:
        logger.warning(
            f"{path.name}: {', '.join(silent)} spikes never or always with the test vectors: they say little."
        )
    for which in ("agreement", "step_against_whole_sequence"):
        found = told[which]
        if found.get("checked") is False:
            logger.warning(f"{path.name} was not run: {found['why']}")
        elif found["spikes_that_differ"] or found["logits_difference"] > CLOSE * max(1.0, found["logits_largest"]):
            logger.warning(
                f"{path.name}: {which.replace('_', ' ')}: {found['spikes_that_differ']} of {found['spikes']} spikes "
                f"differ, logits by up to {found['logits_difference']:.2g}."
            )
