"""What a page knows of runs before a network is opened: labels, seeds, damage, and what is published."""

import json
import shutil

import pytest
from report_runs import folder, result

from spikingssm.reports.html_runs import clean, collect, grouped, published


def test_a_folder_gives_its_result_epochs_configuration_and_command(tmp_path):
    run = folder(tmp_path / "a")
    (run / "card.json").write_text('{"joule": 1e-6}')
    [found] = collect([run])
    assert (found.label, found.result, found.card) == ("a", result(), {"joule": 1e-6})
    assert [row["val/accuracy"] for row in found.epochs] == [0.4, 0.5, pytest.approx(0.6)]
    assert found.config == {"name": "small", "seed": 0, "run_dir": str(run), "data.seed": 0, "data.rows": 3}
    assert found.command == result()["command"]
    assert not found.problem
    assert not found.notes


def test_labels_are_all_different_and_a_path_counts_once(tmp_path):
    runs = [folder(tmp_path / name / "run", seed) for seed, name in enumerate("ab")]
    (tmp_path / "b.json").write_text(json.dumps(result(2)))
    found = collect([*runs, runs[0], tmp_path / "b.json"])
    assert [run.label for run in found] == ["a/run", "b/run", "b"]
    deep = [folder(tmp_path / name / "same" / "run") for name in "cd"]
    assert [run.label for run in collect(deep)] == ["same/run", "same/run (2)"]


def test_seeds_stand_together_and_runs_that_differ_otherwise_do_not(tmp_path):
    artifact = "model: {{solver: {{artifact: {}/artifact.safetensors}}}}\n"
    runs = [folder(tmp_path / str(s), s, config=artifact.format(tmp_path / str(s))) for s in (2, 0, 1)]
    runs.append(folder(tmp_path / "3", 3, config="model: {width: 9}\n"))
    (tmp_path / "4.json").write_text(json.dumps(result(4)))
    groups = grouped(collect([*runs, tmp_path / "4.json"]))
    assert [[run.label for run in group] for group in groups] == [["0", "1", "2"], ["3"], ["4"]]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("metrics.csv", "epoch,a\n0,x\n", "metrics.csv: could not convert"),
        ("config.yaml", "a: [", "config.yaml: "),
        ("card.json", "{", "card.json: "),
        ("solver-swap.json", "[]", "solver-swap.json: is no result"),
    ],
)
def test_what_is_damaged_is_noted_and_the_rest_is_shown(tmp_path, file, text, said):
    run = folder(tmp_path / "a")
    (run / file).write_text(text)
    [found] = collect([run])
    [note] = found.notes
    assert said in note
    assert found.result is not None


def test_a_damaged_result_is_a_problem_and_the_only_one_is_an_error(tmp_path):
    good, bad = folder(tmp_path / "a"), folder(tmp_path / "b")
    (bad / "summary.json").write_text('{"name": ')
    found = collect([good, bad])
    assert [bool(run.problem) for run in found] == [False, True]
    with pytest.raises(ValueError, match=r"b/summary.json: not readable as JSON"):
        collect([bad])
    with pytest.raises(FileNotFoundError, match=r"nothing: no such file or folder; give run folders"):
        collect([good, tmp_path / "nothing"])


def test_a_run_without_a_result_says_how_it_ended_and_other_folders_are_left_out(tmp_path):
    run = folder(tmp_path / "a", epochs=1)
    (run / "summary.json").unlink()
    (run / "ended.json").write_text('{"how": "diverged", "reason": "train/loss became nan", "time": ""}')
    (tmp_path / "empty").mkdir()
    sdn = tmp_path / "sdn"
    shutil.copytree(run, sdn)
    (sdn / "config.yaml").rename(sdn / "config.json")
    [found] = collect([run, tmp_path / "empty", sdn])
    assert "diverged: train/loss became nan" in found.cells
    assert found.result is None
    with pytest.raises(ValueError, match="no run of a network among these"):
        collect([tmp_path / "empty"])


def test_what_is_published_are_the_words_of_the_configuration(tmp_path):
    said = published("python train.py experiment=s5rf/smnist data.root='a b'")
    assert said.startswith("After 98.89 % on sequential MNIST: Huber et al.")
    for command in ("", "train recipe=brf", "x experiment=no/such", "x experiment=../../secret", "x 'unclosed"):
        assert published(command) == ""


def test_text_of_others_becomes_one_line_that_can_be_written():
    assert clean("a\nb\x00c\ud800 ", 300).encode() == b"a b c"
    assert len(clean("x" * 1000)) == 300
