"""SpikingSSM and its kin: layers, models, data and training of spiking networks on long sequences."""
