"""The tables of a page: how numbers were chosen, seeds, mistakes, cards and differences."""

import json

import pytest
from report_runs import HOSTILE, folder, result

from spikingssm.reports import html_tables as tables
from spikingssm.reports.html_runs import collect
from spikingssm.reports.html_tables import MISSING, Bar
from spikingssm.reports.tables import HEAD


def by_name(table, number=0):
    return dict(zip(table.head, table.rows[number], strict=True))


def test_seeds_are_followed_by_mean_and_range_and_unfinished_runs_come_last(tmp_path):
    runs = [folder(tmp_path / str(seed), seed) for seed in (0, 1)]
    begun = folder(tmp_path / "begun")
    (begun / "summary.json").unlink()
    found = collect([begun, *runs])
    table = tables.results(found)
    assert table.head == ["run", *HEAD]
    assert [row[0] for row in table.rows] == ["0", "1", "2 seeds", "begun"]
    assert table.strong == {2}
    assert [by_name(table, number)["test"] for number in (0, 1)] == ["accuracy 75.00 %", "accuracy 80.00 %"]
    assert by_name(table, 2)["test"] == "accuracy 77.50 % (75.00 to 80.00)"
    assert by_name(table, 3)["test"] == "no result: not finished"
    assert tables.problems(found) == ["begun: not finished"]
    assert tables.beside(found).rows[0][0] == "0, 1"


def test_the_test_is_chosen_by_validation_and_what_nobody_measured_is_said(tmp_path):
    table = tables.chosen(collect([folder(tmp_path / "a", epochs=25)]))
    assert [row[1] for row in table.rows] == ["accuracy", "loss"]
    row = by_name(table)
    assert row["test, chosen by validation"] == "75.00 % (by accuracy, epoch 2)"
    assert row["validation at that epoch"] == "50.00 %"
    assert row["validation, last epoch"] == "280.00 %"
    assert row["validation, mean of the last 20"] == "185.00 %"
    assert {row[name] for name in table.head if name.startswith("test, ")} == {
        row["test, chosen by validation"],
        MISSING,
    }


def test_tests_by_epoch_are_shown_where_a_run_has_them(tmp_path):
    run = folder(tmp_path / "a")
    (run / "metrics.csv").write_text("epoch,test/accuracy,test/loss\n0,0.5,2\n1,0.9,1\n2,0.7,nan\n")
    accuracy, loss = (by_name(tables.chosen(collect([run])), number) for number in (0, 1))
    assert accuracy["test, last epoch"] == "70.00 %"
    assert accuracy["test, mean of the last 20"] == "70.00 % (all 3 epochs)"
    assert accuracy["test, best epoch (never chosen)"] == "90.00 %"
    assert loss["test, best epoch (never chosen)"] == "1.0000"
    assert accuracy["validation at that epoch"] == MISSING


def test_a_result_that_does_not_say_how_it_was_chosen_says_so(tmp_path):
    old = result()
    del old["val"]
    (tmp_path / "a.json").write_text(json.dumps(old))
    assert (
        by_name(tables.chosen(collect([tmp_path / "a.json"])))["test, chosen by validation"]
        == "75.00 % (how is not said)"
    )


def test_rates_are_bars_and_other_layers_another_table(tmp_path):
    other = result()["test"] | {"spike_rates": {"three": float("nan")}}
    runs = collect([folder(tmp_path / "a"), folder(tmp_path / "b", test=other)])
    first, second = tables.rates(runs)
    assert first.head == ["run", "one", "two"]
    assert first.rows == [["a", Bar("25.00 %", 0.25), Bar("10.00 %", 0.1)]]
    assert second.rows == [["b", Bar("nan %", 0.0)]]
    runs[0].test["spike_rates"] = {"one": "much"}
    assert len(tables.rates(runs)) == 1


def test_the_matrix_names_the_most_frequent_mistakes():
    found = tables.matrix(result()["test"]["by_class"])
    assert found.names == [HOSTILE, "b & c", "d"]
    assert found.mistakes.rows == [[HOSTILE, "b & c", "2", "50.0 %"]]


@pytest.mark.parametrize(
    "wrong",
    [
        None, [], {}, {"recall": {"a": 1}}, {"recall": {"a": 1}, "confusion": [[1, 2]]},
        {"recall": {}, "confusion": []},
        {"recall": {"a": 1}, "confusion": [["x"]]}, {"recall": {"a": 1}, "confusion": [[-1]]},
        {"recall": {"a": 1}, "confusion": [[True]]},
        {"recall": dict.fromkeys(map(str, range(101))), "confusion": [[0] * 101] * 101},
    ],
)  # fmt: skip
def test_what_is_no_matrix_is_none(wrong):
    assert tables.matrix(wrong) is None


def test_a_card_is_shown_whatever_it_holds(tmp_path):
    run = folder(tmp_path / "a")
    deep = json.loads("[" * 50 + "1" + "]" * 50)
    card = {"joule": {"all": 1.5e-6}, "n": 3, "list": [1, 2], "rows": [{"b": HOSTILE}], "deep": deep, "none": None}
    (run / "card.json").write_text(json.dumps(card))
    [found] = collect([run])
    rows = dict(tables.card(found).rows)
    assert rows["joule / all"] == "1.5e-06"
    assert (rows["n"], rows["list"], rows["rows / 1 / b"], rows["none"]) == ("3", "1, 2", HOSTILE, "None")
    found.card = {str(n): n for n in range(600)}
    assert tables.card(found).rows[-1] == ["more", "100 more values stand in card.json"]
    found.card = None
    assert tables.card(found) is None


def test_only_keys_that_differ_are_listed_and_a_run_that_keeps_nothing_differs_in_nothing(tmp_path):
    runs = [folder(tmp_path / "a"), folder(tmp_path / "b", 1, config="model: {width: 9}\n", device="gpu")]
    (tmp_path / "c.json").write_text(json.dumps({**result(), "command": ""}))
    table = tables.differences(collect([*runs, tmp_path / "c.json"]))
    assert table.head == ["key", "a", "b", "c"]
    assert {row[0]: list(row[1:]) for row in table.rows} == {
        "command": ["python train.py experiment=brf/ecg seed=0", "python train.py experiment=brf/ecg seed=1", "-"],
        "device": ["cpu, 1 threads", "gpu", "cpu, 1 threads"], "seed": ["0", "1", "-"], "data.seed": ["0", "1", "-"],
        "model.width": ["-", "9", "-"],
    }  # fmt: skip
    assert tables.differences(collect(runs[:1])) is None


def test_a_solver_swap_is_a_row_for_each_layer(tmp_path):
    scores = {"one": {"agreement": 0.9999996, "f1": 0.5}}
    known = {"metrics": {}, "spike_rate": 0.1, "rows": 20}
    both = {"network": scores, "layer": scores}
    rows = [{"neuron": "surrogate", "agreement": both, **known}, {"neuron": "exact", **known}]
    swap = {"study": "solver-swap", "name": "small", "seed": 1, "dataset": {"size": "full"}, "rows": rows}
    run = folder(tmp_path / "a")
    (run / "solver-swap.json").write_text(json.dumps(swap))
    found = tables.swaps(collect([run]))
    assert found.rows == [["a", "surrogate", "one", "99.999 %", "50.000 %", "99.999 %", "20"]]
    (run / "solver-swap.json").unlink()
    assert tables.swaps(collect([run])) is None
