"""Linear recurrences on the CPU: one pass over (B, L, H) in the order of memory, channels innermost.

A work item is one batch row and one tile of channels; it runs through all steps with what it needs per channel kept in
one block of scratch, plane beside plane (several pointers would cost the vectoriser its alias checks). With few
channels a work item is several rows side by side: blocks of their steps are copied to scratch, and the same loops run
there. Complex arrays come as real ones with real and imaginary parts side by side on the last axis: (B, L, 2H).

The factor has shape (1 or B, 1 or L, H): one step means constant over time, and it is then loaded once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdn.ops.common.cpu import TINY, TINY_DOUBLE, jit, spread

__all__ = ["backward", "forward"]

W = 1024
"""Most channels of a tile: wide enough to read memory by the page, and the planes stay in the first-level cache."""
NARROW, LANES = 32, 128
"""Up to so many channels rows are laid side by side, to about so many lanes."""
STEPS = 16
"""Steps whose products are summed in the data's own precision before they join the float64 sum."""
_TINY = {torch.float32: np.float32(TINY), torch.float64: np.float64(TINY_DOUBLE)}


def forward(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    """x[t] = a[t] x[t-1] + b[t], state components below the smallest normal number set to zero.

    Args:
        a: (1 or B, 1 or L, H).
        b: (B, L, H), same dtype: float32/64 or complex64/128.
        initial: (B, H), or None for zeros.
        reverse: x[t] = a[t] x[t+1] + b[t] instead.

    Returns:
        (B, L, H), contiguous.
    """
    x = b.new_empty(b.shape)
    _run((_forward, _forward_narrow), b, (a, b, _first(b, initial), x), reverse)
    return x


def backward(
    grad: Tensor, a: Tensor, x: Tensor | None, initial: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint recurrence l[t] = grad[t] + conj(a[t+1]) l[t+1] and its products l[t] conj(x[t-1]).

    Args:
        grad: (B, L, H), of the output.
        a: as in `forward`.
        x: (B, L, H), the output of `forward`; None where no gradient of ``a`` is wanted.
        initial: as in `forward`.
        reverse: as in `forward`.

    Returns:
        grad_b (B, L, H); the products (B, L, H), or for a constant factor their sum over time (B, 1, H), taken in
        float64 over blocks of steps, or for no ``x`` an empty (0, 1, H); grad_initial (B, H).
    """
    varying, learn = a.shape[1] > 1, x is not None
    first = _first(grad, initial)
    grad_b, grad_initial = grad.new_empty(grad.shape), torch.empty(first.shape, dtype=grad.dtype)
    products = grad.new_empty(grad.shape if varying and learn else (0, 0, 0))
    sums = torch.zeros(first.shape, dtype=torch.complex128 if grad.is_complex() else torch.float64)
    # without x any states do, since their products are not used
    arrays = (grad, a, grad if x is None else x, first, grad_b, products, sums, grad_initial)
    _run((_backward, _backward_narrow), grad, arrays, reverse)
    if not learn:
        products = grad.new_empty(0, 1, grad.shape[2])
    elif not varying:
        products = sums.to(grad.dtype)
    return grad_b, products, grad_initial.squeeze(1)


def _first(b: Tensor, initial: Tensor | None) -> Tensor:
    return b.new_zeros(b.shape[0], 1, b.shape[2]) if initial is None else initial.unsqueeze(1)


def _run(kernels: tuple[Any, Any], b: Tensor, arrays: tuple[Tensor, ...], reverse: bool) -> None:
    """Run the wide or the narrow kernel on every work item."""
    batch, _, channels = b.shape
    args = (*map(_numpy, arrays), 1 + b.is_complex(), reverse, _TINY[b.real.dtype])
    if channels <= NARROW and batch > 1:
        rows = min(batch, LANES // channels)
        spread(kernels[1], -(-batch // rows), *args, rows)
    else:
        tiles = max(-(-channels // W), min(torch.get_num_threads() // batch, channels // LANES))
        tile = -(-channels // tiles)
        spread(kernels[0], batch * -(-channels // tile), *args, tile)


def _numpy(tensor: Tensor) -> Any:
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return (torch.view_as_real(tensor).flatten(-2) if tensor.is_complex() else tensor).numpy()


# Every array of a kernel has three axes (rows, steps, channels); `parts` is 1 for real numbers and 2 for complex ones.
# A tile is n channels from `low` on. Planes of the block: state, factor; backward: factor times the adjoint of the step
# done before, factor, products not yet summed.
@jit
def _forward(a, b, initial, x, parts, reverse, tiny, tile, begin, end):  # type: ignore[no-untyped-def]
    length, channels = b.shape[1], b.shape[2] // parts
    tiles = (channels + tile - 1) // tile
    block = np.empty(2 * parts * W, b.dtype)
    for item in range(begin, end):
        row, low = item // tiles, item % tiles * tile
        n, factor = min(tile, channels - low), min(row, a.shape[0] - 1)
        _load(initial, row, low, n, parts, block, 0)
        _load(a, factor, low, n, parts, block, parts * W)
        _steps(block, a, factor, b, x, row, 0, length, reverse, low, n, parts, tiny)


@jit
def _forward_narrow(a, b, initial, x, parts, reverse, tiny, rows, begin, end):  # type: ignore[no-untyped-def]
    batch, length, width = b.shape
    block, lanes = np.empty(2 * parts * W, b.dtype), rows * width
    inputs, outputs = np.empty((1, STEPS, lanes), b.dtype), np.empty((1, STEPS, lanes), b.dtype)
    factors = np.empty((1, STEPS if a.shape[1] > 1 else 1, lanes), b.dtype)
    for item in range(begin, end):
        row = item * rows
        count = min(rows, batch - row)
        n = count * width // parts
        _gather(initial, row, count, 0, 1, inputs, 0)
        _load(inputs, 0, 0, n, parts, block, 0)
        _gather(a, row, count, 0, 1, factors, 0)
        _load(factors, 0, 0, n, parts, block, parts * W)
        for done in range(0, length, STEPS):
            steps = min(STEPS, length - done)
            t = length - done - steps if reverse else done
            _gather(b, row, count, t, steps, inputs, 0)
            if a.shape[1] > 1:
                _gather(a, row, count, t, steps, factors, 0)
            _steps(block, factors, 0, inputs, outputs, 0, 0, steps, reverse, 0, n, parts, tiny)
            _scatter(outputs, row, count, t, steps, x)


@jit
def _steps(block, a, factor, b, x, row, t, steps, down, low, n, parts, tiny):  # type: ignore[no-untyped-def]
    """Steps t .. t + steps - 1 of one tile, from the last to the first if ``down``."""
    zero = block.dtype.type(0)
    first, last = parts * low, parts * (low + n)
    for k in range(steps):
        s = t + (steps - 1 - k if down else k)
        inputs, outputs = b[row, s, first:last], x[row, s, first:last]
        if parts == 1:
            if a.shape[1] > 1:
                factors = a[factor, s, first:last]
                for j in range(n):
                    block[W + j] = factors[j]
            for j in range(n):
                u = block[W + j] * block[j] + inputs[j]
                u = zero if abs(u) < tiny else u
                block[j] = u
                outputs[j] = u
        else:
            if a.shape[1] > 1:
                factors = a[factor, s, first:last]
                for j in range(n):
                    block[2 * W + j] = factors[2 * j]
                    block[3 * W + j] = factors[2 * j + 1]
            for j in range(n):
                re, im, fr, fi = block[j], block[W + j], block[2 * W + j], block[3 * W + j]
                u = fr * re - fi * im + inputs[2 * j]
                v = fr * im + fi * re + inputs[2 * j + 1]
                u = zero if abs(u) < tiny else u
                v = zero if abs(v) < tiny else v
                block[j] = u
                block[W + j] = v
                outputs[2 * j] = u
                outputs[2 * j + 1] = v


@jit
def _backward(  # type: ignore[no-untyped-def]
    grad, a, x, initial, grad_b, products, sums, grad_initial, parts, reverse, tiny, tile, begin, end
):
    length, channels = grad.shape[1], grad.shape[2] // parts
    tiles = (channels + tile - 1) // tile
    block = np.empty(3 * parts * W, grad.dtype)
    for item in range(begin, end):
        row, low = item // tiles, item % tiles * tile
        n, factor = min(tile, channels - low), min(row, a.shape[0] - 1)
        block[:] = 0
        _load(a, factor, low, n, parts, block, parts * W)
        args = (low, n, parts, tiny)
        for done in range(0, length, STEPS):
            steps = min(STEPS, length - 1 - done)  # the step that follows on the initial state comes by itself
            t = done if reverse else length - done - steps
            shift = 1 if reverse else -1
            _steps_back(block, grad, a, factor, x, row, shift, grad_b, products, row, t, steps, not reverse, *args)
            if done + STEPS >= length:
                t = length - 1 if reverse else 0
                _steps_back(block, grad, a, factor, initial, row, -t, grad_b, products, row, t, 1, False, *args)
            _add(block, 2 * parts * W, sums, row, low, n, parts)
        _store(block, grad_initial, row, low, n, parts)


@jit
def _backward_narrow(  # type: ignore[no-untyped-def]
    grad, a, x, initial, grad_b, products, sums, grad_initial, parts, reverse, tiny, rows, begin, end
):
    batch, length, width = grad.shape
    block, lanes = np.empty(3 * parts * W, grad.dtype), rows * width
    inputs, outputs = np.empty((1, STEPS, lanes), grad.dtype), np.empty((1, STEPS, lanes), grad.dtype)
    states = np.empty((1, STEPS, lanes), grad.dtype)
    factors = np.empty((1, STEPS if a.shape[1] > 1 else 1, lanes), grad.dtype)
    written = np.empty((1 if products.shape[0] else 0, STEPS, lanes), grad.dtype)
    total = np.empty((1, 1, lanes), sums.dtype)
    for item in range(begin, end):
        row = item * rows
        count = min(rows, batch - row)
        n = count * width // parts
        block[:] = 0
        total[:] = 0
        _gather(a, row, count, 0, 1, factors, 0)
        _load(factors, 0, 0, n, parts, block, parts * W)
        for done in range(0, length, STEPS):
            steps = min(STEPS, length - done)
            t = done if reverse else length - done - steps
            _gather(grad, row, count, t, steps, inputs, 0)
            if a.shape[1] > 1:
                _gather(a, row, count, t, steps, factors, 0)
            if reverse and t + steps == length:
                _gather(initial, row, count, 0, 1, states, steps - 1)
                _gather(x, row, count, t + 1, steps - 1, states, 0)
            elif not reverse and t == 0:
                _gather(initial, row, count, 0, 1, states, 0)
                _gather(x, row, count, 0, steps - 1, states, 1)
            else:
                _gather(x, row, count, t + 1 if reverse else t - 1, steps, states, 0)
            _steps_back(
                block, inputs, factors, 0, states, 0, 0, outputs, written, 0, 0, steps, not reverse, 0, n, parts, tiny
            )
            _add(block, 2 * parts * W, total, 0, 0, n, parts)
            _scatter(outputs, row, count, t, steps, grad_b)
            if products.shape[0]:
                _scatter(written, row, count, t, steps, products)
        _scatter(total, row, count, 0, 1, sums)
        _store(block, outputs, 0, 0, n, parts)
        _scatter(outputs, row, count, 0, 1, grad_initial)


@jit
def _steps_back(  # type: ignore[no-untyped-def]
    block, grad, a, factor, x, xrow, shift, grad_b, products, row, t, steps, down, low, n, parts, tiny
):
    """Adjoint steps as in `_steps`; the state before step s is x[xrow, s + shift]."""
    zero = block.dtype.type(0)
    first, last = parts * low, parts * (low + n)
    for k in range(steps):
        s = t + (steps - 1 - k if down else k)
        inputs, states, outputs = grad[row, s, first:last], x[xrow, s + shift, first:last], grad_b[row, s, first:last]
        if parts == 1:
            if a.shape[1] > 1:
                factors = a[factor, s, first:last]
                for j in range(n):
                    block[W + j] = factors[j]
            for j in range(n):
                adjoint = block[j] + inputs[j]
                outputs[j] = adjoint
                block[2 * W + j] += adjoint * states[j]
                u = block[W + j] * adjoint
                block[j] = zero if abs(u) < tiny else u
            if products.shape[0]:
                written = products[row, s, first:last]
                for j in range(n):
                    written[j] = block[2 * W + j]
                    block[2 * W + j] = zero
        else:
            if a.shape[1] > 1:
                factors = a[factor, s, first:last]
                for j in range(n):
                    block[2 * W + j] = factors[2 * j]
                    block[3 * W + j] = factors[2 * j + 1]
            for j in range(n):
                re, im = block[j] + inputs[2 * j], block[W + j] + inputs[2 * j + 1]
                outputs[2 * j] = re
                outputs[2 * j + 1] = im
                xr, xi = states[2 * j], states[2 * j + 1]
                block[4 * W + j] += re * xr + im * xi
                block[5 * W + j] += im * xr - re * xi
                fr, fi = block[2 * W + j], block[3 * W + j]
                u = fr * re + fi * im
                v = fr * im - fi * re
                block[j] = zero if abs(u) < tiny else u
                block[W + j] = zero if abs(v) < tiny else v
            if products.shape[0]:
                written = products[row, s, first:last]
                for j in range(n):
                    written[2 * j] = block[4 * W + j]
                    written[2 * j + 1] = block[5 * W + j]
                    block[4 * W + j] = zero
                    block[5 * W + j] = zero


# ---- between planes and arrays: a complex number's parts lie W apart in planes, side by side in arrays
@jit
def _load(array, row, low, n, parts, block, plane):  # type: ignore[no-untyped-def]
    for j in range(n):
        for part in range(parts):
            block[plane + part * W + j] = array[row, 0, parts * (low + j) + part]


@jit
def _store(block, array, row, low, n, parts):  # type: ignore[no-untyped-def]
    for j in range(n):
        for part in range(parts):
            array[row, 0, parts * (low + j) + part] = block[part * W + j]


@jit
def _add(block, plane, array, row, low, n, parts):  # type: ignore[no-untyped-def]
    """Move the sums of a few steps out of the block, to where they are summed more precisely."""
    zero = block.dtype.type(0)
    values = array[row, 0, parts * low : parts * (low + n)]
    for part in range(parts):
        for j in range(n):
            values[parts * j + part] += block[plane + part * W + j]
            block[plane + part * W + j] = zero


# ---- between rows and lanes
@jit
def _gather(array, row, count, t, steps, lanes, at):  # type: ignore[no-untyped-def]
    """Steps t .. t + steps - 1 of some rows, to the steps of the lanes from ``at`` on."""
    width = array.shape[2]
    for r in range(count):
        source = array[min(row + r, array.shape[0] - 1)]
        if width <= 2:  # the longer loop inside
            for c in range(width):
                for k in range(steps):
                    lanes[0, at + k, r * width + c] = source[t + k, c]
        else:
            for k in range(steps):
                for c in range(width):
                    lanes[0, at + k, r * width + c] = source[t + k, c]


@jit
def _scatter(lanes, row, count, t, steps, array):  # type: ignore[no-untyped-def]
    width = array.shape[2]
    for r in range(count):
        target = array[row + r]
        if width <= 2:
            for c in range(width):
                for k in range(steps):
                    target[t + k, c] = lanes[0, k, r * width + c]
        else:
            for k in range(steps):
                for c in range(width):
                    target[t + k, c] = lanes[0, k, r * width + c]
