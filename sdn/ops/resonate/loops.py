"""Linear complex neurons over (B, L, P) on the CPU: one forward and one backward loop.

What belongs to one tile of channels is one block of planes, W numbers apart, so that the compiler sees one pointer and
constant distances: W follows from the type of ``wide``, a tuple of as many entries as a tile has times 128 channels.
Every 32nd state is kept; the backward loop computes the states between again, with the slopes, into scratch that stays
in the second-level cache.
"""

from typing import Any

import numpy as np

from sdn.ops.common.cpu import jit, prefetch
from sdn.ops.common.lanes_cpu import add, fma, fnma, load, repeat, store, width, zero
from sdn.ops.resonate.layout import STRIDE

__all__ = ["LANES", "backward", "forward"]

LANES = 128
"""Channels of a tile, or as many rotation blocks as fit; more only where one rotation block is wider."""
# Planes of a block: state, potential (real, imaginary), drive, parameters; behind them the planes of the backward pass:
# the adjoint of the state, the gradient of the potential, and sums for the five parameters.
XR, XI, Q, PR, PI, UR, UI, FR, FI, GR, GI, THRESHOLD, GAMMA = range(13)
AR, AI, AQ, ER, EI, SUMS = range(13, 19)
FORWARD, ALL = 13, 24
# Planes that the backward pass keeps for each step: the state before it, the slope, and the direction of the potential.
SLOPE, CR, CI, KEPT = 3, 4, 5, 6
LINE = 16  # float32 numbers in a cache line


# ---- One step of one tile: n channels of row `row` from channel `low` on.
@jit
def _advance(block, drive, row, t, low, n, channels, tiny, wide):  # type: ignore[no-untyped-def]
    """``x = factor x + gain u``."""
    W = LANES * len(wide)
    nought = block.dtype.type(0)
    ur, ui = drive[row, t, low : low + n], drive[row, t, channels + low : channels + low + n]
    for j in range(n):
        block[UR * W + j] = ur[j]
    for j in range(n):
        block[UI * W + j] = ui[j]
    for j in range(n):
        xr, xi, fr, fi = block[XR * W + j], block[XI * W + j], block[FR * W + j], block[FI * W + j]
        gr, gi, dr, di = block[GR * W + j], block[GI * W + j], block[UR * W + j], block[UI * W + j]
        re = (fr * xr - fi * xi) + (gr * dr - gi * di)
        im = (fr * xi + fi * xr) + (gr * di + gi * dr)
        block[XR * W + j] = nought if abs(re) < tiny else re
        block[XI * W + j] = nought if abs(im) < tiny else im


@jit
def _potential(block, rotation, magnitude, n, wide):  # type: ignore[no-untyped-def]
    """``p = Re(V x)``, or V x and its magnitude; into PR (and PI)."""
    W = LANES * len(wide)
    size = rotation.shape[1]
    if size == 0:
        for j in range(n):
            block[PR * W + j] = block[XR * W + j]
            block[PI * W + j] = block[XI * W + j]
        return
    for start in range(0, n, size):
        _multiply(block, XR, XI, PR, rotation, 0, False, start, False, wide)
        if magnitude:
            _multiply(block, XI, XR, PI, rotation, 0, True, start, False, wide)


@jit
def _multiply(block, a, b, out, rotation, real, plus, start, keep, wide):  # type: ignore[no-untyped-def]
    """``out = R a -+ I b`` for one block of channels, R and I the matrices ``real`` and ``real + 1``, column by column.

    Added to what ``out`` holds where ``keep``.
    """
    W = LANES * len(wide)
    size, lanes = rotation.shape[1], width(block)
    first, second = real * size * size, (real + 1) * size * size
    if size % lanes == 0:
        for i in range(0, size, lanes):
            left, right = zero(block), zero(block)
            if keep:
                left = load(block, out * W + start + i)
            for k in range(size):
                left = fma(load(rotation, first + k * size + i), repeat(block, a * W + start + k), left)
                if plus:
                    right = fma(load(rotation, second + k * size + i), repeat(block, b * W + start + k), right)
                else:
                    right = fnma(load(rotation, second + k * size + i), repeat(block, b * W + start + k), right)
            store(block, out * W + start + i, add(left, right))
        return
    sign = block.dtype.type(1 if plus else -1)
    if not keep:
        for i in range(size):
            block[out * W + start + i] = 0
    for k in range(size):
        x, y = block[a * W + start + k], sign * block[b * W + start + k]
        for i in range(size):
            block[out * W + start + i] += rotation[real, k, i] * x + rotation[real + 1, k, i] * y


