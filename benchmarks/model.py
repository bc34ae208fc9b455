"""Suite ``model``: whole training steps of SpikingSSM against the published forms, and the neuron's share alone.

A step is forward, cross entropy, backward, AdamW. Sizes: sequential MNIST (2 blocks of 400, batch 50, L=784) and a long
one (6 blocks of 128, batch 4, L=16000), N=64. Where a variant would take more than an hour a step (the select loop at
L=16000, quadratic in L) its neuron is measured at shorter L and the step is *extrapolated*; the row says so.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import sdn
from benchmarks.harness import Bench, Run, one_pass
from benchmarks.memory import peak
from benchmarks.published_model import NEURONS, PublishedModel, published_neuron
from spikingssm.models import SpikingSSM

__all__ = ["SIZES", "Size", "neuron_variant", "run", "variant"]

OURS = ("fused", "parallel", "surrogate", "loop")
DYNAMICS = sdn.LIF(decay=0.125)


@dataclass(frozen=True)
class Size:
    """One network and its batch."""

    n_layers: int
    d_model: int
    batch: int
    length: int
    d_state: int = 64

    @property
    def elements(self) -> int:
        """Neuron steps of one training step."""
        return self.n_layers * self.d_model * self.batch * self.length


SIZES = {
    "tiny": Size(1, 8, 2, 32, 4),
    "quick": Size(2, 64, 8, 784),
    "smnist": Size(2, 400, 50, 784),
    "long": Size(6, 128, 4, 16000),
}
SELECT_LIMIT = 1500
"""Steps up to which the select loop is run."""


def run(bench: Bench) -> None:
    """Steps, shares and memory."""
    for size in bench.pick(("smnist", "long"), ("quick",), ("tiny",)):
        neurons = _neurons(bench, size)
        steps = _steps(bench, size)
        for name in (name for name in steps if name in neurons):
            share = SIZES[size].n_layers * neurons[name] / steps[name]
            bench.add(table="share", size=size, variant=name, share=share)
        if SIZES[size].length > SELECT_LIMIT and "unbind loop" in steps:
            _extrapolate(bench, size, steps["unbind loop"], neurons["unbind loop"])
        if bench.level == "full":
            _memory(bench, size, list(steps))


def variant(name: str, size: str, tiny: bool = False) -> Run:
    """One training step of a network whose neuron is a solver of ours, or one of the published forms."""
    torch.manual_seed(0)
    given = SIZES["tiny" if tiny else size]
    x = torch.randn(given.batch, given.length, 1)
    labels = torch.randint(10, (given.batch,))
    model = _model(name, given).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        out = model(x)
        loss = nn.functional.cross_entropy(out[0] if isinstance(out, tuple) else out, labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def neuron_variant(name: str, size: str, length: int | None = None, tiny: bool = False) -> Run:
    """Forward and backward of one layer of neurons of that network, in the layout that S4D's convolution gives."""
    given = SIZES["tiny" if tiny else size]
    x = torch.randn(given.batch, given.d_model, length or given.length)
    if name in NEURONS:
        return one_pass(published_neuron(name), x, backward=True)
    neuron = sdn.Neuron(DYNAMICS, given.d_model, learn={"threshold": None}, solver=name)
    incoming = torch.randn(given.batch, x.shape[2], given.d_model).transpose(1, 2)
    inner = one_pass(lambda current: neuron(current.transpose(1, 2))[0].transpose(1, 2), x, True, incoming)

    def both() -> None:
        inner()
        neuron.zero_grad(set_to_none=True)

    return both


def _model(name: str, size: Size) -> nn.Module:
    if name in NEURONS:
        return PublishedModel(1, 10, size.d_model, size.n_layers, size.d_state, neuron=name)
    return SpikingSSM(1, 10, size.d_model, size.n_layers, size.d_state, dynamics=DYNAMICS, solver=name)


def _steps(bench: Bench, size: str) -> dict[str, float]:
    found = _there(bench, size, lambda name: variant(name, size))
    case = {"table": "steps", "size": size, "pass": "training step", **vars(SIZES[size])}
    return bench.compare(case, found, SIZES[size].elements, ("fused", "surrogate"))


def _neurons(bench: Bench, size: str) -> dict[str, float]:
    found = _there(bench, size, lambda name: neuron_variant(name, size))
    case = {"table": "neuron alone", "size": size, "pass": "fwd+bwd", **vars(SIZES[size])}
    elements = SIZES[size].elements // SIZES[size].n_layers
    return bench.compare(case, found, elements, ("fused", "surrogate"))


def _there(bench: Bench, size: str, make: Callable[[str], Run]) -> dict[str, Run]:
    found = {}
    for name in (*OURS, *NEURONS):
        if name == "select loop" and SIZES[size].length > SELECT_LIMIT:
            continue
        try:
            variant(name, size, tiny=True)()
            found[name] = make(name)
        except (ValueError, NotImplementedError) as reason:
            bench.note(f"{name} left out: {str(reason).splitlines()[0]}")
    return found


def _extrapolate(bench: Bench, size: str, step: float, neuron: float) -> None:
    """The select loop's step: that of the unbind loop with the neurons' time replaced by a power law's value."""
    lengths, seconds = (250, 500, 1000), []
    for length in lengths:
        run = neuron_variant("select loop", size, length)
        run()
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
        bench.add(table="select loop", size=size, length=length, seconds=seconds[-1])
    # a L + b L^2 through the first and the last: one pass over L steps, each of which touches all L.
    (l1, t1), (l2, t2) = (lengths[0], seconds[0]), (lengths[-1], seconds[-1])
    b = max(0.0, (t2 / l2 - t1 / l1) / (l2 - l1))
    a = t1 / l1 - b * l1
    given = SIZES[size]
    one = a * given.length + b * given.length**2
    whole = step + given.n_layers * (one - neuron)
    row: dict[str, Any] = {"neuron_seconds": one, "seconds": whole, "exponent": math.log(t2 / t1) / math.log(l2 / l1)}
    bench.add(table="steps", size=size, variant="select loop, extrapolated", **row)


def _memory(bench: Bench, size: str, names: list[str]) -> None:
    for name in names:
        found = peak("benchmarks.model:variant", name=name, size=size)
        if found is None:
            bench.note(f"memory of {name} at {size}: not measured (a process of its own ran out of memory or time)")
        else:
            bench.add(table="memory", size=size, variant=name, gibibytes=found / 2**30)
