"""`sdn reduce RUN`: the reduced artifact of a trained surrogate network, from its best checkpoint."""

import argparse
from pathlib import Path

__all__ = ["add", "run"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the parser of this command."""
    parser = commands.add_parser("reduce", help="reduce the network of a run folder, and write its artifact")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `sdn train --save RUN` has written")
    parser.add_argument("--out", type=Path, metavar="FILE", help="artifact (default RUN/converted.safetensors)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(run_command=run)


def run(args: argparse.Namespace) -> None:
    """Reduce, measure under seven families of currents, write.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
        FileExistsError: the file is there already.
        ValueError: a checkpoint of something else.
    """
    from sdn.runs.files import read_json
    from sdn.scoring.report import fidelity
    from sdn.surrogate.artifact import Artifact, save_artifact
    from sdn.surrogate.reduction import reduce
    from sdn.surrogate.training import load_sdn

    best, summary = args.run / "checkpoints" / "best.ckpt", args.run / "summary.json"
    if not best.is_file():
        raise FileNotFoundError(f"{best}: no such file; RUN is a folder that `sdn train --save RUN` has written.")
    path = args.out or args.run / "converted.safetensors"
    if path.exists() and not args.force:
        raise FileExistsError(f"{path} exists; choose another --out, or --force.")
    network, dynamics = load_sdn(best)
    over = read_json(summary).get("over", {}) if summary.is_file() else {}
    reduced = reduce(network)
    before, after = (sum(p.numel() for p in module.parameters()) for module in (network, reduced))
    print(f"{dynamics}: {before} parameters become {after}")
    found = fidelity(Artifact(reduced, {"dynamics": dynamics.facts(), "over": over}))
    print(found)
    facts = {"over": over} if over else {}
    save_artifact(path, reduced, dynamics, fidelity=found.to_dict(), **facts)
    print(f"{path}: use it as sdn.Neuron(dynamics, channels, solver=sdn.Surrogate({str(path)!r}))")
