"""What a network does, in numbers: spikes, agreement, operations, energy."""
