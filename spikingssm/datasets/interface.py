"""What a network and its data have agreed on, as a file that a run keeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sdn.runs.files import read_json, write_json
from spikingssm.datasets.inputs import Audio, Inputs, Numbers, Spikes, Tokens
from spikingssm.datasets.labels import class_numbers
from spikingssm.datasets.targets import NumberTargets, Targets, ahead, as_plain, from_plain

__all__ = ["FILE", "Interface"]

FILE = "inputs.json"
"""File of a run folder that holds its `Interface`."""
VERSION = 1
LONGEST, MOST_CLASSES = 2**31, 2**24
"""Of steps and channels, and of classes."""
KINDS: dict[str, type[Inputs]] = {kind.kind: kind for kind in (Numbers, Audio, Spikes, Tokens)}


@dataclass(frozen=True)
class Interface:
    """What a network and its data have agreed on: sizes, names of the classes, and how raw data are read.

    Args:
        name: of the data set.
        length: steps of a row, as the network reads it.
        d_input: channels.
        d_output: classes, or numbers or labels that are asked for.
        inputs: raw data -> what the network reads; None where that is a function, which no file can hold.
        vocab: number of tokens, or None.
        pairs: whether a row is two sequences of tokens.
        stream: whether rows follow one another in one long stream.
        classes: their names, or those of the labels, or None.
        targets: what is asked for in place of classes, with its scale; None for classes.
    """

    name: str
    length: int
    d_input: int
    d_output: int
    inputs: Inputs | None
    vocab: int | None = None
    pairs: bool = False
    stream: bool = False
    classes: tuple[str, ...] | None = None
    targets: Targets | None = None

    def class_name(self, number: int) -> str:
        """The name of a class; its number where none is known."""
        return str(number) if self.classes is None else self.classes[number]

    def asked(self, labels: Any, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray | None:
        """What a test compares the answers with; None where there is nothing.

        Args:
            labels: of the rows, in the units of the data; None where a file has none.
            x: stored rows (N, L, C); those of a forecast are their own targets.
            lengths: (N,) valid steps, or None.

        Returns:
            numbers of classes (N,) or (N, L); numbers (N, D) or (N, L, D); sets of labels (N, K).

        Raises:
            ValueError: a class that the network does not have, or targets of another shape.
        """
        if self.targets is None:
            return self.numbers(labels)
        if isinstance(self.targets, NumberTargets) and self.targets.horizon:
            assert isinstance(self.inputs, (Numbers, Audio))
            return ahead(self.inputs.units(x), self.targets.horizon, lengths)
        return None if labels is None or not len(labels) else self.targets.rows(labels, x)

    def numbers(self, labels: Any) -> np.ndarray | None:
        """Labels as numbers of the classes, of the same shape; None where there are none.

        Raises:
            ValueError: a class that the network does not have.
        """
        if labels is None or not len(labels):
            return None
        return class_numbers(labels, self.classes, self.d_output)

    def write(self, folder: str | Path) -> None:
        """Write `FILE` into a run folder; nothing where ``inputs`` is None."""
        if self.inputs is None:
            return
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("inputs", "targets")}
        if self.targets is not None:  # a file without is that of classes, also for older programs
            content["targets"] = as_plain(self.targets)
        write_json(Path(folder) / FILE, {"version": VERSION, **content, self.inputs.kind: asdict(self.inputs)})

    @classmethod
    def read(cls, folder: str | Path) -> "Interface":
        """The interface in a run folder; nothing in the file is trusted.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file, or values out of range.
        """
        path = Path(folder) / FILE
        try:
            return _interface(read_json(path))
        except FileNotFoundError:
            raise
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"{path}: not what a run of ours keeps ({' '.join(str(error).split())[:120]}).") from None


def _interface(found: Mapping[str, Any]) -> Interface:
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']!r:.20}, this program reads {VERSION}")
    values = {f.name: found[f.name] for f in fields(Interface) if f.name not in ("inputs", "targets")}
    kind = next(name for name in (*KINDS, "") if name in found or not name)
    made: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in dict(found[kind]).items()}
    for key, most in (("length", LONGEST), ("d_input", LONGEST), ("d_output", MOST_CLASSES), ("vocab", LONGEST)):
        value = values[key]
        if not (value is None and key == "vocab") and (type(value) is not int or not 1 <= value < most):
            raise ValueError(f"{key} is {value!r:.40}")
    classes = values["classes"]
    if classes is not None and not (
        isinstance(classes, list) and len(classes) == values["d_output"] and all(isinstance(c, str) for c in classes)
    ):
        raise ValueError("classes must be one name for each output")
    if not isinstance(values["name"], str) or not all(type(values[key]) is bool for key in ("pairs", "stream")):
        raise ValueError("name must be text, pairs and stream true or false")
    values["classes"] = None if classes is None else tuple(classes)
    build: Any = KINDS[kind]
    inputs = build(**made)
    if not inputs.fits(values["length"], values["d_input"]):
        raise ValueError(f"{kind} of another size than {values['length']} steps x {values['d_input']}")
    targets = from_plain(found["targets"]) if "targets" in found else None
    if targets is not None and not targets.fits(values["d_output"]):
        raise ValueError(f"targets of another size than {values['d_output']} outputs")
    return Interface(**values, inputs=inputs, targets=targets)
