"""What the processes of one training must have in common."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spikingssm.experiments.plain import leaves

__all__ = ["same_everywhere"]

OWN = (
    "run_dir", "resume", "weights", "threads", "data.root", "data.path", "data.test_path", "data.num_workers",
    "trainer.enable_progress_bar", "logger.wandb",
)  # fmt: skip
"""Keys in which the machines of one training may differ: where things lie and how fast they go."""


def same_everywhere(config: DictConfig, data: Mapping[str, Any], begins: Path | None) -> dict[str, Any]:
    """Facts for `spikingssm.training.callbacks.Alike`.

    Args:
        config: of the run, resolved.
        data: facts of its data.
        begins: the checkpoint from which it starts or goes on, if there is one.

    Returns:
        plain values by their keys; the checkpoint as a digest of its bytes.
    """
    found = {key: value for key, value in leaves(OmegaConf.to_container(config)).items() if key not in OWN}
    found |= {f"data: {key}": value for key, value in data.items()}
    if begins is None:
        return {**found, "checkpoint": "none"}
    with begins.open("rb") as file:
        return {**found, "checkpoint": hashlib.file_digest(file, "sha256").hexdigest()[:16]}
