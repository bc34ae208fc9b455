"""Two doors: `python train.py --save exp` trains an SDN, `python train.py experiment=spikingssm/digits` a network."""

import sys

from sdn.door import door


@door
def main() -> None:
    """Any argument with '=' (or --cfg, --multirun) goes to the experiments, everything else to the SDN's training."""
    argv = sys.argv[1:]
    if any(("=" in a and not a.startswith("-")) or a in ("--cfg", "-c", "--multirun", "-m") for a in argv):
        from spikingssm.experiment import main as experiment

        experiment(argv)
    else:
        from sdn.surrogate.command import main as surrogate

        surrogate(argv)


if __name__ == "__main__":
    main()
