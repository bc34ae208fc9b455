"""The moving picture of a LIF and a BRF: what each fires at, how it fills, and the file that is committed."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikingssm import __main__ as command
from spikingssm.reports.animation import save
from spikingssm.reports.filling import PERIOD, fill, rhythm, rows

ROOT = Path(__file__).parents[3]


def test_each_neuron_fires_at_what_its_words_say():
    current = rhythm()
    constant = (current == 1).nonzero().flatten()[:120]
    sine = slice(len(current) - 40 - 6 * PERIOD, len(current) - 40)
    lif, brf = (row.run.spike[0, :, 0] for row in rows())
    assert lif[constant].sum() >= 5
    assert lif.sum() - lif[constant].sum() <= 1
    assert brf[sine].sum() >= 10
    assert brf[: sine.start].sum() == 0


def test_it_fills_from_the_left_and_holds_its_last_picture(tmp_path):
    save(fill(3), tmp_path / "a.gif", fps=5, hold=1.5)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3
        pictures, times = [], []
        for n in range(3):
            gif.seek(n)
            times.append(gif.info["duration"])
            pictures.append(np.array(gif.convert("RGB")).astype(int))
    assert times == [200, 200, 1700]
    blue = [(np.abs(p - (31, 119, 180)).sum(2) < 60) for p in pictures]
    assert blue[0].sum() < blue[1].sum() < blue[2].sum()
    middle = blue[0].shape[1] // 2
    assert blue[0][130:, :middle].sum() > 50
    assert blue[0][130:, middle:].sum() == 0
    assert blue[2][130:, middle:].sum() > 50


def test_the_committed_picture_is_small_and_loops():
    path = ROOT / "docs" / "neurons.gif"
    assert path.stat().st_size < 600_000
    with Image.open(path) as gif:
        assert gif.width <= 800
        assert gif.n_frames >= 60
        assert gif.info["loop"] == 0


def test_the_command(tmp_path, monkeypatch):
    words = ["spikingssm", "explain", "--show", "neurons", "--frames", "2", "--out", str(tmp_path / "a.gif")]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 2
    monkeypatch.setattr(sys, "argv", [*words, "--omega", "3"])
    with pytest.raises(ValueError, match="--omega 3 is for --show resonance; leave it out"):
        command.main()
    with pytest.raises(ValueError, match="frames must be from 1 to the 406 steps, got 407"):
        fill(407)
