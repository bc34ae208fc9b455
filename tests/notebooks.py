"""Running notebooks as the tests do: their code alone, in a process of its own and a folder of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINE = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|opt|var|usr)/")
"""The start of a path that is not the reader's."""


def cells(path):
    return json.loads(path.read_text())["cells"]


def code(path):
    return "\n\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")


def outputs(path):
    return [out for cell in cells(path) for out in cell.get("outputs", [])]


def ran(path, folder, timeout=150, **names):
    """What a notebook prints, without figures on a screen; ``names`` are replaced in its code.

    Args:
        path: of the notebook.
        folder: to run in.
        timeout: seconds.
        names: text -> text that stands for it, each of which must occur.
    """
    text = code(path)
    for name, instead in names.items():
        assert name in text, name
        text = text.replace(name, instead)
    (folder / "notebook.py").write_text("import matplotlib; matplotlib.use('Agg')\n\n" + text)
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=folder, capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed(path):
    """What a notebook has kept of what it printed."""
    return "".join("".join(out["text"]) for out in outputs(path) if out["output_type"] == "stream")


def numberless(text):
    """Text without what differs from machine to machine: numbers, spaces, and where a line of code stands."""
    text = re.sub(r"line \d+ of \S+?(?=[:;,)])", "a line", text)
    return [re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?|\s+", "", line) for line in text.splitlines() if line.strip()]


def check_outputs(path, most, figures):
    """A notebook that is committed shows what it prints and draws, and nothing of the machine that ran it.

    Args:
        path: of the notebook.
        most: bytes.
        figures: how many there are at least.
    """
    shown = outputs(path)
    assert len(path.read_bytes()) <= most
    assert sum("image/png" in out.get("data", {}) for out in shown) >= figures
    assert not any(out["output_type"] == "error" or out.get("name") == "stderr" for out in shown)
    text = json.dumps(
        [[cell["source"], [o for o in cell.get("outputs", []) if "png" not in str(o)]] for cell in cells(path)]
    )
    assert not MACHINE.search(text), MACHINE.search(text)
