"""A published checkpoint as a run: the file gives the network, an experiment of ours data, task and pool."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdn.runs.files import versions, write_json, writing
from sdn.runs.lock import locked
from sdn.runs.tensor_files import save_tensors
from spikingssm.experiments.build import build
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import TrainedRun, known_key, measure
from spikingssm.experiments.runfolder import keep_fitted
from spikingssm.experiments.variants import variant
from spikingssm.published.brf import OWN, Published, read, rsnn_from_pt
from spikingssm.training.fit import SequenceModule

__all__ = ["import_checkpoint", "open_checkpoint"]


def open_checkpoint(
    path: str | Path,
    experiment: str | None,
    neuron: str | None = None,
    overrides: Sequence[str] = (),
    *,
    permutation: str | Path | None = None,
    limit: int | None = None,
    root: str | Path | None = None,
) -> TrainedRun:
    """A published checkpoint, opened like a run folder; nothing is written.

    Args:
        path: of the .pt file, see `spikingssm.published.brf`.
        experiment: what it was trained on, such as "brf/ecg".
        neuron: "brf", "rf" or "alif", see `spikingssm.published.brf.rsnn_from_pt`.
        overrides: of the experiment, as for `spikingssm.load`.
        permutation: file of the order of the pixels, for MNIST; needed where the experiment's is random, unless an
            override of ``data.permute`` or ``data.permute_seed`` says another.
        limit: test on that many rows only.
        root: folder of the data, where it is not that of the experiment.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what `rsnn_from_pt` and the data refuse, an experiment whose data or model do not fit the file, or
            pixels in an order that nobody said.
    """
    found = read(path, neuron)
    if experiment is None:
        raise ValueError(f"{path} does not say what it was trained on; say it, for instance --experiment brf/ecg.")
    if limit is not None and limit < 1:
        raise ValueError(f"evaluate: --limit must be at least 1 row, got {limit}.")
    config = load([f"experiment={experiment}", f"model={found.neuron}", *overrides])
    _check_order(config, experiment, permutation, overrides)
    _set_data(config, experiment, root=root, permute=permutation, limit_eval=limit)
    _set_sizes(config, found)
    OmegaConf.resolve(config)
    data, module = build(config)
    if (found.inputs, found.classes) != (data.d_input, data.d_output):
        raise ValueError(
            f"{path} has {found.inputs} inputs and {found.classes} classes, the data of experiment={experiment} have "
            f"{data.d_input} and {data.d_output}; give the experiment that it was trained on."
        )
    _load_weights(module, path, found.neuron)
    return TrainedRun(config, data, module)


def import_checkpoint(
    path: str | Path,
    out: str | Path,
    experiment: str | None,
    neuron: str | None = None,
    overrides: Sequence[str] = (),
    **given: Any,
) -> Path:
    """Test a published checkpoint and make a run folder of it: config.yaml, checkpoints/best.ckpt, summary.json.

    There is no metrics.csv, since nothing was trained here; the epochs of the summary are what the file says.

    Args:
        path, experiment, neuron, overrides, given: as for `open_checkpoint`.
        out: the run folder.

    Returns:
        the run folder.

    Raises:
        FileExistsError: a folder that holds a run.
        BlockingIOError: another process writes there.
        FileNotFoundError, ValueError: as in `open_checkpoint`; nothing is written then.
    """
    folder, path = Path(out), Path(path)
    with locked(folder, "give another folder with --out"):
        if any((folder / name).exists() for name in ("config.yaml", "checkpoints/last.ckpt")):
            raise FileExistsError(f"{folder} holds a run; give another folder with --out.")
        _import(path, folder, experiment, neuron, overrides, given)
    return folder


def _import(
    path: Path,
    folder: Path,
    experiment: str | None,
    neuron: str | None,
    overrides: Sequence[str],
    given: Mapping[str, Any],
) -> None:
    """Test, then write."""
    run = open_checkpoint(path, experiment, neuron, overrides, **given)
    keep_fitted(run.config, run.data.fitted)
    run.config.run_dir, epoch = str(folder), read(path, neuron).epoch
    command = _command(path, folder, experiment, neuron, overrides, given)
    summary = {**_summary(run, measure(run), path, epoch), "command": command}
    summary["variant"] = ", ".join(filter(None, ["imported", variant(overrides)]))
    content = {"epoch": epoch, "global_step": 0, "state_dict": run.module.state_dict()}
    save_tensors(folder / "checkpoints" / "best.ckpt", content)
    write_json(folder / "summary.json", summary)
    with writing(folder / "config.yaml") as partial:  # last, so that a killed import can be done again
        head = f"# {summary['command']}\n# variant: {summary['variant']}\n"
        partial.write_text(head + OmegaConf.to_yaml(run.config))


def _check_order(config: DictConfig, experiment: str, permutation: str | Path | None, overrides: Sequence[str]) -> None:
    """Refuse a random order that is the experiment's own: the file was trained on another."""
    told = any(text.partition("=")[0].lstrip("+~").startswith("data.permute") for text in overrides)
    if permutation is None and not told and config.data.get("permute") == "random":
        raise ValueError(
            f"experiment={experiment} has its pixels in a random order of its own, on which no published file was "
            "trained; give that of the file with --permutation FILE.pt, or say the order with data.permute=... or "
            "data.permute_seed=..."
        )


