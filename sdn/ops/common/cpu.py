"""What the CPU kernels share: how work is split over threads, where tiny numbers end, what is asked of the processor.

No kernel is compiled with `fastmath`: products and sums are rounded one by one, as torch rounds them, and the
processor's mode is never touched.
"""

import ctypes
import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from torch import Tensor

from sdn.ops.common.compiled import jit

__all__ = ["TINY", "TINY_DOUBLE", "huge", "jit", "prefetch", "spread"]

intrinsic: Any = numba_intrinsic  # a caller leaves out the first argument, which a type checker cannot know

TINY = 1.1754943508222875e-38
"""Smallest normal float32. A state below it is set to zero: arithmetic on subnormal numbers is up to 6x slower."""
TINY_DOUBLE = 2.2250738585072014e-308
"""The same for float64."""
PAGE, LARGE, MADV_HUGEPAGE = 4096, 1 << 23, 14
"""Bytes of a page and of what is worth large ones, which the C library otherwise maps anew, page by page."""


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


def spread(kernel: Any, items: int, *args: Any) -> None:
    """``kernel(*args, begin, end)`` over the items 0 .. items-1, split into one range per torch thread."""
    threads = min(torch.get_num_threads(), items)
    if threads <= 1:
        kernel(*args, 0, items)
        return
    kernel(*args, 0, 0)  # compile once, before the threads start
    pool = _pool(os.getpid(), threads - 1)
    ranges = [(items * i // threads, items * (i + 1) // threads) for i in range(threads)]
    others = [pool.submit(functools.partial(kernel, *args, *range)) for range in ranges[1:]]
    kernel(*args, *ranges[0])
    for other in others:
        other.result()


def huge(tensor: Tensor) -> Tensor:
    """The same tensor, on large pages where it is big and still empty (Linux): 200 MB are filled in 20 ms, not 70."""
    size, start = tensor.numel() * tensor.element_size(), tensor.data_ptr()
    if size >= LARGE and (advise := _madvise()) is not None:
        first = -(-start // PAGE) * PAGE
        advise(ctypes.c_void_p(first), ctypes.c_size_t(start + size - first), MADV_HUGEPAGE)  # or not; it is advice
    return tensor


@functools.cache
def _madvise() -> Any:
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None


@functools.lru_cache(maxsize=4)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process makes its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="sdn")
