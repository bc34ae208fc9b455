"""How far a network under one solver is from the same network with exact neurons, layer by layer."""

from collections import defaultdict
from contextlib import ExitStack
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from sdn import SpikingLayer
from spikingssm.datasets.base import Batch
from spikingssm.measures.spikes import Firing, neurons_of, watch_neurons
from spikingssm.models.base import able

__all__ = ["Agreement", "SpikeTally", "exactly"]


class SpikeTally:
    """Two spike trains of one shape, compared over any number of batches; only counts are kept."""

    def __init__(self) -> None:
        self._both: Tensor | int = 0
        self._fired: Tensor | int = 0
        self._elements: Tensor | int = 0

    def add(self, spikes: Tensor, other: Tensor, valid: Tensor | None = None) -> None:
        """Count a batch: (B, L, H) each, and the steps (B, L) that count; None is all."""
        one, two = spikes.bool(), other.bool()
        if valid is None:
            elements: Tensor | int = one.numel()
        else:
            one, two, elements = one & valid[..., None], two & valid[..., None], valid.sum() * one.shape[-1]
        self._both = self._both + (one & two).sum()
        self._fired = self._fired + one.sum() + two.sum()
        self._elements = self._elements + elements

    def scores(self) -> dict[str, float]:
        """``agreement``: part of all elements that are equal; ``f1`` of the spikes, 1 where neither side has any."""
        both, fired, elements = int(self._both), int(self._fired), int(self._elements)
        return {"agreement": 1 - (fired - 2 * both) / max(1, elements), "f1": 2 * both / fired if fired else 1.0}


class Agreement(Callback):
    """Compare the spikes of a network with those of exact neurons, batch by batch, while a trainer tests it.

    Two comparisons: "network", where both networks run from the input on, each on its own spikes, so that differences
    add up with depth; and "layer", where the exact neuron gets the very currents of the network's own, so that each
    layer answers for itself. Padding is left out. At most one batch of spikes is kept.
    """

    def __init__(self) -> None:
        self.network: dict[str, SpikeTally] = defaultdict(SpikeTally)
        self.layer: dict[str, SpikeTally] = defaultdict(SpikeTally)
        self._exact: Any = None
        self._neurons: dict[str, SpikingLayer] = {}
        self._open = ExitStack()
        self._seen: dict[str, list[tuple[Tensor, Tensor | None]]] = defaultdict(list)
        self._state: Any = None  # of the exact network, where batches follow one another in a stream
        self._states: dict[str, Any] = {}  # of the exact neurons on the network's own currents

    def scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """ "network" and "layer" -> layer -> `SpikeTally.scores`."""
        tallies = {"network": self.network, "layer": self.layer}
        return {kind: {name: tally.scores() for name, tally in found.items()} for kind, found in tallies.items()}

    def on_test_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Make the exact network, of the very same parameters."""
        self._exact = exactly(pl_module.model).eval()
        self._neurons, self._state = neurons_of(self._exact), None

    def on_test_batch_start(self, trainer: lightning.Trainer, pl_module: Any, *_: Any) -> None:
        """Watch the network."""
        self._open.enter_context(watch_neurons(pl_module.model, self._look))

    def on_test_batch_end(self, trainer: lightning.Trainer, pl_module: Any, _: Any, batch: Batch, *__: Any) -> None:
        """Run the exact network on the same batch."""
        self._open.close()
        with trainer.precision_plugin.forward_context(), watch_neurons(self._exact, self._compare):
            found = pl_module.task.run(self._exact, batch, self._state, training=False)
        self._state = found.state if pl_module.carry_state else None
        self._seen.clear()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Leave the network as it was."""
        self._open.close()

    def _look(self, firing: Firing) -> None:
        before = None if firing.state is None else self._states[firing.name]
        spikes, self._states[firing.name] = self._neurons[firing.name](firing.current, before)
        self.layer[firing.name].add(firing.spikes, spikes, firing.valid)
        self._seen[firing.name].append((firing.spikes.bool(), firing.valid))

    def _compare(self, firing: Firing) -> None:
        own, valid = self._seen[firing.name].pop(0)
        self.network[firing.name].add(own, firing.spikes, valid)


def exactly(model: nn.Module) -> nn.Module:
    """A model with exact neurons and the very same parameters: fused, or by the loop where a neuron has no kernel.

    Raises:
        ValueError: a model without ``with_solver``.
    """
    swappable = able(model, "with_solver", "by which it could get exact neurons")
    try:
        exact: nn.Module = swappable.with_solver("fused")
    except NotImplementedError:
        exact = swappable.with_solver("loop")
    return exact
