"""Commands that this program runs as processes of their own, and that end with it."""

import subprocess
from collections.abc import Mapping, Sequence

from sdn.runs.signals import GRACE, ending

__all__ = ["call"]


def call(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run a command and wait for it; whatever ends this program ends the command in order too.

    Args:
        command: program and arguments.
        env: the environment; None is that of this process.

    Returns:
        its exit code.
    """
    # a session of its own: a Ctrl-C of the terminal would reach it too, and this one's word would be its second signal
    process = subprocess.Popen([*command], env=env, start_new_session=True)
    with ending(process.kill):
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(GRACE - 1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
