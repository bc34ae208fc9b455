"""What a network says of a stream, as a table of tabs, as JSON, and summed up at the end."""

from collections.abc import Iterator
from typing import Any

from spikingssm.datasets.inputs import Audio
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.targets import NumberTargets
from spikingssm.experiments.answers import value_names
from spikingssm.experiments.listening import Answer, Heard, Listener

__all__ = ["as_json", "columns", "row", "summary"]

MOST_CLASSES = 100
"""Classes whose probabilities stand in a line of JSON."""


def columns(listener: Listener, interface: Interface) -> list[str]:
    """The names of what `row` gives."""
    names = value_names(interface) if isinstance(interface.targets, NumberTargets) else ["answer", "probability"]
    now = [f"{name}_now" for name in names] if listener.averages else []
    window = ["window"] if listener.windows else []
    return ["step" if listener.rate is None else "seconds", *window, *names, *now, "spikes", "spikes_in_all"]


def row(said: Heard, listener: Listener, interface: Interface) -> list[str]:
    """One line of the table; the answer is empty within the steps that the task leaves out."""
    cells = [str(said.step) if said.seconds is None else f"{said.seconds:.3f}"]
    cells += [str(said.window)] if listener.windows else []
    cells += _cells(said.answer, interface)
    cells += _cells(said.now, interface) if listener.averages else []
    return [*cells, str(sum(said.spikes.values())), str(sum(said.total.values()))]


def as_json(said: Heard, listener: Listener, interface: Interface) -> dict[str, Any]:
    """The same and more as plain values: probabilities of all classes, spikes by layer."""
    found: dict[str, Any] = {"step": said.step}
    if said.seconds is not None:
        found["seconds"] = round(said.seconds, 6)
    if listener.windows:
        found["window"] = said.window
    found |= _plain(said.answer, interface)
    if listener.averages:
        found |= {f"{key}_now": value for key, value in _plain(said.now, interface).items()}
    found |= {"spikes": sum(said.spikes.values()), "spikes_in_all": sum(said.total.values())}
    return {**found, "layers": said.spikes, "layers_in_all": said.total}


def summary(listener: Listener, interface: Interface, wall: float, busy: float | None = None) -> Iterator[str]:
    """How long it was, how long it took, and how often each layer fired.

    Args:
        listener: that has run.
        interface: of its network.
        wall: seconds from the first to the last block.
        busy: seconds of these in which blocks were prepared and run; None where that is nearly all.
    """
    wall = max(wall, 1e-9)
    if listener.rate is None:
        yield f"{listener.steps} steps in {wall:.3f} s, {listener.steps / wall:.0f} steps a second"
    else:
        seconds = listener.steps / listener.rate
        sound = " of sound" if isinstance(interface.inputs, Audio) else ""
        alone = "" if busy is None else f", the network alone {seconds / max(busy, 1e-9):.1f} times"
        said = f"{seconds:.3f} s{sound} in {wall:.3f} s: {seconds / wall:.1f} times real time{alone}"
        yield f"{listener.steps} steps, {said}"
    names = ["all layers", *listener.total]
    counts = [sum(listener.total.values()), *listener.total.values()]
    neurons = [sum(listener.neurons.values()), *listener.neurons.values()]
    width, digits = max(map(len, names)), len(str(max(counts)))
    for name, count, size in zip(names, counts, neurons, strict=True):
        rate = count / max(1, size * listener.frames)
        yield f"{name:<{width}}  {count:>{digits}} spikes, {100 * rate:.3f} % of the steps of its {size} neurons"


def _cells(answer: Answer | None, interface: Interface) -> list[str]:
    if isinstance(interface.targets, NumberTargets):
        return [f"{value:.9g}" for value in answer.value] if answer else [""] * interface.d_output
    if answer is None:
        return ["", ""]
    if isinstance(answer.value, list):
        shares = dict(zip(_classes(interface), answer.probabilities, strict=True))  # type: ignore[arg-type]
        return [";".join(map(str, answer.value)), ";".join(f"{shares[str(name)]:.6f}" for name in answer.value)]
    assert answer.probabilities is not None
    return [answer.value, f"{answer.probabilities.max():.6f}"]


def _plain(answer: Answer | None, interface: Interface) -> dict[str, Any]:
    if answer is None:
        return {"answer": None}
    if isinstance(interface.targets, NumberTargets):
        return {"answer": dict(zip(value_names(interface), answer.value, strict=True))}
    assert answer.probabilities is not None
    found: dict[str, Any] = {"answer": answer.value}
    shares = [round(float(share), 6) for share in answer.probabilities]
    if isinstance(answer.value, str):
        found["probability"] = max(shares)
    if len(shares) <= MOST_CLASSES:
        found["probabilities"] = dict(zip(_classes(interface), shares, strict=True))
    return found


def _classes(interface: Interface) -> list[str]:
    return [interface.class_name(number) for number in range(interface.d_output)]