def _set_data(config: DictConfig, experiment: str, **given: Any) -> None:
    """Put what is given into the section of the data; paths become absolute, so that the run folder may be moved."""
    for key, value in given.items():
        if value is not None:
            known_key(config, key, f"experiment={experiment} cannot take {value}")
            plain = str(Path(value).resolve()) if isinstance(value, (str, Path)) else value
            OmegaConf.update(config, f"data.{key}", plain)


def _set_sizes(config: DictConfig, found: Published) -> None:
    """Put what the file says into the section of the model.

    A share of 0 makes a place for the mask. Start values are left out: what the file holds takes their place.
    """
    sizes: dict[str, Any] = {
        "d_model": found.hidden,
        "n_layers": 1,
        "bias": found.bias,
        "mask": None if found.mask is None else 0.0,
    }
    for key, value in sizes.items():
        if key not in config.model:
            raise ValueError(
                f"model={found.neuron} has no model.{key}; it must be an RSNN, got {config.model._target_}."
            )
        OmegaConf.update(config, f"model.{key}", value)
    OmegaConf.update(config, "model.learn", dict.fromkeys(OWN[found.neuron]), merge=False)


def _load_weights(module: SequenceModule, path: str | Path, neuron: str) -> None:
    model: Any = module.model
    dt = getattr(model.layers[0].dynamics, "dt", 0.01)
    network = rsnn_from_pt(path, neuron, dt=dt, dtype=next(module.parameters()).dtype)
    module.model.load_state_dict(network.state_dict())


def _summary(run: TrainedRun, tested: dict[str, Any], path: Path, epoch: int) -> dict[str, Any]:
    """The result as that of a run of ours, with what was imported."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": run.config.name,
        "parameters": sum(p.numel() for p in run.module.model.parameters()),
        "epochs": epoch,
        "seconds": 0.0,
        "solver": tested["solver"],
        "seed": run.config.seed,
        "device": tested["device"],
        "versions": versions(),
        "dataset": run.data.facts(),
        "test": {key: value for key, value in tested.items() if key not in ("solver", "rows", "device")},
        "imported": {"file": path.name, "sha256": digest},
    }


def _command(
    path: Path,
    out: Path,
    experiment: str | None,
    neuron: str | None,
    overrides: Sequence[str],
    given: Mapping[str, Any],
) -> str:
    """The command line that imports this file; of folders it has the last part only, of the data FOLDER."""
    permutation, limit, root = (given.get(name) for name in ("permutation", "limit", "root"))
    options = {
        "--neuron": neuron,
        "--experiment": experiment,
        "--permutation": permutation and Path(permutation).name,
        "--limit": limit,
        "--root": root and "FOLDER",
        "--out": out.name,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    told = [re.sub(r"^(\+*data\.root=).*", r"\1FOLDER", text) for text in overrides]
    told = [re.sub(r"^(\+*data\.(?:path|test_path|permute)=['\"]?).*/", r"\1", text) for text in told]
    return shlex.join(["python", "-m", "spikingssm", "import", path.name, *words, *told])
