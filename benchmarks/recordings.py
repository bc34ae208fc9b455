"""Suite ``recordings``: neurons learned from demo recordings, judged on families of stimuli that were held out.

An AdEx and a Hodgkin-Huxley neuron, simulated in float64 by `tests/recordings.py` and sampled at 1 ms. Fitted to white,
pink and stepped currents, judged on sinusoids and ramps: F1 at +-1 step and explained variance of the counts in 20
steps, spikes running free. Beside them the best LIF fit, the best level of the current alone (``mem = 0``), and the
simulator itself where it is given the currents of 1 ms, which is what no model at this step can surpass. A LIF of known
fields shows what `fit_dynamics` gives back.
"""

import sys
import time
from pathlib import Path
from typing import Any

import sdn
from benchmarks.harness import Bench
from sdn.recordings.data import Recording
from sdn.recordings.fitted import Fitted
from sdn.recordings.known import fit_dynamics
from sdn.recordings.scores import SpikeScores, score_spikes
from sdn.recordings.unknown import learn_neuron

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import recordings as demos

__all__ = ["run"]

HELD_OUT = ("sinusoid", "ramps")
KINDS = ("adex", "hh")


def run(bench: Bench) -> None:
    """All tables of the suite."""
    rows, length, steps, poles, hidden = bench.pick((8, 1000, 1000, 6, 6), (6, 600, 400, 4, 4), (2, 200, 5, 1, 1))
    for kind in KINDS:
        fine = demos.demo(kind, length, rows, seed=1)
        recording = fine.resampled(1.0)
        print(f"\n{kind}: {recording}")
        for name, found, seconds in _fits(recording, steps, poles, hidden):
            _add(bench, kind, name, found.scores, seconds)
        _add(bench, kind, "current alone", found.without_past, 0.0)
        _add(bench, kind, "simulator at 1 ms", _ceiling(kind, fine, recording), 0.0)
    _known(bench, bench.pick(200, 60, 2))


def _fits(recording: Recording, steps: int, poles: int, hidden: int) -> list[tuple[str, Fitted, float]]:
    """Name, fit and seconds of the best LIF and of the learned neuron."""
    start = time.process_time()
    lifs = [
        fit_dynamics(sdn.LIF(decay, reset=reset), recording, ("decay",), steps=min(steps, 200), held_out=HELD_OUT)
        for decay in (0.9,)
        for reset in ("hard", "soft")
    ]
    best = max(lifs, key=lambda fit: fit.scores["fitted"].f1)
    middle = time.process_time()
    learned = learn_neuron(recording, poles, hidden, steps=steps, held_out=HELD_OUT)
    name = f"learned, {poles} poles, {hidden} units"
    return [("best LIF", best, middle - start), (name, learned, time.process_time() - middle)]


def _ceiling(kind: str, fine: Recording, recording: Recording) -> dict[str, SpikeScores]:
    """The simulator on the means of the current over 1 ms, against itself on the current."""
    simulator: Any = demos.adex if kind == "adex" else demos.hodgkin_huxley
    step = round(recording.dt / fine.dt)
    held = recording.current.double().repeat_interleave(step, 1)
    _, spikes = simulator(held.numpy(), fine.dt)
    found = spikes.reshape(len(spikes), -1, step).any(-1)
    again = Recording.of(
        recording.current, spikes=found, dt=recording.dt, units={"current": "1"}, families=recording.families
    )
    groups = {"fitted": recording.sweeps(without=HELD_OUT), **{name: recording.sweeps(name) for name in HELD_OUT}}
    others = {"fitted": again.sweeps(without=HELD_OUT), **{name: again.sweeps(name) for name in HELD_OUT}}
    return {name: score_spikes(others[name].spikes, part.spikes) for name, part in groups.items()}


def _known(bench: Bench, steps: int) -> None:
    """What comes back of a LIF whose fields are known, from a start far away."""
    for decay, threshold in ((0.9, 1.0), (0.8, 0.7), (0.95, 1.3)):
        recording = demos.lif(decay, threshold)
        found: Any = fit_dynamics(sdn.LIF(0.5, 1.5), recording, ("decay", "threshold"), steps=steps)
        bench.add(
            table="known", decay=decay, found_decay=found.dynamics.decay, threshold=threshold,
            found_threshold=found.dynamics.threshold, f1=found.scores["held out"].f1,
        )  # fmt: skip


def _add(bench: Bench, kind: str, model: str, scores: Any, seconds: float) -> None:
    for family, score in scores.items():
        bench.add(
            table="demo", neuron=kind, model=model, sweeps=family, f1=score.f1, explained=score.explained_variance,
            precision=score.precision, recall=score.recall, agreement=score.agreement, rate=score.rate,
            seconds=seconds,
        )  # fmt: skip
