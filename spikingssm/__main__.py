"""``spikingssm train experiment=NAME``, ``evaluate RUN``, ``predict RUN FILE``, ``report RUN...`` and more."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from sdn import __version__
from sdn.runs.cli import entry_point
from spikingssm.commands import export as exporting
from spikingssm.commands import stream
from spikingssm.commands import studies as study


def main() -> None:
    """Do what the command line asks for."""
    if sys.argv[1:2] == ["train"]:  # which has a command line of its own
        _train(sys.argv[2:])
        return
    warnings.filterwarnings("ignore", ".*(LeafSpec|does not have many workers).*")
    parser = _parser()
    given, rest = parser.parse_known_args()  # overrides may stand between options, which argparse takes for too many
    takes = given.command in ("evaluate", "import")
    if strangers := [word for word in rest if not takes or word.startswith("-") or "=" not in word]:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    given.overrides = rest
    todo = {
        "evaluate": _evaluate, "import": _import, "study": study.run, "export": exporting.run, "report": _report,
        "cochlea": _cochlea, "explain": _explain, "demo": _demo, "predict": _predict, "configs": _configs,
        "stream": stream.run,
    }  # fmt: skip
    todo[given.command](given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        _program(), description="Train spiking networks on sequences, test them, and ask them about files."
    )
    parser.add_argument("--version", action="version", version=f"sdn-spikingssm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", add_help=False, help="train a network: train experiment=spikingssm/digits")

    test = commands.add_parser(
        "evaluate",
        help="test the best checkpoint of a run folder, under any solver, or a published one (.pt)",
        usage="%(prog)s RUN [options]\n"
        "       %(prog)s FILE.pt --neuron brf --experiment brf/ecg [options] [key=value ...]",
    )
    test.add_argument("run", help="the run folder, or a published checkpoint of a BRF, RF or ALIF network")
    test.add_argument("--solver", help="surrogate, fused, parallel or loop; the one of the training by default")
    test.add_argument("--artifact", help="path of the surrogate network, with --solver surrogate")
    test.add_argument("--refine", type=int, metavar="K", help="exact sweeps over a pointwise surrogate's membrane")
    test.add_argument("--rounds", type=int, metavar="K", help="runs of the exact neuron behind a surrogate's guess")
    test.add_argument("--agreement", action="store_true", help="compare each layer's spikes with the exact neuron's")
    test.add_argument("--rate", type=float, help="data at a RATE-th of the sampling rate, with longer time steps")
    test.add_argument("--all", action="store_true", help="print every number: SOPs by layer, energy by part")
    test.add_argument("--json", metavar="FILE", help="write every number there too")
    test.add_argument(
        "--card", nargs="?", const="", metavar="FOLDER", help="write card.md and card.json, into the run by default"
    )
    _add_published(test)
    _add_data(test)

    test.add_argument(
        "--confusion", action="store_true", help="print the scores of each class, and what is taken for what"
    )
    test.add_argument("--data", metavar="FILE", help="test on these: an .npz with x and y, or a folder of folders")

    predict = commands.add_parser(
        "predict",
        help="ask a trained network about files of your own",
        usage="%(prog)s RUN FILE [FILE ...] [options]\n       %(prog)s spoken-digits RECORDING.wav",
    )
    predict.add_argument("run", nargs="?", help="the run folder, or the name of a network that ships")
    predict.add_argument(
        "files", nargs="*", metavar="FILE", help=".npz, .npy, .csv, .wav, .flac, .ogg, .txt, or a folder of them"
    )
    predict.add_argument("--solver", help="fused, surrogate, parallel or loop; the one of the training by default")
    predict.add_argument("--batch-size", type=int, default=64, metavar="N", help="sequences at once (default 64)")
    predict.add_argument("--out", metavar="FILE.csv", help="write all answers with all probabilities there")

    stream.add_parser(commands)

    taken = commands.add_parser(
        "import",
        help="test a published checkpoint (.pt) and make a run folder of it",
        usage="%(prog)s FILE.pt --neuron brf --experiment brf/ecg --out RUN [options] [key=value ...]",
    )
    taken.add_argument("file", metavar="FILE.pt", help="a published checkpoint of a BRF, RF or ALIF network")
    taken.add_argument("--out", required=True, metavar="RUN", help="the run folder to make")
    _add_published(taken)
    _add_data(taken)

    study.add_parser(commands)
    exporting.add_parser(commands)

    report = commands.add_parser("report", help="a Markdown table of results, or a page to show to somebody")
    report.add_argument("results", nargs="+", metavar="RUN_OR_JSON", help="run folders and JSON files of results")
    report.add_argument("--best-first", action="store_true", help="the best test of each data set first, not by name")
    report.add_argument("--out", metavar="FILE", help="write it there instead of printing it")
    report.add_argument("--html", metavar="FILE", help="a page instead: curves, spikes, mistakes; ends in .html")
    report.add_argument("--open", type=int, metavar="N", help="with --html, run a sequence through N networks (12)")

    cochlea = commands.add_parser("cochlea", help="spoken digits as spikes, in HDF5 files of the layout of SHD")
    cochlea.add_argument("root", metavar="ROOT", help="folder or archive of the Free Spoken Digit Dataset")
    cochlea.add_argument("--out", required=True, metavar="FOLDER", help="write fsdd_train.h5 and fsdd_test.h5 there")

    explain = commands.add_parser("explain", help="what neurons do, as an animation, .gif or .html")
    explain.add_argument("--out", required=True, metavar="FILE", help="write it there; the name ends in .gif or .html")
    explain.add_argument(
        "--show",
        choices=["resonance", "neurons"],
        default="resonance",
        help="RF and BRF under a chirp (default), or LIF and BRF under one input",
    )
    explain.add_argument("--frames", type=int, default=100, metavar="N", help="pictures (default 100)")
    own = explain.add_argument_group("of the resonance")
    own.add_argument("--omega", type=float, help="radians per unit of time (default 15)")
    own.add_argument("--b_offset", type=float, help="from the boundary; RF's damping (default 1)")
    own.add_argument("--dt", type=float, help="length of a step (default 0.01)")
    own.add_argument("--length", type=int, metavar="L", help="steps (default 800)")

    configs = commands.add_parser("configs", help="write the configurations into a folder, to change and add to them")
    configs.add_argument("out", metavar="FOLDER", help="new folder; SPIKINGSSM_CONFIGS=FOLDER then uses it")

    demo = commands.add_parser("demo", help="trajectories, SDN, reduction, SpikingSSM on digits, both neurons")
    demo.add_argument("--out", default="demo", help="folder to work in (default demo)")
    return parser


def _program() -> str:
    """How this was called, for help and errors."""
    return "spikingssm" if Path(sys.argv[0]).stem == "spikingssm" else "python -m spikingssm"


def _train(argv: list[str]) -> None:
    from spikingssm.commands.train import main as train

    if argv and argv[0] in ("--save", "-s", "--resume", "-r"):
        raise ValueError(f"{argv[0]} is for surrogates: sdn {' '.join(['train', *argv])}. A network is trained by "
                         "spikingssm train experiment=NAME.")  # fmt: skip
    train(argv, f"{_program()} train")


def _configs(given: argparse.Namespace) -> None:
    from spikingssm.commands.configs import copy_configs

    print(copy_configs(given.out))


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, metavar="N", help="test on N rows only, a fixed draw")
    parser.add_argument("--root", metavar="FOLDER", help="folder of the data, where it is not that of the training")


def _add_published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--neuron", choices=["brf", "rf", "alif"], help="of a .pt file, which does not say it")
    parser.add_argument("--experiment", metavar="NAME", help="of a .pt file: what it was trained on, e.g. brf/ecg")
    parser.add_argument("--permutation", metavar="FILE", help="of a .pt file: the order of MNIST's pixels, .pt or .npy")


def _evaluate(given: argparse.Namespace) -> None:
    from sdn.runs.files import write_json
    from spikingssm.reports.card import CardWriter
    from spikingssm.reports.printed import brief
    from spikingssm.reports.tables import table

    if given.card == "" and given.limit is not None:
        raise ValueError(
            f"--card writes the card of the run, which is of all test rows; with --limit {given.limit} name another "
            "place: --card FOLDER."
        )
    writer = None if given.card is None else CardWriter(given.run, given.card)
    given.callbacks = [] if writer is None else [writer.reader]
    found: dict[str, Any] = {"run": given.run, **(_published if _is_published(given) else _own)(given)}
    if writer is not None:
        writer.write(found)
    if given.json is not None:
        write_json(given.json, found)
    print(table(found) if given.all else brief(found))
    if given.confusion:
        from spikingssm.measures.classes import confusion_text

        if "by_class" not in found:
            raise ValueError(f"--confusion is for classifications of up to 100 classes, {given.run} is none.")
        print(f"\n{confusion_text(found['by_class'])}")


def _own(given: argparse.Namespace) -> dict[str, Any]:
    """The test of a run folder."""
    from spikingssm.experiments.evaluation import evaluate, solver_for

    words = {f"--{name}": getattr(given, name) for name in ("neuron", "experiment", "permutation")}
    told = [f"{option} {word}" for option, word in words.items() if word is not None]
    if told := told + given.overrides:
        name, _, value = told[0].partition("=")
        option = {"data.root": "root", "data.path": "data", "data.test_path": "data"}.get(name)
        way = f"{given.run} is a run folder, " + (f"write --{option} {value}" if option else "leave it out")
        raise ValueError(f"{told[0]} is for a published checkpoint; {way}.")
    solver = solver_for(given.run, given.solver, given.artifact, given.refine, given.rounds)
    options = {"agreement": given.agreement, "rate": given.rate, "limit": given.limit, "root": given.root}
    return evaluate(given.run, solver, data=given.data, callbacks=given.callbacks, **options)


def _predict(given: argparse.Namespace) -> None:
    """Answers for files, a line each; all of them in a table where one is asked for."""
    from spikingssm.experiments.asking import ask, described

    if given.run is None or not given.files:
        print(described(given.run))
        return
    for line in ask(given.run, given.files, given.solver, given.batch_size, given.out):
        print(line)


def _published(given: argparse.Namespace) -> dict[str, Any]:
    """The test of a published checkpoint."""
    from sdn.solvers import as_solver
    from spikingssm.experiments.evaluation import measure
    from spikingssm.published.run import open_checkpoint

    for name in ("artifact", "refine", "rounds", "rate"):
        if getattr(given, name) is not None:
            raise ValueError(f"--{name} {getattr(given, name)} is not for the recurrent network in {given.run}.")
    options = {"permutation": given.permutation, "limit": given.limit, "root": given.root}
    run = open_checkpoint(given.run, given.experiment, given.neuron, given.overrides, **options)
    value = None if given.solver is None else as_solver(given.solver)
    return measure(run, value, agreement=given.agreement, callbacks=given.callbacks)


def _is_published(given: argparse.Namespace) -> bool:
    path = Path(given.run)
    return path.is_file() or (path.suffix == ".pt" and not path.is_dir())


def _import(given: argparse.Namespace) -> None:
    from spikingssm.published.run import import_checkpoint
    from spikingssm.reports.tables import report

    options = {"permutation": given.permutation, "limit": given.limit, "root": given.root}
    print(
        report([import_checkpoint(given.file, given.out, given.experiment, given.neuron, given.overrides, **options)])
    )


def _report(given: argparse.Namespace) -> None:
    from sdn.runs.files import writing
    from spikingssm.reports.tables import report

    if given.html is not None:
        _page(given)
        return
    if given.open is not None:
        raise ValueError(f"--open {given.open} is for a page; add --html FILE, or leave it out.")
    text = report(given.results, given.best_first)
    if given.out is None:
        print(text)
        return
    with writing(given.out) as partial:
        partial.write_text(text + "\n")


def _page(given: argparse.Namespace) -> None:
    """The runs as an HTML page."""
    for name, value in (("--out", given.out), ("--best-first", given.best_first)):
        if value:
            raise ValueError(f"{name} is for the Markdown table, --html {given.html} for a page; give one of them.")
    from spikingssm.reports.html import OPENED, write_page

    print(write_page(given.results, given.html, OPENED if given.open is None else given.open))


def _cochlea(given: argparse.Namespace) -> None:
    from spikingssm.datasets.fsdd_spikes import write_fsdd_spikes

    for path, recordings in write_fsdd_spikes(given.root, given.out).items():
        print(f"{path}: {len(recordings.labels)} recordings, {len(recordings.times)} spikes")


def _explain(given: argparse.Namespace) -> None:
    from spikingssm.reports.animation import checked, compare, explain, save

    checked(given.out, 15)
    names = ("omega", "b_offset", "dt", "length")
    told = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.show == "resonance":
        save(explain(compare(**told), frames=given.frames), given.out)
        return
    if told:
        name, value = next(iter(told.items()))
        raise ValueError(f"--{name} {value:g} is for --show resonance; leave it out, or show that.")
    from spikingssm.reports.filling import fill

    save(fill(given.frames), given.out, hold=1.5)


def _demo(given: argparse.Namespace) -> None:
    from spikingssm.commands.demo import run_demo

    run_demo(given.out)


command = entry_point(main)
"""What the console command `spikingssm` runs."""

if __name__ == "__main__":
    command()
