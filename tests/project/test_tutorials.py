"""Every tutorial runs top to bottom, shows its outputs, and learns what it says."""

import re
from pathlib import Path

import pytest
from notebooks import cells, check_outputs, numberless, printed, ran

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.ipynb"))
every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def numbers(pattern, text):
    """What the groups of a pattern find."""
    found = [float(next(filter(None, match.groups()))) for match in re.finditer(pattern, text)]
    assert found, f"{pattern!r} is not in\n{text}"
    return found


def plain_loop(text):
    losses = numbers(r"step +\d+ \| loss ([\d.]+)", text)
    assert losses[0] > 1.3
    assert losses[-1] < 0.6
    assert numbers(r"([\d.]+) % of 1,000 new rows", text)[0] > 93
    assert all(0.02 < rate < 0.5 for rate in numbers(r"\d: (0\.\d+)", text))
    assert all(difference < 1e-5 for difference in numbers(r"largest difference: ([\d.e-]+)", text))
    early, late, last = numbers(r" steps: ([\d.]+)|100: ([\d.]+)|200: ([\d.]+)", text)
    assert early < 0.6 < 0.9 < late <= last


def own_neuron(text):
    assert 3 < numbers(r"fires in ([\d.]+) % of the steps", text)[0] < 30
    assert "equal to the plain loop: True" in text
    assert "write it with elementwise operations of torch, or use solver='loop'" in text
    before, after = numbers(r"off by ([\d.]+)", text)[0], numbers(r"first and ([\d.]+)", text)[0]
    assert after < before / 5
    assert numbers(r"right ([\d.]+)", text)[-1] > 0.95
    agree = numbers(r"rounds: ([\d.]+) %", text)
    assert agree == sorted(agree)
    assert agree[0] > numbers(r"no spike at all: ([\d.]+)", text)[0]
    assert agree[-1] == 100


def surrogate(text):
    assert "193 numbers in training, 153 reduced" in text
    assert "refused: artifact was made for LIF(decay=0.125" in text
    assert numbers(r"largest difference ([\d.e-]+)", text)[0] < 1e-12
    _, blind, silent, agree = map(float, re.search(r"normal +" + r"([\d.]+) +" * 4, text).groups())
    assert 100 - agree < 0.1 * (100 - max(blind, silent))
    assert "not worth having" not in text
    assert numbers(r"([\d.]+) % of the steps agree", text)[0] > 99.8
    with_surrogate, exact = numbers(r"([\d.]+) % right", text)
    assert min(with_surrogate, exact) > 90


def own_data(text):
    assert "the network reads" in text
    share = numbers(r"always 'calm': ([\d.]+) %", text)[0]
    first, later = numbers(r"([\d.]+) % right", text)
    assert share + 10 < first <= later
    assert later > 97
    found = [re.findall(rf"{name} +(\d+) of (\d+) right", text) for name in ("brisk", "calm", "fast", "hasty")]
    assert all(len(of_class) == 2 for of_class in found)
    assert all(int(right) > 0.8 * int(rows) for of_class in found for right, rows in of_class[1:])
    assert all(2 < rate < 50 for rate in numbers(r"fires in ([\d.]+) % of the steps", text))
    assert "after the last step as the whole: True" in text


def published_recipe(text):
    assert "generated data | 784 steps" in text
    assert numbers(r"test accuracy ([\d.]+) %", text)[0] > 80
    with_surrogate, exact = numbers(r"surrogate ([\d.]+) %", text)[0], numbers(r"exact neuron ([\d.]+) %", text)[0]
    assert abs(with_surrogate - exact) < 3
    assert text.count("mnist, generated") == text.count("digits, full") == 1


SAYS = {check.__name__: check for check in (plain_loop, own_neuron, surrogate, own_data, published_recipe)}
"""What the text of each tutorial has to say."""


def test_there_is_a_check_for_each():
    assert {path.stem for path in TUTORIALS} == set(SAYS)


@every_tutorial
def test_a_tutorial_keeps_its_outputs(path):
    check_outputs(path, most=400_000, figures=2)
    SAYS[path.stem](printed(path))


@every_tutorial
def test_its_links_lead_somewhere(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@every_tutorial
def test_a_tutorial_runs_and_prints_what_it_shows(path, tmp_path):
    text = ran(path, tmp_path)
    SAYS[path.stem](text)
    assert numberless(text) == numberless(printed(path)), "run `python docs/notebooks.py` for it again"
