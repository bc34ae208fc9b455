"""Inputs read in children of this process, under a clock, a limit of memory and a watch on what they do."""

import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from fuzz.mutate import damage, flip_bit, special
from sdn.runs.cli import said

__all__ = ["Format", "Outcome", "case", "run_cases", "template"]

CPU, WALL = 10, 60
"""Seconds of CPU, and on the clock of a loaded machine, that an input may take."""
MEMORY = 2**30
"""Bytes that an input may take; address space is limited at four times that, so that a runaway ends."""
AT_ONCE = 25
"""Inputs of one child; after anything unusual a new one is made."""
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link")
LEAVES = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "os.fork")
"""Audit events of files that are changed, and of what leaves the process."""
USER_ERRORS = (ValueError, OSError, NotImplementedError, ImportError)
"""What `sdn.runs.cli` turns into one line."""


@dataclass(frozen=True)
class Format:
    """One kind of input.

    Args:
        name: of the format.
        build: writes a whole one into a folder.
        read: reads what lies in the current folder; equal values for equal content.
        files: those of the folder that are damaged, byte by byte.
        redundant: whether the format has a checksum, so that other content must not be accepted after damage.
        edits: changes by somebody who knows the format: they may be accepted, with the content that they say.
        frauds: changes by somebody who knows the format, which must not be accepted.
        share: how many inputs it gets, relative to others.
    """

    name: str
    build: Callable[[Path], None]
    read: Callable[[], Any]
    files: Sequence[str] = ()
    redundant: bool = False
    edits: Sequence[Callable[[random.Random, Path], None]] = ()
    frauds: Sequence[Callable[[random.Random, Path], None]] = ()
    share: float = 1.0


@dataclass
class Outcome:
    """What became of one input.

    ``kind``: refused, right (equal to the undamaged), other (content), lines (an error of several), traceback, hang,
    memory, code, crash.
    """

    format: str
    number: int
    change: str
    kind: str
    says: str = ""
    seconds: float = 0.0
    bad: bool = field(default=False)


def template(kind: Format, home: Path) -> Path:
    """The folder of a whole input, built once."""
    folder = home / "whole" / kind.name
    if not folder.is_dir():
        folder.mkdir(parents=True)
        here = Path.cwd()
        os.chdir(folder)
        try:
            kind.build(folder)
        finally:
            os.chdir(here)
    return folder


def case(kind: Format, number: int, seed: int, whole: Path, folder: Path) -> str:
    """Write input ``number`` of a format into a folder; what was done to it, in words. Number -1 is the whole one."""
    shutil.copytree(whole, folder, symlinks=True)
    if number < 0:
        return "whole"
    draw = random.Random(f"{seed} {kind.name} {number}")
    ways = (["damage"] * 6 + ["bit"] * 2 + ["special"]) * bool(kind.files)
    ways += ["edit"] * 4 * bool(kind.edits) + ["fraud"] * 3 * bool(kind.frauds)
    way = draw.choice(ways)
    if way in ("edit", "fraud"):
        change = draw.choice(kind.edits if way == "edit" else kind.frauds)
        change(draw, folder)
        return f"{way} {getattr(change, '__name__', '')}".strip()
    path = folder / draw.choice(kind.files)
    if way == "special":
        return f"edit: a {special(draw, path)} for {path.name}"
    data = path.read_bytes()
    name, changed = ("bit", flip_bit(draw, data)) if way == "bit" else damage(draw, data)
    path.write_bytes(changed)
    return f"{name} in {path.name}"


def run_cases(kinds: Mapping[str, Format], jobs: Sequence[tuple[str, int]], seed: int, home: Path) -> Iterator[Outcome]:
    """Read inputs, given as format and number; children do it, one after another."""
    wholes: dict[str, Any] = {}
    for start in range(0, len(jobs), AT_ONCE):
        left = list(jobs[start : start + AT_ONCE])
        for name in {name for name, _ in left} - wholes.keys():
            (outcome,) = _children(kinds, [(name, -1)], seed, home, {})
            if outcome.kind != "right":
                raise AssertionError(f"{name}: the whole input is not read: {outcome.kind} {outcome.says}")
            wholes[name] = outcome.says
        yield from _children(kinds, left, seed, home, wholes)


def _children(
    kinds: Mapping[str, Format], jobs: list[tuple[str, int]], seed: int, home: Path, wholes: Mapping[str, Any]
) -> Iterator[Outcome]:
    while jobs:
        done = 0
        for outcome in _child(kinds, jobs, seed, home, wholes):
            done += 1
            yield outcome
        jobs = jobs[done:]


