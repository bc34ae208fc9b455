"""Every recipe that ships: its size, one step of it, its stream, its tiers."""

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from spikingssm.experiments.build import build
from spikingssm.experiments.config import load
from spikingssm.experiments.run import run
from spikingssm.measures.spikes import spikes_of

ROOT = Path(__file__).parents[3]
EXPERIMENTS = sorted(
    str(p.relative_to(ROOT / "configs/experiment").with_suffix(""))
    for p in (ROOT / "configs/experiment").rglob("*.yaml")
)

# (d_input, d_output, vocabulary) of the real data, parameters of the blocks in millions as the specification has them,
# and of the whole network; an S5-RF is its published count without the dead half of the readout.
SIZES = {
    "spikingssm/digits": ((1, 10, None), None, 26250),
    "spikingssm/mnist": ((1, 10, None), 0.75, 752810),
    "spikingssm/pmnist": ((1, 10, None), 0.66, 665610),
    "spikingssm/cifar": ((1, 10, None), 3.76, 3763210),
    "spikingssm/listops": ((1, 10, 18), 0.82, 828938),
    "spikingssm/imdb": ((1, 2, 256), 0.82, 887810),
    "spikingssm/aan": ((1, 2, 98), 1.09, 1380098),
    "spikingssm/pathfinder": ((1, 2, None), 1.09, 1093122),
    "spikingssm/pathx": ((1, 2, None), 1.19, 1191426),
    "spikingssm/sc": ((1, 35, None), 0.25, 255907),
    "spikingssm/dvs128gesture": ((64, 11, None), 3.36, 3402763),
    "spikingssm/wt103": ((1, 267735, 267735), 35.8, 73057171),
    "spikingssm/ecg": ((4, 6, None), None, 38918),
    "spikingssm/fsdd": ((1, 10, None), None, 39946),
    "spikingssm/sc10": ((1, 10, None), None, 103594),
    "s5rf/smnist": ((1, 10, None), None, 36362 - 1280),
    "s5rf/psmnist": ((1, 10, None), None, 36362 - 1280),
    "s5rf/shd": ((140, 20, None), None, 74516 - 2560),
    "s5rf/ssc": ((140, 35, None), None, 1758243 - 17920),
    "s5rf/fsdd": ((140, 10, None), None, 70666),
    "brf/smnist": ((1, 10, None), None, 68874),
    "brf/psmnist": ((1, 10, None), None, 68874),
    "brf/ecg": ((4, 6, None), None, 1734),
    "brf/shd": ((700, 20, None), None, 108820),
    "forecast/mackey_glass": ((1, 1, None), None, 6689),
    "forecast/speech": ((1, 1, None), None, 6689),
    "brf/fsdd": ((140, 10, None), None, (140 + 128) * 128 + 2 * 128 + 128 * 10 + 10),
}
SHRUNK = {
    "spikingssm": ["model.d_model=16", "model.d_state=4"],
    "forecast": ["model.d_model=16", "model.d_state=4"],
    "s5rf": ["model.d_model=16", "model.num_blocks=4"],
    "brf": ["model.d_model=16", "model.dynamics.threshold=0.002"],
}
BASELINES = [f"{name} model={model}" for name in SIZES if name.startswith("brf/") for model in ("rf", "alif")]
"""The networks that a recipe of BRF is compared with."""


def chosen(name: str) -> list[str]:
    """The overrides that choose "family/name", or "family/name model=other"."""
    experiment, *model = name.split()
    return [f"experiment={experiment}", *model]


def family(name: str) -> str:
    return name.split("/")[0]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_experiment_has_its_size_written_down() -> None:
    assert set(SIZES) == set(EXPERIMENTS)


