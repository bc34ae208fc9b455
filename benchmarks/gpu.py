"""Suite ``gpu``: a CUDA device. LIF against a memory copy, where other solvers pay, scans, S5-RF and BRF; checks first.

Times are CUDA events around one run, median of many, after a warm-up that compiles. On a machine without a CUDA device
it says so and measures nothing. `python -m benchmarks gpu` writes benchmarks/results/gpu.json.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sdn
from benchmarks import brf_case as networks
from benchmarks.harness import Bench, one_pass
from benchmarks.loops import unbind_loop
from benchmarks.peers import DECAY, installed
from benchmarks.rounds import variant as rounds_variant
from benchmarks.s5rf import EPOCHS, SIZES, case, passes
from benchmarks.scans import convolution, eager_loop, scan_functions

__all__ = ["brf", "run", "s5rf"]

CROSSOVER = [(rows, length) for rows in (64, 1024, 16384) for length in (1024, 16384)]
"""Rows and steps at which a surrogate with rounds is compared with the exact neuron."""
ROWS = (64, 256, 1024, 4096, 25600)
MOST = 2**29
"""Elements of the largest tensor, 2 GiB."""


def run(bench: Bench) -> None:
    """Checks, then the tables; without a device a line."""
    if not torch.cuda.is_available():
        print("no CUDA device: not measured")
        return
    print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    correct(bench)
    lif(bench)
    crossover(bench)
    scans(bench)
    s5rf(bench)
    brf(bench)
    rounds(bench)


def rounds(bench: Bench) -> None:
    """Where three rounds of a surrogate are faster than the exact loop: few rows, long sequences, if anywhere."""
    for rows, length in bench.pick(CROSSOVER, CROSSOVER[:2]):
        for name in ("LIF .9", "BRF"):
            for word in ("exact, fused", "surrogate"):
                shape = (max(1, rows // 64), length, 64)
                times = [_milliseconds(rounds_variant(word, name, shape, b, device="cuda")) for b in (False, True)]
                row: dict[str, Any] = {"table": "crossover", "neuron": name, "variant": word}
                bench.add(**row, rows=rows, length=length, forward=times[0], both=times[1])


def correct(bench: Bench) -> None:
    """Spikes and gradients of every solver on the device against the loop on the CPU."""
    x = torch.randn(4, 1000, 96, generator=torch.Generator().manual_seed(0))
    incoming = torch.randn(4, 1000, 96, generator=torch.Generator().manual_seed(1))
    for dynamics in (sdn.LIF(DECAY), sdn.LIF(DECAY, reset="soft"), sdn.ALIF(), sdn.RF(), sdn.BRF()):
        current = (dynamics.default_std * x).requires_grad_()
        exact, _ = sdn.Neuron(dynamics, 96, solver="loop")(current)
        (grad,) = torch.autograd.grad(exact, current, incoming)
        for solver in ("fused", "parallel"):
            neuron = _neuron(bench, dynamics, 96, solver)
            if neuron is None:
                continue
            on_device = current.detach().cuda().requires_grad_()
            spikes, _ = neuron(on_device)
            (got,) = torch.autograd.grad(spikes, on_device, incoming.cuda())
            agree = (spikes.cpu() == exact).double().mean().item()
            error = ((got.cpu() - grad).abs().max() / grad.abs().max()).item()
            bench.add(table="check", neuron=str(dynamics), solver=solver, agreement=agree, gradient_error=error)


def lif(bench: Bench) -> None:
    """LIF with a hard reset on 25,600 rows (50 x 512): times over that of moving the same bytes."""
    for length in bench.pick((1024, 4096, 16384), (1024, 4096)):
        x = torch.randn(50, length, 512, device="cuda")
        y, size = torch.empty_like(x), x.numel()
        copy = _milliseconds(lambda: y.copy_(x))  # noqa: B023
        add = _milliseconds(lambda: torch.add(x, x, out=y))  # noqa: B023
        bench.add(table="floor", length=length, copy=copy, gigabytes_per_second=8e-6 * size / copy, add=add)
        candidates: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {}
        if (neuron := _neuron(bench, sdn.LIF(DECAY), 512, "fused")) is not None:
            candidates["fused"] = (partial(_spikes, neuron), x)
        candidates["relu"] = (torch.relu, x)
        for peer in installed() if length <= 4096 else []:
            candidates[peer.name] = (peer.run, x.transpose(0, 1).contiguous())
        if length == 1024:
            candidates["unbind"] = (partial(unbind_loop, decay=DECAY), x)
        for name, (function, given) in candidates.items():
            forward, both = (
                _milliseconds(one_pass(function, given, False)),
                _milliseconds(one_pass(function, given, True)),
            )
            row: dict[str, Any] = {"table": "lif", "variant": name, "rows": 25600, "length": length}
            bench.add(
                **row, forward=forward, both=both, forward_of_copy=forward / copy, both_of_floor=both / (copy + add)
            )


def crossover(bench: Bench) -> None:
    """Fused against parallel and the fused SDN over rows and lengths, decay 0.125, forward and backward."""
    for length in bench.pick((1024, 4096, 16384), (1024,)):
        for rows in ROWS:
            shape = (max(1, rows // 512), length, min(rows, 512))
            if torch.Size(shape).numel() > MOST:
                continue
            x = torch.randn(shape, device="cuda")
            for solver in ("fused", "parallel", "surrogate"):
                neuron = _neuron(bench, sdn.LIF(0.125), shape[-1], solver)
                if neuron is None:
                    continue
                forward, both = (_milliseconds(one_pass(partial(_spikes, neuron), x, b)) for b in (False, True))
                bench.add(table="crossover", variant=solver, rows=rows, length=length, forward=forward, both=both)


def scans(bench: Bench) -> None:
    """The complex scan with constant factors, checked against the loop in double precision."""
    for shape in ((16, 4096, 256), (4, 16384, 256)):
        a = torch.polar(0.9 + 0.099 * torch.rand(256), 3 * torch.rand(256)).cuda()
        b = torch.randn(shape, dtype=torch.complex64, device="cuda")
        functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"convolution": convolution, "loop": eager_loop}
        functions |= {name: function for name, function in scan_functions().items() if name in ("sdn.scan", "tree")}
        exact = eager_loop(a.to(torch.complex128), b.to(torch.complex128))
        for name, function in functions.items():
            error = ((function(a, b) - exact).abs().max() / exact.abs().max()).item()
            forward, both = (_milliseconds(one_pass(partial(function, a), b, back)) for back in (False, True))
            bench.add(table="scans", variant=name, shape=shape, forward=forward, both=both, error=error)


def s5rf(bench: Bench, device: str = "cuda") -> None:
    """Training steps of S5-RF, and the published recipes at that speed: steps only, no data, no validation.

    Args:
        bench: takes the rows; its level "tiny" is for a look at the code on a CPU.
        device: where the steps run.
    """
    for solver in ("fused", "parallel"):
        for name in ("smnist 50", "ssc 128"):
            loss, grads = passes("loop", case(SIZES[name].tiny())).gradients()
            other, theirs = passes(solver, case(SIZES[name].tiny(), device)).gradients()
            worst = max(float(abs(theirs[n] - g).max() / abs(g).max()) for n, g in grads.items())
            found = {"loss_error": abs(other - loss), "gradient_error": worst}
            bench.add(table="s5rf check", size=name, solver=solver, **found)
        for name in SIZES:
            given = case(SIZES[name].tiny() if bench.level == "tiny" else SIZES[name], device)
            seconds, memory = _training_step(bench, passes(solver, given).step, device)
            row: dict[str, Any] = {"table": "s5rf", "size": name, "variant": solver, "seconds": seconds}
            if name in EPOCHS:
                sequences, epochs = EPOCHS[name]
                steps = math.ceil(sequences / SIZES[name].batch)
                row |= {"steps": steps, "epochs": epochs, "hours": epochs * steps * seconds / 3600}
            bench.add(**row, gibibytes=memory)


def brf(bench: Bench, device: str = "cuda") -> None:
    """Training steps of the recurrent BRF network, fused and as published, after a check on the device.

    Args:
        bench: takes the rows; its level "tiny" is for a look at the code on a CPU.
        device: where the steps run.
    """
    tiny = bench.level == "tiny"
    for name in ("smnist 256", "ecg 16", "shd 32"):
        size, rate = networks.SIZES[name], networks.RATES[0]
        small = networks.case(size.tiny() if tiny else replace(size, batch=8), rate).to(device)
        for variant in ("fused", networks.EAGER):
            bench.add(table="brf check", size=name, variant=variant, **networks.errors(small, variant, "cpu"))
        given = networks.case(size.tiny() if tiny else size, rate).to(device)
        for variant in ("fused", networks.EAGER, networks.SCRIPTED):
            seconds, memory = _training_step(bench, networks.training_step(variant, given), device)
            bench.add(table="brf", size=name, variant=variant, seconds=seconds, gibibytes=memory)


def _training_step(bench: Bench, step: Callable[[], object], device: str) -> tuple[float, float | None]:
    """Median seconds on the clock of a step, the queue of the device included, and GiB at its peak on a CUDA device."""
    cuda = torch.device(device).type == "cuda"
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    found = []
    for turn in range(bench.pick(23, 8, 3)):
        if cuda and turn == 1:
            torch.cuda.reset_peak_memory_stats()
        wait()
        start = time.perf_counter()
        step()
        wait()
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:]), torch.cuda.max_memory_allocated() / 2**30 if cuda else None


def _neuron(bench: Bench, dynamics: sdn.Dynamics, channels: int, solver: str) -> sdn.Neuron | None:
    try:
        neuron = sdn.Neuron(dynamics, channels, solver=solver)
        neuron(torch.zeros(1, 2, channels, device="cuda"))
    except (ValueError, NotImplementedError) as reason:
        bench.note(f"{solver} left out: {str(reason).splitlines()[0]}")
        return None
    return neuron


def _spikes(neuron: sdn.Neuron, x: Tensor) -> Tensor:
    spikes, _ = neuron(x)
    return spikes


def _milliseconds(run: Callable[[], object], rounds: int = 20, budget: float = 3000.0) -> float:
    """Median time on the device; fewer rounds where they would take longer than the budget."""
    run()
    first = _once(run)
    return statistics.median(_once(run) for _ in range(max(3, min(rounds, int(budget / max(first, 1e-3))))))


def _once(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
