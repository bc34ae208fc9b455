"""Tables out of results, and the learning curve."""

import json
import sys

import pytest
from loguru import logger
from matplotlib.figure import Figure

from spikingssm.__main__ import main as command
from spikingssm.experiments.figures import learning_curve
from spikingssm.reports.tables import report, results_table, swap_table, table


def result(seed=0, **changes):
    test = {"accuracy": 0.9 + 0.02 * seed, "loss": 0.5, "spike_rate": 0.1 + 0.1 * seed, "spike_rates": {"a": 0.1}}
    test |= {"sops": 1e6 * (1 + seed), "energy": {}}
    dataset = {"name": "digits", "size": "full", "train": 90, "val": 10, "test": 20, "seed": seed}
    return {
        "name": "small", "seed": seed, "test": test, "dataset": dataset, "parameters": 7, "epochs": 3 + seed,
        "solver": "Fused()", "seconds": 90.0, "device": "cpu, 1 threads",
        "val": {"accuracy": 0.85, "epoch": 2}, **changes,
    }  # fmt: skip


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_a_run_is_a_row():
    head, rule, row = cells(results_table([result()]))
    assert len(head) == len(rule) == len(row) == 11
    assert row == [
        "small", "digits, full (90 / 10 / 20)", "7", "0", "3", "accuracy 85.00 %", "accuracy 90.00 %", "10.00 %", "1 M",
        "1.5", "cpu, 1 threads",
    ]  # fmt: skip


def test_seeds_are_followed_by_their_mean_and_range():
    rows = cells(results_table([result(2), result(0), result(0, name="other"), result(1)]))[2:]
    assert [row[:4:3] for row in rows] == [
        ["other", "0"], ["small", "0"], ["small", "1"], ["small", "2"], ["small", "mean of 3 (range)"]
    ]  # fmt: skip
    mean = "accuracy 85.00 % (85.00 to 85.00)"
    assert rows[4][4:10] == ["3 to 5", mean, "accuracy 92.00 % (90.00 to 94.00)", "20.00 %", "2 M", "1.5"]


def test_what_was_changed_of_an_experiment_is_named_and_has_a_mean_of_its_own():
    changed = [result(seed, variant="model.learn_eta=false") for seed in (0, 1)]
    rows = cells(results_table([result(0, variant=""), *changed]))[2:]
    assert [row[0] for row in rows] == ["small"] + ["small, model.learn_eta=false"] * 3
    assert rows[3][3] == "mean of 2 (range)"


def test_seeds_may_hold_out_other_rows_and_other_events():
    data = result()["dataset"]
    other = {**data, "train": 88, "val": 12, "events": {"train": 7}, "split": "by the seed: theo", "seed": 1}
    pair = [result(0, variant=""), result(1, variant="", dataset=other)]
    assert len(cells(results_table(pair))) == 2 + 3
    fewer = {**other, "train": 78}
    assert len(cells(results_table([pair[0], result(1, variant="", dataset=fewer)]))) == 2 + 2


def test_what_differs_in_more_than_the_seed_has_no_mean():
    other = result(1, parameters=8)
    subset = result(2, dataset={**result()["dataset"], "size": "subset"})
    assert len(cells(results_table([result(), other, subset]))) == 5


def test_copies_of_a_run_are_no_seeds():
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)))
    rows = cells(results_table([result(0)] * 3))
    mixed = cells(results_table([result(0), result(0), result(1)]))
    logger.remove(sink)
    assert [row[3] for row in rows[2:]] == ["0"] * 3
    assert [row[3] for row in mixed[2:]] == ["0", "0", "1", "mean of 2 (range)"]
    assert any("3 results of 1 seeds; a mean takes the first result of each seed" in line for line in lines)


def test_perplexities_and_older_results_are_told():
    test = {"perplexity": 123.456, "loss": 1.0, "spike_rate": 0.25}
    row = cells(results_table([result(test=test)]))[2]
    assert row[6:9] == ["perplexity 123.46", "25.00 %", "not counted"]
    both = [result(test={**test, "accuracy_all": 0.5}), result(1, test=test)]
    assert cells(results_table(both))[4][6] == "perplexity 123.46 (123.46 to 123.46)"


