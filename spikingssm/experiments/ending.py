"""How a run ends that does not finish: what is said, and what its folder remembers of it."""

import contextlib
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdn.dynamics.base import Diverged
from sdn.runs.cli import said
from sdn.runs.files import read_json, write_json
from sdn.runs.lock import owner
from sdn.runs.shortage import advised
from sdn.runs.signals import Stopped, explained

__all__ = ["ENDED", "go_on", "in_quotes", "quoted", "remembered", "state"]

ENDED = "ended.json"
"""File of a run folder that says why the run did not finish; a finished one has none."""


@contextlib.contextmanager
def remembered(folder: Path) -> Iterator[None]:
    """Around a run: an error or a signal leaves `ENDED` in the folder, and says how to go on.

    Args:
        folder: of the run; where it holds no configuration yet, nothing is written.
    """
    (folder / ENDED).unlink(missing_ok=True)
    try:
        with explained(lambda: go_on(folder)), advised(lambda: go_on(folder)):
            yield
    except Stopped as stop:
        _remember(folder, "stopped", str(stop))
        raise
    except Diverged as error:
        _remember(folder, "diverged", said(error) or "")
        raise
    except Exception as error:  # whatever it was, the folder says that the run did not finish
        _remember(folder, "failed", said(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise


def go_on(folder: Path) -> str:
    """What to do with a run that was stopped."""
    if (folder / "summary.json").is_file():
        return f"the run had finished, its results are in {folder}/summary.json"
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return f"go on with {shlex.quote(f'resume={quoted(folder)}')}"
    return "there is no checkpoint yet, start again with the same command"


def quoted(path: str | Path) -> str:
    """A path as the value of an override; one that `spikingssm.experiments.overrides` takes as it is has no quotes."""
    text = str(path)
    return text if re.fullmatch(r"[\w./=-]+", text, re.ASCII) else in_quotes(text)


def in_quotes(text: str) -> str:
    """A text in the quotes of Hydra's grammar."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), text) + "'"


def state(folder: Path) -> dict[str, Any]:
    """What is known of a run without a summary.

    Returns:
        ``how``: "running", "diverged", "stopped", "failed" or "not finished" (it was killed), and the ``reason`` in
        one line, if there is one.
    """
    if (held := owner(folder)) is not None:
        return {"how": "running", "reason": f"process {held.get('pid')!s:.20} on {str(held['host']).split(' ')[0]:.60}"}
    try:
        found = read_json(folder / ENDED)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("how", "reason")):
        return {"how": "not finished", "reason": ""}
    return {key: " ".join(found[key].split())[:300] for key in ("how", "reason")}


def _remember(folder: Path, how: str, reason: str) -> None:
    if (folder / "config.yaml").is_file() and not (folder / "summary.json").is_file():
        with contextlib.suppress(OSError):  # the disk may be full
            write_json(folder / ENDED, {"how": how, "reason": reason, "time": time.strftime("%Y-%m-%d %H:%M:%S")})
