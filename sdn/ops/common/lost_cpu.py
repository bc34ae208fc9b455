"""Where a state stops to be a number: found by a second run, in pieces of time and then step by step."""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["lost"]

PIECE = 64


def lost(
    length: int, state: Any, good: Any, run: Callable[[Any, int, int], Any], whole: Callable[[Any], Any]
) -> Iterator[tuple[slice, Any]]:
    """Steps, and a mask of the rows or lanes that are lost there, from the first step on that leaves no number.

    Args:
        length: how many steps there are.
        state: before the first one.
        good: a bool array, False for what is lost from the start, such as a lane with a parameter that is no number.
        run: from a state, over the steps ``start .. stop-1``, to the state behind them.
        whole: of a state, where it is a number, of the shape of ``good``.
    """
    for start in range(0, length, PIECE):
        stop = min(start + PIECE, length)
        after = run(state, start, stop)
        if (whole(after) >= good).all():
            yield slice(start, stop), ~good
        else:
            for t in range(start, stop):
                state = run(state, t, t + 1)
                good = good & whole(state)
                yield slice(t, t + 1), ~good
        state = after
