"""One of the two commands of train.py: train an SDN on trajectory files. `python train.py --save exp`."""

import argparse
import contextlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from sdn.runs import folder as runs
from sdn.runs.files import versions, write_json
from sdn.runs.lock import locked
from sdn.runs.shortage import advised
from sdn.runs.signals import explained
from sdn.surrogate.artifact import Artifact, save_artifact
from sdn.surrogate.fidelity import Metrics, evaluate, fresh_scores, not_worth_having
from sdn.surrogate.network import SDN
from sdn.surrogate.own_neurons import without_neurons
from sdn.surrogate.recipe import Recipe
from sdn.surrogate.reduction import reduce
from sdn.surrogate.seam_training import SeamRecipe
from sdn.surrogate.seams import SeamSDN
from sdn.surrogate.settings import RECIPES, SEAM_SIZES, SIZES, SPLITS, completed, parser, settings_of
from sdn.surrogate.training import fit, load_sdn
from sdn.surrogate.trajectory_files import TrajectoryFile, load_trajectories

__all__ = ["main", "parser"]


def main(argv: Sequence[str], program: str = "train.py") -> None:
    """Train, score every split, and write checkpoints, metrics, the summary and the reduced artifact."""
    args = parser(program).parse_args(without_neurons(argv))
    if args.threads < 1 or args.num_workers < 0:
        raise ValueError(f"--threads must be >= 1 and --num_workers >= 0, got {args.threads} and {args.num_workers}.")
    torch.set_num_threads(args.threads)
    run_dir, settings = settings_of(args)
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
    settings = completed(settings, files["training"])
    recipe, network = _recipe(settings, train), _network(settings, train)
    if args.resume:
        _check_sizes(run_dir, settings, network)
    else:
        _clear(run_dir)
        settings["data"] = {split: _identity(file) for split, file in files.items()}
    write_json(run_dir / "config.json", settings)
    handler = runs.log_to(run_dir / "exp.log")
    logger.info(
        f"{train.dynamics}, {len(train.input)} training and {len(val.input)} validation rows, run folder {run_dir}"
    )
    count = sum(p.numel() for p in network.parameters())
    logger.info(f"{type(network).__name__}{_sizes(settings)}, {count} parameters, {recipe}")
    history = fit(
        network, train, val, run_dir=run_dir, recipe=recipe, resume=args.resume is not None,
        num_workers=args.num_workers,
    )  # fmt: skip
    seconds = sum(row["seconds"] for row in history.rows)
    loss = getattr(recipe, "loss", "l1")
    parts = {"train": train.rows(0, 2048), "validation": val, "test": files["test"]}
    scores = {name: evaluate(network, file, train.dynamics, loss=loss) for name, file in parts.items()}
    facts = _facts(settings, recipe, files, history.best_epoch)
    artifact = _write_results(run_dir, network, files, scores, facts, seconds)
    logger.info(
        f"best epoch {history.best_epoch + 1} of {recipe.epochs} by validation loss, {seconds:.1f} s of training"
    )
    for split, metrics in scores.items():
        logger.info(f"{split}: {metrics}")
    logger.info(f"reduced to {sum(p.numel() for p in artifact.network.parameters())} parameters: {artifact.path}")
    if why := not_worth_having(scores["test"]):
        logger.warning(f"{train.dynamics}: {why}.")
    logger.remove(handler)


def _sizes(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in (SIZES if settings["kind"] == "pointwise" else SEAM_SIZES)}


def _network(settings: dict[str, Any], train: TrajectoryFile) -> SDN | SeamSDN:
    if settings["kind"] == "pointwise":
        return SDN(**_sizes(settings))
    return SeamSDN(len(train.dynamics.State._fields), len(train.values), **_sizes(settings))


def _check_sizes(run_dir: Path, settings: dict[str, Any], network: SDN | SeamSDN) -> None:
    """Refuse sizes that are not those of the checkpoint to go on from, before memory is taken for them."""
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return
    found, _ = load_sdn(path)
    if type(found) is not type(network):
        raise ValueError(
            f"{run_dir}/config.json: kind is {settings['kind']}, last.ckpt holds a {type(found).__name__}."
        )
    if differ := [name for name in _sizes(settings) if settings[name] != getattr(found, name)]:
        name = differ[0]
        raise ValueError(
            f"{run_dir}/config.json: {name} is {settings[name]}, that of last.ckpt is {getattr(found, name)}."
        )


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


def _recipe(settings: dict[str, Any], train: TrajectoryFile) -> Recipe | SeamRecipe:
    kind = RECIPES[settings["kind"]]
    changes = {f.name: settings[f.name] for f in fields(kind) if f.name in settings}
    if settings.get("preset") == "published":
        return Recipe.published(*train.input.shape, **changes)
    made: Recipe | SeamRecipe = kind(**changes)
    return made


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
    settings: dict[str, Any], recipe: Recipe | SeamRecipe, files: dict[str, TrajectoryFile], best_epoch: int
) -> dict[str, Any]:
    """What it takes to train this network again, as plain values without the paths of a machine."""
    default = SIZES | SEAM_SIZES | {"preset": "best"}
    over = files["training"].facts.get("over")
    flags = [f"--{k} {v}" for k, v in settings.items() if k not in (*SPLITS, "data") and default.get(k) != v]
    return {
        "distribution": files["training"].facts["distribution"], "recipe": asdict(recipe), "best_epoch": best_epoch + 1,
        "seeds": {split: file.facts["seed"] for split, file in files.items()},
        "samples": {split: file.facts["samples"] for split, file in files.items()},
        "command": " ".join(["python train.py --training FILE --test FILE", *flags]),
        **({"over": over} if over else {}),
    }  # fmt: skip


def _write_results(
    run_dir: Path,
    network: SDN | SeamSDN,
    files: dict[str, TrajectoryFile],
    scores: dict[str, Metrics],
    facts: dict[str, Any],
    seconds: float,
) -> Artifact:
    dynamics = files["training"].dynamics
    std = dynamics.default_std
    elsewhere = {}
    if not files["training"].values:
        laws = [(m * std, s * std) for m, s in ((0, 1), (0.5, 1), (0, 2), (0, 3), (1, 1))]
        elsewhere = fresh_scores(network, dynamics, laws)
    summary = {
        "dynamics": dynamics.facts(), "metrics": {k: asdict(v) for k, v in scores.items()},
        "fresh": {k: asdict(v) for k, v in elsewhere.items()}, "seconds": round(seconds, 1), "versions": versions(),
        "threads": torch.get_num_threads(), "argv": " ".join(sys.argv), **facts,
    }  # fmt: skip
    for name, metrics in elsewhere.items():
        logger.info(f"fresh {name}: agreement {metrics.agreement:.6f}, f1 {metrics.f1:.6f}, mae {metrics.mae_mean:.6f}")
    measured = {"test": asdict(scores["test"]), **{k: asdict(v) for k, v in elsewhere.items()}}
    artifact = save_artifact(run_dir / "artifact.safetensors", reduce(network), dynamics, measured, **facts)
    few = files["test"].rows(0, 256)
    check = evaluate(load_sdn(run_dir / "checkpoints" / "best.ckpt")[0], few, dynamics)
    assert check == evaluate(artifact.network, few, dynamics), "the artifact is not the checkpoint"
    write_json(run_dir / "summary.json", summary)  # last: a folder with one is finished
    return artifact
