"""``python -m spikingssm evaluate RUN``, ``study solver-swap RUN...``, ``report RUN...``, ``cochlea`` and ``demo``."""

import argparse
import warnings
from pathlib import Path
from typing import Any

from sdn.door import door


def main() -> None:
    """Do what the command line asks for."""
    warnings.filterwarnings("ignore", ".*(LeafSpec|does not have many workers).*")
    given = _parser().parse_args()
    todo = {"evaluate": _evaluate, "study": _study, "report": _report, "cochlea": _cochlea, "demo": _demo}
    todo[given.command](given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m spikingssm", description="Results of trained networks, spikes of recorded digits, the demo."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    test = commands.add_parser("evaluate", help="test the best checkpoint of a run folder, under any solver")
    test.add_argument("run", help="the run folder")
    test.add_argument("--solver", help="surrogate, fused, parallel or loop; the one of the training by default")
    test.add_argument("--artifact", help="path of the surrogate network, with --solver surrogate")
    test.add_argument("--refine", type=int, metavar="K", help="exact sweeps over the surrogate's membrane")
    test.add_argument("--agreement", action="store_true", help="compare each layer's spikes with the exact neuron's")
    test.add_argument("--rate", type=float, help="data at a RATE-th of the sampling rate, with longer time steps")
    test.add_argument("--json", metavar="FILE", help="write the result there too")
    _add_data(test)

    study = commands.add_parser("study", help="ask one question of trained networks")
    study.add_argument("study", choices=["solver-swap"], help="the same network under surrogate and exact neurons")
    study.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    study.add_argument("--refine", type=int, nargs="*", default=[1, 2], metavar="K", help="sweeps (default 1 2)")
    study.add_argument("--out", metavar="FOLDER", help="write a JSON for each run there (default: its run folder)")
    _add_data(study)

    report = commands.add_parser("report", help="a Markdown table of results")
    report.add_argument("results", nargs="+", metavar="RUN_OR_JSON", help="run folders and JSON files of results")
    report.add_argument("--out", metavar="FILE", help="write it there instead of printing it")

    cochlea = commands.add_parser("cochlea", help="spoken digits as spikes, in HDF5 files of the layout of SHD")
    cochlea.add_argument("root", metavar="ROOT", help="folder or archive of the Free Spoken Digit Dataset")
    cochlea.add_argument("--out", required=True, metavar="FOLDER", help="write fsdd_train.h5 and fsdd_test.h5 there")

    demo = commands.add_parser("demo", help="trajectories, SDN, reduction, SpikingSSM on digits, both neurons")
    demo.add_argument("--out", default="demo", help="folder to work in (default demo)")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, metavar="N", help="test on the first N rows only")
    parser.add_argument("--root", metavar="FOLDER", help="folder of the data, where it is not that of the training")


def _evaluate(given: argparse.Namespace) -> None:
    from sdn.files import write_json
    from spikingssm.evaluation import evaluate, solver_for
    from spikingssm.report import table

    solver = solver_for(given.run, given.solver, given.artifact, given.refine)
    options = {"agreement": given.agreement, "rate": given.rate, "limit": given.limit, "root": given.root}
    found: dict[str, Any] = {"run": given.run, **evaluate(given.run, solver, **options)}
    if given.json is not None:
        write_json(given.json, found)
    print(table(found))


def _study(given: argparse.Namespace) -> None:
    from sdn.files import write_json
    from spikingssm.report import swap_table
    from spikingssm.studies import swap

    found = []
    for run in given.runs:
        found.append(swap(run, given.refine, limit=given.limit, root=given.root))
        name = f"solver-swap-{found[-1]['name']}-{found[-1]['seed']}.json"
        write_json(Path(given.out) / name if given.out else Path(run) / "solver-swap.json", found[-1])
    print(swap_table(found))


def _report(given: argparse.Namespace) -> None:
    from sdn.files import writing
    from spikingssm.report import report

    text = report(given.results)
    if given.out is None:
        print(text)
        return
    with writing(given.out) as partial:
        partial.write_text(text + "\n")


def _cochlea(given: argparse.Namespace) -> None:
    from spikingssm.datasets.fsdd_spikes import write_fsdd_spikes

    for path, recordings in write_fsdd_spikes(given.root, given.out).items():
        print(f"{path}: {len(recordings.labels)} recordings, {len(recordings.times)} spikes")


def _demo(given: argparse.Namespace) -> None:
    from spikingssm.demo import run_demo

    run_demo(given.out)


if __name__ == "__main__":
    door(main)()
