"""What the CPU kernels share: how they are compiled and cached, how work is split over threads, where tiny numbers end.

No kernel is compiled with `fastmath`: products and sums are rounded one by one, as torch rounds them, and the
processor's mode is never touched.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import torch
from numba.core import event

__all__ = ["TINY", "jit", "launch", "spread"]

TINY = 1.1754943508222875e-38
"""Smallest normal float32. A state below it is set to zero: arithmetic on subnormal numbers is up to 6x slower."""


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the GIL, cached on disk beside the source or in the user's cache if possible."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(**options)(function)


def launch(kernel: Any, *args: Any) -> Any:
    """Call a kernel; if it has to be compiled for these types, say so on stderr, once."""
    with event.install_listener("numba:compile", _Announce(kernel.py_func.__name__)):
        return kernel(*args)


def spread(kernel: Any, items: int, *args: Any) -> None:
    """``kernel(*args, begin, end)`` over the items 0 .. items-1, split into one range per torch thread."""
    threads = min(torch.get_num_threads(), items)
    if threads <= 1:
        launch(kernel, *args, 0, items)
        return
    launch(kernel, *args, 0, 0)  # compile once, before the threads start
    pool = _pool(os.getpid(), threads - 1)
    ranges = [(items * i // threads, items * (i + 1) // threads) for i in range(threads)]
    others = [pool.submit(functools.partial(kernel, *args, *range)) for range in ranges[1:]]
    kernel(*args, *ranges[0])
    for other in others:
        other.result()


@functools.lru_cache(maxsize=4)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process makes its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="sdn")


class _Announce(event.Listener):
    """Writes one line when a compilation begins that was asked for by this thread."""

    def __init__(self, name: str) -> None:
        self.name, self.thread, self.said = name, threading.get_ident(), False

    def on_start(self, _: Any) -> None:
        if not self.said and threading.get_ident() == self.thread:
            self.said = True
            print(f"sdn: compiling {self.name} (once for these types; kept on disk)", file=sys.stderr, flush=True)

    def on_end(self, _: Any) -> None:
        """Nothing to say."""
