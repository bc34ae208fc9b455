"""A reduced SDN over flat rows, on the CPU: 8 channels of a few dozen lanes stay in vector registers.

A row is (steps * D) numbers with D channels side by side, so that tap k of a convolution is the same row shifted by a
multiple of D. Lanes are neighbouring numbers of a row, whatever they stand for: with D = 1 steps, else channels.

Every product is added by `fma`, alike in every lane and at every place, so that the result does not depend on how a row
was cut. Nothing is summed over lanes, and nothing is recurrent.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import extending, types
from torch import Tensor

from sdn.ops.common.cpu import jit, spread
from sdn.ops.common.lanes_cpu import Lanes, fma, load, store, width

__all__ = ["predict_cpu"]

intrinsic: Any = extending.intrinsic  # numba annotates it as taking the arguments of the code generator
BLOCK_BYTES = 2048  # of one channel: two times 8 channels stay in the first cache
ROW_PIECE = 65536  # numbers of a row given to a thread at a time


def predict_cpu(rows: Tensor, out: Tensor, weights: list[Tensor], dilation: int, skip: int) -> None:
    """Fill ``out``, (N, (L - skip) * D), with the prediction for ``rows``, (N, L * D); both contiguous.

    Args:
        rows: currents, float32 or float64.
        out: gets `mem` of the steps skip .. L-1.
        weights: as `ReducedSDN.state_dict` lists them.
        dilation: D.
        skip: steps at the beginning that are only looked back at.
    """
    layers, (channels, _, taps) = (len(weights) - 2) // 4, weights[0].shape
    length, cached = rows.shape[1] // dilation, BLOCK_BYTES // rows.element_size()
    steps = max(16 * taps, ROW_PIECE // dilation)
    pieces = -(-(length - skip) // steps)
    x, y = rows.detach().numpy().reshape(-1), out.numpy().reshape(-1)
    sizes = (dilation, length, skip, steps, pieces, channels, taps, layers, cached)
    spread(predict_pieces, len(rows) * pieces, x, y, _packed(weights, layers, rows.dtype), *sizes)


def _packed(weights: list[Tensor], layers: int, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """All weights in the order they are read: per 8 channels the biases, then their weights for each input.

    Order: per layer the convolution and the mix (its residual added to the matrix), then the decoder. Channels are
    filled up to a multiple of 8 with zeros.
    """
    flat = [w.detach().to("cpu", dtype).numpy().reshape(len(w), -1) for w in weights]
    spatial, feature, decoder = flat[: 2 * layers], flat[2 * layers : 4 * layers], flat[4 * layers :]
    parts = []
    for i in range(layers):
        mix = feature[2 * i] + np.eye(len(feature[2 * i]), dtype=flat[0].dtype)
        for matrix, bias in ((spatial[2 * i], spatial[2 * i + 1]), (mix, feature[2 * i + 1])):
            both = np.concatenate([bias, matrix], 1)
            both = np.concatenate([both, np.zeros((-len(both) % 8, both.shape[1]), both.dtype)])
            parts.append(both.reshape(-1, 8, both.shape[1]).transpose(0, 2, 1).reshape(-1))
    return np.concatenate([*parts, decoder[1].reshape(-1), decoder[0].reshape(-1)])


@intrinsic
def _splat(_: Any, array: Any, index: Any) -> Any:
    """array[index] in every lane"""
    lanes = Lanes(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, place = context.get_value_type(lanes), ir.IntType(32)
        none = ir.Constant(kind, ir.Undefined)
        value = builder.load(builder.gep(context.make_array(array)(context, builder, args[0]).data, [args[1]]))
        same = ir.Constant(ir.VectorType(place, kind.count), [0] * kind.count)
        return builder.shuffle_vector(builder.insert_element(none, value, place(0)), none, same)

    return lanes(array, types.intp), generate


@intrinsic
def _relu(_: Any, lanes: Any) -> Any:
    """max(lanes, 0), NaN kept"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])

    return lanes(lanes), generate


