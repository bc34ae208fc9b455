"""Suite ``surrogate``: what an SDN costs against the exact neuron it stands for, over rows and lengths.

LIF of decay 0.125 with the shipped network. ``eager`` is the reduced network over rows (B*H, L), ``published`` the same
chain of 8-channel convolutions under `torch.jit.script`. Forward without gradient is prediction of the membrane and
the step; forward and backward adds the spike gradient.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

import sdn
from benchmarks.harness import Bench, Run, one_pass
from benchmarks.loops import ScriptedSDN, unbind_loop
from benchmarks.memory import available, peak
from sdn.gradients import spike

__all__ = ["run", "variant"]

DYNAMICS = sdn.LIF(decay=0.125)
NAMES = ("exact, fused", "surrogate", "surrogate, refine=2", "parallel", "eager", "published", "exact, unbind")
SOLVERS: dict[str, Callable[[], object]] = {
    "exact, fused": lambda: "fused",
    "surrogate": lambda: "surrogate",
    "surrogate, refine=2": lambda: sdn.Surrogate(refine=2),
    "parallel": lambda: "parallel",
}
BYTES = 200
"""Memory per element of the published form, rounded up."""
Shape = tuple[int, int, int]


def run(bench: Bench) -> None:
    """All tables of the suite."""
    full: list[Shape] = [(1, 1024, 16), (1, 1024, 64), (4, 1024, 64), (4, 1024, 256), (8, 1024, 512), (8, 4096, 512)]
    shapes: list[Shape] = bench.pick(full, full[2:3], [(2, 20, 5)])
    for shape, backward in itertools.product(shapes, (False, True)):
        found = {name: r for name in NAMES if (r := _maybe(bench, name, shape, backward))}
        word, rows = "fwd+bwd" if backward else "fwd", shape[0] * shape[2]
        case = {"table": "surrogate", "neuron": "LIF hard", "shape": shape, "rows": rows, "pass": word}
        bench.compare(case, found, torch.Size(shape).numel(), ("exact, fused", "exact, unbind"))
    shape = bench.pick((8, 4096, 512), (4, 1024, 64))
    for name, backward in itertools.product(bench.pick(NAMES, NAMES[1:2], ()), bench.pick((False, True), (False,))):
        if _maybe(bench, name, (1, 16, 16), backward) is None:
            continue
        found_bytes = peak("benchmarks.surrogate:variant", name=name, shape=shape, backward=backward)
        if found_bytes is not None:
            size, word = found_bytes / torch.Size(shape).numel(), "fwd+bwd" if backward else "fwd"
            bench.add(table="memory", variant=name, shape=shape, passes=word, bytes_per_element=size)


def variant(name: str, shape: Shape, backward: bool, tiny: bool = False) -> Run:
    """One of `NAMES` with its input in place, in the layout that it likes best."""
    batch, length, channels = (shape[0], 16, shape[2]) if tiny else shape
    x = torch.randn(batch, length, channels, generator=torch.Generator().manual_seed(0))
    if name == "exact, unbind":
        return one_pass(lambda current: unbind_loop(current, 0.125), x, backward)
    if name in SOLVERS:
        neuron = sdn.Neuron(DYNAMICS, channels, solver=SOLVERS[name]())  # type: ignore[arg-type]
        return one_pass(lambda current: neuron(current)[0], x, backward)
    network = shipped() if name == "eager" else torch.jit.script(ScriptedSDN())

    def whole(rows: Tensor) -> Tensor:
        with torch.no_grad():
            mem = network(rows.detach())
        return spike(mem + rows - 1, DYNAMICS.default_spike, True)

    return one_pass(whole, x.transpose(1, 2).reshape(-1, length), backward)


def shipped() -> sdn.ReducedSDN:
    """The network that ships for the dynamics of this suite."""
    from sdn.surrogate.artifact import shipped_artifacts

    for path in shipped_artifacts():
        artifact = sdn.load_artifact(path)
        if artifact.dynamics == DYNAMICS:
            return artifact.network
    raise ValueError(f"no artifact ships for {DYNAMICS}.")


def _maybe(bench: Bench, name: str, shape: Shape, backward: bool) -> Run | None:
    if name in ("eager", "published") and torch.Size(shape).numel() * BYTES > 0.7 * available():
        bench.note(f"{name} at {shape} left out: it needs {BYTES} bytes an element")
        return None
    try:
        variant(name, (1, 16, shape[2]), backward)()
        return variant(name, shape, backward)
    except (ValueError, TypeError, NotImplementedError) as reason:
        bench.note(f"{name} left out: {str(reason).splitlines()[0]}")
        return None
