"""A neuron over a whole sequence."""
