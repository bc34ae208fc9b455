"""Write a dataset of neuron trajectories: `python generate.py dataset`, `python generate.py dataset -n test`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":  # torch takes seconds to import; a signal then ends with one line too
    runpy.run_path(str(Path(__file__).with_name("sdn") / "early.py"))["listen"]()

try:
    from sdn.commands.generate import main as generate
    from sdn.runs.cli import entry_point
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed for this Python; run `make install`, then `source .venv/bin/activate`"
    )


@entry_point
def main() -> None:
    """Simulate and write one file."""
    generate(sys.argv[1:])


if __name__ == "__main__":
    main()
