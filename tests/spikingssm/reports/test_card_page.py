"""The card of a run as files: what it says is what the test and the network say."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import spikingssm
from spikingssm.__main__ import main as command
from spikingssm.datasets.inputs import Audio, Numbers, Spikes
from spikingssm.experiments.card import MapReader, _selection, execution_rate
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate, load_run, measure
from spikingssm.experiments.run import run
from spikingssm.measures.card import metrics_of
from spikingssm.models import RSNN, SpikingSSM
from spikingssm.reports.card import CardWriter, markdown
from tests.small_runs import CHANNELS, STEPS, TEST, recurrent_run

ROOT = Path(__file__).parents[3]
QUIET = ["threads=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.max_epochs=1"]


@pytest.fixture(scope="module", autouse=True)
def _at_root():
    with contextlib.chdir(ROOT):
        yield


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """A run of a recurrent network with connections that are cut, and its card."""
    folder = recurrent_run(tmp_path_factory.mktemp("card") / "run", "model.mask=0.4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["spikingssm", "evaluate", str(folder), "--card"])
        command()
    return folder, json.loads((folder / "card.json").read_text())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A run on drawn audio of 8,000 Hz in frames of 8 samples."""
    folder = tmp_path_factory.mktemp("clips") / "run"
    data = ["dataset=fsdd", "data.generated=true", "data.length=400", "data.limit_train=32", "data.limit_eval=20"]
    model = ["model.patch=8", "model.d_model=8", "model.d_state=4", "model.n_layers=1", "model.solver=fused"]
    return run(load([*data, *model, *QUIET, f"run_dir={folder}"]))


def test_a_card_says_what_the_test_says(recurrent):
    folder, card = recurrent
    found = evaluate(folder)
    assert card["samples"] == found["rows"] == TEST
    for name in ("spikes", "spikes_by_layer", "sops", "sops_by_layer", "steps", "spike_rate"):
        assert card["spikes"][name] == found[name]
    assert {name: card["energy"][name] for name in found["energy"]} == found["energy"]
    assert card["energy"]["constants"]["mac_joule"] == pytest.approx(4.6e-12)
    metrics = {name: card["quality"][name] for name in ("accuracy", "accuracy_all") if name in found}
    assert metrics
    assert all(value == found[name] for name, value in metrics.items())
    summary = json.loads((folder / "summary.json").read_text())
    chosen = card["quality"]["selection"]
    assert {key: chosen[key] for key in summary["val"]} == summary["val"]
    assert "the test rows have chosen nothing" in chosen["rule"]
    assert (card["name"], card["made"]["config"], card["made"]["seed"]) == ("brf-small", "brf-small", 0)
    assert card["made"]["command"] == f"spikingssm evaluate {folder} --card"
    assert card["made"]["training"]["command"] == summary["command"]
    assert {"sdn", "torch", "python", "numba"} <= set(card["made"]["versions"])


def test_other_rows_and_a_part_of_them_are_not_taken_for_the_runs_own(recurrent, tmp_path, monkeypatch):
    folder, _ = recurrent
    monkeypatch.setattr("sys.argv", ["spikingssm", "evaluate", str(folder), "--card", "--limit", "3"])
    before = (folder / "card.json").read_bytes()
    with pytest.raises(ValueError, match="is of all test rows; with --limit 3 name another place: --card FOLDER"):
        command()
    assert (folder / "card.json").read_bytes() == before
    monkeypatch.setattr("sys.argv", ["spikingssm", "evaluate", str(folder), "--card", str(tmp_path), "--limit", "3"])
    command()
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["samples"] == 3
    assert "the test rows have chosen nothing" in card["quality"]["selection"]["rule"]  # they are of its own test
    summary = json.loads((folder / "summary.json").read_text())
    rule = _selection(("val/accuracy", "max"), summary, "other")["rule"]
    assert "whether the run was trained on some of them is not known" in rule
    assert "chosen nothing" not in rule


def test_its_metrics_are_those_of_the_network_on_the_test_rows(recurrent):
    folder, card = recurrent
    data, module = load_run(folder)[1:]
    x = data.test_set.__getitems__(data.test_rows.tolist()).x
    found = metrics_of(module.model, [x])
    assert card["maps"] == found.pop("maps")
    said = dict(card["neurobench"])
    assert said.pop("ModelExecutionRate")["hertz"] is None
    assert said == found
    layer = module.model.layers[0]
    assert card["neurobench"]["ConnectionSparsity"] == int((layer.mask == 0).sum()) / (CHANNELS * 7 + 7 * 7 + 7 * 4)
    assert card["neurobench"]["MembraneUpdates"] == STEPS * 7
    assert card["outside_maps"]["recurrence"]["neuron"]["multiplications"] == STEPS * 7 * 7  # BRF: 7
    assert card["memory"]["compiled_step"]["state"] >= card["memory"]["state_of_a_stream"]
    assert card["latency"]["compiled_step"]["threads"] == 1


