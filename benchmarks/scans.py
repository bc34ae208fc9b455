"""Suite ``scans``: x[t] = a x[t-1] + b[t], complex and real, by `sdn.scan`, trees, loops, convolution, and JAX.

Variants in torch are measured forward without gradient, and forward and backward with gradients of both arguments.
JAX's are compiled, on one thread where XLA keeps to it; CPU time counts all its threads in any case.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sdn
from benchmarks.harness import Bench, Run, growth
from benchmarks.memory import peak
from benchmarks.tree_scan import tree_scan

__all__ = ["convolution", "eager_loop", "run", "scan_functions", "variant"]

Shape = tuple[int, int, int]
NAMES = ("sdn.scan", "tree", "tree, factors by row", "loop", "convolution", "jax tree", "jax loop")


def run(bench: Bench) -> None:
    """All tables of the suite."""
    full: list[Shape] = [(16, 1024, 256), (16, 4096, 256), (4, 16384, 256)]
    shapes: list[Shape] = bench.pick(full, [(4, 1024, 256)], [(2, 9, 5)])
    kinds = bench.pick((("complex64", False), ("complex64", True), ("float32", False)), (("complex64", False),))
    for dtype, varying in kinds:
        for shape in shapes:
            for backward in (False, True):
                compare(bench, "scans", shape, dtype, varying, backward)
    exponents(bench)
    shape = bench.pick((4, 4096, 256), (4, 1024, 256))
    for name in bench.pick((*NAMES[:2], *NAMES[3:5]), NAMES[:1], ()):
        for backward in (False, True):
            arguments = {"name": name, "shape": shape, "dtype": "complex64", "varying": False, "backward": backward}
            found = peak("benchmarks.scans:variant", **arguments) if _there(bench, name) else None
            if found is not None:
                size = found / torch.Size(shape).numel()
                bench.add(table="memory", variant=name, shape=shape, passes=_word(backward), bytes_per_element=size)


def exponents(bench: Bench) -> None:
    """How the time of (16, L, 256) complex scans grows with L, forward and backward."""
    steps = bench.pick((1024, 2048, 4096, 8192), (1024, 4096), (8, 16))
    seconds: dict[str, list[float]] = {}
    for length in steps:
        shape = (16, length, 256)
        for name, median in compare(bench, "lengths", shape, "complex64", False, True, NAMES[:2]).items():
            seconds.setdefault(name, []).append(median)
    for name, found in seconds.items():
        exponent = growth(steps, found)
        bench.add(table="growth", variant=name, passes="fwd+bwd", since=steps[0], until=steps[-1], exponent=exponent)


def compare(
    bench: Bench,
    table: str,
    shape: Shape,
    dtype: str,
    varying: bool,
    backward: bool,
    names: tuple[str, ...] = NAMES,
) -> dict[str, float]:
    """One case; a variant that is not there, or does not do this case, is left out."""
    found, extra = {}, {}
    for name in names:
        if not _there(bench, name) or (name in ("convolution", NAMES[2]) and varying):
            continue
        found[name] = variant(name, shape, dtype, varying, backward)
        extra[name] = {"error": error(name, dtype, varying)}
    word = "factors vary" if varying else "factors constant"
    case = {"table": table, "shape": shape, "dtype": dtype, "factors": word, "pass": _word(backward)}
    return bench.compare(case, found, torch.Size(shape).numel(), ("tree", "jax tree", "loop"), extra)


def variant(name: str, shape: Shape, dtype: str, varying: bool, backward: bool, tiny: bool = False) -> Run:
    """One variant with its arguments and incoming gradient in place."""
    a, b, incoming = _arguments((shape[0], 8, shape[2]) if tiny else shape, dtype, varying)
    if name.startswith("jax"):
        return _jax_run(name, a, b, incoming, backward)
    function = scan_functions()[name]
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                function(a, b)

        return forward
    a, b = a.requires_grad_(), b.requires_grad_()

    def both() -> None:
        torch.autograd.grad(function(a, b), (a, b), incoming)

    return both


def error(name: str, dtype: str, varying: bool, shape: Shape = (2, 512, 8)) -> float:
    """Largest error relative to the largest value, against the loop in double precision."""
    a, b, _ = _arguments(shape, dtype, varying)
    wide = torch.complex128 if a.is_complex() else torch.float64
    exact = eager_loop(a.to(wide), b.to(wide))
    if name.startswith("jax"):
        jax = _jax_module()
        got = torch.tensor(jax.device_get(jax.jit(_jax_scan(name))(a.numpy(), b.numpy())))
    else:
        got = scan_functions()[name](a, b)
    return ((got - exact).abs().max() / exact.abs().max()).item()


def eager_loop(a: Tensor, b: Tensor) -> Tensor:
    """The recurrence one step after another over (B, L, H); ``a`` is (H,) or (B, L, H)."""
    factors = a.unbind(1) if a.ndim == 3 else [a] * b.shape[1]
    x, found = torch.zeros_like(b[:, 0]), []
    for factor, now in zip(factors, b.unbind(1), strict=True):
        x = factor * x + now
        found.append(x)
    return torch.stack(found, 1)


def convolution(a: Tensor, b: Tensor) -> Tensor:
    """The same with constant factors (H,) as a convolution with the powers of ``a``, by FFTs of length 2L."""
    length = b.shape[1]
    powers = a.pow(torch.arange(length, device=b.device).unsqueeze(-1))  # (L, H)
    if not b.is_complex():
        return torch.fft.irfft(torch.fft.rfft(b, 2 * length, 1) * torch.fft.rfft(powers, 2 * length, 0), 2 * length, 1)[
            :, :length
        ]
    return torch.fft.ifft(torch.fft.fft(b, 2 * length, 1) * torch.fft.fft(powers, 2 * length, 0), dim=1)[:, :length]


def scan_functions() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The scans in torch, (a, b) -> x. Ports of S5 give every row of a batch its own factors; our tree need not."""
    by_row = lambda a, b: tree_scan(a.expand(b.shape).contiguous(), b)  # noqa: E731
    found = {"sdn.scan": sdn.scan, "tree": tree_scan, "tree, factors by row": by_row, "loop": eager_loop}
    return {**found, "convolution": convolution}


