"""Every example is short, runs as it is, and learns what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
NUMBER = r"(-?\d[\d.]*)"


def numbers(words, text):
    """All numbers behind these words."""
    found = [float(number) for number in re.findall(words + " *" + NUMBER, text)]
    assert found, f"{words!r} is not in\n{text}"
    return found


def plain_loop(text):
    losses = numbers("loss", text)
    assert losses[0] > 0.6
    assert losses[-1] < 0.1


def own_neuron(text):
    assert "equal to the plain loop: True" in text
    off = numbers("rates are off by", text)
    assert off[0] > 0.03
    assert off[-1] < 0.01
    jumps = [float(jump) for jump in re.search("jumps (.*)", text)[1].split(", ")]
    assert jumps == sorted(jumps, reverse=True)  # who shall fire less gets more tired
    assert jumps[0] > 3 * jumps[-1] > 0


def recurrent(text):
    right, rates = numbers("right", text), numbers("spikes a step", text)
    assert right[0] < 0.4
    assert right[-1] > 0.8
    assert all(0.01 < rate < 0.6 for rate in rates)


SAYS = {"own_neuron": own_neuron, "plain_loop": plain_loop, "recurrent": recurrent}
"""What each example has to print."""


def test_there_is_a_check_for_each():
    assert {path.stem for path in EXAMPLES} == set(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_runs(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 50
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=150,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path.parents[1])}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    SAYS[path.stem](done.stdout)
