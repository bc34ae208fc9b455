"""What a signal does while ``python -m spikingssm`` imports torch, which takes seconds: one line, and the exit code."""

import os
import signal
import sys
from types import FrameType

__all__ = ["end", "listen"]


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
