"""What every backend of the neuron operators shares: sizes, and how (B, L, H) lies in memory as rows of lanes."""

from typing import NamedTuple

from torch import Tensor

__all__ = [
    "NARROW", "STRIDE", "Kernel", "as_saved", "from_rows", "lay_out", "spikes_like", "to_rows",
]  # fmt: skip

STRIDE = 64
NARROW = 32
"""Below so many channels the rows of a batch are laid side by side, so that the inner loop stays long."""


def lay_out(current: Tensor) -> tuple[int, int]:
    """Rows and lanes that a kernel sees: (B, H), or (1, B H) where H is small."""
    batch, _, channels = current.shape
    return (1, batch * channels) if batch > 1 and channels < NARROW else (batch, channels)


def spikes_like(current: Tensor) -> Tensor:
    """An empty (B, L, H), with the lanes of one step side by side in memory."""
    batch, length, channels = current.shape
    if lay_out(current)[0] == batch:
        return current.new_empty(batch, length, channels)
    return current.new_empty(length, batch, channels).transpose(0, 1)


def to_rows(x: Tensor, rows: int) -> Tensor:
    """(B, L, H) or (B, S, H) as (rows, L or S, lanes), the lanes side by side in memory: a view where that is one."""
    x = x.detach() if rows == len(x) else x.detach().transpose(0, 1).reshape(rows, x.shape[1], -1)
    return x if x.stride(2) == 1 else x.contiguous()


def from_rows(state: Tensor, batch: int) -> Tensor:
    """(rows, S, lanes) as contiguous (B, S, H)."""
    return state if len(state) == batch else state.reshape(state.shape[1], batch, -1).transpose(0, 1).contiguous()


def as_saved(states: Tensor) -> Tensor:
    """States (B, n, S, H) before every 64th step, laid out as the operators keep them: (rows, n, S, lanes)."""
    batch, _, _, channels = states.shape
    if lay_out(states[:, :, 0])[0] == batch:
        return states.contiguous()
    return states.permute(1, 2, 0, 3).reshape(1, *states.shape[1:3], batch * channels)


class Kernel(NamedTuple):
    """One neuron as its kernel sees it."""

    program: str
    """Key of its program, see `sdn.compiler.programs`."""
    fixed: Tensor
    """(P, H) what the program reads per channel."""
    numbers: list[float]
    """What is one number for all channels."""
