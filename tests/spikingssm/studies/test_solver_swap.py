"""One network under surrogates and exact neurons: the rows are the evaluations, and enough sweeps are exact."""

import contextlib
import json
import sys
from pathlib import Path

import pytest

from sdn import Surrogate
from spikingssm.__main__ import main as command
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.run import run
from spikingssm.reports.tables import swap_table
from spikingssm.studies import swap

ROOT = Path(__file__).parents[3]
SHRUNK = ["+tier=smoke", "model.d_model=8", "model.d_state=4", "data.limit_eval=20", "threads=1"]
QUIET = ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module", autouse=True)
def _at_root():
    with contextlib.chdir(ROOT):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was trained with exact neurons, on 64 steps."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    return run(load(["experiment=spikingssm/digits", "model.solver=fused", *SHRUNK, *QUIET, f"run_dir={folder}"]))


@pytest.fixture(scope="module")
def study(finished):
    return swap(finished, (1, 64))


def test_every_row_is_an_evaluation(finished, study):
    words = ["surrogate", "surrogate, 1 exact sweep", "surrogate, 64 exact sweeps", "exact"]
    assert [row["neuron"] for row in study["rows"]] == words
    solvers = (Surrogate(), Surrogate(refine=1), Surrogate(refine=64), "fused")
    for row, solver in zip(study["rows"], solvers, strict=True):
        found = evaluate(finished, solver, agreement=solver != "fused")
        assert row.pop("metrics") == {"accuracy": found["accuracy"]}
        assert row.pop("neuron")
        assert {key: found[key] for key in row} == row
        assert ("agreement" in row) == (solver != "fused")


def test_as_many_sweeps_as_steps_are_exact(finished):
    rows = swap(finished, (64,), limit=6)["rows"]
    for kind in ("network", "layer"):
        assert all(s == {"agreement": 1.0, "f1": 1.0} for s in rows[1]["agreement"][kind].values())
    assert rows[1]["metrics"] == rows[2]["metrics"]
    assert rows[1]["spike_rates"] == rows[2]["spike_rates"]
    assert rows[0]["rows"] == 6


def test_the_command_writes_a_json_and_prints_a_table(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spikingssm", "study", "solver-swap", str(finished), "--refine", "--limit", "5"])
    command()
    found = json.loads((finished / "solver-swap.json").read_text())
    assert capsys.readouterr().out == swap_table([found]) + "\n"
    assert [row["neuron"] for row in found["rows"]] == ["surrogate", "exact"]
    assert (found["name"], found["seed"], found["trained"]) == ("spikingssm-digits", 0, "fused")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path)])
    command()
    again = json.loads((tmp_path / "solver-swap-spikingssm-digits-0.json").read_text())
    assert {**again, "command": found["command"]} == found


def test_sweeps_below_one_are_refused(finished):
    with pytest.raises(ValueError, match=r"refine takes sweeps >= 1, got \[1, 0\]"):
        swap(finished, (1, 0))
