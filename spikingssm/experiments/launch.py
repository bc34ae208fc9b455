"""The runs of a sweep through Hydra's launchers: side by side on this machine, or as jobs of a cluster."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from spikingssm.experiments.config import load
from spikingssm.experiments.ending import quoted
from spikingssm.experiments.outcome import failure, tell
from spikingssm.experiments.run import quiet, run
from spikingssm.experiments.variants import variant
from spikingssm.processes.children import call

__all__ = ["Job", "launch", "split"]

PLUGINS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
"""Launcher -> the package that brings it."""
OURS = [  # submitit keeps its files in runs/.submitit; nothing else is written but the run folders, and no second log
    "hydra.sweep.dir=runs", "hydra.sweep.subdir=.", "hydra.output_subdir=null", "hydra/hydra_logging=none",
    "hydra/job_logging=none",
]  # fmt: skip


class Job(NamedTuple):
    """One run of a sweep."""

    overrides: list[str]
    run_dir: str


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the run, and those of Hydra itself: ``hydra/launcher=joblib``, ``hydra.launcher.n_jobs=2``."""
    theirs = [text for text in overrides if text.lstrip("+~").startswith(("hydra/", "hydra."))]
    return [text for text in overrides if text not in theirs], theirs


def launch(jobs: Sequence[Job], options: Sequence[str]) -> None:
    """Run every job through the launcher that the options choose, and wait for all.

    Args:
        jobs: the runs; their configurations were checked.
        options: overrides of Hydra, as `split` finds them.

    Raises:
        ImportError: the launcher's package is missing.
        ValueError: options that Hydra refuses.
        OSError: no Slurm on this machine.
        SystemExit: runs have failed; the others ran nevertheless.
    """
    _check_launcher(options)
    version.setbase("1.3")
    try:
        hydra = Hydra.create_main_hydra2("train", create_config_search_path(None))
        config = hydra.compose_config(None, [*OURS, *options], run_mode=RunMode.MULTIRUN)
        task = partial(_run, [*jobs], str(Path(sys.argv[0]).resolve()))
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(context, task, config)
        folder = Path(str(config.hydra.sweep.dir))
        found = [job.return_value for job in launcher.launch([[] for _ in jobs], initial_job_idx=0)]
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"hydra: {' '.join(str(error).split())}") from None
    finally:
        GlobalHydra.instance().clear()
    with contextlib.suppress(OSError):
        folder.rmdir()  # made by a launcher that wrote nothing there
    tell({job.run_dir: why for job, why in zip(jobs, found, strict=True) if why is not None}, len(jobs))


def _run(jobs: list[Job], script: str, _: DictConfig) -> str | None:
    """The job of this process; what a user can mend is returned, since not every launcher carries exceptions."""
    job = jobs[HydraConfig.get().job.num]
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()  # `load` begins its own
    words = [*(text for text in job.overrides if not text.startswith("run_dir=")), f"run_dir={quoted(job.run_dir)}"]
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0 and (Path(job.run_dir) / "config.yaml").is_file():
        words = [f"resume={quoted(job.run_dir)}"]  # the cluster had stopped it
    sys.argv = [script, *words]
    quiet()

    def work() -> None:
        config = load(words)
        if config.trainer.devices == 1 or "SLURM_NTASKS" in os.environ:
            run(config, variant(job.overrides))
        elif code := call([sys.executable, *sys.argv]):  # which starts the others
            raise ValueError(f"it ended with exit code {code}; its error stands above.")

    return failure(work)


def _check_launcher(options: Sequence[str]) -> None:
    chosen = [text.partition("=")[2] for text in options if text.lstrip("+").startswith("hydra/launcher=")]
    package = PLUGINS.get(chosen[-1]) if chosen else None
    if package and importlib.util.find_spec(f"hydra_plugins.{package.replace('-', '_')}") is None:
        raise ImportError(f"hydra/launcher={chosen[-1]} needs the package {package}: pip install {package}.")
    if chosen and chosen[-1] == "submitit_slurm" and shutil.which("sbatch") is None:
        raise FileNotFoundError(
            "hydra/launcher=submitit_slurm needs sbatch, which is not on this machine; start it on a node of the "
            "cluster, or use hydra/launcher=joblib."
        )
