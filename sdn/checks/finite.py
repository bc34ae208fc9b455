"""Numbers that must be finite: refused at once on the CPU, without waiting for another device, left alone in a graph.

NaN never reaches a threshold, so that a neuron which computes with it would be silent, and its output plausible. One
rule for every layer, solver and device:

- Eager, on the CPU: an error at once that names what, step and neuron.
- Eager, elsewhere: the same question is asked on the device, and the answer is read when it has arrived, by the next
  check or by `arrived`. Nothing waits for the device, and the error comes a little later. `immediate` asks at once.
- Compiled, exported, captured in a CUDA graph, or under `torch.func`: nothing is asked.

In every case a spike is NaN where the distance to the threshold is NaN or infinite, see `sdn.spike`.
"""

import cmath
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdn.checks.tracing import has_numbers

__all__ = ["Diverged", "all_finite", "arrived", "at_once", "demand", "demand_finite", "immediate", "nothing"]


class Diverged(ValueError):
    """A neuron whose state became NaN or infinite."""


class _Answer(NamedTuple):
    good: Tensor
    """A bool, on the host from ``event`` on; without one it is read where somebody waits."""
    event: Any
    who: str

    def is_there(self) -> bool:
        return self.event is not None and bool(self.event.query())

    def wait(self) -> None:
        if self.event is not None:
            self.event.synchronize()


_sent: deque[_Answer] = deque()
_MOST = 4096  # answers that may be on their way; more than a device falls behind
_ask: str = "by device"  # or "at once", or "later"


def all_finite(*tensors: Tensor) -> Tensor:
    """Whether every number of the tensors, all on one device, is finite: a bool tensor without axes."""
    found = [torch.isfinite(tensor.detach()).all() for tensor in tensors]
    return found[0] if len(found) == 1 else torch.stack(found).all()


def nothing(tensor: Tensor) -> Tensor:
    """0, and NaN where a number is NaN or infinite; to be added to what must not be finite then."""
    known = tensor.detach()
    return known - known


def at_once(like: Tensor) -> bool:
    """Whether `demand` raises at once for tensors on the device of this one, and not later or never."""
    return has_numbers(like) and (_ask == "at once" or (_ask == "by device" and like.device.type == "cpu"))


def demand(good: Tensor, who: str, explain: Callable[[], Any]) -> None:
    """Raise where ``good`` is False: at once, or on another device than the CPU when that is known.

    Args:
        good: a bool tensor without axes.
        who: what the error of a later time calls it, such as "LIF: the state".
        explain: raises the error that names everything; called at once, or not at all. It returns if there is none.
    """
    if at_once(good):
        if not good:
            explain()
        return
    _look(wait=len(_sent) >= _MOST)
    _sent.append(_posted(good, who))


def demand_finite(tensors: Sequence[Tensor], who: str, explain: Callable[[], Any]) -> None:
    """`demand` that every number of the tensors, all on one device, is finite.

    On the CPU their sums are looked at, in one pass and a few microseconds. Large numbers can make a sum infinite;
    then all of them are looked at.
    """
    like = tensors[0]
    if like.device.type != "cpu" or not at_once(like):
        demand(all_finite(*tensors), who, explain)
    elif not all(cmath.isfinite(tensor.detach().sum().item()) for tensor in tensors) and not all_finite(*tensors):
        explain()


def arrived(wait: bool = False) -> None:
    """Look at the answers of earlier checks on other devices that have arrived, or at all of them.

    Args:
        wait: wait for those that are on their way; after anything else that has waited for the device this is free.

    Raises:
        Diverged: a number was NaN or infinite.
    """
    _look(wait)


@contextlib.contextmanager
def immediate() -> Iterator[None]:
    """Every check waits for its device, and names step and neuron at once: slow, to find what `arrived` reported."""
    with _asking("at once"):
        yield


@contextlib.contextmanager
def _asking(how: str) -> Iterator[None]:
    """Ask "at once", "later" or "by device" in this block; "later" also on the CPU, which the tests use."""
    global _ask
    before, _ask = _ask, how
    try:
        yield
    finally:
        _ask = before
        if how == "later":
            _sent.clear()


def _posted(good: Tensor, who: str) -> _Answer:
    """The answer on its way to the host, without waiting for it."""
    if not good.is_cuda:
        return _Answer(good, None, who)
    host = torch.empty((), dtype=torch.bool, pin_memory=True)
    host.copy_(good, non_blocking=True)
    event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(good.device))
    return _Answer(host, event, who)


def _look(wait: bool) -> None:
    while _sent and (wait or _sent[0].is_there()):
        answer = _sent.popleft()
        answer.wait()
        if not answer.good.tolist():
            _sent.clear()
            raise Diverged(
                f"{answer.who} became NaN or infinite in one of the last calls, found when the device had answered; "
                "run it again under `with sdn.immediate_checks():`, which names the step and the neuron."
            )
