"""Configurations, run folders and the command line of the experiments."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_datasets import write_mnist

from sdn import Loop
from sdn.runs import load_checkpoint
from spikingssm.experiment import build, evaluate, load, main, run
from spikingssm.metrics import spikes_of

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(
    str(p.relative_to(ROOT / "configs/experiment").with_suffix(""))
    for p in (ROOT / "configs/experiment").rglob("*.yaml")
)
# (d_input, d_output, vocabulary) of the real data, parameters of the blocks in millions as the specification has them,
# and of the whole network.
SIZES = {
    "digits": ((1, 10, None), None, 26250),
    "mnist": ((1, 10, None), 0.75, 752810),
    "pmnist": ((1, 10, None), 0.66, 665610),
    "cifar": ((1, 10, None), 3.76, 3763210),
    "listops": ((1, 10, 18), 0.82, 828938),
    "imdb": ((1, 2, 256), 0.82, 887810),
    "aan": ((1, 2, 98), 1.09, 1380098),
    "pathfinder": ((1, 2, None), 1.09, 1093122),
    "pathx": ((1, 2, None), 1.19, 1191426),
    "sc": ((1, 35, None), 0.25, 255907),
    "dvs128gesture": ((64, 11, None), 3.36, 3402763),
    "wt103": ((1, 267735, 267735), 35.8, 73057171),
    "ecg": ((4, 6, None), None, 38918),
    "fsdd": ((1, 10, None), None, 39946),
    "sc10": ((1, 10, None), None, 103594),
}
TINY = [
    "experiment=spikingssm/digits",
    "+tier=smoke",
    "model.solver=loop",
    "model.d_model=8",
    "model.d_state=4",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(load([*TINY, "trainer.max_epochs=2", f"run_dir={tmp_path_factory.mktemp('runs') / 'one'}"]))


def test_every_experiment_has_its_size_written_down() -> None:
    assert {f"spikingssm/{name}" for name in SIZES} == set(EXPERIMENTS)


@pytest.mark.parametrize("name", SIZES)
def test_every_experiment_builds_at_full_size(name) -> None:
    """Guards defect 35: a shipped configuration could not be built."""
    config = load([f"experiment=spikingssm/{name}", "model.solver=loop"])
    (d_input, d_output, vocab), millions, parameters = SIZES[name]
    tokens = {} if vocab is None else {"vocab": vocab, "pairs": name == "aan"}
    with torch.device("meta"):
        model = instantiate(config.model, d_input=d_input, d_output=d_output, _convert_="all", **tokens)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) == parameters
    blocks = sum(p.numel() for p in model.blocks.parameters())
    assert millions is None or round(blocks / 1e6, 2 if millions < 10 else 1) == millions
    first = (ROOT / "configs/experiment/spikingssm" / f"{name}.yaml").read_text().splitlines()[:3]
    assert first[0] == "# @package _global_"
    assert first[1].startswith(f"# python train.py experiment=spikingssm/{name}")
    assert first[2].startswith(("# After ", "# Ours, no published result", "# Speech", "# DVS128"))


@pytest.mark.parametrize("name", SIZES)
def test_every_experiment_shrunk_takes_a_step(name) -> None:
    shrunk = ["model.d_model=16", "model.d_state=4", "model.solver=loop", "data.batch_size=2", "data.limit_train=4"]
    shrunk += ["model.dt_min=0.05", "model.dt_max=0.5"]  # spikes within the first steps
    config = load([f"experiment=spikingssm/{name}", "+tier=smoke", *shrunk])
    data, module = build(config)
    batch = next(iter(data.train_dataloader()))
    lengths = None if batch.lengths is None else batch.lengths.clamp(max=64)
    batch = batch._replace(x=batch.x[..., :64] if data.vocab else batch.x[:, :64], lengths=lengths)
    batch = batch._replace(y=batch.y[:, :64]) if batch.y.ndim == 2 else batch
    if not data.vocab:  # the first pixels of an image may all be 0
        batch = batch._replace(x=batch.x + torch.rand_like(batch.x))
    if name == "wt103":  # every cluster of the softmax is asked for
        batch = batch._replace(y=torch.linspace(0, data.vocab - 1, batch.y.numel()).long().view(batch.y.shape))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    before = [p.clone() for p in module.parameters()]
    outcome = module.task.run(module.model, batch)
    outcome.loss.backward()
    optimizer.step()
    assert outcome.count > 0
    for (key, parameter), old in zip(module.named_parameters(), before, strict=True):
        assert torch.isfinite(parameter).all(), key
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key
        assert not torch.equal(parameter, old), key


@pytest.mark.parametrize("name", SIZES)
def test_every_causal_experiment_streams(name) -> None:
    """The whole = chunks = steps, with the experiment's own options; the others say why not."""
    shrunk = ["model.d_model=16", "model.d_state=4", "model.solver=fused", "model.n_layers=2", "model.dt_min=0.01"]
    shrunk += ["data.batch_size=2", "data.limit_train=4", "trainer.precision=64-true"]
    data, module = build(load([f"experiment=spikingssm/{name}", "+tier=smoke", *shrunk]))
    model, batch = module.model.double().eval(), next(iter(data.train_dataloader()))
    x = batch.x[..., :64] if data.vocab else batch.x[:, :64].double()
    if model.bidirectional:
        with pytest.raises(NotImplementedError, match="needs the steps to come"):
            model.initial_state(2)
        return
    whole, _ = model(x)
    spikes = spikes_of(model, x)
    assert all(0.005 < s.mean() < 0.95 for s in spikes.values()), "trivial spikes"
    state, parts = None, []
    for chunk in x.split([32, 16, 16], 1):
        out, state = model(chunk, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1) if whole.ndim == 3 else parts[-1], whole)
    state, parts = model.initial_state(2, dtype=torch.float64), []
    for frame in x.split(model.patch, 1):
        out, state = model.step(frame if model.patch > 1 else frame[:, 0], state)
        parts.append(out)
    torch.testing.assert_close(torch.stack(parts, 1) if whole.ndim == 3 else parts[-1], whole)