@pytest.mark.parametrize("name", [*SIZES, *BASELINES])
def test_every_experiment_builds_at_full_size(name) -> None:
    """Guards defect 35: a shipped configuration could not be built."""
    config = load([*chosen(name), "model.solver=loop"])
    (d_input, d_output, vocab), millions, parameters = SIZES[name.split()[0]]
    tokens = {} if vocab is None else {"vocab": vocab, "pairs": name.endswith("/aan")}
    with torch.device("meta"):
        model = instantiate(config.model, d_input=d_input, d_output=d_output, _convert_="all", **tokens)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) == parameters
    if millions is not None:
        blocks = sum(p.numel() for p in model.blocks.parameters())
        assert round(blocks / 1e6, 2 if millions < 10 else 1) == millions
    first = (ROOT / "configs/experiment" / f"{name.split()[0]}.yaml").read_text().splitlines()[:3]
    assert first[0] == "# @package _global_"
    assert first[1].startswith(f"# python train.py experiment={name.split()[0]}")
    assert first[2].startswith(("# After ", "# Ours, no published result", "# Speech", "# DVS128"))


@pytest.mark.parametrize("name", [*SIZES, *BASELINES])
def test_every_experiment_shrunk_takes_a_step(name) -> None:
    shrunk = [*SHRUNK[family(name)], "model.solver=loop", "data.batch_size=2", "data.limit_train=4"]
    if family(name) == "spikingssm":
        shrunk += ["model.dt_min=0.05", "model.dt_max=0.5"]  # spikes within the first steps
    config = load([*chosen(name), "+tier=smoke", *shrunk])
    data, module = build(config)
    batch = next(iter(data.train_dataloader()))
    lengths = None if batch.lengths is None else batch.lengths.clamp(max=64)
    batch = batch._replace(x=batch.x[..., :64] if data.vocab else batch.x[:, :64], lengths=lengths)
    batch = batch._replace(y=batch.y[:, :64]) if batch.y.ndim >= 2 else batch
    if not data.vocab:  # the first pixels of an image may all be 0
        batch = batch._replace(x=batch.x + torch.rand_like(batch.x))
    if name == "spikingssm/wt103":  # every cluster of the softmax is asked for
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


@pytest.mark.parametrize("name", [*SIZES, *BASELINES])
def test_every_causal_experiment_streams(name) -> None:
    """The whole = chunks = steps, with the experiment's own options; the others say why not."""
    shrunk = [*SHRUNK[family(name)], "model.solver=fused", "model.n_layers=2"]
    shrunk += ["model.dt_min=0.01"] if family(name) == "spikingssm" else []
    shrunk += ["data.batch_size=2", "data.limit_train=4", "trainer.precision=64-true"]
    data, module = build(load([*chosen(name), "+tier=smoke", *shrunk]))
    model, batch = module.model.double().eval(), next(iter(data.train_dataloader()))
    x = batch.x[..., :64] if data.vocab else batch.x[:, :64].double()
    if getattr(model, "bidirectional", False):
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
    patch = getattr(model, "patch", 1)
    for frame in x.split(patch, 1):
        out, state = model.step(frame if patch > 1 else frame[:, 0], state)
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


OTHERS = {"spikingssm/digits", "spikingssm/wt103", "brf/psmnist model=rf"}


