"""A trained network asked about files: ``python -m spikingssm predict``."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from sdn.runs.files import writing
from spikingssm.datasets.inputs import Audio, Spikes, Tokens
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.sequences import Sequences, each, read_sequences
from spikingssm.datasets.targets import NumberTargets
from spikingssm.experiments.answers import target_lines, target_rows, value_names
from spikingssm.experiments.shipped import shipped
from spikingssm.experiments.trained import Prediction, TrainedModel, load_model

__all__ = ["ask", "described"]

MOST_REASONS = 10
"""How many reasons for answers that are missing are printed."""


def ask(
    run: str | Path, files: Sequence[str | Path], solver: str | None, batch_size: int, out: str | Path | None
) -> Iterator[str]:
    """Ask a trained network about files; a line for each sequence: name, answer, its probability, spikes.

    Args:
        run: as in `load_model`.
        files: as in `spikingssm.datasets.sequences.read_sequences`.
        solver: as in `load_model`.
        batch_size: sequences at once.
        out: a table ``.csv`` to write; it has all probabilities, and a row a step for answers at every step.

    Raises:
        FileNotFoundError, ValueError, ImportError: what the run and the files refuse. What can be answered is
            answered first, and the table is written.
    """
    model = load_model(run, solver)
    found: list[tuple[Sequences, Prediction]] = []
    refused: dict[str, str] = {}
    for path in files:
        try:
            found.append(_asked(model, path, batch_size, refused))
        except (ValueError, OSError) as error:
            if len(files) == 1:
                raise
            refused[str(path)] = str(error)
    for why in list(refused.values())[:MOST_REASONS]:
        logger.warning(why)
    if out is not None:
        with writing(out) as partial, partial.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(_head(model))
            for part, answer in found:
                table.writerows(_rows(part.names, answer, model.interface))
    for part, answer in found:
        yield from _lines(part, answer, model.interface)
    if refused:
        number = len(refused) + sum(len(part.names) for part, _ in found)
        shown = "reasons" if len(refused) <= MOST_REASONS else f"first {MOST_REASONS} reasons"
        raise ValueError(f"not answered: {len(refused)} of {number}; the {shown} stand above.")


def _asked(
    model: TrainedModel, path: str | Path, batch_size: int, refused: dict[str, str]
) -> tuple[Sequences, Prediction]:
    """What a file or a folder holds, and the answers; what cannot be answered is left out and told in ``refused``."""
    inputs = model.interface.inputs
    assert inputs is not None
    part = read_sequences(path, inputs, model.interface.d_input, refused)
    try:
        return part, model.predict(part.x, part.lengths, batch_size=batch_size)
    except ValueError as error:
        why = {row: text for row, x in enumerate(each(part)) if (text := _refusal(model, x))}
        good = [row for row in range(len(part.names)) if row not in why]
        if not why or not good:
            raise ValueError(f"{path}: {error}") from None
    refused |= {f"{path}: {part.names[row]}": f"{path}: {part.names[row]}: {text}" for row, text in why.items()}
    rows, labels = each(part), part.labels
    part = Sequences(
        [part.names[row] for row in good],
        [rows[row] for row in good],
        None,
        [labels[row] for row in good] if isinstance(labels, list) else None if labels is None else labels[good],
    )
    return part, model.predict(part.x, batch_size=batch_size)


def _refusal(model: TrainedModel, x: Any) -> str:
    """Why a network cannot read one sequence; "" where it can."""
    try:
        model.prepare(x)
    except ValueError as error:
        return str(error).replace(", first in row 0", "")
    return ""


def described(run: str | Path | None) -> str:
    """What ``predict`` can be given: the networks that ship, or what one network reads."""
    if run is None:
        names = ", ".join(shipped()) or "none"
        return (
            f"networks that ship: {names}\n"
            "python -m spikingssm predict RUN FILE ... asks the network of a run folder, or one of these, about files"
        )
    model = load_model(run)
    return f"{run}: {model.extra_repr()}\nit reads {_what(model)}\n{_answers(model.interface)}"


def _what(model: TrainedModel) -> str:
    inputs, data = model.interface.inputs, model.interface
    if isinstance(inputs, (Audio, Spikes)):
        seconds = f", up to {inputs.length / inputs.hertz:g} s of it" if isinstance(inputs, Audio) else ""
        return f"sound (.wav, .flac, .ogg) of any rate, at {inputs.hertz} Hz{seconds}; or samples in .npz or .npy"
    if isinstance(inputs, Tokens):
        return f"{'text (.txt), or ' if inputs.text else ''}token numbers below {data.vocab} in .npz or .npy"
    return f"sequences of {data.d_input} channels and about {data.length} steps, in .npz, .npy or .csv"


def _answers(interface: Interface) -> str:
    """What a network answers with, in words."""
    names = ", ".join(_classes(interface))
    if isinstance(interface.targets, NumberTargets):
        each = "every step" if interface.targets.steps else "a sequence"
        later = f": what it reads, {interface.targets.horizon} steps later" if interface.targets.horizon else ""
        count = "a number" if interface.d_output == 1 else f"{interface.d_output} numbers ({names})"
        return f"it answers with {count} for {each}{later}"
    return f"labels, of which any may be there: {names}" if interface.targets is not None else f"classes: {names}"


def _classes(interface: Interface) -> list[str]:
    return [interface.class_name(number) for number in range(interface.d_output)]


def _lines(part: Sequences, answer: Prediction, interface: Interface) -> Iterator[str]:
    """A line a sequence, and the part of the right ones where their classes are known."""
    if interface.targets is not None:
        yield from target_lines(part, answer, interface)
        return
    width = max(map(len, part.names))
    right = 0
    known = _numbers(part.labels, interface)
    for row, name in enumerate(part.names):
        spikes = f"{int(answer.spikes[row])} spikes"
        if answer.names is None:
            steps = answer.labels[row][answer.labels[row] >= 0].tolist()
            said = ", ".join(f"{interface.class_name(c)} {100 * steps.count(c) / len(steps):.0f} %" for c in set(steps))
            yield f"{name:<{width}}  {len(steps)} steps: {said}  {spikes}"
            continue
        assert answer.probabilities is not None
        number = int(answer.labels[row])
        mark = ""
        if known is not None:
            right += number == known[row]
            mark = "" if number == known[row] else f"  (is {interface.class_name(int(known[row]))})"
        share = f"{100 * float(answer.probabilities[row, number]):5.1f} %"
        yield f"{name:<{width}}  {answer.names[row]}  {share}  {spikes}{mark}"
    if known is not None and answer.names is not None:
        yield f"{right} of {len(known)} right"


def _numbers(labels: Any, interface: Interface) -> np.ndarray | None:
    """Labels of sequences as numbers of the network's classes; None where there are none, or other ones."""
    try:
        found = interface.numbers(labels)
    except ValueError:  # a folder that is no class, say: the question is still answered
        return None
    return found if found is not None and found.ndim == 1 else None


def _head(model: TrainedModel) -> list[str]:
    if isinstance(model.interface.targets, NumberTargets):
        return ["sequence", "step", *value_names(model.interface), "spikes"]
    return ["sequence", "step", "label", *(f"p({name})" for name in _classes(model.interface)), "spikes"]


def _rows(names: Sequence[str], answer: Prediction, interface: Interface) -> Iterator[list[Any]]:
    """A row a sequence, or a row a step; the spikes of a sequence stand in its last row."""
    if interface.targets is not None:
        yield from target_rows(names, answer, interface)
        return
    assert answer.probabilities is not None
    for row, name in enumerate(names):
        labels, shares = answer.labels[row].reshape(-1), answer.probabilities[row].reshape(-1, interface.d_output)
        steps = [step for step, label in enumerate(labels.tolist()) if label >= 0]
        for step in steps:
            spikes = int(answer.spikes[row]) if step == steps[-1] else ""
            at = "" if answer.names is not None else step
            share = (f"{p:.6f}" for p in shares[step].tolist())
            yield [name, at, interface.class_name(int(labels[step])), *share, spikes]