@pytest.mark.parametrize(("published", "ours"), [("minst", "mnist"), ("pminst", "pmnist")])
def test_the_published_spellings_are_known(published, ours) -> None:
    assert load([f"experiment=spikingssm/{published}"]) == load([f"experiment=spikingssm/{ours}"])


def test_a_tier_has_a_part_for_each_experiment() -> None:
    name = "experiment=spikingssm/mnist"
    small, full = load([name, "+tier=small"]), load([name])
    assert (full.model.d_model, full.trainer.max_epochs, full.threads) == (400, 100, None)
    assert small.model.d_model < full.model.d_model
    assert small.trainer.max_epochs < full.trainer.max_epochs
    assert (small.threads, small.run_dir) == (1, "runs/spikingssm-mnist-1111-small")
    assert load([name, "+tier=small", "model.d_model=7"]).model.d_model == 7
    assert load(["+tier=full", name]).model == full.model
    with pytest.raises(ValueError, match="no tier is named 'small/spikingssm/mnist'; there are: full, small, smoke"):
        load([name, "+tier=small/spikingssm/mnist"])


def test_every_key_of_the_configuration_has_a_comment() -> None:
    for path in (ROOT / "configs").rglob("*.yaml"):
        if "experiment" in path.parts or "tier" in path.parts:
            continue
        for line in path.read_text().splitlines():
            if ":" in line and not line.strip().startswith(("#", "_target_", "defaults", "task:", "optim:", "dt_max")):
                assert "#" in line, f"{path.name}: {line}"


def test_a_run_folder_is_complete(finished) -> None:
    files = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file() and "tensorboard" not in p.parts}
    assert files == {
        "config.yaml", "run.log", "metrics.csv", "summary.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "figures/learning_curve.png", "figures/raster.png",
    }  # fmt: skip
    assert list((finished / "tensorboard").iterdir())
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["dataset"]["size"] == "subset"
    assert set(summary["test"]["spike_rates"]) == {"blocks.0.layer.neuron", "blocks.1.layer.neuron"}
    assert summary["epochs"] == 2
    assert summary["parameters"] == sum(p.numel() for p in build(load(TINY))[1].model.parameters())
    assert summary["val"]["accuracy"] == max(float(row["val/accuracy"]) for row in rows(finished))
    assert {"seconds", "cpu_minutes", "device", "versions", "command", "seed", "solver"} <= set(summary)
    stored = OmegaConf.load(finished / "config.yaml")
    assert stored.data.seed == stored.seed == 0
    assert not OmegaConf.missing_keys(stored)


def test_evaluate_gives_the_accuracy_of_the_run(finished) -> None:
    test = json.loads((finished / "summary.json").read_text())["test"]
    for solver in (None, "loop", Loop()):
        found = evaluate(finished, solver)
        assert {k: found[k] for k in test} == test
        assert found["solver"] == "Loop(detach_reset=True, detach_state=False)"
    surrogate = evaluate(finished, "surrogate")
    assert "Surrogate" in surrogate["solver"]
    assert surrogate["spike_rate"] == pytest.approx(test["spike_rate"], abs=0.02)
    with pytest.raises(ValueError, match=r"solver must be one of .*got 'nope'"):
        evaluate(finished, "nope")
    with pytest.raises(FileNotFoundError, match="give the folder of a run"):
        evaluate(finished / "figures")


