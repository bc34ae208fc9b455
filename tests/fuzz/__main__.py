"""``python -m fuzz``: many inputs, a table by format, and an exit code of 1 where one did what none may do."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzz import arrays, hostile, recordings, settings, stored, streams, texts
from fuzz.engine import Format, Outcome, case, run_cases, template

KINDS = {
    kind.name: kind for part in (stored, arrays, recordings, streams, texts, settings, hostile) for kind in part.FORMATS
}
COLUMNS = ("refused", "right", "other", "lines", "traceback", "hang", "memory", "code", "crash")


def jobs(inputs: int, only: Sequence[str] = ()) -> list[tuple[str, int]]:
    """Formats and numbers of about so many inputs, by the share of each format."""
    kinds = [kind for kind in KINDS.values() if not only or kind.name in only]
    total = sum(kind.share for kind in kinds)
    return [(kind.name, n) for kind in kinds for n in range(max(1, round(inputs * kind.share / total)))]


def fuzz(chosen: Sequence[tuple[str, int]], seed: int, home: Path, workers: int = 1) -> list[Outcome]:
    """Read inputs in several processes; the outcomes in the order of the inputs."""
    for name in {name for name, _ in chosen}:
        template(KINDS[name], home)
    files = [home / f"outcomes-{worker}" for worker in range(workers)]
    pids = []
    for worker, file in enumerate(files):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                mine = [job for i, job in enumerate(chosen) if i // 25 % workers == worker]
                with file.open("w") as out:
                    for outcome in run_cases(KINDS, mine, seed, home):
                        out.write(json.dumps(outcome.__dict__) + "\n")
                        out.flush()
                code = 0
            except BaseException:  # the worker must not go on as a copy of its parent
                traceback.print_exc()
            finally:
                os._exit(code)
        pids.append(pid)
    failed = [os.waitpid(pid, 0)[1] for pid in pids]
    if any(failed):
        raise RuntimeError(f"{sum(map(bool, failed))} of {workers} workers ended early; see above")
    found = {}
    for file in files:
        for line in file.read_text().splitlines():
            outcome = Outcome(**json.loads(line))
            found[outcome.format, outcome.number] = outcome
    return [found[job] for job in chosen if job in found]


def table(found: Sequence[Outcome]) -> str:
    """Counts by format; formats with a checksum are marked."""
    width = max(len(name) for name in KINDS) + 2
    lines = [f"{'format':<{width}}{'inputs':>8}" + "".join(f"{column:>11}" for column in COLUMNS)]
    names = list(dict.fromkeys(outcome.format for outcome in found))
    for name in [*names, "all"]:
        counts = Counter(o.kind for o in found if name in ("all", o.format))
        mark = "" if name == "all" else " +" if KINDS[name].redundant else ""
        cells = "".join(f"{counts[column] or '':>11}" for column in COLUMNS)
        lines.append(f"{name + mark:<{width}}{sum(counts.values()):>8}{cells}")
    return "\n".join([*lines, "+ with a checksum: other content is accepted only where somebody wrote it with one"])


def summary(found: Sequence[Outcome], seed: int, seconds: float) -> dict[str, Any]:
    """What the table says as plain values, with versions, and every input that did what none may do."""
    formats = {
        name: {"checksum": KINDS[name].redundant, **Counter(o.kind for o in found if o.format == name)}
        for name in dict.fromkeys(outcome.format for outcome in found)
    }
    return {
        "inputs": len(found), "seed": seed, "seconds": round(seconds), "python": platform.python_version(),
        "torch": torch.__version__, "numpy": np.__version__, "cores": os.cpu_count(),
        "slowest_seconds": max(outcome.seconds for outcome in found), "formats": formats,
        "all": Counter(outcome.kind for outcome in found), "bad": [o.__dict__ for o in found if o.bad],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; 1 where an input did what none may do."""
    parser = argparse.ArgumentParser("python -m fuzz", description="Damaged, edited and hostile inputs.")
    parser.add_argument("--inputs", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="of all of them (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument(
        "--only", action="append", default=[], choices=sorted(KINDS), help="this format; may be repeated"
    )
    parser.add_argument("--case", type=int, help="this input of the one format, read here with its traceback")
    parser.add_argument("--json", type=Path, help="write the counts there")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    home = Path(tempfile.mkdtemp(prefix="fuzz-"))
    if given.case is not None:
        return _one(KINDS[given.only[0]], given.case, given.seed, home)
    started = time.perf_counter()
    found = fuzz(jobs(given.inputs, given.only), given.seed, home, given.workers)
    print(table(found))
    bad = [outcome for outcome in found if outcome.bad]
    for outcome in bad[:50]:
        print(
            f"{outcome.kind}: --only '{outcome.format}' --case {outcome.number} ({outcome.change}) {outcome.says[:300]}"
        )
    slowest = max(found, key=lambda outcome: outcome.seconds)
    print(
        f"{len(found)} inputs in {time.perf_counter() - started:.0f} s, the slowest {slowest.seconds:.1f} s "
        f"({slowest.format} {slowest.number}); {len(bad)} did what none may do"
    )
    if given.json is not None:
        given.json.write_text(json.dumps(summary(found, given.seed, time.perf_counter() - started), indent=1) + "\n")
    return int(bool(bad))


def _one(kind: Format, number: int, seed: int, home: Path) -> int:
    """One input, in this process."""
    whole = template(kind, home)
    folder = home / "cases" / "one" / "input"
    folder.parent.mkdir(parents=True)
    print(f"{folder}: {case(kind, number, seed, whole, folder)}")
    os.chdir(folder)
    print(kind.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
