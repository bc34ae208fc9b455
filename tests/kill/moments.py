"""When and how work is killed, all from one seed."""

import itertools
import mmap
import os
import random
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kill.jobs import JOBS

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Kill:
    """One kill.

    Args:
        job: name of the work.
        signal: what it is sent.
        at: part of the work that is done by then, of its time or of its file operations.
        file: whether it falls upon a file operation; else upon a moment in time.
        process: whether the work is a process of its own from its first instruction; else a copy of a warm one.
    """

    job: str
    signal: signal.Signals
    at: float
    file: bool
    process: bool


def plan(seed: int, kills: int, processes: int, jobs: tuple[str, ...] = tuple(JOBS)) -> list[Kill]:
    """Every job meets every signal about equally often; so many of the kills meet processes of their own.

    Args:
        seed: of moments and order.
        kills: how many.
        processes: how many of them; these fall upon a moment in time.
        jobs: names.
    """
    draw = random.Random(seed)
    pairs = list(itertools.islice(itertools.cycle(itertools.product(jobs, SIGNALS)), kills))
    draw.shuffle(pairs)
    found = []
    for number, (job, what) in enumerate(pairs):
        process = number < processes
        found.append(Kill(job, what, draw.random(), draw.random() < 0.5 and not process, process))
    return found


class Operations:
    """Counts what a forked process does to files below a folder, and may send it a signal before one of them."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        """How many there were; also in the process that forked."""
        return int.from_bytes(self._shared[:8], "little")

    def watch(self, folder: Path, number: int = 0, last: int = -1) -> None:
        """Count in this process from now on; at operation ``last`` send ``number``."""
        below, lock, me = f"{folder.resolve()}{os.sep}", threading.Lock(), os.getpid()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in EVENTS or os.getpid() != me or not isinstance(arguments[0], (str, os.PathLike)):
                return
            if event == "open" and not arguments[2] & WRITES:
                return
            if not os.path.abspath(arguments[0]).startswith(below):  # noqa: PTH100 - pathlib calls the hook again
                return
            with lock:
                now = self.count
                self._shared[:8] = (now + 1).to_bytes(8, "little")
            if now == last:
                os.kill(me, number)

        sys.addaudithook(hook)