def test_a_folder_with_a_checkpoint_is_not_overwritten(finished) -> None:
    with pytest.raises(FileExistsError, match="continue with resume="):
        run(load([*TINY, f"run_dir={finished}"]))
    before = (finished / "summary.json").stat().st_mtime_ns
    assert run(load([f"resume={finished}"])) == finished
    assert (finished / "summary.json").stat().st_mtime_ns == before


def test_resume_keeps_the_configuration(finished) -> None:
    """Guards defect 21: a resumed run silently mixed old and new settings."""
    same = load([*TINY, "trainer.max_epochs=2", f"resume={finished}"])
    assert same.model.d_model == 8
    assert load(["model.d_model=8", f"resume={finished}"]).trainer.max_epochs == 2
    with pytest.raises(ValueError, match=r"has model\.d_model=8, not 9; a resumed run keeps"):
        load(["model.d_model=9", f"resume={finished}"])
    with pytest.raises(ValueError, match=r"not .* \(and \d+ more keys differ\)"):
        load(["experiment=spikingssm/digits", f"resume={finished}"])


def test_files_may_have_moved_when_a_run_goes_on_but_not_changed(tmp_path) -> None:
    for folder, rows_trained in (("one", 30), ("moved", 30), ("other", 20)):
        write_mnist(tmp_path / folder, rows_trained)
    tiny = [
        "experiment=spikingssm/mnist",
        *TINY[1:],
        "data.generated=false",
        "data.batch_size=2",
        "data.val_fraction=0.07",
    ]
    run_dir = tmp_path / "run"
    run(load([*tiny, f"data.root={tmp_path / 'one'}", f"run_dir={run_dir}", "data.limit_train=4"]))
    (run_dir / "summary.json").unlink()
    found = load([f"resume={run_dir}", f"data.root={tmp_path / 'moved'}"])
    assert found.data.root == str(tmp_path / "moved")
    run(found)
    (run_dir / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"trained on data with val 2, these have 1; set data\.root to the same"):
        run(load([f"resume={run_dir}", f"data.root={tmp_path / 'other'}"]))
    with pytest.raises(ValueError, match=r"unknown key 'data.path'; data has the keys .*root"):
        load([f"resume={run_dir}", "data.path=x"])


def test_a_resumed_run_keeps_the_command_that_began_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/train.py", "experiment=spikingssm/digits"])
    run(load([*TINY, f"run_dir={tmp_path}"]))
    (tmp_path / "summary.json").unlink()
    monkeypatch.setattr(sys, "argv", ["/x/train.py", f"resume={tmp_path}"])
    run(load([f"resume={tmp_path}"]))
    assert (
        json.loads((tmp_path / "summary.json").read_text())["command"] == "python train.py experiment=spikingssm/digits"
    )


