"""Suite ``neurons``: every dynamics under every solver, against `torch.relu`, eager loops, and peers.

Which solvers there are is found out here: one that this version does not know, or that refuses a neuron, is left out
with a note. Currents are N(0, std of the dynamics); incoming gradients lie ready; outputs are fresh.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sdn
from benchmarks.harness import Bench, Run, growth, one_pass
from benchmarks.loops import select_loop, unbind_loop
from benchmarks.memory import peak
from benchmarks.peers import DECAY, Peer, compare_to_ours, installed

__all__ = ["neuron_run", "run", "variant"]

SOLVERS = ("fused", "parallel", "surrogate", "loop")
EAGER = ("loop", "unbind", "spikingjelly", "snntorch", "norse")
SELECT_LIMIT = 256 * 1024
"""Elements up to which the select loop's backward is run: it takes minutes beyond."""
QUICK_KINDS = ("LIF hard, learned", "ALIF, triangle", "BRF, triangle")
Shape = tuple[int, int, int]


def run(bench: Bench) -> None:
    """All tables of the suite."""
    peers = installed()
    facts = {peer.name: {**compare_to_ours(peer), **({"remark": peer.remark} if peer.remark else {})} for peer in peers}
    bars(bench, peers, facts)
    rows(bench, peers)
    lengths(bench)
    kinds(bench)
    if bench.level != "tiny":
        peaks(bench, peers)


def bars(bench: Bench, peers: list[Peer], facts: dict[str, dict[str, Any]]) -> None:
    """LIF with hard reset, 4096 rows: every tensor is 64 MiB or more except at L=1024."""
    full: list[Shape] = [(8, 1024, 512), (8, 4096, 512), (8, 16384, 512)]
    names = ["relu", *SOLVERS, "unbind", *(peer.name for peer in peers)]
    if bench.level == "quick":
        names = [name for name in names if name not in ("snntorch", "norse", "surrogate", "loop")]
    for shape in bench.pick(full, full[1:2], [(2, 9, 5)]):
        for backward in bench.pick((False, True), (True,)):
            found = _variants(bench, names, shape, backward)
            _compare(bench, "bars", shape, backward, found, ("relu", "unbind", "spikingjelly"), facts)


def rows(bench: Bench, peers: list[Peer]) -> None:
    """LIF over 16 to 16384 rows (B * H) at L=1024."""
    full: list[Shape] = [(1, 1024, 16), (1, 1024, 64), (4, 1024, 64), (4, 1024, 256), (8, 1024, 512), (32, 1024, 512)]
    names = ["relu", *SOLVERS, "unbind", "select", *(peer.name for peer in peers)]
    names = bench.pick(names, ["relu", "fused", "parallel", "unbind"], names)
    for shape in bench.pick(full, full[:3:2], [(1, 9, 3)]):
        for backward in bench.pick((False, True), (True,)):
            found = _variants(bench, names, shape, backward)
            _compare(bench, "rows", shape, backward, found, ("relu", "unbind"))


def lengths(bench: Bench) -> None:
    """LIF on 256 rows over L = 256 .. 16384, and the exponents of the growth from L=1024 on."""
    least = bench.pick(1024, 1024, 1)
    steps = bench.pick((256, 512, 1024, 2048, 4096, 8192, 16384), (1024, 4096), (8, 16))
    most = bench.pick(4096, 1024, 8)  # of the select loop
    seconds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for length in steps:
        names = ["relu", *bench.pick(SOLVERS, SOLVERS[:1]), "unbind"] + ["select"] * (length <= most)
        for backward in bench.pick((False, True), (True,)):
            found = _variants(bench, names, (4, length, 64), backward, select_limit=4 * SELECT_LIMIT)
            medians = _compare(bench, "lengths", (4, length, 64), backward, found, ("unbind",))
            for name, median in medians.items():
                seconds.setdefault((name, _word(backward)), []).append((length, median))
    for (name, word), pairs in seconds.items():
        far = [pair for pair in pairs if pair[0] >= least]
        if len(far) > 1:
            exponent = growth(*zip(*far, strict=True))
            bench.add(table="growth", variant=name, passes=word, since=far[0][0], until=far[-1][0], exponent=exponent)


