"""One folder, one process: a lock file that says who writes there; one of a killed process is replaced."""

import contextlib
import errno
import functools
import json
import os
import shlex
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdn.runs.files import read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "locked", "owner"]

LOCK = ".lock"
"""Name of the lock file in a run folder."""
SETTLED = 10.0
"""Seconds after which a lock file that says nothing readable is one that a killed process left."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
_held: dict[Path, int] = {}


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], other: str = "choose another folder") -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing; the same process may do so several times.

    The lock is the file ``.lock``, made by a hard link (by O_EXCL where there are none), which also works on NFS. It
    names host, process, and when that process began. One of a process of this machine that has ended is replaced.

    Args:
        folder: of a run.
        other: what else the user can do, for the error.

    Raises:
        BlockingIOError: another process holds it, or one of another machine, of which nothing can be known from here.
        OSError: the folder cannot be written to.
    """
    folder = Path(folder)
    place = Path(os.path.realpath(folder))  # noqa: PTH - links that lead in a circle are no error of it
    if _held.get(place) == os.getpid():
        yield
        return
    made = _make(folder)
    try:
        with _guarded(folder):
            _take(folder, other)
    except BaseException:
        _remove_empty(made)
        raise
    _held[place] = os.getpid()
    try:
        yield
    finally:
        _held.pop(place, None)
        if _is_mine(owner(place)):
            (place / LOCK).unlink(missing_ok=True)
        _remove_empty(made)


def owner(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Who holds the lock of a folder and is alive, as far as can be known: host, pid, start and time; else None."""
    path = Path(folder) / LOCK
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"host", "pid", "start"} <= set(found):
        return {"host": None} if path.exists() and not _settled(path) else None
    if found["host"] != _host():
        return None if _restarted(found.get("job")) else found
    return found if found["start"] is not None and found["start"] == _start_of(found["pid"]) else None


def _take(folder: Path, other: str) -> None:
    path = folder / LOCK
    if (held := owner(folder)) is not None:
        raise BlockingIOError(_refusal(folder, held, other))
    path.unlink(missing_ok=True)
    for left in folder.glob(f"{LOCK}.*"):
        if _settled(left) or _left_by_dead(left):
            left.unlink(missing_ok=True)
    now, job = time.strftime("%Y-%m-%d %H:%M:%S"), os.environ.get("SLURM_JOB_ID")
    text = json.dumps({**_myself(), "time": now, "job": job}) + "\n"
    mine = folder / f"{LOCK}.{_host_code()}.{os.getpid()}"
    try:
        mine.write_text(text)
        try:
            os.link(mine, path)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with path.open("x") as file:
                file.write(text)
    except FileExistsError:
        raise BlockingIOError(_refusal(folder, owner(folder) or {"host": None}, other)) from None
    finally:
        mine.unlink(missing_ok=True)


def _refusal(folder: Path, held: dict[str, Any], other: str) -> str:
    if held["host"] is None:
        return f"{folder} is being taken by another process; wait for it, or {other}."
    since = f" since {held['time']}" if "time" in held else ""
    who = f"process {held['pid']}"
    if held["host"] == _host():
        return f"{folder} is in use by {who}{since}; wait for it, or {other}."
    name = str(held["host"]).split(" ")[0]
    return (
        f"{folder} is in use by {who} on {name}{since}; wait for it, or {other}. If it has ended, delete "
        f"{shlex.quote(str(folder / LOCK))}."
    )


def _myself() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid(), "start": _start_of(os.getpid())}


def _is_mine(held: dict[str, Any] | None) -> bool:
    return held is not None and all(held.get(key) == value for key, value in _myself().items())


def _restarted(job: str | None) -> bool:
    """Whether this is a job that Slurm started again, and so ended before, perhaps on another machine."""
    again = os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
    return again and job is not None and job == os.environ.get("SLURM_JOB_ID")


@functools.cache
def _host() -> str:
    """This machine; inside a container also which one, since process numbers mean something there only."""
    try:
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()} {space}"


def _host_code() -> str:
    return f"{zlib.crc32(_host().encode()):08x}"


def _left_by_dead(path: Path) -> bool:
    """Whether a process of this machine was killed while it took the lock."""
    _, _, host, pid = f"{path.name}..".split(".")[:4]
    return host == _host_code() and pid.isdecimal() and _start_of(int(pid)) is None


def _start_of(pid: int) -> str | None:
    """When a process of this machine began, so that another one with its number can be told from it; None: no such."""
    try:
        stat = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_by_ps(pid)
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    state, ticks = stat[0], stat[19]
    return None if state in "ZX" else f"{boot} {ticks}"


def _start_by_ps(pid: int) -> str | None:
    try:
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(int(pid))], capture_output=True, text=True, check=False)
    except (OSError, ValueError, TypeError):
        return None
    return done.stdout.strip() or None


def _settled(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > SETTLED
    except OSError:
        return True


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time look at the lock and replace it; elsewhere the link alone decides."""
    handle = None
    try:
        if fcntl is not None:
            try:
                handle = os.open(folder, os.O_RDONLY)
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:  # a file system without such locks
                pass
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _make(folder: Path) -> list[Path]:
    """Make a folder; those that were missing, the innermost first."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # it holds something, or is gone
            return
