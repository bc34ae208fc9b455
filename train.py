"""`python train.py --save exp` trains an SDN, `python train.py experiment=spikingssm/digits` a network."""

import re
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":  # torch takes seconds to import; a signal then ends with one line too
    runpy.run_path(str(Path(__file__).with_name("sdn") / "early.py"))["listen"]()

try:
    from sdn.runs.cli import entry_point
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed for this Python; run `make install`, then `source .venv/bin/activate`"
    )

EXPERIMENT = re.compile(r"[+~]{0,2}[\w./@]+=|--cfg$|-c$|--multirun$|-m$")


@entry_point
def main() -> None:
    """A first argument key=value (or --cfg, --multirun) opens the experiments, everything else trains an SDN."""
    argv = sys.argv[1:]
    if argv and EXPERIMENT.match(argv[0]):
        from spikingssm.commands.train import main as experiment

        experiment(argv)
    else:
        from sdn.surrogate.command import main as surrogate

        surrogate(argv)


if __name__ == "__main__":
    main()
