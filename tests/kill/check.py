"""What must hold after a kill, and after the work was done again."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kill.jobs import READERS, Job
from kill.moments import Kill

RUBBISH = re.compile(r"\.partial$|^\.lock")
CODES = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}


def difference(one: Any, other: Any, at: str = "") -> str | None:
    """Where two nested values first differ, in any bit; None where they do not."""
    if type(one) is not type(other):
        return f"{at}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{at}: only one has {sorted(map(str, one.keys() ^ other.keys()))}"
        pairs = [(f"{at}.{key}" if at else str(key), one[key], other[key]) for key in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{at}: {len(one)} and {len(other)} entries"
        pairs = [(f"{at}.{i}", *pair) for i, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor):
        return None if _bits(one) == _bits(other) else f"{at}: other numbers"
    elif isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        return None if same else f"{at}: other numbers"
    else:
        return None if repr(one) == repr(other) else f"{at}: {one!r:.60} and {other!r:.60}"
    return next((found for name, a, b in pairs if (found := difference(a, b, name)) is not None), None)


def _bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    flat = tensor.detach().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def damaged(folder: Path) -> list[str]:
    """Files under their final names that cannot be read whole."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_rubbish(path, folder) and (read := READERS.get(path.suffix)):
            try:
                read(path)
            except Exception as error:  # whatever a cut file makes its reader raise
                found.append(f"{path.relative_to(folder)} is damaged: {' '.join(str(error).split())[:80]}")
    return found


def rubbish(folder: Path) -> list[str]:
    """What is half written, and locks."""
    found = [path for path in sorted(folder.rglob("*")) if RUBBISH.search(path.name)]
    return [f"{path.relative_to(folder)} is left" for path in found]


def _is_rubbish(path: Path, folder: Path) -> bool:
    return any(RUBBISH.search(part) for part in path.relative_to(folder).parts)


def listing(folder: Path) -> set[str]:
    """The names of all files; a resumed run has more than one file of events."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"events\.out\..*", "events", path) for path in paths}


def stopped(kill: Kill, job: Job, folder: Path, code: int, err: str) -> list[str]:
    """What is wrong with how the work ended, and with what it left."""
    wrong = damaged(folder)
    if code != CODES[kill.signal.name]:
        wrong.append(f"exit code {code}, not {CODES[kill.signal.name]}")
    if "Traceback" in err:
        wrong.append("a traceback")
    if code == -9:
        return wrong
    wrong += rubbish(folder)
    line, said = last_line(err), f"stopped by {kill.signal.name}"
    expected = advice(job, folder)
    if not line.startswith(said) or not line.endswith(expected):
        early = "nothing had begun yet"
        if not (kill.process and line == f"{said}; {early}"):
            wrong.append(f"the last line is {line!r}, not {said} ...; {expected}")
    return wrong


def advice(job: Job, folder: Path) -> str:
    """How the last line must end, by what is there."""
    if job.name in ("network", "sdn") and job.done(folder):
        return "the run had finished, its results are in run/summary.json"
    if job.name == "generate" and job.done(folder):
        return "is written, there is nothing left to do"
    if job.can_go_on(folder):
        return f"go on with {job.go_on}"
    return "start again with the same command"


def last_line(err: str) -> str:
    """The last line of what was written to stderr."""
    return re.split(r"[\r\n]", err.rstrip("\r\n"))[-1]


def finished(job: Job, folder: Path, code: int, err: str, expected: dict[str, Any], names: set[str]) -> list[str]:
    """What is wrong with the work that was done again."""
    if code != 0:
        return [f"done again it ends with {code}: {last_line(err)[:200]}"]
    wrong = [f"{name} is left over" for name in sorted(listing(folder) - names)]
    wrong += [f"{name} is missing" for name in sorted(names - listing(folder))]
    wrong += damaged(folder)
    if not wrong and (found := difference(job.read(folder), expected)):
        wrong.append(f"another result: {found}")
    return wrong
