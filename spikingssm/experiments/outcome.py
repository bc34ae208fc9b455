"""How the runs of a sweep ended: a run that failed is told, the others go on."""

import sys
from collections.abc import Callable, Mapping

from sdn.runs.cli import said

__all__ = ["LEFT", "failure", "tell"]

LEFT = "the same command with resume=auto does what is left"
"""How a sweep goes on."""


def failure(run: Callable[[], object]) -> str | None:
    """Do a run of a sweep.

    Returns:
        why it failed, in one line; None if it did not.

    Raises:
        Exception: a bug, which is not for the next run to hide. A signal ends the sweep too.
    """
    try:
        run()
    except Exception as error:  # as at the entry point: what a user can mend is a line
        if (text := said(error)) is None:
            raise
        return text
    return None


def tell(failed: Mapping[str, str], runs: int) -> None:
    """End the program with exit code 1 and one line, if runs of a sweep have failed.

    Args:
        failed: run folder -> why.
        runs: how many there were.

    Raises:
        SystemExit: some have.
    """
    if not failed:
        return
    listed = " | ".join(why if why.startswith(folder) else f"{folder}: {why}" for folder, why in failed.items())
    others = ", the others are finished" if len(failed) < runs else ""
    way = f" | {LEFT}" if runs > 1 else ""
    sys.stderr.write(f"error: {len(failed)} of {runs} runs failed{others}: {listed}{way}\n")
    sys.exit(1)
