"""`sdn warmup`: compile ahead what would else be compiled at first use, and keep it on disk."""

import argparse
import time

import torch

__all__ = ["add", "run"]

SECONDS = 3
"""About as long as an operator takes in one precision, on one core."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the parser of this command."""
    parser = commands.add_parser("warmup", help="compile all kernels ahead, so that no first call has to wait")
    parser.add_argument("names", nargs="*", metavar="NAME", help="operators, such as lif brf scan (default all)")
    parser.add_argument("--double", action="store_true", help="for float64 too")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is one (default cpu)")
    parser.set_defaults(run_command=run)


def run(args: argparse.Namespace) -> None:
    """Run every operator once, forward and backward, and say what it took.

    Raises:
        ValueError: an unknown name.
    """
    from sdn.doctor.machine import caches
    from sdn.doctor.operators import operators

    there = operators()
    if strangers := [name for name in args.names if not any(_is_meant(name, known) for known in there)]:
        raise ValueError(f"no operator is named {strangers[0]!r}; there are: {'; '.join(there)}.")
    chosen = [k for k in there if not args.names or any(_is_meant(name, k) for name in args.names)]
    dtypes = [torch.float32, torch.float64] if args.double else [torch.float32]
    print(f"{len(chosen)} operators, up to about {SECONDS * len(chosen) * len(dtypes)} s; less where they are on disk")
    begun = time.perf_counter()
    for name in chosen:
        start = time.perf_counter()
        for dtype in dtypes:
            there[name](args.device, dtype, 65, 33)
        print(f"{time.perf_counter() - start:6.1f} s  {name}", flush=True)
    problems = caches()[1]
    kept = "; ".join(problems) or "kept on disk for later processes"
    print(f"{time.perf_counter() - begun:6.1f} s in all; {kept}")


def _is_meant(name: str, known: str) -> bool:
    """``lif`` is also "lif, parallel"; ``recurrent`` all that begin so."""
    return known == name or known.startswith((f"{name},", f"{name} "))
