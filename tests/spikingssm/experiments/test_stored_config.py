"""A stored configuration is plain data: what it may name, what it may hold, and how large it may ask to be."""

import inspect
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import sdn
from sdn.runs.folder import load_checkpoint
from spikingssm import datasets, tasks
from spikingssm.experiments import builders
from spikingssm.experiments.build import build
from spikingssm.experiments.config import call, load
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.plain import read_yaml
from spikingssm.experiments.run import run
from spikingssm.experiments.runfolder import stored

CONFIGS = Path(__file__).parents[3] / "configs"
TINY = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.d_model=8", "model.d_state=4", "model.solver=loop",
    "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(load([*TINY, f"run_dir={tmp_path_factory.mktemp('run') / 'one'}"]))


@pytest.fixture
def folder(finished, tmp_path):
    """A folder that shares the checkpoints of the run and has a configuration of its own."""
    (tmp_path / "checkpoints").symlink_to(finished / "checkpoints")
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    return tmp_path


def refused(folder, says, call=evaluate):
    with pytest.raises((ValueError, OSError), match=says) as caught:
        call(folder)
    assert "\n" not in str(caught.value)


# ---- what it may name
def names_in_configs():
    texts = [path.read_text() for path in CONFIGS.rglob("*.yaml")]
    return sorted({name for text in texts for name in re.findall(r"_target_: *([\w.]+)", text)} | {"sdn.HRF"})


@pytest.mark.parametrize("name", names_in_configs())
def test_every_target_of_our_configurations_is_on_the_list(name) -> None:
    assert name in builders.DATA | builders.MODELS | builders.TASKS | builders.PARTS


def test_what_is_on_the_list_exists_and_is_public() -> None:
    for name in builders.DATA | builders.MODELS | builders.TASKS | builders.PARTS:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(sys.modules[module], attribute)), name
        assert attribute in sys.modules[module].__all__, name
    unlisted = {f"spikingssm.datasets.{n}" for n in datasets.__all__} - builders.DATA
    assert {n.rpartition(".")[2] for n in unlisted} == {
        "Batch", "EpochSampler", "Rows", "Selected", "SequenceData", "read_idx"
    }, "a new data set stands on the list too"  # fmt: skip
    kinds = [v for v in vars(tasks).values() if inspect.isclass(v) and v.__module__.startswith(tasks.__name__)]
    assert {f"spikingssm.tasks.{kind.__name__}" for kind in kinds if hasattr(kind, "monitor")} - builders.TASKS == {
        "spikingssm.tasks.Task"
    }  # fmt: skip


WRITTEN: list[str] = []
"""Every file opened for writing, every process and every connection while `watching` is on."""
watching = [False]


def _watch(event, arguments) -> None:
    if not watching[0]:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        WRITTEN.append(str(arguments[0]))
    elif event in ("os.remove", "os.rename", "os.system", "subprocess.Popen", "socket.connect"):
        WRITTEN.append(f"{event} {arguments[0]}")


sys.addaudithook(_watch)


@pytest.mark.parametrize("name", sorted(builders.DATA | builders.TASKS | builders.PARTS))
def test_nothing_on_the_list_writes_or_fetches_because_of_its_arguments(name, tmp_path, monkeypatch) -> None:
    """Every argument is given the path of a file in turn: it is refused, ignored or read, and nothing else happens."""
    module, _, attribute = name.rpartition(".")
    builder = getattr(sys.modules[module], attribute)
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    known = inspect.signature(builder).parameters
    arguments = [argument for argument in known if argument not in ("generated", "options")]
    usual = [{"generated": True}, {"root": str(victim)}] if "generated" in known else [{}]
    usual = usual[1:] if name.endswith("fsdd_spikes") else usual  # drawn clips are heard, which takes a second
    WRITTEN.clear()
    watching[0] = True
    try:
        for argument in arguments:
            for given in usual:
                try:
                    builder(**given, **({} if argument in given else {argument: str(victim)}))
                except (ValueError, TypeError, OSError, ArithmeticError):
                    continue
    finally:
        watching[0] = False
    spool = (tempfile.gettempdir(), "/dev/null")
    assert not [path for path in WRITTEN if "dataset/cache" not in path and path not in spool]
    assert victim.read_text() == "years of work"


FOREIGN = [
    "sdn.save_artifact", "sdn.save_trajectories", "sdn.fit", "sdn.load_sdn", "sdn.load_artifact", "sdn.generate",
    "spikingssm.run", "spikingssm.load", "spikingssm.evaluate", "spikingssm.datasets.read_idx", "numpy.load",
    "os.system", "builtins.eval", "sdn.runs.files.os.system", "sdn.LIF.from_tau", "hydra.utils.get_method", "", "sdn",
    "spikingssm.datasets.SequenceData", "sdn.LIF ", " sdn.LIF", "SDN.LIF", "sdn..LIF", "sdn.LIF\n",
]  # fmt: skip


