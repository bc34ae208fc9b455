"""Every example is short, runs as it is, and learns what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def test_there_are_some():
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_runs(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 50
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path.parents[1])}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if path.stem == "plain_loop":
        losses = [float(found) for found in re.findall(r"loss ([\d.]+)", done.stdout)]
        assert losses[0] > 0.6
        assert losses[-1] < 0.1
