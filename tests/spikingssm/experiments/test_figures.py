"""Pictures of runs and of the demo: whole epochs, no padding, and a threshold that the membranes are compared with."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import sdn
from spikingssm.datasets.base import Batch
from spikingssm.experiments import figures, run


@pytest.fixture
def drawn(monkeypatch):
    """Figures in place of files."""
    kept = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
    return kept


def test_epochs_are_whole_numbers_and_a_stage_keeps_its_colour(drawn):
    rows = [{"epoch": e, "train/loss": 1.0, "val/loss": 2.0, "val/accuracy": 0.5} for e in range(3)]
    figures.learning_curve(rows, "x.png")
    loss, accuracy, rate = drawn[0].axes
    for axes in (loss, accuracy):
        ticks = axes.get_xticks()
        assert np.array_equal(ticks, ticks.round())
    assert loss.lines[1].get_color() == accuracy.lines[0].get_color() != loss.lines[0].get_color()
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val"]
    assert rate.get_legend() is None


def test_what_is_logged_of_layers_is_no_metric(drawn):
    row = {"epoch": 0, "val/loss": 2.0, "val/error": 0.5, "silent/blocks.0.neuron": 0.1, "rate/a": 0.2, "b": 1}
    for rows, title in (([row], "error"), ([{**row, "val/error": None}], "accuracy")):
        figures.learning_curve(rows, "x.png")
        assert drawn[-1].axes[1].get_title() == title


def test_a_raster_leaves_out_the_padding(drawn):
    figures.raster(torch.ones(20, 3), "x", "x.png", 7)
    (axes,) = drawn[0].axes
    assert axes.get_xlim() == (-0.5, 6.5)
    assert len(axes.collections[0].get_paths()) == 21


def test_the_raster_of_a_run_ends_where_its_sequence_does(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "raster", lambda spikes, title, path, length: seen.append((tuple(spikes.shape), length)))
    monkeypatch.setattr(run, "learning_curve", lambda rows, path, quality=None: None)
    model = nn.Sequential(nn.Linear(2, 4), sdn.Neuron(sdn.LIF(), 4, return_state=False))
    for lengths, patch in ((None, 1), (torch.tensor([7]), 1), (torch.tensor([7]), 3), (torch.tensor([[5, 20]]), 1)):
        model.patch = patch
        data = SimpleNamespace(test_rows=[0], test_set=[Batch(torch.randn(1, 20, 2), torch.zeros(1), lengths)])
        run._draw(tmp_path, SimpleNamespace(model=model, metrics={"test": {}}), data)
    assert seen == [((20, 4), length) for length in (20, 7, 3, 5)]


def test_the_demo_shows_both_membranes_beside_the_threshold(drawn):
    dynamics = sdn.LIF(0.125)
    exact = sdn.simulate(dynamics, torch.randn(1, 80, 1, generator=torch.Generator().manual_seed(3)))
    predicted = exact.mem[0, :, 0] + 0.01
    figures.demo_figure(exact, predicted, dynamics, torch.eye(9), "x", "x.png")
    assert isinstance(drawn[0], Figure)
    middle = drawn[0].axes[1]
    lines = {line.get_label(): line for line in middle.lines}
    assert set(lines) == {"membrane, exact", "threshold", "membrane, by the SDN"}
    apart = lines["membrane, by the SDN"].get_ydata() - lines["membrane, exact"].get_ydata()
    np.testing.assert_allclose(apart, 0.01, atol=1e-6)
    assert (lines["threshold"].get_ydata() == 1).all()
    assert lines["membrane, exact"].get_linewidth() > 2 * lines["membrane, by the SDN"].get_linewidth()
    fired = exact.spike[0, :, 0].numpy() > 0
    assert ((lines["membrane, exact"].get_ydata() >= 1) == fired).all()
