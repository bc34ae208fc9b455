"""``recipe=NAME data.path=FILE``: a network and its optimiser for data of one's own, of any size; longer runs."""

import csv
import json
import re

import numpy as np
import pytest

from spikingssm.experiments.config import load_config
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.run import run
from spikingssm.experiments.variants import folder_label

QUIET = ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Six channels of sines, four uneven classes, as in a diary of a newcomer; the same 30 times as large."""
    folder, draw = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    y = draw.choice(4, 600, p=[0.7, 0.1, 0.15, 0.05])
    t = np.arange(100)[None, :, None] / 100
    pace = np.array([3, 6, 10, 15])[y][:, None, None]
    x = np.sin(2 * np.pi * (pace * t + draw.random((600, 1, 6)))) + 0.3 * draw.normal(size=(600, 100, 6))
    for factor in (1, 30):
        np.savez(folder / f"waves{factor}.npz", x=(factor * x).astype(np.float32), y=y)
    return folder


@pytest.mark.parametrize("factor", [1, 30])
@pytest.mark.parametrize("recipe", ["spikingssm", "s5rf", "brf"])
def test_a_recipe_learns_data_of_any_size(waves, recipe, factor, tmp_path):
    words = [f"recipe={recipe}", f"data.path={waves / f'waves{factor}.npz'}", "trainer.max_epochs=10"]
    folder = run(load_config([*words, *QUIET, f"run_dir={tmp_path / 'run'}"]))
    found = json.loads((folder / "summary.json").read_text())
    assert found["test"]["accuracy"] > 0.93, found["test"]
    assert all(0.01 < rate < 0.3 for rate in found["test"]["spike_rates"].values())
    log = (folder / "run.log").read_text()
    assert re.search(r"486 training rows of 100 steps x 6 channels; the network reads .* standard deviation 1;", log)
    assert "4 classes: 0 67 %, 2 16 %" in log
    assert "WARNING" not in log


def test_names_and_folders_say_the_data_and_the_recipe(waves):
    words = ["recipe=s5rf", f"data.path={waves / 'waves1.npz'}"]
    config = load_config(words)
    assert (config.name, config.run_dir) == ("waves1-s5rf", "runs/waves1-s5rf-0")
    assert folder_label(words) == ""
    assert folder_label([*words, "model.d_model=16"]) == "model.d_model=16"
    assert load_config(["dataset=arrays", words[1]]).name == "waves1"
    assert folder_label(["dataset=arrays", words[1]]) == ""
    assert folder_label(["dataset=arrays", words[1], "optim.lr=0.1"]) == "optim.lr=0.1"
    assert folder_label(["dataset=arrays", words[1], "name=mine"]) == ""
    assert load_config([*words, "name=mine"]).name == "mine"
    for wrong, says in (
        (["recipe=nothing"], "no recipe is named 'nothing'; there are: brf, s5rf, spikingssm"),
        (["recipe=brf", "experiment=brf/ecg"], "choose one of them"),
    ):
        with pytest.raises(ValueError, match=says):
            load_config(wrong)


def test_spikes_are_left_as_they_are(tmp_path):
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "spikes.npz", x=(draw.random((60, 30, 4)) < 0.1).astype(np.uint8), y=np.arange(60) % 2)
    words = ["recipe=s5rf", f"data.path={tmp_path / 'spikes.npz'}", "trainer.max_epochs=1", "data.batch_size=8"]
    folder = run(load_config([*words, *QUIET, f"run_dir={tmp_path / 'run'}"]))
    assert "the network reads 0 to 1, mean 0.1" in (folder / "run.log").read_text()


def test_a_finished_run_goes_on_for_more_epochs_and_others_start_from_it(waves, tmp_path):
    words = ["recipe=brf", f"data.path={waves / 'waves1.npz'}", *QUIET]
    folder = run(load_config([*words, "trainer.max_epochs=2", f"run_dir={tmp_path / 'run'}"]))
    first = (folder / "summary.json").read_bytes()
    run(load_config([f"resume={folder}", "trainer.max_epochs=4"]))
    assert (folder / "summary-2-epochs.json").read_bytes() == first
    assert json.loads((folder / "summary.json").read_text())["epochs"] == 4
    assert (folder / "metrics.csv").read_text().count("\n") == 5
    with (folder / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file)]
    assert len(set(losses)) == 4  # each epoch learned, also the first one of those that came on top
    run(load_config([f"resume={folder}"]))  # finished: nothing is done
    assert json.loads((folder / "summary.json").read_text())["epochs"] == 4
    with pytest.raises(ValueError, match=r"keeps its configuration but for more trainer\.max_epochs"):
        load_config([f"resume={folder}", "trainer.max_epochs=3"])
    with pytest.raises(ValueError, match=r"optim\.lr=0\.02, not 0\.1"):
        load_config([f"resume={folder}", "trainer.max_epochs=9", "optim.lr=0.1"])
    assert json.loads((folder / "summary.json").read_text())["variant"].endswith("trainer.max_epochs=4")
    assert load_config([*words, "trainer.max_epochs=4", f"resume={folder}"]).resume == str(folder)  # its own command
    kept, there = (folder / "summary.json").read_bytes(), waves / "waves1.npz"
    there.rename(waves / "elsewhere.npz")
    with pytest.raises(FileNotFoundError):
        run(load_config([f"resume={folder}", "trainer.max_epochs=9"]))
    (waves / "elsewhere.npz").rename(there)
    assert (folder / "summary.json").read_bytes() == kept
    plain = ["dataset=arrays", "model=brf", "model.pool=each", "task=every_step", "model.d_model=64", words[1], *QUIET]
    scaled = run(load_config([*plain, f"init_from={folder}", "trainer.max_epochs=1", f"run_dir={tmp_path / 'scaled'}"]))
    assert (
        "standard deviation 1;" in (scaled / "run.log").read_text()
    )  # with the scaling of the run that it starts from
    other = load_config([*words, f"init_from={folder}", "trainer.max_epochs=1", f"run_dir={tmp_path / 'other'}"])
    assert other.weights == str(folder)
    found = evaluate(run(other))
    assert found["accuracy"] > 0.6
