"""More than one process: ranks of a group, and children that are started."""
