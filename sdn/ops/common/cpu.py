"""What the CPU kernels share: how work is split over threads, where tiny numbers end, what is asked of the processor.

No kernel is compiled with `fastmath`: products and sums are rounded one by one, as torch rounds them, and the
processor's mode is never touched.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

from sdn.ops.common.compiled import jit
from sdn.ops.common.pages import huge

__all__ = ["TINY", "TINY_DOUBLE", "huge", "jit", "prefetch", "spread"]

intrinsic: Any = numba_intrinsic  # a caller leaves out the first argument, which a type checker cannot know

TINY = 1.1754943508222875e-38
"""Smallest normal float32. A state below it is set to zero: arithmetic on subnormal numbers is up to 6x slower."""
TINY_DOUBLE = 2.2250738585072014e-308
"""The same for float64."""


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Bring the cache line of ``array[index]`` (linear index, not checked) nearer, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        declare: Any = cgutils.get_or_insert_function
        function = declare(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data_cache = 0, 2, 1
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(function, [place, number(read), number(keep), number(data_cache)])
        return context.get_dummy_value()

    return types.none(array, index), generate


def spread(kernel: Any, items: int, *args: Any) -> bool:
    """``kernel(*args, begin, end)`` over the items 0 .. items-1, split into one range per torch thread.

    Returns:
        whether every call returned True.
    """
    threads = min(torch.get_num_threads(), items)
    if threads <= 1:
        return bool(kernel(*args, 0, items))
    kernel(*args, 0, 0)  # compile once, before the threads start
    pool = _pool(os.getpid(), threads - 1)
    ranges = [(items * i // threads, items * (i + 1) // threads) for i in range(threads)]
    others = [pool.submit(functools.partial(kernel, *args, *range)) for range in ranges[1:]]
    found = [kernel(*args, *ranges[0]), *(other.result() for other in others)]
    return all(found)


@functools.lru_cache(maxsize=4)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process makes its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="sdn")
