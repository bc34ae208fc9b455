"""Every example is short, runs as it is, and learns what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
NUMBER = r"(-?\d[\d.]*(?:e[-+]\d+)?)"


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


def train_surrogate(text):
    assert "153 numbers" in text
    agree, blind = numbers("agree in", text)[0], numbers("without a past in", text)[0]
    assert 100 - agree < 0.1 * (100 - blind)
    assert numbers("as a layer:", text)[0] > 99.8
    assert 5 < numbers("spikes in", text)[0] < 30
    assert numbers("gradient", text)[0] > 0.01


def own_data(text):
    assert numbers("right", text)[0] > 0.95 > 0.8 > numbers("largest class", text)[0]
    assert len(numbers("recall", text)) == 4
    assert min(numbers("recall", text)) > 0.7
    assert numbers("spikes a row:", text)[0] > 100


def streaming(text):
    frames, milliseconds = re.search(r"(\d+) frames of 2 ms, ([\d.]+) ms", text).groups()
    assert int(frames) == 500
    assert float(milliseconds) > 0
    assert numbers("at once by", text)[0] < 1e-3 < 1 < numbers("without the state by", text)[0]
    assert re.search(r"it hears [0-9], with \d{3,} spikes", text)


def variable_length(text):
    losses = numbers("loss", text)
    assert losses[0] > 0.6
    assert losses[-1] < 0.3
    assert numbers("new rows: right", text)[0] > 0.9
    assert numbers("padded or not differs by", text)[0] < 1e-4 < 0.1 < numbers("without lengths by", text)[0]


def lightning_module(text):
    before, after = map(float, re.search(r"right ([\d.]+) at first, ([\d.]+) after", text).groups())
    assert 0.4 < before < 0.6
    assert after > 0.75


def fit_recording(text):
    assert 2 < numbers("spikes in", text)[0] < 30
    assert numbers("decay", text)[0] == pytest.approx(0.85, abs=0.01)
    assert numbers("threshold", text)[0] == pytest.approx(1.2, abs=0.02)
    known, learned = numbers("F1", text)
    assert known > 0.95
    assert learned > 0.8 > 0.7 > numbers("without a past", text)[0]
    assert 2 < numbers("it fires in", text)[0] < 60


CHECKS = (
    plain_loop, own_neuron, recurrent, train_surrogate, own_data, streaming, variable_length, lightning_module,
    fit_recording,
)  # fmt: skip
SAYS = {check.__name__: check for check in CHECKS}
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
