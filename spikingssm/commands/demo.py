"""The main job end to end, by the same commands that a user types: `make demo`, or `python -m spikingssm demo`."""

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

import sdn
from sdn.runs.lock import LOCK, locked
from spikingssm.experiments.build import build
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.figures import demo_figure
from spikingssm.experiments.runfolder import stored
from spikingssm.measures.spikes import spikes_of
from spikingssm.processes.children import call

__all__ = ["run_demo"]

DECAY = 0.125


def run_demo(out: str | Path = "demo") -> None:
    """Trajectories, SDN, reduction, SpikingSSM on digits, evaluation under the surrogate and under the exact neuron.

    Prints one table and writes ``figure.png``, ``table.txt`` and all runs below ``out``, which is emptied first.

    Args:
        out: folder to work in.

    Raises:
        FileExistsError: the folder holds something that no demo wrote.
        BlockingIOError: another demo works there.
        OSError: a command failed; its own error stands above.
    """
    out = Path(out)
    with locked(out, "use another --out"):
        _claim(out)
        _run_demo(out)


def _run_demo(out: Path) -> None:
    started, seconds = time.perf_counter(), dict[str, float]()
    files = [out / "dataset" / f"{n}-mem-T1024-N(0.0,1.0)-{rows}-tau_{DECAY}.pt" for n, rows in _SPLITS.items()]
    for name, rows in _SPLITS.items():
        _command(seconds, "trajectories", "generate.py", out / "dataset", "-n", name, "-N", rows, "-t", DECAY)
    _command(
        seconds, "SDN", "train.py", "--save", out / "sdn", "--training", files[0], "--test", files[1],
        "--epochs", 20, "--steps_per_epoch", 700, "--members", 4,
    )  # fmt: skip
    artifact = out / "sdn" / "artifact.safetensors"
    solver = f"model.solver={{_target_: sdn.Surrogate, artifact: {artifact}}}"
    _command(seconds, "SpikingSSM", "train.py", "experiment=spikingssm/digits", solver, f"run_dir={out / 'digits'}")
    clock = time.perf_counter()
    results = {word: evaluate(out / "digits", s) for word, s in {"surrogate": None, "exact": "fused"}.items()}
    seconds["evaluation"] = time.perf_counter() - clock
    text = _table(json.loads((out / "sdn" / "summary.json").read_text()), results, seconds)
    (out / "table.txt").write_text(text + "\n")
    _figure(out)
    print(f"\n{text}\n\nfigure: {out / 'figure.png'}   all of it took {time.perf_counter() - started:.0f} s")


_SPLITS = {"training": 6000, "test": 1000}


def _claim(out: Path) -> None:
    marker = out / ".demo"
    held = [path for path in out.iterdir() if path.name != LOCK]
    if held and not marker.exists():
        raise FileExistsError(f"{out} holds something that no demo wrote; use another --out.")
    if held:
        print(f"emptying {out}/, which an earlier demo wrote")
    for path in (path for path in held if path != marker):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    marker.touch()


def _command(seconds: dict[str, float], stage: str, script: str, *arguments: Any) -> None:
    """Run a script of the project as a user would, and say so."""
    words = [str(a) for a in arguments]
    print(f"\n$ python {script} {shlex.join(words)}", flush=True)
    path = Path(sdn.__file__).parents[1] / script
    clock = time.perf_counter()
    code = call([sys.executable, str(path), *words], {**os.environ, "PYTHONWARNINGS": "ignore"})
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - clock
    if code != 0:
        raise ChildProcessError(f"python {script} ended with exit code {code}; its error stands above.")


def _table(summary: dict[str, Any], results: dict[str, dict[str, Any]], seconds: dict[str, float]) -> str:
    test, rule = summary["metrics"]["test"], "-" * 66

    def row(label: str, *values: float) -> str:
        return f"{label:<44}" + "".join(f"{100 * value:11.3f}" for value in values)

    both = list(results.values())
    lines = [
        rule,
        f"{f'SDN for LIF(decay={DECAY}), test set':<44}{'SDN':>11}{'mem = 0':>11}",
        row("  spikes that agree with the exact neuron, %", test["agreement"], test["trivial_agreement"]),
        row("  F1 of the spikes, %", test["f1"], test["trivial_f1"]),
        rule,
        f"{'SpikingSSM, one net, 359 test digits':<44}{'surrogate':>11}{'exact':>11}",
        row("  test accuracy, %", *(found["accuracy"] for found in both)),
        row("  spike rate, %", *(found["spike_rate"] for found in both)),
        rule,
        "seconds: " + ", ".join(f"{stage} {spent:.0f}" for stage, spent in seconds.items()),
    ]
    return "\n".join(lines)


def _figure(out: Path) -> None:
    artifact = sdn.load_artifact(out / "sdn" / "artifact.safetensors")
    current = torch.randn(1, 80, 1, generator=torch.Generator().manual_seed(3))
    exact = sdn.simulate(artifact.dynamics, current)
    with torch.no_grad():
        predicted = artifact.network(current[..., 0])[0]
    data, module = build(stored(out / "digits"), out / "digits" / "checkpoints" / "best.ckpt")
    batch = next(iter(data.test_dataloader()))
    layer, spikes = next(iter(spikes_of(module.model, batch.x[:1]).items()))
    demo_figure(
        exact, predicted, artifact.dynamics, spikes[0], f"spikes of {layer}, one test digit", out / "figure.png"
    )
