"""Commands that this program runs as processes of their own, and that end with it."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from sdn.runs.signals import GRACE, ending

__all__ = ["Children", "call"]


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


class Children:
    """Commands side by side, each started by a thread of its own; none outlives the block `open`."""

    def __init__(self) -> None:
        self.closed = False
        self._running: list[subprocess.Popen[str]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Around all calls, in the main thread: whatever ends this block ends the commands in order too."""
        with ending(self._kill):
            try:
                yield
            finally:
                self.closed = True
                self._end()

    def call(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> str | None:
        """Run a command, and pass on what it writes to standard error, line by line.

        Args:
            command: program and arguments.
            env: the environment; None is that of this process.

        Returns:
            why it failed, in one line; None if it did not.
        """
        if self.closed:
            return "it was not begun"
        options = {"stderr": subprocess.PIPE, "text": True, "errors": "replace", "start_new_session": True}
        with subprocess.Popen([*command], env=env, **options) as process:  # type: ignore[call-overload]
            self._running.append(process)
            last = ""
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
            code: int = process.wait()
        self._running.remove(process)
        if code < 0:
            name = signal.Signals(-code).name
            memory = ", as a system does that has run out of memory" if name == "SIGKILL" else ""
            return f"it was ended by {name}{memory}"
        return None if code == 0 else last.removeprefix("error: ") or f"it ended with exit code {code}"

    def _end(self) -> None:
        for process in list(self._running):
            process.terminate()
        limit = time.monotonic() + GRACE - 1
        for process in list(self._running):
            try:
                process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _kill(self) -> None:
        for process in list(self._running):
            process.kill()
