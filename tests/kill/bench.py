"""Kills one after another, each with its verdict."""

import importlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import scripts
import torch
from forked import Child, wait_until

from kill.check import finished, last_line, listing, stopped
from kill.jobs import JOBS, ROOT, Job
from kill.moments import Kill, Operations

MODULES = (
    "generate", "train", "lightning", "matplotlib.pyplot", "sdn.surrogate.command", "sklearn.datasets",
    "spikingssm.experiments.run", "torch.utils.tensorboard",
)  # fmt: skip
LIMIT = 180.0
"""Seconds that any piece of work may take."""


class Bench:
    """A folder to work in, with what uninterrupted work of each kind gives, does and takes.

    Args:
        home: an empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.known = home, {}
        warm()
        self._forked(JOBS["generate"], home, ["generate.py", ".", "-T", "64", "-t", "0.125", "-N", "200"])
        self._forked(JOBS["generate"], home, ["generate.py", ".", "-T", "64", "-t", "0.125", "-N", "50", "-n", "test"])
        (home / "data").mkdir()
        for path in home.glob("*.pt"):
            path.rename(home / "data" / f"{path.name.split('-')[0]}.pt")

    def kill(self, kill: Kill) -> dict[str, Any]:
        """Begin the work, kill it, do it again as it says, and compare.

        Returns:
            plain values: the kill, how the work ended, its last line, how it was done again, and what is ``wrong``.
        """
        job, at = JOBS[kill.job], kill.at
        reference = self._reference(job, kill.process)
        while True:
            folder = self._empty("killed")
            code, err, operation = self._killed(kill, job, folder, at, reference)
            silent = code == -kill.signal != -9  # Python hears nothing any more
            ending = kill.process and job.done(folder) and (silent or last_line(err).endswith("the work had ended"))
            if code != 0 and not ending:
                break
            at *= 0.95  # the work had ended before
        wrong = stopped(kill, job, folder, code, err)
        words = [job.command[0], *job.go_on.split()] if job.can_go_on(folder) else job.command
        if job.checkpoint is None and job.done(folder):
            again = "done already"
        else:
            again = "goes on" if words != job.command else "the same command"
            code_again, err_again = self._real(job, folder, words) if kill.process else self._forked(job, folder, words)
            wrong += finished(job, folder, code_again, err_again, reference["result"], reference["names"])
        if again == "done already":
            wrong += finished(job, folder, 0, "", reference["result"], reference["names"] | rubbish_of(kill, folder))
        of = reference["operations"]
        return {
            "job": job.name, "signal": kill.signal.name, "process": "its own" if kill.process else "a warm copy",
            "moment": f"file operation {operation} of {of}" if kill.file else f"{at:.3f} of the time",
            "exit_code": code, "last_line": "" if code == -9 else last_line(err), "then": again, "wrong": wrong,
        }  # fmt: skip

    def _killed(self, kill: Kill, job: Job, folder: Path, at: float, reference: dict[str, Any]) -> tuple[int, str, int]:
        """Exit code and stderr of work that is killed, and the operation that the signal fell upon."""
        if kill.process:
            process = scripts.script(job.command[0], *job.command[1:], cwd=folder, preexec_fn=hear_ctrl_c)
            wait(process.pid, at, reference)
            wait_until(lambda: hears(process.pid) or process.poll() is not None)
            process.send_signal(kill.signal)
            code, _, err = scripts.ended(process)
            return code, err, 0
        last, counted = int(at * reference["operations"]), Operations()

        def main() -> None:
            os.chdir(folder)
            counted.watch(folder, kill.signal, last if kill.file else -1)
            job.main(job.command)

        child = Child(main)
        if not kill.file:
            wait(child.pid, at, reference)
            wait_until(lambda: hears(child.pid) or ended(child.pid))
            child.send(kill.signal)
        return *child.ended(LIMIT), last + 1

    def _reference(self, job: Job, process: bool) -> dict[str, Any]:
        """What work that nobody stops gives, how long it takes, and how many file operations."""
        if (job.name, process) not in self.known:
            folder, started = self._empty("whole"), time.monotonic()
            counted = Operations()
            code, err = (
                self._real(job, folder, job.command) if process else self._forked(job, folder, job.command, counted)
            )
            seconds = time.monotonic() - started
            if code != 0:
                raise RuntimeError(f"{job.name} fails when nobody stops it: {err}")
            self.known[job.name, process] = {
                "result": job.read(folder), "names": listing(folder), "seconds": seconds, "operations": counted.count,
            }  # fmt: skip
        return self.known[job.name, process]

    def _forked(self, job: Job, folder: Path, words: list[str], counted: Operations | None = None) -> tuple[int, str]:
        def main() -> None:
            os.chdir(folder)
            if counted is not None:
                counted.watch(folder)
            job.main(words)

        return Child(main).ended(LIMIT)

    def _real(self, job: Job, folder: Path, words: list[str]) -> tuple[int, str]:
        code, _, err = scripts.ended(scripts.script(words[0], *words[1:], cwd=folder))
        return code, err

    def _empty(self, name: str) -> Path:
        folder = self.home / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def wait(pid: int, at: float, reference: dict[str, Any]) -> None:
    """Wait for a moment of a process; where it ends before, the reference took too long: the first reads cold files."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < at * reference["seconds"]:
        if ended(pid):
            reference["seconds"] = passed
            return
        time.sleep(0.002)


def hear_ctrl_c() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and the scripts leave it so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def ended(pid: int) -> bool:
    """Whether a child of this process has; it stays to be asked for its code."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def hears(pid: int) -> bool:
    """Whether a script has begun to listen to SIGTERM; before that it is Python that starts, or a copy of this one."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # not Linux
        return True
    caught = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def rubbish_of(kill: Kill, folder: Path) -> set[str]:
    """Nothing does work again that is done, so a SIGKILL behind its result may leave a file."""
    return {name for name in listing(folder) if name.endswith(".partial")} if kill.signal.name == "SIGKILL" else set()


def warm() -> None:
    """Import once what every copy of this process needs."""
    sys.path.insert(0, str(ROOT))
    for name in MODULES:
        importlib.import_module(name)
    torch.set_num_threads(1)
