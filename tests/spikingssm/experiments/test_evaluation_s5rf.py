"""Runs of S5RF, evaluated under every solver."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from spikingssm.__main__ import main as command
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate, solver_for
from spikingssm.experiments.run import run
from spikingssm.studies import swap

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of S5RF on spike trains of several lengths."""
    folder = tmp_path_factory.mktemp("s5rf")
    draw = np.random.default_rng(0)
    x, y = (draw.random((43, 24, 3)) < 0.3).astype(np.float32), draw.integers(0, 2, 43)
    lengths = draw.integers(1, 25, 43)
    cut = {"x": x[:24], "y": y[:24], "lengths": lengths[:24]}
    np.savez(folder / "rows.npz", **cut, x_test=x[24:], y_test=y[24:], lengths_test=lengths[24:])
    model = ["model=s5rf", "model.d_model=8", "model.num_blocks=2", "model.n_layers=3", "model.eta_min=0.5"]
    model += ["model.eta_max=1", "model.solver=parallel"]
    data = ["dataset=arrays", f"data.path={folder / 'rows.npz'}", "data.batch_size=16", "data.val_fraction=0.25"]
    quiet = ["threads=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    with contextlib.chdir(ROOT):
        return run(load([*data, *model, *quiet, f"run_dir={folder / 'run'}"]))


def test_a_run_is_evaluated_under_every_solver(trained):
    summary = json.loads((trained / "summary.json").read_text())
    said = summary["test"]
    assert summary["solver"] == "parallel"
    assert said["not_counted"] == []
    assert min(said["spikes_by_layer"].values()) > 0
    assert said["sops"] > said["spikes"]
    assert said["input_events"] > 0
    own = evaluate(trained)
    assert {key: own[key] for key in said} == said
    for solver in ("parallel", "loop"):
        found = evaluate(trained, solver_for(trained, solver), agreement=True)
        assert found["solver"] == solver
        assert found["spikes_by_layer"] == said["spikes_by_layer"]
        for kind in ("network", "layer"):
            assert list(found["agreement"][kind]) == [f"layers.{i}.neuron" for i in range(3)]
            assert all(scores == {"agreement": 1.0, "f1": 1.0} for scores in found["agreement"][kind].values())


@pytest.mark.parametrize("option", [["--solver", "surrogate"], ["--refine", "1"]])
def test_a_surrogate_of_other_neurons_is_one_line(trained, monkeypatch, option):
    monkeypatch.setattr(sys, "argv", ["spikingssm", "evaluate", str(trained), *option])
    with pytest.raises(NotImplementedError, match="under the solvers fused, parallel, loop, got Surrogate") as caught:
        command()
    assert "\n" not in str(caught.value)


def test_a_swap_of_neurons_that_no_surrogate_stands_for_is_one_line(trained):
    with pytest.raises(NotImplementedError, match="under the solvers fused, parallel, loop, got Surrogate") as caught:
        swap(trained)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_rate_is_told(trained):
    with pytest.raises(ValueError, match=r"have no data\.rate"):
        evaluate(trained, rate=2)
