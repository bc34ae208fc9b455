"""Neurons that never fire and neurons that always do, layer by layer: neither tells the next layer anything."""

import inspect
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sdn.checks.arguments import check_tensor
from spikingssm.measures.spikes import Firing, SpikeRecord, neurons_of, watch_neurons
from spikingssm.models.base import evaluating

__all__ = ["DeadReport", "LayerActivity", "check_limits", "dead_neurons", "judged"]


class LayerActivity(NamedTuple):
    """What the neurons of a layer did: ``rates`` (H,), and the indices of those that never and those that always fire.

    A rate is spikes per step, in [0, 1].
    """

    rates: Tensor
    silent: Tensor
    loud: Tensor

    @property
    def silent_share(self) -> float:
        """The share of the neurons that never fire, in [0, 1]."""
        return len(self.silent) / len(self.rates)

    @property
    def loud_share(self) -> float:
        """The share of the neurons that always fire, in [0, 1]."""
        return len(self.loud) / len(self.rates)


class DeadReport(dict[str, LayerActivity]):
    """`LayerActivity` by the name of the layer; ``print`` shows a table."""

    def __str__(self) -> str:
        wide = max(len("layer"), *map(len, self))
        lines = [f"{'layer':<{wide}}  neurons  never fire      always fire     spikes per step"]
        for name, layer in self.items():
            parts = [
                f"{len(found):>5} ({share:7.2%})"
                for found, share in ((layer.silent, layer.silent_share), (layer.loud, layer.loud_share))
            ]
            lines.append(f"{name:<{wide}}  {len(layer.rates):>7}  {'  '.join(parts)}  {layer.rates.mean():.4f}")
        return "\n".join(lines)

    @property
    def rates(self) -> dict[str, float]:
        """Spikes per neuron and step of each layer, as `sdn.plot.rates` takes them."""
        return {name: float(layer.rates.mean()) for name, layer in self.items()}


@torch.no_grad()
def dead_neurons(
    model: nn.Module, x: Tensor, lengths: Tensor | None = None, *, silent: float = 0.0, loud: float = 1.0
) -> DeadReport:
    """Run a model on a batch in eval mode and tell which neurons of each layer never fire, and which always do.

    Args:
        model: any module that holds layers of neurons (`sdn.SpikingLayer`, such as `sdn.Neuron`); its mode is restored.
        x: a batch of its input, e.g. (B, L, C).
        lengths: (B,) steps of each row that are real, where the rest is padding; None is all. They go to a model whose
            ``forward`` takes ``lengths``.
        silent: up to so many spikes per step a neuron counts as one that never fires.
        loud: from so many spikes per step on it counts as one that always fires.

    Returns:
        layer name -> `LayerActivity`: ``silent`` and ``loud`` are indices of neurons, ``silent_share`` and
        ``loud_share`` their shares, and ``rates`` (H,) the spikes per step. It can be printed.

    Raises:
        ValueError: a model without neurons or whose neurons were not run, limits that are not
            0 <= silent < loud <= 1, or lengths that do not fit.

    Example:
        >>> found = spikingssm.dead_neurons(net, x)
        >>> print(found)
        >>> found["1"].silent  # indices of the neurons that never fired
    """
    check_limits("dead_neurons", silent, loud)
    check_tensor("dead_neurons", "x", x)
    named = {} if lengths is None else {"lengths": lengths}
    told = lengths is not None and "lengths" in inspect.signature(model.forward).parameters
    mask = None if told or lengths is None else _mask(x, lengths)
    record = SpikeRecord({name: layer.channels for name, layer in neurons_of(model).items()})

    def look(seen: Firing) -> None:
        valid = seen.valid
        if valid is None and mask is not None:
            if seen.spikes.shape[:2] != mask.shape:
                raise ValueError(
                    f"dead_neurons: {seen.name} has {tuple(seen.spikes.shape[:2])} rows and steps, lengths are of "
                    f"{tuple(mask.shape)}; give the model's forward an argument lengths, or leave lengths out."
                )
            valid = mask.to(seen.spikes.device)
        record.add(seen.name, seen.spikes, valid)

    with watch_neurons(model, look), evaluating(model):
        model(x, **(named if told else {}))
    if not (found := judged(record, silent, loud)):
        raise ValueError(f"dead_neurons: {type(model).__name__} has run none of its neurons on x {tuple(x.shape)}.")
    return found


def judged(record: SpikeRecord, silent: float = 0.0, loud: float = 1.0) -> DeadReport:
    """What a record says of every layer that was run, by the limits of `dead_neurons`."""
    return DeadReport(
        {
            name: LayerActivity(rates, (rates <= silent).nonzero().flatten(), (rates >= loud).nonzero().flatten())
            for name, rates in record.by_neuron().items()
        }
    )


def check_limits(who: str, silent: float, loud: float) -> None:
    """Refuse limits that are not 0 <= silent < loud <= 1.

    Raises:
        ValueError: they are not.
    """
    if not 0 <= silent < loud <= 1:
        raise ValueError(f"{who}: needs 0 <= silent < loud <= 1, spikes per step, got {silent:g} and {loud:g}.")


def _mask(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, L), True at steps that are real."""
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"dead_neurons: lengths must be ({x.shape[0]},) for x {tuple(x.shape)}, got {lengths.shape}.")
    return torch.arange(x.shape[1], device=lengths.device) < lengths.unsqueeze(1)
