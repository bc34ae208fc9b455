"""The operators under `torch.func` (grad, vjp, vmap and what is made of them), and what forward mode gets."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdn.checks.tracing import transforming

__all__ = ["transformed"]


def transformed(
    name: str,
    run: Callable[..., Any],
    backward: Callable[..., Any] | None,
    setup_context: Callable[..., Any] | None,
    tangent: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """``run``, an operator, as something that `torch.func` can differentiate in reverse mode and map over samples.

    Args:
        name: of the operator, for errors.
        run: the operator itself, which must be called where no transform is left.
        backward, setup_context: as for `torch.library.register_autograd`; None where the result is a constant.
        tangent: ``(inputs, output, tangents of the inputs) -> tangent of the output``, for forward mode; None for an
            operator that refuses it.

    Returns:
        a function of the same arguments. Under `torch.vmap` it runs once for each sample.
    """

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return run(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.outputs = len(output) if isinstance(output, tuple) else 0
            if setup_context is None:
                ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
            elif any(ctx.needs_input_grad):
                setup_context(ctx, inputs, output)
            if tangent is not None:
                ctx.given = [None if isinstance(x, Tensor) else x for x in inputs]
                ctx.save_for_forward(*(x if isinstance(x, Tensor) else None for x in inputs), output)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            assert backward is not None
            return backward(ctx, *gradients)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            if tangent is not None:
                *tensors, output = ctx.saved_tensors
                given = [other if x is None else x for x, other in zip(tensors, ctx.given, strict=True)]
                return tangent(given, output, tangents)
            if backward is None:
                return (None,) * ctx.outputs if ctx.outputs else None
            raise NotImplementedError(
                f"{name}: a compiled operator has no forward-mode derivative; use solver='loop' (algorithm='fft' in "
                "S4D), or reverse mode."
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
            found = [
                call(*(_sample(a, dim, i) for a, dim in zip(arguments, in_dims, strict=True)))
                for i in range(info.batch_size)
            ]
            if isinstance(found[0], tuple):
                return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])
            return torch.stack(found), 0

    def call(*arguments: Any) -> Any:
        return Transformed.apply(*arguments) if transforming() else run(*arguments)  # type: ignore[no-untyped-call]

    return call


def _sample(argument: Any, dim: Any, number: int) -> Any:
    if isinstance(argument, list):
        return [_sample(a, d, number) for a, d in zip(argument, dim or [None] * len(argument), strict=True)]
    return argument.select(dim, number) if isinstance(argument, Tensor) and dim is not None else argument
