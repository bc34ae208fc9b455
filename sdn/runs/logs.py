"""What programs say on standard error: one format for all of them."""

import contextlib
import sys

from loguru import logger

__all__ = ["speak", "to_stderr"]


def to_stderr() -> None:
    """Add standard error to where messages go."""
    form = "<green>{time:HH:mm:ss}</green> | {level: <7} | {message}"
    logger.add(_write, colorize=sys.stderr.isatty(), format=form, level="INFO")


def speak() -> None:
    """Take loguru's own way of writing to standard error away and put ours there; who chose another one keeps it."""
    with contextlib.suppress(ValueError):  # it is no longer there
        logger.remove(0)
        to_stderr()


def _write(line: str) -> None:
    sys.stderr.write(line)  # looked up anew: a notebook or a test may have replaced it
