"""Large pages for large tensors, so that the system maps them in few steps."""

import ctypes
import functools
import sys
from typing import Any

from torch import Tensor

__all__ = ["huge"]

PAGE, LARGE, MADV_HUGEPAGE = 4096, 1 << 23, 14
"""Bytes of a page and of what is worth large ones, which the C library otherwise maps anew, page by page."""


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