@pytest.mark.parametrize("name", sorted({*SIZES, *BASELINES} - OTHERS))
def test_every_experiment_finishes_its_smoke_tier(name, tmp_path) -> None:
    few = ["data.limit_train=16", "data.limit_eval=8", "data.batch_size=8", "trainer.enable_progress_bar=false"]
    folder = run(load([*chosen(name), "+tier=smoke", *few, f"run_dir={tmp_path}"]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["dataset"]["size"] == "generated"
    assert 0 <= summary["test"]["mse" if family(name) == "forecast" else "accuracy"] <= 1
    assert summary["test"]["sops"] > 0


def test_rf_diverges_on_permuted_mnist_and_the_run_says_where(tmp_path) -> None:
    """As published: it grows by up to |1 + 0.01 (-0.1 + 85 i)| = 1.31 a step, and 1.31^784 is no float32."""
    few = ["data.limit_train=16", "data.limit_eval=8", "data.batch_size=8", "trainer.enable_progress_bar=false"]
    config = load(["experiment=brf/psmnist", "model=rf", "+tier=smoke", *few, f"run_dir={tmp_path}"])
    with pytest.raises(ValueError, match=r"RF: neuron \d+ of row \d+ became NaN or infinite at step \d+ \(omega "):
        run(config)


def test_a_tier_of_drawn_images_can_be_used_with_the_released_ones() -> None:
    config = load(["experiment=spikingssm/pathfinder", "+tier=small", "data.rows=null", "data.root=x"])
    assert (config.data.rows, config.data.root) == (None, "x")


# Of the published run scripts: neurons, layers, blocks, eta, dropout; batch; rates, decay; epochs, seed.
PUBLISHED_S5RF = {
    "smnist": (128, 2, 8, 0.001, 0.1, 0.15, 64, 0.008, 0.002, 1e-4, 100, 42, "zoh"),
    "psmnist": (128, 2, 8, 0.001, 0.1, 0.15, 64, 0.004, 0.001, 1e-4, 100, 42, "zoh"),
    "shd": (128, 2, 32, 0.004, 0.1, 0.1, 32, 0.004, 0.002, 1e-4, 20, 42, None),
    "ssc": (512, 4, 16, 0.004, 0.1, 0.3, 128, 0.004, 0.004, 1e-4, 80, 42, None),
}


@pytest.mark.parametrize("name", PUBLISHED_S5RF)
def test_the_recipes_of_s5_rf_are_the_published_ones(name) -> None:
    config = load([f"experiment=s5rf/{name}"])
    model, optim = config.model, config.optim
    found = (model.d_model, model.n_layers, model.num_blocks, model.eta_min, model.eta_max, model.dropout)
    found += (config.data.batch_size, optim.lr, optim.slow_lr, optim.weight_decay, config.trainer.max_epochs)
    assert (*found, config.seed, model.first_discretisation) == PUBLISHED_S5RF[name]
    assert (model.discretisation, model.threshold, model.skip, model.dropout_at) == ("dirac", 1.0, *["published"] * 2)
    assert (optim.warmup, config.task.label_smoothing, model.refractory, model.magnitude) == (0, 0, None, False)
    if name in ("shd", "ssc"):
        data = config.data
        assert (data.channels, data.bins, data.binary, data.jitter_us) == (140, "published", True, 100)
        assert (data.channel_shift, data.cutmix) == ("batch", "published" if name == "ssc" else "none")
    else:
        assert config.data.permute == ("bitreversal" if name == "psmnist" else "none")


# Of the published scripts and checkpoints: neurons; batch; rate; epochs; norm of the gradient; the two starts; readout.
PUBLISHED_BRF = {
    ("smnist", "brf"): (256, 256, 0.1, 300, 1.0, (15, 50), (0.1, 1), (20, 5)),
    ("smnist", "rf"): (256, 256, 0.1, 300, 1.0, (15, 50), (0.1, 1), (20, 5)),
    ("smnist", "alif"): (256, 256, 0.001, 300, None, (20, 5), (200, 50), (20, 5)),
    ("psmnist", "brf"): (256, 256, 0.1, 300, 1.0 / 784, (15, 85), (0.1, 1), (20, 1)),
    ("psmnist", "rf"): (256, 256, 0.1, 300, 1.0 / 784, (15, 85), (0.1, 1), (20, 1)),
    ("psmnist", "alif"): (256, 256, 0.001, 300, None, (20, 5), (200, 50), (20, 5)),
    ("ecg", "brf"): (36, 16, 0.1, 400, None, (3, 5), (0.1, 1), (20, 1)),
    ("ecg", "rf"): (36, 16, 0.1, 400, None, (3, 5), (0.1, 1), (20, 1)),
    ("ecg", "alif"): (36, 64, 0.05, 400, None, (20, 0.5), (7, 0.2), (20, 0.5)),
    ("shd", "brf"): (128, 32, 0.075, 20, None, (5, 10), (2, 3), (20, 5)),
    ("shd", "rf"): (128, 32, 0.075, 20, None, (5, 10), (2, 3), (20, 5)),
    ("shd", "alif"): (128, 32, 0.075, 20, None, (20, 5), (150, 10), (20, 5)),
}


@pytest.mark.parametrize(("name", "model"), PUBLISHED_BRF)
def test_the_recipes_of_brf_are_the_published_ones(name, model) -> None:
    config = load([f"experiment=brf/{name}", f"model={model}"])
    net, optim, task = config.model, config.optim, config.task
    neurons, batch, lr, epochs, clip, *starts, readout = PUBLISHED_BRF[name, model]
    assert (net.d_model, config.data.batch_size, optim.lr, config.trainer.max_epochs) == (neurons, batch, lr, epochs)
    clips = config.trainer.gradient_clip_val
    assert clips == (None if clip is None else pytest.approx(clip, rel=1e-4))
    fields = {"brf": ("omega", "b_offset"), "rf": ("omega", "damping"), "alif": ("tau_m", "tau_a")}[model]
    assert list(net.learn) == list(fields)
    for field, start in zip(fields, starts, strict=True):
        found = dict(net.learn[field])
        assert found.pop("_target_") == ("sdn.normal" if model == "alif" else "sdn.uniform")
        assert tuple(found.values()) == start
    assert (net.tau_mean, net.tau_std) == readout
    assert (net.n_layers, net.bias, net.mask, net.spike, net.dynamics.get("dt", 0.01)) == (1, False, None, None, 0.01)
    assert (optim.schedule, optim.weight_decay, optim.warmup, optim.slow_lr) == ("linear", 0, 0, None)
    steps = {"smnist": 1, "psmnist": 50 if model == "alif" else 784, "ecg": 1300, "shd": 250}[name]
    assert optim.eps == pytest.approx(1e-8 / steps, rel=2e-3)  # their loss is a sum over so many steps
    assert list(optim.betas) == [0.9, 0.999]
    data = config.data
    if name == "ecg":
        assert (data.length, task.unlabelled_as, task.train_unlabelled) == (1300, 0, True)
        assert round(618 * data.val_fraction) == 61
    elif name == "shd":
        assert (data.channels, data.bins, data.val_split, data.jitter_us) == (700, "brf", "random", 0)
        assert (data.channel_shift, data.cutmix, round(8156 * data.val_fraction)) == ("none", "none", 815)
    else:
        assert (data.permute, data.val_fraction) == ("random" if name == "psmnist" else "none", 0.1)
    thresholds = {"brf": 1.0, "rf": 1.0, "alif": 0.01}
    assert (net.dynamics.threshold, net.dynamics.get("beta")) == (thresholds[model], 1.8 if model == "alif" else None)
    assert (optim.tbptt, optim.tbptt_first) == (50 if model == "alif" and "mnist" in name else None, False)
    assert net.pool == ("last" if name == "smnist" else "each")
    assert task.get("skip", 0) == (10 if model == "alif" and name in ("ecg", "shd") else 0)
    assert task.select == "loss"
    assert config.name == f"{model}-{name}"


def test_a_recipe_knows_its_models() -> None:
    with pytest.raises(ValueError, match="experiment=brf/ecg has no recipe for model=s5rf; there are alif, brf, rf"):
        load(["experiment=brf/ecg", "model=s5rf"])
    assert load(["experiment=brf/ecg", "model=rf", "+tier=small"]).trainer.max_epochs == 50
    assert load(["experiment=brf/ecg", "+tier=small", "model.d_model=7"]).model.learn.omega.high == 5
