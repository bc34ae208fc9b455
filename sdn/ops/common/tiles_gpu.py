"""Tiles of the Triton kernels: rows of one step, one field or one parameter each, one lane to a thread."""

import triton
import triton.language as tl

__all__ = [
    "join_four", "load_rows", "normal", "part_six", "part_three", "pick_row", "put_row", "spike_of", "store_rows",
]  # fmt: skip


# ---- The number of rows of a tile is a power of 2.
@triton.jit
def load_rows(pointer, begin, end, distance, inside, T: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows ``begin .. begin + T - 1``, which are ``distance`` apart in memory; 0 from row ``end`` on."""
    rows = (begin + tl.arange(0, T))[:, None]
    return tl.load(pointer + rows.to(tl.int64) * distance, mask=(rows < end) & inside, other=0.0)


@triton.jit
def store_rows(pointer, begin, end, distance, inside, tile):  # type: ignore[no-untyped-def]
    """The way back of `load_rows`."""
    rows = (begin + tl.arange(0, tile.shape[0]))[:, None]
    tl.store(pointer + rows.to(tl.int64) * distance, tile, mask=(rows < end) & inside)


@triton.jit
def pick_row(tile, k):  # type: ignore[no-untyped-def]
    """Row k. A sum of bits, of which all but one term are 0: the compiler reduces it to the register of that row."""
    whole: tl.constexpr = tl.int64 if tile.dtype == tl.float64 else tl.int32
    rows = tl.arange(0, tile.shape[0])[:, None]
    picked = tl.where(rows == k, tile.to(whole, bitcast=True), 0)
    return tl.sum(picked, 0, keep_dims=True).to(tile.dtype, bitcast=True)


@triton.jit
def put_row(tile, k, row):  # type: ignore[no-untyped-def]
    """The tile with ``row`` in place of its row k."""
    return tl.where(tl.arange(0, tile.shape[0])[:, None] == k, row, tile)


@triton.jit
def part_three(tile):  # type: ignore[no-untyped-def]
    """The first rows of a tile."""
    return pick_row(tile, 0), pick_row(tile, 1), pick_row(tile, 2)


@triton.jit
def part_six(tile):  # type: ignore[no-untyped-def]
    """The first rows of a tile."""
    return (
        pick_row(tile, 0),
        pick_row(tile, 1),
        pick_row(tile, 2),
        pick_row(tile, 3),
        pick_row(tile, 4),
        pick_row(tile, 5),
    )


@triton.jit
def join_four(a, b, c, d):  # type: ignore[no-untyped-def]
    """A tile of these rows."""
    tile = tl.zeros((4, a.shape[1]), a.dtype)
    return put_row(put_row(put_row(put_row(tile, 0, a), 1, b), 2, c), 3, d)


@triton.jit
def spike_of(fires, distance):  # type: ignore[no-untyped-def]
    """1 where the neuron fires and 0 where not; NaN where its distance to the threshold is NaN or infinite."""
    return tl.where(tl.abs(distance) < float("inf"), fires.to(distance.dtype), float("nan"))


@triton.jit
def normal(u):  # type: ignore[no-untyped-def]
    """``u``, or 0 where it is smaller than any normal float32, as on the CPU."""
    if u.dtype == tl.float64:
        return tl.where(tl.abs(u) < 2.2250738585072014e-308, 0.0, u)
    return tl.where(tl.abs(u) < 1.1754943508222875e-38, 0.0, u)
