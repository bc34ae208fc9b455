"""`python -m sdn COMMAND`: what is done with surrogates beside making one. `python -m sdn --help` lists it."""

import argparse
from pathlib import Path
from typing import Any

from sdn.runs.cli import entry_point

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    p = argparse.ArgumentParser(prog="python -m sdn", description=__doc__)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    zoo = commands.add_parser("zoo", help="train the artifacts that ship, and write the table of their card")
    zoo.add_argument("names", nargs="*", help="which ones (default all)")
    zoo.add_argument("--out", type=Path, help="folder (default: where the package keeps them)")
    zoo.add_argument("--seed", type=int, default=0, help="of currents and weights (default 0)")
    zoo.set_defaults(run=_zoo)
    return p


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
    args: Any = parser().parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
