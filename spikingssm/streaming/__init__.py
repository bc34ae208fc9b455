"""A network as one compiled step, for streams that never end."""
