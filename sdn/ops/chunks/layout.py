"""What both backends of the chunks share."""

from torch import Tensor
from torch.nn.functional import pad

from sdn.compiler.neuron import WATCH
from sdn.compiler.programs import program

__all__ = ["from_lanes", "side", "states_from_lanes", "states_to_lanes", "to_lanes"]


def side(key: str) -> int:
    """D, the fields of a state without the program's own."""
    states = program(key).step.states
    return len(states) - (states[-1] == WATCH)


def to_lanes(x: Tensor, chunk: int) -> Tensor:
    """(B, L, H) -> (1, chunk, n B H), all chunks side by side, the last one filled up with zeros."""
    batch, length, channels = x.shape
    count = -(-length // chunk)
    whole = pad(x, (0, 0, 0, count * chunk - length))
    return whole.reshape(batch, count, chunk, channels).permute(2, 1, 0, 3).reshape(1, chunk, -1)


def from_lanes(x: Tensor, batch: int, length: int) -> Tensor:
    """The way back of `to_lanes`."""
    chunk = x.shape[1]
    whole = x.reshape(chunk, -(-length // chunk), batch, -1).permute(2, 1, 0, 3)
    return whole.reshape(batch, -1, whole.shape[3])[:, :length]


def states_to_lanes(states: Tensor) -> Tensor:
    """(B, n, S, H) -> (1, S, n B H)."""
    return states.permute(2, 1, 0, 3).reshape(1, states.shape[2], -1)


def states_from_lanes(states: Tensor, batch: int, count: int) -> Tensor:
    """The way back of `states_to_lanes`."""
    return states.reshape(states.shape[1], count, batch, -1).permute(2, 1, 0, 3)