@pytest.mark.parametrize("name", sorted(set(SIZES) - {"digits", "wt103"}))
def test_every_experiment_finishes_its_smoke_tier(name, tmp_path) -> None:
    few = ["data.limit_train=16", "data.limit_eval=8", "data.batch_size=8", "trainer.enable_progress_bar=false"]
    folder = run(load([f"experiment=spikingssm/{name}", "+tier=smoke", *few, f"run_dir={tmp_path}"]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["dataset"]["size"] == "generated"
    assert 0 <= summary["test"]["accuracy"] <= 1
    assert summary["test"]["sops"] > 0


@pytest.mark.parametrize(
    "override",
    ["trainer.devices=auto", "trainer.devices=[0,1]", "data.scaling=null", "data.leave_out=theo", "optim.ema=0.9"],
)
def test_values_of_several_kinds_are_taken(override) -> None:
    key, value = override.split("=")
    found = OmegaConf.select(load(["experiment=spikingssm/fsdd", override]), key)
    assert found == OmegaConf.create(f"value: {value}").value


def test_a_tier_of_drawn_images_can_be_used_with_the_released_ones() -> None:
    config = load(["experiment=spikingssm/pathfinder", "+tier=small", "data.rows=null", "data.root=x"])
    assert (config.data.rows, config.data.root) == (None, "x")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def test_a_run_killed_from_outside_resumes_bit_for_bit(finished, tmp_path) -> None:
    folder = tmp_path / "killed"
    code = (
        "import sys; from spikingssm.experiment import main; import torch; torch.set_num_threads(1); main(sys.argv[1:])"
    )
    # the loop is made slow enough to be hit in its second epoch
    slow = "import time, spikingssm.training as t; s = t.SequenceModule.training_step\n"
    slow += "t.SequenceModule.training_step = lambda *a: (time.sleep(0.3), s(*a))[1]\n"
    command = [sys.executable, "-W", "ignore", "-c", slow + code, *TINY, "trainer.max_epochs=2", f"run_dir={folder}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while not (folder / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < give_up:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "summary.json").exists()
    torch.manual_seed(5)
    run(load([f"resume={folder}"]))
    assert rows(folder) == rows(finished)
    for name in ("last", "best"):
        one, other = (load_checkpoint(f / "checkpoints" / f"{name}.ckpt")["state_dict"] for f in (finished, folder))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    one, other = (json.loads((f / "summary.json").read_text()) for f in (finished, folder))
    assert one["test"] == other["test"]


def test_resume_before_the_first_checkpoint_starts_from_the_stored_configuration(finished, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    run(load([f"resume={tmp_path}"]))
    assert rows(tmp_path) == rows(finished)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["experiment=nope"], "no experiment is named 'nope'; there are: .*spikingssm/digits"),
        (["dataset=nope"], "no dataset is named 'nope'; there are: aan, arrays, cifar, .*digits"),
        (["modl.d_model=3"], "unknown key 'modl.d_model'; the top level has the keys"),
        (["model.d_modell=3"], "unknown key 'model.d_modell'; model has the keys .*d_model"),
        (["data.root=/x"], "unknown key 'data.root'; data has the keys"),
        (["+typo=3"], "unknown key 'typo'"),
        (["optim.lr=fast"], "optim.lr takes a number such as 0.01, got 'fast'"),
        (["nonsense"], "an override is key=value"),
        (["seed=1,2"], "asks for several runs; use --multirun"),
        (["+trainer.foo=1"], "trainer: unknown key 'foo'; it takes .*max_epochs"),
        (["+trainer.logger=false"], "trainer: unknown key 'logger'"),
        (["+optim.beta=1"], "optim: unknown key 'beta'; it takes lr, weight_decay, warmup"),
        (["+model.foo=1"], "model: .*unexpected keyword argument 'foo'"),
        (["model.dynamics.decay=20"], r"LIF: decay must be in \[0, 1\)"),
        (["model._target_=sdn.Nope"], "model: .*sdn.Nope"),
        (["model.solver={_target_:sdn.Surrogate,artifact:/nope}"], "/nope"),
        (["optim.lr=-1"], "lr must be > 0"),
        (["dataset=arrays"], "set data.path"),
        (["model.patch=65"], "model.patch=65 is longer than the 64 steps of digits"),
        (["data.x=a=b"], "a value with = ~ , .* stands in quotes of its own"),
        (["resume=/nope"], "/nope/config.yaml: no such file"),
    ],
)
def test_mistakes_are_one_line_that_says_what_there_is(overrides, says, tmp_path) -> None:
    with pytest.raises((ValueError, OSError), match=says) as caught:
        main(
            ["model.solver=loop", f"run_dir={tmp_path / 'r'}", *overrides]
            if "resume" not in overrides[0]
            else overrides
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_no_configs_folder_is_a_clear_error(tmp_path, monkeypatch) -> None:
    import spikingssm

    monkeypatch.chdir(tmp_path)
    assert load(["seed=4"]).seed == 4
    monkeypatch.setattr(spikingssm, "__file__", str(tmp_path / "a" / "b.py"))
    with pytest.raises(FileNotFoundError, match="run from a checkout"):
        load([])


def test_the_command_line_prints_sweeps_and_fails(tmp_path, capsys) -> None:
    main(["seed=3", "--cfg", "job", "model.n_layers=7"])
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.seed, shown.data.seed, shown.model.n_layers, shown.run_dir) == (3, 3, 7, "runs/unnamed-3")
    main(["--multirun", "seed=0,1", "optim.lr=0.1,0.2", "--cfg", "job"])
    folders = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run_dir")]
    assert folders == [f"run_dir: runs/unnamed-{seed}-optim.lr={lr}" for seed in (0, 1) for lr in (0.1, 0.2)]
    failed = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py", "model.nope=1"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: unknown key 'model.nope'")
    assert len(failed.stderr.splitlines()) == 1


def test_evaluate_on_the_command_line(finished, monkeypatch, capsys) -> None:
    from spikingssm.__main__ import main as command

    monkeypatch.setattr(sys, "argv", ["spikingssm", "evaluate", str(finished), "--solver", "loop"])
    command()
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "  blocks.1.layer.neuron" in shown
