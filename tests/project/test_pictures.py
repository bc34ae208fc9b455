"""The pictures of the neurons' pages: one each, small, of a current that drives the neuron and then does not."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

import sdn
from sdn.dynamics import BUILT_IN

ROOT = Path(__file__).parents[2]
SCRIPT = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "neurons" / "pictures.py")
pictures = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(pictures)


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_every_neuron_has_a_picture_that_is_small():
    assert set(pictures.PICTURES) == {kind.__name__ for kind in BUILT_IN.values()}
    for name, shown in pictures.PICTURES.items():
        assert type(shown.dynamics).__name__ == name
        path = ROOT / "docs" / "neurons" / f"{name}.png"
        assert path.stat().st_size <= 60_000
        assert size_of(path) == (900, 370)


@pytest.mark.parametrize("name", ["RF", "BRF", "HRF", "IzhikevichRF"])
def test_resonators_fire_at_their_own_frequency_only(name):
    shown = pictures.PICTURES[name]
    spikes = sdn.simulate(shown.dynamics, shown.current.double().reshape(1, -1, 1)).spike[0, :, 0]
    slow, _, own, _, fast, _ = (spikes[part] for part in _parts(shown))
    assert own.sum() >= 2
    assert slow.sum() == fast[len(fast) // 2 :].sum() == 0


def _parts(shown):
    """Where the three sines and their pauses are."""
    middle = [*shown.words]
    period = middle[1] - middle[0]
    half = middle[0]
    for i in range(3):
        yield slice(i * period, i * period + 2 * half)
        yield slice(i * period + 2 * half, (i + 1) * period)


def test_a_picture_is_drawn_anew(tmp_path):
    path = pictures.write("ALIF", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["ALIF.png"]
    assert size_of(path) == (900, 370)