def kinds(bench: Bench) -> None:
    """Every dynamics with the triangle and its own spike gradient, and with learned parameters, on 4096 rows."""
    shape: Shape = bench.pick((8, 4096, 512), (4, 1024, 256), (2, 9, 5))
    cases: list[tuple[str, sdn.Dynamics, sdn.SpikeGradient | None, dict[str, None]]] = [
        ("LIF hard", sdn.LIF(DECAY), None, {}),
        ("LIF hard, learned", sdn.LIF(DECAY), None, {"decay": None, "threshold": None}),
        ("LIF soft", sdn.LIF(DECAY, reset="soft"), None, {}),
        ("LIF no reset", sdn.LIF(DECAY, reset="none"), None, {}),
    ]
    for dynamics in (sdn.ALIF(), sdn.RF(), sdn.BRF(), sdn.HRF(), sdn.IzhikevichRF()):
        name = type(dynamics).__name__
        learn = dict.fromkeys(dynamics.transforms)
        gradients = (("triangle", sdn.Triangle()), (type(dynamics.default_spike).__name__, dynamics.default_spike))
        cases += [(f"{name}, {word}", dynamics, gradient, {}) for word, gradient in gradients]
        cases.append((f"{name}, triangle, learned", dynamics, sdn.Triangle(), learn))
    cases = bench.pick(cases, [case for case in cases if case[0] in QUICK_KINDS], cases[:1])
    for label, dynamics, gradient, learn in cases:
        for backward in bench.pick((False, True), (True,)):
            std = dynamics.default_std
            found = {"relu": one_pass(torch.relu, std * torch.randn(shape), backward)}
            for solver in bench.pick(("fused", "loop"), ("fused",), ("fused", "loop")):
                made = _made(bench, dynamics, shape[-1], solver, gradient, learn)
                if made:
                    x = std * torch.randn(shape, generator=torch.Generator().manual_seed(0))
                    found[solver] = neuron_run(made, x, backward)
            case = {"table": "kinds", "neuron": label, "shape": shape, "pass": _word(backward)}
            bench.compare(case, found, torch.Size(shape).numel(), ("relu", "loop"))


def peaks(bench: Bench, peers: list[Peer]) -> None:
    """Peak memory beyond input and incoming gradient, each variant in a process of its own."""
    shape: Shape = bench.pick((8, 4096, 512), (4, 1024, 256))
    for name in bench.pick(["relu", *SOLVERS, "unbind", *(peer.name for peer in peers)], ["fused"]):
        for backward in bench.pick((False, True), (True,)):
            found = peak("benchmarks.neurons:variant", name=name, shape=shape, backward=backward)
            if found is not None:
                size = found / torch.Size(shape).numel()
                bench.add(table="memory", variant=name, shape=shape, passes=_word(backward), bytes_per_element=size)


def variant(name: str, shape: Shape, backward: bool, tiny: bool = False) -> Run:
    """One variant of the LIF comparison, its input in place.

    Args:
        name: "relu", a solver, "unbind", "select", or a peer.
        shape: (B, L, H).
        backward: forward and backward, or forward without gradient.
        tiny: eight steps only.

    Raises:
        ValueError: a solver that is not there or refuses the neuron; a peer that is not installed.
    """
    batch, length, channels = shape
    length = min(8, length) if tiny else length
    x = torch.randn(batch, length, channels, generator=torch.Generator().manual_seed(0))
    if name == "relu":
        return one_pass(torch.relu, x, backward)
    if name == "unbind":
        return one_pass(partial(unbind_loop, decay=DECAY), x, backward)
    if name == "select":  # time last, as published
        return one_pass(partial(select_loop, decay=DECAY), x.transpose(1, 2).contiguous(), backward)
    for peer in installed():
        if peer.name == name:
            return one_pass(peer.run, (peer.scale * x).transpose(0, 1).contiguous(), backward)
    # The shipped networks stand for decays 0.2 and 0.125; no kernel's time depends on the decay.
    decay = 0.125 if name == "surrogate" else DECAY
    return neuron_run(sdn.Neuron(sdn.LIF(decay), channels, solver=name), x, backward)


def neuron_run(neuron: sdn.Neuron, x: Tensor, backward: bool) -> Run:
    """One pass of a neuron; with learned parameters their gradients are computed, and dropped, too."""
    parameters = list(neuron.parameters())
    inner = one_pass(lambda current: neuron(current)[0], x, backward)

    def both() -> None:
        inner()
        for parameter in parameters:
            parameter.grad = None

    return both if parameters else inner


def _variants(
    bench: Bench, names: list[str], shape: Shape, backward: bool, select_limit: int = SELECT_LIMIT
) -> dict[str, Run]:
    found = {}
    for name in names:
        if name == "select" and backward and torch.Size(shape).numel() > select_limit:
            continue
        try:
            found[name] = variant(name, shape, backward)
            variant(name, (1, 2, shape[2]), backward)()
        except (ValueError, NotImplementedError) as error:
            found.pop(name, None)
            bench.note(f"{name} left out: {str(error).splitlines()[0]}")
    return found


def _made(
    bench: Bench, dynamics: sdn.Dynamics, channels: int, solver: str, gradient: Any, learn: dict[str, None]
) -> sdn.Neuron | None:
    try:
        neuron = sdn.Neuron(dynamics, channels, learn=learn, spike=gradient, solver=solver)
        neuron(torch.zeros(1, 2, channels))
    except (ValueError, NotImplementedError) as error:
        bench.note(f"{solver} left out: {str(error).splitlines()[0]}")
        return None
    return neuron


def _compare(
    bench: Bench,
    table: str,
    shape: Shape,
    backward: bool,
    found: dict[str, Callable[[], object]],
    against: tuple[str, ...],
    facts: dict[str, dict[str, Any]] | None = None,
) -> dict[str, float]:
    case = {"table": table, "neuron": "LIF hard", "shape": shape, "rows": shape[0] * shape[2], "pass": _word(backward)}
    return bench.compare(case, found, torch.Size(shape).numel(), against, facts)


def _word(backward: bool) -> str:
    return "fwd+bwd" if backward else "fwd"
