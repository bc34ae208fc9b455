"""Fast paths in a captured CUDA graph: forward and backward on tensors that are there already."""

from collections.abc import Callable

import torch
from torch import Tensor

from sdn.dynamics import BUILT_IN
from sdn.neuron import Neuron
from sdn.ops.recurrent.recurrent import recurrent
from sdn.ops.resonate.resonate import resonate
from sdn.ops.scan.operator import scan

__all__ = ["calls", "in_a_graph", "replayed"]

Call = Callable[[], list[Tensor]]
BATCH, LENGTH, CHANNELS = 2, 65, 32
AROUND = 3
"""Runs before the capture: kernels are compiled in the first one."""


def calls(device: str) -> dict[str, Call]:
    """An output and the gradient of the input, for one operator of each kind."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, drive = drawn(BATCH, LENGTH, CHANNELS), drawn(BATCH, LENGTH, 2 * CHANNELS)
    factor = torch.polar(torch.full((CHANNELS,), 0.95), torch.linspace(0.1, 1.5, CHANNELS)).to(device)
    rotation = torch.linalg.qr(torch.randn(16, 16, dtype=torch.complex64, generator=generator)).Q.to(device)
    lif, brf = Neuron(BUILT_IN["lif"](), CHANNELS).to(device), BUILT_IN["brf"]()
    weight = drawn(CHANNELS, 2 * CHANNELS) * brf.default_std / CHANNELS**0.5
    return {
        "neuron": _both(lambda x: lif(x)[0], x),
        "recurrent": _both(lambda x: recurrent(x, weight, brf)[0], x),
        "resonate": _both(lambda u: resonate(u, factor, factor, rotation=rotation)[0], drive),
        "scan": _both(lambda b: scan(factor.real.contiguous(), b), x),
    }


def _both(run: Callable[[Tensor], Tensor], given: Tensor) -> Call:
    leaf = given.requires_grad_()

    def call() -> list[Tensor]:
        out = run(leaf)
        return [out.detach(), *torch.autograd.grad(out.sum(), leaf)]

    return call


def in_a_graph(name: str, device: str) -> str:
    """Whether a replay of a captured graph gives the bits of the plain run."""
    if torch.device(device).type != "cuda":
        return "not on this device"
    expected, got = replayed(calls(device)[name])
    return "equal" if all(torch.equal(one, other) for one, other in zip(expected, got, strict=True)) else "differs"


def replayed(call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """What a call gives, and what it gives in a graph: emptied after the capture, so that the replay must fill it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as a capture wants it
        for _ in range(AROUND):
            expected = call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = call()
    for tensor in got:
        tensor.fill_(torch.nan)
    graph.replay()
    return expected, got
