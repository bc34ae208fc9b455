"""Suite ``s4d``: kernels (naive and by tables), long convolutions against the recurrence, and the whole layer.

H=256 channels, N/2=32 modes, batch 16. ``naive`` materialises H x N/2 x L complex numbers, as most code does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Bench, Run, growth
from benchmarks.memory import peak
from benchmarks.published_model import PublishedS4D
from spikingssm.layers import ssm
from spikingssm.layers.s4d import S4D

__all__ = ["run", "variant"]

BATCH, CHANNELS, STATE = 16, 256, 64
KERNELS = ("naive", "tables")
LAYERS = ("naive kernel, FFT", "tables, FFT", "recurrence")


def run(bench: Bench) -> None:
    """All tables of the suite."""
    lengths = bench.pick((1024, 4096, 16384), (1024, 4096), (8, 16))
    batch, channels = bench.pick((BATCH, CHANNELS), (2, 32), (1, 4))
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for part, names in (("kernel", KERNELS), ("layer", LAYERS)):
        for length in lengths:
            for backward in (False, True):
                shape = (1 if part == "kernel" else batch, length, channels)
                found = {n: r for n in names if (r := _maybe(bench, part, n, shape, backward))}
                word = "fwd+bwd" if backward else "fwd"
                case = {"table": part, "shape": shape, "state": STATE, "pass": word}
                extra = {name: {"error": error(part, name, length)} for name in found} if not backward else {}
                for name, median in bench.compare(case, found, torch.Size(shape).numel(), names[:1], extra).items():
                    seconds.setdefault((part, name, word), []).append(median)
    for (part, name, word), found in seconds.items():
        if len(found) == len(lengths):
            bench.add(table="growth", part=part, variant=name, passes=word, exponent=growth(lengths, found))
    if bench.level != "tiny":
        memory(bench)


def memory(bench: Bench) -> None:
    """Peak memory of a layer in MiB, forward and backward, parameters' gradients included."""
    shape = bench.pick((BATCH, 4096, CHANNELS), (2, 1024, 32))
    for name in bench.pick(LAYERS, LAYERS[2:]):
        if _maybe(bench, "layer", name, (1, 8, shape[2]), True) is None:
            continue
        found = peak("benchmarks.s4d:variant", part="layer", name=name, shape=shape, backward=True)
        if found is not None:
            bench.add(table="memory", variant=name, shape=shape, passes="fwd+bwd", mebibytes=found / 2**20)


def variant(part: str, name: str, shape: tuple[int, int, int], backward: bool, tiny: bool = False) -> Run:
    """One variant of a part: "kernel" (C, z -> K) or "layer" ((B, L, H) -> (B, L, H))."""
    torch.manual_seed(0)
    length = 8 if tiny else shape[1]
    if part == "kernel":
        weights, z = _system(shape[2])
        function = _kernels()[name]
        return _run(lambda: function(weights, z, length), [weights, z], backward, (1, shape[2], length))
    layer = _layer(name, shape[2]).train()
    x = torch.randn(shape[0], length, shape[2]).requires_grad_(backward)
    return _run(lambda: _out(layer(x)), [x, *layer.parameters()], backward, tuple(x.shape))


def error(part: str, name: str, length: int, channels: int = 32) -> float:
    """Root mean square error relative to that of the values, against the naive kernel in double precision."""
    torch.manual_seed(0)
    if part == "kernel":
        weights, z = (value.detach() for value in _system(channels))
        exact = ssm.kernel_naive(weights.to(torch.complex128), z.to(torch.complex128), length)
        got = _kernels()[name](weights, z, length)
    else:
        layer, x = _layer(name, channels).eval(), torch.randn(1, length, channels)
        with torch.no_grad():
            got, exact = _out(layer(x)), PublishedS4D.sharing(layer).double()(x.double())
    return ((got - exact).norm() / exact.norm()).item()


def _maybe(bench: Bench, part: str, name: str, shape: tuple[int, int, int], backward: bool) -> Run | None:
    try:
        return variant(part, name, shape, backward)
    except (ValueError, TypeError, NotImplementedError) as reason:
        bench.note(f"{name} left out: {str(reason).splitlines()[0]}")
        return None


def _run(function: Callable[[], Tensor], inputs: list[Tensor], backward: bool, shape: tuple[int, ...]) -> Run:
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                function()

        return forward
    incoming = torch.randn(shape)
    return lambda: torch.autograd.grad(function(), inputs, incoming, allow_unused=True)


def _system(channels: int) -> tuple[Tensor, Tensor]:
    log_real, imag = ssm.s4d_lin(channels, STATE)
    A = torch.complex(-torch.exp(log_real), imag)
    z, B_bar = ssm.discretise(A, torch.exp(ssm.log_uniform(channels, 0.001, 0.1)))
    C = torch.view_as_complex(ssm.complex_normal(1, channels, STATE // 2))
    return (C * B_bar).requires_grad_(), z.requires_grad_()


def _kernels() -> dict[str, Callable[[Tensor, Tensor, int], Tensor]]:
    return {"naive": ssm.kernel_naive, "tables": ssm.kernel}


def _layer(name: str, channels: int) -> Any:
    if name == "naive kernel, FFT":
        return PublishedS4D(channels, STATE)
    if name == "tables, FFT":
        return S4D(channels, STATE, algorithm="fft")
    return S4D(channels, STATE, algorithm="recurrence")


def _out(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result
