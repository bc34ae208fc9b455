"""A bank of complex modes per channel on the CPU: forward, and backward by the adjoint recurrence.

One item of work is a tile: the channels of one vector register. Time runs in blocks whose inputs and outputs stay in
the first-level cache while all modes pass over them, a few modes at a time with state and factors in registers. The
equations are in `sdn.ops.modes.operator`; here a mode is ``v``, and ``m`` its adjoint.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.ops.common.cpu import jit, spread
from sdn.ops.common.lanes_cpu import BYTES, add, flush, fma, fnma, gain, load, mul, store, width, zero
from sdn.ops.modes.layout import BLOCK, CELL

__all__ = ["backward", "forward", "run", "run_backward"]

FACTORS = 5
"""Planes of one mode: a and weight, real and imaginary, and the gain."""
SUMS = 6
"""Planes of its gradients: of a, of the weight and of the drive, each real and imaginary."""
_ITEMS = 32  # into so many pieces the backward pass is cut, to be shared by threads
_TOGETHER = 4  # modes that go over a block together; the buffers are padded with modes that are zero
_FLOOR = {torch.float32: 1e-30, torch.float64: 1e-290}
"""Smaller inputs and, once per block, states count as zero: their products would be subnormal, and 80 times slower."""


@jit
def forward(
    u: Any, factors: Any, skip: Any, reverse: bool, floor: float, state: Any, y: Any, saved: Any, begin: int, end: int
) -> None:
    """``v = a v + gain u``, ``y = Re sum weight v + skip u`` for the items (row, tile) of begin .. end-1.

    Args:
        u, y: (B, L, H).
        factors: (N, 5, H).
        skip: (1, H).
        reverse: run from the last step to the first.
        floor: inputs and states below it count as zero.
        state: (B, N, 2, H), updated in place.
        saved: (B, ceil(H / 16), blocks, 2 N, 16) receives the state before every block; nothing if it has no blocks.
    """
    length, channels, modes, W = u.shape[1], u.shape[2], factors.shape[0], width(u)
    tiles, padded = -(-channels // W), -(-modes // _TOGETHER) * _TOGETHER
    a, v = np.zeros(padded * FACTORS * W, u.dtype), np.zeros(padded * 2 * W, u.dtype)
    through, steps = np.zeros(W, u.dtype), np.empty(2 * BLOCK * W, u.dtype)
    planes = factors.reshape(modes * FACTORS, channels)
    for item in range(begin, end):
        row, tile = item // tiles, item % tiles
        _gather(planes, tile, a)
        _gather(skip, tile, through)
        now = state[row].reshape(2 * modes, channels)
        v[:] = 0  # the padding too: a NaN of the row before may be there
        _gather(now, tile, v)
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            if saved.shape[2] > 0:
                cell = saved[row, tile * W // CELL, start // BLOCK]
                for r in range(2 * modes):
                    store(cell, r * CELL + tile * W % CELL, load(v, r * W))
            _read(u[row], tile, start, count, reverse, floor, steps, 0, 2)
            d = load(through, 0)
            for t in range(count):
                store(steps, (2 * t + 1) * W, mul(d, load(steps, 2 * t * W)))
            for n in range(0, modes, _TOGETHER):
                _run(a, v, n, steps, count, floor)
            _write(y[row], tile, start, count, reverse, steps, 1, 2)
        _scatter(v, W, tile, now)


@jit
def backward(
    gradient: Any, u: Any, factors: Any, skip: Any, reverse: bool, floor: float, saved: Any, adjoint: Any, out: Any,
    sums: Any, skip_sums: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """The gradients of `forward` for the items (group, tile) of begin .. end-1; a group is a range of rows.

    Args:
        gradient: (B, L, H), of y.
        u, factors, skip, reverse, floor, saved: of the forward run.
        adjoint: (B, N, 2, H), gradient of the last state, turned into that of the first.
        out: (B, L, H), gradient of u.
        sums: (groups, N, 6, H) float64, zero.
        skip_sums: (groups, H) float64, zero.
    """
    batch, length, channels = u.shape
    groups, modes, W = sums.shape[0], factors.shape[0], width(u)
    tiles, padded = -(-channels // W), -(-modes // _TOGETHER) * _TOGETHER
    a, through = np.zeros(padded * FACTORS * W, u.dtype), np.zeros(W, u.dtype)
    v, m = np.zeros(padded * 2 * W, u.dtype), np.zeros(padded * 2 * W, u.dtype)
    steps, past = np.empty(3 * BLOCK * W, u.dtype), np.empty(4 * BLOCK * W, u.dtype)
    total = np.empty((padded * SUMS + 1) * W)
    planes = factors.reshape(modes * FACTORS, channels)
    for item in range(begin, end):
        group, tile = item // tiles, item % tiles
        _gather(planes, tile, a)
        _gather(skip, tile, through)
        total[:] = 0
        for row in range(group * batch // groups, (group + 1) * batch // groups):
            hold = adjoint[row].reshape(2 * modes, channels)
            m[:] = 0
            _gather(hold, tile, m)
            for block in range((length - 1) // BLOCK, -1, -1):
                start = block * BLOCK
                count = min(BLOCK, length - start)
                cell = saved[row, tile * W // CELL, block]
                for r in range(2 * modes):
                    store(v, r * W, load(cell, r * CELL + tile * W % CELL))
                _read(u[row], tile, start, count, reverse, floor, steps, 0, 3)
                _read(gradient[row], tile, start, count, reverse, floor, steps, 1, 3)
                _skip(through, steps, count, total, padded * SUMS * W)
                for n in range(0, modes, 2):
                    _recall(a, v, n, steps, count, past, total)
                    _adjoint(a, m, n, steps, count, past, total, floor)
                _write(out[row], tile, start, count, reverse, steps, 2, 3)
            _scatter(m, W, tile, hold)
        _scatter(total, W, tile, sums[group].reshape(modes * SUMS, channels))
        _scatter(total[padded * SUMS * W :], W, tile, skip_sums[group : group + 1])


def run(u: Tensor, factors: Tensor, skip: Tensor, reverse: bool, state: Tensor, saved: Tensor) -> Tensor:
    """`forward` on contiguous tensors: y; state and saved are filled."""
    assert saved.shape[2] in (0, -(-u.shape[1] // BLOCK)), "not the blocks of this file"
    assert saved.shape[4] == CELL, "not the cells of this file"
    y = u.new_empty(u.shape)
    arrays = [x.detach().numpy() for x in (u, factors, skip.unsqueeze(0), state, y, saved)]
    u_, factors_, skip_, state_, y_, saved_ = arrays
    spread(forward, len(u) * _tiles(u), u_, factors_, skip_, reverse, _FLOOR[u.dtype], state_, y_, saved_)
    return y


def run_backward(
    gradient: Tensor, u: Tensor, factors: Tensor, skip: Tensor, reverse: bool, saved: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`backward` on contiguous tensors: gradient of u, float64 sums (N, 6, H) and (H,); state is replaced."""
    groups = min(len(u), -(-_ITEMS // _tiles(u)))  # by the shape alone: sums do not depend on the number of threads
    out, modes, channels = u.new_empty(u.shape), len(factors), u.shape[2]
    sums = torch.zeros(groups, modes, SUMS, channels, dtype=torch.float64)
    skip_sums = torch.zeros(groups, channels, dtype=torch.float64)
    before = [x.detach().numpy() for x in (gradient, u, factors, skip.unsqueeze(0))]
    after = [x.detach().numpy() for x in (saved, state, out, sums, skip_sums)]
    spread(backward, groups * _tiles(u), *before, reverse, _FLOOR[u.dtype], *after)
    return out, sums.sum(0), skip_sums.sum(0)


def _tiles(u: Tensor) -> int:
    return -(-u.shape[2] * u.element_size() // BYTES)


# ---- one block of steps, all in vector registers
@jit
def _factors(a: Any, n: int) -> Any:
    W = width(a)
    at = n * FACTORS * W
    return load(a, at), load(a, at + W), load(a, at + 2 * W), load(a, at + 3 * W), load(a, at + 4 * W)


@jit
def _get(x: Any, at: int) -> Any:
    return load(x, at), load(x, at + width(x))


@jit
def _put(x: Any, at: int, v: Any) -> None:
    store(x, at, v[0])
    store(x, at + width(x), v[1])


@jit
def _gain(total: Any, W: int, at: int, v: Any) -> None:
    gain(total, at, v[0])
    gain(total, at + W, v[1])


@jit
def _flushed(v: Any, floor: float) -> Any:
    return flush(v[0], floor), flush(v[1], floor)


@jit
def _advance(a: Any, v: Any, u: Any) -> Any:
    """``a v + gain u``."""
    return fma(a[0], v[0], fnma(a[1], v[1], mul(a[4], u))), fma(a[0], v[1], mul(a[1], v[0]))


@jit
def _project(a: Any, v: Any, y: Any) -> Any:
    """``y + Re(weight v)``."""
    return fma(a[2], v[0], fnma(a[3], v[1], y))


@jit
def _run(factors: Any, state: Any, n: int, steps: Any, count: int, floor: float) -> None:
    """Modes n .. n+3 over rows (u, y) of ``steps``; y is summed up."""
    W = width(steps)
    a, b, c, d = _factors(factors, n), _factors(factors, n + 1), _factors(factors, n + 2), _factors(factors, n + 3)
    at = 2 * n * W
    v, w, x, z = _get(state, at), _get(state, at + 2 * W), _get(state, at + 4 * W), _get(state, at + 6 * W)
    for t in range(count):
        u = load(steps, 2 * t * W)
        v, w, x, z = _advance(a, v, u), _advance(b, w, u), _advance(c, x, u), _advance(d, z, u)
        y = _project(b, w, _project(a, v, load(steps, (2 * t + 1) * W)))
        store(steps, (2 * t + 1) * W, add(y, _project(d, z, _project(c, x, zero(steps)))))
    _put(state, at, _flushed(v, floor))
    _put(state, at + 2 * W, _flushed(w, floor))
    _put(state, at + 4 * W, _flushed(x, floor))
    _put(state, at + 6 * W, _flushed(z, floor))


@jit
def _skip(through: Any, steps: Any, count: int, total: Any, at: int) -> None:
    """The gradient that goes past the modes, into rows (u, gradient, out) of ``steps``, and that of skip."""
    W = width(steps)
    d, x = load(through, 0), zero(steps)
    for t in range(count):
        e = load(steps, (3 * t + 1) * W)
        store(steps, (3 * t + 2) * W, mul(d, e))
        x = fma(e, load(steps, 3 * t * W), x)
    gain(total, at, x)


@jit
def _recall(factors: Any, state: Any, n: int, steps: Any, count: int, past: Any, total: Any) -> None:
    """Modes n and n+1 before every step of a block, into ``past``; the gradient of their weights, into ``total``."""
    W = width(steps)
    a, b = _factors(factors, n), _factors(factors, n + 1)
    v, w = _get(state, 2 * n * W), _get(state, (2 * n + 2) * W)
    none = zero(steps)
    x, z = (none, none), (none, none)
    for t in range(count):
        _put(past, 4 * t * W, v)
        _put(past, (4 * t + 2) * W, w)
        u, e = load(steps, 3 * t * W), load(steps, (3 * t + 1) * W)
        v, w = _advance(a, v, u), _advance(b, w, u)
        x, z = (fma(e, v[0], x[0]), fnma(e, v[1], x[1])), (fma(e, w[0], z[0]), fnma(e, w[1], z[1]))
    _gain(total, W, (n * SUMS + 2) * W, x)
    _gain(total, W, ((n + 1) * SUMS + 2) * W, z)


@jit
def _weigh(a: Any, m: Any, e: Any) -> Any:
    """``m + conj(weight) e``."""
    return fma(a[2], e, m[0]), fnma(a[3], e, m[1])


@jit
def _retreat(a: Any, m: Any) -> Any:
    """``conj(a) m``."""
    return fma(a[0], m[0], mul(a[1], m[1])), fnma(a[1], m[0], mul(a[0], m[1]))


@jit
def _correlate(m: Any, v: Any, x: Any) -> Any:
    """``x + m conj(v)``."""
    return fma(m[0], v[0], fma(m[1], v[1], x[0])), fma(m[1], v[0], fnma(m[0], v[1], x[1]))


@jit
def _adjoint(
    factors: Any, adjoint: Any, n: int, steps: Any, count: int, past: Any, total: Any, floor: float
) -> None:  # fmt: skip
    """Modes n and n+1 from the last step of a block to its first: gradients of u, of a and of the drive."""
    W = width(steps)
    a, b = _factors(factors, n), _factors(factors, n + 1)
    m, o = _get(adjoint, 2 * n * W), _get(adjoint, (2 * n + 2) * W)
    none = zero(steps)
    dv, dw, gv, gw = (none, none), (none, none), (none, none), (none, none)
    for back in range(1, count + 1):
        t = count - back
        u, e, out = load(steps, 3 * t * W), load(steps, (3 * t + 1) * W), load(steps, (3 * t + 2) * W)
        m, o = _weigh(a, m, e), _weigh(b, o, e)
        store(steps, (3 * t + 2) * W, fma(b[4], o[0], fma(a[4], m[0], out)))
        gv, gw = (fma(m[0], u, gv[0]), fma(m[1], u, gv[1])), (fma(o[0], u, gw[0]), fma(o[1], u, gw[1]))
        dv = _correlate(m, _get(past, 4 * t * W), dv)
        dw = _correlate(o, _get(past, (4 * t + 2) * W), dw)
        m, o = _retreat(a, m), _retreat(b, o)
    _gain(total, W, n * SUMS * W, dv)
    _gain(total, W, (n * SUMS + 4) * W, gv)
    _gain(total, W, (n + 1) * SUMS * W, dw)
    _gain(total, W, ((n + 1) * SUMS + 4) * W, gw)
    _put(adjoint, 2 * n * W, _flushed(m, floor))
    _put(adjoint, (2 * n + 2) * W, _flushed(o, floor))


# ---- between arrays with H channels and buffers with those of one tile, zero where there is no channel
@jit
def _gather(x: Any, tile: int, buffer: Any) -> None:
    """All rows of x (rows, H)."""
    rows, channels = x.shape
    W = width(buffer)
    used = min(W, channels - tile * W)
    for r in range(rows):
        if used == W:
            store(buffer, r * W, load(x, r * channels + tile * W))
        else:
            store(buffer, r * W, zero(buffer))
            for j in range(used):
                buffer[r * W + j] = x[r, tile * W + j]


@jit
def _scatter(buffer: Any, W: int, tile: int, x: Any) -> None:
    """The way back of `_gather`."""
    rows, channels = x.shape
    used = min(W, channels - tile * W)
    for r in range(rows):
        for j in range(used):
            x[r, tile * W + j] = buffer[r * W + j]


@jit
def _read(
    x: Any, tile: int, start: int, count: int, reverse: bool, floor: float, steps: Any, slot: int, slots: int
) -> None:  # fmt: skip
    """Steps start .. start+count-1 of x (L, H) into a slot of the rows of ``steps``."""
    length, channels = x.shape
    W = width(x)
    used = min(W, channels - tile * W)
    for t in range(count):
        r = length - 1 - start - t if reverse else start + t
        to = (slots * t + slot) * W
        if used == W:
            store(steps, to, flush(load(x, r * channels + tile * W), floor))
        else:
            store(steps, to, zero(steps))
            for j in range(used):
                steps[to + j] = x[r, tile * W + j]
            store(steps, to, flush(load(steps, to), floor))


@jit
def _write(x: Any, tile: int, start: int, count: int, reverse: bool, steps: Any, slot: int, slots: int) -> None:
    """The way back of `_read`."""
    length, channels = x.shape
    W = width(x)
    used = min(W, channels - tile * W)
    for t in range(count):
        r = length - 1 - start - t if reverse else start + t
        of = (slots * t + slot) * W
        if used == W:
            store(x, r * channels + tile * W, load(steps, of))
        else:
            for j in range(used):
                x[r, tile * W + j] = steps[of + j]
