"""A trained run as a folder for a model hub: safetensors, plain JSON and YAML, and a card. Nothing in it is pickled."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from sdn.runs.files import writing
from spikingssm.datasets.targets import LabelTargets, NumberTargets
from spikingssm.experiments.runfolder import WEIGHTS
from spikingssm.experiments.trained import TrainedModel
from spikingssm.measures.shown import plain_number

__all__ = ["WEIGHTS", "card_text", "push", "write_hub"]

LIBRARY = "sdn-spikingssm"
TASKS = {"Audio": "audio-classification", "Spikes": "audio-classification", "Tokens": "text-classification"}
SHOWN = ("accuracy", "accuracy_last", "accuracy_all", "perplexity", "mse", "mae", "r2", "f1", "loss")


def write_hub(trained: TrainedModel, folder: Path, licence: str | None = None) -> Path:
    """Write the folder; `spikingssm.load_model` opens it.

    Args:
        trained: of a run.
        folder: to write; it is made, and must be empty or not there.
        licence: of the weights, as the hub names it, such as "mit"; None leaves it open.

    Raises:
        FileExistsError: there is something in the folder.
    """
    trained.save(folder)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in trained.network.state_dict().items()}
    with writing(folder / WEIGHTS) as partial:
        save_file(weights, partial, metadata={"format": "pt"})
    shutil.rmtree(folder / "checkpoints")
    with writing(folder / "config.json") as partial:
        partial.write_text(json.dumps(_config(trained), indent=2) + "\n")
    with writing(folder / "README.md") as partial:
        partial.write_text(card_text(trained, trained.config["name"], licence))
    return folder


def push(folder: Path, repository: str) -> str:
    """Upload a folder to the Hugging Face Hub, with the token that its own tools keep; the address.

    Raises:
        ImportError: huggingface_hub is missing.
    """
    try:
        import huggingface_hub as hub
    except ModuleNotFoundError:
        raise ImportError("--push: huggingface_hub is missing; pip install 'sdn-spikingssm[hub]' brings it.") from None
    interface = hub.HfApi()
    interface.create_repo(repository, exist_ok=True)
    return str(interface.upload_folder(repo_id=repository, folder_path=str(folder)))


def _config(trained: TrainedModel) -> dict[str, Any]:
    """What hubs look for in ``config.json``."""
    interface = trained.interface
    sizes = {"d_input": interface.d_input, "d_output": interface.d_output, "length": interface.length}
    model = {key: value for key, value in trained.config["model"].items() if key != "_target_"}
    kind = type(trained.network).__name__
    names = [interface.class_name(number) for number in range(interface.d_output)]
    labels = {"id2label": dict(enumerate(names))} if interface.targets is None and len(names) <= 1000 else {}
    return {"library_name": LIBRARY, "architectures": [kind], "model_type": kind.lower(), **sizes, **labels,
            "model": model}  # fmt: skip


def card_text(trained: TrainedModel, name: str, licence: str | None) -> str:
    """The model card: a head in YAML, and what a reader must know before using the network."""
    facts = trained.facts
    data, test = facts.get("dataset", {}), facts.get("test", {})
    head: dict[str, Any] = {"library_name": LIBRARY, "tags": ["spiking-neural-network", type(trained.network).__name__]}
    if licence is not None:
        head = {"license": licence, **head}
    if task := _pipeline(trained):
        head["pipeline_tag"] = task
    metrics = [key for key in SHOWN if isinstance(test.get(key), (int, float))]
    if metrics:
        head["metrics"] = metrics
        head["model-index"] = [_index(trained, name, metrics)]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"A spiking network ({type(trained.network).__name__}) that reads {trained.interface.name}: "
        f"{trained.interface.length} steps of {trained.interface.d_input} channels.",
        "## Use it",
        "```python\nimport spikingssm  # pip install sdn-spikingssm[train,data]\n\n"
        "trained = spikingssm.load_model(FOLDER)  # the folder of these files\n"
        "answer = trained.predict(x)  # raw sequences, as its data hold them\n"
        "stream = trained.compile_step()  # microseconds a step\n```",
        "## Numbers",
        _numbers(facts, test, metrics),
        "## Data",
        _data(data),
        "## Spikes and operations",
        _costs(test),
        "## How it was made",
        _made(facts),
        "## Limits",
        "- Tested on the data above and on nothing else: other recordings, speakers or sensors may be harder.\n"
        "- Energies count arithmetic in 45 nm and no memory traffic; see the project's page on energy.\n"
        "- The licence of the data holds for what was learned from them; look it up before you use the network.",
    ]
    return "\n\n".join(parts) + "\n"


def _pipeline(trained: TrainedModel) -> str | None:
    targets = trained.interface.targets
    if isinstance(targets, NumberTargets):
        return "time-series-forecasting" if targets.horizon else None
    return None if isinstance(targets, LabelTargets) else TASKS.get(type(trained.interface.inputs).__name__)


def _index(trained: TrainedModel, name: str, metrics: list[str]) -> dict[str, Any]:
    test, data = trained.facts["test"], trained.facts.get("dataset", {})
    values = [{"type": key, "value": round(float(test[key]), 6), "name": f"test {key}"} for key in metrics]
    told = {"type": data.get("name", trained.interface.name), "name": data.get("name", trained.interface.name),
            "split": "test"}  # fmt: skip
    task = {"type": _pipeline(trained) or "other"}
    return {"name": name, "results": [{"task": task, "dataset": told, "metrics": values}]}


def _numbers(facts: dict[str, Any], test: dict[str, Any], metrics: list[str]) -> str:
    """The numbers by the rule that selected them."""
    rows = ["| selected by | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    shown = " | ".join(plain_number(float(test[key])) for key in metrics)
    rows.append(f"| best epoch of the validation, {facts.get('val', {}).get('epoch', '?')}: test | {shown} |")
    held = {key: value for key, value in facts.get("val", {}).items() if key in metrics}
    if held:
        rows.append("| the same: validation | " + " | ".join(
            plain_number(float(held[key])) if key in held else "" for key in metrics) + " |")  # fmt: skip
    if isinstance(last := facts.get("last"), dict):
        rows.append("| last epoch: test | " + " | ".join(
            plain_number(float(last[key])) if key in last else "not measured" for key in metrics) + " |")  # fmt: skip
    seed = f"Seed {facts.get('seed', '?')}; one run, so no spread is known."
    return "\n".join(rows) + f"\n\n{seed}" if metrics else "No test was made."


def _data(data: dict[str, Any]) -> str:
    if not data:
        return "The run does not say."
    rows = ", ".join(f"{data[key]} {key}" for key in ("train", "val", "test") if key in data)
    digests = ", ".join(f"{key.removesuffix('_digest')} {data[key]}" for key in data if key.endswith("_digest"))
    return f"`{data.get('name')}`, {data.get('size')}: {rows}. Split: {data.get('split')}. Digests: {digests}."


def _costs(test: dict[str, Any]) -> str:
    if "spike_rate" not in test:
        return "Not measured."
    lines = [f"- {100 * test['spike_rate']:.2f} % of neurons spike in a step."]
    lines += [f"- {layer}: {100 * rate:.2f} %" for layer, rate in test.get("spike_rates", {}).items()]
    if "sops" in test:
        lines.append(f"- {plain_number(float(test['sops']))} synaptic operations a sample.")
    energy = test.get("energy", {}).get("recurrence", {})
    if "joule" in energy:
        lines.append(f"- {energy['joule']:.3g} J a sample, all arithmetic of a stream counted.")
    return "\n".join(lines)


def _made(facts: dict[str, Any]) -> str:
    told = [f"- `{facts['command']}`"] if facts.get("command") else []
    told += [f"- {key.replace('_', ' ')}: {facts[key]}" for key in ("epochs", "device", "cpu_minutes") if key in facts]
    if versions := facts.get("versions"):
        told.append("- " + ", ".join(f"{key} {value}" for key, value in versions.items()))
    return "\n".join(told) or "The run does not say."
