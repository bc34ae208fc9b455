"""Networks trained for seconds on rows that are drawn here, for tests of what is asked of a run folder."""

from pathlib import Path

import numpy as np

from spikingssm.experiments.config import load
from spikingssm.experiments.run import run

STEPS, CHANNELS, CLASSES, TEST = 40, 3, 4, 19


def rows(path: Path, seed: int = 0) -> Path:
    """Sequences with a label at every step but some, strong enough that neurons of small weights fire."""
    draw = np.random.default_rng(seed)
    x = draw.normal(0, 200, (59, STEPS, CHANNELS)).astype(np.float32)
    y = (x.cumsum(1)[..., 0] > 0) + 2 * (x[..., 1] > 0)
    y[:, -5:] = np.where(draw.random((59, 5)) < 0.6, -100, y[:, -5:])
    np.savez(path, x=x[:40], y=y[:40].astype(np.int64), x_test=x[40:], y_test=y[40:].astype(np.int64))
    return path


def recurrent_run(folder: Path, *more: str, model: str = "brf", epochs: int = 1) -> Path:
    """A finished run of a recurrent network; the overrides come last."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = rows(folder.parent / "rows.npz")
    words = [
        "dataset=arrays", f"data.path={data}", f"data.classes={CLASSES}", "data.batch_size=8", "data.val_fraction=0.2",
        "task=steps", "task.unlabelled_as=0", f"model={model}", "model.d_model=7", "model.pool=each",
        "model.tau_mean=4", "model.tau_std=1", "model.start=published", "optim.lr=0.05",
        "optim.weight_decay=0", "threads=1", f"trainer.max_epochs={epochs}", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false", f"name={model}-small",
    ]  # fmt: skip
    return run(load([*words, *more, f"run_dir={folder}"]))
