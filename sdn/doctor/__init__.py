"""What a machine has, which fast paths it runs, and what is wrong with it: `sdn doctor`, `sdn warmup`."""
