"""From a surrogate's membrane to spikes."""
