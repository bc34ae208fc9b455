"""From the step of a neuron, written once in PyTorch, to everything that runs fast.

A step is recorded as a graph (`tape`, `graph`), split into what depends on parameters alone and what a loop over time
must do (`neuron`), differentiated by autograd's own record, and written as source for the CPU and for the GPU
(`writing`, `sources`). Spike gradients go the same way (`slopes`).
"""