def _there(bench: Bench, name: str) -> bool:
    if name.startswith("jax") and _jax_module() is None:
        bench.note("jax left out: not installed (make bench-peers)")
        return False
    return True


def _arguments(shape: Shape, dtype: str, varying: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of modulus 0.9 .. 0.999, terms N(0, 1), an incoming gradient; the same for all variants."""
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    radius = 0.9 + 0.099 * torch.rand(shape if varying else shape[-1:], generator=generator)
    angle = 3 * torch.rand(radius.shape, generator=generator)
    a = torch.polar(radius, angle) if kind.is_complex else radius
    return a, *(torch.randn(shape, generator=generator, dtype=kind) for _ in range(2))


def _jax_module() -> Any:
    one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ.setdefault("XLA_FLAGS", one_thread)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        return importlib.import_module("jax")
    except ModuleNotFoundError:
        return None


def _jax_scan(name: str) -> Callable[[Any, Any], Any]:
    jax = _jax_module()

    def combine(left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
        return right[0] * left[0], right[0] * left[1] + right[1]

    def tree(a: Any, b: Any) -> Any:
        factors = a if a.ndim == 3 else jax.numpy.broadcast_to(a, (1, *b.shape[1:]))  # shared by all rows
        return jax.lax.associative_scan(combine, (factors, b), axis=1)[1]

    def loop(a: Any, b: Any) -> Any:
        def step(x: Any, now: Any) -> tuple[Any, Any]:
            x = (now[0] if a.ndim == 3 else a) * x + now[-1]
            return x, x

        over = (a.swapaxes(0, 1), b.swapaxes(0, 1)) if a.ndim == 3 else (b.swapaxes(0, 1),)
        return jax.lax.scan(step, b[:, 0] * 0, over)[1].swapaxes(0, 1)

    return tree if name == "jax tree" else loop


def _jax_run(name: str, a: Tensor, b: Tensor, incoming: Tensor, backward: bool) -> Run:
    jax, scan = _jax_module(), _jax_scan(name)
    given = [jax.device_put(value.numpy()) for value in (a, b, incoming)]
    if not backward:
        compiled = jax.jit(scan)
        return lambda: compiled(*given[:2]).block_until_ready()
    both = jax.jit(lambda a, b, g: jax.vjp(scan, a, b)[1](g))
    return lambda: jax.block_until_ready(both(*given))


def _word(backward: bool) -> str:
    return "fwd+bwd" if backward else "fwd"