def test_the_page_shows_the_numbers(recurrent):
    folder, card = recurrent
    text = (folder / "card.md").read_text()
    assert text.startswith("# Efficiency card: brf-small\n")
    metrics = json.loads((folder / "card.json").read_text())["neurobench"]
    for name in metrics:
        assert f"| {name}" in text
    assert f"| ParameterCount | {metrics['ParameterCount']:,} |" in text
    assert f"| SynapticOperations: Dense | {metrics['SynapticOperations']['Dense']:,.0f} a sample |" in text
    assert "| layers.0.recurrent | AC |" in text
    assert f"| `compile_step().step` | {card['latency']['compiled_step']['median_us']:.1f} |" in text
    assert "not known: the data do not say how long a step is" in text
    assert "MAC 4.6 pJ" in text
    assert text.endswith("|\n")


def test_what_cannot_be_measured_is_said(recurrent):
    _, card = recurrent
    why = {"not measured": "a bidirectional network needs the steps to come"}
    page = markdown({
        **card,
        "latency": {**card["latency"], "compiled_step": why},
        "memory": {**card["memory"], "compiled_step": why},
        "not_counted": ["conv (Conv1d)"],
        "neurobench": {**card["neurobench"], "ModelExecutionRate": {"hertz": 12.5, "why": "frames"}},
    })  # fmt: skip
    assert "| `compile_step().step` | not measured: a bidirectional network needs the steps to come |" in page
    assert "| compiled step | not measured: a bidirectional" in page
    assert "Not counted at all: conv (Conv1d)." in page
    assert "| ModelExecutionRate | 12.5 Hz: frames |" in page


def test_sound_says_how_often_the_network_answers(clips):
    card = spikingssm.card(clips, "loop", limit=6)
    assert card["samples"] == 6
    assert card["neurobench"]["ModelExecutionRate"]["hertz"] == 1000
    assert card["latency"]["reads"] == "8 steps of the data"
    assert card["network"]["solver"].startswith("Loop")
    slower = spikingssm.card(clips, limit=6, rate=2)
    assert slower["neurobench"]["ModelExecutionRate"]["hertz"] == 1000  # frames of 4 samples at 4,000 Hz
    exact = [card["maps"]["encoder"][key] for key in ("dense", "times")]
    assert exact == [8 * exact[1] * 8, card["spikes"]["steps"]]


@pytest.mark.parametrize(
    ("inputs", "patch", "hertz"),
    [(Audio(8000, 0.1, down=2), 4, 1000), (Spikes(8000, bins="fixed", bin_ms=5.0), 1, 200), (Spikes(8000), 1, None),
     (Numbers(), 1, None)],
)  # fmt: skip
def test_the_rate_follows_from_the_step_of_the_data(inputs, patch, hertz):
    class Data:
        length = 100

    data, model = Data(), SpikingSSM(1, 2, 4, 1, 2, patch=patch, solver="fused")
    data.inputs = inputs
    assert execution_rate(data, model)["hertz"] == hertz
    if hertz is not None and patch == 1:
        whole = SpikingSSM(1, 2, 4, 1, 2, bidirectional=True, solver="fused")
        assert execution_rate(data, whole)["hertz"] == hertz / 100


def test_where_a_card_goes(clips, tmp_path):
    assert CardWriter(clips).folder == clips
    assert CardWriter(clips, tmp_path / "other").folder == tmp_path / "other"
    assert CardWriter("spoken-digits", tmp_path).folder == tmp_path
    with pytest.raises(ValueError, match="spoken-digits is a network that ships; give one with --card FOLDER"):
        CardWriter("spoken-digits")
    (tmp_path / "published.pt").touch()
    with pytest.raises(ValueError, match=r"published\.pt is a file; give one with --card FOLDER"):
        CardWriter(tmp_path / "published.pt")
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        CardWriter(tmp_path / "nowhere")


def test_nothing_of_the_reader_stays_where_the_test_fails(recurrent, monkeypatch):
    opened, reader, hooks = load_run(recurrent[0]), MapReader(), []
    monkeypatch.setattr(RSNN, "forward", lambda *_, **__: 1 / 0)
    for callbacks in ([], [reader]):
        with pytest.raises(ZeroDivisionError):
            measure(opened, callbacks=callbacks)
        hooks.append([len(part._forward_pre_hooks) for part in opened.module.model.modules()])
    assert hooks[0] == hooks[1]
    assert reader.maps.watched == ["layers.0.input"]


def test_a_shipped_network_on_rows_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr("spikingssm.experiments.card.step_times", lambda *_: {})  # which would compile it
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x=0.1 * draw.normal(size=(3, 400)).astype(np.float32), y=np.array([0, 1, 2]))
    found = spikingssm.card("spoken-digits", data=tmp_path / "rows.npz")
    assert found["neurobench"]["ModelExecutionRate"]["hertz"] == 500
    assert found["made"]["seed"] == 0
    assert found["neurobench"]["ParameterCount"] == 39_946
