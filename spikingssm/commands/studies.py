"""The command line of the studies: ``python -m spikingssm study NAME RUN...``."""

import argparse
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]

OPTIONS = {
    "convergence": ("part", "metric", "root"),
    "landscape": ("points", "span", "seed", "limit", "root"),
    "robustness": ("tests", "repeats", "seed", "limit", "root"),
    "ablation": ("limit", "root"),
}
"""The studies of several runs in one picture, and the arguments that each takes from the command line."""


def add_parser(commands: Any) -> None:
    """Add ``study`` with one command for each study.

    Args:
        commands: what `argparse.ArgumentParser.add_subparsers` gave.
    """
    study = commands.add_parser("study", help="ask one question of trained networks")
    studies = study.add_subparsers(dest="study", required=True, metavar="STUDY")
    swap = _study(studies, "solver-swap", "the same network under surrogate and exact neurons")
    swap.add_argument("--refine", type=int, nargs="*", default=[1, 2], metavar="K", help="sweeps (default 1 2)")
    _add_rows(swap)

    fast = _study(studies, "convergence", "epochs to most of the accuracy; what a step does to each neuron's state")
    fast.add_argument("--part", type=float, default=0.95, help="of the best epoch's accuracy (default 0.95)")
    fast.add_argument("--metric", default="accuracy", help="which accuracy, e.g. accuracy_all (default accuracy)")
    _add_rows(fast, "not used here: nothing is tested")

    plane = _study(studies, "landscape", "the loss on a plane of two random directions of the hidden weights")
    plane.add_argument("--points", type=int, default=21, metavar="N", help="a side of the grid (default 21)")
    plane.add_argument("--span", type=float, default=1.0, help="the grid goes from -SPAN to SPAN (default 1)")
    plane.add_argument("--seed", type=int, default=0, help="of the directions (default 0)")
    _add_rows(plane)

    tough = _study(studies, "robustness", "fewer bits, noisy input, lost spikes, noisy weights")
    known = ["bits", "noise", "deletion", "synaptic"]
    tough.add_argument(
        "--tests", nargs="+", choices=known, default=known, metavar="TEST", help=f"of {', '.join(known)}"
    )
    tough.add_argument("--repeats", type=int, default=5, metavar="N", help="of each random level (default 5)")
    tough.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
    _add_rows(tough)

    _add_rows(_study(studies, "ablation", "the parts of trained BRF neurons switched off, one by one"))


def run(given: argparse.Namespace) -> None:
    """Do what the command line asks for, write the results and print a table of them.

    Raises:
        ValueError, OSError: what the study refuses; what was found before stays.
    """
    if given.study == "solver-swap":
        _swap(given)
        return
    from sdn.runs.files import write_json
    from spikingssm.studies.common import check_different, label, write_csv

    module = importlib.import_module(f"spikingssm.studies.{given.study}")
    ask: Callable[..., dict[str, Any]] = getattr(module, given.study)
    options = {name: getattr(given, name) for name in OPTIONS[given.study]}
    check_different(given.runs)
    found = []
    for folder in given.runs:
        result = ask(folder, **options)
        found.append(result)
        stem = _place(given, folder, f"{label(result)}-{result['seed']}")
        write_json(stem.with_name(f"{stem.name}.json"), result)
        write_csv(stem.with_name(f"{stem.name}.csv"), module.csv_rows(result))
        module.figure([result], stem.with_name(f"{stem.name}.png"))
    if len(found) > 1:
        module.figure(found, _place(given, given.runs[0], "all").with_name(f"{given.study}-all.png"))
    print(module.table(found))


def _place(given: argparse.Namespace, folder: str, name: str) -> Path:
    """Where a result goes, without the ending: ``studies/`` of its run, or the folder that was asked for."""
    if given.out is None:
        return Path(folder, "studies", given.study, given.study)
    return Path(given.out) / re.sub(r"[^\w.=-]+", "_", f"{given.study}-{name}")


def _swap(given: argparse.Namespace) -> None:
    from sdn.runs.files import write_json
    from spikingssm.reports.tables import swap_table
    from spikingssm.studies import swap

    found = []
    for folder in given.runs:
        found.append(swap(folder, given.refine, limit=given.limit, root=given.root))
        name = f"solver-swap-{found[-1]['name']}-{found[-1]['seed']}.json"
        write_json(Path(given.out) / name if given.out else Path(folder) / "solver-swap.json", found[-1])
    print(swap_table(found))


def _study(studies: Any, name: str, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = studies.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument(
        "--out", metavar="FOLDER", help="write the results of all runs there (default: the run folders)"
    )
    return parser


def _add_rows(parser: argparse.ArgumentParser, limit: str = "test on N rows only, a fixed draw") -> None:
    parser.add_argument("--limit", type=int, metavar="N", help=limit)
    parser.add_argument("--root", metavar="FOLDER", help="folder of the data, where it is not that of the training")