@pytest.mark.parametrize("target", FOREIGN)
def test_other_names_are_refused_wherever_they_stand(folder, target) -> None:
    places = ("data", "model", "task", "model.dynamics", "trainer", "extra.deep")
    before = (folder / "config.yaml").read_text()
    for place in places:
        config = OmegaConf.create(yaml.safe_load(before))
        OmegaConf.update(config, place, {"_target_": target}, merge=False, force_add=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
        refused(folder, "not of this project", stored)
        (folder / "config.yaml").write_text(before)


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("data", "sdn.LIF"), ("data", "spikingssm.models.SpikingSSM"), ("data.root", "spikingssm.datasets.digits"),
        ("model", "spikingssm.datasets.digits"), ("model.dynamics", "spikingssm.datasets.digits"), ("task", "sdn.LIF"),
        ("model.learn", "spikingssm.models.RSNN"), ("optim.lr", "sdn.uniform"), ("data.batch_size", "sdn.normal"),
    ],
)  # fmt: skip
def test_a_builder_stands_where_it_belongs(folder, place, target) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.update(config, place, {"_target_": target}, merge=False, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    refused(folder, f"names '{target}'", stored)


# ---- what it may hold
def with_line(section, line):
    return lambda text: text.replace(f"\n{section}:\n", f"\n{section}:\n  {line}\n", 1)


BOMB = "a: &a [x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "interpolation": (with_line("model", "x: ${oc.env:HOME}"), "stands for something else"),
    "interpolation-of-a-key": (with_line("model", "x: ${name}"), "stands for something else"),
    "interpolation-inside": (with_line("data", 'root: "a ${oc.decode:1} b"'), "stands for something else"),
    "created": (with_line("model", "x: ${oc.create:{_target_:os.system}}"), "stands for something else"),
    "missing-value": (with_line("model", "x: ???"), "stands for something else"),
    "aliases": (lambda text: text + BOMB, "has an alias or an anchor"),
    "an-anchor-alone": (with_line("model", "x: &x 3"), "has an alias or an anchor"),
    "tag": (with_line("model", "x: !!python/object/apply:os.system [ls]"), r"has a tag \(!\)"),
    "own-tag": (with_line("model", "x: !path a"), r"has a tag \(!\)"),
    "deep": (lambda text: text + "x: " + "[" * 3000 + "]" * 3000, "more than 30 levels"),
    "deep-and-open": (lambda text: text + "x: " + "{a: " * 100_000, "bytes|more than 30 levels"),
    "large": (lambda text: text + "x: [" + "1, " * 200_000 + "1]\n", "a configuration has at most"),
    "partial": (with_line("model", "_partial_: true"), "has the key '_partial_'"),
    "recursive": (with_line("model", "_recursive_: false"), "has the key '_recursive_'"),
    "arguments": (with_line("model", "_args_: [3]"), "has the key '_args_'"),
    "convert": (with_line("model", "_convert_: none"), "has the key '_convert_'"),
    "number-as-key": (with_line("model", "3: 4"), "has the key '3'"),
    "twice": (with_line("model", "d_model: 8"), "duplicate key"),
    "huge-integer": (with_line("model", "x: " + "9" * 400), "is an integer of"),
    "huger-integer": (with_line("model", "x: " + "9" * 6000), "4300|integer of"),
    "bytes": (lambda text: text + "\0", "not a readable configuration"),
    "no-target": (lambda text: re.sub(r"\ndata:\n  _target_: .*\n", "\ndata:\n", text), "data has no _target_"),
    "empty-target": (lambda text: re.sub(r"\n  _target_: .*", "\n  _target_: null", text), "names 'None'"),
    "list-as-target": (lambda text: re.sub(r"\n  _target_: .*", "\n  _target_: [sdn.LIF]", text), "names"),
    "processes": (with_line("data", "num_workers: 100000"), "duplicate key|at most 256"),
}


@pytest.mark.parametrize(("change", "says"), TEXTS.values(), ids=TEXTS)
def test_more_than_plain_values_is_refused_in_one_line(folder, change, says) -> None:
    path = folder / "config.yaml"
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    refused(folder, says, stored)


def test_text_that_is_no_text_is_refused(folder) -> None:
    for data in (b"\xff\xfe", b"", b"a: \xe9\n", "a: \u0007\n".encode(), b"- 1\n", b"3\n", b"a: 'b\n"):
        (folder / "config.yaml").write_bytes(data)
        refused(folder, r"config\.yaml: not ", stored)


def test_our_own_configurations_are_plain(tmp_path) -> None:
    """Every experiment, resolved and written as a run writes it, comes back as it was."""
    names = [
        str(p.relative_to(CONFIGS / "experiment").with_suffix("")) for p in (CONFIGS / "experiment").rglob("*.yaml")
    ]
    assert len(names) > 20
    for name in sorted(names):
        config = load([f"experiment={name}", "run_dir='runs/a [b] & *c: #d'"])
        OmegaConf.resolve(config)
        (tmp_path / "config.yaml").write_text(f"# python train.py\n# variant: \n{OmegaConf.to_yaml(config)}")
        assert read_yaml(tmp_path / "config.yaml") == OmegaConf.to_container(config), name
        assert OmegaConf.to_container(stored(tmp_path)) == OmegaConf.to_container(config), name


