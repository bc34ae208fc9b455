"""What a script does with errors and signals: one line that says the way out, and an exit code that is not 0."""

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from sdn.runs.shortage import shortage
from sdn.runs.signals import STOPPING, Stopped, listening, speaks

__all__ = ["begun", "entry_point", "said", "shortened"]

LONGEST = 1000
"""Characters of an error that is printed."""

begun = False
"""Whether a script has begun its work; its first handlers of signals ask this."""


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap the main function of a script: user errors become one line on standard error and exit code 2.

    Bad values, missing or unreadable files, missing extras, things that cannot be done, a full disk and too little
    memory are user errors; everything else is a bug and keeps its traceback. Set SDN_TRACEBACK=1 to see the traceback
    of user errors too. SIGTERM, Ctrl-C and a closed terminal end the script in order, see `sdn.runs.signals`: one line
    and exit code 143, 130 or 129.
    """

    @functools.wraps(main)
    def run() -> None:
        global begun
        try:
            with listening():
                begun = True
                from sdn.runs.logs import speak  # here, so that a signal in the midst of the import ends in order

                speak()
                main()
        except Stopped as stop:
            _deafen()
            if speaks():
                _write(str(stop))
            sys.exit(stop.code)
        except KeyboardInterrupt:
            _write(str(Stopped(signal.SIGINT)))
            sys.exit(128 + signal.SIGINT)
        except (ValueError, OSError, NotImplementedError, ImportError, MemoryError, RuntimeError) as error:
            text = said(error)
            if text is None or os.environ.get("SDN_TRACEBACK") == "1":
                raise
            _write(f"error: {text}")
            sys.exit(2)

    return run


def said(error: BaseException) -> str | None:
    """An error of the user in one line, its notes included; None for a bug."""
    if isinstance(error, ModuleNotFoundError):
        text = f"the package {error.name} is missing; install the extras: pip install '{_ours()}[train,data]'"
    elif (short := shortage(error)) is not None:
        text = short
    elif isinstance(error, (ValueError, OSError, NotImplementedError, ImportError)):
        text = str(error)
    else:
        return None
    for note in getattr(error, "__notes__", []):
        text += f" {note[:1].upper()}{note[1:]}" if text.endswith(("?", ".")) else f"; {note}"
    return shortened(" ".join(text.split()))


def _ours() -> str:
    """What pip installs us as: the checkout, or the package."""
    root = Path(__file__).parents[2]
    return str(root) if (root / "pyproject.toml").is_file() else "sdn-spikingssm"


def shortened(text: str) -> str:
    """A text of at most `LONGEST` characters: the middle of a longer one, where a value stands, is left out."""
    part = LONGEST // 2 - 3
    return text if len(text) <= LONGEST else f"{text[:part]} ... {text[-part:]}"


def _deafen() -> None:
    """Ignore signals while a stopped script is taken down, where Python would leave them to the system.

    That is a script that listened before it imported anything, see `sdn.early`; elsewhere nothing changes.
    """
    for number in STOPPING:
        if getattr(signal.getsignal(number), "__name__", "") == "end":
            signal.signal(number, signal.SIG_IGN)


def _write(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
