"""TensorBoard's events, whose writer is a thread: what it cannot write is an error of the training, in one line.

Needs the extra `train`.
"""

import threading
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from sdn.runs.shortage import named

__all__ = ["Events"]


class Events(TensorBoardLogger):
    """Lightning's TensorBoard logger, with the errors of its writer as they were raised."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if threading.excepthook is not _without_writer:
            global _hook
            _hook, threading.excepthook = threading.excepthook, _without_writer

    @property
    def experiment(self) -> Any:
        """The writer.

        Raises:
            OSError: it cannot be opened.
        """
        with named(self.log_dir):
            return super().experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers.

        Raises:
            OSError: they cannot be written; Lightning takes that for numbers that it does not support.
        """
        with named(self.log_dir):
            try:
                super().log_metrics(metrics, step)
            except ValueError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise

    def save(self) -> None:
        """Write what waits.

        Raises:
            OSError: it cannot be written.
        """
        with named(self.log_dir):
            super().save()

    def finalize(self, status: str) -> None:
        """End the writer; where the training failed already, its error is the one to show."""
        with named(self.log_dir):
            try:
                super().finalize(status)
            except OSError:
                if status != "failed":
                    raise


_hook = threading.excepthook


def _without_writer(args: threading.ExceptHookArgs) -> None:
    """Print an error of a thread, but not what the writer could not write: who gave it the numbers gets that."""
    if isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread":
        return
    _hook(args)
