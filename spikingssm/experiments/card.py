"""The efficiency card of a trained network: what it answers, what that costs, and how all of it was measured."""

import importlib.metadata
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

import sdn
from sdn import Solver
from sdn.runs.files import read_json, versions
from spikingssm.datasets import SequenceData
from spikingssm.datasets.inputs import Audio, Spikes
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.runfolder import stored
from spikingssm.experiments.shipped import folder_of
from spikingssm.measures.card import footprint, map_counts, neurobench, outside_maps, stream_state
from spikingssm.measures.energy import ADD, FUNCTION, MAC, MULTIPLY
from spikingssm.measures.latency import NOT_MEASURED, step_times
from spikingssm.measures.maps import MapRecord, record_maps
from spikingssm.measures.operations import not_counted
from spikingssm.measures.shown import COSTS
from spikingssm.measures.spikes import SpikeRecord
from spikingssm.models.base import able, patch_of

__all__ = ["MapReader", "card", "card_of", "execution_rate"]

VERSION = 1
FACTS = ("run", "solver", "rows", "device", "agreement", *COSTS)
"""What of a test is no metric of its task."""
CONSTANTS = {
    "multiply_joule": MULTIPLY, "add_joule": ADD, "mac_joule": MAC, "function_joule": FUNCTION,
    "source": "32-bit floating point in 45 nm, Horowitz, ISSCC 2014; a function is 7.1 multiplications (PMC8934428, "
    "table 3, a division). Reading and writing memory is in no count.",
}  # fmt: skip


