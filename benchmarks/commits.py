"""`python -m benchmarks.commits BASE`: is anything slower than at another commit? Pairs, one after the other.

Each commit gets a process of its own with its own `sdn` and `spikingssm`. They do every case in turns, so that whatever
else the machine does meets both. The ratio of a case is the median over pairs of CPU seconds, this tree over the base.
"""

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Case = Callable[[], Any]


def cases() -> dict[str, Case]:
    """What is timed, by name; a training step includes the backward pass."""
    import torch

    import sdn
    from spikingssm import RSNN, S4D, S5RF, SpikingSSM

    torch.manual_seed(0)
    found: dict[str, Case] = {}

    def both(name: str, layer: torch.nn.Module, x: torch.Tensor) -> None:
        x = x.requires_grad_()

        def train() -> None:
            x.grad = None
            layer.zero_grad()
            out = layer(x)
            (out[0] if isinstance(out, tuple) else out).square().sum().backward()

        def infer() -> None:
            with torch.no_grad():
                layer(x)

        found[f"{name}, training step"], found[f"{name}, inference"] = train, infer

    def steps(name: str, model: torch.nn.Module, x: torch.Tensor) -> None:
        model = model.eval()
        step: Any = model.step

        def stream() -> None:
            state = None
            with torch.no_grad():
                for now in x.unbind(1):
                    _, state = step(now, state)[:2]

        found[f"{name}, {x.shape[1]} steps"] = stream

    x = torch.randn(16, 512, 128)
    for dynamics, scale in ((sdn.LIF(0.9), 1), (sdn.ALIF(), 3), (sdn.RF(), 30), (sdn.BRF(), 30)):
        both(type(dynamics).__name__, sdn.Neuron(dynamics, 128), scale * x)
    both("LIF, surrogate", sdn.Neuron(sdn.LIF(0.125), 128, solver="surrogate"), x.clone())
    both("LIF, parallel", sdn.Neuron(sdn.LIF(0.9), 128, solver="parallel"), x.clone())
    both("LIF, loop", sdn.Neuron(sdn.LIF(0.9), 128, solver="loop"), x[:, :64].clone())
    both("S4D, small", S4D(64, 32), torch.randn(8, 512, 64))
    both("S4D", S4D(128, 64), torch.randn(8, 784, 128))
    both("SpikingSSM", SpikingSSM(1, 10, 64, 2, 32, dropout=0.0), torch.randn(8, 512, 1))
    # an older commit knows no other start
    known = inspect.signature(RSNN).parameters
    old: Any = {"start": "published"} if "start" in known else {}
    both("S5-RF", S5RF(1, 10, 128, 2, **old), (torch.rand(8, 784, 1) < 0.3).float())
    both("RSNN of BRF", RSNN(4, 6, 64, pool="mean", **old), 40 * torch.randn(16, 1000, 4))
    both("RSNN of ALIF", RSNN(4, 6, 64, pool="mean", dynamics=sdn.ALIF(), **old), torch.randn(16, 1000, 4))
    steps("LIF", sdn.Neuron(sdn.LIF(0.9), 128), torch.randn(1, 100, 128))
    steps("SpikingSSM", SpikingSSM(1, 10, 64, 3, 32, dropout=0.0), torch.randn(1, 20, 1))
    steps("S5-RF", S5RF(1, 10, 128, 3, **old), (torch.rand(1, 40, 1) < 0.3).float())
    steps("RSNN of BRF", RSNN(4, 6, 256, pool="mean", **old), 40 * torch.randn(1, 40, 4))
    return found


def child() -> None:
    """Time what standard input names, a line each, and answer with CPU seconds of one call."""
    import warnings

    import torch

    import sdn

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    known, often = cases(), {}
    for name, case in known.items():
        case()  # compiles
        start = time.process_time()
        case()
        often[name] = max(1, round(0.15 / max(1e-6, time.process_time() - start)))
    out.write(json.dumps({"file": sdn.__file__, "cases": [*known]}) + "\n")
    for line in sys.stdin:
        name = line.strip()
        start = time.process_time()
        for _ in range(often[name]):
            known[name]()
        out.write(json.dumps((time.process_time() - start) / often[name]) + "\n")


class Worker:
    """A process with the code of a commit."""

    def __init__(self, root: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--child", "."]
        self.process = subprocess.Popen(
            command, cwd=root, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        facts = json.loads(self.process.stdout.readline())
        assert Path(facts["file"]).is_relative_to(root), f"{facts['file']} is not of {root}"
        self.cases: list[str] = facts["cases"]

    def time(self, name: str) -> float:
        """CPU seconds of one call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder).resolve()


def compare(base: str, rounds: int, only: str = "") -> dict[str, dict[str, float]]:
    """Case -> seconds of both, the median ratio, and the range of its middle half."""
    with checkout(base) as folder:
        before, now = Worker(folder), Worker(ROOT)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in now.cases if only in name}
        for number in range(rounds):
            for name, pairs in taken.items():
                first, second = (before, now) if number % 2 else (now, before)
                found = {first: first.time(name), second: second.time(name)}
                pairs.append((found[before], found[now]))
        for worker in (before, now):
            worker.process.kill()
            worker.process.wait()
    return {name: _summary(pairs) for name, pairs in taken.items()}


def _summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    low, middle, high = statistics.quantiles([now / before for before, now in pairs], n=4)
    before, now = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"before": before, "now": now, "ratio": middle, "lower": low, "upper": high}


def main() -> int:
    """Do what the command line asks for; the number of cases that are slower than they may be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__)
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of each case (default 15)")
    parser.add_argument("--only", default="", metavar="WORDS", help="cases whose name holds these words")
    parser.add_argument("--most", type=float, default=1.03, help="largest ratio that passes (default 1.03)")
    parser.add_argument("--out", type=Path, help="write the figures there too, as JSON")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child()
        return 0
    known = subprocess.run(["git", "rev-parse", "--verify", f"{given.base}^{{commit}}"], cwd=ROOT, capture_output=True)
    if known.returncode:
        parser.error(f"{given.base} is no commit of {ROOT}")
    found = compare(given.base, given.rounds, given.only)
    width = max(map(len, found))
    for name, row in found.items():
        mark = "  slower" if row["ratio"] > given.most else ""
        print(f"{name:<{width}}  {1e3 * row['before']:9.3f} ms  {1e3 * row['now']:9.3f} ms  {row['ratio']:.3f}"
              f"  ({row['lower']:.3f} to {row['upper']:.3f}){mark}")  # fmt: skip
    if given.out is not None:
        sys.path.insert(0, str(ROOT))
        from benchmarks.record import facts

        content = {"facts": facts(), "base": given.base, "rounds": given.rounds, "cases": found}
        given.out.write_text(json.dumps(content, indent=1) + "\n")
    return sum(row["ratio"] > given.most for row in found.values())


if __name__ == "__main__":
    sys.exit(main())
