"""A run folder may come from somebody else, or have moved: what it may say, and what it must hold."""

import json
import shutil
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

import sdn
from sdn.surrogate.artifact import shipped_artifacts
from spikingssm.commands.train import main
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.run import run
from spikingssm.experiments.runfolder import keep_artifact, solver_name
from spikingssm.models import SpikingSSM

ROOT = Path(__file__).parents[3]
TINY = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.d_model=8", "model.d_state=4",
    "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose surrogate was given by a path that is gone by now."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    sdn.save_artifact(folder / "mine.safetensors", sdn.reduce(sdn.SDN().eval()), sdn.LIF(0.125))
    solver = f"model.solver={{_target_: sdn.Surrogate, artifact: {folder / 'mine.safetensors'}}}"
    run(load([*TINY, solver, f"run_dir={folder / 'one'}"]))
    (folder / "mine.safetensors").unlink()
    return folder / "one"


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run at another place."""
    shutil.copytree(finished, tmp_path / "moved")
    return tmp_path / "moved"


def edited(folder, change):
    config = OmegaConf.load(folder / "config.yaml")
    change(config)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))


def test_a_run_keeps_its_surrogate_and_may_move(finished, copied):
    kept = sdn.load_artifact(copied / "artifact.safetensors")
    first = evaluate(finished)
    assert first["solver"] == str(sdn.Surrogate(kept))
    assert kept.digest[:12] in first["solver"]
    assert evaluate(copied) == first
    other = sdn.save_artifact(copied / "artifact.safetensors", sdn.reduce(sdn.SDN().eval()), sdn.LIF(0.125))
    assert evaluate(copied)["solver"] == str(sdn.Surrogate(other)) != first["solver"]  # the copy is what is read


def test_a_run_keeps_the_shipped_surrogate_too(tmp_path):
    run(load([*TINY, f"run_dir={tmp_path}"]))
    kept = sdn.load_artifact(tmp_path / "artifact.safetensors")
    assert kept in [sdn.load_artifact(path) for path in shipped_artifacts()]
    assert OmegaConf.load(tmp_path / "config.yaml").model.solver.artifact == str(tmp_path / "artifact.safetensors")
    name = evaluate(tmp_path)["solver"]
    assert kept.digest[:12] in name
    assert json.loads((tmp_path / "summary.json").read_text())["solver"] == name
    assert evaluate(tmp_path, "surrogate")["solver"] == name


@pytest.mark.parametrize(
    "target", ["torch.load", "os.system", "spikingssm.commands.demo._command", "spikingssm.experiments.run.run"]
)
def test_a_run_folder_calls_no_code_but_ours(copied, target):
    edited(copied, lambda c: OmegaConf.update(c, "data", {"_target_": target, "f": "evil.bin"}, merge=False))
    with pytest.raises(ValueError, match=f"names '{target}', which is not of this project"):
        evaluate(copied)


def test_a_nested_target_is_found_too(copied):
    edited(copied, lambda c: OmegaConf.update(c, "model.dynamics", {"_target_": "builtins.eval"}, merge=False))
    with pytest.raises(ValueError, match=r"builtins\.eval"):
        evaluate(copied)


def test_a_target_can_be_trusted_explicitly(copied, monkeypatch):
    edited(copied, lambda c: OmegaConf.update(c, "data", {"_target_": "collections.OrderedDict"}, merge=False))
    monkeypatch.setenv("SDN_TRUST_TARGETS", "collections.OrderedDict")
    with pytest.raises(ValueError, match="gives a OrderedDict, it must give a SequenceData"):  # let through
        evaluate(copied)


@pytest.mark.parametrize(
    "text", ["", "resume: null\n", "[1, 2]\n", "a: {b\n"], ids=["empty", "bare", "list", "damaged"]
)
def test_other_yaml_files_are_refused_in_one_line(copied, text):
    (copied / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml: not ") as caught:
        evaluate(copied)
    assert "\n" not in str(caught.value)


def wrong_weights(folder):
    path = folder / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"].pop("model.encoder.weight")
    torch.save(content, path)


DAMAGES = {
    "other-model": (lambda f: edited(f, lambda c: OmegaConf.update(c, "model.d_model", 10)), "is of another model"),
    "missing-weight": (wrong_weights, r"model\.encoder\.weight is nothing there"),
    "no-weights": (lambda f: torch.save({"a": 1}, f / "checkpoints/best.ckpt"), "holds no weights"),
    "truncated": (lambda f: (f / "checkpoints/best.ckpt").write_bytes(b"PK\x03\x04"), "not a readable checkpoint"),
    "missing": (lambda f: (f / "checkpoints/best.ckpt").unlink(), "no such checkpoint"),
    "artifact": (lambda f: (f / "artifact.safetensors").write_bytes(b"x"), "not a readable safetensors file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_runs_are_refused_in_one_line(copied, damage, message):
    damage(copied)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        evaluate(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["best", "last"])
def test_resume_looks_at_both_checkpoints_before_it_trains(copied, name):
    """Guards defect 15: a missing best checkpoint was found when all was over."""
    (copied / "summary.json").unlink()
    before = (copied / "metrics.csv").read_text()
    torch.save({"epoch": 0, "state_dict": {}}, copied / "checkpoints" / f"{name}.ckpt")
    with pytest.raises(ValueError, match=f"{name}.ckpt: is of another model"):
        main([f"resume={copied}"])
    assert (copied / "metrics.csv").read_text() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=null", "optim.lr takes a number such as 0.01, got None"),
        ("model.n_layers=1.5", "model.n_layers takes a whole number such as 2, got 1.5"),
        ("seed=ten", "seed takes a whole number such as 0, got 'ten'"),
        ("model.prenorm=3", "model.prenorm takes true or false"),
        ("model.dynamics=lif", "model.dynamics takes a mapping"),
        ("model.solver=3", "solver must be one of"),
        ("model.spike=foo", "spike must be a value with slope"),
        ("threads=0", "threads must be an integer >= 1 or null, got 0"),
        ("trainer.max_epochs=0", "trainer.max_epochs must be an integer >= 1, got 0"),
        ("trainer.devices=0", "trainer: .*devices=0"),
        ("+trainer.max_steps=2", "trainer: unknown key 'max_steps'"),
        ("data.batch_size=null", "data.batch_size takes a whole number"),
    ],
)
def test_overrides_of_the_wrong_kind_are_one_line(tmp_path, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        main([*TINY, "model.solver=loop", f"run_dir={tmp_path / 'r'}", override])
    assert "\n" not in str(caught.value)


def test_null_is_allowed_where_it_means_something():
    config = load([*TINY, "threads=null", "data.limit_train=null"])
    assert config.threads is None
    assert config.data.limit_train is None


def test_a_run_keeps_every_option_of_its_surrogate(tmp_path):
    """Rounds and chunk decide on the spikes: a run that is read back must not fall back to their defaults."""
    solver = sdn.Surrogate(rounds=2, chunk=16, detach_state=True)
    model = SpikingSSM(1, 2, d_model=4, n_layers=1, d_state=2, dynamics=sdn.LIF(0.9), solver=solver)
    config = OmegaConf.create({"model": {"_target_": "spikingssm.models.SpikingSSM", "solver": "surrogate"}})
    keep_artifact(config, model, tmp_path)
    found = hydra.utils.instantiate(config.model.solver)
    assert (found.rounds, found.chunk, found.detach_state, found.detach_reset) == (2, 16, True, True)
    assert found.artifact == solver.stands_for(sdn.LIF(0.9))[1]
    assert "rounds=2" in solver_name(next(part for part in model.modules() if isinstance(part, sdn.Neuron)))
