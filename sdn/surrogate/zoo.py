"""The artifacts that ship: one for every built-in neuron, all made by one command, with a table that says how good.

Needs ``[train]``. ``python -m sdn zoo`` writes them.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loguru import logger

from sdn.dynamics import ALIF, BRF, HRF, LIF, RF, Dynamics, IzhikevichRF
from sdn.surrogate.artifact import Artifact, load_artifact
from sdn.surrogate.currents import FAMILIES
from sdn.surrogate.making import learn_surrogate

__all__ = ["ENTRIES", "card", "make"]

Over = Mapping[str, Sequence[float]]
RANGE = {"decay": (0.05, 0.95)}
ENTRIES: dict[str, tuple[Dynamics, Over]] = {
    **{f"lif-decay-{decay}": (LIF(decay), {}) for decay in (0.5, 0.8, 0.9, 0.95, 0.99)},
    **{f"lif-soft-decay-{decay}": (LIF(decay, reset="soft"), {}) for decay in (0.125, 0.5, 0.8, 0.9, 0.95, 0.99)},
    "lif-any-decay": (LIF(0.5), RANGE),
    "lif-soft-any-decay": (LIF(0.5, reset="soft"), RANGE),
    "alif": (ALIF(), {}),
    "rf": (RF(), {}),
    "brf": (BRF(), {}),
    "hrf": (HRF(), {}),
    "izhikevich": (IzhikevichRF(), {}),
}
"""Neurons that a seam network stands for, and the fields that it is told."""
TABLE = re.compile(r"(<!-- table -->\n).*(<!-- end table -->)", re.DOTALL)


def make(folder: Path, names: Iterable[str] = (), seed: int = 0) -> None:
    """Train, measure and write the artifacts of these names, all if none is given, and the table of the card."""
    chosen = [*names] or [*ENTRIES]
    for name in chosen:
        if name not in ENTRIES:
            raise ValueError(f"the zoo has {', '.join(ENTRIES)}; got {name!r}.")
    for name in chosen:
        dynamics, over = ENTRIES[name]
        started = time.perf_counter()
        artifact = learn_surrogate(dynamics, folder / f"{name}.safetensors", over=over, seed=seed)
        normal = artifact.facts["metrics"]["normal"]
        score = f"agreement {100 * normal['agreement']:.3f} %, F1 {100 * normal['f1']:.2f} %"
        logger.info(f"{name}: {score}, {time.perf_counter() - started:.1f} s")
    card_file = folder / "README.md"
    if card_file.is_file():
        text = card_file.read_text()
        card_file.write_text(TABLE.sub(rf"\g<1>{card(folder)}\g<2>", text))


def card(folder: Path) -> str:
    """A table of all artifacts of a folder: neuron, numbers, and agreement / F1 by family."""
    found = [load_artifact(path) for path in sorted(folder.glob("*.safetensors"))]
    head = f"| artifact | numbers | {' | '.join(FAMILIES)} |"
    lines = [head, "|---" * (2 + len(FAMILIES)) + "|"]
    lines += [_row(artifact) for artifact in found if not artifact.is_pointwise]
    return "\n".join(lines) + "\n"


def _row(artifact: Artifact) -> str:
    cells = []
    for family in FAMILIES:
        metrics = artifact.facts["metrics"].get(family)
        cells.append("" if metrics is None else f"{100 * metrics['agreement']:.2f} / {100 * metrics['f1']:.1f}")
    numbers = sum(value.numel() for value in artifact.tensors)
    name = artifact.path.stem if artifact.path is not None else str(artifact.dynamics)
    return f"| `{name}` | {numbers} | {' | '.join(cells)} |"
