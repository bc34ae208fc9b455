"""Stored configurations and words on the command line."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fuzz.contents import content
from fuzz.edits import WRONG, change_place
from fuzz.engine import Format
from sdn.runs.tensor_files import save_tensors
from spikingssm.experiments.builders import DATA, MODELS, PARTS, TASKS
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate, load_run
from spikingssm.experiments.runfolder import stored
from spikingssm.models import SpikingSSM

__all__ = ["FORMATS"]

CONFIG = """\
name: small
seed: 0
run_dir: runs/small
threads: 1
resume: null
data: {_target_: spikingssm.datasets.arrays, path: rows.npz, test_path: null, name: null, classes: 3, scale: 1.0,
  test_fraction: 0.2, batch_size: 4, val_fraction: 0.2, num_workers: 0, limit_train: null, limit_eval: null, seed: 0}
model: {_target_: spikingssm.models.SpikingSSM, d_model: 6, n_layers: 1, d_state: 4,
  dynamics: {_target_: sdn.LIF, decay: 0.125}, solver: loop, dropout: 0.0, pool: mean, patch: 1}
task: {_target_: spikingssm.tasks.Classification, label_smoothing: 0.0}
optim: {lr: 0.01, weight_decay: 0.01, warmup: 0.0, schedule: cosine, tbptt: null, betas: [0.9, 0.999], ema: null}
trainer: {max_epochs: 1, accelerator: cpu, devices: 1, precision: 32-true, enable_progress_bar: false}
checkpoint: {every_n_steps: null, every_minutes: null}
early_stop: {patience: null}
logger: {wandb: null}
"""
HOSTILE = [
    "os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "sdn.save_artifact", "sdn.save_trajectories",
    "sdn.fit", "spikingssm.run", "spikingssm.load", "spikingssm.evaluate", "numpy.load", "torch.load", "sdn.load_sdn",
    "shutil.rmtree", "pathlib.Path.write_text", "sdn.runs.files.os.system", "hydra.utils.call",
    "spikingssm.commands.demo.run_demo", "functools.partial", "operator.attrgetter", "sdn.surrogate.training.fit",
    "spikingssm.datasets.read_idx",
    "spikingssm.datasets.base.SequenceData", "importlib.import_module", "sdn.LIF.from_tau", "sdn.simulate",
]  # fmt: skip
TEXTS = [
    "${oc.create:{_target_:os.system,command:touch CANARY}}", "${oc.env:HOME}", "${name}", "${oc.decode:1}", "???",
    "${oc.create:{_target_:numpy.load,file:x,allow_pickle:true}}", "a ${b} c", "$(touch CANARY)", "../../../etc/passwd",
    "/etc/passwd", "/dev/zero", "/dev/random", ".", "", "\n", "é" * 100, "a" * 10_000,
]  # fmt: skip
ODD = [*WRONG, *TEXTS, 7, 4096, 10**9, -(10**9), 1e-30, -0.5, [1] * 500, {"_target_": "sdn.LIF", "decay": 0.5}]


def _folder(folder: Path) -> None:
    (folder / "config.yaml").write_text(f"# python train.py\n# variant: \n{CONFIG}")
    draw = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=draw.normal(size=(30, 8, 2)).astype(np.float32), y=np.arange(30) % 3)
    torch.manual_seed(0)
    state = SpikingSSM(2, 3, 6, 1, 4, solver="loop", dropout=0.0).state_dict()
    found = {"epoch": 0, "state_dict": {f"model.{name}": value for name, value in state.items()}}
    save_tensors(folder / "checkpoints" / "best.ckpt", found)


def _read() -> Any:
    run = load_run(".")
    x = run.data.test_set.__getitems__(run.data.test_rows.tolist()).x
    with torch.no_grad():
        logits = run.module.model(x)[0]
    return content([logits, run.data.facts()])


def _write(folder: Path, found: Any) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(found, allow_unicode=True))


def _edit(draw: random.Random, folder: Path) -> None:
    found = yaml.safe_load(CONFIG)
    for _ in range(draw.choice([1, 1, 2, 5])):
        change_place(draw, found, ODD)
    _write(folder, found)


def _target(draw: random.Random, folder: Path) -> None:
    """Another builder, or something else, where a builder stands, with arguments that point at files."""
    found = yaml.safe_load(CONFIG)
    known = sorted(DATA | MODELS | TASKS | PARTS)
    target = draw.choice([draw.choice(HOSTILE), draw.choice(known), draw.choice(known).replace(".", "..", 1)])
    canary = str(folder.parent.parent / "CANARY")
    arguments = draw.choice(
        [{}, {"path": canary}, {"file": canary, "allow_pickle": True}, {"command": f"touch {canary}"}]
    )
    node = {"_target_": target, **arguments}
    place = draw.choice(["data", "model", "task", "dynamics", "solver", "spike", "inside", "optim", "list", "merge"])
    if place in ("data", "model", "task"):
        found[place] = {**found[place], **node} if draw.random() < 0.5 else node
    elif place == "inside":
        found["data"]["path"] = node
    elif place == "optim":
        found["optim"]["lr"] = node
    elif place == "list":
        found["optim"]["betas"] = [node, 0.9]
    elif place == "merge":
        text = yaml.safe_dump(found).replace("model:\n", f"model:\n  <<: {{_target_: {target}}}\n")
        (folder / "config.yaml").write_text(text)
        return
    else:
        found["model"][place] = node
    _write(folder, found)


def _interpolation(draw: random.Random, folder: Path) -> None:
    found = yaml.safe_load(CONFIG)
    canary = folder.parent.parent / "CANARY"
    text = draw.choice([
        f"${{oc.create:{{_target_:os.system,command:touch {canary}}}}}", "${oc.decode:'[1,2]'}", "x${oc.env:HOME}",
        f"${{oc.create:{{_target_:builtins.open,file:{canary},mode:w}}}}", "${.d_model}", "${data.path}", "${${name}}",
    ])  # fmt: skip
    section = draw.choice(["model", "data", "task", "optim", "trainer", "name", "run_dir", "seed"])
    if isinstance(found[section], dict):
        found[section][draw.choice([*found[section], "x", text])] = text
    else:
        found[section] = text
    _write(folder, found)


def _bomb(draw: random.Random, folder: Path) -> None:
    depth = draw.choice([10, 1000, 30_000])
    letters = "abcdefghij"
    aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise(letters)
    )
    text = draw.choice([
        aliases, CONFIG + "x: " + "[" * depth, CONFIG + "x: " + "{a: " * depth, CONFIG + "x: " + "- " * depth,
        CONFIG + "x: " + "9" * depth, CONFIG + "x: " + ":".join(["1"] * depth), CONFIG + "x: 1e" + "9" * depth,
        CONFIG + "x: !!python/object/apply:os.system [touch CANARY]\n", CONFIG + "x: !!binary " + "A" * depth,
        CONFIG + "x: !!set {" + "a, " * depth, CONFIG + "x: &a {<<: *a}", CONFIG + "? " * depth, "\ufeff" + CONFIG,
        CONFIG + "x: 0x" + "f" * depth, CONFIG + "x: " + "'" * depth, CONFIG + "x: |\n" + "  a\n" * depth,
        CONFIG + "%YAML 1.1\n---\n" + CONFIG, CONFIG + "x: 0b" + "1" * depth, CONFIG + "x: 2001-01-01",
    ])  # fmt: skip
    (folder / "config.yaml").write_text(text)


def _sizes(draw: random.Random, folder: Path) -> None:
    found = yaml.safe_load(CONFIG)
    section, key = draw.choice([
        ("model", "n_layers"), ("model", "d_model"), ("model", "d_state"), ("model", "patch"), ("data", "batch_size"),
        ("data", "num_workers"), ("data", "classes"), ("trainer", "devices"), ("optim", "tbptt"),
        ("data", "limit_eval"),
        ("model", "cutoffs"), ("data", "scale"), ("model", "dropout"), ("model", "vocab"), ("trainer", "max_epochs"),
    ])  # fmt: skip
    value: Any = draw.choice(
        [10**7, 10**9, 10**12, 4096, 100_000, 60, 0, -1, 2**31, 2**63 - 1, 1e30, [10**9], [1] * 1000]
    )
    found[section][key] = value
    if draw.random() < 0.3:
        found["model"] = {
            "_target_": f"spikingssm.models.{draw.choice(['RSNN', 'S5RF'])}", "d_model": draw.choice([4096, 10**5, 6]),
            "n_layers": draw.choice([1, 50, 10**6]),
        }  # fmt: skip
    _write(folder, found)


def _data(draw: random.Random, folder: Path) -> None:
    """Data that are drawn, with sizes that are asked for."""
    found = yaml.safe_load(CONFIG)
    name, keys = draw.choice([
        ("listops", ["length", "train_rows", "val_rows", "min_length", "max_length", "max_depth", "max_args"]),
        ("pathfinder", ["resolution", "rows", "contour_length", "distractors"]),
        ("fsdd", ["length", "rate", "scaling"]), ("imdb", ["length", "min_freq"]),
        ("dvs128gesture", ["slice_ms", "frame_ms"]),
        ("shd", ["steps", "bin_ms", "channels"]),
        ("wikitext", ["length", "min_freq"]), ("aan", ["length"]), ("speech_commands", ["rate", "classes"]),
        ("mnist", ["permute_seed", "permute"]), ("ecg", ["length"]), ("fsdd_spikes", ["channels", "steps", "bin_ms"]),
    ])  # fmt: skip
    node: dict[str, Any] = {"_target_": f"spikingssm.datasets.{name}", "batch_size": 2}
    if draw.random() < 0.7:
        node["generated"] = True
    else:
        node["root"] = draw.choice([".", "/dev/null", "/etc/passwd", "nothing", "/proc/self"])
    for key in draw.sample(keys, draw.randrange(1, len(keys) + 1)):
        node[key] = draw.choice([0, -1, 1, 2, 10**7, 10**9, 10**12, 2**63 - 1, 1.5, "x", None, [1], 1e30, float("nan")])
    found["data"] = node
    _write(folder, found)


def _read_stored() -> Any:
    return content(dict(stored(".")))


def _words(folder: Path) -> None:
    (folder / "words").write_text("experiment=spikingssm/digits\n+tier=smoke\nmodel.d_model=8\n")


def _read_words() -> Any:
    if not Path("words").is_file():
        raise ValueError("no words")
    words = Path("words").read_bytes().decode(errors="surrogateescape").split("\n")
    return content(str(load([word for word in words if word])))


def _edit_words(draw: random.Random, folder: Path) -> None:
    keys = [
        "model.d_model",
        "optim.lr",
        "seed",
        "data.batch_size",
        "trainer.devices",
        "model",
        "dataset",
        "experiment",
        "x",
        "",
    ]
    values = [
        "1", "-1", "1e400", "null", "x", "[1,2", "{a:1}", "{_target_:os.system}", "${oc.env:HOME}", "'", '"', "\\",
        "a,b", "range(3)", "9" * 5000, "[" * 300 + "]" * 300, "ü", "a b", "=", "~", "@", "", "glob(*)", "sort(3,1)",
        "..", "true",
    ]  # fmt: skip
    word = (
        draw.choice(["", "+", "++", "~"]) + draw.choice(keys) + draw.choice(["=", "=", "", "=="]) + draw.choice(values)
    )
    (folder / "words").write_text("experiment=spikingssm/digits\n+tier=smoke\n" + word + "\n")


def _read_evaluate() -> Any:
    found = evaluate(".")
    return content({key: value for key, value in found.items() if key in ("accuracy", "loss", "spikes", "rows")})


EDITS = [_edit, _edit, _target, _interpolation, _bomb, _sizes, _data]
FORMATS = [
    Format("config.yaml", _folder, _read, ["config.yaml"], False, EDITS, share=6),
    Format("config.yaml-stored", _folder, _read_stored, ["config.yaml"], False, EDITS, share=2),
    Format("config.yaml-evaluated", _folder, _read_evaluate, ["config.yaml"], False, [_edit, _sizes], share=0.5),
    Format("overrides", _words, _read_words, ["words"], False, [_edit_words], share=1),
]  # fmt: skip
