"""What a run needs of its surroundings: files, folders, locks, signals, logs and the command line."""
