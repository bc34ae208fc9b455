"""A surrogate of a spiking neuron, from currents to a layer: `python examples/train_surrogate.py`."""

import tempfile

import torch

import sdn

torch.set_num_threads(1)
neuron = sdn.LIF(decay=0.125)
rows = sdn.generate(neuron, samples=600, length=256, seed=1)  # input, mem and spike of the exact neuron, (600, 256)
data = sdn.TrajectoryFile(*rows[:3], {"dynamics": neuron.facts()})

network = sdn.SDN()  # an encoder, two convolutions over time, a decoder
recipe = sdn.Recipe(epochs=15, steps_per_epoch=100, batch_size=32, members=4)
with tempfile.TemporaryDirectory() as folder:
    sdn.fit(network, data.rows(0, 540), data.rows(540, 600), run_dir=folder, recipe=recipe)
reduced = sdn.reduce(network)  # the same function in fewer numbers
artifact = sdn.save_artifact("lif.safetensors", reduced, neuron)
print(f"{sum(p.numel() for p in reduced.parameters())} numbers, saved with what they stand for")

fresh = sdn.generate(neuron, samples=200, length=1024, seed=2)
found = sdn.evaluate(reduced, fresh, neuron)
print(f"agree in {100 * found.agreement:.3f} % of the steps", end="; ")
print(f"a neuron without a past in {100 * found.trivial_agreement:.3f} %")

layer = sdn.Neuron(neuron, channels=32, solver=sdn.Surrogate("lif.safetensors"))
current = torch.randn(4, 500, 32, requires_grad=True)  # (batch, steps, neurons)
spikes, state = layer(current)  # all steps at once
spikes.mean().backward()
exact, _ = layer.with_solver("fused")(current)
print(f"as a layer: {100 * (spikes == exact).float().mean():.2f} % agree", end=", ")
print(f"spikes in {100 * spikes.mean():.1f} % of the steps, gradient {current.grad.abs().sum():.2f}")
