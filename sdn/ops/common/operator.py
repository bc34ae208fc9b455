"""How an operator is made known to torch: one that `torch.compile` and autograd see as a single step."""

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdn.checks.tracing import transforming
from sdn.ops.common.transforms import transformed

__all__ = ["COMPLEX", "NO_SECOND_DERIVATIVE", "operator"]

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
"""The complex counterpart of a dtype; Dynamo does not know `torch.dtype.to_complex`."""


def operator(
    name: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    mutates: tuple[str, ...] = (),
    tangent: Callable[..., Any] | None = None,
) -> Any:
    """Register ``function`` under ``name`` for tensors of all devices and return the operator to call.

    What `torch.library.custom_op` does, without its import of the compiler at the first call, which takes a second.

    Inside a compiled graph torch runs ``function`` with its lazy conjugates and negations switched off: a product with
    ``x.conj()`` there silently takes x itself. So ``function`` gets tensors that hold their own numbers, and makes no
    lazy ones: `torch.conj_physical`, not `torch.conj`.

    Args:
        name: ``namespace::name``.
        function: with type hints, from which the schema is read; it returns new tensors.
        fake: the same signature; empty tensors of the shapes and strides that ``function`` returns.
        backward, setup_context: as for `torch.library.register_autograd`; None for an operator without gradient.
        mutates: names of the arguments that it writes to.
        tangent: for forward mode, see `transformed`; None for an operator that refuses it.

    Returns:
        a function; its attribute ``overload`` is the operator as torch knows it.
    """
    torch.library.define(name, torch.library.infer_schema(_older(function), mutates_args=mutates))
    torch.library.impl(name, "default", _on_plain_tensors(function))
    torch.library.register_fake(name, fake)
    if backward is not None:
        torch.library.register_autograd(name, backward, setup_context=setup_context)
    namespace, short = name.split("::")
    run = getattr(getattr(torch.ops, namespace), short).default
    return _called(run, run if mutates else transformed(name, run, backward, setup_context, tangent))


def _older(function: Callable[..., Any]) -> Callable[..., Any]:
    """The signature of a function with the older names of lists and sequences, the only ones that torch 2.6 knows."""
    found = inspect.signature(function, eval_str=True)
    given = [p.replace(annotation=_older_type(p.annotation)) for p in found.parameters.values()]

    def same() -> None: ...

    same.__signature__ = found.replace(parameters=given)  # type: ignore[attr-defined]
    return same


def _older_type(kind: Any) -> Any:
    names = {list: typing.List, Sequence: typing.Sequence}  # noqa: UP006
    name: Any = names.get(typing.get_origin(kind))
    return kind if name is None else name[typing.get_args(kind)]


def _called(run: Any, elsewhere: Callable[..., Any]) -> Any:
    """The operator, called through ``elsewhere`` under `torch.func` and in forward mode."""

    @functools.wraps(run._op)
    def call(*arguments: Any) -> Any:
        return elsewhere(*arguments) if transforming() else run(*arguments)

    call.overload = run  # type: ignore[attr-defined]
    return call


def _on_plain_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind the conjugates and negations of its arguments, carried out."""

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        lazy = any(isinstance(x, Tensor) and (x.is_conj() or x.is_neg()) for x in arguments)
        return function(*(map(_resolved, arguments) if lazy else arguments))

    return run


def _resolved(argument: Any) -> Any:
    return argument.resolve_conj().resolve_neg() if isinstance(argument, Tensor) else argument


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "the gradient of a fused operator cannot be differentiated again; use solver='loop', or algorithm='fft' in S4D."
    )


NO_SECOND_DERIVATIVE = (_refuse, lambda *_, **__: None)
"""`backward` and `setup_context` of an operator that is itself a backward pass: an error, not a silent zero."""
