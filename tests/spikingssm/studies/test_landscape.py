"""The plane around a trained network: its centre is the evaluated loss, its directions are as long as the weights."""

import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import recurrent_run

from sdn.dynamics.base import Diverged
from spikingssm.experiments.evaluation import evaluate, load_run, measure
from spikingssm.models import S5RF, SpikingSSM
from spikingssm.models.rsnn import RSNN
from spikingssm.studies.common import Subject, generator
from spikingssm.studies.landscape import csv_rows, direction, figure, hidden_weights, landscape, shape, table


@pytest.fixture(scope="module", autouse=True)
def _at_root():
    with contextlib.chdir(Path(__file__).parents[3]):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return recurrent_run(tmp_path_factory.mktemp("runs") / "a", "model.mask=0.4", "optim.lr=0.1")


@pytest.fixture(scope="module")
def found(trained):
    return landscape(trained, points=3, span=0.8, seed=3)


def test_the_centre_is_the_evaluated_loss(trained, found):
    said = evaluate(trained)["loss"]
    assert found["centre"] == said
    assert [row["loss"] for row in found["rows"] if row["alpha"] == row["beta"] == 0] == [said]
    assert sorted({row["alpha"] for row in found["rows"]}) == [-0.8, 0, 0.8]
    assert len({row["loss"] for row in found["rows"]}) == 9


def test_a_point_is_the_network_with_its_weights_moved_by_hand(trained, found):
    """Row by row, input and recurrent columns apart; connections that are cut have no part in it."""
    run = load_run(trained)
    layer = run.module.model.layers[0]
    assert 0 < layer.mask.mean() < 1
    own = [(layer.input.weight, torch.ones(7, 3)), (layer.recurrent.weight, layer.mask)]
    start = [weight.detach().clone() for weight, _ in own]
    for i, step in ((0, 0.8), (1, -0.8)):
        draw = generator(3, i)
        for (weight, there), was in zip(own, start, strict=True):
            drawn = torch.randn(weight.shape, generator=draw, dtype=torch.float64).float() * there
            for row in range(7):
                length = (was[row] * there[row]).square().sum().sqrt() / drawn[row].square().sum().sqrt()
                weight.data[row] += step * length * drawn[row]
    said = next(row["loss"] for row in found["rows"] if (row["alpha"], row["beta"]) == (0.8, -0.8))
    assert measure(run)["loss"] == pytest.approx(said, rel=1e-4)
    assert abs(said - found["centre"]) > 1e-3 * said


def test_every_row_of_a_direction_is_as_long_as_that_of_the_weight():
    weight, mask = torch.randn(6, 5), (torch.rand(6, 5) > 0.4).float()
    weight[2], mask[4] = 0, 0
    d = direction(weight, generator(0), mask)
    assert torch.allclose(d.norm(dim=1), (weight * mask).norm(dim=1), rtol=1e-5)
    assert (d[mask == 0] == 0).all()
    assert (d[2] == 0).all()
    assert not torch.equal(direction(weight, generator(1)), direction(weight, generator(0)))
    assert torch.equal(direction(weight, generator(1)), direction(weight, generator(1)))


def test_the_same_seed_gives_the_same_plane(trained, found):
    again = landscape(trained, points=3, span=0.8, seed=3)
    assert again["rows"] == found["rows"]
    other = landscape(trained, points=3, span=0.8, seed=4)
    assert other["centre"] == found["centre"]
    assert other["rows"] != found["rows"]


def test_the_weights_are_those_of_the_hidden_neurons():
    names = [f"layers.{i}.{part}.weight" for i in range(2) for part in ("input", "recurrent")]
    assert list(hidden_weights(RSNN(3, 2, [5, 4]))) == names
    assert list(hidden_weights(S5RF(3, 2, 8, num_blocks=2))) == ["layers.0.dense.weight"]
    assert list(hidden_weights(SpikingSSM(3, 2, 4, 2, 4))) == ["blocks.0.layer.output.weight"]
    with pytest.raises(ValueError, match=r"holds no sdn\.SpikingLayer"):
        hidden_weights(torch.nn.Linear(2, 2))


def test_the_shape_counts_minima_and_the_rise():
    axis = [-1.0, -0.5, 0.0, 0.5, 1.0]
    points = [(a, b) for a in axis for b in axis]
    bowl = {"points": 5, "centre": 1.0, "rows": [{"alpha": a, "beta": b, "loss": 1 + a * a + b * b} for a, b in points]}
    assert shape(bowl) == pytest.approx({"centre": 1, "min": 1, "max": 3, "rise": 1.0, "minima": 1})
    two = {**bowl, "rows": [{"alpha": a, "beta": b, "loss": (a * a - 1) ** 2 + b * b} for a, b in points]}
    assert shape(two)["minima"] == 2
    broken = {**bowl, "rows": [{**row, "loss": math.nan if row["alpha"] == 1 else row["loss"]} for row in bowl["rows"]]}
    assert shape(broken)["max"] == 3
    assert shape(broken)["minima"] == 1


def raising(monkeypatch, error, call):
    """The network as trained is tested twice; then one test of a point fails."""
    real, calls = Subject.score, []

    def score(self, *args, **options):
        calls.append(1)
        if len(calls) == 2 + call:
            raise error
        return real(self, *args, **options)

    monkeypatch.setattr(Subject, "score", score)


def test_only_a_point_at_which_a_neuron_diverges_has_no_loss(trained, monkeypatch):
    with monkeypatch.context() as patched:
        raising(patched, Diverged("BRF: a state became infinite"), call=3)
        losses = [row["loss"] for row in landscape(trained, points=2)["rows"]]
    assert [math.isnan(loss) for loss in losses] == [False, False, True, False]
    with monkeypatch.context() as patched:
        raising(patched, ValueError("no such thing"), call=3)
        with pytest.raises(ValueError, match="no such thing"):
            landscape(trained, points=2)


def test_a_plane_with_points_that_diverged_can_be_drawn_and_told(found, tmp_path):
    broken = {**found, "seed": 1, "rows": [dict(row) for row in found["rows"]]}
    broken["rows"][0]["loss"] = math.nan
    figure([found, broken], tmp_path / "both.png")
    assert (tmp_path / "both.png").stat().st_size > 10_000
    line = table([found, broken]).splitlines()[2]
    assert line.startswith("| brf-small | 2 | 3 x 3, ±0.8, 19 rows |")
    assert f"| {found['centre']:.3f} ± 0.000 |" in line
    assert np.isnan(csv_rows(broken)[0]["loss"])


def test_mistakes_are_one_line(trained):
    for options in ({"points": 1}, {"span": 0.0}, {"seed": -1}):
        with pytest.raises(ValueError, match="needs --points >= 2, --span > 0 and --seed >= 0") as caught:
            landscape(trained, **options)
        assert "\n" not in str(caught.value)