def test_the_best_come_first_within_their_data():
    runs = [result(0, name="a"), result(2, name="b"), result(1, name="b"), result(3, name="c")]
    test = {"perplexity": 9.0, "loss": 1.0, "spike_rate": 0.25}
    other = {**result()["dataset"], "name": "aan"}
    texts = [result(name=n, dataset=other, test={**test, "perplexity": p}) for n, p in (("d", 9.0), ("e", 8.0))]
    names = [row[0] for row in cells(results_table([*runs, *texts], best_first=True))[2:]]
    assert list(dict.fromkeys(names)) == ["e", "d", "c", "b", "a"]


def test_a_result_that_does_not_say_its_validation_has_none():
    old = result()
    del old["val"]
    assert cells(results_table([old]))[2][5] == ""


def swapped():
    scores = {"a": {"agreement": 0.99999, "f1": 0.5}, "b": {"agreement": 1.0, "f1": 1.0}}
    rows = [
        {"neuron": "surrogate", "metrics": {"accuracy": 0.5}, "spike_rate": 0.1, "rows": 20,
         "agreement": {"network": scores, "layer": scores}},
        {"neuron": "exact", "metrics": {"accuracy": 0.75}, "spike_rate": 0.2, "rows": 20},
    ]  # fmt: skip
    return {"study": "solver-swap", "name": "small", "seed": 1, "dataset": {"size": "full"}, "rows": rows}


def test_a_swap_has_a_row_for_every_neuron():
    rows = cells(swap_table([swapped()]))[2:]
    task = "small, seed 1, full, 20 tested"
    by_layer = ["99.99 / 100.00", "50.00 / 100.00", "99.99 / 100.00"]
    assert rows[0] == [task, "surrogate", "accuracy 50.00 %", "10.00 %", *by_layer]
    assert rows[1] == [task, "exact", "accuracy 75.00 %", "20.00 %", "exact", "exact", "exact"]


def test_the_command_reads_folders_and_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps(result()))
    (tmp_path / "swap.json").write_text(json.dumps(swapped()))
    (tmp_path / "sdn.json").write_text(json.dumps({"dynamics": {}, "metrics": {}}))
    places = [str(tmp_path / name) for name in ("run", "swap.json", "sdn.json")]
    monkeypatch.setattr(sys, "argv", ["spikingssm", "report", *places])
    command()
    shown = capsys.readouterr().out
    assert shown == results_table([result()]) + "\n\n" + swap_table([swapped()]) + "\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path / "new" / "table.md")])
    command()
    assert (tmp_path / "new" / "table.md").read_text() == shown
    assert capsys.readouterr().out == ""


