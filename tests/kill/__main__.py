"""`make kill`: kill, do again, compare. Prints a table; exit code 1 if anything is wrong."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from kill.bench import Bench
from kill.jobs import JOBS
from kill.moments import plan


def main() -> None:
    """Read the command line, kill, and print."""
    parser = argparse.ArgumentParser("make kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of jobs, signals and moments (default 0)")
    parser.add_argument("--processes", type=int, default=12, help="that many of them start from nothing (default 12)")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="default: all")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the table: these alone, as in the whole plan")
    parser.add_argument("--json", type=Path, help="write the table there too")
    args = parser.parse_args()
    kills = plan(args.seed, args.kills, args.processes, tuple(args.jobs))
    found, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(Path(home).resolve())
        for number, kill in enumerate(kills, 1):
            if args.only and number not in args.only:
                continue
            row = {"kill": number, **bench.kill(kill)}
            found.append(row)
            verdict = "right" if not row["wrong"] else "WRONG: " + "; ".join(row["wrong"])
            words = (number, row["job"], row["signal"], row["process"], row["moment"], row["exit_code"], row["then"])
            print("{:>3}  {:<8} {:<7}  {:<11}  {:<24}  {:>3}  {:<16}  {}".format(*words, verdict), flush=True)
    right = sum(not row["wrong"] for row in found)
    print(f"{right} right of {len(found)}, seed {args.seed}, {time.monotonic() - started:.0f} s")
    if args.json:
        table = {"seed": args.seed, "kills": len(found), "right": right, "table": found}
        args.json.write_text(json.dumps(table, indent=1) + "\n")
    sys.exit(right != len(found))


if __name__ == "__main__":
    main()
