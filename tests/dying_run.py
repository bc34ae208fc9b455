"""`train.py`, but for the run with seed 1, which kills itself in its second epoch: for `test_launch`."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from spikingssm.commands.train import main
from spikingssm.experiments import launch
from spikingssm.training.callbacks import StepCheckpoint


def end(self: StepCheckpoint, trainer: Any, *_: Any) -> None:
    if trainer.current_epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def command(self: launch._Work, job: launch.Job) -> list[str]:
    """The sweep's runs are this script too."""
    return [sys.executable, "-W", "ignore", __file__, *launch.words_of(job)]


if __name__ == "__main__":
    launch._Work.command = command
    if "seed=1" in sys.argv:
        StepCheckpoint.on_train_batch_end = end
    try:
        main(sys.argv[1:])
    except SystemExit as stop:
        sys.exit(stop.code)
