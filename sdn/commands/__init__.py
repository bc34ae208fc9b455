"""What `python -m sdn COMMAND` and the scripts do, one file a command."""
