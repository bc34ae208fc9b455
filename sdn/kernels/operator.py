"""How an operator is made known to torch: one that `torch.compile` and autograd see as a single step."""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["NO_SECOND_DERIVATIVE", "operator"]


def operator(
    name: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    mutates: tuple[str, ...] = (),
) -> Any:
    """Register ``function`` under ``name`` for tensors of all devices and return the operator to call.

    What `torch.library.custom_op` does, without its import of the compiler at the first call, which takes a second.

    Args:
        name: ``namespace::name``.
        function: with type hints, from which the schema is read; it returns new tensors.
        fake: the same signature; empty tensors of the shapes and strides that ``function`` returns.
        backward, setup_context: as for `torch.library.register_autograd`; None for an operator without gradient.
        mutates: names of the arguments that it writes to.
    """
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=mutates))
    torch.library.impl(name, "default", function)
    torch.library.register_fake(name, fake)
    if backward is not None:
        torch.library.register_autograd(name, backward, setup_context=setup_context)
    namespace, short = name.split("::")
    return getattr(getattr(torch.ops, namespace), short).default


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "the gradient of a fused operator cannot be differentiated again; use solver='loop', or algorithm='fft' in S4D."
    )


NO_SECOND_DERIVATIVE = (_refuse, lambda *_, **__: None)
"""`backward` and `setup_context` of an operator that is itself a backward pass: an error, not a silent zero."""
