"""Signals while Lightning trains: its own handlers are left out, since they end a stopped run with exit code 0.

Needs the extra `train`.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from sdn.runs.signals import check, ending, explained, held

__all__ = ["interruptible", "without_handlers"]


class _Silent(_SignalConnector):
    """No handlers.

    Lightning's own for SIGTERM raises a SystemExit without a code behind a batch, and talks to the other processes
    inside of the handler. Its own for Slurm writes a checkpoint that a resume would prefer to ours.
    """

    def register_signal_handlers(self) -> None:
        """Do nothing."""


class _GoodMoments(Callback):
    """Where a signal may end what Lightning runs: no lock is held there and no file is half written."""

    def on_train_epoch_start(self, *_: Any) -> None:
        """Behind the checkpoint of the epoch before."""
        check()

    def on_train_batch_end(self, *_: Any) -> None:
        """Behind a checkpoint inside of the epoch."""
        check()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Nothing is kept of a part of a validation."""
        check()

    def on_test_batch_end(self, *_: Any) -> None:
        """Nothing is kept of a part of a test."""
        check()


def without_handlers(trainer: lightning.Trainer) -> lightning.Trainer:
    """The same trainer, which leaves the signals of this process to `sdn.runs.signals`."""
    trainer._signal_connector = _Silent(trainer)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(_GoodMoments())  # the last one, behind those that write
    return trainer


@contextlib.contextmanager
def interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Around what a trainer runs: signals wait for a good moment, and processes that it started end with it.

    `sdn.runs.signals.Stopped` learns the epoch on its way. Without `sdn.runs.signals.listening` a Ctrl-C stays the
    KeyboardInterrupt of Python.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        with ending(lambda: _end_others(trainer)), explained(where=lambda: _where(trainer)), held():
            yield
    except SystemExit as stop:
        _end_others(trainer)
        if isinstance(stop.__context__, KeyboardInterrupt) and stop.code == 1:  # what Lightning makes of a Ctrl-C
            if before is not None:
                signal.signal(signal.SIGINT, before)  # it ignores further ones
            raise KeyboardInterrupt from None
        raise
    except BaseException:
        _end_others(trainer)
        raise


def _where(trainer: lightning.Trainer) -> str:
    if trainer.state.fn == "fit" and trainer.fit_loop.epoch_progress.current.ready:
        return f"in epoch {trainer.current_epoch + 1}"
    return "in the test" if trainer.state.fn == "test" else "before the first epoch"


def _end_others(trainer: lightning.Trainer) -> None:
    """End the processes that this one has started; they may wait for it, so that nothing milder reaches them."""
    launcher: Any = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        for process in launcher.procs:
            process.kill()
