"""Suite ``rounds``: what a surrogate with rounds costs against the exact neuron, and how it grows.

``one round`` is an exact run of all chunks with its derivatives, and the correction of the seams. ``surrogate`` is the
whole layer: the guess and three rounds. Depth is what has to be done one step after another: (1 + K) C steps and
K + 1 recurrences over L / C seams, beside L steps.
"""

import torch

import sdn
from benchmarks.harness import Bench, Run, one_pass
from benchmarks.memory import peak
from sdn.dynamics.base import at_start
from sdn.ops.neuron.sequence import operands
from sdn.solvers import Surrogate
from sdn.surrogate.shooting import guess, starts_of

__all__ = ["NEURONS", "run", "variant"]

NEURONS: dict[str, sdn.Dynamics] = {
    "LIF .9": sdn.LIF(0.9),
    "LIF .9 soft": sdn.LIF(0.9, reset="soft"),
    "ALIF": sdn.ALIF(),
    "RF": sdn.RF(),
    "BRF": sdn.BRF(),
    "HRF": sdn.HRF(),
    "Izhikevich": sdn.IzhikevichRF(),
}
NAMES = ("exact, fused", "one round", "surrogate")
Shape = tuple[int, int, int]


def run(bench: Bench) -> None:
    """All tables of the suite."""
    shape: Shape = bench.pick((8, 2048, 128), (2, 512, 64), (2, 70, 5))
    for name in bench.pick([*NEURONS], ["LIF .9", "BRF"], ["LIF .9"]):
        found = {word: variant(word, name, shape) for word in NAMES}
        case = {"table": "rounds", "neuron": name, "shape": shape, "pass": "fwd"}
        bench.compare(case, found, torch.Size(shape).numel(), NAMES[:1])
        found = {word: variant(word, name, shape, backward=True) for word in (NAMES[0], NAMES[2])}
        bench.compare({**case, "pass": "fwd+bwd"}, found, torch.Size(shape).numel(), NAMES[:1])
    for word in bench.pick((NAMES[0], NAMES[2]), (), ()):
        for backward in (False, True):
            options = {"word": word, "name": "BRF", "shape": shape, "backward": backward}
            used = peak("benchmarks.rounds:variant", **options)
            if used is not None:
                size = used / torch.Size(shape).numel()
                bench.add(table="memory", variant=word, backward=backward, bytes_per_element=size)
    for length in bench.pick((256, 2048, 16384), (512,), (70,)):
        count = -(-length // 32)
        bench.add(table="depth", length=length, exact=length, surrogate_steps=4 * 32, seams=count)


def variant(word: str, name: str, shape: Shape, backward: bool = False, tiny: bool = False, device: str = "cpu") -> Run:
    """One of `NAMES` with its input in place."""
    dynamics, (batch, length, channels) = NEURONS[name], shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 64 if tiny else length, channels, generator=generator) * dynamics.default_std
    x = x.to(device)
    if word == "one round":
        return _round(dynamics, x)
    layer = sdn.Neuron(dynamics, channels, solver="surrogate" if word == "surrogate" else "fused")
    return one_pass(lambda current: layer(current)[0], x, backward)


def _round(dynamics: sdn.Dynamics, x: torch.Tensor) -> Run:
    """An exact run of all chunks from the guessed states, and the correction behind it."""
    network = Surrogate().stands_for(dynamics)[1].network.to(x.device)
    ready, state = at_start(dynamics, x, None)
    kernel, first, _ = operands(ready, x, state, dynamics.default_spike)
    with torch.no_grad():
        starts = guess(network, kernel, x, first)  # type: ignore[arg-type]

    def once() -> object:
        with torch.no_grad():
            return starts_of(network, kernel, x, starts, 32, 2)  # type: ignore[arg-type]

    return once
