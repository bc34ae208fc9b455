"""Where the numbers of a run go besides TensorBoard and its table."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from lightning.pytorch import loggers

__all__ = ["more_loggers"]


def more_loggers(
    run_dir: str | Path, config: Mapping[str, Any], *, wandb: str | None = None
) -> list[loggers.WandbLogger]:
    """What is asked for besides TensorBoard: Weights & Biases, under the name of the run folder.

    A resumed run goes on in the same place. End it with ``logger.experiment.finish()``, else the next run of this
    process writes there too.

    Args:
        run_dir: the run folder; the package keeps its own files in ``wandb/`` there.
        config: shown beside the results.
        wandb: project of Weights & Biases; None leaves it out.

    Raises:
        ImportError: the package is missing.
        ValueError: a project that is not a name.
    """
    if wandb is None:
        return []
    if not isinstance(wandb, str):
        raise ValueError(f"logger.wandb must be the name of a project or null, got {wandb!r}.")
    if importlib.util.find_spec("wandb") is None:
        raise ImportError(
            f"logger.wandb={wandb} needs the package wandb: pip install wandb; or leave it out, TensorBoard and "
            "metrics.csv are written anyway."
        )
    folder = Path(run_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    same = f"{folder.name}-{crc32(str(folder).encode()):08x}"
    found = loggers.WandbLogger(project=wandb, name=folder.name, id=same, resume="allow", save_dir=str(folder))
    found.log_hyperparams(dict(config))
    return [found]
