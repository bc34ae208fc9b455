"""Every tutorial runs top to bottom, shows its outputs, and learns what it says."""

import re
from pathlib import Path

import pytest
from notebooks import check_outputs, printed, ran, words

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.ipynb"))
every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def numbers(pattern, text):
    found = [float(number.replace(",", "")) for number in re.findall(pattern, text)]
    assert found, f"{pattern!r} is not in\n{text}"
    return found


def plain_loop(text):
    losses = numbers(r"step +\d+ \| loss ([\d.]+)", text)
    assert losses[0] > 1.3
    assert losses[-1] < 0.6
    assert numbers(r"([\d.]+) % of 1,000 new rows", text)[0] > 93
    assert all(2 < rate < 50 for rate in numbers(r"fires in ([\d.]+) % of the steps", text))
    assert all(difference < 1e-5 for difference in numbers(r"largest difference: ([\d.e-]+)", text))


SAYS = {"plain_loop": plain_loop}
"""What the text of each tutorial has to say."""


def test_there_is_a_check_for_each():
    assert {path.stem for path in TUTORIALS} == set(SAYS)


@every_tutorial
def test_a_tutorial_keeps_its_outputs(path):
    check_outputs(path, most=400_000, figures=2)
    SAYS[path.stem](printed(path))


@every_tutorial
def test_a_tutorial_runs_and_prints_what_it_shows(path, tmp_path):
    text = ran(path, tmp_path)
    SAYS[path.stem](text)
    assert words(text) == words(printed(path)), "run `python docs/notebooks.py` for it again"
