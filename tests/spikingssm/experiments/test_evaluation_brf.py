"""Published checkpoints, evaluated and made into run folders: the oracle's accuracy, loss and spikes."""

import contextlib
import json
import shlex
import sys
from pathlib import Path

import brf_oracle as oracle
import pytest
import torch
from test_ecg import write as write_ecg

from spikingssm.__main__ import main as command
from spikingssm.datasets.base import IGNORED
from spikingssm.datasets.ecg import ecg
from spikingssm.experiments.evaluation import evaluate, load_run, measure
from spikingssm.published.brf import rsnn_to_pt
from spikingssm.published.run import import_checkpoint, open_checkpoint

ROOT = Path(__file__).parents[3]
QUIET = ["threads=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.precision=64-true"]
SMALL = ["data.generated=true", "data.batch_size=16"]
ECG = ["data.batch_size=2", "data.val_fraction=0.25", *QUIET]
GAINS = {"brf": (80.0, 12.0), "rf": (50.0, 12.0), "alif": (1.0, 2.0)}


@pytest.fixture(autouse=True)
def _at_root():
    with contextlib.chdir(ROOT):
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with small ECG files and a checkpoint of each neuron."""
    folder = tmp_path_factory.mktemp("brf")
    write_ecg(folder)
    for neuron in GAINS:
        whole = {"epoch": 360, "loss": 0.4, "model_state_dict": arrays_of(neuron), "optimizer_state_dict": {}}
        torch.save(whole, folder / f"{neuron}.pt")
    return folder


def arrays_of(neuron, hidden=9):
    gain, recurrent = GAINS[neuron]
    return oracle.drawn(neuron, 4, hidden, 6, gain=gain, recurrent=recurrent)


def expected(neuron, folder, skip=0):
    """Accuracy on labelled steps, on all with unlabelled ones as class 0, the published loss, spikes a sample."""
    (batch,) = ecg(folder, length=1300, batch_size=3, val_fraction=0.25).test_dataloader()
    out = oracle.network(neuron, arrays_of(neuron), batch.x.double())
    labels = batch.y.masked_fill(batch.y == IGNORED, 0)
    said = out.potentials.argmax(-1)
    labelled = (batch.y != IGNORED)[:, skip:]
    right = (said == labels)[:, skip:]
    return {
        "accuracy": right[labelled].double().mean().item(),
        "accuracy_all": right.double().mean().item(),
        "loss": oracle.loss(out.potentials, labels, skip=skip).item(),
        "spikes": out.hidden.spikes.sum().item() / 3,
    }


@pytest.mark.parametrize("neuron", GAINS)
def test_accuracy_both_ways_loss_and_spikes_are_the_oracles(place, neuron):
    run = open_checkpoint(place / f"{neuron}.pt", "brf/ecg", neuron, ECG, root=place)
    found = measure(run)
    want = expected(neuron, place, skip=10 if neuron == "alif" else 0)  # what the recipe of ALIF leaves out
    assert want["spikes"] > 0.02 * 9 * 1300
    assert want["accuracy"] != want["accuracy_all"]
    assert {key: found[key] for key in want} == pytest.approx(want, rel=1e-6)
    assert found["rows"] == 3
    assert found["spike_rate"] == pytest.approx(want["spikes"] / (9 * 1300))


def told(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["spikingssm", *map(str, words)])
    command()
    return capsys.readouterr().out


def test_the_command_prints_it_for_a_file(place, tmp_path, monkeypatch, capsys):
    options = ["--neuron", "brf", ECG[0], "--experiment", "brf/ecg", *ECG[1:], "--root", place, "--all"]
    shown = told(monkeypatch, capsys, "evaluate", place / "brf.pt", *options, "--json", tmp_path / "found.json")
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines() if len(line.split()) == 2)
    want = expected("brf", place)
    for name in ("accuracy", "accuracy_all", "loss"):
        assert float(lines[name]) == pytest.approx(want[name], abs=6e-5)
    assert float(lines["spikes"]) == pytest.approx(want["spikes"], abs=0.6)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["spikes"] == pytest.approx(want["spikes"])
    less = ["--solver", "loop", "--limit", 2, "--json", tmp_path / "less.json"]
    told(monkeypatch, capsys, "evaluate", place / "brf.pt", *options, *less)
    less = json.loads((tmp_path / "less.json").read_text())
    assert (less["rows"], less["solver"][:4]) == (2, "Loop")
    assert less["spikes"] != found["spikes"]
    assert list(tmp_path.iterdir()) != []
    assert {path.name for path in tmp_path.iterdir()} == {"found.json", "less.json"}


def test_a_file_has_a_card(place, tmp_path, monkeypatch, capsys):
    options = ["--neuron", "brf", ECG[0], "--experiment", "brf/ecg", *ECG[1:], "--root", place]
    told(monkeypatch, capsys, "evaluate", place / "brf.pt", *options, "--limit", 2, "--card", tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["samples"] == 2
    assert card["maps"]["layers.0.recurrent"]["kind"] == "AC"
    assert card["quality"]["selection"]["rule"].startswith("not known")
    assert "config" not in card["made"]
    assert (tmp_path / "card.md").read_text().startswith("# Efficiency card: ecg")


@pytest.mark.parametrize("neuron", ["brf", "rf"])
def test_an_imported_run_is_evaluated_and_reported_like_any_other(place, tmp_path, monkeypatch, capsys, neuron):
    out = tmp_path / "run"
    words = ["--neuron", neuron, "--experiment", "brf/ecg", "--root", place, "--out", out, *ECG]
    shown = told(monkeypatch, capsys, "import", place / f"{neuron}.pt", *words)
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == {
        "config.yaml", "summary.json", "checkpoints/best.ckpt",
    }  # fmt: skip
    summary, found = json.loads((out / "summary.json").read_text()), evaluate(out)
    want = expected(neuron, place)
    assert {key: found[key] for key in want} == pytest.approx(want, rel=1e-6)
    assert {key: found[key] for key in summary["test"]} == summary["test"]
    assert (summary["epochs"], summary["parameters"]) == (360, (4 + 9) * 9 + 2 * 9 + 9 * 6 + 6)
    assert summary["variant"].startswith("imported, data.batch_size=2")
    assert summary["imported"]["file"] == f"{neuron}.pt"
    command = ["python", "-m", "spikingssm", "import", f"{neuron}.pt", "--neuron", neuron, "--experiment", "brf/ecg"]
    assert shlex.split(summary["command"]) == [*command, "--root", "FOLDER", "--out", "run", *ECG]
    assert (out / "config.yaml").read_text().splitlines()[0] == f"# {summary['command']}"
    assert f"{neuron}-ecg, imported" in shown
    assert told(monkeypatch, capsys, "report", out) == shown
    back = tmp_path / "back.pt"
    rsnn_to_pt(back, load_run(out).module.model)
    arrays = torch.load(back, weights_only=True)["model_state_dict"]
    assert all(torch.equal(arrays[k], v) for k, v in arrays_of(neuron).items())
    with pytest.raises(FileExistsError, match="holds a run; give another folder"):
        told(monkeypatch, capsys, "import", place / f"{neuron}.pt", *words)


def test_masks_biases_and_a_shorter_step_come_along(place, tmp_path):
    arrays = oracle.drawn("brf", 4, 9, 6, gain=20.0, recurrent=6.0, bias=True)
    mask = torch.ones(9, 13, dtype=torch.float64)
    mask[:, 4:] = (torch.rand(9, 9) > 0.5).double()
    arrays["hidden.linear.mask"] = mask
    torch.save(arrays, tmp_path / "masked.pt")
    overrides = [*ECG, "model.dynamics.dt=0.006", f"data.root='{place}'"]
    out = import_checkpoint(tmp_path / "masked.pt", tmp_path / "run", "brf/ecg", "brf", overrides)
    words = shlex.split((out / "config.yaml").read_text().splitlines()[0])
    assert words[-len(overrides) :] == [*overrides[:-1], "data.root=FOLDER"]
    model = load_run(out).module.model
    x = 3 * torch.randn(2, 300, 4, dtype=torch.float64)
    want = oracle.network("brf", arrays, x, delta=0.006)
    assert want.hidden.spikes.mean() > 0.02
    assert torch.allclose(model(x)[0], want.potentials, rtol=0, atol=1e-12)


def test_an_order_of_pixels_out_of_a_file_is_that_of_the_data(tmp_path):
    arrays = oracle.drawn("brf", 1, 5, 10, gain=60.0, recurrent=4.0)
    torch.save(arrays, tmp_path / "ps.pt")
    order = torch.randperm(784)
    torch.save(order, tmp_path / "permuted_idx.pt")
    options = [*SMALL, *QUIET]
    plain, permuted = (
        open_checkpoint(tmp_path / "ps.pt", "brf/psmnist", "brf", [*options, *more], limit=3, **given)
        for more, given in ((["data.permute=none"], {}), ([], {"permutation": tmp_path / "permuted_idx.pt"}))
    )
    assert permuted.config.data.permute == str((tmp_path / "permuted_idx.pt").resolve())
    xs = [next(iter(run.data.test_dataloader())).x for run in (plain, permuted)]
    assert torch.equal(xs[1], xs[0][:, order])
    assert "permuted_idx.pt" in permuted.data.facts()["split"]
    assert measure(permuted)["rows"] == 3
    given = {"permutation": tmp_path / "permuted_idx.pt", "limit": 3}
    again = [f"data.permute='{tmp_path}/permuted_idx.pt'", *options]
    out = import_checkpoint(tmp_path / "ps.pt", tmp_path / "run", "brf/psmnist", "brf", again, **given)
    assert shlex.split(json.loads((out / "summary.json").read_text())["command"])[4:] == [
        "ps.pt", "--neuron", "brf", "--experiment", "brf/psmnist", "--permutation", "permuted_idx.pt", "--limit", "3",
        "--out", "run", "data.permute='permuted_idx.pt'", *options,
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["evaluate", "import"])
def test_a_file_is_not_tested_in_an_order_that_nobody_said(tmp_path, monkeypatch, capsys, command):
    torch.save(oracle.drawn("brf", 1, 5, 10, gain=60.0, recurrent=4.0), tmp_path / "ps.pt")
    out = ["--out", tmp_path / "run"] if command == "import" else []
    words = [command, tmp_path / "ps.pt", *out, "--neuron", "brf", "--experiment", "brf/psmnist", "--limit", 2]
    with pytest.raises(ValueError, match=r"--permutation FILE\.pt.*data\.permute=") as caught:
        told(monkeypatch, capsys, *words, *SMALL, *QUIET)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("order", ["permute=random", "permute=none", "permute=bitreversal", "permute_seed=7"])
def test_an_order_that_is_said_is_taken(tmp_path, order):
    torch.save(oracle.drawn("brf", 1, 5, 10, gain=60.0, recurrent=4.0), tmp_path / "ps.pt")
    data = open_checkpoint(tmp_path / "ps.pt", "brf/psmnist", "brf", [*SMALL, *QUIET, f"data.{order}"]).config.data
    key, _, value = order.partition("=")
    assert str(data[key]) == value


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (["evaluate", "missing.pt", "--neuron", "brf"], FileNotFoundError, "missing.pt: no such file"),
        (["evaluate", "{brf}", "--experiment", "brf/ecg"], ValueError, "say 'brf' or 'rf'"),
        (["evaluate", "{brf}", "--neuron", "brf"], ValueError, "--experiment brf/ecg"),
        (["evaluate", "{brf}", "--neuron", "alif", "--experiment", "brf/ecg"], ValueError, "not of ALIF"),
        (["evaluate", "{brf}", "--neuron", "brf", "--experiment", "brf/nope"], ValueError, "no experiment is named"),
        (
            ["evaluate", "{brf}", "--neuron", "brf", "--experiment", "brf/smnist", *SMALL],
            ValueError,
            "has 4 inputs and 6 classes, the data of experiment=brf/smnist have 1 and 10",
        ),
        (
            ["evaluate", "{brf}", "--neuron", "brf", "--experiment", "brf/ecg", "--permutation", "x.pt"],
            ValueError,
            r"have no data\.permute.*cannot take x\.pt",
        ),
        (["evaluate", "{brf}", "--neuron", "brf", "--refine", "1"], ValueError, "--refine 1 is not for"),
        (["evaluate", "{folder}", "--neuron", "brf"], ValueError, "--neuron brf is for a published checkpoint"),
        (["evaluate", "{folder}", "data.length=3"], ValueError, "data.length=3 is for a published checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_one_line(place, monkeypatch, capsys, words, kind, says):
    words = [word.format(brf=place / "brf.pt", folder=place) for word in words]
    with pytest.raises(kind, match=says) as caught:
        told(monkeypatch, capsys, *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["--nonsense", "data.length"])
def test_other_words_are_no_overrides(place, monkeypatch, capsys, word):
    with pytest.raises(SystemExit):
        told(monkeypatch, capsys, "evaluate", place / "brf.pt", "--neuron", "brf", word)
    assert f"unrecognized arguments: {word}" in capsys.readouterr().err


def test_a_network_that_cannot_be_tested_leaves_no_folder(place, tmp_path, monkeypatch):
    def diverged(run):
        raise ValueError("RF: neuron 3 of row 0 became NaN or infinite at step 7")

    monkeypatch.setattr("spikingssm.published.run.measure", diverged)
    with pytest.raises(ValueError, match=r"RF: .*neuron"):
        import_checkpoint(place / "rf.pt", tmp_path / "run", "brf/ecg", "rf", ECG, root=place)
    assert not (tmp_path / "run").exists()
