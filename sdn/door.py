"""What a command-line script does with errors: one line that says the way out, and an exit code that is not 0."""

import functools
import os
import sys
from collections.abc import Callable

__all__ = ["door"]


def door(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap the main function of a script: user errors become one line on standard error and exit code 2.

    Bad values, missing or unreadable files, missing extras and things that cannot be done are user errors; everything
    else is a bug and keeps its traceback. Set SDN_TRACEBACK=1 to see the traceback of user errors too.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except (ValueError, OSError, NotImplementedError, ImportError) as error:
            if os.environ.get("SDN_TRACEBACK") == "1":
                raise
            if isinstance(error, ModuleNotFoundError):
                error = ImportError(
                    f"the package {error.name} is missing; install the extras: pip install -e '.[train,data]'"
                )
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            sys.exit(2)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; nothing half written is left behind\n")
            sys.exit(130)

    return run
