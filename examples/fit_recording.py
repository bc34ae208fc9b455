"""A neuron that was only recorded: a known one fitted, an unknown one learned: `python examples/fit_recording.py`."""

import numpy as np
import torch

import sdn

torch.set_num_threads(1)
draw = np.random.default_rng(0)

# A recording: currents (sweeps, steps) that went in, and spikes that came out, here of a simulated cell.
steps = 1500
noise = draw.normal(0.12, 0.35, (12, steps))
slow = 0.2 + 0.25 * np.sin(np.arange(steps) / draw.uniform(15, 40, (4, 1))) + draw.normal(0, 0.2, (4, steps))
current = np.concatenate([noise, slow])
spikes, u = np.zeros(current.shape, bool), np.zeros(len(current))
for t in range(steps):
    u = 0.85 * u + current[:, t]  # the law that shall be found: keeps 85 % a step, fires at 1.2
    spikes[:, t] = u >= 1.2
    u[spikes[:, t]] = 0.0
recording = sdn.Recording.of(current, spikes=spikes, dt=1.0, families=["noise"] * 12 + ["slow"] * 4)
recording.save("cell.npz")  # a lab's own files, .csv or NWB, are read by load_recording too
recording = sdn.load_recording("cell.npz")
print(f"{len(recording)} sweeps, spikes in {100 * spikes.mean():.1f} % of the steps")

known = sdn.fit_dynamics(sdn.LIF(0.5), recording, learn=("decay", "threshold"), held_out=("slow",), learn_scale=False)
print(f"decay {float(known.dynamics.decay):.3f}  threshold {float(known.dynamics.threshold):.3f}", end="  ")
print(f"F1 {known.scores['slow'].f1:.3f} on currents of a kind that it has not seen")

unknown = sdn.learn_neuron(recording, poles=2, hidden=2, steps=150, held_out=("slow",))  # no equation is given
print(f"learned  F1 {unknown.scores['slow'].f1:.3f}  without a past {unknown.without_past['slow'].f1:.3f}")

layer = sdn.Neuron(unknown.dynamics, channels=4)  # a neuron like any other
out, _ = layer(unknown.inputs(torch.full((1, 200, 4), 0.25)))
print(f"as a layer it fires in {100 * out.mean():.1f} % of the steps")
