"""A recurrent layer on the CPU: all steps of a few rows of the batch in one compiled loop, each way.

What a step adds up are rows of the weights, one for each input that is not 0 and each neuron that has just fired, so
that the time goes by events. Only the gradient of the spikes, which is dense, is a product with the whole matrix: of
four rows of the batch at once, with the weights in the order in which they are read. The weights' gradient is a sum
over events again, formed source by source for 16 steps of four rows. Channels are padded to ``size``, a multiple of
LANES; a padded one is a copy of the last without input, and nobody hears of its spikes. The neuron is the ``step`` and
the ``pull`` that stand in front of these functions in a generated file, in tiles of W channels. A neuron whose state is
no number is silent, and all others hear of it: a row in which there is one is run once more, see `cpu`.
"""

import numpy as np

from sdn.ops.common.cpu import jit, prefetch
from sdn.ops.common.functions_cpu import collect, copy, fill, finite, gather, scatter
from sdn.ops.common.lanes_cpu import add, fma, load, lowest, nonzero, repeat, store, width, zero
from sdn.ops.neuron.loops import LANES, LINE, F, pull, step
from sdn.ops.recurrent.layout import STRIDE

__all__ = ["ROWS", "backward", "forward"]

ROWS = 4  # of the batch, that share one product


@jit
def forward(numbers, wide, x, table, bias, fixed, first, spikes0, spikes, saved, final, begin, end):  # type: ignore[no-untyped-def]
    """Spikes and last state of the rows ``begin .. end-1``.

    Shapes: x (B, L, C); table (C + H, size), weights by source; bias (size,); fixed (1, P, size); first, final
    (B, S, H); spikes0 (B, H); spikes (B, L, H); saved (B, ceil(L / STRIDE), S, H), or B = 0.

    Returns:
        whether all parameters and all last states are numbers.
    """
    W = LANES * len(wide)
    length, inputs = x.shape[1:]
    channels, size = first.shape[2], table.shape[1]
    tiles = size // W
    parameters = np.empty((tiles, fixed.shape[1] * W), x.dtype)
    state, spare = np.zeros((tiles, first.shape[1] * W), x.dtype), np.empty(1, x.dtype)
    current, fired = np.zeros(size, x.dtype), np.zeros(size, x.dtype)
    events, values = np.empty(inputs + size, np.int64), np.empty(inputs, x.dtype)
    for k in range(tiles):
        gather(parameters[k], 0, fixed, 0, k, W)
    good = finite(parameters.reshape(-1))
    for b in range(begin, end):
        for k in range(tiles):
            gather(state[k], 0, first, b, k, W)
        copy(fired, spikes0[b])
        for t in range(length):
            if t % STRIDE == 0 and saved.shape[0]:
                for k in range(tiles):
                    scatter(saved[b], t // STRIDE, k, state[k], 0, W)
            some = list_inputs(x[b, t], events, values)
            count = list_spikes(fired, channels, events, some, inputs)
            add_rows(current, bias, table, events, values, some, count)
            for k in range(tiles):
                row, out = current[k * W : k * W + W], fired[k * W : k * W + W]
                now, constant = state[k], parameters[k]
                for j in range(lanes(channels, k, W)):
                    out[j] = F(1) if step(numbers, row[j], now, now, constant, spare, j, W) else F(0)
            fill(fired, channels, F(0))
            copy(spikes[b, t], fired[:channels])
        for k in range(tiles):
            scatter(final, b, k, state[k], 0, W)
        good = good and finite(final[b].reshape(-1))
    return good


@jit
def backward(  # type: ignore[no-untyped-def]
    numbers, shape, wide, x, table, panels, bias, fixed, spikes0, spikes, saved, gspikes, gfinal,
    gtable, gbias, gfirst, gspikes0, gfixed, gcurrent, begin, end,
):  # fmt: skip
    """Gradients of the items ``begin .. end-1``, each ROWS rows of the batch.

    Shapes as in `forward`, and: panels (size / (2 width), H, 2 width), the recurrent weights as `product` reads them;
    gtable (items, C + H, size), gbias (items, size), gfixed (items, P, H) float64; gcurrent (B, L, H), or B = 0.
    """
    W = LANES * len(wide)
    length, inputs = x.shape[1:]
    channels, size = gfinal.shape[2], table.shape[1]
    tiles, chunks = size // W, (length + STRIDE - 1) // STRIDE
    states, fields = gfinal.shape[1], fixed.shape[1]
    parameters, spare = np.empty((tiles, fields * W), x.dtype), np.empty(1, x.dtype)
    blocks = np.zeros((ROWS, tiles, (states + 2 * fields) * W), x.dtype)
    past = np.zeros((STRIDE, ROWS, tiles, states * W), x.dtype)
    currents, g = np.zeros((STRIDE, ROWS, size), x.dtype), np.zeros((STRIDE, ROWS, size), x.dtype)
    back, gz, fired = np.zeros((ROWS, size), x.dtype), np.zeros(size, x.dtype), np.zeros(size, x.dtype)
    events, values = np.empty((STRIDE, ROWS, inputs + size), np.int64), np.empty((STRIDE, ROWS, inputs), x.dtype)
    counts = np.zeros((STRIDE, ROWS, 2), np.int64)
    for k in range(tiles):
        gather(parameters[k], 0, fixed, 0, k, W)
        for r in range(ROWS):
            gather(blocks[r, k], states, fixed, 0, k, W)
    for item in range(begin, end):
        low = item * ROWS
        rows = min(ROWS, len(x) - low)
        fill(back.reshape(-1), 0, F(0))
        fill(g.reshape(-1), 0, F(0))
        fill(counts.reshape(-1), 0, 0)
        for r in range(rows):
            for k in range(tiles):
                gather(blocks[r, k], 0, gfinal, low + r, k, W)
        for chunk in range(chunks - 1, -1, -1):
            start, stop = chunk * STRIDE, min(chunk * STRIDE + STRIDE, length)
            for r in range(rows):
                b = low + r
                for k in range(tiles):
                    gather(past[0, r, k], 0, saved[b], chunk, k, W)
                for t in range(start, stop):
                    i = t - start
                    copy(fired, spikes[b, t - 1] if t else spikes0[b])
                    some = list_inputs(x[b, t], events[i, r], values[i, r])
                    count = list_spikes(fired, channels, events[i, r], some, inputs)
                    counts[i, r, 0], counts[i, r, 1] = some, count
                    add_rows(currents[i, r], bias, table, events[i, r], values[i, r], some, count)
                    fetch = gspikes[b, t]
                    for j in range(0, channels, LINE):  # needed when the chunk is walked back
                        prefetch(fetch, j)
                    for k in range(tiles if t < stop - 1 else 0):
                        row, constant = currents[i, r, k * W : k * W + W], parameters[k]
                        now, after = past[i, r, k], past[i + 1, r, k]
                        for j in range(lanes(channels, k, W)):
                            step(numbers, row[j], now, after, constant, spare, j, W)
            for t in range(stop - 1, start - 1, -1):
                i = t - start
                for r in range(rows):
                    b, later = low + r, back[r]
                    given = gspikes[b, t]
                    for j in range(channels):
                        gz[j] = given[j] + later[j]
                    for k in range(tiles):
                        row, gs = currents[i, r, k * W : k * W + W], gz[k * W : k * W + W]
                        out, now, block = g[i, r, k * W : k * W + W], past[i, r, k], blocks[r, k]
                        for j in range(lanes(channels, k, W)):
                            out[j] = pull(numbers, shape, row[j], now, block, gs[j], None, j, W)
                    if gcurrent.shape[0]:
                        copy(gcurrent[b, t], g[i, r, :channels])
                product(back, g[i], panels, channels)
            sum_events(gtable[item], gbias[item], g, events, values, counts, stop - start, inputs)
            for r in range(rows):
                for k in range(tiles):
                    collect(gfixed[item], k, blocks[r, k], states + fields, W)
        for r in range(rows):
            copy(gspikes0[low + r], back[r, :channels])
            for k in range(tiles):
                scatter(gfirst, low + r, k, blocks[r, k], 0, W)


@jit
def lanes(channels, k, W):  # type: ignore[no-untyped-def]
    """Channels of tile k, rounded up to whole registers."""
    return min(W, (channels - k * W + LINE - 1) // LINE * LINE)


@jit
def list_inputs(row, events, values):  # type: ignore[no-untyped-def]
    """Places and values of what is not 0 in ``row``; how many."""
    count, registers = 0, width(row)
    whole = len(row) // registers * registers
    for base in range(0, whole, registers):
        bits = nonzero(row, base)
        while bits:
            c = base + lowest(bits)
            events[count], values[count] = c, row[c]
            count, bits = count + 1, bits & (bits - 1)
    for c in range(whole, len(row)):
        if row[c] != 0:
            events[count], values[count] = c, row[c]
            count += 1
    return count


@jit
def list_spikes(fired, channels, events, count, inputs):  # type: ignore[no-untyped-def]
    """Append ``inputs + j`` for every neuron j that fired; the new number of events. Behind ``channels`` none has."""
    for base in range(0, channels, width(fired)):
        bits = nonzero(fired, base)
        while bits:
            events[count] = inputs + base + lowest(bits)
            count, bits = count + 1, bits & (bits - 1)
    return count


@jit
def add_rows(out, bias, table, events, values, some, count):  # type: ignore[no-untyped-def]
    """``out = bias + sum_i values[i] table[events[i]]``, with 1 for the values behind the first ``some``."""
    size, n = table.shape[1], width(table)
    for at in range(0, size, 4 * n):
        s0, s1 = load(bias, at), load(bias, at + n)
        s2, s3 = load(bias, at + 2 * n), load(bias, at + 3 * n)
        for i in range(some):
            row, value = events[i] * size + at, repeat(values, i)
            s0, s1 = fma(value, load(table, row), s0), fma(value, load(table, row + n), s1)
            s2, s3 = fma(value, load(table, row + 2 * n), s2), fma(value, load(table, row + 3 * n), s3)
        for i in range(some, count):
            row = events[i] * size + at
            s0, s1 = add(s0, load(table, row)), add(s1, load(table, row + n))
            s2, s3 = add(s2, load(table, row + 2 * n)), add(s3, load(table, row + 3 * n))
        store(out, at, s0)
        store(out, at + n, s1)
        store(out, at + 2 * n, s2)
        store(out, at + 3 * n, s3)


@jit
def product(out, left, panels, inner):  # type: ignore[no-untyped-def]
    """``out = left[:, :inner] @ weights``, (ROWS, size) each, with the weights in panels of two registers' width."""
    n, size = width(panels), left.shape[1]
    for p in range(panels.shape[0]):
        a0, a1, b0, b1 = zero(panels), zero(panels), zero(panels), zero(panels)
        c0, c1, d0, d1 = zero(panels), zero(panels), zero(panels), zero(panels)
        for j in range(inner):
            row = (p * inner + j) * 2 * n
            w0, w1 = load(panels, row), load(panels, row + n)
            a, b = repeat(left, j), repeat(left, size + j)
            c, d = repeat(left, 2 * size + j), repeat(left, 3 * size + j)
            a0, a1, b0, b1 = fma(a, w0, a0), fma(a, w1, a1), fma(b, w0, b0), fma(b, w1, b1)
            c0, c1, d0, d1 = fma(c, w0, c0), fma(c, w1, c1), fma(d, w0, d0), fma(d, w1, d1)
        at = p * 2 * n
        store(out, at, a0)
        store(out, at + n, a1)
        store(out, size + at, b0)
        store(out, size + at + n, b1)
        store(out, 2 * size + at, c0)
        store(out, 2 * size + at + n, c1)
        store(out, 3 * size + at, d0)
        store(out, 3 * size + at + n, d1)


@jit
def sum_events(gtable, gbias, g, events, values, counts, steps, inputs):  # type: ignore[no-untyped-def]
    """Add the gradients of one chunk to those of the weights, source by source."""
    sources, size = gtable.shape
    starts = np.zeros(sources + 1, np.int64)
    for i in range(steps):
        for r in range(ROWS):
            for e in range(counts[i, r, 1]):
                starts[events[i, r, e] + 1] += 1
            for j in range(size):
                gbias[j] += g[i, r, j]
    for k in range(sources):
        starts[k + 1] += starts[k]
    where, factors = np.empty(starts[sources], np.int64), np.empty(max(1, starts[inputs]), g.dtype)
    place = starts.copy()
    for i in range(steps):
        for r in range(ROWS):
            for e in range(counts[i, r, 1]):
                k = events[i, r, e]
                where[place[k]] = i * ROWS + r
                if k < inputs:
                    factors[place[k]] = values[i, r, e]
                place[k] += 1
    flat = g.reshape(-1, size)
    for k in range(sources):
        begin, end = starts[k], starts[k + 1]
        if begin < end:
            some = end - begin if k < inputs else 0
            add_rows(gtable[k], gtable[k], flat, where[begin:end], factors[begin : begin + some], some, end - begin)
