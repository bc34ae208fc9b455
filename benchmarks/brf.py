"""Suite ``brf``: training steps of a recurrent BRF network against the network as it was published.

The published one is `benchmarks.brf_reference`, eager and under `torch.jit.script`, as its authors run it. A step is
forward, loss (of the last step for MNIST, of every step for the others) and backward. The weights are scaled so that
neurons matter to each other and a given share fires: at its start a BRF network does not fire at all. That all variants
compute the same spikes and gradients is checked first. Sums are taken in another order, so that sooner or later a
potential within rounding of its threshold spikes in one and not in the other; from there on the two are different runs.
So spikes are compared until the first such flip, gradients on the steps before it; in double precision there is hardly
one. Memory is that of a training step, in a process of its own.

No other library has a BRF cell. SpikingJelly's resonate-and-fire node (2.0) has a fixed frequency, turns by the exact
exponential, fires on the imaginary part and resets it: another neuron, whose time says nothing here. What can be
compared is a recurrent layer of LIF: `benchmarks.recurrent_peers`.
"""

from dataclasses import asdict, replace

import torch

from benchmarks import recurrent_peers
from benchmarks.brf_case import (
    EAGER,
    MNIST,
    OURS,
    RATES,
    SCRIPTED,
    SIZES,
    VARIANTS,
    Size,
    case,
    errors,
    forward,
    training_step,
)
from benchmarks.harness import Bench, Run, growth
from benchmarks.memory import peak

__all__ = ["run", "variant"]

RECIPES = {"ecg 16": (34, 400)}
"""Training steps of an epoch, and epochs of the published recipe."""


def run(bench: Bench) -> None:
    """The check, then steps, the recipe's time, growth, peers and memory."""
    tiny = bench.level == "tiny"
    check(bench)
    for name in bench.pick(tuple(SIZES), ("smnist 64", "ecg 16", "shd 32"), ("smnist 64", "ecg 16")):
        size = SIZES[name].tiny() if tiny else SIZES[name]
        if bench.level == "quick" and name.startswith("smnist"):
            size = replace(size, batch=8)
        for rate in RATES if name.startswith("smnist") and not tiny else RATES[1:]:
            seconds = _steps(bench, name, size, rate)
            if name in RECIPES:
                _recipe(bench, name, seconds)
    _growth(bench, tiny)
    peers = MNIST.tiny() if tiny else replace(MNIST, batch=bench.pick(MNIST.batch, 8))
    recurrent_peers.compare(bench, peers.batch, peers.length, peers.d_input, peers.d_model)
    for name in ("smnist 64", "smnist 256") if bench.level == "full" else ():
        _memory(bench, name)


def check(bench: Bench) -> None:
    """Spikes, loss and gradients of every variant against the published network's."""
    for name in ("smnist 64", "ecg 16"):
        size = bench.pick(SIZES[name], replace(SIZES[name], batch=4, length=200), SIZES[name].tiny())
        for rate in RATES:
            for dtype in (torch.float32, torch.float64):
                wide = dtype == torch.float64
                given = case(replace(size, batch=min(size.batch, 8)) if wide else size, rate, dtype)
                row = {"table": "check", "size": name, "wanted": rate, "dtype": str(dtype).removeprefix("torch.")}
                for variant_ in (*OURS, SCRIPTED):
                    bench.add(**row, variant=variant_, **errors(given, variant_))


def variant(name: str, size: str, rate: float, tiny: bool = False) -> Run:
    """One training step of a variant, for a process of its own; a tiny one compiles the same code."""
    full = SIZES[size]
    return training_step(name, case(replace(full, batch=2, length=50) if tiny else full, rate), warm=tiny)


def _steps(bench: Bench, name: str, size: Size, rate: float) -> dict[str, float]:
    given = case(size, rate)
    with torch.no_grad():
        fires = given.model.layers[0](given.x)[0].mean().item()
    row = {"table": "steps", "size": name, "wanted": rate, "rate": fires, **asdict(size)}
    seconds: dict[str, float] = {}
    for kind, make in (("forward", forward), ("training step", training_step)):
        runs = {v: make(v, given) for v in VARIANTS}
        seconds = bench.compare({**row, "pass": kind}, runs, size.elements, ("fused", EAGER, SCRIPTED))
    return seconds


def _recipe(bench: Bench, name: str, seconds: dict[str, float]) -> None:
    """The published recipe at these step times: training steps only, no optimiser, no data, no validation."""
    steps, epochs = RECIPES[name]
    for variant_, step in seconds.items():
        minutes = epochs * steps * step / 60
        bench.add(table="recipe", size=name, variant=variant_, steps=steps, epochs=epochs, step=step, minutes=minutes)


def _growth(bench: Bench, tiny: bool) -> None:
    """How a step's time grows with L, on a small batch."""
    lengths, names = bench.pick((784, 1568, 3136, 6272), (784, 1568), (50, 100)), ("fused", EAGER)
    found: list[dict[str, float]] = []
    for length in lengths:
        size = replace(MNIST.tiny() if tiny else replace(MNIST, batch=bench.pick(16, 4)), length=length)
        given = case(size, RATES[0])
        row = {"table": "lengths", "pass": "training step", **asdict(size)}
        found.append(bench.compare(row, {v: training_step(v, given) for v in names}, size.elements, ("fused",)))
    for name in names:
        exponent = growth(lengths, [seconds[name] for seconds in found])
        span = {"since": lengths[0], "until": lengths[-1]}
        bench.add(table="growth", variant=name, passes="training step", **span, exponent=exponent)


def _memory(bench: Bench, name: str) -> None:
    for variant_ in VARIANTS:
        found = peak("benchmarks.brf:variant", name=variant_, size=name, rate=RATES[0])
        if found is None:
            bench.note(f"memory of {variant_}, {name}: not measured (its own process ran out of memory or time)")
            continue
        bench.add(table="memory", size=name, variant=variant_, mebibytes=found / 2**20)