@jit
def _dense(source, at, stride, inputs, w, p, target, to, pitch, count):  # type: ignore[no-untyped-def]
    """8 channels: target[to + c*pitch + j] = relu(w[p + c] + sum_i w[p + 8 + 8i + c] source[at + i*stride + j])"""
    for j in range(0, count, width(source)):
        a, b, c, d = _splat(w, p), _splat(w, p + 1), _splat(w, p + 2), _splat(w, p + 3)
        e, f, g, h = _splat(w, p + 4), _splat(w, p + 5), _splat(w, p + 6), _splat(w, p + 7)
        n, q = at + j, p + 8
        for _ in range(inputs):
            x = load(source, n)
            a, b = fma(_splat(w, q), x, a), fma(_splat(w, q + 1), x, b)
            c, d = fma(_splat(w, q + 2), x, c), fma(_splat(w, q + 3), x, d)
            e, f = fma(_splat(w, q + 4), x, e), fma(_splat(w, q + 5), x, f)
            g, h = fma(_splat(w, q + 6), x, g), fma(_splat(w, q + 7), x, h)
            n, q = n + stride, q + 8
        n = to + j
        store(target, n, _relu(a))
        store(target, n + pitch, _relu(b))
        store(target, n + 2 * pitch, _relu(c))
        store(target, n + 3 * pitch, _relu(d))
        store(target, n + 4 * pitch, _relu(e))
        store(target, n + 5 * pitch, _relu(f))
        store(target, n + 6 * pitch, _relu(g))
        store(target, n + 7 * pitch, _relu(h))


@jit
def _weighted(source, at, stride, inputs, w, p, step, j):  # type: ignore[no-untyped-def]
    """One channel, one group of lanes: w[p] + sum_i w[p + (i+1) step] source[at + i*stride + j]"""
    total = _splat(w, p)
    for i in range(inputs):
        total = fma(_splat(w, p + (i + 1) * step), load(source, at + i * stride + j), total)
    return total


@jit
def _past(x, row, end, n, count, window):  # type: ignore[no-untyped-def]
    """window[i] = x[row + n + i] for 0 <= n + i < end, else 0."""
    for i in range(count):
        inside = 0 <= n + i < end
        window[i] = x[row + n + i] if inside else 0


@jit
def _decode(h, at, pitch, channels, w, p, out, to, begin, end, spare):  # type: ignore[no-untyped-def]
    """out[to + j] for begin <= j < end; the last, partial group of lanes goes through ``spare``."""
    lanes = width(h)
    for j in range(begin, end, lanes):
        mem = _weighted(h, at, pitch, channels, w, p, 1, j)
        if j + lanes <= end:
            store(out, to + j, mem)
        else:
            store(spare, 0, mem)
            for i in range(end - j):
                out[to + j + i] = spare[i]


@jit
def predict_pieces(x, out, w, D, length, skip, steps, pieces, channels, taps, layers, cached, begin, end):  # type: ignore[no-untyped-def]
    """The pieces begin .. end-1 of all rows, each cut into blocks that fit the cache.

    Deeper layers keep ``kept`` numbers of each channel of the layer below, zeros at rest; a piece that starts later
    first runs over the steps that fill them.
    """
    lanes = width(x)
    kept = (taps - 1) * D if layers > 1 else 0
    block = max(cached, (kept + lanes - 1) // lanes * lanes)
    pitch, filled = kept + block, (channels + 7) // 8 * 8
    window, spare = np.empty(taps * D + block, x.dtype), np.empty(lanes, x.dtype)
    a, h = np.empty(filled * block, x.dtype), np.empty(layers * filled * pitch + lanes, x.dtype)
    for piece in range(begin, end):
        row, start = piece // pieces, skip + piece % pieces * steps
        h[:] = 0
        row_end, stop = length * D, min(start + steps, length) * D
        for n in range(max(0, start - (layers - 1) * (taps - 1)) * D, stop, block):
            count = min(block, stop - n)
            source, at = x, row * row_end + n - taps * D
            if n < taps * D or n + block - D > row_end:
                _past(x, row * row_end, row_end, n - taps * D, taps * D + block, window)
                source, at = window, 0
            p = 0
            for layer in range(layers):
                below = (layer - 1) * filled * pitch
                above = layer * filled * pitch
                for c in range(0, filled, 8):
                    if layer == 0:
                        _dense(source, at, D, taps, w, p, a, c * block, block, count)
                    else:
                        for k in range(c, c + 8):
                            for j in range(0, count, lanes):
                                s = _weighted(h, below + k * pitch, D, taps, w, p + k - c, 8, j)
                                store(a, k * block + j, _relu(s))
                    p += 8 * (taps + 1)
                for c in range(0, filled, 8):
                    _dense(a, 0, block, channels, w, p, h, above + c * pitch + kept, pitch, count)
                    p += 8 * (channels + 1)
            last = (layers - 1) * filled * pitch + kept
            to = row * (length - skip) * D - skip * D + n
            _decode(h, last, pitch, channels, w, p, out, to, max(0, start * D - n), count, spare)
            for c in range((layers - 1) * filled if n + block < stop else 0):
                for i in range(kept):
                    h[c * pitch + i] = h[c * pitch + count + i]
