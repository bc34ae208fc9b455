"""`python -m benchmarks [suite ...] [--quick]`: measure, print tables, write benchmarks/results/<suite>.json."""

import argparse
import importlib
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from benchmarks.harness import Bench
from benchmarks.record import facts, write

SUITES = (
    "neurons",
    "buffers",
    "threads",
    "parallel",
    "scans",
    "s4d",
    "s5rf",
    "brf",
    "surrogate",
    "rounds",
    "model",
    "experiments",
    "startup",
    "streaming",
    "recordings",
    "gpu",
)
ROOT = Path(__file__).parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run the suites asked for, each in a process of its own; returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", nargs="*", help=f"any of {', '.join(SUITES)}; default all")
    parser.add_argument("--quick", action="store_true", help="a subset in three rounds; writes only with --out")
    parser.add_argument("--out", type=Path, help="folder of the JSON files (default benchmarks/results)")
    args = parser.parse_args(arguments)
    if unknown := set(args.suite) - set(SUITES):
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if len(args.suite) == 1:
        measure(args.suite[0], "quick" if args.quick else "full", args.out)
        return 0
    options = ["--quick"] * args.quick + (["--out", str(args.out.absolute())] if args.out else [])
    command = [sys.executable, "-m", "benchmarks"]
    return sum(subprocess.run([*command, suite, *options], cwd=ROOT).returncode != 0 for suite in args.suite or SUITES)


def measure(suite: str, level: str, out: Path | None = None) -> Bench:
    """Run one suite in this process, on one thread, and write what it found (a quick one only where told to)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # what peers and torch.jit have to say is not ours
    known, start, used = facts(), time.perf_counter(), time.process_time()
    print(
        f"\n== {suite}: " + ", ".join(f"{k} {known[k]}" for k in ("processor", "load", "clock", "commit", "versions"))
    )
    bench = Bench(suite, level)
    importlib.import_module(f"benchmarks.{suite}").run(bench)
    clock, used = time.perf_counter() - start, time.process_time() - used
    print(f"== {suite}: {clock:.0f} s, {used:.0f} s of CPU in this process", flush=True)
    if bench.rows and (out or level == "full"):
        print(f"wrote {write(bench, out and out / f'{suite}.json')}", flush=True)
    return bench


if __name__ == "__main__":
    sys.exit(main())
