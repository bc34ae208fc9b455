"""`sdn doctor`: versions, fast paths, caches, threads, speed, and what is wrong, as text or JSON."""

import argparse
import json
import sys

__all__ = ["add", "run"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the parser of this command."""
    parser = commands.add_parser("doctor", help="what this machine has, which fast paths run, and what is wrong")
    parser.add_argument(
        "--json", metavar="FILE", help="write everything there too, to send with a report; - prints it alone"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of the speed check, 0 for none (default 2)")
    parser.add_argument("--gpu", action="store_true", help="check every kernel on the GPU too")
    parser.set_defaults(run_command=run)


def run(args: argparse.Namespace) -> None:
    """Print what was found; the exit code is 1 where something is wrong.

    Raises:
        ValueError: --gpu without a GPU.
    """
    from sdn.doctor.report import examine, text
    from sdn.runs.files import write_json

    found = examine(args.seconds, args.gpu)
    encoding = sys.stdout.encoding or "utf-8"
    said = json.dumps(found, indent=1) if args.json == "-" else text(found)
    print(said.encode(encoding, "backslashreplace").decode(encoding))  # paths may have letters it has not
    if args.json not in (None, "-"):
        write_json(args.json, found)
    if found["problems"]:
        sys.exit(1)