def _child(
    kinds: Mapping[str, Format], jobs: list[tuple[str, int]], seed: int, home: Path, wholes: Mapping[str, Any]
) -> Iterator[Outcome]:
    """Outcomes of the first jobs, up to one that the child did not live through."""
    ours, theirs = os.pipe()
    place = Path(tempfile.mkdtemp(dir=home, prefix="case-"))
    pid = os.fork()
    if not pid:
        os.close(ours)
        code = 1
        try:
            _work(kinds, jobs, seed, home, wholes, place, os.fdopen(theirs, "w"))
            code = 0
        finally:
            os._exit(code)  # never on as a copy of the parent
    os.close(theirs)
    done = 0
    try:
        for line, seconds in _lines(ours):
            if line is None:
                os.kill(pid, signal.SIGKILL)
                break
            found = Outcome(**json.loads(line))
            found.seconds = round(seconds, 2)
            done += 1
            yield found
    finally:
        os.close(ours)
        _, status = os.waitpid(pid, 0)
        said = (place / "change").read_text() if (place / "change").is_file() else ""
        shutil.rmtree(place, ignore_errors=True)
    if done < len(jobs) and not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0):
        name, number = jobs[done]
        signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        hung = signal_number in (signal.SIGKILL, signal.SIGPROF, signal.SIGXCPU)
        yield Outcome(name, number, said, "hang" if hung else "crash", f"signal {signal_number}", bad=True)


def _lines(ours: int) -> Iterator[tuple[str | None, float]]:
    """Lines as they come with the seconds each took; None where one does not come in time."""
    buffer, since = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([ours], [], [], WALL)
        if not ready:
            yield None, WALL
            return
        if not (data := os.read(ours, 2**16)):
            return
        buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            yield line.decode(), time.monotonic() - since
            since = time.monotonic()


def _work(
    kinds: Mapping[str, Format],
    jobs: Iterable[tuple[str, int]],
    seed: int,
    home: Path,
    wholes: Mapping[str, Any],
    place: Path,
    out: Any,
) -> None:
    """The child: read each input, say what became of it, and end after anything unusual."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    logger.remove()
    watch = Watch(home)
    start = _peak()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * MEMORY, size + 4 * MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, number in jobs:
        folder = place / f"{name}-{number}"
        (place / "change").write_text(change := case(kinds[name], number, seed, home / "whole" / name, folder))
        os.chdir(folder)
        watch.begin(folder)
        signal.setitimer(signal.ITIMER_PROF, CPU)
        kind, says = _read(kinds[name], change, wholes.get(name))
        signal.setitimer(signal.ITIMER_PROF, 0)
        if seen := watch.end():
            kind, says = "code", seen
        elif _peak() - start > MEMORY:
            kind, says = "memory", f"{(_peak() - start) >> 20} MiB"
        other = kind == "other" and (
            change.startswith("fraud") or (kinds[name].redundant and not change.startswith("edit"))
        )
        bad = other or kind in ("lines", "traceback", "memory", "code")
        outcome = Outcome(name, number, change, kind, says[:2000], bad=bad)
        out.write(json.dumps(outcome.__dict__) + "\n")
        out.flush()
        os.chdir(place)
        shutil.rmtree(folder, ignore_errors=True)
        if kind in ("memory", "code"):
            return


def _read(kind: Format, change: str, whole: Any) -> tuple[str, str]:
    try:
        found = kind.read()
    except MemoryError as error:
        return "memory", f"MemoryError {error}"
    except SystemExit as error:
        return ("refused", "usage") if error.code == 2 else ("traceback", f"SystemExit {error.code}")
    except USER_ERRORS as error:
        text = str(error)
        is_line = text and "\n" not in text and len(said(error) or text) <= 2000
        return ("refused" if is_line else "lines"), text or type(error).__name__
    except BaseException as error:  # everything else is what is looked for
        return "traceback", f"{type(error).__name__}: {' '.join(str(error).split())[:300]} {_where(error)}"
    if change == "whole":
        return "right", repr(found)
    return ("right", "") if repr(found) == whole else ("other", "")


def _where(error: BaseException) -> str:
    trace, found = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "/sdn/" in name or "/spikingssm/" in name:
            found = f"({'/'.join(Path(name).parts[-2:])}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Watch:
    """What the process does besides reading: files written outside of the folder, processes, connections.

    Args:
        home: of the fuzzing; a file ``CANARY`` there is what hostile pickles write.
    """

    def __init__(self, home: Path) -> None:
        self.canary, self.folder, self.on = home / "CANARY", "", False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def begin(self, folder: Path) -> None:
        """Watch; files may be written into the folder."""
        self.folder, self.on, self.seen = str(folder), True, []

    def end(self) -> str:
        """What was seen, "" for nothing."""
        self.on = False
        if self.canary.exists():
            self.canary.unlink()
            self.seen.append("the canary was written")
        return "; ".join(self.seen[:3])

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            self._written(arguments[0])
        elif event in LEAVES and not _ours():
            self.seen.append(f"{event} {arguments[:1]}")

    def _written(self, path: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a path object would call this again
        allowed = full.startswith(self.folder) or full in ("/dev/null", tempfile.gettempdir())
        if not allowed and "__pycache__" not in full:
            self.seen.append(f"wrote {full}")


def _ours() -> bool:
    """Whether the reader of HDF5 tries a file out in a copy of this process."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "try_out":
            return True
        frame = frame.f_back
    return False
