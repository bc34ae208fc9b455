"""The runs of a sweep, by the launcher that Hydra's options choose: joblib on this machine, submitit on a cluster."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdn.runs.signals import explained
from spikingssm.experiments.config import load
from spikingssm.experiments.ending import go_on, quoted
from spikingssm.experiments.outcome import LEFT, failure, tell
from spikingssm.experiments.run import quiet, run
from spikingssm.experiments.variants import variant
from spikingssm.processes.children import Children, call

__all__ = ["Job", "launch", "split", "words_of"]

PLUGINS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
"""Launcher -> the package that brings it and says which options it has."""
SHARED = {
    "cpus_per_task", "gpus_per_node", "mem_gb", "name", "nodes", "stderr_to_stdout", "tasks_per_node", "timeout_min",
}  # fmt: skip
"""What submitit calls alike on every cluster; other options begin with its name there, as slurm_partition does."""


class Job(NamedTuple):
    """One run of a sweep."""

    overrides: list[str]
    run_dir: str


def words_of(job: Job) -> list[str]:
    """The overrides of a run, with the folder that it has in the sweep."""
    return [*(text for text in job.overrides if not text.startswith("run_dir=")), f"run_dir={quoted(job.run_dir)}"]


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the run, and those of Hydra itself: ``hydra/launcher=joblib``, ``hydra.launcher.n_jobs=2``."""
    theirs = [text for text in overrides if text.lstrip("+~").startswith(("hydra/", "hydra."))]
    return [text for text in overrides if text not in theirs], theirs


def launch(jobs: Sequence[Job], options: Sequence[str]) -> None:
    """Run every job by the launcher that the options choose, and wait for all.

    Args:
        jobs: the runs; their configurations were checked.
        options: overrides of Hydra, as `split` finds them.

    Raises:
        ImportError: the launcher's package is missing.
        ValueError: options that Hydra refuses, or another launcher.
        OSError: no Slurm on this machine.
        SystemExit: runs have failed; the others ran nevertheless.
    """
    kind = _launcher(options)
    try:
        with initialize(config_path=None, job_name="train", version_base="1.3"):
            hydra = compose(None, ["hydra.sweep.dir=runs", *options], return_hydra_config=True).hydra
            given: Any = OmegaConf.to_container(hydra.launcher, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"hydra: {' '.join(str(error).split())}") from None
    del given["_target_"]
    work = _Work(str(Path(sys.argv[0]).resolve()), dict(hydra.job.env_set))
    if kind == "basic":
        found = [work(job) for job in jobs]
    elif kind == "joblib":
        found = _side_by_side(work, jobs, given)
    elif kind in PLUGINS:
        from submitit import AutoExecutor

        cluster, folder = kind.removeprefix("submitit_"), given.pop("submitit_folder")
        named = {key if key in SHARED else f"{cluster}_{key}": value for key, value in given.items()}
        retries = {key: named.pop(key) for key in ("slurm_max_num_timeout",) if key in named}
        executor = AutoExecutor(folder, cluster=cluster, **retries)
        executor.update_parameters(**named)
        found = [_ended(job) for job in executor.map_array(work, jobs)]
    else:
        raise ValueError(f"hydra/launcher={kind} is not used here; there are basic, {', '.join(PLUGINS)}.")
    tell({job.run_dir: why for job, why in zip(jobs, found, strict=True) if why is not None}, len(jobs))


def _side_by_side(work: "_Work", jobs: Sequence[Job], given: dict[str, Any]) -> list[str | None]:
    """Each run in a process of its own: joblib's own workers all end with one that is killed, and so would the runs."""
    from joblib import Parallel, cpu_count, delayed, effective_n_jobs

    numbers = {key: int(value) for key, value in given.items() if isinstance(value, str) and value.isdigit()}
    options = {**given, **numbers, "backend": "threading"}  # whose threads wait for the processes
    cores = max(1, cpu_count() // effective_n_jobs(options.get("n_jobs") or 1))
    env = {"OMP_NUM_THREADS": str(cores), **os.environ, **work.environment}
    children = Children()

    def one(job: Job) -> str | None:
        why = children.call(work.command(job), env)
        return why if why is None or "resume=" in why else f"{why}; {go_on(Path(job.run_dir))}"

    with explained(lambda: LEFT), children.open():
        return list(Parallel(**options)(delayed(one)(job) for job in jobs))


def _ended(job: Any) -> str | None:
    """Why a job of submitit failed; one that was killed raises, which would end the sweep for the others."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        why: str | None = job.results()[0]
    except (FailedJobError, UncompletedJobError) as error:
        return f"its job has ended without a result ({' '.join(str(error).split())[:200]})"
    return why


@dataclass(frozen=True)
class _Work:
    """What a process does for a job."""

    script: str
    environment: dict[str, str]

    def __call__(self, job: Job) -> str | None:
        """What a user can mend is returned: an exception would end the other runs."""
        os.environ.update(self.environment)
        words = words_of(job)
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0 and (Path(job.run_dir) / "config.yaml").is_file():
            words = [f"resume={quoted(job.run_dir)}"]  # the cluster had stopped it
        sys.argv = [self.script, *words]
        quiet()

        def work() -> None:
            config = load(words)
            if config.trainer.devices == 1 or "SLURM_NTASKS" in os.environ:
                run(config, variant(job.overrides))
            elif code := call(self.command(job)):  # which starts the others
                raise ValueError(f"it ended with exit code {code}; its error stands above.")

        return failure(work)

    def command(self, job: Job) -> list[str]:
        """What trains it in a process of its own, by the program that was called."""
        program = [self.script] if Path(self.script).name == "train.py" else ["-m", "spikingssm", "train"]
        return [sys.executable, *(f"-W{option}" for option in sys.warnoptions), *program, *words_of(job)]

    def checkpoint(self, job: Job) -> Any:
        """What submitit queues again for a job that reached its time limit: the same, which then resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _launcher(options: Sequence[str]) -> str:
    """The launcher that is chosen, once it is sure to be there."""
    chosen = [text.partition("=")[2] for text in options if text.lstrip("+").startswith("hydra/launcher=")]
    kind = chosen[-1] if chosen else "basic"
    if kind in PLUGINS and importlib.util.find_spec(f"hydra_plugins.{PLUGINS[kind].replace('-', '_')}") is None:
        raise ImportError(f"hydra/launcher={kind} needs the package {PLUGINS[kind]}: pip install {PLUGINS[kind]}.")
    if kind == "submitit_slurm" and shutil.which("sbatch") is None:
        raise FileNotFoundError(
            "hydra/launcher=submitit_slurm needs sbatch, which is not on this machine; start it on a node of the "
            "cluster, or use hydra/launcher=joblib."
        )
    return kind
