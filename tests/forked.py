"""A function run in a copy of this process, as a script would run it: its exit code, and what it wrote to stderr."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from sdn.runs.cli import entry_point


class Child:
    """A forked process that runs ``main`` under `sdn.runs.cli.entry_point`, with its stderr in a pipe."""

    def __init__(self, main: Callable[[], None]) -> None:
        out, self._in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(out)
            self._run(main)
        os.close(self._in)
        self._out = out

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, timeout: float = 30.0) -> tuple[int, str]:
        """Exit code (negative: of a signal that nobody heard) and stderr."""
        limit = time.monotonic() + timeout
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"the child ran for more than {timeout} s")
            time.sleep(0.002)
        with os.fdopen(self._out, "rb") as out:
            return os.waitstatus_to_exitcode(found[1]), out.read().decode()

    def _run(self, main: Callable[[], None]) -> NoReturn:
        code = 70
        try:
            os.dup2(self._in, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                entry_point(main)()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:  # a bug keeps its traceback, as in a script
                import traceback

                traceback.print_exc()
                code = 1
        finally:
            os._exit(code)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.002)
