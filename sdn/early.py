"""What a signal does while a command imports torch, which takes seconds: one line, and the exit code."""

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

__all__ = ["end", "is_command", "listen"]


COMMANDS = ("sdn", "spikingssm")


def is_command(argv: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether a process is one of our commands: ``python -m sdn`` or ``-m spikingssm``, or one that pip has installed.

    Somebody else's program that imports us keeps its signals.

    Args:
        argv: `sys.argv`. Python puts ``-m`` first while it looks for the module.
        whole: `sys.orig_argv`, in which the module stands before the same words.
    """
    if not argv:
        return False
    if argv[0] == "-m":
        return re.fullmatch(rf"(-[A-Za-z]*m)?({'|'.join(COMMANDS)})", whole[-len(argv)]) is not None
    path = Path(argv[0])
    return path.stem in COMMANDS and path.suffix in ("", ".exe") and path.parent.name in ("bin", "Scripts")


def listen() -> None:
    """End at a signal until `sdn.runs.cli` takes over; what is ignored stays ignored."""
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def end(number: int, frame: FrameType | None) -> None:
    """Say so, if this is the first process of its training, and end: before the work has begun, or after its end."""
    begun = getattr(sys.modules.get("sdn.runs.cli"), "begun", False)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        when = "the work had ended" if begun else "nothing had begun yet"
        os.write(2, f"stopped by {signal.Signals(number).name}; {when}\n".encode())
    os._exit(128 + number)
