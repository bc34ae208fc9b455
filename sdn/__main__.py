"""Spiking neurons and their surrogates: trajectories, training, reduction, checks, and the state of this machine."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdn import __version__
from sdn.commands import doctor, notebooks, reduce, warmup
from sdn.runs.cli import entry_point
from sdn.surrogate.artifact import Artifact, copy_artifact
from sdn.surrogate.own_neurons import FLAG, without_neurons

__all__ = ["main"]


def _generate(argv: Sequence[str]) -> None:
    from sdn.commands.generate import main as generate

    generate(argv, f"{program()} generate")


def _train(argv: Sequence[str]) -> None:
    from sdn.surrogate.command import main as train

    if argv and re.match(r"[+~]{0,2}[\w./@]+=", argv[0]):
        raise ValueError(f"{argv[0]} is for networks: spikingssm train {argv[0]}. `sdn train` trains a surrogate.")
    train(argv, f"{program()} train")


WHOLE = {
    "generate": ("write trajectories of a neuron: sdn generate dataset", _generate),
    "train": ("train a surrogate network on them: sdn train --save exp", _train),
}
"""Commands with a command line of their own, which the scripts `generate.py` and `train.py` share."""


def program() -> str:
    """How this was called, for help and errors."""
    return "sdn" if Path(sys.argv[0]).stem == "sdn" else "python -m sdn"


def parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    p = argparse.ArgumentParser(program(), description=__doc__)
    p.add_argument(FLAG, metavar="FILE.py", help="a file that defines neurons of your own, for any command")
    p.add_argument("--version", action="version", version=f"sdn-spikingssm {__version__}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, _) in WHOLE.items():
        commands.add_parser(name, help=text, add_help=False)
    reduce.add(commands)
    check = commands.add_parser("check", help="compare a surrogate with the exact neuron: a table, JSON, a picture")
    check.add_argument("surrogate", help=f"an artifact, or the name of a neuron with a shipped one: {_words()}")
    check.add_argument("--rounds", type=int, help="of the exact neuron (default 3 with a seam network)")
    check.add_argument("--chunk", type=int, help="steps of a chunk (default what the network was trained with)")
    check.add_argument("--rows", type=int, default=64, help="neurons side by side (default 64)")
    check.add_argument("--length", type=int, default=2048, help="steps (default 2048)")
    check.add_argument("--json", type=Path, help="file to write all numbers to")
    check.add_argument("--plot", type=Path, help="picture to write")
    check.add_argument("--store", action="store_true", help="keep the numbers in the artifact")
    check.set_defaults(run_command=_check)
    read = commands.add_parser("import", help="make an artifact of the published surrogate network")
    read.add_argument("file", type=Path, help="the published archive (.pkl); nothing in it is executed")
    read.add_argument("out", type=Path, help="artifact to write, .safetensors")
    read.add_argument("--decay", type=float, default=0.125, help="of the LIF that it stands for (default 0.125)")
    read.set_defaults(run_command=_import)
    zoo = commands.add_parser("zoo", help="train the artifacts that ship, and write the table of their card")
    zoo.add_argument("names", nargs="*", help="which ones (default all)")
    zoo.add_argument("--out", type=Path, help="folder (default: where the package keeps them)")
    zoo.add_argument("--seed", type=int, default=0, help="of currents and weights (default 0)")
    zoo.set_defaults(run_command=_zoo)
    for command in (doctor, warmup, notebooks):
        command.add(commands)
    return p


def _words() -> str:
    from sdn.dynamics import BUILT_IN

    return ", ".join(BUILT_IN)


def _check(args: argparse.Namespace) -> None:
    from sdn.dynamics import BUILT_IN
    from sdn.runs.files import write_json
    from sdn.scoring.report import fidelity
    from sdn.surrogate.artifact import load_artifact

    is_word = args.surrogate in BUILT_IN and not Path(args.surrogate).exists()
    if is_word and args.store:
        raise ValueError(f"--store keeps numbers in an artifact of yours, {args.surrogate} is one that ships.")
    subject = BUILT_IN[args.surrogate]() if is_word else load_artifact(args.surrogate)
    found = fidelity(subject, rounds=args.rounds, chunk=args.chunk, rows=args.rows, length=args.length)
    print(found)
    if args.json is not None:
        write_json(args.json, found.to_dict())
    if args.plot is not None:
        found.plot().savefig(args.plot)
    if args.store and isinstance(subject, Artifact):
        copy_artifact(args.surrogate, replace(subject, facts={**subject.facts, "fidelity": found.to_dict()}))


def _import(args: argparse.Namespace) -> None:
    from sdn.dynamics import LIF
    from sdn.surrogate.published import import_published

    artifact = import_published(args.file, args.out, dynamics=LIF(args.decay))
    test = artifact.facts["metrics"]["test"]
    print(f"{args.out}: {artifact.dynamics}, agreement {100 * test['agreement']:.4f} %, F1 {100 * test['f1']:.3f} %")


def _zoo(args: argparse.Namespace) -> None:
    import torch

    from sdn.surrogate.artifact import SHIPPED
    from sdn.surrogate.zoo import make

    torch.set_num_threads(1)
    folder = args.out or SHIPPED
    folder.mkdir(parents=True, exist_ok=True)
    make(folder, args.names, args.seed)


@entry_point
def main() -> None:
    """Run one command."""
    words = without_neurons(sys.argv[1:])
    if words and words[0] in WHOLE:
        WHOLE[words[0]][1](words[1:])
        return
    args: Any = parser().parse_args(words)
    args.run_command(args)


if __name__ == "__main__":
    main()
