"""A program that prepares a data set and keeps it below the current folder."""

import runpy
from pathlib import Path

if __name__ == "__main__":  # as the scripts of the project
    runpy.run_path(str(Path(__file__).parents[2] / "spikingssm" / "early.py"))["listen"]()

from sdn.runs.cli import entry_point


@entry_point
def main() -> None:
    """Draw expressions, and keep them."""
    from spikingssm.datasets.listops import listops

    listops(length=128, train_rows=600, val_rows=150, test_rows=150, min_length=10, max_length=100)


if __name__ == "__main__":
    main()
