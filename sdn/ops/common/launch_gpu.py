"""How a Triton kernel is launched: on the device of its tensors, with a word where that takes long or cannot be."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["launch"]

PATIENCE = 0.5
"""Seconds; a launch returns at once, unless its kernel is compiled first."""
_known: set[Any] = set()


def launch(kernel: Any, programs: tuple[int, ...], like: Tensor, *arguments: Any, **options: Any) -> None:
    """``kernel[programs](*arguments, **options)`` on the device of ``like``.

    The first launch of a kind compiles the kernel, seconds for each, and says so on stderr.

    Raises:
        NotImplementedError: Triton finds no C compiler, which it needs for its launcher.
    """
    plain = tuple(x for x in arguments if not isinstance(x, Tensor))
    kind = (id(kernel), like.dtype, like.device, plain, tuple(options.items()))
    run = kernel[programs]
    with _on_device(like):
        if kind in _known:
            run(*arguments, **options)
            return
        _first(kernel.__name__.strip("_"), lambda: run(*arguments, **options))
    _known.add(kind)


def _first(name: str, run: Callable[[], Any]) -> None:
    said = threading.Timer(PATIENCE, _announce, [name])
    said.daemon = True
    if os.environ.get("TRITON_INTERPRET") != "1":
        said.start()
    try:
        run()
    except RuntimeError as error:
        if "C compiler" not in str(error):
            raise
        raise NotImplementedError(
            "the GPU kernels need a C compiler, with which Triton builds the code that starts them: install gcc or set "
            "CC=PATH; or use solver='loop'."
        ) from error
    finally:
        said.cancel()


def _announce(name: str) -> None:
    text = f"sdn: compiling {name} for the GPU (once for these types, 5 to 40 s; kept on disk)"
    print(text, file=sys.stderr, flush=True)


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