def test_a_run_without_a_result_is_named(tmp_path):
    config = "# python train.py\n# variant: model.pool=each\nname: small\nseed: 3\n"
    for name, note in (("killed", None), ("wrong", {"how": "diverged", "reason": "train/loss is nan | in step 3"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(config)
        if note:
            (tmp_path / name / "ended.json").write_text(json.dumps(note))
    (tmp_path / "sdn").mkdir()
    (tmp_path / "sdn" / "config.json").write_text("{}")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "summary.json").write_text(json.dumps(result()))
    rows = cells(report(sorted(tmp_path.iterdir())))[2:]
    assert [row[0] for row in rows] == ["small", "killed", "wrong"]  # a configuration that cannot be read has no name
    assert [row[6] for row in rows[1:]] == ["**not finished**", "**diverged**: train/loss is nan / in step 3"]
    assert {len(row) for row in rows} == {11}


def test_a_folder_without_a_run_is_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "summary.json").write_text(json.dumps(result()))
    told = []
    handler = logger.add(told.append, format="{message}")
    assert report([tmp_path / "a", tmp_path / "b"]) == results_table([result()])
    logger.remove(handler)
    assert told == [f"{tmp_path / 'a'}: no run, left out\n"]


def test_what_is_no_result_is_one_line(tmp_path):
    (tmp_path / "half.json").write_text('{"name": ')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text('{"test": {}}')
    (tmp_path / "sdn.json").write_text(json.dumps({"dynamics": {}, "metrics": {}}))
    for name, error, says in (
        ("half.json", ValueError, "not readable as JSON"),
        ("list.json", ValueError, "no result of a run or a study"),
        ("other.json", ValueError, "no result of a run or a study"),
        ("sdn.json", ValueError, "no result of a network"),
        ("nothing.json", FileNotFoundError, "no such file"),
        (".", FileNotFoundError, "summary.json: no such file"),
    ):
        with pytest.raises(error, match=says) as caught:
            report([tmp_path / name])
        assert "\n" not in str(caught.value)


def test_mappings_are_indented_to_any_depth():
    values = {"a": 1.5, "bb": {"c": {"d": 2e-7}, "e": "word"}, "f": 123456.7, "g": 0.0}
    assert table(values) == "a      1.5000\nbb\n  c\n    d  2.000e-07\n  e    word\nf      123457\ng      0.0000"


@pytest.mark.parametrize(
    ("metrics", "title"),
    [(["accuracy"], "accuracy"), (["perplexity"], "perplexity"), (["accuracy", "perplexity"], "accuracy")],
)
def test_the_curve_shows_perplexity_where_there_is_no_accuracy(tmp_path, monkeypatch, metrics, title):
    drawn, real = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), real(figure, *a, **k))[1])
    rows = [{"epoch": e, **{f"{s}/{m}": e + 1.0 for s in ("train", "val") for m in metrics}} for e in range(3)]
    learning_curve(rows, tmp_path / "curve.png")
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == ["loss", title, "spike rate"]
    assert [list(line.get_ydata()) for line in axes[1].lines] == [[1.0, 2.0, 3.0]] * 2
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


WRONG = {
    "test": "x", "dataset": [], "seed": "0", "parameters": None, "epochs": 1.5, "solver": ["loop"], "seconds": "long",
    "device": 3, "name": "a\nb", "variant": None, "cpu_minutes": "x", "val": {"loss": "low"},
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_result_with_other_kinds_of_values_is_refused_in_one_line(tmp_path, key):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**result(), key: WRONG[key]}))
    with pytest.raises(ValueError, match=f"is no result of ours, its {key} is") as caught:
        report([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["test"].update(accuracy="high"), lambda r: r["test"].pop("spike_rate"),
        lambda r: r["test"].update(sops=[1]), lambda r: r["dataset"].update(train=None),
        lambda r: r["dataset"].pop("name"), lambda r: r["test"].update(accuracy=10**400),
    ],
)  # fmt: skip
def test_so_is_one_with_other_values_inside(tmp_path, change):
    path, changed = tmp_path / "summary.json", result()
    change(changed)
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="is no result of ours"):
        report([path])


def swap(**changes):
    layers = {"a": {"agreement": 0.9, "f1": 0.8}}
    row = {"rows": 9, "neuron": "exact", "metrics": {"accuracy": 0.5}, "spike_rate": 0.1}
    row |= {"agreement": {"network": layers, "layer": layers}, **changes}
    return {"study": "solver-swap", "name": "n", "seed": 0, "dataset": {"size": "full"}, "rows": [row]}


def test_so_is_a_study_with_other_values(tmp_path):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(swap()))
    assert "90.00" in report([path])
    for changes in (
        {"rows": "9"}, {"neuron": 3}, {"metrics": []}, {"metrics": {"a": "x"}}, {"spike_rate": None}, {"agreement": 3},
        {"agreement": {"network": {"a": {"agreement": float("inf"), "f1": 1.0}}, "layer": {}}},
    ):  # fmt: skip
        path.write_text(json.dumps(swap(**changes)))
        with pytest.raises(ValueError, match="is no result of ours"):
            report([path])
    path.write_text(json.dumps({**swap(), "rows": []}))
    with pytest.raises(ValueError, match="is no result of ours"):
        report([path])
