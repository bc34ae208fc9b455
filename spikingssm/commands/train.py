"""Training from a command line: one run, a sweep, or a look at the configuration."""

import argparse
from collections.abc import Sequence
from functools import partial

from loguru import logger
from omegaconf import DictConfig, OmegaConf

from spikingssm.experiments.config import load
from spikingssm.experiments.launch import Job, launch, split
from spikingssm.experiments.outcome import failure, tell
from spikingssm.experiments.run import quiet, run
from spikingssm.experiments.variants import folder_label, sweep, variant
from spikingssm.processes.together import needing_others

__all__ = ["main"]


def main(argv: Sequence[str], program: str = "train.py") -> None:
    """Do what a command line asks for: ``experiment=spikingssm/digits seed=1``, ``--cfg job``, ``--multirun seed=0,1``.

    Args:
        argv: overrides and options, without the program's name.
        program: that name, for help and errors.

    Raises:
        ValueError, OSError, NotImplementedError, ImportError: with one line that says the way out.
        SystemExit: runs of a sweep have failed; the others have run nevertheless.
    """
    parser = argparse.ArgumentParser(program, description="Train a network as an experiment says.")
    parser.add_argument("overrides", nargs="*", help="experiment=..., +tier=smoke, key=value, resume=RUN_FOLDER")
    parser.add_argument("--cfg", "-c", choices=["job"], help="print the resolved configuration and stop")
    parser.add_argument("--multirun", "-m", action="store_true", help="one run for each combination of key=a,b")
    given = parser.parse_intermixed_args(list(argv))
    quiet()
    with needing_others():  # of several processes, of which one may not come beyond its command line
        _do(given)


def _do(given: argparse.Namespace) -> None:
    """What the arguments ask for."""
    own, launcher = split(given.overrides)
    if launcher and not given.multirun:
        raise ValueError(
            f"{launcher[0]} is for sweeps; use it with --multirun, e.g. --multirun {launcher[0]} seed=0,1."
        )
    jobs, configs = [], []
    for overrides, label in list(sweep(own, given.multirun)):
        configs.append(load(overrides))
        if label := folder_label(overrides, label):
            configs[-1].run_dir = f"{configs[-1].run_dir}-{label}"
        jobs.append(Job(overrides, configs[-1].run_dir))
    if twice := [job.run_dir for i, job in enumerate(jobs) if job.run_dir in [other.run_dir for other in jobs[:i]]]:
        raise ValueError(f"two runs of this sweep would write to {twice[0]}; put ${{seed}} or ${{name}} into run_dir.")
    if given.cfg:
        for config in configs:
            print(OmegaConf.to_yaml(config, resolve=True), end="")
    elif launcher:
        launch(jobs, launcher)
    elif given.multirun:
        _sweep(configs, jobs)
    else:
        run(configs[0], variant(jobs[0].overrides))


def _sweep(configs: Sequence[DictConfig], jobs: Sequence[Job]) -> None:
    """One run after another; one that fails does not stop the next."""
    failed: dict[str, str] = {}
    for config, job in zip(configs, jobs, strict=True):
        why = failure(partial(run, config, variant(job.overrides)))
        if why is not None:
            failed[job.run_dir] = why
            logger.error(f"{job.run_dir}: {why}")
    tell(failed, len(jobs))
