"""The linear recurrence of small matrices, ``x[t] = A[t] x[t-1] + b[t]``, by a tree of products."""

import torch
from torch import Tensor

__all__ = ["scan_matrices"]


def scan_matrices(A: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """All states of a recurrence, in log2(L) rounds of batched products; differentiable in every argument.

    Args:
        A: (B, L, H, n, n).
        b: (B, L, H, n).
        initial: (B, H, n), the state before the first step.

    Returns:
        (B, L, H, n), the state after every step.
    """
    start = b[:, :1] + torch.einsum("bthij,bhj->bthi", A[:, :1], initial)
    return _all(A, torch.cat([start, b[:, 1:]], 1))


def _all(A: Tensor, b: Tensor) -> Tensor:
    """The recurrence from a state of zero: pairs of steps become one, are solved, and give the steps between."""
    length = b.shape[1]
    if length == 1:
        return b
    even = length // 2 * 2
    left, right = slice(0, even, 2), slice(1, even, 2)
    pairs = torch.einsum("...ij,...j->...i", A[:, right], b[:, left]) + b[:, right]
    odd = _all(A[:, right] @ A[:, left], pairs)
    between = torch.einsum("...ij,...j->...i", A[:, 2:even:2], odd[:, :-1]) + b[:, 2:even:2]
    out = torch.stack([torch.cat([b[:, :1], between], 1), odd], 2).flatten(1, 2)
    if even == length:
        return out
    last = torch.einsum("bhij,bhj->bhi", A[:, -1], odd[:, -1]) + b[:, -1]
    return torch.cat([out, last.unsqueeze(1)], 1)
