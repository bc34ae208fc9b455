"""Running the scripts of the project: as processes, and in this one."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = ["--epochs", "4", "--steps_per_epoch", "50", "--batch_size", "8", "--members", "2"]
NAMES = {"training": "training-mem-T64-N(0.0,1.0)-200-tau_0.125.pt", "test": "test-mem-T64-N(0.0,1.0)-50-tau_0.125.pt"}


def script(name, *arguments, cwd, **options):
    """Start a script of the project in a folder, as a process of its own that sees no GPU."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, **options,
    )  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def call(monkeypatch, capsys, name, *arguments):
    """Run a script in this process: exit code and what it wrote to standard error."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    sys.path.insert(0, str(ROOT))
    try:
        __import__(name.removesuffix(".py")).main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.path.remove(str(ROOT))
    return code, capsys.readouterr().err


def files(folder):
    return [w for split, name in NAMES.items() for w in (f"--{split}", folder / "dataset" / name)]
