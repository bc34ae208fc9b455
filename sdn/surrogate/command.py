"""The first door of train.py: train an SDN on trajectory files. `python train.py --save exp`."""

import argparse
import contextlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import torch
from loguru import logger

from sdn import runs
from sdn.files import read_json, versions, write_json
from sdn.lock import locked
from sdn.shortage import advised
from sdn.signals import explained
from sdn.surrogate.fidelity import Metrics, evaluate, fidelity
from sdn.surrogate.network import SDN
from sdn.surrogate.recipe import Recipe
from sdn.surrogate.reduction import Artifact, reduce, save_artifact
from sdn.surrogate.training import fit, load_sdn
from sdn.surrogate.trajectories import TrajectoryFile, load_trajectories

__all__ = ["main", "parser"]

PUBLISHED_NAME = "{}-mem-T1024-N(0.0,1.0)-50000-tau_0.2.pt"
SPLITS = ("training", "test")
SIZES = {"d_model": 8, "kernel_size": 8, "n_layers": 1}
PRESETS = ("best", "published")


HELP = {
    "epochs": "validations and checkpoints", "steps_per_epoch": "optimiser steps between them",
    "batch_size": "crops in a minibatch", "crop": "predicted steps in a crop", "lr": "peak learning rate",
    "loss": "between predicted and exact membrane", "optimizer": "which one", "weight_decay": "of AdamW",
    "members": "networks trained side by side; the worse half is dropped at 40, 60 and 75 %%",
    "ema": "running average of the weights", "norms": "frozen at the scale of the data, or live batch statistics",
    "seed": "of the weights and the crops",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags; the published ones keep their names and meaning. None means: the recipe's, or the resumed run's."""
    p = argparse.ArgumentParser(
        prog="train.py",
        description="Train a surrogate dynamic network: python train.py --save exp",
        epilog="A first argument key=value trains a network instead: python train.py experiment=spikingssm/digits; "
        "--cfg job behind it shows every key.",
    )
    place = p.add_mutually_exclusive_group()
    place.add_argument("-s", "--save", type=Path, help="run folder to write (default exp)")
    place.add_argument("-r", "--resume", type=Path, help="run folder to go on with, under its own settings")
    p.add_argument("--training", type=Path, help=f"default dataset/{PUBLISHED_NAME.format('training')}")
    p.add_argument("--test", type=Path, help=f"default dataset/{PUBLISHED_NAME.format('test')}")
    p.add_argument("--preset", choices=PRESETS, help="where the settings start from (default best)")
    p.add_argument("--force", action="store_true", help="with --save: replace the run that is there")
    p.add_argument("--num_workers", type=int, default=0, help="processes that cut crops (default 0)")
    p.add_argument("--threads", type=int, default=1, help="compute threads (default 1: the tensors are small)")
    p.add_argument("--d_model", type=int, help="channels (default 8)")
    p.add_argument("-k", "--kernel_size", type=int, help="taps (default 8)")
    p.add_argument("--n_layers", type=int, help="layers (default 1)")
    for field in fields(Recipe):
        kind: Any = type(field.default)
        choices = get_args(field.type) or None
        text = f"{HELP[field.name]} (default {field.default})"
        p.add_argument(f"--{field.name}", type=kind, choices=choices, help=text)
    return p


def main(argv: Sequence[str]) -> None:
    """Train, score every split, and write checkpoints, metrics, the summary and the reduced artifact."""
    args = parser().parse_args(argv)
    if args.threads < 1 or args.num_workers < 0:
        raise ValueError(f"--threads must be >= 1 and --num_workers >= 0, got {args.threads} and {args.num_workers}.")
    torch.set_num_threads(args.threads)
    run_dir, settings = _settings(args)
    with contextlib.ExitStack() as open_here:
        for context in (explained, advised):
            open_here.enter_context(context(lambda: _go_on(run_dir)))
        open_here.enter_context(locked(run_dir, "choose another --save"))
        if not args.resume:
            _refuse_held(run_dir, args.force)
        _train(args, run_dir, settings)


def _train(args: argparse.Namespace, run_dir: Path, settings: dict[str, Any]) -> None:
    files = {split: load_trajectories(settings[split]) for split in SPLITS}
    train, val = _split(files["training"])
    _check_test(files["training"], files["test"])
    _check_same_data(settings, files)
    recipe = _recipe(settings, train)
    if args.resume:
        _check_sizes(run_dir, settings)
    sdn = SDN(**{name: settings[name] for name in SIZES})
    if not args.resume:
        _clear(run_dir)
        settings["data"] = {split: _identity(file) for split, file in files.items()}
    write_json(run_dir / "config.json", settings)
    handler = runs.log_to(run_dir / "exp.log")
    logger.info(
        f"{train.dynamics}, {len(train.input)} training and {len(val.input)} validation rows, run folder {run_dir}"
    )
    sizes = ", ".join(f"{name}={settings[name]}" for name in SIZES)
    logger.info(f"SDN({sizes}), {sum(p.numel() for p in sdn.parameters())} parameters, {recipe}")
    history = fit(
        sdn, train, val, run_dir=run_dir, recipe=recipe, resume=args.resume is not None, num_workers=args.num_workers
    )
    seconds = sum(row["seconds"] for row in history.rows)
    scores = {"train": evaluate(sdn, train, train.dynamics, loss=recipe.loss)}
    scores |= {"validation": evaluate(sdn, val, train.dynamics, loss=recipe.loss)}
    scores |= {"test": evaluate(sdn, files["test"], train.dynamics, loss=recipe.loss)}
    facts = _facts(settings, recipe, files, history.best_epoch)
    artifact = _write_results(run_dir, sdn, files, scores, facts, seconds)
    logger.info(
        f"best epoch {history.best_epoch + 1} of {recipe.epochs} by validation loss, {seconds:.1f} s of training"
    )
    for split, metrics in scores.items():
        logger.info(f"{split}: {metrics}")
    logger.info(f"reduced to {sum(p.numel() for p in artifact.network.parameters())} parameters: {artifact.path}")
    logger.remove(handler)


def _settings(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The run folder and the settings: new ones from the flags, or those that the resumed run was started with."""
    names = [*SPLITS, "preset", *SIZES, *(f.name for f in fields(Recipe))]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given |= {name: str(given[name].resolve()) for name in SPLITS if name in given}
    if args.resume is None:
        if len(alone := [s for s in SPLITS if s in given]) == 1:
            raise ValueError(f"--{alone[0]} needs --{'test' if alone == ['training'] else 'training'} beside it.")
        default = {s: str((Path("dataset") / PUBLISHED_NAME.format(s)).resolve()) for s in SPLITS}
        return args.save or Path("exp"), default | {"preset": "best"} | SIZES | given
    if args.force:
        raise ValueError("--force goes with --save; --resume never replaces anything.")
    settings = _read_config(args.resume / "config.json")
    moved = {name: given.pop(name) for name in SPLITS if name in given}  # files may move; what is in them may not
    if changed := {k: (settings.get(k), v) for k, v in given.items() if settings.get(k) != v}:
        shown = ", ".join(f"--{k} {now} (the run has {then})" for k, (then, now) in changed.items())
        raise ValueError(
            f"--resume goes on under the run's own settings; {shown} would change them. Use --save instead."
        )
    return args.resume, settings | moved


def _read_config(path: Path) -> dict[str, Any]:
    """The settings of a run, with every key and type checked."""
    if (path.parent / "config.yaml").is_file():
        raise ValueError(f"{path.parent} is the run of a network; go on with `python train.py resume={path.parent}`.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --resume takes the run folder of `python train.py --save`.")
    again = "start the run again with --save"
    try:
        settings = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: not readable JSON ({error}); {again}.") from None
    needed: dict[str, type] = {**dict.fromkeys(SPLITS, str), "preset": str, "data": dict, **dict.fromkeys(SIZES, int)}
    known = needed | {f.name: type(f.default) for f in fields(Recipe)}
    if not isinstance(settings, dict) or set(needed) - set(settings) or set(settings) - set(known):
        found = str(sorted(settings))[:200] if isinstance(settings, dict) else type(settings).__name__
        raise ValueError(f"{path}: needs the keys {sorted(needed)} and may have a recipe's, found {found}; {again}.")
    for key, value in settings.items():
        if type(value) is not known[key]:
            raise ValueError(f"{path}: {key} must be of type {known[key].__name__}, got {value!r:.60}; {again}.")
    if settings["preset"] not in PRESETS:
        raise ValueError(f"{path}: preset must be one of {PRESETS}, got {settings['preset']!r:.60}; {again}.")
    return settings


def _check_sizes(run_dir: Path, settings: dict[str, Any]) -> None:
    """Refuse sizes that are not those of the checkpoint to go on from, before memory is taken for them."""
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return
    sdn, _ = load_sdn(path)
    sizes = {name: getattr(sdn, name) for name in SIZES}
    if differ := [name for name in SIZES if settings[name] != sizes[name]]:
        name = differ[0]
        raise ValueError(f"{run_dir}/config.json: {name} is {settings[name]}, that of last.ckpt is {sizes[name]}.")


def _identity(file: TrajectoryFile) -> dict[str, Any]:
    """What tells one trajectory file from another, wherever it lies."""
    return {key: file.facts[key] for key in ("dynamics", "distribution", "seed", "samples", "length")}


def _check_same_data(settings: dict[str, Any], files: dict[str, TrajectoryFile]) -> None:
    for split, then in settings.get("data", {}).items():
        if split in files and (now := _identity(files[split])) != then:
            raise ValueError(
                f"{settings[split]}: the run was started with other {split} data ({str(then)[:300]}), this file is "
                f"{now}; give the file of the run by --{split}."
            )


def _recipe(settings: dict[str, Any], train: TrajectoryFile) -> Recipe:
    changes = {f.name: settings[f.name] for f in fields(Recipe) if f.name in settings}
    if settings["preset"] == "published":
        return Recipe.published(*train.input.shape, **changes)
    return Recipe(**changes)


def _split(file: TrajectoryFile) -> tuple[TrajectoryFile, TrajectoryFile]:
    """The first 90 % of the rows to train on, the last 10 % to choose by; rows are independent and in random order."""
    samples = len(file.input)
    cut = samples - max(1, samples // 10)
    if cut < 1:
        raise ValueError(f"{samples} rows cannot be split into training and validation; generate at least 2.")
    return file.rows(0, cut), file.rows(cut, samples)


def _check_test(training: TrajectoryFile, test: TrajectoryFile) -> None:
    if training.dynamics != test.dynamics:
        raise ValueError(f"the training file is of {training.dynamics}, the test file of {test.dynamics}.")
    same = [training.facts[k] == test.facts[k] for k in ("seed", "distribution")]
    if all(same):
        raise ValueError(
            f"training and test file were drawn from the same seed {test.facts['seed']} and distribution, so they "
            "share rows; generate the test file with another --seed or -n test."
        )


def _go_on(run_dir: Path) -> str:
    """What to do with a run that was stopped."""
    if (run_dir / "summary.json").is_file() and (run_dir / "artifact.safetensors").is_file():
        return f"the run had finished, its results are in {run_dir}/summary.json"
    if (run_dir / "checkpoints" / "last.ckpt").is_file():
        return f"go on with --resume {shlex.quote(str(run_dir))}"
    return "there is no checkpoint yet, start again with the same command"


def _refuse_held(run_dir: Path, force: bool) -> None:
    """Raise where a folder holds a run that may not be replaced."""
    if any((run_dir / "checkpoints" / name).exists() for name in ("last.ckpt", "best.ckpt")) and not force:
        raise FileExistsError(
            f"{run_dir} holds a run; go on with --resume {run_dir}, choose another --save, or --force."
        )


def _clear(run_dir: Path) -> None:
    """Remove what an earlier run left."""
    held = [run_dir / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
    for name in ("metrics.csv", "summary.json", "artifact.safetensors", "converted.safetensors"):
        held.append(run_dir / name)
    for path in held:
        path.unlink(missing_ok=True)
    shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)


def _facts(
    settings: dict[str, Any], recipe: Recipe, files: dict[str, TrajectoryFile], best_epoch: int
) -> dict[str, Any]:
    """What it takes to train this network again, as plain values without the paths of a machine."""
    default = SIZES | {"preset": "best"}
    flags = [f"--{k} {v}" for k, v in settings.items() if k not in (*SPLITS, "data") and default.get(k) != v]
    return {
        "distribution": files["training"].facts["distribution"], "recipe": asdict(recipe), "best_epoch": best_epoch + 1,
        "seeds": {split: file.facts["seed"] for split, file in files.items()},
        "samples": {split: file.facts["samples"] for split, file in files.items()},
        "command": " ".join(["python train.py --training FILE --test FILE", *flags]),
    }  # fmt: skip


def _write_results(
    run_dir: Path,
    sdn: SDN,
    files: dict[str, TrajectoryFile],
    scores: dict[str, Metrics],
    facts: dict[str, Any],
    seconds: float,
) -> Artifact:
    dynamics = files["training"].dynamics
    std = dynamics.default_std
    elsewhere = fidelity(sdn, dynamics, [(m * std, s * std) for m, s in ((0, 1), (0.5, 1), (0, 2), (0, 3), (1, 1))])
    summary = {
        "dynamics": dynamics.facts(), "metrics": {k: asdict(v) for k, v in scores.items()},
        "fresh": {k: asdict(v) for k, v in elsewhere.items()}, "seconds": round(seconds, 1), "versions": versions(),
        "threads": torch.get_num_threads(), "argv": " ".join(sys.argv), **facts,
    }  # fmt: skip
    for name, metrics in elsewhere.items():
        logger.info(f"fresh {name}: agreement {metrics.agreement:.6f}, f1 {metrics.f1:.6f}, mae {metrics.mae_mean:.6f}")
    measured = {"test": asdict(scores["test"]), **{k: asdict(v) for k, v in elsewhere.items()}}
    artifact = save_artifact(run_dir / "artifact.safetensors", reduce(sdn), dynamics, measured, **facts)
    check = evaluate(load_sdn(run_dir / "checkpoints" / "best.ckpt")[0], files["test"].rows(0, 256), dynamics)
    assert check == evaluate(artifact.network, files["test"].rows(0, 256), dynamics), (
        "the artifact is not the checkpoint"
    )
    write_json(run_dir / "summary.json", summary)  # last: a folder with one is finished
    return artifact