@jit
def _fire(block, refractory, magnitude, out, n, wide):  # type: ignore[no-untyped-def]
    """Distances to the threshold into PR, spikes into ``out``: NaN where a distance is NaN or infinite."""
    W = LANES * len(wide)
    one, nought = block.dtype.type(1), block.dtype.type(0)
    _distance(block, refractory, magnitude, n, wide)
    for j in range(n):
        v = block[PR * W + j]
        out[j] = (one if v > nought else nought) + (v - v)
    if refractory:
        for j in range(n):
            block[Q * W + j] = block[GAMMA * W + j] * block[Q * W + j] + out[j]


@jit
def _distance(block, refractory, magnitude, n, wide):  # type: ignore[no-untyped-def]
    """The potential in PR (and PI) -> its distance to the threshold in PR."""
    W = LANES * len(wide)
    if magnitude:
        for j in range(n):
            re, im = block[PR * W + j], block[PI * W + j]
            block[PR * W + j] = np.sqrt(re * re + im * im)
    if refractory:
        for j in range(n):
            block[PR * W + j] = block[PR * W + j] - block[THRESHOLD * W + j] - block[Q * W + j]
    else:
        for j in range(n):
            block[PR * W + j] = block[PR * W + j] - block[THRESHOLD * W + j]


@jit
def forward(  # type: ignore[no-untyped-def]
    wide, drive, fixed, rotation, first, magnitude, tiny, tile, spikes, final, saved, begin, end
):
    """Items ``begin .. end-1``; item i is tile ``i % tiles`` of row ``i // tiles``."""
    W = LANES * len(wide)
    length, channels, refractory = drive.shape[1], spikes.shape[2], first.shape[1] == 3
    tiles = (channels + tile - 1) // tile
    block = np.zeros(FORWARD * W, drive.dtype)
    for item in range(begin, end):
        row, low = item // tiles, item % tiles * tile
        n = min(tile, channels - low)
        _gather(block, FR, fixed, low, n, wide)
        _gather(block, XR, first[row], low, n, wide)
        for t in range(length):
            if t % STRIDE == 0 and saved.shape[0]:
                _scatter(saved[row, t // STRIDE], block, XR, low, n, wide)
            _advance(block, drive, row, t, low, n, channels, tiny, wide)
            _potential(block, rotation, magnitude, n, wide)
            _fire(block, refractory, magnitude, spikes[row, t, low : low + n], n, wide)
        _scatter(final[row], block, XR, low, n, wide)


def slope(shape: Any, v: Any) -> Any:
    """The slope of a spike gradient; written in front of what calls it in a generated file."""
    raise AssertionError("generated")


@jit
def _recall(  # type: ignore[no-untyped-def]
    block, shape, drive, rotation, refractory, magnitude, row, t, low, n, channels, tiny, past, wide
):
    """One step again, for the way back: the state before it, the slope and the direction of the potential into past."""
    W = LANES * len(wide)
    states = 3 if refractory else 2
    for j in range(states * W):
        past[j] = block[j]
    _advance(block, drive, row, t, low, n, channels, tiny, wide)
    _potential(block, rotation, magnitude, n, wide)
    if magnitude:
        for j in range(n):
            re, im = block[PR * W + j], block[PI * W + j]
            size = np.sqrt(re * re + im * im)
            scale = 1 / size if size > 0 else size
            past[CR * W + j], past[CI * W + j] = re * scale, im * scale
    _distance(block, refractory, magnitude, n, wide)
    for j in range(n):
        past[SLOPE * W + j] = slope(shape, block[PR * W + j])
    if refractory:
        nought = block.dtype.type(0)
        for j in range(n):
            fired = block.dtype.type(1) if block[PR * W + j] > nought else nought
            block[Q * W + j] = block[GAMMA * W + j] * block[Q * W + j] + fired


@jit
def _retreat(  # type: ignore[no-untyped-def]
    block, gs, drive, rotation, refractory, magnitude, through, row, t, low, n, channels, tiny, past, out, wide
):
    """One step back: the gradient of the drive into ``out``, the sums of the parameters', the adjoint before it."""
    W = LANES * len(wide)
    nought, size = block.dtype.type(0), rotation.shape[1]
    for j in range(n):
        block[ER * W + j] = gs[j] * past[SLOPE * W + j]
    if refractory:
        for j in range(n):
            error = block[ER * W + j]
            if through:
                error += block[AQ * W + j] * past[SLOPE * W + j]
            block[ER * W + j] = error
            block[AQ * W + j] = block[GAMMA * W + j] * block[AQ * W + j] - error
    for j in range(n):
        block[(SUMS + 4) * W + j] -= block[ER * W + j]
    if magnitude:
        for j in range(n):
            error = block[ER * W + j]
            block[ER * W + j], block[EI * W + j] = error * past[CR * W + j], error * past[CI * W + j]
    if size == 0:
        for j in range(n):
            block[AR * W + j] += block[ER * W + j]
        if magnitude:
            for j in range(n):
                block[AI * W + j] += block[EI * W + j]
    else:  # conj(V) transposed times the gradient
        for start in range(0, n, size):
            _multiply(block, ER, EI, AR, rotation, 2, True, start, True, wide)
            _multiply(block, EI, ER, AI, rotation, 2, False, start, True, wide)
    ur, ui = drive[row, t, low : low + n], drive[row, t, channels + low : channels + low + n]
    vr, vi = out[row, t, low : low + n], out[row, t, channels + low : channels + low + n]
    for j in range(n):
        block[UR * W + j] = ur[j]
    for j in range(n):
        block[UI * W + j] = ui[j]
    for j in range(n):
        block[XR * W + j], block[XI * W + j] = past[XR * W + j], past[XI * W + j]
    for j in range(n):
        ar, ai, xr, xi = block[AR * W + j], block[AI * W + j], block[XR * W + j], block[XI * W + j]
        fr, fi, gr, gi = block[FR * W + j], block[FI * W + j], block[GR * W + j], block[GI * W + j]
        dr, di = block[UR * W + j], block[UI * W + j]
        block[PR * W + j] = gr * ar + gi * ai
        block[PI * W + j] = gr * ai - gi * ar
        block[SUMS * W + j] += ar * xr + ai * xi
        block[(SUMS + 1) * W + j] += ai * xr - ar * xi
        block[(SUMS + 2) * W + j] += ar * dr + ai * di
        block[(SUMS + 3) * W + j] += ai * dr - ar * di
        re, im = fr * ar + fi * ai, fr * ai - fi * ar
        block[AR * W + j] = nought if abs(re) < tiny else re
        block[AI * W + j] = nought if abs(im) < tiny else im
    for j in range(n):
        vr[j] = block[PR * W + j]
    for j in range(n):
        vi[j] = block[PI * W + j]


@jit
def backward(  # type: ignore[no-untyped-def]
    wide, shape, drive, fixed, rotation, saved, gspikes, gfinal, magnitude, through, tiny, tile,
    gdrive, gfirst, sums, begin, end,
):  # fmt: skip
    """Gradients of the items ``begin .. end-1``; sums (B, 5, P) are float64."""
    W = LANES * len(wide)
    length, channels, refractory = drive.shape[1], gspikes.shape[2], saved.shape[2] == 3
    tiles, chunks = (channels + tile - 1) // tile, saved.shape[1]
    block = np.zeros(ALL * W, drive.dtype)
    past = np.zeros((STRIDE, KEPT * W), drive.dtype)
    for item in range(begin, end):
        row, low = item // tiles, item % tiles * tile
        n = min(tile, channels - low)
        block[:] = 0
        _gather(block, FR, fixed, low, n, wide)
        _gather(block, AR, gfinal[row], low, n, wide)
        for chunk in range(chunks - 1, -1, -1):
            start, stop = chunk * STRIDE, min(chunk * STRIDE + STRIDE, length)
            _gather(block, XR, saved[row, chunk], low, n, wide)
            for t in range(start, stop):
                gs, vr = gspikes[row, t, low : low + n], gdrive[row, t, low : low + n]
                vi = gdrive[row, t, channels + low : channels + low + n]
                for j in range(0, n, LINE):  # needed when the chunk is walked back
                    prefetch(gs, j)
                    prefetch(vr, j)
                    prefetch(vi, j)
                _recall(
                    block, shape, drive, rotation, refractory, magnitude, row, t, low, n, channels, tiny,
                    past[t - start], wide,
                )  # fmt: skip
            for t in range(stop - 1, start - 1, -1):
                _retreat(
                    block, gspikes[row, t, low : low + n], drive, rotation, refractory, magnitude, through, row, t,
                    low, n, channels, tiny, past[t - start], gdrive, wide,
                )  # fmt: skip
            for f in range(5):
                for j in range(n):
                    sums[row, f, low + j] += block[(SUMS + f) * W + j]
                    block[(SUMS + f) * W + j] = 0
        _scatter(gfirst[row], block, AR, low, n, wide)


@jit
def _gather(block, plane, rows, low, n, wide):  # type: ignore[no-untyped-def]
    """Fields (S, P) of a tile into planes from ``plane`` on."""
    W = LANES * len(wide)
    for f in range(rows.shape[0]):
        for j in range(n):
            block[(plane + f) * W + j] = rows[f, low + j]


@jit
def _scatter(rows, block, plane, low, n, wide):  # type: ignore[no-untyped-def]
    """The way back of `_gather`."""
    W = LANES * len(wide)
    for f in range(rows.shape[0]):
        for j in range(n):
            rows[f, low + j] = block[(plane + f) * W + j]
