"""Training from a command line: one run, a sweep, or a look at the configuration."""

import argparse
import os
from collections.abc import Sequence
from functools import partial

from loguru import logger
from omegaconf import DictConfig, OmegaConf

from spikingssm.experiments.config import AUTO, load
from spikingssm.experiments.launch import Job, launch, split, words_of
from spikingssm.experiments.outcome import failure, tell
from spikingssm.experiments.run import is_finished, quiet, run
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
    own, more = _resumed(own)
    if launcher and not given.multirun:
        raise ValueError(
            f"{launcher[0]} is for sweeps; use it with --multirun, e.g. --multirun {launcher[0]} seed=0,1."
        )
    jobs, configs = _jobs(own, more, given.multirun)
    if given.cfg:
        for config in configs:
            print(OmegaConf.to_yaml(config, resolve=True), end="")
    elif launcher:
        left = [job for job, config in zip(jobs, configs, strict=True) if not is_finished(config)]
        if len(left) < len(jobs):
            logger.info(f"{len(jobs) - len(left)} of {len(jobs)} runs are finished, {len(left)} are left")
        launch(left, launcher)
    elif given.multirun:
        _sweep(configs, jobs)
    else:
        run(configs[0], variant(jobs[0].overrides))


def _jobs(own: Sequence[str], more: Sequence[str], multirun: bool) -> tuple[list[Job], list[DictConfig]]:
    """The runs that overrides ask for, with their configurations; ``more`` is what `_resumed` gives."""
    jobs, configs = [], []
    for overrides, label in list(sweep(own, multirun)):
        config = load(overrides)
        if label := folder_label(overrides, label):
            config.run_dir = f"{config.run_dir}-{label}"
        jobs.append(Job([*overrides, *more], config.run_dir))
        configs.append(load([*words_of(jobs[-1])]) if more else config)
    if twice := [job.run_dir for i, job in enumerate(jobs) if job.run_dir in [other.run_dir for other in jobs[:i]]]:
        raise ValueError(f"two runs of this sweep would write to {twice[0]}; put ${{seed}} or ${{name}} into run_dir.")
    return jobs, configs


def _resumed(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides without ``resume=auto``, and that one; it is added where torchrun starts a run again."""
    auto = f"resume={AUTO}"
    own = [text for text in overrides if text != auto]
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0
    resumes = any(text.startswith("resume=") for text in own)
    return own, [auto] if len(own) < len(overrides) or (again and not resumes) else []


def _sweep(configs: Sequence[DictConfig], jobs: Sequence[Job]) -> None:
    """One run after another; one that fails does not stop the next."""
    failed: dict[str, str] = {}
    for config, job in zip(configs, jobs, strict=True):
        why = failure(partial(run, config, variant(job.overrides)))
        if why is not None:
            failed[job.run_dir] = why
            logger.error(f"{job.run_dir}: {why}")
    tell(failed, len(jobs))
