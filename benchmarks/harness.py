"""How times are taken: variants take turns in one process, one thread, process CPU time, medians, ratios by round.

CPU time leaves out what other processes do to the clock, but not what they do to caches and memory bandwidth. So the
numbers to trust are ratios of variants that took turns, each paired with its reference within one round; below 1.2 a
ratio is a tie. Everything a run allocates is allocated and released inside its own measurement. Before each turn the
allocator gives what it holds back to the system: otherwise a big output lands in new pages or in pages that the variant
before left behind, by chance, and the same work takes 1x or 2x the time.
"""

import contextlib
import ctypes
import functools
import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Bench", "Run", "growth", "keep_memory", "one_pass", "timings", "trim"]

Run = Callable[[], object]
"""One measured run: everything it needs is prepared, everything it makes is dropped."""
_kept: list[bool] = []
SHORTEST = 0.01
"""Seconds that a turn takes at least."""


@dataclass
class Bench:
    """One suite's measurements: what was asked for, and the rows found so far.

    Args:
        suite: its name, and that of its JSON.
        level: "full"; "quick" for fewer and smaller cases in three rounds; "tiny" to see that the code runs.
        budget: seconds of CPU that one variant may take in one comparison; a slow one takes part in fewer rounds.
    """

    suite: str
    level: str = "full"
    budget: float = 10.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """Measured rounds of a comparison, after the warm-up."""
        return {"full": 7, "quick": 3}.get(self.level, 1)

    def pick(self, full: Any, quick: Any, tiny: Any = None) -> Any:
        """What goes with the level; "tiny" takes the quick value where it has none of its own."""
        if self.level == "full":
            return full
        return tiny if self.level == "tiny" and tiny is not None else quick

    def note(self, text: str) -> None:
        """Print and keep a remark, once: what was left out, and why."""
        if text not in self.notes:
            self.notes.append(text)
            print(f"  note: {text}", flush=True)

    def add(self, **row: Any) -> None:
        """Keep a row that was not timed here, e.g. peak memory."""
        self.rows.append(row)
        print("  " + "  ".join(f"{k} {_shown(v)}" for k, v in row.items()), flush=True)

    def compare(
        self,
        case: Mapping[str, Any],
        variants: Mapping[str, Run],
        elements: int,
        against: Sequence[str] = (),
        extra: Mapping[str, Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.process_time,
    ) -> dict[str, float]:
        """Time the variants against each other, print a table and keep one row each.

        Args:
            case: plain values that say what was run; they go into every row.
            variants: by name; they take turns in this order, one place further each round.
            elements: what one run computes, for the nanoseconds per element.
            against: names of references; ``of[name]`` is the median over rounds of time / reference's time.
            extra: further values for the rows of some variants.
            clock: seconds; CPU time unless threads are compared.

        Returns:
            Median seconds by name.
        """
        print("\n" + "  ".join(f"{k}={_shown(v)}" for k, v in case.items()), flush=True)
        found = timings(variants, self.rounds, self.budget, clock)
        references = [name for name in against if name in found]
        print(f"{'variant':>24} {'ms':>10} {'ns/element':>11} {'lowest':>9} {'rounds':>7}", end="")
        print("".join(f" {'/ ' + name:>14}" for name in references))
        medians = {}
        for name, times in found.items():
            medians[name] = median = statistics.median(times)
            of = {ref: statistics.median(a / b for a, b in zip(times, found[ref], strict=False)) for ref in references}
            more = dict((extra or {}).get(name, {}))
            print(f"{name:>24} {1e3 * median:10.2f} {1e9 * median / elements:11.3f} {1e3 * min(times):9.2f}", end="")
            print(f" {len(times):7}" + "".join(f" {of[ref]:14.3f}" for ref in references), end="  ")
            print(", ".join(f"{k}: {_shown(v)}" for k, v in more.items()), flush=True)
            row = {**case, "variant": name, "seconds": median, "lowest": min(times), "highest": max(times)}
            self.rows.append({**row, "ns": 1e9 * median / elements, "of": of, "rounds": len(times), **more})
        return medians


def timings(
    variants: Mapping[str, Run], rounds: int, budget: float = math.inf, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds of each variant by round, the warm-up left out; round i of two variants was measured together.

    A run shorter than `SHORTEST` is repeated within its turn, and the mean of the repetitions is its time.
    """
    names = list(variants)
    gc.collect()
    gc.freeze()  # what is there already need not be searched again before every turn
    warm = {name: _timed(variants[name], clock) for name in names}
    for name in names:
        if warm[name] < 1:  # the first run may have compiled something
            warm[name] = max(_timed(variants[name], clock), 1e-6)
    repeat = {name: max(1, math.ceil(SHORTEST / seconds)) for name, seconds in warm.items()}
    wanted = {name: max(1, int(min(rounds, budget / seconds))) for name, seconds in warm.items()}
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(place + turn) % len(names)]
            if turn < wanted[name]:
                found[name].append(_timed(variants[name], clock, repeat[name]))
    gc.unfreeze()
    return found


def one_pass(function: Callable[[Tensor], Tensor], x: Tensor, backward: bool, incoming: Tensor | None = None) -> Run:
    """A run of ``function(x)`` without gradient, or forward and backward with an incoming gradient that lies ready.

    Args:
        function: what is measured.
        x: its input.
        backward: whether the gradient of x is asked for too.
        incoming: gradient of the output; None is random, of the input's shape.
    """
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                function(x)

        return forward
    leaf = x.detach().requires_grad_()
    given = torch.randn_like(x) if incoming is None else incoming

    def both() -> None:
        function(leaf).backward(given)
        leaf.grad = None

    return both


def trim() -> None:
    """Give free memory of the C allocator back to the system, where it can be asked to (glibc)."""
    if _kept:
        return
    with contextlib.suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def keep_memory() -> None:
    """Have the C allocator (glibc) keep all memory it ever had, for the rest of the process; `trim` then does nothing.

    Raises:
        OSError, AttributeError: another C library.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # from malloc.h
    if not (_libc().mallopt(m_mmap_max, 0) and _libc().mallopt(m_trim_threshold, -1)):
        raise OSError("mallopt refused to keep memory.")
    _kept.append(True)


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent p of ``seconds ~ sizes^p``: the slope of a straight line through the logarithms."""
    x, y = [math.log(s) for s in sizes], [math.log(s) for s in seconds]
    slope, _ = statistics.linear_regression(x, y)
    return slope


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6")


def _timed(run: Run, clock: Callable[[], float], repeat: int = 1) -> float:
    gc.collect()
    trim()
    gc.disable()
    try:
        start = clock()
        for _ in range(repeat):
            run()
        return (clock() - start) / repeat
    finally:
        gc.enable()


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
