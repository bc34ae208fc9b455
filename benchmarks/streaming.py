"""Suite ``streaming``: one step of a network at batch 1, by ``model.step``, by chunks, and by ``compile_step``.

A turn runs 160 steps, 10 ms of sound at 16 kHz. Times are of one step. "one call a step" pays for the call from Python,
"blocks of 160" once for all of them. Before anything is timed, the spikes and the logits are compared.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Bench, Run
from spikingssm import RSNN, S5RF, SpikingSSM

__all__ = ["NETWORKS", "run", "variants"]

STEPS = 160
NETWORKS: dict[str, Callable[[bool], Any]] = {
    "SpikingSSM 3 x 64, N 32": lambda tiny: SpikingSSM(
        1, 10, 8 if tiny else 64, 1 if tiny else 3, 4 if tiny else 32, solver="fused"
    ),
    "S5-RF 3 x 128": lambda tiny: S5RF(1, 10, 8 if tiny else 128, 1 if tiny else 3),
    "RSNN 256 (BRF)": lambda tiny: RSNN(1, 10, 8 if tiny else 256, pool="mean"),
}


def run(bench: Bench) -> None:
    """A table of all networks."""
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        model = make(bench.level == "tiny").eval()
        x = torch.randn(1, STEPS, 1)
        found, facts = variants(model, x)
        case = {"table": "step", "network": name, "steps": STEPS}
        with torch.no_grad():
            times = bench.compare(case, found, STEPS, ("model.step",))
        hertz = {word: STEPS / seconds for word, seconds in times.items()}
        for word, rate in hertz.items():
            bench.add(table="real time", network=name, variant=word, steps_a_second=rate, at_16_khz=rate / 16_000)
        bench.add(table="equality", network=name, **facts)


def variants(model: nn.Module, x: torch.Tensor) -> tuple[dict[str, Run], dict[str, Any]]:
    """Runs of all steps of x (1, L, C), and how much the compiled one differs from the network."""
    network: Any = model
    stream, arrays = network.compile_step(), x[0].numpy()
    with torch.no_grad():
        whole, _ = network(x)
    checked = stream.initial_state()
    logits = stream.run(arrays, checked)[-1]
    if not np.allclose(logits, whole[0].numpy(), atol=1e-5):
        raise AssertionError(f"the compiled step differs by {np.abs(logits - whole[0].numpy()).max()}")
    fired = int(checked.counts.sum())
    facts = {"error": float(np.abs(logits - whole[0].numpy()).max()), "spikes": fired}
    facts["rate"] = fired / (len(arrays) * sum(stream.layers.values()))
    steps, one, block = [*x.unbind(1)], stream.initial_state(), stream.initial_state()

    def eager() -> None:
        state = None
        for step in steps:
            _, state = network.step(step, state)

    def chunks() -> None:
        state = None
        for part in x.split(16, 1):
            _, state = network(part, state)

    def calls() -> None:
        for step in arrays:
            stream.step(step, one)

    found = {"model.step": eager, "model, chunks of 16": chunks, "compiled, one call a step": calls}
    return {**found, f"compiled, blocks of {len(arrays)}": lambda: stream.run(arrays, block)}, facts
