"""``python -m spikingssm evaluate RUN [--solver loop]``, ``python -m spikingssm demo``."""

import argparse

from sdn.door import door


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser("python -m spikingssm", description="Results of trained networks, and the demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    test = commands.add_parser("evaluate", help="test the best checkpoint of a run folder")
    test.add_argument("run", help="the run folder")
    test.add_argument("--solver", help="surrogate or loop; the one of the training by default")
    test.add_argument("--artifact", help="path of the surrogate network, with --solver surrogate")
    demo = commands.add_parser("demo", help="trajectories, SDN, reduction, SpikingSSM on digits, both neurons")
    demo.add_argument("--out", default="demo", help="folder to work in (default demo)")
    given = parser.parse_args()

    if given.command == "demo":
        from spikingssm.demo import run_demo

        run_demo(given.out)
        return

    from sdn import Solver, Surrogate
    from spikingssm.experiment import evaluate
    from spikingssm.report import table

    solver: str | Solver | None = given.solver
    if given.artifact is not None:
        if solver not in (None, "surrogate"):
            raise ValueError(f"--artifact is a surrogate network, --solver is {solver!r}; use --solver surrogate.")
        solver = Surrogate(given.artifact)
    print(table({"run": given.run, **evaluate(given.run, solver)}))


if __name__ == "__main__":
    door(main)()