def test_numbers_are_read_as_before(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1e-3\nb: 1_000\nc: 0x10\nd: 2001-01-01\ne: yes\nf: .inf\ng: '1'\n")
    expected = {"a": 1e-3, "b": 1000, "c": 16, "d": "2001-01-01", "e": True, "f": float("inf"), "g": "1"}
    assert read_yaml(tmp_path / "a.yaml") == expected


# ---- how large it may ask to be
def changed(folder, **values):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in values.items():
        node = config
        *path, last = key.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


SIZES = {
    "layers": ({"model__n_layers": 10**7}, r"model.n_layers is 10000000, more than the 64 tensors"),
    "width": ({"model__d_model": 10**9}, r"model.d_model is 1000000000, more than the \d+ numbers"),
    "states": ({"model__d_state": 10**9}, "model.d_state is 1000000000, more than"),
    "other-width": ({"model__d_model": 4096}, "best.ckpt: is of another model"),
    "other-states": ({"model__d_state": 4096}, "best.ckpt: is of another model"),
    "other-depth": ({"model__n_layers": 60}, "best.ckpt: is of another model"),
    "nested": ({"model__solver": {"_target_": "sdn.Parallel", "max_rounds": 10**9}}, "more than the 65536 rounds"),
    "width-a-word": ({"model__d_model": "x"}, "model: SpikingSSM: d_model must be a whole number, got 'x'"),
    "width-negative": ({"model__d_model": -1}, "d_model must be at least 1, got -1"),
    "width-a-list": ({"model__d_model": [1, 2]}, "model: .*"),
    "rate-a-word": ({"optim__lr": "x"}, "optim: .*; its keys are those of"),
    "betas-a-word": ({"optim__betas": "x"}, "betas must be two numbers"),
    "seed-negative": ({"seed": -1}, "seed must be an integer from 0"),
    "seed-a-word": ({"seed": "one"}, "seed must be an integer from 0"),
    "seed-large": ({"seed": 2**40}, "seed must be an integer from 0"),
    "threads": ({"threads": 10**9}, "threads is 1000000000, a run folder may ask for at most"),
    "threads-a-word": ({"threads": "all"}, "threads must be an integer"),
    "devices": ({"trainer__devices": 10**6}, "trainer.devices is 1000000"),
    "epochs": ({"trainer__max_epochs": None}, "max_epochs must be an integer"),
    "trainer-key": ({"trainer__plugins": ["x"]}, "trainer: unknown key 'plugins'"),
    "accelerator": ({"trainer__accelerator": [1]}, "trainer: "),
    "precision": ({"trainer__precision": {"a": 1}}, "trainer: "),
    "batch": ({"data__batch_size": 10**12}, "batch_size must be from 1"),
    "batch-a-word": ({"data__batch_size": "x"}, "data: "),
    "data-key": ({"data__nothing": 1}, "data: .*'nothing'"),
    "optim-list": ({"optim": [1]}, "'optim' is missing or no mapping"),
    "norm-of-another-kind": ({"model__norm": {"a": 1}}, "norm"),
    "task-a-word": ({"task__label_smoothing": "x"}, "task: "),
    "name-a-list": ({"name": [1]}, "name and run_dir must be text"),
}


@pytest.mark.parametrize(("values", "says"), SIZES.values(), ids=SIZES)
def test_sizes_and_kinds_are_refused_in_one_line_before_memory_is_taken(folder, values, says) -> None:
    changed(folder, **values)
    refused(folder, says)


def test_a_model_is_built_once_it_fits_its_weights(folder, finished) -> None:
    data, module = build(stored(folder), folder / "checkpoints" / "best.ckpt")
    state = load_checkpoint(finished / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not any(value.is_meta for value in (*module.state_dict().values(), *data.train_set[0].x))
    changed(folder, model__solver="surrogate")
    found = evaluate(folder)
    assert found["solver"].startswith("Surrogate")
    artifact = sdn.load_artifact(next(iter(Path(sdn.__file__).parent.glob("surrogate/artifacts/lif-decay-0.125*"))))
    assert not any(p.is_meta for p in artifact.network.parameters())


def test_the_lowest_hydra_has_a_list_of_what_it_never_calls() -> None:
    """From 1.3.4 on; looked at in the wheels from 1.3.3 to 1.3.8."""
    text = (CONFIGS.parent / "pyproject.toml").read_text()
    assert re.search(r"hydra-core>=1\.3\.[4-8],<1\.4", text)
    with pytest.raises(InstantiationException):
        instantiate({"_target_": "os.system", "command": "true"})


def test_an_error_that_shows_a_long_value_is_short(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.zeros((9, 4, 2), np.float32), y=np.arange(9) % 3)
    given = {"path": str(tmp_path / "rows.npz")}
    with pytest.raises(ValueError, match="classes must be an integer") as error:
        call("data", OmegaConf.create({"_target_": "spikingssm.datasets.arrays", **given, "classes": [1] * 900}))
    assert len(str(error.value)) <= 1000
