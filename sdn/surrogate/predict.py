"""A reduced SDN over a whole batch of sequences: one fused pass, without gradient."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdn.ops.common.operator import operator
from sdn.surrogate.folded import folded_forward
from sdn.surrogate.network import ReducedSDN, receptive_field

__all__ = ["FUSED", "flat", "is_exporting", "plain_predict", "predict"]

FUSED = (torch.float32, torch.float64)
BOTH = ("weight", "bias")


@torch.no_grad()
def predict(net: ReducedSDN, input: Tensor, skip: int = 0) -> Tensor:
    """``net`` over (B, L, H), channel by channel, without gradient: (B, L - skip, H).

    One pass that reads the input and writes the output (the plain form takes 160 bytes an element). Equal to ``net``
    on the rows (B*H, L) up to rounding, and bit for bit the same however a sequence is cut. One opaque operator under
    `torch.compile`; under `torch.export` the plain network instead, so that an exported program needs nothing of ours.

    Args:
        net: the reduced network, in the device and dtype of the input; fused for float32 and float64, on CPU and (one
            layer) CUDA, else computed by `plain_predict`.
        input: (B, L, H); contiguous or with time innermost it is not copied, and the output has its layout.
        skip: the first steps that are looked back at but not predicted.

    Raises:
        ValueError: an input that is not (B, L, H), or nothing left to predict.
    """
    if input.ndim != 3 or not 0 <= skip < input.shape[1]:
        raise ValueError(f"predict: input must be (B, L, H) with L > skip = {skip}, got {tuple(input.shape)}.")
    if is_exporting():
        batch, length, channels = input.shape
        rows = net(input.transpose(1, 2).reshape(batch * channels, length))
        return rows.reshape(batch, channels, length).transpose(1, 2)[:, skip:]  # type: ignore[no-any-return]
    weights = [w.to(input.device, input.dtype) for w in _weights(net).values()]
    return _predict(input, weights, skip)  # type: ignore[no-any-return]


@torch.no_grad()
def plain_predict(net: ReducedSDN, input: Tensor, skip: int = 0, block: int = 16384) -> Tensor:
    """The same in plain torch, in pieces that fit the cache: any device and dtype, memory bounded by the block.

    Args:
        net, input, skip: as in `predict`.
        block: elements computed at a time.
    """
    return _in_blocks(input, _weights(net), net.n_layers, skip, block)


def is_exporting() -> bool:
    """Whether `torch.export` is tracing; before torch 2.7, which cannot tell, also whether `torch.compile` is."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


def _weights(net: ReducedSDN) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in net.named_parameters()}


def _whole(input: Tensor, weights: Sequence[Tensor], skip: int) -> Tensor:
    """(B, L, H) and the values of `ReducedSDN.state_dict` -> (B, L - skip, H); differentiable in nothing."""
    if input.dtype in FUSED and input.device.type == "cpu":
        from sdn.ops.membrane.predict_cpu import predict_cpu

        return _fused(predict_cpu, input, weights, skip)
    if input.dtype in FUSED and input.is_cuda and len(weights) == 6 and find_spec("triton") is not None:
        from sdn.ops.membrane.predict_gpu import predict_triton

        return _fused(predict_triton, input, weights, skip)
    return _plain(input, weights, skip)


def _fake(input: Tensor, weights: Sequence[Tensor], skip: int) -> Tensor:
    return _fused(lambda *_: None, input, weights, skip)


def _without_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def _no_backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
    return None, None, None


def _fused(kernel: Callable[..., None], input: Tensor, weights: Sequence[Tensor], skip: int) -> Tensor:
    rows, dilation = flat(input)
    out = rows.new_empty(len(rows), (input.shape[1] - skip) * dilation)
    kernel(rows, out, weights, dilation, skip)
    return _unflat(out, input, dilation)


def _plain(input: Tensor, weights: Sequence[Tensor], skip: int) -> Tensor:
    layers = (len(weights) - 2) // 4
    names = [f"{part}.{i}.{kind}" for part in ("spatial", "feature") for i in range(layers) for kind in BOTH]
    names += [f"decoder.{kind}" for kind in BOTH]
    mem = _in_blocks(input, dict(zip(names, weights, strict=True)), layers, skip)
    return mem.clone() if skip else mem  # a slice has not the strides of a fresh tensor


def flat(input: Tensor) -> tuple[Tensor, int]:
    """(B, L, H) as contiguous rows of steps that are D numbers long: (B*H, L) and 1, or (B, L*H) and H."""
    batch, length, channels = input.shape
    turned = input.transpose(1, 2)
    if turned.is_contiguous():
        return turned.reshape(batch * channels, length), 1
    return input.contiguous().reshape(batch, length * channels), channels


def _unflat(rows: Tensor, input: Tensor, dilation: int) -> Tensor:
    batch, _, channels = input.shape
    steps = rows.shape[1] // dilation
    if dilation == 1:
        return rows.reshape(batch, channels, steps).transpose(1, 2)
    return rows.reshape(batch, steps, channels)


def _in_blocks(input: Tensor, weights: dict[str, Tensor], n_layers: int, skip: int = 0, block: int = 16384) -> Tensor:
    whole, step = flat(input)
    weights = {name: value.unsqueeze(0) for name, value in weights.items()}
    taps = weights["spatial.0.weight"].shape[-1]
    reach = receptive_field(taps, n_layers) * step
    out = torch.empty_like(whole)
    wide = min(whole.shape[1], max(step, block // step * step))
    tall = max(1, block // wide)
    for top in range(0, len(whole), tall):
        rows = whole[top : top + tall]
        for left in range(0, whole.shape[1], wide):
            start = left < reach
            begin = 0 if start else left - reach
            part = rows[:, begin : left + wide]
            part = pad(part, (taps * step, 0)) if start else part
            mem = folded_forward(weights, part, n_layers, step, at_start=start)[0]
            out[top : top + tall, left : left + wide] = mem[:, -min(wide, whole.shape[1] - left) :]
    return _unflat(out, input, step)[:, skip:]


_predict = operator("sdn::predict", _whole, _fake, _no_backward, _without_gradient, tangent=lambda *_: None)