class MapReader(Callback):
    """Watch the maps of a network while a trainer tests it, and keep what a card needs of that test.

    Attributes:
        maps: what the maps have read, once a test has begun.
        spikes: the `SpikeRecord` of the same test, once it has ended.
        model: the network as it was tested.
        data: what it was tested on.
        monitor: metric and mode by which a run chooses its best epoch.
    """

    maps: MapRecord
    spikes: SpikeRecord
    model: nn.Module
    data: SequenceData
    monitor: tuple[str, str]

    def __init__(self) -> None:
        self._open = ExitStack()

    def on_test_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Begin to watch."""
        loop: Any = trainer
        self.model, self.data, self.monitor = pl_module.model, loop.datamodule, pl_module.task.monitor
        self.maps = self._open.enter_context(record_maps(self.model))

    def on_test_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Stop, and take the spikes that were counted meanwhile."""
        self._open.close()
        self.spikes = pl_module.seen

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Leave the network as it was."""
        self._open.close()


def card(run: str | Path, solver: str | Solver | None = None, **options: Any) -> dict[str, Any]:
    """Test a trained network and make its efficiency card, as ``spikingssm evaluate RUN --card`` does.

    Args:
        run: the run folder, or the name of a network that ships.
        solver: as in `evaluate`.
        options: of `evaluate`: limit, root, data, rate.

    Returns:
        plain values, see `card_of`; `spikingssm.reports.card.markdown` makes a page of it.

    Raises:
        FileNotFoundError, ValueError, NotImplementedError: as `evaluate`.

    Example:
        >>> spikingssm.card("runs/spikingssm-digits-0")["neurobench"]
    """
    reader = MapReader()
    found = evaluate(run, solver, callbacks=[reader], **options)
    return card_of(reader, found, folder_of(run), "spikingssm.card(...)")


def card_of(reader: MapReader, found: dict[str, Any], folder: str | Path | None, command: str) -> dict[str, Any]:
    """The card of a network that was tested with a `MapReader`.

    Args:
        reader: of the test.
        found: what the test gave, see `evaluate`.
        folder: of the run; None for a network without one, such as a published checkpoint.
        command: that asked for it.

    Returns:
        ``name``, ``network``, ``data``, ``samples``; ``quality``: the task's metrics, and ``selection``, how the
        weights were chosen; ``neurobench``: the metrics under NeuroBench's names, of a sample on average; ``maps``: the
        same operations map by map; ``outside_maps``: all other arithmetic; ``not_counted``; ``spikes``; ``energy`` with
        its ``constants``; ``memory`` in bytes; ``latency`` of a step; ``made``: by what, from what.
    """
    model, sequences = reader.model, 2 if reader.data.pairs else 1
    facts, summary = reader.data.facts(), _summary(folder)
    rate = execution_rate(reader.data, model)
    row, used = _row(reader.data), {**versions(), "numba": importlib.metadata.version("numba")}
    spikes = ("spikes", "spikes_by_layer", "spike_rate", "steps", "sops", "sops_by_layer", "input_events")
    return {
        "version": VERSION,
        "name": summary.get("name", reader.data.name),
        "network": {"class": type(model).__name__, "solver": found["solver"]},
        "data": {key: facts[key] for key in ("name", "size", "test", "length", "d_input", "d_output", "split")}
        | {"test_digest": facts["test_digest"]},
        "samples": found["rows"],
        "quality": {
            **{name: value for name, value in found.items() if name not in FACTS},
            "loss": found["loss"],
            "selection": _selection(reader.monitor, summary, facts["test_digest"]),
        },
        "neurobench": {**neurobench(model, reader.spikes, reader.maps, sequences), "ModelExecutionRate": rate},
        "maps": map_counts(reader.spikes, reader.maps, sequences),
        "outside_maps": outside_maps(model, reader.spikes, sequences),
        "not_counted": not_counted(model),
        "spikes": {key: found[key] for key in spikes if key in found},
        "energy": {"constants": CONSTANTS, **found["energy"]},
        "memory": _memory(model, row.T if reader.data.pairs else row),
        "latency": step_times(model, row),
        "made": {"command": command, "commit": _commit(), "versions": used, **_origin(folder, summary)},
    }


def execution_rate(data: SequenceData, model: nn.Module) -> dict[str, Any]:
    """How often a network in a stream answers, from the length of a step of its data.

    Returns:
        ``hertz``, or None where the data do not say how long a step is; and ``why``.
    """
    inputs, patch = data.inputs, patch_of(model)
    if isinstance(inputs, Audio):
        steps, of = inputs.hertz / inputs.down, f"{inputs.hertz / inputs.down:g} samples a second"
    elif isinstance(inputs, Spikes) and inputs.bins != "published":
        steps, of = 1000 / inputs.bin_ms, f"bins of {inputs.bin_ms:g} ms"
    else:
        return {"hertz": None, "why": "the data do not say how long a step is; the network answers once a step"}
    if not hasattr(model, "step") or getattr(model, "bidirectional", False):
        return {"hertz": steps / data.length, "why": f"{of}, one answer for each sequence of {data.length} of them"}
    each = f"one answer every {patch} of them" if patch > 1 else "one answer each"
    return {"hertz": steps / patch, "why": f"{of}, {each}"}


def _memory(model: nn.Module, row: Tensor) -> dict[str, Any]:
    """Bytes: parameters and buffers, the state of one stream, and both in the compiled step."""
    found: dict[str, Any] = {"parameters_and_buffers": footprint(model)}
    try:
        found["state_of_a_stream"] = stream_state(model, row)
    except (NotImplementedError, ValueError) as error:
        found["state_of_a_stream"] = {NOT_MEASURED: str(error)}
    try:
        found["compiled_step"] = able(model, "compile_step").compile_step().memory()
    except (NotImplementedError, ValueError) as error:
        found["compiled_step"] = {NOT_MEASURED: str(error)}
    return found


def _row(data: SequenceData) -> Tensor:
    """The first test sequence without its padding: (L, C), tokens (L,), or pairs of them (L, 2)."""
    x, _, lengths = data.test_set.__getitems__(data.test_rows[:1].tolist())
    row = x[0].T if data.pairs else x[0]
    return row if lengths is None else row[: int(lengths.min())]


def _selection(monitor: tuple[str, str], summary: dict[str, Any], digest: str) -> dict[str, Any]:
    """By what the tested weights were chosen among those of all epochs; ``digest`` is that of the test rows."""
    metric, mode = monitor
    chosen = {key: value for key, value in summary.get("val", {}).items() if key != "epoch"}
    if not chosen:
        return {"rule": "not known: the folder keeps no summary of a training"}
    best = "highest" if mode == "max" else "lowest"
    rule = f"the epoch with the {best} {metric}; the test rows have chosen nothing"
    if summary.get("dataset", {}).get("test_digest") != digest:
        rule = (
            f"the epoch with the {best} {metric}; the rows of this test are not those of the run's own test, and "
            "whether the run was trained on some of them is not known"
        )
    return {"rule": rule, **summary["val"], "of_epochs": summary["epochs"]}


def _origin(folder: str | Path | None, summary: dict[str, Any]) -> dict[str, Any]:
    """What is known of the training."""
    if folder is None:
        return {}
    config = stored(folder)
    known = {key: summary[key] for key in ("command", "variant", "device", "versions") if key in summary}
    return {"config": config.name, "seed": config.seed, "training": known}


def _summary(folder: str | Path | None) -> dict[str, Any]:
    try:
        found = {} if folder is None else read_json(Path(folder) / "summary.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _commit() -> str | None:
    """The commit of this program where it runs from a checkout of its own; None for an installed one."""
    root = Path(sdn.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        asked = [["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain"]]
        commit, changed = (
            subprocess.run(a, cwd=root, capture_output=True, text=True, check=True).stdout for a in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + (" and changes" if changed.strip() else "")
