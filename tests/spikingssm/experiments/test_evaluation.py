"""Any checkpoint under any solver: the same numbers as the run's, and agreement as compared by hand."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sdn
from sdn import LIF, Fused, Parallel, Surrogate
from sdn.surrogate.artifact import shipped_artifacts
from spikingssm.__main__ import main as command
from spikingssm.datasets import Rows, SequenceData
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import check_other, evaluate, load_run, measure, solver_for
from spikingssm.experiments.run import run
from spikingssm.measures.agreement import Agreement, SpikeTally, exactly
from spikingssm.models import SpikingSSM
from spikingssm.tasks import Classification, LanguageModel
from spikingssm.training.fit import SequenceModule, make_trainer, score

ROOT = Path(__file__).parents[3]
QUIET = ["threads=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
TINY = ["model.d_model=8", "model.d_state=4", "model.n_layers=2", "optim.lr=0.02", *QUIET]
ALONE = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
SILENT = {**ALONE, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module", autouse=True)
def _at_root():
    with contextlib.chdir(ROOT):
        yield


def poor(folder) -> Path:
    """An artifact whose network was never trained, so that its spikes differ from the exact ones."""
    torch.manual_seed(2)
    path = folder / "poor.safetensors"
    sdn.save_artifact(path, sdn.reduce(sdn.SDN()), LIF(0.125))
    return path


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A run under a poor surrogate on rows of several lengths, three of them behind the first batch."""
    folder = tmp_path_factory.mktemp("padded")
    solver = f"model.solver={{_target_: sdn.Surrogate, artifact: {poor(folder)}}}"
    draw = np.random.default_rng(0)
    x, lengths = draw.normal(size=(43, 24, 2)).astype(np.float32), draw.integers(1, 25, 43)
    y = (x[:, 0, 0] > 0).astype(np.int64)
    cut = {"x": x[:24], "y": y[:24], "lengths": lengths[:24]}
    np.savez(folder / "rows.npz", **cut, x_test=3 * x[24:], y_test=y[24:], lengths_test=lengths[24:])
    data = ["dataset=arrays", f"data.path={folder / 'rows.npz'}", "data.batch_size=16", "data.val_fraction=0.25"]
    return run(load([*data, *TINY, solver, f"run_dir={folder / 'run'}"]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A run on drawn audio."""
    folder = tmp_path_factory.mktemp("clips") / "run"
    data = ["dataset=fsdd", "data.generated=true", "data.length=400", "data.limit_train=32", "data.limit_eval=20"]
    return run(load([*data, "model.patch=8", *TINY, f"run_dir={folder}"]))


def test_evaluate_repeats_the_test_of_the_run(padded):
    said = json.loads((padded / "summary.json").read_text())["test"]
    assert {"accuracy", "spike_rates", "sops", "sops_by_layer", "steps", "energy", "not_counted"} <= set(said)
    for solver in (None, Surrogate(padded / "artifact.safetensors")):
        found = evaluate(padded, solver)
        assert {key: found[key] for key in said} == said
        assert (found["rows"], found["device"]) == (19, "cpu")
    assert "agreement" not in found


def test_the_test_is_run_once(padded, monkeypatch):
    calls, real = [], SequenceModule.test_step
    monkeypatch.setattr(SequenceModule, "test_step", lambda *given: (calls.append(len(given[1].x)), real(*given))[1])
    assert evaluate(padded, agreement=True)["sops"] > 0
    assert calls == [16, 3]


def compared(one, two):
    """Agreement and F1 of two lists of spike trains, by their definitions."""
    a, b = (torch.cat([t.flatten() for t in trains]).bool() for trains in (one, two))
    precision, recall = (a & b).sum() / a.sum(), (a & b).sum() / b.sum()
    return {"agreement": (a == b).double().mean().item(), "f1": (2 * precision * recall / (precision + recall)).item()}


def seen_by_row(model, rows):
    """Currents and spikes of each layer, every row run alone and without padding."""
    seen = {name: [] for name, part in model.named_modules() if isinstance(part, sdn.Neuron)}
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen[name].append((i[0], o[0])))
        for name in seen
    ]
    with torch.no_grad():
        for row in rows:
            model.eval()(row.unsqueeze(0))
    for hook in hooks:
        hook.remove()
    return seen


def test_agreement_is_that_of_every_row_alone(padded):
    """Padding does not enter, and the second layer of the swapped net sees other currents than the first net's."""
    found = evaluate(padded, agreement=True)["agreement"]
    data, module = load_run(padded)[1:]
    batch = data.test_set.__getitems__(data.test_rows.tolist())
    rows = [x[:n] for x, n in zip(batch.x, batch.lengths, strict=True)]
    own, swapped = seen_by_row(module.model, rows), seen_by_row(module.model.with_solver("loop"), rows)
    for name, trains in own.items():
        network = compared([s for _, s in trains], [s for _, s in swapped[name]])
        assert found["network"][name] == pytest.approx(network, abs=1e-6)
        neuron = module.model.get_submodule(name).current_dynamics()
        layer = compared([s for _, s in trains], [sdn.simulate(neuron, current).spike for current, _ in trains])
        assert found["layer"][name] == pytest.approx(layer, abs=1e-6)
    first, second = own
    assert found["network"][first] == found["layer"][first]
    assert found["network"][second] != found["layer"][second]
    assert all(0.5 < scores["agreement"] < 1 for scores in found["network"].values())


def test_exact_solvers_agree_with_the_exact_neuron(padded):
    for solver in ("loop", "parallel"):
        found = evaluate(padded, solver, agreement=True, limit=5)
        for kind in ("network", "layer"):
            assert all(scores == {"agreement": 1.0, "f1": 1.0} for scores in found["agreement"][kind].values())
        assert found["rows"] == 5


@pytest.mark.parametrize("solver", ["fused", Fused(detach_state=True)])
def test_a_neuron_is_not_compared_with_itself(padded, solver):
    with pytest.raises(ValueError, match="is that neuron; compare another one with --solver surrogate"):
        evaluate(padded, solver, agreement=True)


def test_nor_is_that_of_the_run(tmp_path):
    model = SpikingSSM(1, 2, 8, 2, dynamics=LIF(0.125), solver="fused")
    with pytest.raises(ValueError, match="fused is that neuron"):
        check_other(model, None)
    check_other(model, Parallel())
    check_other(model.with_solver("loop"), None)


def test_a_stream_is_compared_with_its_state_carried(tmp_path):
    """The chunks of a stream agree as the whole of it does."""
    model = SpikingSSM(1, 7, 8, 2, 4, vocab=7, pool="each", dynamics=LIF(0.125, 0.5), solver=Surrogate(poor(tmp_path)))
    x = torch.randint(0, 7, (60, 2))
    rows = Rows(x, x.roll(-1, 1))
    data = SequenceData("letters", rows, rows, rows, d_output=7, vocab=7, batch_size=2, stream=True)
    module, comparison = SequenceModule(model, LanguageModel(), classes=7, carry_state=True), Agreement()
    said = score(module, data, make_trainer(**SILENT, callbacks=[comparison]))
    assert said["perplexity"] > 1
    assert said["steps"] == 2
    whole = [x.flatten()]
    own, swapped = seen_by_row(model, whole), seen_by_row(model.with_solver("loop"), whole)
    for name, trains in own.items():
        found = comparison.scores()["network"][name]
        assert found == pytest.approx(compared([trains[0][1]], [swapped[name][0][1]]), abs=1e-6)
        exact = sdn.simulate(model.get_submodule(name).current_dynamics(), trains[0][0]).spike
        assert comparison.scores()["layer"][name] == pytest.approx(compared([trains[0][1]], [exact]), abs=1e-6)
        assert found["agreement"] < 1


def test_a_sample_of_pairs_is_both_sequences():
    model = SpikingSSM(1, 2, 8, 1, 4, vocab=7, pairs=True, dropout=0.0)
    x, lengths = torch.randint(0, 7, (6, 2, 8)), torch.tensor([[8, 3]] * 6)
    rows = Rows(x, torch.arange(6) % 2, lengths)
    data = SequenceData("pairs", rows, rows, rows, d_output=2, vocab=7, batch_size=4)
    said = score(SequenceModule(model, Classification(), classes=2), data, make_trainer(**SILENT))
    assert said["steps"] == 11
    assert said["sops"] == pytest.approx(said["spike_rate"] * 11 * 8 * 16)


def test_a_tally_counts_by_definition():
    tally, one, two = SpikeTally(), torch.rand(4, 6, 3).round(), torch.rand(4, 6, 3).round()
    valid = torch.rand(4, 6) > 0.3
    tally.add(one[:1], two[:1], valid[:1])
    tally.add(one[1:], two[1:], valid[1:])
    assert tally.scores() == pytest.approx(compared([one[valid]], [two[valid]]), abs=1e-6)
    silent = SpikeTally()
    silent.add(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
    assert silent.scores() == {"agreement": 1.0, "f1": 1.0}


def test_a_neuron_without_a_kernel_is_exact_by_the_loop():
    class Twice(LIF):
        def past(self, state):
            return super().past(state) + 0 * state.u.flip(-1)  # not elementwise

    assert str(exactly(SpikingSSM(1, 2, 4, 1, 2)).blocks[0].layer.neuron.solver).startswith("Fused")
    own = SpikingSSM(1, 2, 4, 1, 2, dynamics=Twice(0.2), solver="loop")
    assert str(exactly(own).blocks[0].layer.neuron.solver).startswith("Loop")
    with pytest.raises(ValueError, match="Linear has no with_solver"):
        exactly(torch.nn.Linear(1, 1))


def test_half_the_rate_is_other_data_in_frames_of_half_the_samples(clips):
    config, data, module = load_run(clips, rate=2)
    assert (config.data.rate, data.length, load_run(clips).data.length) == (2, 200, 400)
    assert 2 * module.model.patch == load_run(clips).module.model.patch
    found, whole = evaluate(clips, rate=2), evaluate(clips)
    assert found["steps"] == pytest.approx(whole["steps"], abs=1)
    assert found["loss"] != whole["loss"]
    again = measure(load_run(clips, rate=2, own_solver=False), Surrogate())
    assert again["spike_rates"] == found["spike_rates"]
    assert evaluate(clips, rate=1) == evaluate(clips)


def test_the_surrogate_of_a_run_is_its_own(padded, clips):
    own = str(padded / "artifact.safetensors")
    assert solver_for(padded, "surrogate") == Surrogate(own)
    assert solver_for(padded, refine=3) == Surrogate(own, refine=3)
    other = shipped_artifacts()[0]
    assert solver_for(padded, "sdn", artifact=other) == Surrogate(other) != Surrogate(own)
    assert solver_for(padded, "fused") == Fused()
    assert solver_for(padded) is None
    assert solver_for(clips, "surrogate", refine=2) == Surrogate(clips / "artifact.safetensors", refine=2)
    assert evaluate(padded)["solver"] == str(Surrogate(own))


def told(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["spikingssm", *map(str, words)])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command()
    return out.getvalue()


def test_the_command_prints_and_writes_what_evaluate_says(padded, tmp_path, monkeypatch):
    options = ("--refine", 1, "--agreement", "--limit", 7, "--json", tmp_path / "found.json", "--all")
    shown = told(monkeypatch, "evaluate", padded, *options)
    want = evaluate(padded, Surrogate(str(padded / "artifact.safetensors"), 1), agreement=True, limit=7)
    assert json.loads((tmp_path / "found.json").read_text()) == {"run": str(padded), **want}
    names = {line[: len(line) - len(line.lstrip())] + line.split()[0] for line in shown.splitlines()}
    assert {"accuracy", "loss", "energy", "    saving", "  network", "    blocks.1.layer.neuron", "      f1"} <= names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--solver", "nope"], "solver must be one of .*got 'nope'"),
        (["--solver", "fused", "--refine", "1"], "--refine 1 is for the surrogate, --solver is 'fused'"),
        (["--solver", "loop", "--artifact", "x"], "--artifact x is for the surrogate"),
        (["--refine", "-1"], "refine must be an integer >= 0, got -1"),
        (["--artifact", "sdn/surrogate/artifacts/lif-decay-0.2.safetensors"], "artifact was made for .*this neuron is"),
        (["--artifact", "/nope"], "/nope"),
        (["--rate", "2"], "have no data.rate, their keys are .*audio"),
        (["--root", "/x"], "have no data.root, .*leave --root out"),
        (["--limit", "0"], "--limit must be at least 1 row, got 0"),
    ],
)
def test_mistakes_are_one_line(padded, monkeypatch, words, says):
    with pytest.raises((ValueError, OSError), match=says) as caught:
        told(monkeypatch, "evaluate", padded, *words)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a run"):
        evaluate(tmp_path, "fused")
    with pytest.raises(FileNotFoundError, match="give the folder of a run"):
        solver_for(tmp_path, "surrogate")


def test_another_root_is_read(clips):
    with pytest.raises(ValueError, match="drawn stand-in, which has no root; leave --root"):
        evaluate(clips, root="/nowhere")
