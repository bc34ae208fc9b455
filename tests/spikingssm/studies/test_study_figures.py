"""Pictures of studies: colours that are shared, legends that cover nothing, axes that say what they are."""

import math

import numpy as np
import pytest

from spikingssm.studies import convergence, landscape, robustness


@pytest.fixture
def drawn(monkeypatch):
    """Figures in place of files."""
    kept = []
    for study in (convergence, landscape, robustness):
        monkeypatch.setattr(study, "save_figure", lambda figure, path: kept.append(figure))
    return kept


def plane(name, steepness, centre):
    axis = np.linspace(-1, 1, 5)
    rows = [{"alpha": a, "beta": b, "loss": centre + steepness * (a**2 + b**2)} for a in axis for b in axis]
    return {"name": name, "variant": "", "seed": 0, "points": 5, "span": 1.0, "centre": centre, "rows": rows}


def test_landscapes_share_their_colours_and_one_bar(drawn):
    steep, flat = plane("steep", 13.0, 0.4), plane("flat", 0.5, 0.8)
    flat["rows"][0]["loss"] = math.nan
    landscape.figure([steep, flat], "x.png")
    one, other, bar = drawn[0].axes
    assert [axes.get_title().split("\n")[0] for axes in (one, other)] == ["steep, seed 0", "flat, seed 0"]
    steep["variant"] = "experiment=brf/ecg, model=brf, optim.eps=1e-8, model.d_model=36"
    landscape.figure([steep, flat], "x.png")
    assert max(map(len, drawn[1].axes[0].get_title().split("\n"))) <= 40
    norms = [axes.collections[0].norm for axes in (one, other)]
    assert [(norm.vmin, norm.vmax) for norm in norms] == [(0.4, 26.4)] * 2
    assert type(norms[0]).__name__ == "LogNorm"
    assert bar.get_ylabel() == "loss at W + alpha d1 + beta d2"
    assert [text.get_text() for text in bar.get_yticklabels()] == ["0.5", "1", "2", "5", "10", "20"]
    assert (one.get_xlabel(), one.get_ylabel()) == ("beta, along the direction d2", "alpha, along the direction d1")


@pytest.mark.parametrize("loss", [0.0, 1.0, math.nan])
def test_a_landscape_of_one_number_is_drawn_too(drawn, loss):
    result = plane("same", 0.0, loss)
    landscape.figure([result], "x.png")
    assert len(drawn[0].axes) == 2


def curve(name, values):
    best = max(range(len(values)), key=values.__getitem__)
    first = next(i for i, value in enumerate(values) if value >= 0.9 * values[best])
    epochs = [*range(1, len(values) + 1)]
    known = {"epochs": epochs, "values": values, "accuracy": values[best], "epoch": epochs[first]}
    return {"name": name, "variant": "", "part": 0.9, "curve": known, "rows": [{"radii": [0.9, 0.95, 0.99]}]}


def test_a_learning_curve_says_what_its_dot_is(drawn):
    convergence.figure([curve("a", [0.3, 0.7, 0.75]), curve("b", [0.1, 0.2, 0.5])], "x.png")
    left, right = drawn[0].axes
    assert "its dot the first epoch with\n90 % of the accuracy of its best epoch" in left.get_title()
    dots = [line.get_xydata()[0].tolist() for line in left.lines if line.get_marker() == "o"]
    assert dots == [[2, 70.0], [3, 50.0]]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "b"]
    assert left.get_legend() is None
    assert right.get_legend() is None


def test_the_legend_of_the_robustness_covers_no_curve(drawn):
    rows = [
        {"test": "noise", "level": level, "mean": {"accuracy_all": 0.9 - level}, "sd": {"accuracy_all": 0.1}}
        for level in robustness.TESTS["noise"]
    ]
    common = {"variant": "", "metrics": ["accuracy_all"], "rows": rows}
    results = [
        {"name": "a", "seed": 0, **common},
        {"name": "a", "seed": 1, **common},
        {"name": "b", "seed": 0, **common},
    ]
    robustness.figure(results, "x.png")
    (axes,) = drawn[0].axes
    assert axes.get_legend() is None
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a, 2 seeds", "b, 1 seed"]
    assert axes.get_ylabel() == "accuracy all, %"
