"""Training a network: the Lightning module, one fit, callbacks, optimisers, loggers."""
