"""Pictures of a `Fidelity`; needs matplotlib."""

from typing import Any

from sdn.plot.parts import pyplot

__all__ = ["draw"]

WINDOW = 256


def draw(found: Any) -> Any:
    """A figure of a `sdn.Fidelity`: wrong spikes by family beside what knows nothing, over time, and behind layers."""
    figure, (left, middle, right) = pyplot().subplots(
        1, 3, figsize=(12, 3.2), layout="constrained", width_ratios=[2, 1, 1]
    )
    names = [*found.families]
    places = range(len(names))
    for shift, (word, score) in enumerate({"surrogate": "agreement", "mem = 0": "mem0", "no spike": "silent"}.items()):
        heights = [max(1e-5, 1 - getattr(found.families[name], score)) for name in names]
        left.bar([place + 0.27 * (shift - 1) for place in places], heights, 0.25, label=word)
    left.set_xticks([*places], names, rotation=30, ha="right")
    left.set(yscale="log", ylabel="wrong spikes, share of steps")
    figure.suptitle(found.neuron[:100], fontsize="medium")
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize="small")
    middle.plot([WINDOW * (i + 0.5) for i in range(len(found.over_time))], found.over_time, marker=".")
    middle.set(xlabel="steps since the start", ylabel="wrong spikes", ylim=(0, None))
    right.plot(range(1, len(found.over_layers) + 1), [1 - value for value in found.over_layers], marker=".")
    right.set(xlabel="layers", ylabel="wrong spikes", ylim=(0, None))
    return figure
