"""SIGTERM, Ctrl-C and a closed terminal: a program ends in order, says how to go on, and exits with 128 + the signal.

`listening` is for programs, see `sdn.runs.cli`. Without it Python's own handlers stay as they are.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple, NoReturn

__all__ = ["STOPPING", "Stopped", "check", "ending", "explained", "held", "listening", "pending", "speaks"]

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE = 4.0
"""Seconds that a signal waits for a good moment, see `held`, and seconds that ending in order may take then."""
AGAIN = 0.1
"""Seconds until a signal that the program has not heard is sent to it again."""
RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")


class Stopped(SystemExit):
    """A signal asked this program to end.

    A SystemExit, so that whoever does not know it still ends with the exit code of the signal.

    Args:
        number: of the signal.

    Attributes:
        where: what was going on, such as "in epoch 3"; the first who knows it sets it, see `explained`.
        advice: how to go on, such as "go on with resume=runs/x".
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.where = self.advice = ""

    def __str__(self) -> str:
        advice = self.advice or "nothing half written is left behind, start again with the same command"
        return f"stopped by {self.signal.name}{self.where and ' '}{self.where}; {advice}"


class _Words(NamedTuple):
    """What `explained` knows to say."""

    advice: Callable[[], str]
    where: Callable[[], str]

    def tell(self, stop: Stopped) -> None:
        stop.where = stop.where or self.where()
        stop.advice = stop.advice or self.advice()


class _Listener:
    """The handlers of this process, and what they have heard."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.parent = os.getppid()
        self.follows = _follows()
        self.received: int | None = None
        self.held = self.overdue = self.limited = False
        self.insisted = -math.inf
        self.at_once: list[Callable[[], None]] = []
        self.words: list[_Words] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a process that was forked for a part of the work
            if number != signal.SIGINT:  # of a Ctrl-C the first process hears too, and ends this one
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
        elif self.follows and os.getppid() == self.parent:
            pass  # the first process hears of it too, and ends this one
        elif self.received is None:
            self.received = number
            if self.held:
                _later(GRACE, self._insist)
            else:
                self.stop(number)
        elif self.overdue:
            self.stop(self.received)
        elif number != self.received or time.monotonic() - self.insisted > 5 * AGAIN:
            self._end(number, f"stopped at once by a second signal, {signal.Signals(number).name}")

    def stop(self, number: int) -> NoReturn:
        """Raise, and set a limit: raised inside of a lock it leaves the lock taken, and who ends may wait for it."""
        self.held = self.overdue = False
        if not self.limited:
            self.limited = True
            _later(GRACE, lambda: self._give_up(number))
        raise Stopped(number)

    def _insist(self) -> None:
        """Wake the main thread. One that is about to wait in a call of the system hears of it behind the call only."""
        self.overdue = self.held
        while self.overdue and _listener is self:
            self.insisted = time.monotonic()
            signal.pthread_kill(threading.main_thread().ident or 0, self.received or signal.SIGTERM)
            time.sleep(AGAIN)

    def _give_up(self, number: int) -> None:
        stop = Stopped(number)
        for words in reversed(self.words):
            words.tell(stop)
        self._end(number, str(stop))

    def _end(self, number: int, line: str) -> None:
        for end in self.at_once:
            end()
        if speaks():
            os.write(2, f"{line}\n".encode())
        os._exit(128 + number)


_listener: _Listener | None = None
_timers: list[threading.Timer] = []


def _later(seconds: float, call: Callable[[], None]) -> None:
    waiting = threading.Timer(seconds, call)
    waiting.daemon = True
    waiting.start()
    _timers.append(waiting)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Within this block a first signal raises `Stopped`, a second one ends the process at once.

    A signal that is ignored stays so, as under ``nohup``. Outside of the main thread nothing changes. Of several
    processes of one training those that the first one started leave it to that one.
    """
    global _listener
    if _listener is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _listener = _Listener()
    before = {number: signal.getsignal(number) for number in STOPPING}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in heard:
            signal.signal(number, _listener)
        with explained():
            yield
    finally:
        for waiting in _timers:
            waiting.cancel()
        _timers.clear()
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
        _listener = None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within this block a signal waits for `check`, which is called where it does no harm, or for `GRACE` seconds.

    Raises:
        Stopped: at the end of the block, if a signal has come.
    """
    mine = _listener
    if mine is None:
        yield
        return
    before, mine.held = mine.held, True
    try:
        yield
    finally:
        mine.held = before
        mine.overdue = mine.overdue and before
    check()


def pending() -> bool:
    """Whether a signal has come that `check` will raise."""
    return _listener is not None and _listener.received is not None


def check() -> None:
    """A good moment to end.

    Raises:
        Stopped: a signal has come; also where its exception was lost in code that catches all.
    """
    if _listener is not None and _listener.received is not None:
        _listener.stop(_listener.received)


@contextlib.contextmanager
def ending(end: Callable[[], None]) -> Iterator[None]:
    """Within this block a second signal calls ``end`` before the process ends at once."""
    mine = _listener
    if mine is not None:
        mine.at_once.append(end)
    try:
        yield
    finally:
        if mine is not None:
            mine.at_once.remove(end)


@contextlib.contextmanager
def explained(advice: Callable[[], str] = str, where: Callable[[], str] = str) -> Iterator[None]:
    """Say of a `Stopped` that passes how to go on and what was going on, where nobody has said it yet.

    Another exception that passes after a signal becomes a `Stopped`: it comes of ending in the middle.

    Args:
        advice: gives the text, called when it is needed.
        where: the same.
    """
    words, mine = _Words(advice, where), _listener
    if mine is not None:
        mine.words.append(words)
    try:
        yield
    except BaseException as error:
        stop = error if isinstance(error, Stopped) else None
        if stop is None and _listener is not None and _listener.received is not None:
            stop = Stopped(_listener.received)
        if stop is None:
            raise
        words.tell(stop)
        raise stop from None
    finally:
        if mine is not None:
            mine.words.remove(words)


def speaks() -> bool:
    """Whether this process is the one of its training that says something."""
    return all(os.environ.get(name, "0") in ("", "0") for name in RANKS)


def _follows() -> bool:
    """Whether the first process of a training has started this one; torchrun and Slurm tell each process themselves."""
    return os.environ.get("LOCAL_RANK", "0") not in ("", "0") and "TORCHELASTIC_RUN_ID" not in os.environ
