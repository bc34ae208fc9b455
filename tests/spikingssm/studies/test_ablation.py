"""A network with parts of its neurons switched off is the network of such neurons with the same weights."""

import json
import sys

import pytest
import torch
from small_runs import recurrent_run

from sdn import BRF
from spikingssm.experiments.evaluation import evaluate, load_run, measure
from spikingssm.studies.ablation import ablation, figure, switches, table, without
from spikingssm.studies.common import check_different, open_run

PARTS = ["divergence_boundary", "smooth_reset", "refractory_period"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return recurrent_run(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture(scope="module")
def found(trained):
    return ablation(trained)


def test_every_row_is_the_test_of_a_network_of_such_neurons(trained, found):
    assert [row["without"] for row in found["rows"]] == [[], *([part] for part in PARTS), PARTS]
    for row in found["rows"]:
        run = load_run(trained)
        layer = run.module.model.layers[0]
        layer.dynamics = BRF(**{part: part not in row["without"] for part in PARTS})
        said = measure(run)
        assert {key: said[key] for key in row if key != "without"} == {k: v for k, v in row.items() if k != "without"}
    assert {"accuracy", "accuracy_all", "loss", "spikes"} <= set(row)
    assert len({row["spikes"] for row in found["rows"]}) == 5, "a switch that changes nothing tests nothing"


def test_the_network_itself_is_left_alone(trained):
    model = open_run(trained).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    off = without(model, PARTS)
    assert switches(model) == PARTS
    assert switches(off) == []
    assert all(torch.equal(before[name], value) for name, value in off.state_dict().items())


def test_a_neuron_that_diverges_is_a_row_of_its_own(trained, monkeypatch):
    """Undamped, beyond its boundary and fed with its own spikes the state overflows."""
    real = torch.nn.Module.load_state_dict

    def fast(module, state, *options, **more):
        state = {k: torch.full_like(v, 99.0) if k.endswith("omega") else v for k, v in state.items()}
        state = {k: 1e34 * v if k.endswith("layers.0.input.weight") else v for k, v in state.items()}
        return real(module, state, *options, **more)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", fast)
    rows = ablation(trained)["rows"]
    assert "diverged" not in rows[0]
    assert "NaN or infinite" in rows[1]["diverged"]
    assert "| diverged |" in table([{**ablation(trained), "rows": rows}])


def test_another_error_is_no_divergence(trained, monkeypatch):
    def refuse(model, names):
        raise ValueError("no such thing")

    monkeypatch.setitem(ablation.__globals__, "without", refuse)  # the package has a function of the module's name
    with pytest.raises(ValueError, match="no such thing"):
        ablation(trained)


def test_other_neurons_have_nothing_to_switch_off(tmp_path):
    run = recurrent_run(tmp_path / "alif", model="alif")
    (row,) = ablation(run)["rows"]
    assert row["without"] == []
    assert row["loss"] == evaluate(run)["loss"]


def test_a_table_has_a_line_for_each_part_and_a_mean_over_seeds(found, tmp_path):
    other = {**found, "seed": 1, "rows": [{**row, "accuracy": row["accuracy"] + 0.1} for row in found["rows"]]}
    lines = table([found, other]).splitlines()[2:]
    assert [line.split(" | ")[2] for line in lines[:2]] == ["nothing", "divergence boundary"]
    assert f"{100 * found['rows'][0]['accuracy'] + 5:.2f} ± 7.07" in lines[0]
    assert len(lines) == 5
    figure([found, other], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_two_runs_of_one_seed_are_refused(trained):
    with pytest.raises(ValueError, match="are both brf-small with seed 0; give one of them"):
        check_different([trained, trained])


def test_the_command_writes_beside_the_run_or_where_it_is_told(trained, found, tmp_path, monkeypatch, capsys):
    import argparse

    from spikingssm.commands import studies as command

    def told(*words):
        monkeypatch.setattr(sys, "argv", ["spikingssm", "study", *words])
        parser = argparse.ArgumentParser()
        command.add_parser(parser.add_subparsers())
        command.run(parser.parse_args(sys.argv[1:]))
        return capsys.readouterr().out

    shown = told("ablation", str(trained))
    assert shown == table([found]) + "\n"
    result = json.loads((trained / "studies" / "ablation" / "ablation.json").read_text())
    assert result["rows"] == found["rows"]
    assert sorted(p.suffix for p in (trained / "studies" / "ablation").iterdir()) == [".csv", ".json", ".png"]
    told("ablation", str(trained), "--limit", "5", "--out", str(tmp_path / "there"))
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == [
        f"ablation-brf-small-0.{kind}" for kind in ("csv", "json", "png")
    ]
    assert json.loads((tmp_path / "there" / "ablation-brf-small-0.json").read_text())["rows_tested"] == 5
