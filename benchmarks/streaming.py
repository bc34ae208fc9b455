"""Suite ``streaming``: one step of a network at batch 1, by ``model.step``, by ``compile_step``, and by other programs.

A turn runs 160 steps, 10 ms of sound at 16 kHz. Times are of one step. "one call a step" pays for the call from Python,
"blocks of 160" once for all of them. Before anything is timed, the spikes and the logits are compared.

The table "sound" is `spikingssm stream` over a file: reading, resampling and the network. It has the seconds of
sound in a second of CPU time, and how much the peak of the memory grew after the first tenth.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import nn

from benchmarks.harness import Bench, Run
from benchmarks.streaming_others import others
from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.datasets.inputs import Audio
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.sources import open_source
from spikingssm.experiments.listening import listener_of
from spikingssm.experiments.trained import TrainedModel
from spikingssm.tasks import Classification

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
    """A table of all networks, one by one and over a sound file."""
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        model = make(bench.level == "tiny").eval()
        x = torch.randn(1, STEPS, 1)
        found, facts = variants(model, x)
        found |= others(bench, model, x)
        case = {"table": "step", "network": name, "steps": STEPS}
        with torch.no_grad():
            times = bench.compare(case, found, STEPS, ("model.step",))
        hertz = {word: STEPS / seconds for word, seconds in times.items()}
        for word, rate in hertz.items():
            bench.add(table="real time", network=name, variant=word, steps_a_second=rate, at_16_khz=rate / 16_000)
        bench.add(table="equality", network=name, **facts)
    sounds(bench)


def sounds(bench: Bench) -> None:
    """One network over sound files of several lengths and rates; those of the full level take two minutes."""
    torch.manual_seed(0)
    network = NETWORKS["SpikingSSM 3 x 64, N 32"](bench.level == "tiny").eval()
    interface = Interface("sound", 16_000, 1, 10, Audio(16_000, 0.1))
    model = TrainedModel(network, interface, Classification(), {}, {}, Path())
    seconds = bench.pick([60, 600], [10], [1])
    with tempfile.TemporaryDirectory() as folder:
        for rate, channels, length in [*((16_000, 1, each) for each in seconds), (44_100, 2, seconds[0])]:
            path = Path(folder) / f"{rate}-{length}.wav"
            write_noise(path, rate, channels, length)
            case = {"table": "sound", "hertz": rate, "channels": channels, "seconds": length}
            bench.add(**case, **streamed(model, path, length))


def write_noise(path: Path, rate: int, channels: int, seconds: int) -> None:
    """A WAV file of noise, written second by second."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for _ in range(seconds):
            file.write(0.1 * rng.standard_normal((rate, channels)))


def streamed(model: TrainedModel, path: Path, seconds: int) -> dict[str, float]:
    """Seconds of sound in one of CPU time, the spike rate, and MiB by which the peak grew, of one file."""
    source = open_source(str(path), model.interface)
    listener = listener_of(model, source.rate, loud=source.loud)
    start, early = time.process_time(), 0.0
    for block in source.blocks:
        [*listener.hear(block)]
        if not early and listener.steps >= 1600 * seconds:
            early = peak()
    [*listener.end()]
    took, late = time.process_time() - start, peak()
    rate = sum(listener.total.values()) / (listener.frames * sum(listener.neurons.values()))
    return {"times_real_time": seconds / took, "rate": rate, "grown_mib": late - early, "peak_mib": late}


def peak() -> float:
    """The largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
